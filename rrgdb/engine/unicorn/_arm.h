/* ARM: the Thumb state, and IT blocks.
 *
 * Unicorn does not call the hook for an instruction of an IT block whose condition fails, and cannot be stopped between
 * the instructions of an IT block. Both are made up for: what was passed over is looked at and counted, one by one,
 * when the next hook comes (nothing has happened in between); and a stop inside an IT block leaves as the emulator's own
 * exceptions do, by the jump buffer of its loop.
 */
#pragma once
#include "_classes.h"
#include "_core.h"
#include "_family.h"
#include "_footprint.h"
#include "_memory.h"
#include "_obstacle.h"

#define ARM_USER 16 /* of CPSR.M */

static inline int arm_in_thumb(const Core *c)
{
    return *c->arm.thumb != 0;
}

/* ITSTATE behind one more instruction. */
static inline uint8_t it_advance(uint8_t it)
{
    return it & 7 ? (uint8_t)((it & 0xe0) | (it << 1 & 0x1f)) : 0;
}

static inline uint32_t thumb_length(const uint8_t *b)
{
    return b[1] >= 0xe8 ? 4 : 2;
}

/* Length of the Thumb instruction at addr; 0 where there is none. */
static uint32_t thumb_length_at(Core *c, uint64_t addr, uint8_t *b)
{
    if (copy_code(c, addr, b, 2) != 2)
        return 0;
    uint32_t n = thumb_length(b);
    return n == 2 || copy_code(c, addr, b, n) == n ? n : 0;
}

/* An access goes on for which Unicorn has brought the state up to date. Within a block it keeps ITSTATE at zero, and
 * writes it at the block's end only if that lies inside an IT block: what it has put there now would stay. */
static inline void it_hide(Core *c)
{
    *c->arm.condexec = 0;
}

/* A block begins: it may do so inside an IT block. */
static inline void it_begin(Core *c, uint64_t addr)
{
    c->arm.it = *c->arm.condexec;
    c->arm.it_at = addr;
    c->arm.it_held = 0;
}

/* ITSTATE behind an instruction of code that does not begin inside an IT block. */
static inline uint8_t it_behind(uint8_t it, const uint8_t *b, uint32_t size)
{
    if (it)
        return it_advance(it);
    return size == 2 && b && b[1] == 0xbf && b[0] & 15 ? b[0] : 0;
}

/* The instruction at addr was counted. */
static inline void it_follow(Core *c, uint64_t addr, const uint8_t *b, uint32_t size)
{
    c->arm.last_it = c->arm.it;
    c->arm.it = it_behind(c->arm.it, b, size);
    c->arm.it_at = addr + size;
}

static int it_asks(const Core *c, const uint8_t *b, uint32_t n, uint8_t *state)
{
    int inside = *state != 0;
    if (arm_in_thumb(c))
        *state = it_behind(*state, b, n);
    return inside;
}

/* Whether an IT block begins in a block of Thumb code: not all of its instructions have hooks then. */
static int it_inside(Core *c, uint64_t addr, uint32_t size)
{
    uint8_t b[4];
    for (uint64_t at = addr; at - addr < size;) {
        uint32_t n = thumb_length_at(c, at, b);
        if (!n || (n == 2 && b[1] == 0xbf && b[0] & 15))
            return 1;
        at += n;
    }
    return 0;
}

/* Count what the IT block under way has passed over before addr. Nonzero if the run must stop at one of those. */
static int it_catch_up(Core *c, uint64_t addr)
{
    uint8_t b[4], it = c->arm.it;
    uint64_t at = c->arm.it_at;
    while (it && at != addr) {
        uint32_t n = thumb_length_at(c, at, b);
        if (!n)
            break;
        at += n;
        it = it_advance(it);
    }
    c->arm.it_held = at == addr && it;
    if (at != addr)
        c->arm.it = 0; /* left by a branch */
    while (c->arm.it && c->arm.it_at != addr) {
        uint32_t n = thumb_length_at(c, c->arm.it_at, b);
        int reason = R_NONE;
        if (c->arm.it_at - c->seen >= c->seen_size)
            note_code(c, c->arm.it_at, n);
        if (c->icount >= c->limit || c->interrupt || c->points)
            reason = obstacle(c, c->arm.it_at);
        if (reason == R_NONE && c->block_size && c->arm.it_at - c->block + n <= c->block_size &&
            memcmp(b, c->block_bytes + (c->arm.it_at - c->block), n) != 0)
            reason = R_SMC;
        if (reason != R_NONE) {
            stop(c, reason, c->arm.it_at);
            return 1;
        }
        c->last_pc = c->arm.it_at;
        c->last_size = n;
        c->icount++;
        it_follow(c, c->arm.it_at, NULL, n);
    }
    return 0;
}

