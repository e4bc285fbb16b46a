/* Pages of 4 KiB below a first level of 1 GiB blocks, the virtual timer, and what traps mean. */
#include "kernel.h"
#include "arm_devices.h"

const char cpu_name[] = "aarch64";

#define TABLE 3ull
#define SMALL 3ull
#define BLOCK 1ull
#define NORMAL (1ull << 2)
#define ANY_EL (1ull << 6)
#define READ_ONLY (2ull << 6)
#define INNER (3ull << 8)
#define ACCESSED (1ull << 10)
#define NOT_GLOBAL (1ull << 11)
#define PXN (1ull << 53)
#define UXN (1ull << 54)
#define ADDRESS 0xfffffff000ull
#define INDEX(address, level) ((address) >> (39 - 9 * (level)) & 511)

#define SYSTEM(name, value) __asm__ volatile("msr " #name ", %0\n\tisb" : : "r"((u64)(value)) : "memory")
#define READ(name) ({ u64 value_; __asm__ volatile("mrs %0, " #name : "=r"(value_)); value_; })

static entry boot_root[512] __attribute__((aligned(PAGE)));

static void large_pages(entry *root, entry *low)
{
    root[0] = (uptr)low | TABLE;
    for (uptr at = 0x08000000; at < 0x0a000000; at += 0x200000)
        low[INDEX(at, 2)] = at | BLOCK | ACCESSED | PXN | UXN;
    root[1] = 0x40000000 | BLOCK | NORMAL | INNER | ACCESSED | UXN;
}

void mmu_start(void)
{
    static entry low[512] __attribute__((aligned(PAGE)));
    large_pages(boot_root, low);
    SYSTEM(mair_el1, 0xff04);
    SYSTEM(tcr_el1, 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23);
    SYSTEM(ttbr0_el1, boot_root);
    __asm__ volatile("dsb sy\n\ttlbi vmalle1\n\tdsb sy\n\tisb" : : : "memory");
    SYSTEM(sctlr_el1, 0x30d01805);
}

entry *kernel_root(void)
{
    entry *root = page_new();
    large_pages(root, page_new());
    return root;
}

static entry *table_of(entry *root, uptr address, int make)
{
    for (int level = 1; level < 3; level++) {
        entry *e = &root[INDEX(address, level)];
        if (!(*e & 1)) {
            if (!make)
                return 0;
            *e = (uptr)page_new() | TABLE;
        } else if ((*e & 3) == BLOCK)
            return 0;
        root = (entry *)(*e & ADDRESS);
    }
    return root;
}

void space_map(struct space *space, uptr address, uptr physical, enum kind kind)
{
    u64 flags = kind == USER_TEXT ? READ_ONLY | ANY_EL | PXN : ANY_EL | PXN | UXN;
    table_of(space->root, address, 1)[INDEX(address, 3)] = physical | SMALL | NORMAL | INNER | NOT_GLOBAL | flags;
    page_forget(space, address);
}

entry *space_entry(struct space *space, uptr address)
{
    entry *table = table_of(space->root, address, 0);
    return table ? &table[INDEX(address, 3)] : 0;
}

int entry_present(entry e) { return e & 1; }

int entry_touch(entry *e)
{
    int was = !!(*e & ACCESSED);
    *e |= ACCESSED;
    return !was;
}

void space_use(const struct space *space) { SYSTEM(ttbr0_el1, (uptr)space->root | (u64)space->asid << 48); }

void page_forget(const struct space *space, uptr address)
{
    u64 what = address >> 12 | (u64)space->asid << 48;
    __asm__ volatile("dsb ishst\n\ttlbi vae1is, %0\n\tdsb ish\n\tisb" : : "r"(what) : "memory");
}

void code_changed(uptr address)
{
    __asm__ volatile("dc cvau, %0\n\tdsb ish\n\tic ivau, %0\n\tdsb ish\n\tisb" : : "r"(address) : "memory");
}

void user_access(int on) { (void)on; }

void frame_start(struct frame *frame, uptr pc, uptr stack, uptr argument, int user)
{
    frame->x[0] = argument;
    frame->sp = stack;
    frame->pc = pc;
    frame->pstate = user ? 0 : 4; /* EL0t, EL1t */
}

void timer_again(void)
{
    SYSTEM(cntv_tval_el0, PERIOD_NS / TIMER_TICK_NS);
    SYSTEM(cntv_ctl_el0, 1);
}

void power_off(void)
{
    register u64 x0 __asm__("x0") = SYSTEM_OFF;
    __asm__ volatile("hvc #0" : "+r"(x0) : : "memory");
    for (;;)
        ;
}

struct frame *trap(struct frame *frame, u64 vector)
{
    if (vector == 1 || vector == 9)
        return interrupt();
    u64 syndrome = READ(esr_el1), class = syndrome >> 26;
    if (vector != 8)
        panic("trap", syndrome);
    switch (class) {
    case 0x15:
        return system_call(frame);
    case 0x20:
        return page_fault(frame, READ(far_el1), FETCH);
    case 0x24:
        return page_fault(frame, READ(far_el1), syndrome & 1 << 6 ? STORE : LOAD);
    default:
        panic("trap", syndrome);
    }
}
