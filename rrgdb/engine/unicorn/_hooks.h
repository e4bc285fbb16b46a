/* The hooks that Unicorn calls; those that ask a family get it as a constant (see _families.h). */
#pragma once
#include "_classes.h"
#include "_core.h"
#include "_family.h"
#include "_fast.h"
#include "_footprint.h"
#include "_inline.h"
#include "_memory.h"
#include "_obstacle.h"
#include "_script.h"
#include "_settled.h"
#include "_sparse.h"
#include "_translation.h"
#include "_watch.h"

/* Nonzero if the run was left, because addresses are now translated, or no longer are. */
static int mmu_changed(Core *c, uint64_t addr)
{
    c->mmu_moved = 0;
    look_at_regime(c);
    if (translating(c) == c->mmu_seen)
        return 0;
    if (c->fast || !c->bare) {
        stop(c, R_MMU, addr);
        return 1;
    }
    c->mmu_seen = !c->mmu_seen;
    c->watches_moved = 1;
    tlb_clear(c);
    return 0;
}

/* Whether an interrupt that waits may be taken now. An instruction that unmasks ends its block, so this is asked where
 * one begins. */
static int masks_moved(const Core *c)
{
    for (int i = 0; i < c->mask_count; i++)
        if (memcmp(c->masks[i].at, c->masks[i].was, c->masks[i].size))
            return 1;
    return 0;
}

/* Why the run stops for it; R_NONE: it does not. */
static int unmasked(Core *c)
{
    if (!c->awaiting || !masks_moved(c) || (c->family->takes && !c->family->takes(c)))
        return R_NONE;
    if (c->watch_count && watches_astray(c))
        return R_FIND;
    return c->watch_count && watches_hit(c) ? R_WATCHPOINT : R_UNMASKED;
}

/* Whether the tail phase of a short run goes on with this block. */
static int in_short_tail(const Core *c, uint64_t addr, uint32_t size)
{
    return c->tail_short && c->limit < c->icount + MIN_FAST && addr - c->tail_begin < c->tail_end - c->tail_begin &&
           c->tail_end - addr >= (uint64_t)size + MAX_INSN;
}

/* held: see _family.h. */
ALWAYS_INLINE void before_block(const Family *f, Core *c, uint64_t addr, uint32_t size, const uint8_t *end, int held)
{
    if (f->retired)
        f->retired(c);
    if (c->mmu_moved && mmu_changed(c, addr))
        return;
    if (c->awaiting) {
        int reason = unmasked(c);
        if (reason != R_NONE) {
            stop(c, reason, addr);
            return;
        }
    }
    if (c->tlb_stale) {
        if (c->unguard) {
            stop(c, R_UNGUARD, addr);
            return;
        }
        tlb_clear(c);
    }
    if (f->begin_block && f->begin_block(c, addr, size))
        return;
    if (c->phase == PHASE_FAST) {
        fast_block(f, c, addr, size, held ? NULL : end);
        return;
    }
    /* A script's hook may have moved pc before anything ran. */
    int elsewhere = c->bare && addr - c->tail_begin >= c->tail_end - c->tail_begin;
    if (c->phase == PHASE_TAIL && (c->icount != c->tail_icount || elsewhere) && !in_short_tail(c, addr, size)) {
        stop(c, c->watch_count && watches_hit(c) ? R_WATCHPOINT : R_TAIL_END, addr);
        return;
    }
    if (c->watch_count && c->watches_asked) {
        int reason = watches_astray(c) ? R_FIND : watches_hit(c) ? R_WATCHPOINT : R_NONE;
        if (reason != R_NONE) {
            stop(c, reason, addr);
            return;
        }
    }
    int settled = f->settles && enter_settled(f, c, addr, size, held ? NULL : end);
    if (c->bounds) {
        if (c->whole)
            close_bounds(c);
        else if (!c->stopped && lacks_hooks(f, c, addr, size, end, held))
            return;
    }
    if (!settled)
        enter_block(c, addr, size);
}

/* end: where the hook returns to. */
ALWAYS_INLINE void on_block(const Family *f, Core *c, uint64_t addr, uint32_t size, const uint8_t *end)
{
    int held = f->held && f->held(c, 1);
    hook_next(c);
    c->whole = 0;
    uint64_t icount = c->icount;
    if (c->sites_checked != c->checked)
        forget_sites(c);
    before_block(f, c, addr, size, end, held);
    if (c->mmu_seen && !c->whole)
        leave_inlined(c, end);
    if (c->bare)
        tell_script(c, addr, icount);
    if (held && c->stopped)
        f->leave(c);
}

/* The budget did not suffice for the block whose hook returns to end. */
ALWAYS_INLINE void on_inlined(const Family *f, const uint8_t *end)
{
    Core *c = running;
    const site *s = site_at(c, end);
    if (!s) {
        stop(c, R_LOST, NO_PC);
        return;
    }
    c->near->budget += s->count;
    on_block(f, c, s->addr, s->size, end);
}

