/* AArch64: instructions by their bytes. */
#pragma once
#include "_classes.h"
#include "_family.h"

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
    .stores_only = aarch64_stores_only,
    .settles = aarch64_settles,
};
