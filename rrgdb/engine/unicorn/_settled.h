/* Blocks of which it is settled at their entry that no instruction has to be looked at, in the slow phase of a guest that
 * translates addresses: plain ones, with no points, and no limit within. What is left for each instruction is to count it
 * and to see that its bytes are still those that were translated.
 *
 * A plan is what was found of a block by its bytes; it is looked up by where they are and holds for these bytes alone.
 */
#pragma once
#include "_core.h"
#include "_family.h"
#include "_footprint.h"
#include "_memory.h"

static int all_plain(const Family *f, Core *c, uint64_t addr, const uint8_t *b, uint32_t size)
{
    uint32_t needs = 0, results = 0;
    for (uint32_t at = 0, n; at < size; at += n) {
        n = f->plain_length(c, b + at, size - at);
        if (!n)
            return 0;
    }
    return !f->block_needs || (f->block_needs(c, addr, b, size, &needs, &results) && !needs && !results);
}

/* Whether the block that begins is settled; then it is entered. */
ALWAYS_INLINE int enter_settled(const Family *f, Core *c, uint64_t addr, uint32_t size)
{
    uint32_t offset = (uint32_t)(addr & PAGE_MASK);
    c->settled = 0;
    if (!c->fast || !c->mmu_seen || !size || size > PLAN_BYTES || offset + size > PAGE)
        return 0;
    const uint8_t *page = code_page(c, addr);
    if (!page)
        return 0;
    const uint8_t *host = page + offset;
    plan *p = &c->plans[mix((uint64_t)(uintptr_t)host + ((uint64_t)size << 48)) & (PLANS - 1)];
    if (p->host != host || p->addr != addr || p->size != size || memcmp(p->bytes, host, size) != 0) {
        p->host = host;
        p->addr = addr;
        p->size = size;
        p->epoch = 0;
        memcpy(p->bytes, host, size);
        p->plain = all_plain(f, c, addr, p->bytes, size);
    }
    if (!p->plain || c->points || c->interrupt || c->icount + size > c->limit || !f->settles(c))
        return 0;
    mark_code(c, page);
    if (p->epoch != c->epoch)
        note_code(c, addr, size);
    p->epoch = c->epoch;
    c->seen = c->block = addr;
    c->seen_size = c->settled = size;
    c->settled_host = host;
    c->settled_bytes = p->bytes;
    c->block_size = 0;
    c->exact_pc = NO_PC;
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
        keep_state(c);
        return 1;
    }
    memcpy(c->block_bytes, c->settled_bytes, c->settled);
    c->block_size = c->settled;
    c->settled = 0;
    return 0;
}
