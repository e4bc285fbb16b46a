/* AArch64: instructions by their bytes. */
#pragma once
#include "_classes.h"
#include "_family.h"

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
};
