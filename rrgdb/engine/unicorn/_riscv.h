/* RISC-V: what Unicorn's core lacks or has wrong, judged or mended before and behind each instruction.
 *
 * Single precision: Unicorn leaves zeros above its results, and does not look there. Sources that are not NaN-boxed are
 * replaced by a NaN for the time of the instruction, and results are boxed behind it; of a block that is counted as a
 * whole, behind the block. ("The RISC-V Instruction Set Manual", volume I, section 12.2.)
 */
#pragma once
#include "_core.h"
#include "_exceptions.h"
#include "_family.h"
#include "_memory.h"
#include "_pmp.h"
#include "_registers.h"
#include "_riscv_decode.h"
#include "_translation.h"

#define RV_MOVED_STATUS 0x60600000u /* TW and TSR, where they are and where Unicorn has them */
#define RV_MRET 0x30200073u
#define RV_BOX 0xffffffff00000000ull
#define RV_NAN 0xffffffff7fc00000ull
#define RV_MSTATUS 0x300u
#define RV_RD (31u << 7)
#define RV_RDTIME 0xc0102073u
#define RV_RDTIMEH 0xc8102073u
#define RV_TM 2 /* of mcounteren */

/* ---- status registers ------------------------------------------------------------------------- */

/* A CSR instruction on mstatus or sstatus. Nonzero: it writes bits that Unicorn has elsewhere, so Python does it. */
static int rv_status_access(Core *c, const uint8_t *b)
{
    uint32_t w = rv_word(b), csr = w >> 20;
    if (csr == RV_MSTATUS && !rv_bits(w, 14, 1) && rv_x(c, rv_bits(w, 15, 5)) & RV_MOVED_STATUS)
        return 1;
    c->riscv.status_rd = (uint8_t)rv_bits(w, 7, 5);
    c->riscv.status_csr = (uint16_t)csr;
    return 0;
}

static void rv_mend_status(Core *c)
{
    uint64_t v = rv_x(c, c->riscv.status_rd);
    if (c->riscv.status_csr == RV_MSTATUS)
        v = (v & ~(uint64_t)RV_MOVED_STATUS) | (v >> 8 & RV_MOVED_STATUS & RV_MOVED_STATUS >> 8);
    if (c->wide)
        v |= c->riscv.status_csr == RV_MSTATUS ? 10ull << 32 : 2ull << 32;
    c->reg_write(c->uc, c->registers[c->riscv.status_rd].id, &v);
    c->riscv.status_rd = 0;
}

/* ---- single precision ------------------------------------------------------------------------- */

static int rv_are_boxed(const Core *c, uint32_t set)
{
    for (; set; set &= set - 1)
        if (c->riscv.floats[__builtin_ctz(set)] < RV_BOX)
            return 0;
    return 1;
}

static void rv_box(Core *c, uint32_t set)
{
    for (; set; set &= set - 1)
        c->riscv.floats[__builtin_ctz(set)] |= RV_BOX;
}

/* One instruction is about to run by itself. */
static void rv_prepare_float(Core *c, const uint8_t *b, uint32_t size)
{
    rv_float f = rv_floats(c, b, size);
    for (uint32_t set = f.single; set; set &= set - 1) {
        int n = __builtin_ctz(set);
        if (c->riscv.floats[n] >= RV_BOX)
            continue;
        c->riscv.unboxed[c->riscv.unboxed_count] = (riscv_unboxed){n, c->riscv.floats[n]};
        c->riscv.unboxed_count++;
        c->riscv.floats[n] = RV_NAN;
    }
    c->riscv.results = f.boxed;
    c->riscv.written = f.boxed | f.other;
}

static void rv_put_back(Core *c, uint32_t but)
{
    for (int i = 0; i < c->riscv.unboxed_count; i++)
        if (!(but >> c->riscv.unboxed[i].number & 1))
            c->riscv.floats[c->riscv.unboxed[i].number] = c->riscv.unboxed[i].value;
    c->riscv.unboxed_count = 0;
}

