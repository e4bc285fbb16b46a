/* RISC-V: instructions by their bytes: codes that are reserved, lengths, accesses, floating-point registers. */
#pragma once
#include "_classes.h"
#include "_core.h"
#include "_family.h"

static inline uint32_t rv_bits(uint32_t w, int at, int n)
{
    return w >> at & ((1u << n) - 1);
}

static inline uint32_t rv_half(const uint8_t *b)
{
    return b[0] | (uint32_t)b[1] << 8;
}

static inline uint32_t rv_word(const uint8_t *b)
{
    uint32_t w;
    memcpy(&w, b, 4);
    return w;
}

/* Compressed codes that are reserved in RV32GC or RV64GC: 1. Tables 16.5 to 16.7 of volume I. */
static int rv_reserved(const Core *c, uint32_t h)
{
    uint32_t rd = rv_bits(h, 7, 5);
    switch ((h & 3) << 3 | h >> 13) {
    case 000: return rv_bits(h, 5, 8) == 0;                               /* C.ADDI4SPN */
    case 004: return 1;
    case 011: return c->wide && rd == 0;                                  /* C.ADDIW; RV32: C.JAL */
    case 013: return rv_bits(h, 2, 5) == 0 && rv_bits(h, 12, 1) == 0;     /* C.LUI, C.ADDI16SP */
    case 014:
        if (rv_bits(h, 10, 2) == 3)
            return rv_bits(h, 12, 1) && (!c->wide || rv_bits(h, 6, 1));
        return !c->wide && rv_bits(h, 10, 2) < 2 && rv_bits(h, 12, 1);    /* shifts by 32 and more */
    case 020: return !c->wide && rv_bits(h, 12, 1);                       /* C.SLLI */
    case 022: return rd == 0;                                             /* C.LWSP */
    case 023: return c->wide && rd == 0;                                  /* C.LDSP; RV32: C.FLWSP */
    case 024: return h == 0x8002;                                         /* C.JR */
    default: return 0;
    }
}

/* Length of a plain instruction: SYSTEM and C.EBREAK enter an exception by design. */
static uint32_t rv_plain_length(const Core *c, const uint8_t *b, uint32_t n)
{
    uint32_t length = n && (b[0] & 3) != 3 ? 2 : 4;
    if (length > n)
        return 0;
    if (length == 4)
        return filtered(c, b, 4, 0) || (b[0] & 0x7f) == 0x73 ? 0 : 4;
    return (b[0] == 0x02 && b[1] == 0x90) || (c->riscv.floats && rv_reserved(c, rv_half(b))) ? 0 : 2;
}

static int rv_stores_only(const Core *c, const uint8_t *b)
{
    (void)c;
    return (rv_word(b) & 0xf800007fu) == 0x1800002fu;
}

/* ---- accesses --------------------------------------------------------------------------------- */

static inline uint64_t rv_x(Core *c, uint32_t n)
{
    uint64_t v = 0;
    if (n)
        c->reg_read(c->uc, c->registers[n].id, &v);
    return c->wide ? v : (uint32_t)v;
}

typedef struct { uint64_t address; uint32_t size; int kinds, floating; } rv_access; /* kinds: UC_PROT_READ, … */

static int rv_compressed_access(Core *c, uint32_t h, rv_access *a)
{
    uint32_t kind = h >> 13, base = 2, offset;
    if ((h & 3) == 1 || kind == 0 || kind == 4)
        return 0;
    int store = kind > 4, wide = kind == 1 || kind == 5 || (c->wide && (kind == 3 || kind == 7));
    a->floating = kind == 1 || kind == 5 || (!c->wide && (kind == 3 || kind == 7));
    if ((h & 3) == 0) {
        base = 8 + rv_bits(h, 7, 3);
        offset = rv_bits(h, 10, 3) << 3 | (wide ? rv_bits(h, 5, 2) << 6 : rv_bits(h, 6, 1) << 2 | rv_bits(h, 5, 1) << 6);
    } else if (store) {
        offset = wide ? rv_bits(h, 10, 3) << 3 | rv_bits(h, 7, 3) << 6 : rv_bits(h, 9, 4) << 2 | rv_bits(h, 7, 2) << 6;
    } else {
        offset = rv_bits(h, 12, 1) << 5 |
                 (wide ? rv_bits(h, 5, 2) << 3 | rv_bits(h, 2, 3) << 6 : rv_bits(h, 4, 3) << 2 | rv_bits(h, 2, 2) << 6);
    }
    a->size = wide ? 8 : 4;
    a->kinds = store ? UC_PROT_WRITE : UC_PROT_READ;
    a->address = rv_x(c, base) + offset;
    return 1;
}

