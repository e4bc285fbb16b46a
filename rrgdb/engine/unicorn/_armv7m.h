/* The M profile: Thumb alone, and faults that Unicorn does not find (DDI 0403, sections A3.2.1, B3.2.8).
 *
 * Accesses of LDM, STM, LDRD and STRD must be aligned, those of the others and divisions may have to be. A block that is
 * counted as a whole says which registers must be aligned at its entry; elsewhere each instruction is looked at.
 */
#pragma once
#include "_arm.h"
#include "_fast.h"
#include "_thumb_access.h"

#define ARMV7M_EXCEPTION_EXIT 8

enum { V7M_UNALIGN_TRP = 1, V7M_DIV_0_TRP = 2, V7M_USERSETMPEND = 4 };
enum { V7M_STATUS_ALIGNMENT = 0x01, V7M_STATUS_EXTERNAL = 0x08 }; /* as the fault status of the A profile has it */
#define V7M_STIR 0xe000ef00u
#define V7M_PRIVATE 0xe00u /* bits 31 to 20 of the private peripheral bus */

/* A branch to EXC_RETURN has retired with its block. */
static int armv7m_forget_exception(Core *c)
{
    return c->exception != ARMV7M_EXCEPTION_EXIT;
}

static const uint32_t *armv7m_registers(const Core *c)
{
    return c->arm.pc - THUMB_PC;
}

static int armv7m_user(const Core *c)
{
    return *c->armv7m.control & 1 && !*c->armv7m.number;
}

static int armv7m_deny(Core *c, int kind, uint32_t address, int status)
{
    c->denied = kind;
    c->denied_at = address;
    c->denied_status = status;
    return R_DENIED;
}

static int armv7m_access_fault(Core *c, const thumb_access *a)
{
    int kind = a->store ? UC_PROT_WRITE : UC_PROT_READ;
    if (a->address & (a->strict ? 3 : a->size - 1) && (a->strict || c->armv7m.rules & V7M_UNALIGN_TRP))
        return armv7m_deny(c, kind, a->address, V7M_STATUS_ALIGNMENT);
    if (!armv7m_user(c) && !a->unprivileged)
        return R_NONE;
    for (uint32_t i = 0, address = a->address; i < a->count; i++, address += a->size)
        if (address >> 20 == V7M_PRIVATE && !(address == V7M_STIR && c->armv7m.rules & V7M_USERSETMPEND))
            return armv7m_deny(c, kind, address, V7M_STATUS_EXTERNAL);
    return R_NONE;
}

static int armv7m_refuse(Core *c, uint64_t addr, const uint8_t *b, uint32_t n, int harmless)
{
    int why = R_NONE;
    thumb_access a;
    (void)harmless;
    if (!b || c->bare)
        return 0;
    const uint32_t *r = armv7m_registers(c);
    if (c->armv7m.rules & V7M_DIV_0_TRP && thumb_divides(b, n) && !r[b[2] & 15])
        why = R_DIVISION;
    else if ((c->armv7m.rules & V7M_UNALIGN_TRP || armv7m_user(c) || thumb_aligned_base(b, n) >= 0 || thumb_unprivileged(b, n)) &&
             thumb_access_of(r, (uint32_t)addr, b, n, &a))
        why = armv7m_access_fault(c, &a);
    if (why == R_NONE)
        return 0;
    c->last_size = n;
    stop(c, why, addr);
    return 1;
}

/* Whether the instruction of n bytes at addr gives its register a value that is aligned. A literal counts on the page of
 * its block: were it written, the block would be looked at again. */