/* Of a block that may be counted as a whole: which registers are to be boxed at its start and behind it, up to ``end``
 * bytes; zero if its instructions must be looked at one by one. */
static int rv_block_floats(const Core *c, const uint8_t *bytes, uint32_t end, uint32_t *needs, uint32_t *results)
{
    uint32_t boxed = 0, known = 0, written = 0;
    *needs = 0;
    for (uint32_t at = 0; at < end;) {
        uint32_t size = (bytes[at] & 3) == 3 ? 4 : 2;
        if (at + size > end)
            return 0;
        rv_float f = rv_floats(c, bytes + at, size);
        if (f.wide & boxed || f.single & written & ~(boxed | known))
            return 0;
        *needs |= f.single & ~written;
        boxed = (boxed & ~f.other) | f.boxed;
        written |= f.other | f.boxed;
        known &= ~(f.other | f.boxed);
        if (size == 4 && (bytes[at] & 0x7f) == 0x07 && rv_bits(rv_word(bytes + at), 12, 3) == 2)
            known |= f.other; /* FLW boxes */
        at += size;
    }
    *results = boxed;
    return 1;
}

/* Behind the part of the plain block at hand that lies before pc. */
static void rv_box_block(Core *c, uint64_t pc)
{
    uint8_t bytes[MAX_BLOCK];
    uint32_t n = (uint32_t)(pc - c->block), needs, results;
    if (c->riscv.results && copy_code(c, c->block, bytes, n) == n && rv_block_floats(c, bytes, n, &needs, &results))
        rv_box(c, results);
    c->riscv.results = 0;
}

/* ---- what the hooks ask ----------------------------------------------------------------------- */

static inline void rv_retired(Core *c)
{
    if (!c->riscv.floats)
        return;
    if (c->riscv.status_rd)
        rv_mend_status(c);
    if (c->riscv.unboxed_count)
        rv_put_back(c, c->riscv.written);
    if (c->riscv.results) {
        rv_box(c, c->riscv.results);
        c->riscv.results = 0;
    }
}

static void rv_undone(Core *c)
{
    c->riscv.status_rd = 0;
    c->riscv.results = 0;
    rv_put_back(c, 0);
}

/* The instruction raises an exception instead of running, which Unicorn would not find. */
static inline int rv_refuse(Core *c, uint64_t addr, const uint8_t *b, uint32_t n, int harmless)
{
    int why = R_NONE;
    (void)harmless;
    if (!c->riscv.floats || !b)
        return 0;
    if (c->riscv.pmp_count && pmp_stops(c, addr, b, n))
        why = R_DENIED;
    else if (n == 2 && rv_reserved(c, rv_half(b)))
        why = R_ILLEGAL;
    if (why == R_NONE)
        return 0;
    c->last_size = n;
    stop(c, why, addr);
    return 1;
}

static void rv_enter_system(Core *c, const uint8_t *b, uint32_t n)
{
    if (c->riscv.pmp_count && n == 4 && rv_word(b) == RV_MRET && *c->riscv.status & RV_MPRV)
        c->tlb_stale = c->crowded = 1; /* MPP changes, and with it whose accesses machine mode's are */
}

static inline void rv_counted(Core *c, uint64_t addr, const uint8_t *b, uint32_t n, int harmless)
{
    (void)addr;
    (void)harmless;
    if (c->riscv.floats && b && rv_is_float(b, n))
        rv_prepare_float(c, b, n);
}

static int rv_block_needs(Core *c, uint64_t addr, const uint8_t *b, uint32_t size, uint32_t *needs, uint32_t *results)
{
    (void)addr;
    return !c->riscv.floats || rv_block_floats(c, b, size, needs, results);
}

/* ---- exceptions ------------------------------------------------------------------------------- */

