/* The fast gear: blocks are counted, not instructions.
 *
 * While RAM is flat, Unicorn runs on a virtual TLB that this file fills. In the fast phase a plain block is counted as a
 * whole when it is entered. Blocks in which something may happen (an instruction that traps, an access to a device, a
 * breakpoint, code on a page that is written to) are exact: they keep the slow gear's hook on each of their instructions.
 * What does not fit before the limit is left to the tail phase, which counts every instruction of that one block. A plain
 * block's accesses to anything but RAM, to watched bytes and its stores into pages that hold code are refused: the
 * instruction has not happened then, and the block is made exact, or the tail phase does it.
 *
 * Plain is what cannot trap by design, talks to no port, and can be refused an access and begin again as if nothing had
 * happened. All else, and what a family does not know, is not.
 */
#pragma once
#include "_core.h"
#include "_cover.h"
#include "_family.h"
#include "_footprint.h"
#include "_inline.h"
#include "_memory.h"
#include "_points.h"
#include "_script.h"
#include "_watch.h"

/* why a block's instructions are looked at one by one: for good, and as long as nothing changes */
enum { BLOCK_EXACT = 1, BLOCK_MIXED = 2, BLOCK_POINT = 4, BLOCK_WATCHED = 8, BLOCK_CLOSE = 15 };
enum { BLOCK_HOOKED = 16, BLOCK_INDIVISIBLE = 32, BLOCK_UNMASKS = 256 };
enum { BLOCK_QUIET = 64, BLOCK_UNHOOKED = 128 }; /* quiet breakpoints stand in it; they lack hooks */

#define MAX_TAILS 64
#define FIRST_BLOCKS (1 << 14)
#define SHORT_BYTES (3 * PAGE) /* that have the slow gear's hook in a short run, from the beginning of a page */
#define MIN_FAST 256 /* instructions below which the fast phase is not worth its switch */
#define TAILS_WITHIN 20000
#define SHORTEST_SPELL 50000
#define LONGEST_SPELL 10000000
#define MANY_HITS 8 /* of watched bytes by one block: from then on its instructions are looked at */

/* Whether an access may happen, and where. What is counted as a whole may access RAM alone. */
ALWAYS_INLINE bool fill_tlb(const Family *f, Core *c, uint64_t va, int type, tlb_result *result)
{
    int whole = c->phase == PHASE_FAST && !c->exact;
    va &= c->address_mask; /* what runs over the top goes on at 0 */
    const region *memory = region_at(c, va);
    uint8_t *host = memory && !(memory->store && type == UC_MEM_WRITE) ? memory->host + (va - memory->base) : NULL;
    int allowed = f->grants ? f->grants(c, va, type, whole) : UC_PROT_RWX;
    if (!allowed)
        return false;
    result->paddr = va; /* of a page of the target, which may be smaller than ours */
    if (!host) {
        if (whole) {
            c->refused = REFUSED_DEVICE;
            return false;
        }
        if (c->guard_base && va - c->guard_base < GUARD_SIZE)
            result->paddr += GUARD_SIZE; /* nothing is there, for the guest */
        c->device_granted = 1;
        result->perms = allowed;
        return true;
    }
    uint8_t *flags = &c->page_flags[(uint64_t)(host - c->ram) >> 12];
    if (type == UC_MEM_FETCH) {
        if (*flags & PAGE_GUARDED)
            c->unguard = c->tlb_stale = 1;
        *flags |= PAGE_CODE;
        *flags &= (uint8_t)~PAGE_WRITTEN;
    } else if (type == UC_MEM_WRITE) {
        if (*flags & PAGE_CODE) {
            if (whole && !(*flags & PAGE_MIXED)) {
                c->refused = REFUSED_CODE;
                return false;
            }
            c->checked += !(*flags & PAGE_MIXED);
            *flags |= PAGE_MIXED;
        } else {
            *flags |= PAGE_WRITTEN;
        }
    }
    if (*flags & PAGE_MIXED)
        result->perms = UC_PROT_RWX;
    else if (*flags & PAGE_CODE)
        result->perms = UC_PROT_RX;
    else
        result->perms = *flags & PAGE_WRITTEN ? UC_PROT_RW : UC_PROT_READ;
    result->perms &= allowed;
    if ((*flags & (PAGE_GUARDED | PAGE_CODE)) == PAGE_GUARDED) {
        uint64_t page = va & ~(uint64_t)PAGE_MASK;
        result->paddr = c->guard_base + (uint64_t)guard_number(c->guards, c->guard_count, page) * PAGE + (va & PAGE_MASK);
    }
    return true;
}

