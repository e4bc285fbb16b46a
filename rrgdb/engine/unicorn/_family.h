/* What is asked of a CPU family: one table for each, chosen when a Core is made.
 *
 * A question that is NULL has the answer no, and an action that is NULL is none, so that a family is only what it has of its
 * own; `plain` has nothing. The hooks get the table as a constant: their copy for a family (see _families.h) holds neither
 * tests nor indirect calls. What is not on the way of each instruction or block asks c->family.
 */
#pragma once
#include "_core.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Numbers of registers, and addresses within Unicorn's own structures, by which the family reaches them: by name. */
typedef struct { const char *name; size_t at; int pointer; } place;
#define NUMBER_PLACE(name, field) {name, offsetof(Core, field), 0}
#define POINTER_PLACE(name, field) {name, offsetof(Core, field), 1}

struct Family {
    const char *name;
    const place *places;  /* the last one has no name */
    int places_optional;  /* a CPU without them is run without mending */
    int restarts_itself;  /* Unicorn begins an instruction again that wrote into its own block */
    uint32_t single_step; /* number of an exception that comes behind its instruction, or 0 */

    /* ---- instructions by their bytes, of which n are there */

    /* Length of a plain instruction (see _fast.h); 0 if it is not plain. */
    uint32_t (*plain_length)(const Core *c, const uint8_t *b, uint32_t n);
    /* Whether it must be looked at before it runs. NULL: what the filters find. */
    int (*interesting)(const Core *c, const uint8_t *b, uint32_t n);
    /* A quick answer for nearly all: it is not interesting, and no other question has to be asked about it. */
    int (*harmless)(const Core *c, const uint8_t *b, uint32_t n);
    /* Of an instruction that this CPU model does not have, at addr: how many bytes tell what it is; they go to b. */
    uint32_t (*unknown_length)(Core *c, uint64_t addr, uint8_t *b);
    /* Whether it changes how flags are kept before it accesses memory. */
    int (*keeps_flags)(const Core *c, const uint8_t *b, uint32_t n);
    /* Of four bytes: whether it cannot begin again after any of its accesses. */
    int (*indivisible)(const Core *c, const uint8_t *b);
    /* Of a plain instruction of n bytes: whether it may change what masks interrupts. It ends its block then. */
    int (*unmasks)(const Core *c, const uint8_t *b, uint32_t n);
    /* Of a plain instruction of n bytes: whether it may raise an exception for which state is lost that Unicorn computes late. Not
     * by an access. */
    int (*raises)(const Core *c, const uint8_t *b, uint32_t n);
    /* Of at least two bytes, then zeros: a store-conditional, which Unicorn makes by reading what stands there. */
    int (*stores_only)(const Core *c, const uint8_t *b);

    /* ---- the second instruction set: in it the lowest bit of the address where a run begins is set */

    int (*in_second)(const Core *c);
    /* Whether some instructions of that code of the second set have no hook of their own. */
    int (*passes_over)(Core *c, uint64_t addr, uint32_t size);
    /* Of the instructions of a block, one after the other: whether its hook is called where it does not pass over it alone, and by a
     * function of Unicorn's that looks at the hook's bounds then. *state: 0 at the first of them, which is none such. */
    int (*asks_bounds)(const Core *c, const uint8_t *b, uint32_t n, uint8_t *state);
    /* Whether a stop would take effect too late: in the hook of a block, or of an instruction. Then leave() is the way. */
    int (*held)(const Core *c, int block);
    void (*leave)(Core *c);

    /* ---- around an instruction. Nonzero: the run was stopped */