/* rrgdb/engine/unicorn/families/riscv.py has their names in this order */
enum { RVE_PRIV, RVE_MEDELEG, RVE_STATUS, RVE_VECTOR = RVE_STATUS + 2, RVE_EPC = RVE_VECTOR + 2, RVE_CAUSE = RVE_EPC + 2,
       RVE_TVAL = RVE_CAUSE + 2, RVE_WORDS = RVE_TVAL + 2 }; /* from RVE_STATUS on: of supervisor mode, and of machine mode */
enum { RV_CALL = 8, RV_LOAD_PAGE_FAULT = 13, RV_STORE_PAGE_FAULT = 15 };

/* Unicorn tells of each system call as of one from user mode. An AMO that cannot load is told as a load; its cause is that of
 * stores (volume II, 3.1.15); LR is a load. */
static uint32_t rv_cause(Core *c, int number)
{
    uint8_t b[4];
    if (number == RV_CALL)
        return RV_CALL + *c->privilege;
    if (number != RV_LOAD_PAGE_FAULT || copy_code(c, c->last_pc, b, 4) != 4)
        return (uint32_t)number;
    uint32_t w = rv_word(b);
    return (w & 0x7f) == 0x2f && w >> 27 != 2 ? RV_STORE_PAGE_FAULT : RV_LOAD_PAGE_FAULT;
}

/* Whether a trap goes to machine mode. */
static int rv_to_machine(Core *c, uint32_t cause)
{
    return *c->privilege == RV_MACHINE || !(entry_read(c, RVE_MEDELEG) >> cause & 1);
}

static int rv_enters(Core *c, int number, int behind)
{
    if (behind || c->fault_at < 0 || (number != RV_CALL && number != RV_LOAD_PAGE_FAULT && number != RV_STORE_PAGE_FAULT))
        return 0;
    return (entry_read(c, RVE_VECTOR + rv_to_machine(c, rv_cause(c, number))) & ~(uint64_t)3) != 0;
}

/* As riscv_interrupts.enter: machine mode comes first, in which all may be written. */
static void rv_enter_exception(Core *c, int number)
{
    uint32_t level = *c->privilege, cause = rv_cause(c, number);
    int machine = rv_to_machine(c, cause);
    uint64_t status = entry_read(c, RVE_STATUS + machine), entered;
    uint64_t tval = number == RV_LOAD_PAGE_FAULT || number == RV_STORE_PAGE_FAULT ? saved_word(c, c->fault_at, c->wide ? 8 : 4) : 0;
    uint64_t target = entry_read(c, RVE_VECTOR + machine) & ~(uint64_t)3;
    if (machine)
        entered = (status & ~(uint64_t)0x1888) | (status & 8) << 4 | (uint64_t)level << 11;
    else
        entered = (status & ~(uint64_t)0x122) | (status & 2) << 4 | (uint64_t)(level == RV_SUPERVISOR) << 8;
    entry_write(c, RVE_PRIV, RV_MACHINE);
    entry_write(c, RVE_STATUS + machine, entered);
    entry_write(c, RVE_EPC + machine, c->last_pc);
    entry_write(c, RVE_CAUSE + machine, cause);
    entry_write(c, RVE_TVAL + machine, tval);
    entry_write(c, RVE_PRIV, machine ? RV_MACHINE : RV_SUPERVISOR);
    c->reg_write(c->uc, c->pc_id, &target);
}

/* A walk sets A and D, in the first byte of a valid leaf that lacks one of them (volume II, 4.3.1). Whatever else bytes are that look
 * like one, they are looked at; but not what leads to nothing at all: an access by it fails, and ends the run. */
