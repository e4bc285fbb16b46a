/* The native half of the Unicorn engine: counting, stopping, watching, classifying.
 *
 * One Core serves one uc_engine. It calls the libunicorn that the Python package has loaded, through
 * addresses handed over by unicorn.py; it never links one of its own.
 *
 * Order of checks before each instruction: what the previous one did (watches), then the limit, then
 * requests and points at this position, then what the instruction itself is. The count is raised last.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096u
#define PAGE_MASK 4095u
#define NO_PC UINT64_MAX
#define NO_ICOUNT UINT64_MAX
#define MAX_INSN 16
#define MAX_REGIONS 16
#define MAX_WATCHES 64
#define MAX_WATCH_BYTES 4096
#define MAX_BLOCK 4096
#define MAX_FILTERS 16
#define TLB_SIZE 256
#define CLASS_SIZE 4096
#define BP_FILTER 1024

/* unicorn.h, 2.1 */
#define UC_HOOK_INTR (1 << 0)
#define UC_HOOK_CODE (1 << 2)
#define UC_HOOK_BLOCK (1 << 3)
#define UC_HOOK_MEM_INVALID (0x3f << 4)
#define UC_HOOK_MEM_READ (1 << 10)
#define UC_HOOK_MEM_WRITE (1 << 11)
#define UC_HOOK_INSN_INVALID (1 << 14)
#define UC_PROT_EXEC 4
#define UC_MEM_WRITE 17

typedef int (*emu_start_fn)(void *, uint64_t, uint64_t, uint64_t, size_t);
typedef int (*emu_stop_fn)(void *);
typedef int (*reg_fn)(void *, int, void *);
typedef int (*hook_add_fn)(void *, size_t *, int, void *, void *, uint64_t, uint64_t, ...);
typedef int (*hook_del_fn)(void *, size_t);
typedef int (*translate_fn)(void *, uint64_t, int, uint64_t *);
typedef int (*ctl_fn)(void *, unsigned, ...);

enum reason {
    R_NONE, R_LIMIT, R_BREAKPOINT, R_WATCHPOINT, R_RANGE, R_INTERRUPT,
    R_CLASSIFY, R_TRAP, R_SMC, R_SYSCALL, R_EXCEPTION, R_ERROR, R_MMU, R_LOST, R_TAIL_END
};

/* classes of instructions as unicorn.py hands them to set_class */
enum { CLASS_UNKNOWN = 0, CLASS_PLAIN = 1, CLASS_MMU = 2, CLASS_TRAP = 3, CLASS_SYSCALL = 4 };

typedef struct { uint64_t base, size; uint8_t *host; } region;
typedef struct { uint64_t tag; uint8_t *host; } tlb_entry;
typedef struct { uint8_t bytes[MAX_INSN]; uint8_t size, cls; } class_entry;
typedef struct { uint64_t address; uint8_t used, conditional; } bp_entry;
typedef struct { uint64_t addr; uint32_t size, count, flags, first, last; } block_entry;
typedef struct {
    uint64_t physical;
    uint8_t *host;
    uint32_t length;
    char kind;
    uint8_t hit;       /* by the instruction that is executing */
    uint8_t last;      /* part of the last hit of all */
    uint8_t *old;      /* value at the last look */
    uint8_t *before;   /* values around the last hit */
    uint8_t *after;
} watch;

typedef struct {
    PyObject_HEAD
    void *uc;
    emu_start_fn emu_start;
    emu_stop_fn emu_stop;
    reg_fn reg_read;
    reg_fn reg_write;
    hook_add_fn hook_add;
    hook_del_fn hook_del;
    translate_fn translate;

    uint64_t icount, limit, skip, pc, last_pc;
    uint32_t last_size;
    int reason;
    volatile int interrupt;
    int exception, error, faulted;
    uint64_t fault_address;
    int fault_type;

    int x86, mode64, precise_smc;
    uint64_t rcx, rsp;
    int rcx_id, rsp_id;

    int range_on;
    uint64_t range_start, range_end;

    bp_entry *bps;
    uint64_t bp_mask;
    uint32_t bp_count;
    uint8_t bp_filter[BP_FILTER], bp_pages[256];

    int collect;
    uint64_t bp_last;
    uint64_t watch_last;

    watch watches[MAX_WATCHES];
    int watch_count;
    int points; /* watches, breakpoints or a range: look at every instruction */
    size_t access_hook;
    int access_hooked;

    uint32_t filter_mask[MAX_FILTERS], filter_value[MAX_FILTERS];
    uint16_t filters_low[256], filters_high[256]; /* filters that a first or fourth byte leaves possible */
    int filter_count;
    class_entry *classes;
    int class_count;
    uint8_t code[MAX_INSN];
    int code_size;
    int tlb_stale, mmu_seen;

    region regions[MAX_REGIONS];
    int region_count;
    uint8_t *ram;
    uint8_t *code_pages;
    uint64_t code_pages_length;
    PyObject *code_pages_owner;
    tlb_entry tlb[TLB_SIZE];

    /* gears: see _fast.h */
    int fast, phase, compressed, refused, device_granted, fast_exit, code_hooked;
    ctl_fn ctl;
    int pc_id, stale_pc;
    block_entry *blocks;
    uint64_t block_mask, block_count;
    uint8_t *page_flags;
    uint64_t user_limit, block_icount, tail_icount, last_icount, spell, spell_end, tails, tails_at;
    uint32_t block_length, tail_size;
    size_t code_hook;

    uint64_t block;
    uint32_t block_size;
    uint8_t block_bytes[MAX_BLOCK];
} Core;

