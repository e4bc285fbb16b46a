/* What one Core holds, and how a run is stopped. */
#pragma once
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "_unicorn.h"

#define PAGE 4096u
#define PAGE_MASK 4095u
#define NO_PC UINT64_MAX
#define NO_ICOUNT UINT64_MAX
#define MAX_INSN 16
#define MAX_REGIONS 256
#define MAX_WATCHES 64
#define MAX_BLOCK 4096
#define PLAN_BYTES 2048 /* of longer blocks there are no plans */
#define PLANS 8192
#define MAX_FILTERS 16
#define TLB_SIZE 256
#define CLASS_SIZE 4096
#define BP_FILTER 1024
#define MAX_EXACT 128 /* every code hook costs each instruction that is translated */
#define MAX_POINT_HOOKS 64
#define MAX_JUDGED 256
#define MAX_GUARDS (2 * MAX_WATCHES)
#define GUARD_SIZE (MAX_GUARDS * PAGE)
#define MAX_ACCESS 8 /* bytes of one load, as Unicorn makes them: wider ones come in parts */
#define MAX_REGISTERS 256
#define MAX_PMP 16
#define MAX_MPU 64 /* subregions */
#define MAX_CONTROLS 4
#define MAX_REGIME 8
#define MAX_MASKS 8
#define CONTEXT_HEADER 40
#define MAX_COVERS 16
#define MAX_WAY 6 /* entries of page tables */
#define KNOWN_PAGES 64
#define MAX_SITES (1u << 17)
#define SITE_BYTES 41
#define INLINE_CHUNK (1u << 18) /* instructions between two looks at what other threads ask for */
#define BRIEF 1000000 /* instructions: what costs such a run some time is not worth a change */

enum reason {
    R_NONE, R_LIMIT, R_BREAKPOINT, R_WATCHPOINT, R_RANGE, R_INTERRUPT,
    R_CLASSIFY, R_TRAP, R_SMC, R_RESTART, R_SYSCALL, R_EXCEPTION, R_ERROR, R_MMU, R_LOST, R_TAIL_END, R_UNGUARD,
    R_DENIED, R_ILLEGAL, R_FAR, R_DEBUG, R_FIND, R_UNMASKED, R_DIVISION, R_HOOKS, R_LEARN
};

/* classes of instructions as Python hands them to set_class */
enum { CLASS_UNKNOWN = 0, CLASS_PLAIN = 1, CLASS_MMU = 2, CLASS_TRAP = 3, CLASS_SYSCALL = 4, CLASS_STATUS = 5 };

enum { PHASE_SLOW, PHASE_FAST, PHASE_TAIL };
enum { PAGE_CODE = 1, PAGE_MIXED = 2, PAGE_WRITTEN = 4, PAGE_GUARDED = 8, PAGE_COVERED = 16 };
enum { REFUSED_DEVICE = 1, REFUSED_CODE, REFUSED_WATCH };
typedef void *(*mapping_fn)(void *uc, uint64_t physical);

enum { F_NONE, F_TAIL, F_EXACT }; /* how the fast phase was left at a block's entry */

#define MANY_FILLS 512 /* of the virtual TLB, between two looks at how thick they come */
#define MOST_FILLS 65536 /* between two looks where a larger table has not helped */
#define THICK_FILLS 256 /* instructions for each of them: below that the table is too small for what the guest uses */
#define LARGE_TABLE 8192 /* entries of the virtual TLB, from which on it is worth to make it smaller */
#define SHRINK_FLUSHES 4 /* that Unicorn needs for it */
#define SHRINK_APART 110000000 /* nanoseconds between two of them */
#define MOST_PAUSE (512ull * SHRINK_APART)

