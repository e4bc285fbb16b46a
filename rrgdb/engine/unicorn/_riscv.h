/* RISC-V: what Unicorn's core lacks or has wrong, judged or mended before and behind each instruction. Included by _hot.c.
 *
 * PMP: the virtual TLB is granted what the entries allow of a whole page. Where an entry ends within a page, and where
 * Unicorn translates addresses itself but an entry grants some kinds of accesses only (Unicorn looks at the first access
 * to a page), the accesses of each instruction are looked at before it begins.
 *
 * Single precision: Unicorn leaves zeros above its results, and does not look there. Sources that are not NaN-boxed are
 * replaced by a NaN for the time of the instruction, and results are boxed behind it; of a block that is counted as a
 * whole, behind the block. ("The RISC-V Instruction Set Manual", volume I, section 12.2.)
 */

enum { RV_USER, RV_SUPERVISOR, RV_MACHINE = 3 };
#define RV_MPRV (1u << 17)
#define RV_MOVED_STATUS 0x60600000u /* TW and TSR, where they are and where Unicorn has them */
#define RV_MRET 0x30200073u
#define RV_BOX 0xffffffff00000000ull
#define RV_NAN 0xffffffff7fc00000ull
#define RV_MSTATUS 0x300u
#define PMP_PARTLY (-1)

static inline uint32_t bits(uint32_t w, int at, int n)
{
    return w >> at & ((1u << n) - 1);
}

static inline uint64_t rv_x(Core *c, uint32_t n)
{
    uint64_t v = 0;
    if (n)
        c->reg_read(c->uc, c->registers[n].id, &v);
    return c->mode64 ? v : (uint32_t)v;
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
    uint32_t rd = bits(h, 7, 5);
    switch ((h & 3) << 3 | h >> 13) {
    case 000: return bits(h, 5, 8) == 0;                                  /* C.ADDI4SPN */
    case 004: return 1;
    case 011: return c->mode64 && rd == 0;                                /* C.ADDIW; RV32: C.JAL */
    case 013: return bits(h, 2, 5) == 0 && bits(h, 12, 1) == 0;           /* C.LUI, C.ADDI16SP */
    case 014:
        if (bits(h, 10, 2) == 3)
            return bits(h, 12, 1) && (!c->mode64 || bits(h, 6, 1));
        return !c->mode64 && bits(h, 10, 2) < 2 && bits(h, 12, 1);        /* shifts by 32 and more */
    case 020: return !c->mode64 && bits(h, 12, 1);                        /* C.SLLI */
    case 022: return rd == 0;                                             /* C.LWSP */
    case 023: return c->mode64 && rd == 0;                                /* C.LDSP; RV32: C.FLWSP */
    case 024: return h == 0x8002;                                         /* C.JR */
    default: return 0;
    }
}

/* ---- accesses --------------------------------------------------------------------------------- */

typedef struct { uint64_t address; uint32_t size; int kinds, floating; } rv_access; /* kinds: UC_PROT_READ, … */

static int rv_compressed_access(Core *c, uint32_t h, rv_access *a)
{
    uint32_t kind = h >> 13, base = 2, offset;
    if ((h & 3) == 1 || kind == 0 || kind == 4)
        return 0;
    int store = kind > 4, wide = kind == 1 || kind == 5 || (c->mode64 && (kind == 3 || kind == 7));
    a->floating = kind == 1 || kind == 5 || (!c->mode64 && (kind == 3 || kind == 7));
    if ((h & 3) == 0) {
        base = 8 + bits(h, 7, 3);
        offset = bits(h, 10, 3) << 3 | (wide ? bits(h, 5, 2) << 6 : bits(h, 6, 1) << 2 | bits(h, 5, 1) << 6);
    } else if (store) {
        offset = wide ? bits(h, 10, 3) << 3 | bits(h, 7, 3) << 6 : bits(h, 9, 4) << 2 | bits(h, 7, 2) << 6;
    } else {
        offset = bits(h, 12, 1) << 5 |
                 (wide ? bits(h, 5, 2) << 3 | bits(h, 2, 3) << 6 : bits(h, 4, 3) << 2 | bits(h, 2, 2) << 6);
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
        a->size = 1u << bits(w, 12, 2);
        switch (w & 0x7f) {
        case 0x07: a->floating = 1; /* fall through */
        case 0x03:
            a->kinds = UC_PROT_READ;
            offset = (int32_t)w >> 20;
            break;
        case 0x27: a->floating = 1; /* fall through */
        case 0x23:
            a->kinds = UC_PROT_WRITE;
            offset = ((int32_t)w >> 25) * 32 + (int32_t)bits(w, 7, 5);
            break;
        case 0x2f:
            a->kinds = funct == 2 ? UC_PROT_READ : funct == 3 ? UC_PROT_WRITE : UC_PROT_RW;
            break;
        default: return 0;
        }
        a->address = rv_x(c, bits(w, 15, 5)) + (uint64_t)offset;
    }
    if (!c->mode64)
        a->address = (uint32_t)a->address;
    return 1;
}

