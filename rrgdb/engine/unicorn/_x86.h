/* x86: what the mode of the CPU means for a run; instructions that begin again; how the flags survive.
 *
 * Unicorn's program counter counts from the base of the code segment.
 *
 * RF stands for one instruction: the one behind the IRET that has set it. Unicorn clears it at the end of some blocks. So a
 * run that begins with RF ends behind its first instruction and clears it, and behind what loads flags from memory a new
 * run begins.
 *
 * A guest's own breakpoints, in the debug registers, are looked at here: Unicorn would keep them outside the state.
 */
#pragma once
#include "_core.h"
#include "_family.h"
#include "_fast.h"
#include "_memory.h"
#include "_watch.h"
#include "_x86_decode.h"

#define X86_CONDITIONS 0x8d5u /* OF SF ZF AF PF CF */
#define X86_DEBUG 1
#define X86_RF (1u << 16)
#define X86_TF (1u << 8)
#define X86_CS32 (1u << 4)  /* of Unicorn's flags of the mode (hflags) */
#define X86_CS64 (1u << 15)

static uint64_t x86_register(Core *c, int id)
{
    uint64_t v = 0;
    c->reg_read(c->uc, id, &v);
    return v;
}

/* ---- modes ----------------------------------------------------------------------------------- */

/* Whether layout.py found where something is in the context. */
static inline int x86_shows(const Core *c, int at)
{
    return c->x86.context && at >= 0;
}

static void x86_look(Core *c)
{
    uint32_t modes;
    if (!x86_shows(c, c->x86.segment_at))
        return;
    c->context_save(c->uc, c->x86.context);
    memcpy(&c->code_base, c->x86.context + CONTEXT_HEADER + c->x86.segment_at + 8, sizeof c->code_base);
    memcpy(&modes, c->x86.context + CONTEXT_HEADER + c->x86.modes_at, sizeof modes);
    c->x86.other_size = !(modes & (c->wide ? X86_CS64 : X86_CS32));
}

static void x86_clear_rf(Core *c)
{
    uint64_t flags = x86_register(c, c->x86.flags_id);
    if (c->bare || !(flags & X86_RF))
        return;
    flags &= ~(uint64_t)X86_RF;
    c->reg_write(c->uc, c->x86.flags_id, &flags);
}

static void x86_look_at_debug(Core *c)
{
    c->x86.guest_points = 0;
    if (c->bare)
        return;
    uint64_t control = x86_register(c, c->x86.debug_id + 7);
    if (!(control & 0xff))
        return;
    c->x86.debug[7] = control;
    c->x86.guest_points = 1;
    for (int i = 0; i < 4; i++)
        c->x86.debug[i] = x86_register(c, c->x86.debug_id + i);
}

/* Bits of DR6: those of the guest's breakpoints that stand here and are on. Not behind a return that has set RF. */
static unsigned x86_guest_points_at(const Core *c, uint64_t addr)
{
    unsigned hit = 0;
    if (c->single && c->icount == c->run_icount)
        return 0;
    for (int i = 0; i < 4; i++)
        if (c->x86.debug[7] >> 2 * i & 3 && !(c->x86.debug[7] >> (16 + 4 * i) & 3) && c->x86.debug[i] == addr)
            hit |= 1u << i;
    return hit;
}

/* Far transfers and returns from interrupts and system calls: they may load flags, and change the size and base of code. */
static void x86_note_far(Core *c, const uint8_t *b, uint32_t n)
{
    uint32_t i = x86_opcode(c, b, n);
    uint8_t o = i < n ? b[i] : 0, next = i + 1 < n ? b[i + 1] : 0;
    int reg = next >> 3 & 7;
    c->x86.far_sysret = o == 0x0f && next == 0x07;
    if (o == 0xcf || o == 0xca || o == 0xcb || o == 0xea || o == 0x9a || (o == 0xff && (reg == 3 || reg == 5)) ||
        c->x86.far_sysret || (o == 0x0f && next == 0x35))
        c->x86.far_icount = c->icount;
}

