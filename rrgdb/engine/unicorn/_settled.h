/* Blocks of which it is settled at their entry that no instruction has to be looked at, in the slow phase of a guest that
 * translates addresses: plain ones, with no points, and no limit within. What is left for each instruction is to count it
 * and to see that its bytes are still those that were translated.
 *
 * A plan is what was found of a block by its bytes; it is looked up by where they are and holds for these bytes alone.
 */
#pragma once
#include "_core.h"
#include "_cover.h"
#include "_family.h"
#include "_footprint.h"
#include "_memory.h"
#include "_whole.h"

/* Look at the bytes of a plan: what of them holds for good. */
static void look_over(const Family *f, Core *c, plan *p)
{
    uint32_t needs = 0, results = 0;
    uint8_t state = 0;
    p->plain = p->unmasks = p->indivisible = p->asks = 0;
    p->count = 0;
    for (uint32_t at = 0, n; at < p->size; at += n) {
        n = f->plain_length(c, p->bytes + at, p->size - at);
        if (!n)
            return;
        p->indivisible |= n == 4 && f->indivisible && f->indivisible(c, p->bytes + at);
        p->unmasks |= f->unmasks && f->unmasks(c, p->bytes + at, n);
        p->asks |= f->asks_bounds && f->asks_bounds(c, p->bytes + at, n, &state);
        p->count++;
    }
    p->plain = !f->block_needs || (f->block_needs(c, p->addr, p->bytes, p->size, &needs, &results) && !needs && !results);
}

/* Whether a breakpoint stands in a block. */
static int points_within(const Core *c, uint64_t addr, uint32_t size)
{
    if (!c->bp_count || !c->bp_pages[addr >> 12 & 255])
        return 0;
    for (uint64_t i = 0; i <= c->bp_mask; i++)
        if (c->bps[i].used && c->bps[i].address - addr < size)
            return 1;
    return 0;
}

/* Where instructions have hooks that ask for bounds, Unicorn does not look at its exit flag: a store is left by a hook for
 * invalid memory, which lies over the page of the block and those of watched bytes, but maybe not before them. */
static int leaves_late(const Core *c, const plan *p)
{
    return !c->bounds || c->watch_count || (p->addr & PAGE_MASK) < MAX_ACCESS;
}

/* Whether the block that begins is settled; then it is entered. end: where the hook returns to; NULL: it cannot be counted as a
 * whole. */
ALWAYS_INLINE int enter_settled(const Family *f, Core *c, uint64_t addr, uint32_t size, const uint8_t *end)
{
    uint32_t offset = (uint32_t)(addr & PAGE_MASK);
    int look = c->look_next, again = size && addr == c->block && (size == c->settled || size == c->block_size);
    c->settled = c->look_next = 0;
    if (look || !c->fast || c->bare || !c->mmu_seen || !size || size > PLAN_BYTES || offset + size > PAGE)
        return 0;
    const uint8_t *page = code_page(c, addr);
    if (!page)
        return 0;
    const uint8_t *host = page + offset;
    plan *p = plan_of(c, host, size);
    uint8_t second = (uint8_t)in_second(f, c);
    int same = p->host == host && p->addr == addr && p->size == size && p->second == second;
    if (!same || memcmp(p->bytes, host, size) != 0) {
        if (again && same) { /* see enter_block */
            c->block_size = 0;
            stop(c, R_SMC, addr);
            return 1;
        }
        uint8_t *bytes = size > p->size ? realloc(p->bytes, size) : p->bytes;
        if (!bytes)
            return 0;
        p->bytes = bytes;
        p->host = host;
        p->addr = addr;
        p->size = size;
        p->second = second;
        p->epoch = 0;
        memcpy(p->bytes, host, size);
        look_over(f, c, p);
    }
    if (!p->plain || (c->watch_count && (!c->watches_asked || walks_write(f, c))) || c->range_on || c->interrupt)
        return 0;
    if (c->icount + p->count > c->limit || !f->settles(c) || points_within(c, addr, size))
        return 0;
    mark_code(c, page);
    if (p->epoch != c->epoch)
        note_code(c, addr, size);
    p->epoch = c->epoch;
    c->seen = c->block = addr;
    c->seen_size = size;
    c->block_size = 0;
    c->exact_pc = NO_PC;
    int whole = end && c->mapping && !p->indivisible && !(p->asks && leaves_late(c, p));
    if (whole && enter_whole(f, c, p, end))
        return 1;
    if (c->watch_count || !end || p->asks)
        return 0;
    if (f->block_counted)
        f->block_counted(c, 0);
    c->settled = size;
    c->settled_host = host;
    c->settled_bytes = p->bytes;
    return 1;
}

/* Nonzero: the instruction was counted, and runs next. Otherwise it has to be looked at, and so have those behind it. */
static inline int count_settled(Core *c, uint64_t addr, uint32_t size)
{
    uint64_t at = addr - c->block;
    if (at >= c->settled)
        return 0;
    if (c->icount < c->limit && at + size <= c->settled && same_bytes(c->settled_host + at, c->settled_bytes + at, size)) {
        c->last_pc = addr;
        c->last_size = size;
        c->icount++;
        c->looked++;
        keep_state(c);
        return 1;
    }
    memcpy(c->block_bytes, c->settled_bytes, c->settled);
    c->block_size = c->settled;
    c->settled = 0;
    return 0;
}