/* ---- physical memory protection --------------------------------------------------------------- */

/* Privilege of an access: MPRV gives machine mode's loads and stores that of MPP. */
static int rv_mode(const Core *c, int fetch)
{
    int mode = (int)(*c->rv_privilege & 3);
    if (mode == RV_MACHINE && !fetch && *c->rv_status & RV_MPRV)
        return (int)bits(*c->rv_status, 11, 2);
    return mode;
}

/* What the entries allow on physical addresses first to last; PMP_PARTLY: an entry that decides holds a part of them. */
static int pmp_allows(const Core *c, int mode, uint64_t first, uint64_t last)
{
    for (int i = 0; i < c->pmp_count; i++) {
        const pmp_entry *e = &c->pmp[i];
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
    if (!(c->mmu_seen || !c->fast ? c->pmp_native_lacks : c->pmp_partly))
        return 0;
    for (uint32_t at = 0; at < size; at += 2)
        if (pmp_denies(c, addr + at, 2, UC_PROT_EXEC, rv_mode(c, 1)))
            return 1;
    if (!rv_access_of(c, b, size, &a) || !pmp_denies(c, a.address, a.size, a.kinds, rv_mode(c, 0)))
        return 0;
    return !a.floating || *c->rv_status & 3u << 13; /* without floating point it is illegal first */
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

/* ---- status registers ------------------------------------------------------------------------- */

/* A CSR instruction on mstatus or sstatus. Nonzero: it writes bits that Unicorn has elsewhere, so Python does it. */
static int rv_status_access(Core *c, const uint8_t *b)
{
    uint32_t w = rv_word(b), csr = w >> 20;
    if (csr == RV_MSTATUS && !bits(w, 14, 1) && rv_x(c, bits(w, 15, 5)) & RV_MOVED_STATUS)
        return 1;
    c->rv_status_rd = (uint8_t)bits(w, 7, 5);
    c->rv_status_csr = (uint16_t)csr;
    return 0;
}

static void rv_mend_status(Core *c)
{
    uint64_t v = rv_x(c, c->rv_status_rd);
    if (c->rv_status_csr == RV_MSTATUS)
        v = (v & ~(uint64_t)RV_MOVED_STATUS) | (v >> 8 & RV_MOVED_STATUS & RV_MOVED_STATUS >> 8);
    if (c->mode64)
        v |= c->rv_status_csr == RV_MSTATUS ? 10ull << 32 : 2ull << 32;
    c->reg_write(c->uc, c->registers[c->rv_status_rd].id, &v);
    c->rv_status_rd = 0;
}

/* ---- single precision ------------------------------------------------------------------------- */

typedef struct { uint32_t boxed, single, wide, other; } rv_float; /* sets of registers */

/* What an instruction does with floating-point registers. boxed: gets a single-precision result above which Unicorn leaves
 * zeros; single: read as such; wide: read with their upper half; other: written otherwise. */
static rv_float rv_floats(const Core *c, const uint8_t *b, uint32_t size)
{
    rv_float f = {0, 0, 0, 0};
    if (size == 2) {
        uint32_t h = rv_half(b), kind = h >> 13, low = 1u << (8 + bits(h, 2, 3));
        if (h & 1 || (kind & 3) == 0 || (kind & 3) == 2 || ((kind & 3) == 3 && c->mode64))
            return f;
        int wide = (kind & 3) == 1; /* C.FLW and C.FSW exist on RV32 alone */
        if (kind < 4)
            f.other = (h & 3) ? 1u << bits(h, 7, 5) : low;
        else if (wide)
            f.wide = (h & 3) ? 1u << bits(h, 2, 5) : low;
        return f;
    }
    uint32_t w = rv_word(b), rd = 1u << bits(w, 7, 5), rs1 = 1u << bits(w, 15, 5), rs2 = 1u << bits(w, 20, 5);
    int single = bits(w, 25, 2) == 0;
    uint32_t *sources = single ? &f.single : &f.wide, *result = single ? &f.boxed : &f.other;
    switch (w & 0x7f) {
    case 0x07: f.other = rd; break;
    case 0x27: f.wide = bits(w, 12, 3) == 3 ? rs2 : 0; break;
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
            if (!single || bits(w, 12, 3) == 1)
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

static int rv_are_boxed(const Core *c, uint32_t set)
{
    for (; set; set &= set - 1)
        if (c->rv_f[__builtin_ctz(set)] < RV_BOX)
            return 0;
    return 1;
}

static void rv_box(Core *c, uint32_t set)
{
    for (; set; set &= set - 1)
        c->rv_f[__builtin_ctz(set)] |= RV_BOX;
}

/* One instruction is about to run by itself. */
static void rv_prepare_float(Core *c, const uint8_t *b, uint32_t size)
{
    rv_float f = rv_floats(c, b, size);
    for (uint32_t set = f.single; set; set &= set - 1) {
        int n = __builtin_ctz(set);
        if (c->rv_f[n] >= RV_BOX)
            continue;
        c->rv_unboxed[c->rv_unboxed_count] = (rv_unboxed){n, c->rv_f[n]};
        c->rv_unboxed_count++;
        c->rv_f[n] = RV_NAN;
    }
    c->rv_results = f.boxed;
    c->rv_written = f.boxed | f.other;
}

static void rv_put_back(Core *c, uint32_t but)
{
    for (int i = 0; i < c->rv_unboxed_count; i++)
        if (!(but >> c->rv_unboxed[i].number & 1))
            c->rv_f[c->rv_unboxed[i].number] = c->rv_unboxed[i].value;
    c->rv_unboxed_count = 0;
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
        if (size == 4 && (bytes[at] & 0x7f) == 0x07 && bits(rv_word(bytes + at), 12, 3) == 2)
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
    if (c->rv_results && copy_code(c, c->block, bytes, n) == n && rv_block_floats(c, bytes, n, &needs, &results))
        rv_box(c, results);
    c->rv_results = 0;
}

/* ---- around an instruction -------------------------------------------------------------------- */

/* The instruction, or block, before has retired. */
static inline void rv_retired(Core *c)
{
    if (!c->rv_f)
        return;
    if (c->rv_status_rd)
        rv_mend_status(c);
    if (c->rv_unboxed_count)
        rv_put_back(c, c->rv_written);
    if (c->rv_results) {
        rv_box(c, c->rv_results);
        c->rv_results = 0;
    }
}

/* The instruction before has not happened. */
static void rv_undone(Core *c)
{
    c->rv_status_rd = 0;
    c->rv_results = 0;
    rv_put_back(c, 0);
}

/* Nonzero: the instruction at addr raises an exception instead of running, which was told by ``stop``. */
static int rv_refuses(Core *c, uint64_t addr, const uint8_t *b, uint32_t size)
{
    int why = R_NONE;
    if (c->pmp_count && pmp_stops(c, addr, b, size))
        why = R_DENIED;
    else if (size == 2 && rv_reserved(c, rv_half(b)))
        why = R_ILLEGAL;
    if (why == R_NONE)
        return 0;
    c->last_size = size;
    stop(c, why, addr);
    return 1;
}