/* Key of the block at addr: in the second instruction set other instructions stand there. */
ALWAYS_INLINE uint64_t block_key(const Family *f, const Core *c, uint64_t addr)
{
    return addr | (uint64_t)in_second(f, c);
}

static block_entry *block_slot(Core *c, uint64_t key, uint32_t size)
{
    uint64_t i = mix(key + ((uint64_t)size << 48)) & c->block_mask;
    while (c->blocks[i].size && !(c->blocks[i].key == key && c->blocks[i].size == size))
        i = (i + 1) & c->block_mask;
    return &c->blocks[i];
}

static void forget_blocks(Core *c)
{
    forget_sites(c);
    if (c->block_count)
        memset(c->blocks, 0, (c->block_mask + 1) * sizeof *c->blocks);
    c->block_count = c->copies_used = 0;
    for (int i = 0; i < MAX_POINT_HOOKS; i++)
        c->point_hooks[i].block = NO_PC;
}

/* No block keeps its instruction hook: those that need one will ask again. */
static void forget_exact(Core *c)
{
    for (int i = 0; i < c->exact_count; i++)
        c->hook_del(c->uc, c->exact_blocks[i].hook);
    c->exact_count = 0;
    forget_sites(c);
    for (uint64_t i = 0; i <= c->block_mask; i++)
        c->blocks[i].flags &= ~(uint32_t)BLOCK_HOOKED;
    c->ctl(c->uc, CTL_TB_FLUSH);
}

/* What follows is counted by blocks: devices are out of its reach. */
static void leave_exact(Core *c)
{
    c->exact = 0;
    c->last_pc = NO_PC;
    if (c->device_granted) {
        c->ctl(c->uc, CTL_TLB_FLUSH);
        c->device_granted = 0;
    }
}

/* A block of which every instruction is looked at begins. If it has jumped to itself, after it wrote into itself, the run is
 * left: Unicorn has dropped the block, but not that jump. */
static void enter_block(Core *c, uint64_t addr, uint32_t size)
{
    uint8_t now[MAX_BLOCK];
    if (size > MAX_BLOCK)
        size = MAX_BLOCK;
    if (size && addr == c->block && size == c->block_size && copy_code(c, addr, now, size) == size &&
        memcmp(now, c->block_bytes, size) != 0) {
        stop(c, R_SMC, addr);
        return;
    }
    uint8_t *first = code_page(c, addr);
    if (first)
        mark_code(c, first);
    if (size && ((addr ^ (addr + size - 1)) & ~(uint64_t)PAGE_MASK)) {
        uint8_t *last = code_page(c, addr + size - 1);
        if (last)
            mark_code(c, last);
    }
    c->exact_pc = NO_PC;
    c->entered = size;
    if (addr != c->seen || size != c->seen_size)
        note_code(c, addr, size);
    c->block = addr;
    c->block_size = c->family->restarts_itself ? 0 : copy_code(c, addr, c->block_bytes, size);
}

static int grow_blocks(Core *c)
{
    if (c->block_count * 2 <= c->block_mask)
        return 1;
    block_entry *old = c->blocks;
    uint64_t n = c->block_mask + 1;
    block_entry *bigger = calloc(2 * n, sizeof *bigger);
    if (!bigger)
        return 0;
    c->blocks = bigger;
    c->block_mask = 2 * n - 1;
    for (uint64_t i = 0; i < n; i++)
        if (old[i].size)
            *block_slot(c, old[i].key, old[i].size) = old[i];
    free(old);
    return 1;
}

/* The flags of a block; without BLOCK_EXACT it may be counted as a whole: it holds n plain instructions. */
static uint32_t block_flags(Core *c, uint64_t addr, uint32_t size, uint32_t n, uint32_t *needs, uint32_t *results)
{
    const Family *f = c->family;
    uint8_t bytes[MAX_BLOCK];
    *needs = *results = 0;
    if (size > MAX_BLOCK || copy_code(c, addr, bytes, size) != size)
        return BLOCK_EXACT;
    uint32_t at = 0, count = 0, flags = 0;
    while (at < size) {
        uint32_t length = f->plain_length(c, bytes + at, size - at);
        if (!length)
            return BLOCK_EXACT;
        /* an exact block may overlap with this one, so there may be hooks in it */
        if (at && f->keeps_flags && f->keeps_flags(c, bytes + at, length))
            return BLOCK_EXACT;
        if (length == 4 && f->indivisible && f->indivisible(c, bytes + at))
            flags |= BLOCK_INDIVISIBLE;
        if (f->unmasks && f->unmasks(c, bytes + at, length))
            flags |= BLOCK_UNMASKS;
        at += length;
        count++;
    }
    if (f->block_needs && !f->block_needs(c, addr, bytes, size, needs, results))
        return BLOCK_EXACT;
    if (c->bare && (flags & BLOCK_INDIVISIBLE || script_exact(c, addr, bytes, size)))
        return BLOCK_EXACT;
    return count == n ? flags : BLOCK_EXACT;
}

