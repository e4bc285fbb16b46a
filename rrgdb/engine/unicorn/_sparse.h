/* Hooks of instructions in those blocks alone that need a look at each of them, in the slow phase of a guest that translates
 * addresses.
 *
 * Unicorn asks when it translates an instruction whether a hook's bounds hold it, and never again. So the bounds of the
 * hook for all instructions, which stand in Unicorn's own record of it, are closed: what is translated has a hook for its block
 * only. Where the block's hook finds that its instructions must be looked at, the run is left, and the bounds are those of that block
 * until it is translated anew. It keeps its hooks then, and Unicorn's other blocks know nothing of them.
 *
 * For some instructions Unicorn asks each time (see asks_bounds): while they are looked at the bounds are open, and what is
 * translated in the meantime gets all of its hooks.
 */
#pragma once
#include "_core.h"
#include "_family.h"
#include "_generated.h"
#include "_inline.h"

#define MOST_HOOK 64 /* bytes of Unicorn's record of a hook, to where its bounds are */
#define NOWHERE (UINT64_MAX - 1)
#define KNOWN_BEGIN 0x5bd1e995a7c3f10bull /* bounds that nothing else in a record can be taken for */
#define KNOWN_END 0x9e3779b97f4a7c15ull

#if CAN_INLINE
/* Where Unicorn keeps the bounds that the code hook was given; NULL: not once where they are looked for. */
static uint64_t *find_bounds(const Core *c)
{
    uint64_t *record = (uint64_t *)(uintptr_t)c->code_hook, *found = NULL;
    for (size_t i = 0; i + 1 < MOST_HOOK / sizeof *record; i++) {
        if (record[i] != KNOWN_BEGIN || record[i + 1] != KNOWN_END)
            continue;
        if (found)
            return NULL;
        found = &record[i];
    }
    return found;
}
#endif

static void set_bounds(Core *c, uint64_t begin, uint64_t end)
{
    c->bounds[0] = begin;
    c->bounds[1] = end;
}

/* Where watches have to be looked at behind each instruction, what is translated anew has all of its hooks at once. */
static void close_bounds(Core *c)
{
    if (c->watch_count && !c->watches_asked)
        set_bounds(c, 1, 0);
    else
        set_bounds(c, NOWHERE, NOWHERE);
}

/* Whether hooks of instructions are to be where they are needed alone. */
static int wants_sparse(const Core *c)
{
    return c->mmu_seen && c->fast && !c->bare && c->mapping && c->inlines && c->family->settles && !c->sparse_fails &&
           !c->point_hook_count && !c->exact_count;
}

/* Add a hook for instructions with bounds that can be moved; zero: they would not be found. */
static int add_sparse_hook(Core *c)
{
#if CAN_INLINE
    if (wants_sparse(c)) {
        c->hook_add(c->uc, &c->code_hook, UC_HOOK_CODE, c->hooks->code, c, KNOWN_BEGIN, KNOWN_END);
        c->bounds = find_bounds(c);
        if (c->bounds) {
            close_bounds(c);
            return 1;
        }
        c->hook_del(c->uc, c->code_hook);
        c->sparse_fails = 1;
    }
#else
    (void)c;
#endif
    return 0;
}

/* The instructions of a block must be looked at, whose hook returns to end. held: see _family.h. Nonzero: they lack hooks, and the
 * run was left to translate it anew. */
ALWAYS_INLINE int lacks_hooks(const Family *f, Core *c, uint64_t addr, uint32_t size, const uint8_t *end, int held)
{
#if CAN_INLINE
    int asked = c->bounds[0] == addr;
    close_bounds(c);
    leave_inlined(c, end);
    c->inlines = c->inlines && reach_code(c, end);
    if (c->inlines && has_calls(c, end, addr, held)) {
        if (in_second(f, c) && (held || f->passes_over(c, addr, size)))
            set_bounds(c, 1, 0);
        return 0;
    }
    c->sparse_fails = asked; /* Unicorn does not do what is expected */
    c->hooks_asked++;
    c->tail_size = size;
    stop(c, R_HOOKS, addr);
    return 1;
#else
    (void)f;
    (void)c;
    (void)addr;
    (void)size;
    (void)end;
    (void)held;
    return 0;
#endif
}

/* After a run: nonzero if a block lacked hooks, which it will have now. */
static int got_hooks(Core *c)
{
    if (c->reason != R_HOOKS || c->error)
        return 0;
    /* an instruction that cannot be decoded is not part of its block's size */
    uint64_t end = c->pc + c->tail_size + MAX_INSN;
    if (c->sparse_fails || !c->inlines) {
        set_bounds(c, 1, 0);
        c->bounds = NULL;
        c->ctl(c->uc, CTL_TB_FLUSH);
    } else {
        set_bounds(c, c->pc, end - 1);
        c->ctl(c->uc, CTL_TB_REMOVE, c->pc, c->pc + 1);
    }
    return 1;
}