/* ---- instructions that begin again ----------------------------------------------------------- */

/* Unicorn restarts an instruction that wrote into its own block, firing the hook twice. Same address twice in a row: a
 * restart, or an instruction that repeats by itself? */
static int x86_restarted(Core *c, const uint8_t *b, uint32_t n)
{
    switch (x86_kind(c, b, n)) {
    case X_REP: return x86_register(c, c->x86.rcx_id) == c->x86.rcx;
    case X_CALL: return x86_register(c, c->x86.rsp_id) == c->x86.rsp;
    case X_BRANCH: return 0;
    default: return 1;
    }
}

static void x86_remember(Core *c, const uint8_t *b, uint32_t n)
{
    int kind = x86_kind(c, b, n);
    if (kind == X_REP)
        c->x86.rcx = x86_register(c, c->x86.rcx_id);
    else if (kind == X_CALL)
        c->x86.rsp = x86_register(c, c->x86.rsp_id);
}

/* The instruction counted last wrote into its own block and begins again, as a block of its own. Nonzero if the run was
 * left: its flags are lost unless it was the first of the run, and the fast phase knows nothing of such blocks; or it has
 * been entered. */
static int x86_begun_again(Core *c, uint64_t addr, uint32_t size)
{
    uint8_t b[MAX_INSN];
    if (!x86_restarted(c, b, copy_code(c, addr, b, size < MAX_INSN ? size : MAX_INSN)))
        return 0;
    forget_hits(c);
    c->icount--;
    c->last_pc = c->exact_pc = NO_PC;
    /* The hooks of a script are told of as many attempts as in the slow gear, where fewer runs begin. */
    int first = c->icount == c->run_icount;
    if (c->bare && c->fast)
        first = c->icount == c->begun_icount || c->icount == c->restart_icount;
    if (!first) {
        c->x86.stale_flags = c->icount != c->run_icount;
        c->restart_icount = c->icount;
        stop(c, R_RESTART, addr);
        return 1;
    }
    if (c->phase != PHASE_FAST)
        return 0;
    if (c->bare) { /* a script's hooks are told of no further attempt */
        enter_block(c, addr, size);
        return 1;
    }
    c->tail_size = size;
    leave_fast(c, F_TAIL, addr);
    return 1;
}

/* Whether the instruction must be the first of its run: in the middle of one Unicorn loses track of how the flags are kept
 * (cc_op) when a hook came before it. The helper of CMPXCHG8B and CMPXCHG16B reads a cc_op that nobody has written back;
 * PUSHF and REP write theirs, and then a fill of the virtual TLB sets it to what it was before the hook, unless they are
 * the first of their block. */
static int x86_begins_run(const Core *c, uint64_t addr, const uint8_t *b, uint32_t n)
{
    uint32_t i = x86_opcode(c, b, n);
    if (i >= n || c->icount == c->run_icount)
        return 0;
    if (b[i] == 0x0f)
        return i + 2 < n && b[i + 1] == 0xc7 && (b[i + 2] >> 3 & 7) == 1;
    return c->fast && !c->bare && !c->mmu_seen && addr != c->block && x86_keeps_flags(c, b, n);
}

/* Unicorn has restored its cc_op to what it was before the hook, but the hook had the flags all computed, into cc_src. */
static void x86_restore_flags(Core *c)
{
    uint64_t flags, computed;
    if (!x86_shows(c, c->x86.flags_at))
        return;
    c->context_save(c->uc, c->x86.context);
    memcpy(&computed, c->x86.context + CONTEXT_HEADER + c->x86.flags_at, sizeof computed);
    flags = x86_register(c, c->x86.flags_id);
    flags = (flags & ~(uint64_t)X86_CONDITIONS) | (computed & X86_CONDITIONS);
    c->reg_write(c->uc, c->x86.flags_id, &flags);
}

/* ---- what the hooks ask ---------------------------------------------------------------------- */

