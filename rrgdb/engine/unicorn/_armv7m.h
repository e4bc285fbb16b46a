/* The M profile: Thumb alone, and faults that Unicorn does not find (DDI 0403, sections A3.2.1, B3.2.8).
 *
 * Accesses of LDM, STM, LDRD and STRD must be aligned, those of the others and divisions may have to be. A block that is
 * counted as a whole says which registers must be aligned at its entry; elsewhere each instruction is looked at.
 */
#pragma once
#include "_arm.h"
#include "_fast.h"
#include "_lists.h"
#include "_thumb_access.h"

#define ARMV7M_EXCEPTION_EXIT 8

enum { V7M_UNALIGN_TRP = 1, V7M_DIV_0_TRP = 2, V7M_USERSETMPEND = 4 };
enum { V7M_MPU = 8, V7M_DEFAULT_MAP = 16, V7M_NEGATIVE = 32, V7M_NO_MPU = 64 }; /* NEGATIVE: not with FAULTMASK */
enum { V7M_STATUS_ALIGNMENT = 0x01, V7M_STATUS_EXTERNAL = 0x08, V7M_STATUS_PERMISSION = 0x0d };
/* as the fault status of the A profile has it */
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

/* Whether the memory protection unit has a say. */
static int armv7m_protected(const Core *c)
{
    uint32_t rules = c->armv7m.rules;
    return rules & V7M_MPU && !(rules & V7M_NO_MPU) && !(rules & V7M_NEGATIVE && *c->armv7m.faultmask & 1);
}

static int armv7m_allows(const Core *c, uint32_t address, int user)
{
    int system = address >> 29 == 7, device = address >> 29 == 2 || address >> 29 >= 5;
    int by_default = UC_PROT_RWX & ~(device ? UC_PROT_EXEC : 0);
    if (address >> 20 == V7M_PRIVATE)
        return by_default;
    for (int i = 0; i < c->armv7m.mpu_count; i++) {
        const mpu_region *r = &c->armv7m.mpu[i];
        if (address >= r->first && address <= r->last)
            return (user ? r->user : r->privileged) & ~(system ? UC_PROT_EXEC : 0);
    }
    return !user && c->armv7m.rules & V7M_DEFAULT_MAP ? by_default : 0;
}

/* Whether a single access is denied, and where: one that reaches into another page (of 1 KiB) is asked about there too,
 * one within a page where it begins, as QEMU does. */
static int armv7m_denies(const Core *c, uint32_t *address, uint32_t size, int kind, int user)
{
    uint32_t at[3] = {*address, *address, *address}, last = *address + size - 1;
    if ((*address ^ last) >> 10) {
        at[1] = kind == UC_PROT_WRITE ? last & ~1023u : *address & -size;
        at[2] = kind == UC_PROT_WRITE ? at[1] : at[1] + size;
    }
    for (int i = 0; i < 3; i++) {
        *address = at[i];
        if (!(armv7m_allows(c, at[i], user) & kind))
            return 1;
    }
    return 0;
}

static int armv7m_access_fault(Core *c, const thumb_access *a)
{
    int kind = a->store ? UC_PROT_WRITE : UC_PROT_READ;
    if (a->address & (a->strict ? 3 : a->size - 1) && (a->strict || c->armv7m.rules & V7M_UNALIGN_TRP))
        return armv7m_deny(c, kind, a->address, V7M_STATUS_ALIGNMENT);
    int user = armv7m_user(c) || a->unprivileged, protected = armv7m_protected(c);
    for (uint32_t i = 0; i < a->count && (user || protected); i++) {
        uint32_t address = a->address + i * a->size, denied = address;
        if (protected && armv7m_denies(c, &denied, a->size, kind, user))
            return armv7m_deny(c, kind, denied, V7M_STATUS_PERMISSION);
        if (user && address >> 20 == V7M_PRIVATE && !(address == V7M_STIR && c->armv7m.rules & V7M_USERSETMPEND))
            return armv7m_deny(c, kind, address, V7M_STATUS_EXTERNAL);
    }
    return R_NONE;
}

/* Of the instruction itself, which is fetched by halfwords. */
static int armv7m_fetch_fault(Core *c, uint32_t addr, uint32_t n)
{
    for (uint32_t at = 0; at < n; at += 2)
        if (!(armv7m_allows(c, addr + at, armv7m_user(c)) & UC_PROT_EXEC))
            return armv7m_deny(c, UC_PROT_EXEC, addr + at, V7M_STATUS_PERMISSION);
    return R_NONE;
}

static int armv7m_fault(Core *c, uint32_t addr, const uint8_t *b, uint32_t n)
{
    thumb_access a;
    uint32_t rules = c->armv7m.rules;
    const uint32_t *r = armv7m_registers(c);
    int protected = armv7m_protected(c);
    if (protected && armv7m_fetch_fault(c, addr, n))
        return R_DENIED;
    if (rules & V7M_DIV_0_TRP && thumb_divides(b, n) && !r[b[2] & 15])
        return R_DIVISION;
    if (!protected && !(rules & V7M_UNALIGN_TRP) && !armv7m_user(c) && thumb_aligned_base(b, n) < 0 &&
        !thumb_unprivileged(b, n))
        return R_NONE;
    return thumb_access_of(r, addr, b, n, &a) ? armv7m_access_fault(c, &a) : R_NONE;
}

static int armv7m_refuse(Core *c, uint64_t addr, const uint8_t *b, uint32_t n, int harmless)
{
    (void)harmless;
    int why = b && !c->bare ? armv7m_fault(c, (uint32_t)addr, b, n) : R_NONE;
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
    uint32_t of_blocks = c->armv7m.rules & V7M_DIV_0_TRP;
    if (of_blocks != c->armv7m.blocks_rules) {
        c->armv7m.blocks_rules = of_blocks;
        if (c->fast) {
            forget_exact(c);
            forget_blocks(c);
        }
    }
    c->slowly = (c->armv7m.rules & (V7M_UNALIGN_TRP | V7M_MPU)) != 0;
}

static const place armv7m_places[] = {
    ARM_PLACES,
    POINTER_PLACE("control", armv7m.control),
    POINTER_PLACE("number", armv7m.number),
    POINTER_PLACE("faultmask", armv7m.faultmask),
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

static int take_mpu_region(void *to, Py_ssize_t k, PyObject *item)
{
    Core *c = to;
    mpu_region *r = &c->armv7m.mpu[k];
    return PyArg_ParseTuple(item, "IIii", &r->first, &r->last, &r->privileged, &r->user) ? 0 : -1;
}

/* set_rules(bits, [(first, last, permissions, without privilege), ...]) */
static PyObject *Core_set_rules(Core *c, PyObject *args)
{
    PyObject *list;
    if (!PyArg_ParseTuple(args, "IO", &c->armv7m.rules, &list))
        return NULL;
    Py_ssize_t n = list_length(list, MAX_MPU, "regions");
    if (n < 0 || take_items(list, n, take_mpu_region, c))
        return NULL;
    c->armv7m.mpu_count = (int)n;
    Py_RETURN_NONE;
}
