/* Breakpoints inside blocks that are counted as a whole.
 *
 * A breakpoint is quiet if a hook can do all that is to do there: while hits are noted, and where it has a condition that
 * can be judged natively. It does not make its block exact: it gets a hook on its own instruction, kept until no
 * breakpoint has a use for it.
 */
#pragma once
#include "_agent.h"
#include "_condition.h"
#include "_core.h"
#include "_family.h"
#include "_inline.h"
#include "_memory.h"

static const bp_entry *breakpoint_at(const Core *c, uint64_t addr)
{
    if (!c->bp_filter[(addr >> 1) & (BP_FILTER - 1)])
        return NULL;
    uint64_t i = mix(addr) & c->bp_mask;
    while (c->bps[i].used && c->bps[i].address != addr)
        i = (i + 1) & c->bp_mask;
    return c->bps[i].used ? &c->bps[i] : NULL;
}

static inline int is_quiet(const Core *c, const bp_entry *point)
{
    return point->conditional ? point->codes != NULL : c->collect;
}

static point_hook *point_hook_at(Core *c, uint64_t addr)
{
    for (int i = 0; i < MAX_POINT_HOOKS; i++)
        if (c->point_hooks[i].core && c->point_hooks[i].addr == addr)
            return &c->point_hooks[i];
    return NULL;
}

/* Those that no breakpoint has a use for, or all. */
static void drop_point_hooks(Core *c, int all)
{
    for (int i = 0; i < MAX_POINT_HOOKS; i++) {
        point_hook *h = &c->point_hooks[i];
        if (!h->core || (!all && breakpoint_at(c, h->addr)))
            continue;
        c->hook_del(c->uc, h->handle); /* Unicorn forgets what was translated with it */
        h->core = NULL;
        c->point_hook_count--;
    }
}

static point_hook *free_point_hook(Core *c)
{
    if (c->point_hook_count == MAX_POINT_HOOKS)
        drop_point_hooks(c, 0);
    for (int i = 0; i < MAX_POINT_HOOKS; i++)
        if (!c->point_hooks[i].core)
            return &c->point_hooks[i];
    return NULL;
}

/* Plain instructions from one address up to another; -1 if none begins there. */
static int64_t plain_between(Core *c, uint64_t from, uint64_t to)
{
    int64_t count = 0;
    while (from < to) {
        uint8_t b[MAX_INSN];
        uint32_t length = c->family->plain_length(c, b, copy_code(c, from, b, MAX_INSN));
        if (!length)
            return -1;
        from += length;
        count++;
    }
    return from == to ? count : -1;
}

/* Before the instruction of a breakpoint, in whatever phase; the others look at each instruction themselves. */
static void on_point(void *uc, uint64_t addr, uint32_t size, void *user)
{
    point_hook *h = user;
    Core *c = h->core;
    (void)uc;
    c->hooked_pc = addr;
    if (c->phase != PHASE_FAST || c->exact || c->stopped)
        return;
    count_inlined(c);
    const bp_entry *point = breakpoint_at(c, addr);
    if (!point)
        return;
    uint64_t key = c->block | (uint64_t)in_second(c->family, c);
    if (h->block != key) {
        h->before = plain_between(c, c->block, addr);
        h->block = key;
    }
    if (h->before < 0) {
        stop(c, R_LOST, addr);
        return;
    }
    uint64_t at = c->block_icount + (uint64_t)h->before;
    if (at == c->skip)
        return;
    int holds = point_holds(c, point, addr);
    if (holds == AGENT_FALSE)
        judge_inside(c, h, point, size);
    else if (holds == AGENT_TRUE && c->collect) {
        c->bp_last = at;
    } else {
        if (c->family->block_left)
            c->family->block_left(c, addr);
        c->icount = at;
        stop(c, R_BREAKPOINT, addr);
    }
}

/* Hooks for the breakpoints in a range; zero if there is no room for them all. */
static int place_point_hooks(Core *c, uint64_t addr, uint32_t size)
{
    for (uint64_t i = 0; i <= c->bp_mask; i++) {
        const bp_entry *point = &c->bps[i];
        if (!point->used || point->address - addr >= size || point_hook_at(c, point->address))
            continue;
        point_hook *h = free_point_hook(c);
        if (!h || c->hook_add(c->uc, &h->handle, UC_HOOK_CODE, (void *)on_point, h, point->address, point->address))
            return 0;
        h->core = c;
        h->addr = point->address;
        h->block = NO_PC;
        h->conditions[0] = h->conditions[1] = NULL;
        h->left_to_hook = 0;
        c->point_hook_count++;
        c->ctl(c->uc, CTL_TB_REMOVE, h->addr, h->addr + 1);
    }
    return 1;
}