static int armv7m_gives_aligned(Core *c, uint64_t block, uint64_t addr, const uint8_t *b, uint32_t n)
{
    uint32_t h = thumb_half(b), h2;
    if (n == 2) {
        if (h >> 11 == 0x15) /* ADD (SP plus immediate) */
            return 1;
        uint64_t literal = ((addr + 4) & ~3ull) + thumb_bits(h, 0, 8) * 4;
        uint8_t low;
        return h >> 11 == 9 && !((literal ^ block) & ~(uint64_t)PAGE_MASK) && copy_code(c, literal, &low, 1) && !(low & 3);
    }
    h2 = thumb_half(b + 2);
    if (h2 & 0x8000)
        return 0;
    if ((h & 0xfbf0) == 0xf240) /* MOVW */
        return !(h2 & 3);
    if ((h & 0xfbef) != 0xf04f) /* MOV */
        return 0;
    uint32_t rotation = thumb_bits(h, 10, 1) << 4 | thumb_bits(h2, 12, 3) << 1 | thumb_bits(h2, 7, 1);
    if (rotation < 8)
        return rotation >> 1 == 2 || !(h2 & 3);
    uint32_t value = 0x80 | (h2 & 0x7f);
    return !((value >> rotation | value << (32 - rotation)) & 3);
}

/* needs: registers that are aligned; and the block does not begin inside an IT block. */
static int armv7m_block_needs(Core *c, uint64_t addr, const uint8_t *bytes, uint32_t size, uint32_t *needs, uint32_t *results)
{
    uint32_t written = 0, aligned = 0;
    int conditional = 0;
    *needs = *results = 0;
    for (uint32_t at = 0, n; at < size; at += n) {
        const uint8_t *b = bytes + at;
        n = thumb_length(b);
        if (c->armv7m.rules & V7M_DIV_0_TRP && thumb_divides(b, n))
            return 0;
        uint32_t writes = thumb_may_write(b, n);
        if (n == 4 && (thumb_half(b) & 0xfbf0) == 0xf2c0 && !(b[3] & 0x80)) /* MOVT leaves the lower half */
            continue;
        int base = thumb_aligned_base(b, n);
        if (base >= 0) {
            if (written & ~aligned & 1u << base)
                return 0;
            if (!((written | aligned) >> base & 1))
                *needs |= 1u << base;
            /* it moves on by words, unless it is loaded */
            aligned |= 1u << base;
            if (n == 4 && (thumb_half(b) & 0xfe40) == 0xe840) {
                uint32_t h2 = thumb_half(b + 2);
                writes = thumb_half(b) & 0x10 ? 1u << (h2 >> 12) | 1u << thumb_bits(h2, 8, 4) : 0;
            } else if (!(n == 4 ? thumb_half(b) & 0x10 : thumb_half(b) & 0x800)) {
                writes = 0;
            }
        }
        written |= writes;
        aligned &= ~writes;
        conditional |= n == 2 && b[1] == 0xbf && b[0] & 15;
        if (!conditional && armv7m_gives_aligned(c, addr, addr + at, b, n))
            aligned |= writes;
    }
    return 1;
}

static int armv7m_needs_hold(const Core *c, uint32_t needs)
{
    const uint32_t *r = armv7m_registers(c);
    uint32_t any = 0;
    for (; needs; needs &= needs - 1)
        any |= r[__builtin_ctz(needs)];
    return !(any & 3) && !*c->arm.condexec;
}

static void armv7m_enter(Core *c)
{
    if (c->armv7m.rules != c->armv7m.blocks_rules) {
        c->armv7m.blocks_rules = c->armv7m.rules;
        if (c->fast) {
            forget_exact(c);
            forget_blocks(c);
        }
    }
    c->slowly = (c->armv7m.rules & V7M_UNALIGN_TRP) != 0;
}

static const place armv7m_places[] = {
    ARM_PLACES,
    POINTER_PLACE("control", armv7m.control),
    POINTER_PLACE("number", armv7m.number),
    {NULL, 0, 0},
};

static const Family armv7m_family = {
    .name = "armv7m",
    .places = armv7m_places,
    ARM_FAMILY,
    .forget_exception = armv7m_forget_exception,
    .refuse = armv7m_refuse,
    .block_needs = armv7m_block_needs,
    .needs_hold = armv7m_needs_hold,
    .enter = armv7m_enter,
};

/* set_rules(bits): what CCR asks for */
static PyObject *Core_set_rules(Core *c, PyObject *args)
{
    if (!PyArg_ParseTuple(args, "I", &c->armv7m.rules))
        return NULL;
    Py_RETURN_NONE;
}