/* The flags of the block at addr that come of the breakpoints in it. */
static uint32_t point_flags(Core *c, const block_entry *e, uint64_t addr)
{
    uint32_t size = e->size, flags = 0;
    if (!c->bp_pages[addr >> 12 & 255] && !c->bp_pages[(addr + size - 1) >> 12 & 255])
        return 0;
    for (uint64_t i = 0; i <= c->bp_mask; i++) {
        const bp_entry *point = &c->bps[i];
        if (!point->used || point->address - addr >= size)
            continue;
        if (c->bare || !is_quiet(c, point))
            return BLOCK_POINT;
        flags |= point_hook_at(c, point->address) ? BLOCK_QUIET : BLOCK_QUIET | BLOCK_UNHOOKED;
    }
    int second = addr != e->key;
    return flags && second && c->family->passes_over(c, addr, size) ? BLOCK_POINT : flags;
}

/* From now on the instructions of a block are looked at one by one, for a reason out of BLOCK_CLOSE, or, if there is none,
 * those with breakpoints; zero: it cannot be. */
static int look_close(Core *c, uint64_t addr, uint32_t size, uint32_t reason)
{
    uint64_t key = block_key(c->family, c, addr);
    block_entry *e = block_slot(c, key, size);
    if (!e->size)
        return 0;
    e->flags |= reason;
    if (!(e->flags & BLOCK_CLOSE)) {
        e->flags &= ~(uint32_t)BLOCK_UNHOOKED;
        if (place_point_hooks(c, addr, size))
            return 1;
        e->flags |= BLOCK_POINT;
    }
    forget_sites(c);
    if (e->flags & BLOCK_HOOKED)
        return 1;
    int known = 0;
    for (int i = 0; i < c->exact_count; i++)
        known |= c->exact_blocks[i].key == key && c->exact_blocks[i].size == size;
    if (!known) {
        if (c->exact_count == MAX_EXACT)
            forget_exact(c);
        exact_entry *x = &c->exact_blocks[c->exact_count];
        *x = (exact_entry){addr, key, size, 0};
        /* an instruction that cannot be decoded is not part of its block's size */
        if (c->hook_add(c->uc, &x->hook, UC_HOOK_CODE, c->hooks->exact_code, c, addr, addr + size - 1 + MAX_INSN))
            return 0;
        c->exact_count++;
        c->ctl(c->uc, CTL_TB_REMOVE, addr, addr + size);
    }
    e->flags |= BLOCK_HOOKED;
    return 1;
}

static block_entry *add_block(Core *c, uint64_t addr, uint32_t size, uint32_t count)
{
    uint32_t needs, results, flags = block_flags(c, addr, size, count, &needs, &results);
    const uint8_t *first = code_page(c, addr), *last = code_page(c, addr + size - 1);
    if (!first || !last || !grow_blocks(c))
        return NULL;
    uint64_t key = block_key(c->family, c, addr);
    block_entry *e = block_slot(c, key, size);
    uint32_t pages[2] = {(uint32_t)((first - c->ram) >> 12), (uint32_t)((last - c->ram) >> 12)};
    c->block_count += !e->size;
    *e = (block_entry){key, size, count, flags, 0, c->checked - 1, 0, pages[0], pages[1], needs, results, 0};
    if (c->bare && !keep_copy(c, e, addr))
        e->flags |= BLOCK_EXACT;
    mark_code(c, first);
    mark_code(c, last);
    return e;
}

/* A block seen for the first time; NULL if the fast phase was left. */
static block_entry *new_block(Core *c, uint64_t addr, uint32_t size)
{
    translated tb = {0};
    block_entry *e = NULL;
    int error = c->ctl(c->uc, CTL_TB_REQUEST, addr, &tb);
    if (c->family->translated)
        c->family->translated(c);
    if (!error && tb.size == size && tb.icount)
        e = add_block(c, addr, size, tb.icount);
    if (!e)
        leave_fast(c, F_TAIL, addr);
    return e;
}