static inline uint64_t mix(uint64_t x)
{
    x *= 0x9E3779B97F4A7C15ull;
    return x ^ (x >> 29);
}

static void stop(Core *c, int reason, uint64_t pc)
{
    c->reason = reason;
    c->pc = pc;
    c->emu_stop(c->uc);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static uint8_t *physical_to_host(Core *c, uint64_t pa)
{
    for (int i = 0; i < c->region_count; i++)
        if (pa - c->regions[i].base < c->regions[i].size)
            return c->regions[i].host + (pa - c->regions[i].base);
    return NULL;
}

static void tlb_clear(Core *c)
{
    memset(c->tlb, 0, sizeof c->tlb);
    c->tlb_stale = 0;
}

/* Host address of a page that is being executed; NULL where it is not RAM. */
static uint8_t *code_page(Core *c, uint64_t va)
{
    uint64_t page = va & ~(uint64_t)PAGE_MASK;
    tlb_entry *e = &c->tlb[(va >> 12) & (TLB_SIZE - 1)];
    if (e->tag == (page | 1))
        return e->host;
    uint64_t pa = page;
    if (c->mmu_seen && c->translate(c->uc, page, UC_PROT_EXEC, &pa) != 0)
        return NULL;
    uint8_t *host = physical_to_host(c, pa);
    if (host) { /* failures are not kept: the guest may map the page without telling */
        e->host = host;
        e->tag = page | 1;
    }
    return host;
}

/* Copy up to n code bytes that may cross a page; returns how many were there. */
static uint32_t copy_code(Core *c, uint64_t va, uint8_t *out, uint32_t n)
{
    uint32_t done = 0;
    while (done < n) {
        uint32_t offset = (uint32_t)((va + done) & PAGE_MASK), part = PAGE - offset;
        uint8_t *host = code_page(c, va + done);
        if (!host)
            break;
        if (part > n - done)
            part = n - done;
        memcpy(out + done, host + offset, part);
        done += part;
    }
    return done;
}

/* ---- x86: Unicorn restarts an instruction that wrote into its own block, firing the hook twice ----- */

enum { X_PLAIN, X_REP, X_BRANCH, X_CALL };

static int x86_opcode(const Core *c, const uint8_t *b, int n)
{
    int i = 0;
    for (; i < n; i++) {
        uint8_t v = b[i];
        if (v == 0x66 || v == 0x67 || v == 0xf2 || v == 0xf3 || v == 0xf0 || v == 0x2e || v == 0x36 || v == 0x3e ||
            v == 0x26 || v == 0x64 || v == 0x65 || (c->mode64 && (v & 0xf0) == 0x40))
            continue;
        break;
    }
    return i;
}

/* First opcode bytes (behind one REX at most) that need a closer look: prefixes, calls, HLT, the two-byte map. */
static const uint8_t x86_first[256] = {
    [0x0f] = 2, [0x26] = 1, [0x2e] = 1, [0x36] = 1, [0x3e] = 1, [0x64] = 1, [0x65] = 1, [0x66] = 1, [0x67] = 1,
    [0x9a] = 1, [0xe8] = 1, [0xf0] = 1, [0xf2] = 1, [0xf3] = 1, [0xf4] = 1, [0xff] = 1,
};
/* Second bytes behind 0F that classify() may name. */
static const uint8_t x86_second[256] = {
    [0x00] = 1, [0x01] = 1, [0x05] = 1, [0x20] = 1, [0x21] = 1, [0x22] = 1, [0x23] = 1, [0x30] = 1, [0x31] = 1,
    [0x32] = 1, [0x33] = 1, [0x34] = 1, [0xa2] = 1, [0xc7] = 1,
};

/* Neither repeats by itself nor can be of interest: true for nearly everything that runs. */
static inline int x86_plain(const Core *c, const uint8_t *b, uint32_t n)
{
    uint32_t i = c->mode64 && (b[0] & 0xf0) == 0x40 && n > 1;
    if (c->mode64 && (b[i] & 0xf0) == 0x40)
        return 0;
    int look = x86_first[b[i]];
    return look == 0 || (look == 2 && i + 1 < n && !x86_second[b[i + 1]]);
}

static int x86_kind(const Core *c, const uint8_t *b, int n)
{
    int i = x86_opcode(c, b, n), rep = 0;
    if (i >= n)
        return X_PLAIN;
    for (int k = 0; k < i; k++)
        rep |= b[k] == 0xf2 || b[k] == 0xf3;
    uint8_t o = b[i], next = i + 1 < n ? b[i + 1] : 0;
    if (rep && ((o >= 0xa4 && o <= 0xa7) || (o >= 0xaa && o <= 0xaf) || (o >= 0x6c && o <= 0x6f)))
        return X_REP;
    if (o == 0xe8 || o == 0x9a || (o == 0xff && ((next >> 3 & 7) == 2 || (next >> 3 & 7) == 3)))
        return X_CALL;
    if (o == 0xeb || o == 0xe9 || o == 0xea || (o & 0xf0) == 0x70 || (o >= 0xe0 && o <= 0xe3) || o == 0xc2 || o == 0xc3 ||
        o == 0xca || o == 0xcb || o == 0xcf || (o == 0x0f && (next & 0xf0) == 0x80) ||
        (o == 0xff && ((next >> 3 & 7) == 4 || (next >> 3 & 7) == 5)))
        return X_BRANCH;
    return X_PLAIN;
}

static uint64_t x86_reg(Core *c, int id)
{
    uint64_t v = 0;
    c->reg_read(c->uc, id, &v);
    return v;
}

/* Same address twice in a row: a restart, or an instruction that repeats by itself? */
static int x86_restarted(Core *c, const uint8_t *b, int n)
{
    switch (x86_kind(c, b, n)) {
    case X_REP: return x86_reg(c, c->rcx_id) == c->rcx;
    case X_CALL: return x86_reg(c, c->rsp_id) == c->rsp;
    case X_BRANCH: return 0;
    default: return 1;
    }
}

static void x86_remember(Core *c, const uint8_t *b, int n)
{
    int kind = x86_kind(c, b, n);
    if (kind == X_REP)
        c->rcx = x86_reg(c, c->rcx_id);
    else if (kind == X_CALL)
        c->rsp = x86_reg(c, c->rsp_id);
}

/* ---- watches --------------------------------------------------------------------------------- */

/* Look at all watched bytes; nonzero if the run must stop. */
static int watches_hit(Core *c)
{
    int any = 0;
    for (int i = 0; i < c->watch_count; i++) {
        watch *w = &c->watches[i];
        if (w->kind != 'r' && memcmp(w->host, w->old, w->length) != 0)
            w->hit = 1;
        any |= w->hit;
    }
    if (!any)
        return 0;
    for (int i = 0; i < c->watch_count; i++) {
        watch *w = &c->watches[i];
        if (w->hit) {
            memcpy(w->before, w->old, w->length);
            memcpy(w->after, w->host, w->length);
            memcpy(w->old, w->host, w->length);
        }
        w->last = w->hit;
        w->hit = 0;
    }
    c->watch_last = c->icount;
    return !c->collect;
}

static void on_access(void *uc, int type, uint64_t address, int size, int64_t value, void *user)
{
    Core *c = user;
    (void)uc;
    (void)value;
    for (int i = 0; i < c->watch_count; i++) {
        watch *w = &c->watches[i];
        if (w->kind == 'w' || (w->kind == 'r' && type == UC_MEM_WRITE))
            continue;
        if (address < w->physical + w->length && w->physical < address + (uint64_t)size)
            w->hit = 1;
    }
}

/* ---- classes --------------------------------------------------------------------------------- */

static int interesting(const Core *c, const uint8_t *b, int n)
{
    if (c->x86) {
        int i = x86_opcode(c, b, n);
        if (i >= n)
            return 0;
        if (b[i] == 0xf4)
            return 1;
        return b[i] == 0x0f && i + 1 < n && x86_second[b[i + 1]];
    }
    if (n < 4)
        return 0;
    uint32_t word;
    memcpy(&word, b, 4);
    for (unsigned left = c->filters_low[b[0]] & c->filters_high[b[3]], i = 0; left; left >>= 1, i++)
        if ((left & 1) && (word & c->filter_mask[i]) == c->filter_value[i])
            return 1;
    return 0;
}

static class_entry *class_slot(Core *c, const uint8_t *b, int n)
{
    uint64_t h = (uint64_t)n;
    for (int i = 0; i < n; i++)
        h = h * 0x100000001b3ull ^ b[i];
    uint64_t i = mix(h) & (CLASS_SIZE - 1);
    while (c->classes[i].size && !(c->classes[i].size == n && memcmp(c->classes[i].bytes, b, (size_t)n) == 0))
        i = (i + 1) & (CLASS_SIZE - 1);
    return &c->classes[i];
}

/* ---- hooks ----------------------------------------------------------------------------------- */

static void mark_code(Core *c, const uint8_t *host)
{
    uint64_t page = (uint64_t)(host - c->ram) >> 12;
    if (page < c->code_pages_length)
        c->code_pages[page] = 1;
}

#include "_fast.h"

static void on_block(void *uc, uint64_t addr, uint32_t size, void *user)
{
    Core *c = user;
    (void)uc;
    if (c->tlb_stale)
        tlb_clear(c);
    if (c->phase == PHASE_FAST) {
        fast_block(c, addr, size);
        return;
    }
    if (c->phase == PHASE_TAIL && c->icount != c->tail_icount) {
        stop(c, R_TAIL_END, addr);
        return;
    }
    if (size > MAX_BLOCK)
        size = MAX_BLOCK;
    uint8_t *first = code_page(c, addr);
    if (first)
        mark_code(c, first);
    if (size && ((addr ^ (addr + size - 1)) & ~(uint64_t)PAGE_MASK)) {
        uint8_t *last = code_page(c, addr + size - 1);
        if (last)
            mark_code(c, last);
    }
    c->block = addr;
    c->block_size = c->precise_smc ? 0 : copy_code(c, addr, c->block_bytes, size);
}

/* What keeps the CPU from going on at this position; R_NONE: nothing. */
static int obstacle(Core *c, uint64_t addr)
{
    if (c->watch_count && watches_hit(c))
        return R_WATCHPOINT;
    if (c->icount >= c->limit)
        return R_LIMIT;
    if (c->interrupt)
        return R_INTERRUPT;
    if (c->icount == c->skip)
        return R_NONE;
    if (c->range_on && (addr < c->range_start || addr >= c->range_end))
        return R_RANGE;
    if (c->bp_count && c->bp_filter[(addr >> 1) & (BP_FILTER - 1)]) {
        uint64_t i = mix(addr) & c->bp_mask;
        while (c->bps[i].used && c->bps[i].address != addr)
            i = (i + 1) & c->bp_mask;
        if (c->bps[i].used) {
            if (!c->collect || c->bps[i].conditional)
                return R_BREAKPOINT;
            c->bp_last = c->icount;
        }
    }
    return R_NONE;
}

/* Nonzero if the instruction must not run now. */
static int look_closer(Core *c, uint64_t addr, const uint8_t *b, uint32_t size)
{
    if (!interesting(c, b, (int)size))
        return 0;
    class_entry *e = class_slot(c, b, (int)size);
    if (!e->size || e->cls >= CLASS_TRAP) {
        memcpy(c->code, b, size);
        c->code_size = (int)size;
        stop(c, !e->size ? R_CLASSIFY : e->cls == CLASS_TRAP ? R_TRAP : R_SYSCALL, addr);
        return 1;
    }
    if (c->fast && !c->mmu_seen && e->cls == CLASS_MMU) {
        stop(c, R_MMU, addr);
        return 1;
    }
    /* With translation in use any system instruction may change the mode, and with it what is mapped. */
    c->mmu_seen |= e->cls == CLASS_MMU;
    c->tlb_stale |= c->mmu_seen;
    return 0;
}

static inline int same_bytes(const uint8_t *a, const uint8_t *b, uint32_t n)
{
    if (n == 4) {
        uint32_t x, y;
        memcpy(&x, a, 4);
        memcpy(&y, b, 4);
        return x == y;
    }
    return memcmp(a, b, n) == 0;
}

static void on_code(void *uc, uint64_t addr, uint32_t size, void *user)
{
    Core *c = user;
    uint8_t copy[MAX_INSN];
    const uint8_t *b = NULL;
    uint32_t offset = (uint32_t)(addr & PAGE_MASK);
    (void)uc;

    if (c->tlb_stale)
        tlb_clear(c);
    if (size <= MAX_INSN && size) {
        if (offset + size <= PAGE) {
            uint8_t *host = code_page(c, addr);
            b = host ? host + offset : NULL;
        } else if (copy_code(c, addr, copy, size) == size) {
            b = copy;
        }
    } else if (c->x86) {
        /* No size: an instruction that this CPU model does not have. Some of those are performed all the same. */
        uint32_t n = copy_code(c, addr, copy, MAX_INSN - 1), opcode = (uint32_t)x86_opcode(c, copy, (int)n);
        if (opcode + 3 <= n && copy[opcode] == 0x0f) {
            b = copy;
            size = opcode + 3;
        }
    }
    int plain = 1;
    if (c->x86 && b) {
        plain = x86_plain(c, b, size);
        if (addr == c->last_pc && x86_restarted(c, b, (int)size))
            return;
        if (!plain)
            x86_remember(c, b, (int)size);
    }
    if (c->icount >= c->limit || c->interrupt || c->points) {
        int reason = obstacle(c, addr);
        if (reason != R_NONE) {
            stop(c, reason, addr);
            return;
        }
    }
    if (b) {
        if ((!c->x86 || !plain) && look_closer(c, addr, b, size))
            return;
        /* the block changed under our feet: what was translated is not what stands there */
        if (c->block_size) {
            uint64_t at = addr - c->block;
            if (at + size <= c->block_size && !same_bytes(b, c->block_bytes + at, size)) {
                stop(c, R_SMC, addr);
                return;
            }
        }
    }
    c->last_pc = addr;
    c->last_size = size;
    c->icount++;
}

static void on_interrupt(void *uc, uint32_t number, void *user)
{
    Core *c = user;
    c->exception = (int)number;
    c->reason = R_EXCEPTION;
    c->emu_stop(uc);
}

static bool on_invalid_insn(void *uc, void *user)
{
    (void)uc;
    (void)user;
    return false;
}

static bool on_invalid_memory(void *uc, int type, uint64_t address, int size, int64_t value, void *user)
{
    Core *c = user;
    (void)uc;
    (void)size;
    (void)value;
    if (!c->faulted) {
        c->faulted = 1;
        c->fault_type = type;
        c->fault_address = address;
    }
    return false;
}

#include "_gears.h"

/* ---- the Python type ------------------------------------------------------------------------------ */

static int add_hook(Core *c, int type, void *callback, size_t *handle)
{
    return c->hook_add(c->uc, handle, type, callback, c, (uint64_t)1, (uint64_t)0);
}

static int Core_init(Core *c, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"uc", "functions", "x86", "mode64", "precise_smc", "rcx", "rsp", "filters", "code_pages", "ram",
                            "fast", "compressed", "pc", "stale_pc", NULL};
    unsigned long long uc, fn[8], ram;
    PyObject *filters, *pages;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "K(KKKKKKKK)pppiiOOKppii", names, &uc, &fn[0], &fn[1], &fn[2], &fn[3],
                                     &fn[4], &fn[5], &fn[6], &fn[7], &c->x86, &c->mode64, &c->precise_smc, &c->rcx_id,
                                     &c->rsp_id, &filters, &pages, &ram, &c->fast, &c->compressed, &c->pc_id, &c->stale_pc))
        return -1;
    c->uc = (void *)(uintptr_t)uc;
    c->emu_start = (emu_start_fn)(uintptr_t)fn[0];
    c->emu_stop = (emu_stop_fn)(uintptr_t)fn[1];
    c->reg_read = (reg_fn)(uintptr_t)fn[2];
    c->reg_write = (reg_fn)(uintptr_t)fn[3];
    c->hook_add = (hook_add_fn)(uintptr_t)fn[4];
    c->hook_del = (hook_del_fn)(uintptr_t)fn[5];
    c->translate = (translate_fn)(uintptr_t)fn[6];
    c->ctl = (ctl_fn)(uintptr_t)fn[7];
    c->ram = (uint8_t *)(uintptr_t)ram;
    c->skip = NO_ICOUNT;
    c->bp_last = c->watch_last = NO_ICOUNT;
    Py_ssize_t n = PySequence_Size(filters);
    if (n < 0 || n > MAX_FILTERS) {
        PyErr_SetString(PyExc_ValueError, "too many trap filters");
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *pair = PySequence_GetItem(filters, i);
        unsigned int mask, value;
        if (!pair || !PyArg_ParseTuple(pair, "II", &mask, &value)) {
            Py_XDECREF(pair);
            return -1;
        }
        Py_DECREF(pair);
        c->filter_mask[i] = mask;
        c->filter_value[i] = value;
        for (unsigned byte = 0; byte < 256; byte++) {
            c->filters_low[byte] |= (uint16_t)(((byte ^ value) & mask & 0xff) == 0) << i;
            c->filters_high[byte] |= (uint16_t)(((byte << 24 ^ value) & mask & 0xff000000u) == 0) << i;
        }
    }
    c->filter_count = (int)n;
    if (!PyByteArray_Check(pages)) {
        PyErr_SetString(PyExc_TypeError, "code_pages must be a bytearray");
        return -1;
    }
    Py_INCREF(pages);
    c->code_pages_owner = pages;
    c->code_pages = (uint8_t *)PyByteArray_AS_STRING(pages);
    c->code_pages_length = (uint64_t)PyByteArray_GET_SIZE(pages);
    c->page_flags = calloc(c->code_pages_length + 1, 1);
    c->block_mask = FIRST_BLOCKS - 1;
    c->blocks = calloc(FIRST_BLOCKS, sizeof *c->blocks);
    c->phase = PHASE_FAST;
    c->classes = calloc(CLASS_SIZE, sizeof *c->classes);
    c->bps = calloc(1, sizeof *c->bps);
    if (!c->classes || !c->bps || !c->page_flags || !c->blocks) {
        PyErr_NoMemory();
        return -1;
    }
    size_t h;
    int e = add_hook(c, UC_HOOK_BLOCK, (void *)on_block, &h);
    if (c->fast)
        e |= add_hook(c, UC_HOOK_TLB_FILL, (void *)on_tlb, &h);
    e |= add_hook(c, UC_HOOK_INTR, (void *)on_interrupt, &h);
    e |= add_hook(c, UC_HOOK_INSN_INVALID, (void *)on_invalid_insn, &h);
    e |= add_hook(c, UC_HOOK_MEM_INVALID, (void *)on_invalid_memory, &h);
    if (e) {
        PyErr_Format(PyExc_RuntimeError, "Unicorn refused a hook (error %d)", e);
        return -1;
    }
    return 0;
}