typedef void (*store_fn)(void *uc, uint64_t offset, unsigned size, uint64_t value, void *user);
/* RAM, or memory that is read and executed as such and has a device for its stores */
typedef struct { uint64_t base, size; uint8_t *host; store_fn store; } region;
typedef struct { uint64_t first, last; } span; /* of addresses */
typedef struct { span *list; Py_ssize_t count; uint64_t first, last; } spans; /* first, last: of them all */
typedef struct { uint64_t tag; uint8_t *host; } tlb_entry;
typedef struct { uint8_t bytes[MAX_INSN]; uint8_t size, second, cls; } class_entry;
typedef struct {
    uint32_t mask[MAX_FILTERS], value[MAX_FILTERS];
    uint16_t low[256], high[256]; /* those that a first or fourth byte leaves possible */
    int turned;                   /* words were given as a big-endian CPU reads them */
} filters;
typedef struct { uint64_t operand; uint16_t needs; uint8_t op; } agent_step; /* operand: of a jump the step to go to */
typedef struct agent_code {
    struct agent_code *next; /* of the same breakpoint */
    uint32_t count;
    agent_step steps[];
} agent_code;
/* id: Unicorn's, or one of those in _agent.h; place: bytes from the CPU's registers, -1: not known */
typedef struct { int32_t id; uint32_t bits; int32_t place; } agent_register;
typedef struct { uint64_t address; uint8_t used, conditional; agent_code *codes; } bp_entry; /* no codes: ask Python */
/* key: see block_key; needs, results: see block_needs of _family.h; copy: where its bytes are kept, see _script.h */
typedef struct { uint64_t key; uint32_t size, count, flags, epoch, checked, hits, first, last, needs, results, copy; } block_entry;
typedef struct { struct Core *core; uint64_t physical; uint8_t *host; int all; } guard; /* all: of loads too */
typedef struct { uint64_t addr; uint32_t size; } noted;
/* second: of the second instruction set; asks: some of its hooks ask for bounds */
typedef struct {
    const uint8_t *host;
    uint64_t addr;
    uint32_t size, count, epoch;
    uint8_t second, plain, unmasks, indivisible, asks, *bytes;
} plan;
/* What generated code counts with; see _inline.h. budget: instructions; current: number of the site passed last, or 0; hook:
 * what sites call that are far from it; code: see _exit_flag.h; conditions: see _condition.h */
typedef struct {
    uint64_t budget;
    void *hook;
    uint32_t current;
    uint8_t unused[44], seen[MAX_SITES];
    _Alignas(PAGE) uint8_t code[PAGE], conditions[4 * PAGE];
} near_words;
/* A block that is counted by its code. end: where the call of the hook returns to; length: of what is replaced before it;
 * call, behind: of the call itself, and of Unicorn's look at its exit flag; last: end of the block's code; host: its instructions; calls: hooks of instructions, which are passed over, the first at this distance from end; hooked: the hook of the block is not */
typedef struct {
    uint8_t *end;
    uint64_t addr;
    const uint8_t *host, *last;
    uint32_t size, count, calls, first;
    uint8_t live, hooked, length, call, behind, original[SITE_BYTES];
} site;
typedef struct { uint64_t first, last; int permissions, locked; } pmp_entry; /* permissions: UC_PROT_READ, … */
/* a register that decides whether addresses are translated: Unicorn's number, its selector, where the value is, the least privilege that
 * shows it */
typedef struct { int id; uint32_t offset, privilege; uint64_t mask; uint8_t selector[32]; } control;
/* bytes of the CPU structure that say which interrupts are masked, and how they were when the wait began */
typedef struct { const uint8_t *at; uint32_t size; uint8_t was[8]; } mask_bytes;
/* From what it follows where a virtual address is, see _ways.h: entries of page tables, and registers; known: it is known at all */
typedef struct {
    mask_bytes words[MAX_WAY];
    control registers[MAX_REGIME];
    uint64_t values[MAX_REGIME];
    int word_count, register_count, known;
} way;
typedef struct { uint64_t page; const uint8_t *host; way way; } known_page; /* host NULL: in no RAM; page NO_PC: the entry is empty */
typedef struct { uint64_t addr, key; uint32_t size; size_t hook; } exact_entry;
typedef struct {
    struct Core *core;  /* NULL: not in use */
    size_t handle;
    uint64_t addr, block; /* block: key of the one that it was found in last */
    int64_t before;       /* instructions of that block before it; -1: none begins there */
    const uint8_t *conditions[2]; /* see _condition.h: for a call of this hook, and of all */
    int left_to_hook;             /* there is none */
} point_hook;
/* a call of a point hook that is preceded by its condition; end: where it returns to; call, behind: as in site; all: Unicorn
 * calls all hooks by one */
