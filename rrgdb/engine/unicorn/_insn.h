/* Instructions by their bytes: what repeats or restarts on x86, and what has to be looked at before it runs. Included by
 * _hot.c. */

/* ---- x86: Unicorn restarts an instruction that wrote into its own block, firing the hook twice ----- */

enum { X_PLAIN, X_REP, X_BRANCH, X_CALL };
#define X86_CONDITIONS 0x8d5u /* OF SF ZF AF PF CF */
#define X86_DEBUG 1

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

/* First opcode bytes (behind one REX at most) that need a closer look: prefixes, calls, far transfers, PUSHF, HLT, the
 * two-byte map, x87. */
static const uint8_t x86_first[256] = {
    [0x0f] = 2, [0x26] = 1, [0x2e] = 1, [0x36] = 1, [0x3e] = 1, [0x64] = 1, [0x65] = 1, [0x66] = 1, [0x67] = 1,
    [0x9a] = 1, [0x9c] = 1, [0xca] = 1, [0xcb] = 1, [0xcf] = 1, [0xd9] = 3, [0xe8] = 1, [0xea] = 1, [0xf0] = 1, [0xf2] = 1, [0xf3] = 1, [0xf4] = 1, [0xff] = 1,
};
/* Second bytes behind 0F that classify() may name. */
static const uint8_t x86_second[256] = {
    [0x00] = 1, [0x01] = 1, [0x05] = 1, [0x07] = 1, [0x20] = 1, [0x21] = 1, [0x22] = 1, [0x23] = 1, [0x30] = 1, [0x31] = 1,
    [0x32] = 1, [0x33] = 1, [0x34] = 1, [0x35] = 1, [0xa2] = 1, [0xc7] = 1,
};

/* Second bytes behind D9: what x87 computes by the host's library. */
static const uint8_t x87_second[256] = {
    [0xf0] = 1, [0xf1] = 1, [0xf2] = 1, [0xf3] = 1, [0xf5] = 1, [0xf8] = 1, [0xf9] = 1, [0xfb] = 1, [0xfe] = 1, [0xff] = 1,
};

/* Neither repeats by itself nor can be of interest: true for nearly everything that runs. */
static inline int x86_plain(const Core *c, const uint8_t *b, uint32_t n)
{
    uint32_t i = c->mode64 && (b[0] & 0xf0) == 0x40 && n > 1;
    if (c->mode64 && (b[i] & 0xf0) == 0x40)
        return 0;
    int look = x86_first[b[i]];
    return look == 0 || (look > 1 && i + 1 < n && !(look == 2 ? x86_second : x87_second)[b[i + 1]]);
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

/* PUSHF and REP: they write cc_op before they access memory. */
static int x86_keeps_flags(const Core *c, const uint8_t *b, int n)
{
    int i = x86_opcode(c, b, n);
    return i < n && (b[i] == 0x9c || x86_kind(c, b, n) == X_REP);
}

/* Whether the instruction must be the first of its run: in the middle of one Unicorn loses track of how the flags are kept
 * (cc_op) when a hook came before it. The helper of CMPXCHG8B and CMPXCHG16B reads a cc_op that nobody has written back;
 * PUSHF and REP write theirs, and then a fill of the virtual TLB sets it to what it was before the hook, unless they are
 * the first of their block. */
static int x86_begins_run(const Core *c, uint64_t addr, const uint8_t *b, int n)
{
    int i = x86_opcode(c, b, n);
    if (i >= n || c->icount == c->run_icount)
        return 0;
    if (b[i] == 0x0f)
        return i + 2 < n && b[i + 1] == 0xc7 && (b[i + 2] >> 3 & 7) == 1;
    return c->fast && !c->mmu_seen && addr != c->block && x86_keeps_flags(c, b, n);
}

/* After a run: give the flags back to the instruction that was counted last and has not retired. Unicorn has restored its
 * cc_op to what it was before the hook, but the hook had them all computed, into cc_src. */
static void x86_restore_flags(Core *c)
{
    uint64_t flags = 0, computed;
    if (c->flags_at < 0)
        return;
    c->context_save(c->uc, c->context);
    memcpy(&computed, c->context + CONTEXT_HEADER + c->flags_at, sizeof computed);
    c->reg_read(c->uc, c->eflags_id, &flags);
    flags = (flags & ~(uint64_t)X86_CONDITIONS) | (computed & X86_CONDITIONS);
    c->reg_write(c->uc, c->eflags_id, &flags);
}

/* After an exception that will be raised once more: without this it would be a double fault. */
static void x86_forget_exception(Core *c)
{
    if (c->previous_at < 0)
        return;
    c->context_save(c->uc, c->context);
    memset(c->context + CONTEXT_HEADER + c->previous_at, 0xff, 4);
    c->context_restore(c->uc, c->context);
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
        return i + 1 < n && ((b[i] == 0x0f && x86_second[b[i + 1]]) || (b[i] == 0xd9 && x87_second[b[i + 1]]));
    }
    int thumb = in_thumb(c);
    if (n < 4 && !thumb)
        return 0;
    uint32_t word = 0;
    memcpy(&word, b, n < 4 ? (size_t)n : 4);
    const filters *f = &c->filters[thumb];
    for (unsigned left = f->low[b[0]] & f->high[word >> 24], i = 0; left; left >>= 1, i++)
        if ((left & 1) && (word & f->mask[i]) == f->value[i])
            return 1;
    return 0;
}

static class_entry *class_slot(Core *c, const uint8_t *b, int n, int thumb)
{
    uint64_t h = (uint64_t)n;
    for (int i = 0; i < n; i++)
        h = h * 0x100000001b3ull ^ b[i];
    uint64_t i = mix(h) & (CLASS_SIZE - 1);
    while (c->classes[i].size && !(c->classes[i].size == n && c->classes[i].thumb == thumb &&
                                   memcmp(c->classes[i].bytes, b, (size_t)n) == 0))
        i = (i + 1) & (CLASS_SIZE - 1);
    return &c->classes[i];
}
