/* Loads and stores of Thumb-2 without coprocessors, by their bytes (DDI 0403, chapters A5 and A7). */
#pragma once
#include "_core.h"

enum { THUMB_SP = 13, THUMB_PC = 15 };

/* count accesses of size bytes each, one behind the other */
typedef struct {
    uint32_t address, size, count;
    int store, unprivileged;
    int strict; /* faults where it is not aligned, whatever CCR says */
} thumb_access;

static inline uint32_t thumb_half(const uint8_t *b)
{
    return b[0] | (uint32_t)b[1] << 8;
}

static inline uint32_t thumb_bits(uint32_t value, int low, int count)
{
    return value >> low & ((1u << count) - 1);
}

/* The register through which a multiple or double access goes, which must be aligned; -1: it is none, or is aligned by
 * itself, as the stack pointer and the program counter are. */
static inline int thumb_aligned_base(const uint8_t *b, uint32_t n)
{
    uint32_t h = thumb_half(b);
    if (n == 2)
        return h >> 12 == 12 ? (int)thumb_bits(h, 8, 3) : -1;
    int base = (int)(h & 15);
    if (base == THUMB_SP || base == THUMB_PC)
        return -1;
    if ((h & 0xfe40) == 0xe800)
        return thumb_bits(h, 7, 2) == 1 || thumb_bits(h, 7, 2) == 2 ? base : -1;
    return (h & 0xfe40) == 0xe840 && h & 0x120 ? base : -1;
}

/* LDRT, STRT and their kind. */
static inline int thumb_unprivileged(const uint8_t *b, uint32_t n)
{
    return n == 4 && (thumb_half(b) & 0xfe80) == 0xf800 && (thumb_half(b + 2) & 0x0f00) == 0x0e00;
}

static inline int thumb_divides(const uint8_t *b, uint32_t n)
{
    return n == 4 && (thumb_half(b) & 0xffd0) == 0xfb90 && (thumb_half(b + 2) & 0x00f0) == 0x00f0;
}

static int thumb_narrow_access(const uint32_t *r, uint32_t addr, uint32_t h, thumb_access *a)
{
    static const uint8_t sizes[8] = {4, 2, 1, 1, 4, 2, 1, 2}; /* by offset in a register */
    uint32_t base = r[thumb_bits(h, 3, 3)], imm5 = thumb_bits(h, 6, 5), load = thumb_bits(h, 11, 1);
    a->count = 1;
    a->store = !load;
    switch (h >> 12) {
    case 4:
        a->size = 4;
        a->address = ((addr + 4) & ~3u) + thumb_bits(h, 0, 8) * 4;
        return load;
    case 5:
        a->size = sizes[thumb_bits(h, 9, 3)];
        a->store = thumb_bits(h, 9, 3) < 3;
        a->address = base + r[thumb_bits(h, 6, 3)];
        return 1;
    case 6:
    case 7:
        a->size = h >> 12 == 6 ? 4 : 1;
        a->address = base + imm5 * a->size;
        return 1;
    case 8:
        a->size = 2;
        a->address = base + imm5 * 2;
        return 1;
    case 9:
        a->size = 4;
        a->address = r[THUMB_SP] + thumb_bits(h, 0, 8) * 4;
        return 1;
    case 11: /* PUSH, POP */
        a->size = 4;
        a->count = (uint32_t)__builtin_popcount(h & 0x1ff);
        a->address = r[THUMB_SP] - (load ? 0 : 4 * a->count);
        return thumb_bits(h, 9, 2) == 2;
    case 12:
        a->size = 4;
        a->count = (uint32_t)__builtin_popcount(h & 0xff);
        a->address = r[thumb_bits(h, 8, 3)];
        a->strict = 1;
        return 1;
    }
    return 0;
}

