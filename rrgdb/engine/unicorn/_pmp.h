/* RISC-V: physical memory protection.
 *
 * The virtual TLB is granted what the entries allow of a whole page. Where an entry ends within a page, and where
 * Unicorn translates addresses itself but an entry grants some kinds of accesses only (Unicorn looks at the first access
 * to a page), the accesses of each instruction are looked at before it begins.
 */
#pragma once
#include "_core.h"
#include "_inline.h"
#include "_lists.h"
#include "_memory.h"
#include "_riscv_decode.h"

enum { RV_USER, RV_SUPERVISOR, RV_MACHINE = 3 };
#define RV_MPRV (1u << 17)
#define PMP_PARTLY (-1)

/* Privilege of an access: MPRV gives machine mode's loads and stores that of MPP. */
static int rv_mode(const Core *c, int fetch)
{
    int mode = (int)(*c->privilege & 3);
    if (mode == RV_MACHINE && !fetch && *c->riscv.status & RV_MPRV)
        return (int)rv_bits(*c->riscv.status, 11, 2);
    return mode;
}

/* What the entries allow on physical addresses first to last; PMP_PARTLY: an entry that decides holds a part of them. */
static int pmp_allows(const Core *c, int mode, uint64_t first, uint64_t last)
{
    for (int i = 0; i < c->riscv.pmp_count; i++) {
        const pmp_entry *e = &c->riscv.pmp[i];
        if (e->last < e->first || last < e->first || first > e->last)
            continue;
        if (first < e->first || last > e->last)
            return PMP_PARTLY;
        return mode == RV_MACHINE && !e->locked ? UC_PROT_RWX : e->permissions;
    }
    return mode == RV_MACHINE ? UC_PROT_RWX : 0;
}

static int kind_of(int type)
{
    return type == UC_MEM_FETCH ? UC_PROT_EXEC : type == UC_MEM_WRITE ? UC_PROT_WRITE : UC_PROT_READ;
}

static void deny(Core *c, int kind, uint64_t address)
{
    c->denied = kind;
    c->denied_at = address;
}

/* What a fill of the virtual TLB may grant on its page; 0: nothing, the access is refused. */
static int pmp_grants(Core *c, uint64_t va, int type, int whole)
{
    uint64_t page = va & ~(uint64_t)PAGE_MASK;
    int kind = kind_of(type), allowed = pmp_allows(c, rv_mode(c, type == UC_MEM_FETCH), page, page + PAGE_MASK);
    if (allowed == PMP_PARTLY && !whole) {
        c->device_granted = 1; /* here each access was looked at; the fast phase must ask again */
        return UC_PROT_RWX;
    }
    if (allowed != PMP_PARTLY && allowed & kind)
        return allowed;
    if (whole)
        c->refused = type == UC_MEM_FETCH ? REFUSED_CODE : REFUSED_DEVICE;
    else
        deny(c, kind, page);
    return 0;
}

/* Physical address of an access that Unicorn would make; zero: it will find a fault of its own. */
static int rv_physical(Core *c, uint64_t va, int kind, uint64_t *pa)
{
    *pa = va;
    return !c->mmu_seen || c->translate(c->uc, va, kind, pa) == 0;
}

/* Whether the access is denied. Pages are asked one by one, as they are translated. */
static int pmp_denies(Core *c, uint64_t va, uint32_t size, int kinds, int mode)
{
    for (uint64_t at = va, end = va + size; at != end;) {
        uint64_t n = PAGE - (at & PAGE_MASK), pa;
        if (n > end - at)
            n = end - at;
        if (!rv_physical(c, at, kinds & UC_PROT_WRITE ? UC_PROT_WRITE : kinds, &pa))
            return 0;
        int allowed = pmp_allows(c, mode, pa, pa + n - 1);
        if (allowed == PMP_PARTLY || (allowed & kinds) != kinds) {
            deny(c, kinds & UC_PROT_WRITE ? UC_PROT_WRITE : kinds, at);
            return 1;
        }
        at += n;
    }
    return 0;
}

/* Whether PMP keeps this instruction from running, where the TLB does not tell. */
static int pmp_stops(Core *c, uint64_t addr, const uint8_t *b, uint32_t size)
{
    rv_access a;
    if (!(c->mmu_seen || !c->fast ? c->riscv.pmp_native_lacks : c->riscv.pmp_partly))
        return 0;
    for (uint32_t at = 0; at < size; at += 2)
        if (pmp_denies(c, addr + at, 2, UC_PROT_EXEC, rv_mode(c, 1)))
            return 1;
    if (!rv_access_of(c, b, size, &a) || !pmp_denies(c, a.address, a.size, a.kinds, rv_mode(c, 0)))
        return 0;
    return !a.floating || *c->riscv.status & 3u << 13; /* without floating point it is illegal first */
}

/* A refused fill of the TLB ended the run: of which byte? */
static void pmp_find_address(Core *c)
{
    uint8_t b[MAX_INSN];
    rv_access a;
    uint32_t n = copy_code(c, c->last_pc, b, 4);
    if (c->denied == UC_PROT_EXEC || n < 2)
        return;
    if (rv_access_of(c, b, (b[0] & 3) == 3 ? 4 : 2, &a) && ((a.address ^ c->denied_at) & ~(uint64_t)PAGE_MASK) == 0)
        c->denied_at = a.address;
}

static int take_pmp_entry(void *to, Py_ssize_t k, PyObject *item)
{
    Core *c = to;
    unsigned long long first, last;
    pmp_entry *e = &c->riscv.pmp[k];
    if (!PyArg_ParseTuple(item, "KKip", &first, &last, &e->permissions, &e->locked))
        return -1;
    e->first = first;
    e->last = last;
    int partly = first <= last && (first & PAGE_MASK || ~last & PAGE_MASK);
    c->riscv.pmp_partly |= partly;
    c->riscv.pmp_native_lacks |= partly || (first <= last && e->permissions != 0 && e->permissions != UC_PROT_RWX);
    return 0;
}

/* set_pmp([(first, last, permissions, locked), ...]) */
static PyObject *Core_set_pmp(Core *c, PyObject *list)
{
    Py_ssize_t n = list_length(list, MAX_PMP, "PMP entries");
    if (n < 0)
        return NULL;
    c->riscv.pmp_count = c->riscv.pmp_partly = c->riscv.pmp_native_lacks = 0;
    if (take_items(list, n, take_pmp_entry, c))
        return NULL;
    c->riscv.pmp_count = (int)n;
    forget_sites(c);
    c->ctl(c->uc, CTL_TLB_FLUSH);
    Py_RETURN_NONE;
}