/* Whether the instruction accesses memory, and how. */
static int rv_access_of(Core *c, const uint8_t *b, uint32_t size, rv_access *a)
{
    if (size == 2) {
        if (!rv_compressed_access(c, rv_half(b), a))
            return 0;
    } else {
        uint32_t w = rv_word(b), funct = w >> 27;
        int64_t offset = 0;
        a->floating = 0;
        a->size = 1u << rv_bits(w, 12, 2);
        switch (w & 0x7f) {
        case 0x07: a->floating = 1; /* fall through */
        case 0x03:
            a->kinds = UC_PROT_READ;
            offset = (int32_t)w >> 20;
            break;
        case 0x27: a->floating = 1; /* fall through */
        case 0x23:
            a->kinds = UC_PROT_WRITE;
            offset = ((int32_t)w >> 25) * 32 + (int32_t)rv_bits(w, 7, 5);
            break;
        case 0x2f:
            a->kinds = funct == 2 ? UC_PROT_READ : funct == 3 ? UC_PROT_WRITE : UC_PROT_RW;
            break;
        default: return 0;
        }
        a->address = rv_x(c, rv_bits(w, 15, 5)) + (uint64_t)offset;
    }
    if (!c->wide)
        a->address = (uint32_t)a->address;
    return 1;
}

/* ---- floating-point registers ----------------------------------------------------------------- */

typedef struct { uint32_t boxed, single, wide, other; } rv_float; /* sets of registers */

/* What an instruction does with floating-point registers. boxed: gets a single-precision result above which Unicorn leaves
 * zeros; single: read as such; wide: read with their upper half; other: written otherwise. */
static rv_float rv_floats(const Core *c, const uint8_t *b, uint32_t size)
{
    rv_float f = {0, 0, 0, 0};
    if (size == 2) {
        uint32_t h = rv_half(b), kind = h >> 13, low = 1u << (8 + rv_bits(h, 2, 3));
        if (h & 1 || (kind & 3) == 0 || (kind & 3) == 2 || ((kind & 3) == 3 && c->wide))
            return f;
        int wide = (kind & 3) == 1; /* C.FLW and C.FSW exist on RV32 alone */
        if (kind < 4)
            f.other = (h & 3) ? 1u << rv_bits(h, 7, 5) : low;
        else if (wide)
            f.wide = (h & 3) ? 1u << rv_bits(h, 2, 5) : low;
        return f;
    }
    uint32_t w = rv_word(b), rd = 1u << rv_bits(w, 7, 5), rs1 = 1u << rv_bits(w, 15, 5), rs2 = 1u << rv_bits(w, 20, 5);
    int single = rv_bits(w, 25, 2) == 0;
    uint32_t *sources = single ? &f.single : &f.wide, *result = single ? &f.boxed : &f.other;
    switch (w & 0x7f) {
    case 0x07: f.other = rd; break;
    case 0x27: f.wide = rv_bits(w, 12, 3) == 3 ? rs2 : 0; break;
    case 0x43: case 0x47: case 0x4b: case 0x4f:
        *sources = rs1 | rs2 | 1u << (w >> 27);
        *result = rd;
        break;
    case 0x53:
        switch (w >> 27) {
        case 0x00: case 0x01: case 0x02: case 0x03: case 0x04: case 0x05:
            *sources = rs1 | rs2;
            *result = rd;
            break;
        case 0x08: /* between the two precisions: from the other one, except where it is refused */
            *(single ? &f.wide : &f.single) = rs1;
            *result = rd;
            break;
        case 0x0b: *sources = rs1; *result = rd; break;
        case 0x14: *sources = rs1 | rs2; break;
        case 0x18: *sources = rs1; break;
        case 0x1a: case 0x1e: *result = rd; break;
        case 0x1c: /* FMV.X.W looks at the lower half alone */
            if (!single || rv_bits(w, 12, 3) == 1)
                *sources = rs1;
            break;
        default: break;
        }
        break;
    default: break;
    }
    return f;
}

static inline int rv_is_float(const uint8_t *b, uint32_t size)
{
    return size == 2 ? (b[0] & 1) == 0 : (b[0] & 0x5f) == 0x07 || (b[0] & 0x73) == 0x43 || (b[0] & 0x7f) == 0x53;
}