static void free_watches(Core *c)
{
    for (int i = 0; i < c->watch_count; i++) {
        free(c->watches[i].old);
        free(c->watches[i].before);
        free(c->watches[i].after);
    }
    c->watch_count = 0;
}

static void Core_dealloc(Core *c)
{
    free_watches(c);
    free(c->page_flags);
    free(c->blocks);
    free(c->classes);
    free(c->bps);
    Py_XDECREF(c->code_pages_owner);
    Py_TYPE(c)->tp_free((PyObject *)c);
}

static PyObject *Core_add_region(Core *c, PyObject *args)
{
    unsigned long long base, size, host;
    if (!PyArg_ParseTuple(args, "KKK", &base, &size, &host))
        return NULL;
    if (c->region_count == MAX_REGIONS) {
        PyErr_SetString(PyExc_ValueError, "too many RAM regions");
        return NULL;
    }
    c->regions[c->region_count++] = (region){base, size, (uint8_t *)(uintptr_t)host};
    tlb_clear(c);
    Py_RETURN_NONE;
}

static PyObject *Core_run(Core *c, PyObject *args)
{
    unsigned long long pc, limit;
    if (!PyArg_ParseTuple(args, "KK", &pc, &limit))
        return NULL;
    c->user_limit = limit;
    c->pc = pc;
    if (c->icount < c->last_icount)
        c->spell = c->spell_end = c->tails = c->tails_at = 0; /* the guest was put back */
    Py_BEGIN_ALLOW_THREADS
    run_phases(c);
    Py_END_ALLOW_THREADS
    c->last_icount = c->icount;
    return PyLong_FromLong(c->reason);
}