/* Nothing but the jump ends a block inside an IT block, nor where it begins there. */
static inline int it_holds(const Core *c, int block)
{
    return block ? *c->arm.condexec : c->arm.it_held;
}

static inline void it_leave(Core *c)
{
    siglongjmp(*c->arm.jump, 1);
}

/* A store to nothing: Unicorn would end the block behind it, and so run the rest of an IT block first. */
static inline void it_fault(Core *c, int type)
{
    if (c->arm.last_it && type == UC_MEM_WRITE_UNMAPPED) {
        c->arm.it_error = UC_ERR_WRITE_UNMAPPED;
        c->emu_stop(c->uc);
        siglongjmp(*c->arm.jump, 1);
    }
}

/* A store is refused, and the state is up to date: inside an IT block Unicorn would go on to its end. */
static inline void it_refuse(Core *c, int store)
{
    if (store) {
        c->emu_stop(c->uc);
        siglongjmp(*c->arm.jump, 1);
    }
}

static inline int arm_catch_up(Core *c, uint64_t addr)
{
    return c->arm.it && it_catch_up(c, addr);
}

/* A Thumb block that ends inside an IT block leaves it set for the ARM block translated next. */
static void arm_translated(Core *c)
{
    *c->arm.no_exit = 0;
}

static inline int arm_begin_block(Core *c, uint64_t addr, uint32_t size)
{
    (void)size;
    arm_translated(c);
    if (arm_catch_up(c, addr))
        return 1;
    it_begin(c, addr);
    return 0;
}

static inline void arm_counted(Core *c, uint64_t addr, const uint8_t *b, uint32_t n, int harmless)
{
    (void)harmless;
    it_follow(c, addr, b, n);
}

static inline void arm_block_counted(Core *c, uint32_t results)
{
    (void)results;
    c->arm.it = c->arm.last_it = 0;
    c->arm.it_at = NO_PC;
}

/* A system call has moved on. */
static void arm_undone(Core *c)
{
    *c->arm.condexec = c->arm.last_it;
}

static void arm_begin_run(Core *c)
{
    c->arm.it = c->arm.last_it = 0;
    c->arm.it_at = NO_PC;
    c->arm.it_held = c->arm.it_error = 0;
    arm_translated(c);
}

/* A run has ended: with a stop, where the hooks said; else count what was passed over on the way there. */
static void it_settle(Core *c)
{
    if (c->arm.it_error) {
        c->error = c->arm.it_error;
        *c->arm.pc = (uint32_t)c->last_pc;
        *c->arm.condexec = c->arm.last_it;
        return;
    }
    if (!c->stopped && c->arm.it && *c->arm.pc != c->last_pc && it_catch_up(c, *c->arm.pc)) {
        c->error = 0;
        c->exception = -1;
    }
    if (c->stopped) {
        *c->arm.pc = (uint32_t)c->pc;
        if (c->arm.it_at == c->pc) /* else it stands before a block, whose hook has found something else first */
            *c->arm.condexec = c->arm.it;
    }
}

/* ---- instructions by their bytes ------------------------------------------------------------- */

/* SVC, UDF and BKPT enter an exception by design. What an IT block passes over counts as well: its blocks are plain. */
static uint32_t arm_plain_length(const Core *c, const uint8_t *b, uint32_t n)
{
    int thumb = arm_in_thumb(c);
    uint32_t length = !thumb ? 4 : n >= 2 ? thumb_length(b) : 2, w;
    if (length > n || filtered(c, b, length, thumb))
        return 0;
    if (thumb)
        return length == 2 && (b[1] == 0xde || b[1] == 0xdf || b[1] == 0xbe) ? 0 : length;
    memcpy(&w, b, 4);
    return (w & 0x0f000000u) == 0x0f000000u || (w & 0x0ff000f0u) == 0x01200070u ? 0 : 4;
}

