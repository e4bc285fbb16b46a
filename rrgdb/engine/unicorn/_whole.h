/* Blocks that are counted as a whole although their instructions have hooks: in the slow phase of a guest that translates
 * addresses, on hosts where code is counted inside (see _inline.h). The hooks of their instructions are passed over, and
 * called again as soon as one of those has to be looked at.
 *
 * What such a block may not do is access a device, or write into itself: it would have to end there. Each access that is
 * not to memory that Unicorn has found before, or to a page with code, asks Unicorn's own search for what is mapped, and that
 * is asked here first. A store that may not happen finds nothing mapped, so the run ends before its instruction, and
 * that is looked at, as is one that raises an exception. Unicorn looks at its exit flag behind each store, but not behind
 * those that its helpers make: blocks with such instructions are not counted as a whole.
 */
#pragma once
#include "_core.h"
#include "_family.h"
#include "_inline.h"
#include "_memory.h"
#include "_script.h"
#include "_watch.h"

static plan *plan_of(Core *c, const uint8_t *host, uint32_t size)
{
    return &c->plans[mix((uint64_t)(uintptr_t)host + ((uint64_t)size << 48)) & (PLANS - 1)];
}

/* An access of the instruction at hand does not happen. */
static void refuse(Core *c, int why)
{
    if (c->refused)
        return;
    c->refused = why;
    if (!c->bare && !c->bounds) /* without hooks of instructions nothing brings it up to date */
        c->reg_read(c->uc, c->pc_id, &c->refused_pc);
}

/* Whether that access of a plain block of a script's is made. */
static int script_accesses(Core *c, const region *r, uint64_t physical)
{
    if (in_spans(&c->hooked_memory, physical, physical)) {
        refuse(c, REFUSED_WATCH);
        return 0;
    }
    const uint8_t *host = r->host + (physical - r->base);
    uint64_t first = (uint64_t)(host - c->ram) >> 12, last = (uint64_t)(host + MAX_ACCESS - 1 - c->ram) >> 12;
    if (last < c->code_pages_length && !(c->code_pages[first] | c->code_pages[last]))
        return 1;
    count_inlined(c);
    if (physical + MAX_ACCESS > c->block && physical < c->block + c->block_length)
        refuse(c, REFUSED_CODE);
    return !c->refused;
}

/* In place of Unicorn's search for what is mapped at a physical address; NULL: nothing. */
static void *find_mapping(void *uc, uint64_t physical)
{
    Core *c = running;
    if (!c->whole || c->mapping_passes) {
        c->mapping_passes = 0;
        return c->mapping(uc, physical);
    }
    const region *r = c->found;
    if (!r || physical - r->base >= r->size) {
        r = c->found = region_at(c, physical);
        c->found_mapping = NULL;
    }
    if (!r) {
        refuse(c, REFUSED_DEVICE);
        return NULL;
    }
    if (c->bare) {
        if (!script_accesses(c, r, physical))
            return NULL;
        if (!c->found_mapping) /* each piece of RAM is one for Unicorn as well */
            c->found_mapping = c->mapping(uc, physical);
        return c->found_mapping;
    }
    count_inlined(c);
    const uint8_t *host = r->host + (physical - r->base);
    if (host + MAX_ACCESS > c->block_host && host < c->block_host + c->block_length) {
        refuse(c, REFUSED_CODE);
        return NULL;
    }
    if (c->watch_count && may_touch(c, physical)) {
        refuse(c, REFUSED_WATCH);
        return NULL;
    }
    return c->mapping(uc, physical);
}

/* An access of a block that is counted as a whole found nothing, or is not allowed; false: it does not happen. */
ALWAYS_INLINE bool whole_refused(const Family *f, Core *c, int type)
{
    int store = type == UC_MEM_WRITE_UNMAPPED || type == UC_MEM_WRITE_PROT;
    if (c->refused == REFUSED_CODE && !store) { /* reads what it consists of, or another block does */
        c->refused = 0;
        c->mapping_passes = 1;
        if (f->goes_on && type != UC_MEM_FETCH_UNMAPPED)
            f->goes_on(c);
        return true;
    }
    sync_state(c);
    if (f->refused && !c->bare)
        f->refused(c, store);
    return false;
}

/* The block of a plan is counted as a whole and runs next; zero: it cannot be. */
ALWAYS_INLINE int enter_whole(const Family *f, Core *c, const plan *p, const uint8_t *end)
{
    if (!passes_over(c, end, p->addr, p->size) && !inline_block(c, end, p->addr, p->size, p->count, p->host, p->unmasks))
        return 0;
    if (f->block_counted)
        f->block_counted(c, 0);
    c->whole = 1;
    c->block_host = p->host;
    c->block_length = p->size;
    c->block_icount = c->icount;
    c->last_pc = NO_PC;
    c->icount += p->count;
    keep_state(c);
    if (!c->awaiting || !p->unmasks)
        grant(c);
    return 1;
}

/* After a run. Nonzero: it left a block that was counted as a whole, or could not go on behind it; what retired is counted,
 * and the instruction at c->pc has to be looked at. */
static int left_whole(Core *c)
{
    const Family *f = c->family;
    int whole = c->whole;
    uint64_t pc = 0;
    c->whole = 0;
    if (!whole || c->stopped)
        return 0;
    c->reg_read(c->uc, c->pc_id, &pc);
    pc = linear(c, c->exception >= 0 ? pc - c->stale_pc : pc);
    uint64_t at = 0, left = pc - c->block;
    if (left < c->block_length) {
        uint64_t count = 0;
        for (uint32_t n = 1; n && at < left; at += n, count++)
            n = f->plain_length(c, c->block_host + at, (uint32_t)(c->block_length - at));
        if (at != left || (c->refused && !c->bounds && c->refused_pc != pc)) { /* or a helper of Unicorn went on after it was refused */
            c->pc = pc;
            c->reason = R_LOST;
            return 0;
        }
        c->icount = c->block_icount + count;
        if (c->refused == REFUSED_DEVICE) {
            plan *p = plan_of(c, c->block_host, c->block_length);
            if (p->host == c->block_host && p->size == c->block_length)
                p->plain = 0;
        }
    } else if (c->exception < 0 && !c->error) {
        return 0;
    }
    c->pc = pc;
    c->look_next = 1;
    return 1;
}

/* A run begins, or has ended: between runs there is nobody to ask, and Unicorn searches for other reasons. */
static void watch_mappings(Core *c, int on)
{
    int asked = c->bare ? c->fast && c->phase == PHASE_FAST : c->mmu_seen && c->family->settles;
    if (c->mapping)
        *c->mapping_at = on && asked ? find_mapping : c->mapping;
}