/* the instruction that ran last did not retire */
static PyObject *Core_retract(Core *c, PyObject *Py_UNUSED(ignored))
{
    for (int i = 0; i < c->watch_count; i++)
        c->watches[i].hit = 0;
    c->icount--;
    Py_RETURN_NONE;
}

static PyObject *Core_request_interrupt(Core *c, PyObject *Py_UNUSED(ignored))
{
    c->interrupt = 1;
    Py_RETURN_NONE;
}

static PyObject *Core_clear_interrupt(Core *c, PyObject *Py_UNUSED(ignored))
{
    c->interrupt = 0;
    Py_RETURN_NONE;
}

static void update_points(Core *c)
{
    c->points = c->watch_count || c->bp_count || c->range_on;
}

/* arrive(pc) -> reason: the checks that come before an instruction, for one that cannot even be fetched */
static PyObject *Core_arrive(Core *c, PyObject *args)
{
    unsigned long long pc;
    if (!PyArg_ParseTuple(args, "K", &pc))
        return NULL;
    c->pc = pc;
    return PyLong_FromLong(obstacle(c, pc));
}

static PyObject *Core_set_class(Core *c, PyObject *args)
{
    Py_buffer b;
    int cls;
    if (!PyArg_ParseTuple(args, "y*i", &b, &cls))
        return NULL;
    if (b.len >= 1 && b.len <= MAX_INSN) {
        if (c->class_count > CLASS_SIZE / 2) {
            memset(c->classes, 0, CLASS_SIZE * sizeof *c->classes);
            c->class_count = 0;
        }
        class_entry *e = class_slot(c, b.buf, (int)b.len);
        c->class_count += e->size == 0;
        memcpy(e->bytes, b.buf, (size_t)b.len);
        e->size = (uint8_t)b.len;
        e->cls = (uint8_t)cls;
    }
    PyBuffer_Release(&b);
    Py_RETURN_NONE;
}