static inline int x86_begin_block(Core *c, uint64_t addr, uint32_t size)
{
    if (addr == c->last_pc && x86_begun_again(c, addr, size))
        return 1;
    if (c->icount != c->x86.far_icount)
        return 0;
    stop(c, R_FAR, addr);
    return 1;
}

/* Some instructions that the CPU model lacks are performed all the same: those with an opcode of 0F. */
static uint32_t x86_unknown_length(Core *c, uint64_t addr, uint8_t *b)
{
    uint32_t n = copy_code(c, addr, b, MAX_INSN - 1), opcode = x86_opcode(c, b, n);
    return opcode + 3 <= n && b[opcode] == 0x0f ? opcode + 3 : 0;
}

static inline int x86_refuse(Core *c, uint64_t addr, const uint8_t *b, uint32_t n, int harmless)
{
    int why = R_NONE;
    if (c->x86.guest_points && x86_guest_points_at(c, addr))
        why = R_DEBUG;
    else if (!harmless && b && !c->faulted && x86_begins_run(c, addr, b, n))
        why = R_RESTART;
    if (why == R_NONE)
        return 0;
    stop(c, why, addr);
    return 1;
}

static inline void x86_counted(Core *c, uint64_t addr, const uint8_t *b, uint32_t n, int harmless)
{
    (void)addr;
    if (!harmless && b && !c->bare)
        x86_note_far(c, b, n);
}

static void x86_enter(Core *c)
{
    x86_look(c);
    x86_look_at_debug(c);
    c->single = !c->bare && x86_register(c, c->x86.flags_id) & X86_RF;
    c->slowly = c->x86.other_size || c->x86.guest_points ||
                (c->bare && (x86_register(c, c->x86.debug_id + 7) & 0xff || x86_register(c, c->x86.flags_id) & X86_TF));
}

static void x86_begin_run(Core *c)
{
    c->x86.far_icount = NO_ICOUNT;
}

/* RF stays where nothing has retired, and is new behind a far transfer; but SYSRET clears it, which Unicorn does not. */
static void x86_end_run(Core *c)
{
    if (c->x86.stale_flags) {
        c->x86.stale_flags = 0;
        x86_restore_flags(c);
    }
    int done = c->single && c->icount != c->run_icount && c->icount != c->x86.far_icount && c->exception < 0 && !c->error;
    if (done || (c->reason == R_FAR && c->x86.far_sysret))
        x86_clear_rf(c);
    c->single &= !done;
}

/* Without this it would be a double fault. */
static int x86_forget_exception(Core *c)
{
    if (c->exception == X86_DEBUG)
        return 0; /* single step: behind an instruction, which is a block then */
    if (!x86_shows(c, c->x86.previous_at))
        return 1;
    c->context_save(c->uc, c->x86.context);
    memset(c->x86.context + CONTEXT_HEADER + c->x86.previous_at, 0xff, 4);
    c->context_restore(c->uc, c->x86.context);
    return 1;
}

static const place x86_places[] = {
    NUMBER_PLACE("rcx", x86.rcx_id),
    NUMBER_PLACE("rsp", x86.rsp_id),
    NUMBER_PLACE("flags", x86.flags_id),
    NUMBER_PLACE("debug", x86.debug_id),
    {NULL, 0, 0},
};

static const Family x86_family = {
    .name = "x86",
    .places = x86_places,
    .restarts_itself = 1,
    .single_step = X86_DEBUG,
    .plain_length = x86_plain_length,
    .interesting = x86_interesting,
    .harmless = x86_harmless,
    .unknown_length = x86_unknown_length,
    .keeps_flags = x86_keeps_flags,
    .raises = x86_raises,
    .remember = x86_remember,
    .refuse = x86_refuse,
    .counted = x86_counted,
    .performed = x86_clear_rf,
    .restore_flags = x86_restore_flags,
    .begin_block = x86_begin_block,
    .look = x86_look,
    .enter = x86_enter,
    .begin_run = x86_begin_run,
    .end_run = x86_end_run,
    .forget_exception = x86_forget_exception,
};