static int rv_walk_writes(const Core *c, const watch *w)
{
    uintptr_t size = c->wide ? 8 : 4, first = (uintptr_t)w->host;
    uint64_t frames = c->wide ? (1ull << 44) - 1 : (1u << 22) - 1, large = c->wide ? 0x1ff : 0x3ff;
    for (uintptr_t at = (first + size - 1) & ~(size - 1); w->host && at < first + w->length; at += size) {
        uint64_t entry = 0;
        memcpy(&entry, (const void *)at, size);
        uint64_t frame = entry >> 10 & frames;
        if (!(entry & 1) || !(entry & 0xa) || (entry & 0xc0) == 0xc0)
            continue;
        if (!(frame & large) || !c->mapping || c->mapping(c->uc, frame << 12))
            return 1;
    }
    return 0;
}

/* Volume II, 3.1.9: the masks are the privilege, mstatus, mie and mideleg. */
static int rv_takes(const Core *c)
{
    uint16_t words[4] = {0};
    for (int i = 0; i < c->mask_count && i < 4; i++)
        memcpy(&words[i], c->masks[i].at, c->masks[i].size < 2 ? 1 : 2);
    uint32_t level = words[0], status = words[1], ready = c->awaiting & words[2], delegated = words[3];
    if (ready & ~delegated && (level < RV_MACHINE || status & 8))
        return 1;
    return ready & delegated && (level < RV_SUPERVISOR || (level == RV_SUPERVISOR && status & 2));
}

static int rv_settles(const Core *c)
{
    return c->riscv.floats && !c->riscv.pmp_native_lacks;
}

static inline void rv_block_counted(Core *c, uint32_t results)
{
    c->riscv.results = results;
}

static int rv_grants(Core *c, uint64_t va, int type, int whole)
{
    return c->riscv.pmp_count ? pmp_grants(c, va, type, whole) : UC_PROT_RWX;
}

/* RDTIME and RDTIMEH, which tell virtual time at 10 MHz (arch/riscv_csr.py). Where mcounteren has a say in user mode, and
 * scounteren, is left to Python. */
static int rv_emulate(Core *c)
{
    uint32_t w = rv_word(c->code), low = (w & ~RV_RD) == RV_RDTIME, high = !c->wide && (w & ~RV_RD) == RV_RDTIMEH;
    if (!c->keeps_time || !c->riscv.counters || (!low && !high))
        return 0;
    if (*c->privilege == RV_USER || (*c->privilege != RV_MACHINE && !(*c->riscv.counters & RV_TM)))
        return 0;
    uint64_t count = ticks(c, 1, 100) + c->time_ahead;
    if (high)
        count >>= 32;
    if (rv_bits(w, 7, 5))
        c->reg_write(c->uc, c->registers[rv_bits(w, 7, 5)].id, &count);
    return 1;
}

static void rv_begin_run(Core *c)
{
    c->riscv.status_rd = 0;
    c->riscv.results = 0;
}

static void rv_end_run(Core *c)
{
    if (c->denied && c->error)
        pmp_find_address(c);
}

static const place riscv_places[] = {
    POINTER_PLACE("privilege", privilege),
    POINTER_PLACE("status", riscv.status),
    POINTER_PLACE("floats", riscv.floats),
    POINTER_PLACE("counters", riscv.counters),
    {NULL, 0, 0},
};

static const Family riscv_family = {
    .name = "riscv",
    .places = riscv_places,
    .places_optional = 1,
    .plain_length = rv_plain_length,
    .stores_only = rv_stores_only,
    .refuse = rv_refuse,
    .access_status = rv_status_access,
    .emulate = rv_emulate,
    .enter_system = rv_enter_system,
    .counted = rv_counted,
    .retired = rv_retired,
    .takes = rv_takes,
    .enters = rv_enters,
    .enter_exception = rv_enter_exception,
    .entry_words = RVE_WORDS,
    .undone = rv_undone,
    .block_needs = rv_block_needs,
    .needs_hold = rv_are_boxed,
    .walk_writes = rv_walk_writes,
    .settles = rv_settles,
    .block_counted = rv_block_counted,
    .block_left = rv_box_block,
    .grants = rv_grants,
    .begin_run = rv_begin_run,
    .end_run = rv_end_run,
};