typedef struct { point_hook *hook; uint8_t *end, length, call, behind, all, original[SITE_BYTES]; } judged;
typedef struct { uint64_t physical; uint8_t *host; way way; } whereabouts; /* of watched bytes; host NULL: not RAM */
typedef struct {
    uint64_t address;  /* virtual, or physical if it is fixed */
    uint64_t physical; /* NO_PC: nothing was mapped there yet */
    uint8_t *host;     /* NULL: not RAM */
    uint32_t length;   /* within a page */
    char kind;
    uint8_t fixed;     /* it is where it is, whatever the guest translates */
    uint8_t placed;    /* something is mapped there, as it was found last */
    uint8_t bound;     /* it is of one address space, whichever is in use */
    uint8_t hit;       /* by the instruction that is executing */
    uint8_t suspect;   /* that instruction accessed such bytes of the page below, which may be what is mapped here now */
    uint8_t suspect_hit;
    uint64_t suspect_page;
    way way;
    whereabouts before_move; /* where it was then, if its way is known: modes and spaces take turns */
    uint8_t last;      /* part of the last hit of all */
    uint8_t *old;      /* value at the last look */
    uint8_t *before;   /* values around the last hit */
    uint8_t *after;
} watch;

/* ---- what the families keep; the pointers go to Unicorn's own ---- */

typedef struct { /* see _x86.h */
    int rcx_id, rsp_id, flags_id, debug_id; /* of Unicorn's registers; debug_id: of the first of them */
    int stale_flags;
    uint64_t rcx, rsp;   /* before the last instruction that repeats, or calls */
    uint64_t far_icount; /* behind the last far transfer of this run */
    int far_sysret;
    int other_size;   /* code is not of the family's own size */
    int guest_points; /* breakpoints of the guest's own are on */
    uint64_t debug[8]; /* its debug registers, then */
    uint8_t *context; /* a uc_context, for what only that shows; the offsets are -1 where layout.py found none */
    int flags_at, previous_at, segment_at, modes_at;
} x86_state;

typedef struct { /* see _arm.h */
    int cpsr_id;        /* of Unicorn's registers */
    int has_timer;      /* the generic one */
    int it_held, it_error;
    uint8_t it, last_it;
    uint64_t it_at;
    uint32_t *pc;
    uint8_t *thumb, *condexec, *no_exit;
    sigjmp_buf *jump;
} arm_state;

typedef struct { uint32_t first, last; int privileged, user; } mpu_region; /* permissions: UC_PROT_READ, … */

typedef struct { /* see _armv7m.h */
    uint32_t rules, blocks_rules; /* what is asked for, and was when blocks were looked at */
    uint8_t *control, *number;    /* CONTROL, and that of the exception that is handled */
    uint8_t *faultmask;
    mpu_region mpu[MAX_MPU];
    int mpu_count;
} armv7m_state;

typedef struct { int number; uint64_t value; } riscv_unboxed;

typedef struct { /* see _riscv.h and _pmp.h; the pointers are NULL in a script's CPU */
    uint32_t *status, *counters; /* counters: mcounteren */
    uint64_t *floats;
    pmp_entry pmp[MAX_PMP];
    int pmp_count;
    int pmp_partly, pmp_native_lacks; /* an entry ends within a page; it is none that Unicorn alone would enforce */
    uint8_t status_rd; /* of the instruction that runs; 0: no register to mend behind it */
    uint16_t status_csr;
    riscv_unboxed unboxed[3];
    int unboxed_count;
    uint32_t results, written;
} riscv_state;

typedef struct Family Family; /* see _family.h */
typedef struct Hooks Hooks;