/* set_breakpoints([(address, conditional), ...]) */
static PyObject *Core_set_breakpoints(Core *c, PyObject *list)
{
    Py_ssize_t n = PySequence_Size(list);
    if (n < 0)
        return NULL;
    uint64_t size = 16;
    while (size < (uint64_t)n * 4)
        size *= 2;
    bp_entry *table = calloc(size, sizeof *table);
    if (!table)
        return PyErr_NoMemory();
    uint8_t filter[BP_FILTER] = {0}, pages[256] = {0};
    for (Py_ssize_t k = 0; k < n; k++) {
        PyObject *item = PySequence_GetItem(list, k);
        unsigned long long address;
        int conditional;
        if (!item || !PyArg_ParseTuple(item, "Kp", &address, &conditional)) {
            Py_XDECREF(item);
            free(table);
            return NULL;
        }
        Py_DECREF(item);
        uint64_t i = mix(address) & (size - 1);
        while (table[i].used && table[i].address != address)
            i = (i + 1) & (size - 1);
        table[i].conditional = table[i].used ? table[i].conditional && conditional : (uint8_t)conditional;
        table[i].used = 1;
        table[i].address = address;
        filter[(address >> 1) & (BP_FILTER - 1)] = 1;
        pages[address >> 12 & 255] = 1;
    }
    free(c->bps);
    c->bps = table;
    c->bp_mask = size - 1;
    c->bp_count = (uint32_t)n;
    memcpy(c->bp_filter, filter, sizeof filter);
    memcpy(c->bp_pages, pages, sizeof pages);
    update_points(c);
    Py_RETURN_NONE;
}