static int thumb_dual_access(const uint32_t *r, uint32_t addr, uint32_t h, uint32_t h2, thumb_access *a)
{
    uint32_t rn = h & 15, base = rn == THUMB_PC ? (addr + 4) & ~3u : r[rn], imm = thumb_bits(h2, 0, 8) * 4;
    uint32_t op = thumb_bits(h2, 4, 4);
    a->count = 1;
    a->size = 4;
    if (h & 0x120) { /* LDRD, STRD */
        a->count = 2;
        a->strict = 1;
        a->address = !(h & 0x100) ? base : h & 0x80 ? base + imm : base - imm;
        return 1;
    }
    a->address = base;
    if (!(h & 0x80)) { /* LDREX, STREX */
        a->address = base + imm;
        return 1;
    }
    a->size = op & 1 ? 2 : 1;
    if (op > 1)
        return op == 4 || op == 5; /* the same of bytes and halfwords */
    a->address = (rn == THUMB_PC ? addr + 4 : base) + (r[h2 & 15] << op); /* TBB, TBH */
    return !a->store;
}

static int thumb_single_access(const uint32_t *r, uint32_t addr, uint32_t h, uint32_t h2, thumb_access *a)
{
    uint32_t rn = h & 15, size = thumb_bits(h, 5, 2), imm8 = thumb_bits(h2, 0, 8);
    if (size == 3 || (!a->store && size != 2 && h2 >> 12 == 15)) /* hints to preload */
        return 0;
    a->size = 1u << size;
    a->count = 1;
    if (rn == THUMB_PC) {
        uint32_t imm12 = h2 & 0xfff, base = (addr + 4) & ~3u;
        a->address = h & 0x80 ? base + imm12 : base - imm12;
        return !a->store;
    }
    a->address = r[rn];
    if (h & 0x80) {
        a->address += h2 & 0xfff;
    } else if (h2 & 0x800) {
        if (h2 & 0x400)
            a->address += h2 & 0x200 ? imm8 : -imm8;
        a->unprivileged = (h2 & 0xf00) == 0xe00;
    } else {
        a->address += r[h2 & 15] << thumb_bits(h2, 4, 2);
        return !(h2 & 0x7c0);
    }
    return 1;
}

/* What the instruction of n bytes at addr accesses with registers r; 0: nothing. */
static int thumb_access_of(const uint32_t *r, uint32_t addr, const uint8_t *b, uint32_t n, thumb_access *a)
{
    uint32_t h = thumb_half(b), h2;
    *a = (thumb_access){0};
    if (n == 2)
        return thumb_narrow_access(r, addr, h, a);
    h2 = thumb_half(b + 2);
    a->store = !(h & 0x10);
    if ((h & 0xfe40) == 0xe800) {
        uint32_t op = thumb_bits(h, 7, 2);
        a->size = 4;
        a->count = (uint32_t)__builtin_popcount(h2);
        a->address = r[h & 15] - (op == 2 ? 4 * a->count : 0);
        a->strict = (h & 15) != THUMB_SP;
        return op == 1 || op == 2;
    }
    if ((h & 0xfe40) == 0xe840)
        return thumb_dual_access(r, addr, h, h2, a);
    return (h & 0xfe00) == 0xf800 && thumb_single_access(r, addr, h, h2, a);
}

/* Registers that an instruction may write, and some that it does not. */
static uint32_t thumb_may_write(const uint8_t *b, uint32_t n)
{
    uint32_t h = thumb_half(b), h2;
    if (n == 4) {
        h2 = thumb_half(b + 2);
        if ((h & 0xfe40) == 0xe800)
            return h2;
        if ((h & 0xf800) == 0xf000 && !(h2 & 0x8000)) /* data processing with an immediate */
            return 1u << thumb_bits(h2, 8, 4);
        return 1u << (h & 15) | 1u << (h2 >> 12) | 1u << thumb_bits(h2, 8, 4) | 1u << (h2 & 15);
    }
    switch (h >> 12) {
    case 4: /* those of high registers, literals, data processing */
        if (thumb_bits(h, 10, 2) == 1)
            return 1u << (thumb_bits(h, 0, 3) | thumb_bits(h, 7, 1) << 3);
        return h & 0x800 ? 1u << thumb_bits(h, 8, 3) : 1u << thumb_bits(h, 0, 3);
    case 2:
    case 3:
    case 9:
    case 10:
        return 1u << thumb_bits(h, 8, 3);
    case 11: /* POP, and those with one register */
        return (h & 0xff) | 1u << (h & 7);
    case 12:
        return h & 0xff;
    default:
        return 1u << thumb_bits(h, 0, 3);
    }
}