typedef struct Core {
    PyObject_HEAD
    void *uc;
    emu_start_fn emu_start;
    emu_stop_fn emu_stop;
    reg_fn reg_read, reg_write;
    hook_add_fn hook_add;
    hook_del_fn hook_del;
    translate_fn translate;
    ctl_fn ctl;
    context_fn context_save, context_restore;
    mmio_fn mmio_map;
    protect_fn mem_protect;
    map_fn mem_map_ptr;
    unmap_fn mem_unmap;

    const Family *family;
    const Hooks *hooks;
    int wide;       /* 64 bits */
    int big_endian; /* code and data */
    x86_state x86;
    arm_state arm;
    armv7m_state armv7m;
    riscv_state riscv;
    PyObject *entry_words; /* see _exceptions.h; NULL: none is entered here */
    uint8_t *saved;        /* a uc_context to save into */
    int fault_at, syndrome_at;
    uint32_t *privilege; /* where Unicorn keeps it, if its interface hides registers of a higher one */

    uint64_t icount, limit, skip, pc, last_pc;
    uint32_t last_size;
    int reason;
    volatile int interrupt;
    int exception, error, faulted;
    uint64_t fault_address;
    uint64_t executed, looked, hooks_asked, exceptions; /* instructions of all runs; those counted one by one; blocks that got hooks, see _sparse.h; exceptions, see _exceptions.h */

    int bare; /* hooks that count and look, none that handles exceptions: those are the script's */
    int stopped;
    int single; /* the run ends behind its first instruction */
    int slowly; /* its mode is none for the fast gear */
    uint64_t code_base;    /* where the pc of Unicorn counts from; else addresses of code are linear, in all of the engine */
    uint64_t address_mask; /* of all addresses that there are */
    uint64_t hooked_pc;    /* of a plain block: its last instruction that had a hook */
    uint64_t run_icount;   /* where this emu_start began */
    int denied; /* UC_PROT_READ, …: the kind of access that the family's memory protection has refused */
    uint64_t denied_at;
    int denied_status; /* why, as the family has it; 0: it says nothing */
    uint8_t *no_sync; /* Unicorn's own flag; see keep_state */

    int range_on;
    uint64_t range_start, range_end;

    bp_entry *bps;
    uint64_t bp_mask;
    uint32_t bp_count;
    uint8_t bp_filter[BP_FILTER], bp_pages[256];
    agent_register registers[MAX_REGISTERS]; /* by GDB's numbers */
    uint32_t register_count;
    point_hook point_hooks[MAX_POINT_HOOKS]; /* see _points.h */
    int point_hook_count;
    judged judged[MAX_JUDGED]; /* see _condition.h */
    uint32_t judged_count, conditions_used;

    int collect;
    uint64_t bp_last;
    uint64_t watch_last;

    watch watches[MAX_WATCHES];
    int watch_count;
    int points; /* watches, breakpoints or a range: look at every instruction */
    int watches_access; /* there are watches of other kinds than w */
    int watches_lost;   /* watches that are not in RAM, as far as is known */
    int watches_moved, suspects;
    int watches_asked; /* see stores_are_asked */
    known_page known_pages[KNOWN_PAGES];
    int learns;        /* Python can tell where pages are */
    uint64_t asked_page; /* that a condition needs, or NO_PC */
    size_t access_hook;
    int access_hooked;
    guard guards[MAX_GUARDS];
    uint64_t guard_base; /* physical; nothing else is there, nor in the GUARD_SIZE bytes behind the guard */
    int guard_count, code_watched, unguard;
    uint32_t checked, hooks_checked; /* what stands in blocks was looked at since it changed last */

    filters filters[2]; /* of the second instruction set as well */
    class_entry *classes;
    int class_count;
    uint8_t code[MAX_INSN];
    int code_size, code_thumb;
    int tlb_stale;
    int mmu_seen; /* addresses are translated: a function of the control registers */
    int mmu_moved; /* an instruction ran that may have changed them */
    control controls[MAX_CONTROLS];
    int control_count;
    control regime[MAX_REGIME]; /* of translation, for all address spaces; see look_at_regime */
    uint64_t regime_values[MAX_REGIME];
    int regime_count, regime_moved;
    mask_bytes masks[MAX_MASKS];
    int mask_count;
    unsigned awaiting; /* interrupts that wait until one of them changes */

    region regions[MAX_REGIONS];
    int region_count;
    const region *found; /* the one of an access before in this run, or NULL */
    void *found_mapping; /* what Unicorn has found there, or NULL */
    span covers[MAX_COVERS]; /* ascending; see _cover.h */
    int cover_count;
    size_t invalid_hooks[2 * MAX_REGIONS + MAX_COVERS + 1];
    int invalid_hook_count;
    uint8_t *ram;
    uint8_t *code_pages;
    uint64_t code_pages_length;
    PyObject *code_pages_owner;
    tlb_entry tlb[TLB_SIZE];
    uint64_t fills, fills_look, fills_looked, fills_at; /* see note_fill */
    int crowded;
    /* the size of Unicorn's table, by what filled it from one flush to the next; see shrink_table */
    uint64_t table_size, table_begun, shrink_at, shrink_pause;
    int shrinking;

    /* gears: see _fast.h */
    int fast, phase, exact, refused, device_granted, fast_exit, code_hooked;
    exact_entry exact_blocks[MAX_EXACT];
    int exact_count;
    uint64_t exact_pc;
    int pc_id;
    unsigned stale_pc; /* how far ahead Unicorn's pc is where an exception has ended a run */
    block_entry *blocks;
    uint64_t block_mask, block_count;
    uint8_t *page_flags;
    uint64_t user_limit, block_icount, tail_icount, last_icount, spell, spell_end, tails, tails_at;
    uint32_t block_length, tail_size;
    int tail_short; /* see enter_tail */
    size_t code_hook;
    uint64_t *bounds; /* of the code hook, where only some blocks have it; see _sparse.h */
    int sparse_fails;

    /* see _footprint.h; epoch: of the set, for blocks that are in it */
    noted *noted;
    uint64_t noted_mask, noted_count, seen;
    uint32_t seen_size, epoch;
    int noted_lost;

    uint64_t block;
    uint32_t block_size;
    uint8_t block_bytes[MAX_BLOCK];

    /* see _inline.h; granted: what of the budget is not in icount yet */
    int inlines;
    near_words *near;
    uint64_t granted;
    site *sites; /* from number 1 */
    uint32_t site_count, site_room, sites_checked, *site_table;
    uint64_t site_mask;
    uintptr_t buffer_begin, buffer_end;
    const uint8_t *block_code; /* of the block at hand, behind the call of its hook */
    const uint8_t *at_hand; /* the registers of the CPU, as generated code has them at hand */

    /* see _exit_flag.h; exit_flag: where it is from the registers, or 0; exit_looks: made in place, so far */
    const void *exit_helper;
    int8_t exit_flag;
    uint64_t exit_looks;

    int keeps_time; /* virtual time is (icount << time_shift) + time_slept nanoseconds; time_ahead: of the guest's clock, ticks */
    unsigned time_shift;
    uint64_t time_slept, time_ahead;

    /* see _whole.h */
    int whole, look_next, mapping_passes;
    const uint8_t *block_host;
    uint64_t refused_pc; /* where an access was refused */
    mapping_fn mapping, *mapping_at; /* Unicorn's own, and where its address stands */

    /* see _script.h; hooked_code, hooked_memory: what the script has hooks for; slow_hooks: they leave no room for the fast gear;
     * copies: bytes of blocks; begins, again: the run has not passed a block yet, and the block at hand was told to the script's hooks in
     * an earlier one; untold: where a run was stopped before they were told; begun_icount, restart_icount: where Python began a
     * run, and where an instruction began again */
    spans hooked_code, hooked_memory;
    int slow_hooks, begins, again;
    uint64_t untold, untold_icount, begun_icount, restart_icount;
    uint8_t *copies;
    uint32_t copies_used, copies_room;
    uint64_t tail_begin, tail_end;
    uint32_t entered; /* bytes of the block at hand, where each instruction is looked at */

    plan *plans; /* see _settled.h; settled: bytes of the block at hand, or 0 */
    uint32_t settled;
    const uint8_t *settled_host, *settled_bytes;
} Core;

static inline uint64_t mix(uint64_t x)
{
    x *= 0x9E3779B97F4A7C15ull;
    return x ^ (x >> 29);
}

/* An instruction goes on, or a block: Unicorn need not bring the state up to date for the hooks of its accesses. That takes
 * longer than the access, and on x86 it sets the way in which the condition flags are kept (cc_op) back to what it was
 * before the instruction, when PUSHF, REP and others have written another already. Not on ARM: see it_refuse. */
static inline void keep_state(Core *c)
{
    if (c->no_sync)
        *c->no_sync = 1;
}

/* The run will be left: now Unicorn has to bring the state up to date. */
static inline void sync_state(Core *c)
{
    if (c->no_sync)
        *c->no_sync = 0;
}

static void stop(Core *c, int reason, uint64_t pc)
{
    sync_state(c);
    c->reason = reason;
    c->pc = pc;
    c->stopped = 1;
    c->emu_stop(c->uc);
}

/* The fast phase is left before the block at addr. */
static void leave_fast(Core *c, int why, uint64_t addr)
{
    sync_state(c);
    c->fast_exit = why;
    c->pc = addr;
    c->stopped = 1;
    c->emu_stop(c->uc);
}