static void rearm(Core *c)
{
    for (int i = 0; i < c->watch_count; i++) {
        c->watches[i].hit = 0;
        memcpy(c->watches[i].old, c->watches[i].host, c->watches[i].length);
    }
}

/* set_watches([(physical, length, kind), ...]); true if the memory hooks changed and translations must go */
static PyObject *Core_set_watches(Core *c, PyObject *list)
{
    Py_ssize_t n = PySequence_Size(list);
    int access = 0;
    if (n < 0)
        return NULL;
    if (n > MAX_WATCHES) {
        PyErr_Format(PyExc_ValueError, "at most %d watched ranges", MAX_WATCHES);
        return NULL;
    }
    free_watches(c);
    for (Py_ssize_t k = 0; k < n; k++) {
        PyObject *item = PySequence_GetItem(list, k);
        unsigned long long physical;
        unsigned int length;
        char kind;
        if (!item || !PyArg_ParseTuple(item, "KIc", &physical, &length, &kind)) {
            Py_XDECREF(item);
            return NULL;
        }
        Py_DECREF(item);
        uint8_t *host = physical_to_host(c, physical);
        if (!host || !length || length > MAX_WATCH_BYTES || physical_to_host(c, physical + length - 1) != host + length - 1) {
            PyErr_SetString(PyExc_ValueError, "a watched range lies outside RAM");
            return NULL;
        }
        watch *w = &c->watches[c->watch_count];
        *w = (watch){.physical = physical, .host = host, .length = length, .kind = kind};
        w->old = malloc(length);
        w->before = malloc(length);
        w->after = malloc(length);
        c->watch_count++;
        if (!w->old || !w->before || !w->after) {
            free_watches(c);
            return PyErr_NoMemory();
        }
        access |= kind != 'w';
    }
    rearm(c);
    update_points(c);
    int changed = access != c->access_hooked;
    if (access && !c->access_hooked)
        add_hook(c, UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, (void *)on_access, &c->access_hook);
    else if (!access && c->access_hooked)
        c->hook_del(c->uc, c->access_hook);
    c->access_hooked = access;
    return PyBool_FromLong(changed);
}

