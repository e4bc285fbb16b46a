/* The phases of a run and the way from one to the next.
 *
 * slow: every instruction is counted, everywhere. tail: so it is until the next block is entered. fast: blocks are
 * counted (see _fast.h). Without the fast gear there is the slow phase alone.
 */
#pragma once
#include "_core.h"
#include "_cover.h"
#include "_exceptions.h"
#include "_family.h"
#include "_fast.h"
#include "_hooks.h"
#include "_script.h"
#include "_sparse.h"
#include "_watch.h"
#include "_whole.h"

static void set_code_hook(Core *c, uint64_t begin, uint64_t end)
{
    c->hook_add(c->uc, &c->code_hook, UC_HOOK_CODE, c->hooks->code, c, begin, end);
    c->code_hooked = 1;
}

static void enter_phase(Core *c, int phase, uint64_t start, uint64_t end)
{
    if (c->phase == phase && phase == PHASE_FAST)
        return;
    if (c->phase == phase && phase == PHASE_SLOW && !c->bounds == !wants_sparse(c)) {
        if (c->bounds)
            close_bounds(c);
        return;
    }
    if (c->code_hooked) {
        c->hook_del(c->uc, c->code_hook);
        c->code_hooked = 0; /* Unicorn forgets what was translated with the hook */
        c->bounds = NULL;
    }
    leave_exact(c);
    if (phase == PHASE_SLOW) {
        if (add_sparse_hook(c))
            c->code_hooked = 1;
        else
            set_code_hook(c, 1, 0);
        c->ctl(c->uc, CTL_TB_FLUSH);
    } else if (phase == PHASE_TAIL) {
        set_code_hook(c, start, end - 1);
        c->tail_begin = start;
        c->tail_end = end;
        c->ctl(c->uc, CTL_TB_REMOVE, start, end);
    }
    c->phase = phase;
}

/* One emu_start in the present phase. */
static void run_once(Core *c)
{
    const Family *f = c->family;
    c->reason = R_NONE;
    c->last_pc = NO_PC;
    c->exception = -1;
    c->faulted = 0;
    c->refused = 0;
    c->fast_exit = F_NONE;
    c->block_size = c->settled = 0;
    c->tlb_stale = 1;
    c->stopped = 0;
    c->denied = 0;
    c->run_icount = c->icount;
    c->hooked_pc = NO_PC;
    c->begins = 1;
    c->whole = 0;
    c->found = NULL;
    hook_next(c);
    Core *outer = running;
    running = c;
    watch_mappings(c, 1);
    if (f->begin_run)
        f->begin_run(c);
    c->error = c->emu_start(c->uc, (c->pc - c->code_base) | (uint64_t)in_second(f, c), 0, 0, 0);
    running = outer;
    watch_mappings(c, 0);
    hook_next(c);
    if (f->end_run)
        f->end_run(c);
}

static void run_slow(Core *c)
{
    do {
        if (c->family->look)
            c->family->look(c);
        run_once(c);
    } while (((c->reason == R_SMC || c->reason == R_RESTART) && !c->error) || left_whole(c) || got_hooks(c));
    if (c->error)
        c->reason = R_ERROR;
}

static void set_mmu(Core *c, int on)
{
    if (c->mmu_seen == on)
        return;
    c->mmu_seen = on;
    if (c->fast) {
        drop_point_hooks(c, on);
        forget_exact(c);
        watch_holes(c);
    }
    if (!c->bare) {
        /* On RISC-V this needs no fence, and Unicorn's own TLB knows nothing of it. */
        if (c->fast)
            c->ctl(c->uc, CTL_TLB_TYPE, on ? UC_TLB_CPU : UC_TLB_VIRTUAL);
        c->ctl(c->uc, CTL_TLB_FLUSH);
    }
    tlb_clear(c);
    c->watches_moved = 1;
    forget_ways(c);
}