    /* Count what was passed over before addr. */
    int (*catch_up)(Core *c, uint64_t addr);
    /* It is about to be looked at; not if it is harmless. */
    void (*remember)(Core *c, const uint8_t *b, uint32_t n);
    /* It must not run now, or at all. b: NULL if it cannot be read. */
    int (*refuse)(Core *c, uint64_t addr, const uint8_t *b, uint32_t n, int harmless);
    /* It is of CLASS_STATUS. */
    int (*access_status)(Core *c, const uint8_t *b);
    /* It is c->code, of CLASS_TRAP, and the run has stopped before it: perform it here. Zero: it is left to Python. */
    int (*emulate)(Core *c);
    /* It is a system instruction, and will run. */
    void (*enter_system)(Core *c, const uint8_t *b, uint32_t n);
    /* It was counted and runs next. b: NULL if it cannot be read. */
    void (*counted)(Core *c, uint64_t addr, const uint8_t *b, uint32_t n, int harmless);
    /* It, or the block, has retired. */
    void (*retired)(Core *c);
    /* It was counted, but has not happened. */
    void (*undone)(Core *c);
    /* It was performed by others. */
    void (*performed)(Core *c);
    /* After a run, give back the flags that it has lost: it was counted, but has not happened. */
    void (*restore_flags)(Core *c);

    /* ---- around a block */

    /* Any block begins. Nonzero: the run was left. */
    int (*begin_block)(Core *c, uint64_t addr, uint32_t size);
    /* A block was translated from within a hook. */
    void (*translated)(Core *c);
    /* Whether the block of plain instructions at addr may be counted as a whole: *needs must hold at its entry, *results is to be done
     * behind it. */
    int (*block_needs)(Core *c, uint64_t addr, const uint8_t *b, uint32_t size, uint32_t *needs, uint32_t *results);
    int (*needs_hold)(const Core *c, uint32_t needs);
    /* Whether plain instructions of blocks that need nothing may run without a look at each of them (see _settled.h).
     * NULL: never. */
    int (*settles)(const Core *c);
    /* It was counted as a whole and runs next. */
    void (*block_counted)(Core *c, uint32_t results);
    /* Of it, what lies before pc has retired. */
    void (*block_left)(Core *c, uint64_t pc);

    /* Whether Unicorn's own walks through page tables may write to bytes of the watch. NULL: they never write. */
    int (*walk_writes)(const Core *c, const watch *w);

    /* ---- exceptions */

    /* Whether the exception of this number of Unicorn's is one that is entered here, as the CPU is. behind: pc stands behind its
     * instruction, as for a system call. */
    int (*enters)(Core *c, int number, int behind);
    /* Enter it: it was raised by the instruction at c->last_pc, which has not retired. */
    void (*enter_exception)(Core *c, int number);
    int entry_words; /* how many registers that takes */

    /* Whether one of the interrupts that wait is taken, as the masks are now (in the order of Family.masks in Python). NULL:
     * Python is asked once they have changed. */
    int (*takes)(const Core *c);

    /* ---- accesses */

    /* What the memory protection of the family allows on the page of an access; 0: nothing. whole: see fill_tlb. */
    int (*grants)(Core *c, uint64_t va, int type, int whole);
    /* It goes on, after Unicorn has brought the state up to date. */
    void (*goes_on)(Core *c);
    /* It was refused, and the instruction is to begin again. */
    void (*refused)(Core *c, int store);
    /* There is nothing at that address. type: UC_MEM_READ_UNMAPPED, … */
    void (*fault)(Core *c, int type);

    /* ---- around a run */

    /* Where c->code_base is, and what else the mode of the CPU means for addresses. */
    void (*look)(Core *c);
    /* Set c->single and c->slowly. */
    void (*enter)(Core *c);
    /* emu_start is called next; has returned. */
    void (*begin_run)(Core *c);
    void (*end_run)(Core *c);
    /* An exception has ended the fast phase, and will be raised again. Zero: not that one, it came behind an instruction. */
    int (*forget_exception)(Core *c);
};

/* A family's copies of the hooks, for uc_hook_add. */
struct Hooks {
    void *block, *inlined, *code, *exact_code, *first_code, *tlb, *access, *invalid_memory;
};

ALWAYS_INLINE int in_second(const Family *f, const Core *c)
{
    return f->in_second && f->in_second(c);
}

/* Virtual time in ticks of so many in a number of nanoseconds. */
static inline uint64_t ticks(const Core *c, uint64_t count, uint64_t nanoseconds)
{
    return (uint64_t)((((unsigned __int128)c->icount << c->time_shift) + c->time_slept) * count / nanoseconds);
}

/* Linear address of what Unicorn's pc says. */
static uint64_t linear(Core *c, uint64_t pc)
{
    if (c->family->look)
        c->family->look(c);
    return (c->code_base + pc) & c->address_mask;
}
