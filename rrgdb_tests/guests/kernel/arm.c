/* Short descriptors with the access flag: sections and small pages; the virtual timer, and what traps mean. */
#include "kernel.h"
#include "arm_devices.h"

const char cpu_name[] = "arm";

#define TABLE 1u
#define SECTION 2u
#define SECTION_XN (1u << 4)
#define SECTION_NORMAL (1u << 12 | 3u << 2)
#define SECTION_DEVICE (1u << 2)
#define SECTION_ACCESSED (1u << 10)
#define SMALL 2u
#define XN 1u
#define NORMAL (1u << 6 | 3u << 2)
#define ACCESSED (1u << 4)
#define ANY_LEVEL (1u << 5)
#define READ_ONLY (1u << 9)
#define NOT_GLOBAL (1u << 11)
#define MEGABYTE 0x100000u

#define SYSTEM(value, what) __asm__ volatile("mcr p15, " what "\n\tisb" : : "r"((u32)(value)) : "memory")
#define READ(what) ({ u32 value_; __asm__ volatile("mrc p15, " what : "=r"(value_)); value_; })

static entry roots[6][4096] __attribute__((section(".work.roots,\"aw\",%nobits @"), aligned(0x4000)));
static u32 rooted;

entry *kernel_root(void)
{
    entry *root = roots[rooted++];
    for (u32 at = 0x08000000; at < 0x0a000000; at += MEGABYTE)
        root[at / MEGABYTE] = at | SECTION | SECTION_DEVICE | SECTION_ACCESSED | SECTION_XN;
    for (u32 at = 0x40000000; at < 0x42000000; at += MEGABYTE)
        root[at / MEGABYTE] = at | SECTION | SECTION_NORMAL | SECTION_ACCESSED;
    return root;
}

void mmu_start(void)
{
    SYSTEM(1, "0, %0, c3, c0, 0");             /* DACR: domain 0, client */
    SYSTEM(0, "0, %0, c2, c0, 2");             /* TTBCR */
    SYSTEM(kernel_root(), "0, %0, c2, c0, 0"); /* TTBR0 */
    SYSTEM(0, "0, %0, c8, c7, 0");             /* TLBIALL */
    u32 control = READ("0, %0, c1, c0, 0");
    SYSTEM(control | 1u << 29 | 1u << 12 | 1u << 2 | 1u, "0, %0, c1, c0, 0"); /* SCTLR: AFE, I, C, M */
}

static entry *table_of(entry *root, uptr address, int make)
{
    entry *e = &root[address / MEGABYTE];
    if (!(*e & 3)) {
        if (!make)
            return 0;
        *e = (uptr)page_new() | TABLE;
    } else if ((*e & 3) != TABLE)
        return 0;
    return (entry *)(*e & ~0x3ffu);
}

#define INDEX(address) ((address) >> 12 & 255)

void space_map(struct space *space, uptr address, uptr physical, enum kind kind)
{
    u32 flags = kind == USER_TEXT ? READ_ONLY : XN;
    table_of(space->root, address, 1)[INDEX(address)] = physical | SMALL | NORMAL | ANY_LEVEL | NOT_GLOBAL | flags;
    page_forget(space, address);
}

entry *space_entry(struct space *space, uptr address)
{
    entry *table = table_of(space->root, address, 0);
    return table ? &table[INDEX(address)] : 0;
}

int entry_present(entry e) { return e & SMALL; }

int entry_touch(entry *e)
{
    int was = !!(*e & ACCESSED);
    *e |= ACCESSED;
    return !was;
}

/* Between the two writes nothing of either thread is touched. */
void space_use(const struct space *space)
{
    SYSTEM(space->root, "0, %0, c2, c0, 0");  /* TTBR0 */
    SYSTEM(space->asid, "0, %0, c13, c0, 1"); /* CONTEXTIDR */
}

void page_forget(const struct space *space, uptr address)
{
    __asm__ volatile("dsb" : : : "memory");
    SYSTEM((address & ~(uptr)(PAGE - 1)) | space->asid, "0, %0, c8, c7, 1"); /* TLBIMVA */
    __asm__ volatile("dsb\n\tisb" : : : "memory");
}

void code_changed(uptr address)
{
    SYSTEM(address, "0, %0, c7, c11, 1"); /* DCCMVAU */
    SYSTEM(0, "0, %0, c7, c5, 0");        /* ICIALLU */
}

void user_access(int on) { (void)on; }

void frame_start(struct frame *frame, uptr pc, uptr stack, uptr argument, int user)
{
    frame->r[0] = argument;
    frame->sp = stack;
    frame->pc = pc;
    frame->cpsr = user ? 0x10 : 0x1f;
}

void timer_again(void)
{
    SYSTEM(PERIOD_NS / TIMER_TICK_NS, "0, %0, c14, c3, 0"); /* CNTV_TVAL */
    SYSTEM(1, "0, %0, c14, c3, 1");                         /* CNTV_CTL */
}

void power_off(void)
{
    register u32 r0 __asm__("r0") = SYSTEM_OFF;
    __asm__ volatile(".arch_extension virt\n\thvc #0" : "+r"(r0) : : "memory");
    for (;;)
        ;
}

struct frame *trap(struct frame *frame, u32 vector)
{
    switch (vector) {
    case 2:
        return system_call(frame);
    case 3:
        return page_fault(frame, READ("0, %0, c6, c0, 2"), FETCH); /* IFAR */
    case 4:
        return page_fault(frame, READ("0, %0, c6, c0, 0"), READ("0, %0, c5, c0, 0") & 1 << 11 ? STORE : LOAD);
    case 6:
        return interrupt();
    default:
        panic("trap", vector);
    }
}