/* The fast phase. DONE: the run ends for c->reason; TAIL: go on with the tail phase at c->pc, for c->tail_size bytes;
 * AGAIN, AFRESH: go on at c->pc. */
enum { DONE, TAIL, AGAIN, AFRESH };

/* A script's run has ended by itself outside of exact blocks. Where that was within a block, it comes about again where every
 * instruction is looked at; no hook of the script's has been called. */
static int ended_whole(Core *c)
{
    uint64_t pc = 0, block = c->block;
    c->reg_read(c->uc, c->pc_id, &pc);
    c->pc = pc = linear(c, c->error == UC_ERR_EXCEPTION ? pc - c->stale_pc : pc);
    if (c->whole && c->error == UC_ERR_FETCH_UNMAPPED && c->refused && c->refused != REFUSED_DEVICE) {
        /* Unicorn has read the block at hand, to translate one that begins within it. */
        c->whole = 0;
        c->untold = pc;
        c->untold_icount = c->icount;
        return AFRESH;
    }
    if (c->whole && pc - block < c->block_length) {
        c->whole = 0;
        if (settle(c, pc)) {
            c->reason = R_LOST;
            return DONE;
        }
        if (c->refused)
            look_close(c, block, c->block_length, BLOCK_EXACT);
        return TAIL;
    }
    c->whole = 0;
    if (c->error)
        c->reason = R_ERROR;
    return DONE;
}

static int run_fast(Core *c)
{
    const Family *f = c->family;
    enter_phase(c, PHASE_FAST, 0, 0);
    leave_exact(c);
    c->block = NO_PC;
    c->block_length = 0;
    c->tail_size = MAX_BLOCK;
    run_once(c);
    if (c->fast_exit == F_EXACT)
        return look_close(c, c->pc, c->tail_size, 0) ? AGAIN : TAIL;
    if (c->fast_exit == F_TAIL)
        return TAIL;
    if (c->exact) {
        if (c->error)
            c->reason = R_ERROR;
        return c->reason == R_SMC || c->reason == R_RESTART || c->reason == R_FAR ? AGAIN : DONE;
    }
    if (c->reason == R_UNGUARD || c->reason == R_BREAKPOINT || c->reason == R_LOST || c->reason == R_UNMASKED ||
        c->reason == R_WATCHPOINT)
        return DONE;
    if (c->bare)
        return ended_whole(c);
    uint64_t pc = 0;
    c->reg_read(c->uc, c->pc_id, &pc);
    c->pc = linear(c, c->exception >= 0 ? pc - c->stale_pc : pc);
    if (c->exception >= 0 && f->forget_exception && !f->forget_exception(c))
        return DONE;
    if (c->block_length == 0)
        return TAIL;
    if (f->restore_flags && c->pc == c->hooked_pc)
        f->restore_flags(c);
    uint64_t block = c->block;
    if (settle(c, c->pc)) {
        c->reason = R_LOST;
        return DONE;
    }
    if (c->refused == REFUSED_DEVICE)
        look_close(c, block, c->block_length, BLOCK_EXACT);
    else if (c->refused == REFUSED_WATCH && ++block_slot(c, block_key(f, c, block), c->block_length)->hits == MANY_HITS)
        look_close(c, block, c->block_length, BLOCK_WATCHED);
    return TAIL;
}

/* Where tails come thick, counting every instruction for a while is quicker; longer, if that was so the last time. */
static int thick_tails(Core *c)
{
    if (c->icount - c->tails_at > TAILS_WITHIN) {
        if (c->icount - c->spell_end > 2 * c->spell)
            c->spell = 0;
        c->tails_at = c->icount;
        c->tails = 0;
    }
    if (++c->tails <= MAX_TAILS)
        return 0;
    c->spell = c->spell ? (c->spell < LONGEST_SPELL ? 2 * c->spell : LONGEST_SPELL) : SHORTEST_SPELL;
    c->spell_end = c->tails_at = c->icount + c->spell;
    c->tails = 0;
    return 1;
}

