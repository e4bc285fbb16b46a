/* AArch64: instructions by their bytes. */
#pragma once
#include "_classes.h"
#include "_exceptions.h"
#include "_family.h"
#include "_registers.h"

#define AARCH64_CPSR 33 /* GDB's number */

/* Exception generation enters an exception by design. */
static uint32_t aarch64_plain_length(const Core *c, const uint8_t *b, uint32_t n)
{
    return n < 4 || filtered(c, b, 4, 0) || b[3] == 0xd4 ? 0 : 4;
}

/* Unicorn stores by calls, which a refused store does not end at once: STXP, DC ZVA. */
static int aarch64_indivisible(const Core *c, const uint8_t *b)
{
    uint32_t w;
    (void)c;
    memcpy(&w, b, 4);
    return (w & 0xbfe00000u) == 0x88200000u || (w & 0xffffffe0u) == 0xd50b7420u;
}

/* STXR, STXP and the like, but not CASP. */
static int aarch64_stores_only(const Core *c, const uint8_t *b)
{
    uint32_t w;
    (void)c;
    memcpy(&w, b, 4);
    return (w & 0x3fc00000u) == 0x08000000u && ((w & 0x80000000u) || !(w & 0x00200000u));
}

/* MSR, SYS and exception returns, but not hints and barriers. */
static int aarch64_unmasks(const Core *c, const uint8_t *b, uint32_t n)
{
    uint32_t w;
    (void)c;
    (void)n;
    memcpy(&w, b, 4);
    return ((w & 0xffe00000u) == 0xd5000000u && (w & 0xffffe000u) != 0xd5032000u) || (w & 0xfffff000u) == 0xd69f0000u;
}

/* MRS of CNTPCT_EL0 and CNTVCT_EL0, which tell virtual time at 62.5 MHz (arch/arm_timer.py). Whether EL0 may read them is
 * left to Python. */
static int aarch64_emulate(Core *c)
{
    uint32_t w, state = 0;
    memcpy(&w, c->code, sizeof w);
    if (!c->keeps_time || ((w & ~31u) != 0xd53be040u && (w & ~31u) != 0xd53be020u))
        return 0;
    c->reg_read(c->uc, c->registers[AARCH64_CPSR].id, &state);
    if (!(state >> 2 & 3))
        return 0;
    uint64_t count = ticks(c, 625, 10000);
    if ((w & 31) != 31)
        c->reg_write(c->uc, c->registers[w & 31].id, &count);
    return 1;
}

/* ---- exceptions */

/* rrgdb/engine/unicorn/families/aarch64.py has their names in this order */
enum { A64_CPSR, A64_VBAR, A64_SP, A64_SP_EL0, A64_SP_EL1, A64_ESR, A64_FAR, A64_ELR, A64_SPSR, A64_WORDS };
enum { A64_SVC = 2, A64_DATA_ABORT = 4 }; /* Unicorn's numbers */
#define A64_EL1H_MASKED 0x3c5

/* Whether the fault status is a translation, access flag or permission fault (section D23, "ESR_EL1", DFSC). */
static int aarch64_of_page(uint64_t syndrome)
{
    uint32_t kind = syndrome >> 2 & 15;
    return kind >= 1 && kind <= 3;
}

static int aarch64_enters(Core *c, int number, int behind)
{
    if (behind != (number == A64_SVC) || c->fault_at < 0 || c->syndrome_at < 0)
        return 0;
    if ((entry_read(c, A64_CPSR) >> 2 & 3) > 1 || !entry_read(c, A64_VBAR))
        return 0;
    return number == A64_SVC || (number == A64_DATA_ABORT && aarch64_of_page(saved_word(c, c->syndrome_at, 4)));
}

/* As _enter_exception of rrgdb/arch/aarch64.py, in its order. */
static void aarch64_enter_exception(Core *c, int number)
{
    uint64_t pstate = entry_read(c, A64_CPSR), vector = entry_read(c, A64_VBAR);
    uint64_t syndrome = saved_word(c, c->syndrome_at, 4), target;
    int el0 = !(pstate >> 2 & 3);
    target = vector + (el0 ? (pstate & 0x10 ? 0x600 : 0x400) : (pstate & 1 ? 0x200 : 0));
    if (el0 || !(pstate & 1)) {
        entry_write(c, A64_SP_EL0, entry_read(c, A64_SP));
        entry_write(c, A64_SP, entry_read(c, A64_SP_EL1));
    }
    entry_write(c, A64_ESR, syndrome);
    if (number == A64_DATA_ABORT)
        entry_write(c, A64_FAR, saved_word(c, c->fault_at, 8));
    entry_write(c, A64_ELR, number == A64_SVC ? c->last_pc + 4 : c->last_pc);
    entry_write(c, A64_CPSR, A64_EL1H_MASKED);
    entry_write(c, A64_SPSR, pstate);
    c->reg_write(c->uc, c->pc_id, &target);
}

static int aarch64_settles(const Core *c)
{
    (void)c;
    return 1;
}

static const Family aarch64_family = {
    .name = "aarch64",
    .plain_length = aarch64_plain_length,
    .indivisible = aarch64_indivisible,
    .unmasks = aarch64_unmasks,
    .emulate = aarch64_emulate,
    .stores_only = aarch64_stores_only,
    .settles = aarch64_settles,
    .enters = aarch64_enters,
    .enter_exception = aarch64_enter_exception,
    .entry_words = A64_WORDS,
};