/* What stands in the block at addr, or on its pages, is no longer what it was at the last look. */
static void check_block(Core *c, block_entry *e, uint64_t addr)
{
    e->checked = c->checked;
    e->hits = 0;
    e->flags &= BLOCK_EXACT | BLOCK_HOOKED | BLOCK_INDIVISIBLE | BLOCK_UNMASKS;
    if (e->flags & BLOCK_INDIVISIBLE && c->guard_count)
        e->flags |= BLOCK_WATCHED;
    if (c->bp_count)
        e->flags |= point_flags(c, e, addr);
    if (in_spans(&c->hooked_code, addr, addr + e->size - 1))
        e->flags |= BLOCK_POINT;
    if ((c->page_flags[e->first] | c->page_flags[e->last]) & PAGE_MIXED)
        e->flags |= BLOCK_MIXED;
}

/* Hooks that no block has a use for any more. */
static void drop_hooks(Core *c)
{
    c->hooks_checked = c->checked;
    drop_point_hooks(c, 0);
    for (int i = c->exact_count - 1; i >= 0; i--) {
        exact_entry *x = &c->exact_blocks[i];
        block_entry *e = block_slot(c, x->key, x->size);
        if (e->size)
            check_block(c, e, x->addr);
        if (e->flags & BLOCK_CLOSE)
            continue;
        e->flags &= ~(uint32_t)BLOCK_HOOKED;
        c->hook_del(c->uc, x->hook); /* Unicorn forgets what was translated with it */
        *x = c->exact_blocks[--c->exact_count];
    }
}

/* end: where the hook returns to, if the block may be counted inside its code from now on; else NULL */
ALWAYS_INLINE void fast_block(const Family *f, Core *c, uint64_t addr, uint32_t size, const uint8_t *end)
{
    uint64_t key = block_key(f, c, addr);
    c->tail_size = size;
    block_entry *e = &c->blocks[mix(key + ((uint64_t)size << 48)) & c->block_mask];
    if (c->exact && c->watch_count && watches_hit(c)) {
        stop(c, R_WATCHPOINT, addr);
        return;
    }
    if (e->key != key || e->size != size) {
        e = block_slot(c, key, size);
        if (!e->size && !(e = new_block(c, addr, size)))
            return;
    }
    if (c->bare && !same_copy(c, e, addr) && !(e = new_block(c, addr, size)))
        return;
    if (e->checked != c->checked)
        check_block(c, e, addr);
    if (c->bare && f->held && f->held(c, 1)) {
        leave_fast(c, F_TAIL, addr);
        return;
    }
    if (f->held && e->flags & BLOCK_QUIET && f->held(c, 1))
        e->flags |= BLOCK_POINT;
    if (e->flags & (BLOCK_CLOSE | BLOCK_UNHOOKED)) {
        if (e->flags & BLOCK_CLOSE && e->flags & BLOCK_HOOKED) {
            c->exact = 1;
            enter_block(c, addr, size);
        } else {
            leave_fast(c, F_EXACT, addr);
        }
        return;
    }
    if (c->icount + e->count > c->limit || c->interrupt || (f->needs_hold && e->needs && !f->needs_hold(c, e->needs))) {
        leave_fast(c, F_TAIL, addr);
        return;
    }
    if (f->block_counted)
        f->block_counted(c, e->results);
    if (c->exact)
        leave_exact(c);
    if (e->epoch != c->epoch) {
        e->epoch = c->epoch;
        note_code(c, addr, size);
    }
    c->hooked_pc = NO_PC;
    c->block_code = end;
    c->block = addr;
    c->block_length = size;
    c->block_icount = c->icount;
    c->icount += e->count;
    if (c->bare)
        sync_state(c);
    else
        keep_state(c);
    c->whole = c->bare;
    if (e->results || (c->awaiting && e->flags & BLOCK_UNMASKS))
        return;
    if (end && !e->needs && !(e->flags & BLOCK_UNMASKS) && !passes_over(c, end, addr, size))
        inline_block(c, end, addr, size, e->count, NULL, 0);
    grant(c);
}

/* The fast phase ended at pc without leaving at a block's entry: count what has retired of the current block.
 * Nonzero if no instruction of it begins there. */
static int settle(Core *c, uint64_t pc)
{
    if (pc - c->block >= c->block_length) {
        if (c->family->retired)
            c->family->retired(c);
        return 0; /* the block is done; what comes behind it could not be fetched */
    }
    if (c->family->block_left)
        c->family->block_left(c, pc);
    c->tail_size = (uint32_t)(c->block + c->block_length - pc);
    int64_t count = plain_between(c, c->block, pc);
    if (count < 0)
        return 1;
    c->icount = c->block_icount + (uint64_t)count;
    return 0;
}