/* Whether the run has stopped before an instruction that is performed here, and goes on behind it. */
static int emulated(Core *c)
{
    if (c->reason != R_TRAP || !c->family->emulate || !c->family->emulate(c))
        return 0;
    if (c->family->performed)
        c->family->performed(c);
    c->icount++;
    c->pc += (uint64_t)c->code_size;
    return 1;
}

/* Whether what has ended the run was done here. */
static int done_here(Core *c)
{
    return emulated(c) || entered(c);
}

/* Whether the run goes on, in whichever phase. */
static int ended_early(const Core *c)
{
    return c->reason == R_UNGUARD || c->reason == R_FAR || (c->reason == R_LIMIT && c->icount < c->user_limit);
}

/* The block at hand runs with the slow gear's hook. In a run that is too short for another phase so do those near it: whoever
 * steps finds them translated the next time. */
static void enter_tail(Core *c)
{
    /* an instruction that cannot be decoded is not part of its block's size */
    uint64_t start = c->pc, end = c->pc + c->tail_size + MAX_INSN, first = start & ~(uint64_t)PAGE_MASK;
    int is_short = !c->bare && c->limit < c->icount + MIN_FAST && first + SHORT_BYTES > first && end > start;
    int hooked = c->phase == PHASE_TAIL && c->tail_short && start >= c->tail_begin && end <= c->tail_end;
    if (is_short && hooked) {
        leave_exact(c);
    } else {
        enter_phase(c, PHASE_TAIL, is_short ? first : start, is_short ? first + SHORT_BYTES : end);
        c->tail_short = is_short;
    }
    c->tail_icount = c->icount;
}

static void run_phases(Core *c)
{
    for (;;) {
        if (c->family->enter)
            c->family->enter(c);
        if (c->watch_count || c->guard_count || c->access_hooked || c->unguard)
            place_guards(c);
        int exact = !c->fast || c->mmu_seen || (c->watch_count && c->code_watched) || c->range_on || c->slowly ||
                    c->slow_hooks || (c->bare && c->watch_count);
        c->limit = c->user_limit;
        if (c->single && c->limit > c->icount + 1)
            c->limit = c->icount + 1;
        c->watches_asked = 0;
        if (c->watch_count && wants_sparse(c)) {
            for (int i = 0; i < c->watch_count; i++)
                if (c->watches[i].host && !(*flags_of(c, c->watches[i].host) & PAGE_COVERED))
                    cover(c, c->watches[i].host);
            c->watches_asked = stores_are_asked(c);
        }
        if (exact || c->icount < c->spell_end) {
            enter_phase(c, PHASE_SLOW, 0, 0);
            if (!exact && c->spell_end < c->limit)
                c->limit = c->spell_end;
            run_slow(c);
            if (done_here(c))
                continue;
            if (c->reason == R_MMU) {
                set_mmu(c, !c->mmu_seen);
                continue;
            }
            if (ended_early(c))
                continue;
            return;
        }
        if (c->limit < c->icount + MIN_FAST || watches_changed(c)) {
            c->tail_size = MAX_BLOCK;
            if (c->bare && thick_tails(c)) /* a script may count every run */
                continue;
        } else {
            int next = run_fast(c);
            if (next == DONE && c->reason == R_MMU) {
                set_mmu(c, !c->mmu_seen);
                continue;
            }
            if (next == DONE && (c->reason == R_UNGUARD || done_here(c)))
                continue;
            if (next == DONE)
                return;
            if (next == AFRESH || thick_tails(c) || next == AGAIN)
                continue;
        }
        enter_tail(c);
        run_slow(c);
        if (done_here(c))
            continue;
        if (c->reason == R_MMU)
            set_mmu(c, !c->mmu_seen);
        else if (c->reason != R_TAIL_END && !ended_early(c))
            return;
    }
}