static PyObject *Core_rearm_watches(Core *c, PyObject *Py_UNUSED(ignored))
{
    rearm(c);
    Py_RETURN_NONE;
}

static PyObject *Core_set_collect(Core *c, PyObject *args)
{
    if (!PyArg_ParseTuple(args, "p", &c->collect))
        return NULL;
    rearm(c);
    for (int i = 0; i < c->watch_count; i++)
        c->watches[i].last = 0;
    c->bp_last = c->watch_last = NO_ICOUNT;
    Py_RETURN_NONE;
}

/* [(index, old, new), ...] of the last watch stop, or of the last one collected; forgets them */
static PyObject *Core_take_watch_hits(Core *c, PyObject *Py_UNUSED(ignored))
{
    PyObject *result = PyList_New(0);
    if (!result)
        return NULL;
    for (int i = 0; i < c->watch_count; i++) {
        watch *w = &c->watches[i];
        if (!w->last)
            continue;
        w->last = 0;
        PyObject *item = Py_BuildValue("(iy#y#)", i, (char *)w->before,
                                       (Py_ssize_t)w->length, (char *)w->after, (Py_ssize_t)w->length);
        if (!item || PyList_Append(result, item) < 0) {
            Py_XDECREF(item);
            Py_DECREF(result);
            return NULL;
        }
        Py_DECREF(item);
    }
    return result;
}

static PyObject *Core_set_range(Core *c, PyObject *args)
{
    unsigned long long start, end;
    if (!PyArg_ParseTuple(args, "KK", &start, &end))
        return NULL;
    c->range_start = start;
    c->range_end = end;
    c->range_on = start != end;
    update_points(c);
    Py_RETURN_NONE;
}

static PyObject *Core_lower_limit(Core *c, PyObject *args)
{
    unsigned long long limit;
    if (!PyArg_ParseTuple(args, "K", &limit))
        return NULL;
    if (limit < c->user_limit)
        c->user_limit = limit;
    if (limit < c->limit)
        c->limit = limit;
    Py_RETURN_NONE;
}

static PyObject *Core_set_mmu(Core *c, PyObject *args)
{
    int on;
    if (!PyArg_ParseTuple(args, "p", &on))
        return NULL;
    set_mmu(c, on);
    Py_RETURN_NONE;
}

static PyObject *Core_forget_blocks(Core *c, PyObject *Py_UNUSED(ignored))
{
    forget_blocks(c);
    Py_RETURN_NONE;
}

static PyObject *Core_trapped_code(Core *c, PyObject *Py_UNUSED(ignored))
{
    return PyBytes_FromStringAndSize((char *)c->code, c->code_size);
}

/* read_registers(plan): plan holds (int32 id, int32 bytes) pairs, id < 0 for bytes of zero */
static PyObject *Core_read_registers(Core *c, PyObject *args)
{
    Py_buffer plan;
    if (!PyArg_ParseTuple(args, "y*", &plan))
        return NULL;
    const int32_t *p = plan.buf;
    Py_ssize_t n = plan.len / 8, total = 0;
    for (Py_ssize_t i = 0; i < n; i++)
        total += p[2 * i + 1];
    PyObject *out = PyBytes_FromStringAndSize(NULL, total);
    if (out) {
        char *o = PyBytes_AS_STRING(out);
        for (Py_ssize_t i = 0; i < n; i++) {
            uint8_t value[64] = {0};
            if (p[2 * i] >= 0)
                c->reg_read(c->uc, p[2 * i], value);
            memcpy(o, value, (size_t)p[2 * i + 1]);
            o += p[2 * i + 1];
        }
    }
    PyBuffer_Release(&plan);
    return out;
}

