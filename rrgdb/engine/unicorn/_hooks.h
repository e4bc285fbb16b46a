/* The hooks that Unicorn calls. Included by _hot.c. */

/* The instruction counted last wrote into its own block and begins again, as a block of its own. Nonzero if the run was
 * left: its flags are lost unless it was the first of the run, and the fast phase knows nothing of such blocks. */
static int begun_again(Core *c, uint64_t addr, uint32_t size)
{
    uint8_t b[MAX_INSN];
    if (!x86_restarted(c, b, (int)copy_code(c, addr, b, size < MAX_INSN ? size : MAX_INSN)))
        return 0;
    forget_hits(c);
    c->icount--;
    c->last_pc = c->exact_pc = NO_PC;
    if (c->icount != c->run_icount) {
        c->stale_flags = 1;
        stop(c, R_RESTART, addr);
        return 1;
    }
    if (c->phase != PHASE_FAST)
        return 0;
    c->tail_size = size;
    leave_fast(c, F_TAIL, addr);
    return 1;
}

/* Nonzero if the run was left, because addresses are now translated, or no longer are. */
static int mmu_changed(Core *c, uint64_t addr)
{
    c->mmu_moved = 0;
    if (translating(c) == c->mmu_seen)
        return 0;
    if (c->fast) {
        stop(c, R_MMU, addr);
        return 1;
    }
    c->mmu_seen = !c->mmu_seen;
    c->watches_moved = 1;
    tlb_clear(c);
    return 0;
}

static void before_block(Core *c, uint64_t addr, uint32_t size)
{
    rv_retired(c);
    if (c->mmu_moved && mmu_changed(c, addr))
        return;
    if (c->tlb_stale) {
        if (c->unguard) {
            stop(c, R_UNGUARD, addr);
            return;
        }
        tlb_clear(c);
    }
    if (c->x86 && addr == c->last_pc && begun_again(c, addr, size))
        return;
    if (c->icount == c->far_icount) {
        stop(c, R_FAR, addr);
        return;
    }
    if (c->arm) {
        *c->no_exit = 0; /* a Thumb block that ends inside an IT block leaves it set for the ARM block translated next */
        if (c->it && it_catch_up(c, addr))
            return;
        it_begin(c, addr);
    }
    if (c->phase == PHASE_FAST) {
        fast_block(c, addr, size);
        return;
    }
    if (c->phase == PHASE_TAIL && c->icount != c->tail_icount) {
        stop(c, c->watch_count && watches_hit(c) ? R_WATCHPOINT : R_TAIL_END, addr);
        return;
    }
    enter_block(c, addr, size);
}

static void on_block(void *uc, uint64_t addr, uint32_t size, void *user)
{
    Core *c = user;
    int inside = c->arm && *c->condexec; /* where a stop would come behind the IT block only */
    (void)uc;
    before_block(c, addr, size);
    if (inside && c->stopped)
        siglongjmp(*c->jump, 1);
}

/* What keeps the CPU from going on at this position; R_NONE: nothing. */
static int obstacle(Core *c, uint64_t addr)
{
    if (c->watch_count && watches_astray(c))
        return R_FIND;
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
    const bp_entry *point = breakpoint_at(c, addr);
    int holds = point ? point_holds(c, point, addr) : AGENT_FALSE;
    if (holds == AGENT_ASK || (holds == AGENT_TRUE && !c->collect))
        return R_BREAKPOINT;
    if (holds == AGENT_TRUE)
        c->bp_last = c->icount;
    return R_NONE;
}

/* Nonzero if the instruction must not run now. */
static int look_closer(Core *c, uint64_t addr, const uint8_t *b, uint32_t size)
{
    if (!interesting(c, b, (int)size))
        return 0;
    class_entry *e = class_slot(c, b, (int)size, in_thumb(c));
    if (e->size && e->cls == CLASS_STATUS && !rv_status_access(c, b))
        return 0;
    if (!e->size || e->cls >= CLASS_TRAP) {
        memcpy(c->code, b, size);
        c->code_size = (int)size;
        c->code_thumb = in_thumb(c);
        stop(c, !e->size ? R_CLASSIFY : e->cls == CLASS_SYSCALL ? R_SYSCALL : R_TRAP, addr);
        return 1;
    }
    c->mmu_moved |= e->cls == CLASS_MMU;
    /* With translation in use any system instruction may change the mode, and with it what is mapped. */
    c->tlb_stale |= c->mmu_seen;
    c->watches_moved |= c->mmu_seen;
    if (c->pmp_count && size == 4 && rv_word(b) == RV_MRET && *c->rv_status & RV_MPRV)
        c->tlb_stale = c->crowded = 1; /* MPP changes, and with it whose accesses machine mode's are */
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

static void before_instruction(Core *c, uint64_t addr, uint32_t size)
{
    uint8_t copy[MAX_INSN];
    const uint8_t *b = NULL;
    uint32_t offset = (uint32_t)(addr & PAGE_MASK);

    rv_retired(c);
    if (c->mmu_moved && mmu_changed(c, addr))
        return;
    if (c->tlb_stale)
        tlb_clear(c);
    if (c->arm && c->it && it_catch_up(c, addr))
        return;
    if (addr - c->seen >= c->seen_size)
        note_code(c, addr, 1);
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
    if (c->guest_points && x86_guest_points_at(c, addr)) {
        stop(c, R_DEBUG, addr);
        return;
    }
    if (b) {
        if (c->x86 && !plain && !c->faulted && x86_begins_run(c, addr, b, (int)size)) {
            stop(c, R_RESTART, addr);
            return;
        }
        if (c->rv_f && rv_refuses(c, addr, b, size))
            return;
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
    if (c->rv_f && b && rv_is_float(b, size))
        rv_prepare_float(c, b, size);
    c->last_pc = addr;
    c->last_size = size;
    c->icount++;
    if (c->x86 && !plain && !c->bare)
        x86_note_far(c, b, (int)size);
    keep_state(c);
    if (c->arm)
        it_follow(c, addr, size, b);
}

/* In the slow and tail phases. */
static void on_code(void *uc, uint64_t addr, uint32_t size, void *user)
{
    Core *c = user;
    (void)uc;
    if (c->phase != PHASE_FAST) {
        before_instruction(c, addr, size);
        it_leave(c);
    }
}

/* In the fast phase; an instruction of an exact block may be part of a plain one that begins elsewhere, or of several
 * exact ones: then there is a call for each. */
static void on_exact_code(void *uc, uint64_t addr, uint32_t size, void *user)
{
    Core *c = user;
    (void)uc;
    c->hooked_pc = addr;
    if (c->phase != PHASE_FAST || !c->exact || addr == c->exact_pc)
        return;
    c->exact_pc = addr;
    before_instruction(c, addr, size);
    it_leave(c);
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
    if (address - c->guard_base < (uint64_t)c->guard_count * PAGE)
        return guarded(c, type == UC_MEM_WRITE_PROT, address - c->guard_base, (uint32_t)size, (uint64_t)value);
    if (c->guard_base && address - c->guard_base - GUARD_SIZE < GUARD_SIZE)
        address -= GUARD_SIZE;
    sync_state(c);
    if (!c->faulted) {
        c->faulted = 1;
        c->fault_address = address;
    }
    it_fault(c, type);
    return false;
}
