/* Sv39 and Sv32, the PLIC, the 16550, and what traps mean. */
#include "kernel.h"

#define REGISTER8(address) (*(volatile u8 *)(uptr)(address))
#define REGISTER(address) (*(volatile u32 *)(uptr)(address))
#define SYSCON 0x100000
#define UART 0x10000000
#define UART_SOURCE 10
#define PLIC_PRIORITY(source) (0x0c000000 + 4 * (source))
#define PLIC_ENABLE_S 0x0c002080
#define PLIC_THRESHOLD_S 0x0c201000
#define PLIC_CLAIM_S 0x0c201004
#define TICK_NS 100

enum { V = 1, R = 2, W = 4, X = 8, U = 16, G = 32, A = 64, D = 128 };

#define STATUS_SPIE 0x20
#define STATUS_SPP 0x100
#define STATUS_SUM 0x40000

#if __riscv_xlen == 64
#define LEVELS 3
#define INDEX_BITS 9
const char cpu_name[] = "riscv64";
#else
#define LEVELS 2
#define INDEX_BITS 10
const char cpu_name[] = "riscv32";
#endif
#define INDEX(address, level) ((address) >> (12 + INDEX_BITS * (level)) & ((1u << INDEX_BITS) - 1))
#define LARGE ((uptr)PAGE << INDEX_BITS)

void set_timer(uptr period);
extern char trap_vectors[];

static entry *table_of(entry *root, uptr address, int level, int make)
{
    for (int at = LEVELS - 1; at > level; at--) {
        entry *e = &root[INDEX(address, at)];
        if (!(*e & V)) {
            if (!make)
                return 0;
            *e = (uptr)page_new() >> 12 << 10 | V;
        }
        root = (entry *)(*e >> 10 << 12);
    }
    return root;
}

entry *kernel_root(void)
{
    static const uptr large[] = {0, 0x0c000000, 0x0c200000, UART};
    entry *root = page_new();
    for (u32 i = 0; i < sizeof large / sizeof *large; i++)
        table_of(root, large[i], 1, 1)[INDEX(large[i], 1)] = (large[i] & ~(LARGE - 1)) >> 12 << 10 | V | R | W | G | A | D;
#if __riscv_xlen == 64
    root[INDEX(0x80000000, 2)] = 0x80000000 >> 12 << 10 | V | R | W | X | G | A | D;
#else
    for (uptr at = 0x80000000; at < 0x81000000; at += LARGE)
        root[INDEX(at, 1)] = at >> 12 << 10 | V | R | W | X | G | A | D;
#endif
    return root;
}

void space_map(struct space *space, uptr address, uptr physical, enum kind kind)
{
    uptr flags = kind == USER_TEXT ? R | X : R | W;
    table_of(space->root, address, 0, 1)[INDEX(address, 0)] = physical >> 12 << 10 | V | U | flags;
    page_forget(space, address);
}

entry *space_entry(struct space *space, uptr address)
{
    entry *table = table_of(space->root, address, 0, 0);
    return table ? &table[INDEX(address, 0)] : 0;
}

int entry_present(entry e) { return e & V; }

/* CPUs that do not set A and D themselves fault here. */
int entry_touch(entry *e)
{
    int was = (*e & A) && (*e & D || !(*e & W));
    *e |= *e & W ? A | D : A;
    return !was;
}

void space_use(const struct space *space)
{
#if __riscv_xlen == 64
    uptr satp = 8ul << 60 | (uptr)space->asid << 44 | (uptr)space->root >> 12;
#else
    uptr satp = 1ul << 31 | space->asid << 22 | (uptr)space->root >> 12;
#endif
    __asm__ volatile("csrw satp, %0" : : "r"(satp) : "memory");
}

void page_forget(const struct space *space, uptr address)
{
    __asm__ volatile("sfence.vma %0, %1" : : "r"(address), "r"((uptr)space->asid) : "memory");
}

void code_changed(uptr address)
{
    (void)address;
    __asm__ volatile("fence.i" : : : "memory");
}

void user_access(int on)
{
    if (on)
        __asm__ volatile("csrs sstatus, %0" : : "r"(STATUS_SUM) : "memory");
    else
        __asm__ volatile("csrc sstatus, %0" : : "r"(STATUS_SUM) : "memory");
}

void frame_start(struct frame *frame, uptr pc, uptr stack, uptr argument, int user)
{
    frame->x[0] = pc;
    frame->x[2] = stack;
    frame->x[10] = argument;
    frame->status = user ? STATUS_SPIE : STATUS_SPIE | STATUS_SPP;
}

void uart_put(int c)
{
    while (!(REGISTER8(UART + 5) & 0x20))
        ;
    REGISTER8(UART) = (u8)c;
}

void timer_again(void) { set_timer(PERIOD_NS / TICK_NS); }

void machine_start(void)
{
    REGISTER8(UART + 2) = 1; /* FIFOs on, an interrupt for each character */
    REGISTER8(UART + 1) = 1;
    REGISTER(PLIC_PRIORITY(UART_SOURCE)) = 1;
    REGISTER(PLIC_ENABLE_S) = 1 << UART_SOURCE;
    REGISTER(PLIC_THRESHOLD_S) = 0;
    __asm__ volatile("csrs sie, %0" : : "r"(0x220ul));
    timer_again();
}

void power_off(void)
{
    REGISTER(SYSCON) = 0x5555;
    for (;;)
        ;
}

static struct frame *external(void)
{
    struct frame *next = &current->frame;
    u32 source = REGISTER(PLIC_CLAIM_S);
    if (source == UART_SOURCE)
        while (REGISTER8(UART + 5) & 1)
            next = uart_received(REGISTER8(UART));
    REGISTER(PLIC_CLAIM_S) = source;
    return next;
}

struct frame *trap(struct frame *frame)
{
    uptr cause, value;
    __asm__ volatile("csrr %0, scause" : "=r"(cause));
    __asm__ volatile("csrr %0, stval" : "=r"(value));
    if (cause >> (__riscv_xlen - 1))
        return (cause & 0xff) == 5 ? timer_tick() : external();
    switch (cause) {
    case 8:
        frame->x[0] += 4;
        return system_call(frame);
    case 12:
        return page_fault(frame, value, FETCH);
    case 13:
        return page_fault(frame, value, LOAD);
    case 15:
        return page_fault(frame, value, STORE);
    default:
        panic("trap", cause);
    }
}