/* Nonzero if the instruction must not run now. */
ALWAYS_INLINE int look_closer(const Family *f, Core *c, uint64_t addr, const uint8_t *b, uint32_t size)
{
    if (!interesting(f, c, b, size))
        return 0;
    class_entry *e = class_slot(c, b, (int)size, in_second(f, c));
    if (e->size && e->cls == CLASS_STATUS && f->access_status && !f->access_status(c, b))
        return 0;
    if (!e->size || e->cls >= CLASS_TRAP) {
        memcpy(c->code, b, size);
        c->code_size = (int)size;
        c->code_thumb = in_second(f, c);
        stop(c, !e->size ? R_CLASSIFY : e->cls == CLASS_SYSCALL ? R_SYSCALL : R_TRAP, addr);
        return 1;
    }
    c->mmu_moved |= e->cls == CLASS_MMU;
    /* With translation in use any system instruction may change the mode, and with it what is mapped. */
    c->tlb_stale |= c->mmu_seen;
    c->watches_moved |= c->mmu_seen;
    if (f->enter_system)
        f->enter_system(c, b, size);
    return 0;
}

ALWAYS_INLINE void before_instruction(const Family *f, Core *c, uint64_t addr, uint32_t size)
{
    uint8_t copy[MAX_INSN];
    const uint8_t *b = NULL;
    uint32_t offset = (uint32_t)(addr & PAGE_MASK);

    if (f->retired)
        f->retired(c);
    if (c->mmu_moved && mmu_changed(c, addr))
        return;
    if (c->tlb_stale)
        tlb_clear(c);
    if (f->catch_up && f->catch_up(c, addr))
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
    } else if (f->unknown_length) {
        uint32_t n = f->unknown_length(c, addr, copy);
        if (n) {
            b = copy;
            size = n;
        }
    }
    int harmless = !b || (f->harmless && f->harmless(c, b, size));
    if (!harmless && f->remember)
        f->remember(c, b, size);
    if (c->icount >= c->limit || c->interrupt || c->points) {
        int reason = obstacle(c, addr);
        if (reason != R_NONE) {
            stop(c, reason, addr);
            return;
        }
    }
    if (f->refuse && f->refuse(c, addr, b, size, harmless))
        return;
    if (b) {
        if (!harmless && look_closer(f, c, addr, b, size))
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
    c->looked++;
    keep_state(c);
    if (f->counted)
        f->counted(c, addr, b, size, harmless);
}

ALWAYS_INLINE void on_instruction(const Family *f, Core *c, uint64_t addr, uint32_t size)
{
    before_instruction(f, c, addr, size);
    if (f->held && c->stopped && f->held(c, 0))
        f->leave(c);
}

/* In the slow and tail phases. */
ALWAYS_INLINE void on_code(const Family *f, Core *c, uint64_t addr, uint32_t size)
{
    if (c->phase == PHASE_FAST || (f->settles && count_settled(c, addr, size)))
        return;
    if (c->whole) { /* behind the block: it cannot be decoded, and so is none of it */
        hook_next(c);
        c->whole = 0;
    }
    if (c->bare && c->fast) { /* a companion may have come before */
        if (addr == c->exact_pc)
            return;
        c->exact_pc = addr;
    }
    on_instruction(f, c, addr, size);
}

/* In the fast phase; an instruction of an exact block may be part of a plain one that begins elsewhere, or of several
 * exact ones: then there is a call for each. */
ALWAYS_INLINE void on_exact_code(const Family *f, Core *c, uint64_t addr, uint32_t size)
{
    c->hooked_pc = addr;
    if (c->phase != PHASE_FAST || !c->exact || addr == c->exact_pc)
        return;
    c->exact_pc = addr;
    on_instruction(f, c, addr, size);
}

/* Before the script's hooks for instructions. Those of rrgdb that come behind them pass over what was looked at here. */
ALWAYS_INLINE void on_first_code(const Family *f, Core *c, uint64_t addr, uint32_t size)
{
    if (c->phase == PHASE_FAST)
        on_exact_code(f, c, addr, size);
    else
        on_code(f, c, addr, size);
}

ALWAYS_INLINE bool on_tlb(const Family *f, Core *c, uint64_t va, int type, tlb_result *result)
{
    count_inlined(c);
    note_fill(c);
    int filled = fill_tlb(f, c, va, type, result);
    if (c->tlb_stale)
        hook_next(c);
    if (!filled)
        return false;
    if (f->goes_on && type != UC_MEM_FETCH)
        f->goes_on(c);
    return true;
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

/* A store to memory that a device stands before: in pieces of at most four bytes, as devices get them. Unicorn drops it. */
static void store_to_device(Core *c, const region *to, uint64_t address, int size, uint64_t value)
{
    for (int done = 0; done < size; done += 4) {
        unsigned n = size - done < 4 ? (unsigned)(size - done) : 4;
        to->store(c->uc, address - to->base + (unsigned)done, n, value >> 8 * done & (n < 4 ? (1u << 8 * n) - 1 : ~0u), NULL);
    }
}

ALWAYS_INLINE bool on_invalid_memory(const Family *f, Core *c, int type, uint64_t address, int size, int64_t value)
{
    if (c->whole)
        return whole_refused(f, c, type);
    if (address - c->guard_base < (uint64_t)c->guard_count * PAGE)
        return guarded(f, c, type == UC_MEM_WRITE_PROT, address - c->guard_base, (uint32_t)size, (uint64_t)value);
    const region *memory = type == UC_MEM_WRITE_PROT ? region_at(c, address) : NULL;
    if (memory && memory->store) {
        store_to_device(c, memory, address, size, (uint64_t)value);
        if (f->goes_on)
            f->goes_on(c);
        return true;
    }
    if (c->guard_base && address - c->guard_base - GUARD_SIZE < GUARD_SIZE)
        address -= GUARD_SIZE;
    sync_state(c);
    if (!c->faulted) {
        c->faulted = 1;
        c->fault_address = address;
    }
    if (f->fault)
        f->fault(c, type);
    return false;
}