static PyMethodDef Core_methods[] = {
    {"add_region", (PyCFunction)Core_add_region, METH_VARARGS, "add_region(base, size, host): RAM seen by the hooks"},
    {"arrive", (PyCFunction)Core_arrive, METH_VARARGS, "arrive(pc) -> reason why the run stops there, or NONE"},
    {"run", (PyCFunction)Core_run, METH_VARARGS, "run(pc, limit) -> reason"},
    {"retract", (PyCFunction)Core_retract, METH_NOARGS, "the instruction counted last raised an exception"},
    {"request_interrupt", (PyCFunction)Core_request_interrupt, METH_NOARGS, "stop before the next instruction"},
    {"clear_interrupt", (PyCFunction)Core_clear_interrupt, METH_NOARGS, "withdraw request_interrupt"},
    {"set_class", (PyCFunction)Core_set_class, METH_VARARGS, "set_class(code, class)"},
    {"set_breakpoints", (PyCFunction)Core_set_breakpoints, METH_O, "set_breakpoints([(address, conditional), ...])"},
    {"set_watches", (PyCFunction)Core_set_watches, METH_O, "set_watches([(physical, length, kind), ...]) -> hooks changed"},
    {"rearm", (PyCFunction)Core_rearm_watches, METH_NOARGS, "take the watched bytes as they are now"},
    {"set_collect", (PyCFunction)Core_set_collect, METH_VARARGS, "set_collect(on): note hits instead of stopping; forgets those noted"},
    {"take_watch_hits", (PyCFunction)Core_take_watch_hits, METH_NOARGS, "-> [(index, old, new), ...]"},
    {"lower_limit", (PyCFunction)Core_lower_limit, METH_VARARGS, "lower_limit(icount): of the run that is under way"},
    {"set_mmu", (PyCFunction)Core_set_mmu, METH_VARARGS, "set_mmu(on): the guest does (not) translate addresses"},
    {"forget_blocks", (PyCFunction)Core_forget_blocks, METH_NOARGS, "code was changed from outside"},
    {"set_range", (PyCFunction)Core_set_range, METH_VARARGS, "set_range(start, end); equal: off"},
    {"trapped_code", (PyCFunction)Core_trapped_code, METH_NOARGS, "bytes of the instruction that trapped"},
    {"read_registers", (PyCFunction)Core_read_registers, METH_VARARGS, "read_registers(plan) -> bytes"},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef Core_members[] = {
    {"icount", T_ULONGLONG, offsetof(Core, icount), 0, "instructions retired"},
    {"limit", T_ULONGLONG, offsetof(Core, limit), 0, "stop before this instruction"},
    {"skip", T_ULONGLONG, offsetof(Core, skip), 0, "no breakpoint or range stop at this icount"},
    {"pc", T_ULONGLONG, offsetof(Core, pc), 0, "where the last run stopped"},
    {"last_pc", T_ULONGLONG, offsetof(Core, last_pc), READONLY, "last counted instruction of this run"},
    {"last_size", T_UINT, offsetof(Core, last_size), READONLY, "its length"},
    {"exception", T_INT, offsetof(Core, exception), READONLY, "interrupt number or -1"},
    {"error", T_INT, offsetof(Core, error), READONLY, "uc_err of the last run"},
    {"faulted", T_INT, offsetof(Core, faulted), READONLY, "an access failed"},
    {"fault_type", T_INT, offsetof(Core, fault_type), READONLY, "uc_mem_type"},
    {"fault_address", T_ULONGLONG, offsetof(Core, fault_address), READONLY, "its address"},
    {"bp_last", T_ULONGLONG, offsetof(Core, bp_last), READONLY, "icount of the last collected breakpoint"},
    {"watch_last", T_ULONGLONG, offsetof(Core, watch_last), READONLY, "icount behind the last watch hit"},
    {"mmu_seen", T_INT, offsetof(Core, mmu_seen), 0, "the guest touched its address translation"},
    {"tlb_stale", T_INT, offsetof(Core, tlb_stale), 0, "look code pages up again"},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject CoreType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "rrgdb.engine._hot.Core",
    .tp_basicsize = sizeof(Core),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Hooks and counters of one uc_engine",
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)Core_init,
    .tp_dealloc = (destructor)Core_dealloc,
    .tp_methods = Core_methods,
    .tp_members = Core_members,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_hot", .m_doc = "Native hooks of the Unicorn engine", .m_size = -1};

PyMODINIT_FUNC PyInit__hot(void)
{
    static const struct { const char *name; int value; } constants[] = {
        {"LIMIT", R_LIMIT}, {"BREAKPOINT", R_BREAKPOINT}, {"WATCHPOINT", R_WATCHPOINT}, {"RANGE", R_RANGE},
        {"INTERRUPT", R_INTERRUPT}, {"CLASSIFY", R_CLASSIFY}, {"TRAP", R_TRAP}, {"SYSCALL", R_SYSCALL}, {"EXCEPTION", R_EXCEPTION},
        {"ERROR", R_ERROR}, {"LOST", R_LOST}, {"NONE", R_NONE}, {"CLASS_PLAIN", CLASS_PLAIN}, {"CLASS_MMU", CLASS_MMU}, {"CLASS_TRAP", CLASS_TRAP},
        {"CLASS_SYSCALL", CLASS_SYSCALL},
    };
    if (PyType_Ready(&CoreType) < 0)
        return NULL;
    PyObject *m = PyModule_Create(&module);
    if (!m)
        return NULL;
    Py_INCREF(&CoreType);
    if (PyModule_AddObject(m, "Core", (PyObject *)&CoreType) < 0)
        return NULL;
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(m, constants[i].name, constants[i].value) < 0)
            return NULL;
    return m;
}