/* MRRC of CNTPCT and CNTVCT, which tell virtual time at 62.5 MHz (arch/arm_timer.py). Whether user mode may read them is left to
 * Python, as are conditions. */
static int arm_emulate(Core *c)
{
    uint32_t w, cpsr = 0;
    memcpy(&w, c->code, sizeof w);
    if (c->code_thumb)
        w = w >> 16 | w << 16;
    uint32_t low = w >> 12 & 15, high = w >> 16 & 15;
    if (!c->keeps_time || !c->arm.has_timer || c->code_size != 4 || (w & 0xfff00fefu) != 0xec500f0eu || low == 15 ||
        high == 15 || c->arm.it)
        return 0;
    c->reg_read(c->uc, c->arm.cpsr_id, &cpsr);
    if ((cpsr & 31) == ARM_USER)
        return 0;
    uint64_t count = ticks(c, 625, 10000), upper = count >> 32;
    c->reg_write(c->uc, c->registers[low].id, &count);
    c->reg_write(c->uc, c->registers[high].id, &upper);
    return 1;
}

static int arm_settles(const Core *c)
{
    (void)c;
    return 1;
}

/* LDRD: Unicorn loads one half over the address of the other. */
static int arm_indivisible(const Core *c, const uint8_t *b)
{
    uint32_t w;
    memcpy(&w, b, 4);
    if (arm_in_thumb(c))
        return (w & 0xfe50u) == 0xe850u && w & 0x120u && (w >> 28) == (w & 15);
    uint32_t first = w >> 12 & 15;
    return (w & 0x0e1000f0u) == 0x000000d0u && (first == (w >> 16 & 15) || (!(w & 0x00400000u) && first == (w & 15)));
}

/* CPS, MSR and what returns from an exception. */
static int arm_unmasks(const Core *c, const uint8_t *b, uint32_t n)
{
    uint32_t w = 0;
    memcpy(&w, b, n);
    if (n == 2)
        return (w & 0xffe8u) == 0xb660u;
    if (arm_in_thumb(c))
        return (w & 0xd000ff80u) == 0x8000f380u || (w & 0xff00fff0u) == 0x8f00f3d0u || (w & 0xffd0u) == 0xe810u;
    return (w & 0xfff10020u) == 0xf1000000u || (w & 0x0db0f000u) == 0x0120f000u || (w & 0x0c10f000u) == 0x0010f000u ||
           (w & 0x0e508000u) == 0x08508000u || (w & 0xfe50ffffu) == 0xf8100a00u;
}

static int arm_stores_only(const Core *c, const uint8_t *b)
{
    uint32_t w;
    memcpy(&w, b, 4);
    if (arm_in_thumb(c))
        return (w & 0xfff0u) == 0xe840u || ((w & 0xfff0u) == 0xe8c0u && w & 0x00400000u);
    return (w & 0x0f900ef0u) == 0x01800e90u;
}

#define ARM_PLACES                                                          \
    POINTER_PLACE("pc", arm.pc), POINTER_PLACE("thumb", arm.thumb),         \
    POINTER_PLACE("condexec", arm.condexec), POINTER_PLACE("no_exit", arm.no_exit), POINTER_PLACE("jump", arm.jump)

static const place arm_places[] = {
    ARM_PLACES, NUMBER_PLACE("cpsr", arm.cpsr_id), NUMBER_PLACE("timer", arm.has_timer), {NULL, 0, 0}};

#define ARM_FAMILY                                                                                        \
    .plain_length = arm_plain_length, .indivisible = arm_indivisible, .unmasks = arm_unmasks,              \
    .stores_only = arm_stores_only, .in_second = arm_in_thumb, .passes_over = it_inside, .held = it_holds, \
    .leave = it_leave, .catch_up = arm_catch_up, .counted = arm_counted, .undone = arm_undone,            \
    .begin_block = arm_begin_block, .translated = arm_translated, .block_counted = arm_block_counted,     \
    .goes_on = it_hide, .refused = it_refuse, .fault = it_fault, .begin_run = arm_begin_run,              \
    .end_run = it_settle

static const Family arm_family = {
    .name = "arm", .places = arm_places, .emulate = arm_emulate, .settles = arm_settles,
    .asks_bounds = it_asks, ARM_FAMILY};
