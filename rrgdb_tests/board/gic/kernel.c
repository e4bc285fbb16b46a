/* Interrupts of a GICv2, nested by priority, from privileged and from user mode; what is printed does not depend on
   time. Built for A64 and A32. */

typedef unsigned int u32;
typedef unsigned long word;

#define REG(address) (*(volatile u32 *)(word)(address))
#define GICD(offset) REG(0x08000000 + (offset))
#define GICD8(offset) (*(volatile unsigned char *)(word)(0x08000000 + (offset)))
#define GICC(offset) REG(0x08010000 + (offset))
#define UART(offset) REG(0x09000000 + (offset))

enum { LOW_SGI = 1, HIGH_SGI = 2, LAST_SGI = 3, VIRTUAL = 27, PHYSICAL = 30, UART_TX = 33 };
enum { TICKS = 625, PERIODS = 5 };

#ifdef __aarch64__
#define IRQ_ON() asm volatile("msr daifclr, #2" ::: "memory")
#define IRQ_OFF() asm volatile("msr daifset, #2" ::: "memory")
#define VIRTUAL_TVAL(n) asm volatile("msr cntv_tval_el0, %0" ::"r"((word)(n)))
#define VIRTUAL_CTL(n) asm volatile("msr cntv_ctl_el0, %0\n isb" ::"r"((word)(n)))
#define PHYSICAL_TVAL(n) asm volatile("msr cntp_tval_el0, %0" ::"r"((word)(n)))
#define PHYSICAL_CTL(n) asm volatile("msr cntp_ctl_el0, %0\n isb" ::"r"((word)(n)))
#else
#define IRQ_ON() asm volatile("cpsie i" ::: "memory")
#define IRQ_OFF() asm volatile("cpsid i" ::: "memory")
#define VIRTUAL_TVAL(n) asm volatile("mcr p15, 0, %0, c14, c3, 0" ::"r"(n))
#define VIRTUAL_CTL(n) asm volatile("mcr p15, 0, %0, c14, c3, 1\n isb" ::"r"(n))
#define PHYSICAL_TVAL(n) asm volatile("mcr p15, 0, %0, c14, c2, 0" ::"r"(n))
#define PHYSICAL_CTL(n) asm volatile("mcr p15, 0, %0, c14, c2, 1\n isb" ::"r"(n))
#endif
#define WFI() asm volatile("wfi" ::: "memory")

word psci(word function, word first);
void to_user(void);

static volatile u32 ticks;
static volatile u32 periodic;

static void put(char c) { UART(0) = c; }

static void say(const char *text)
{
    while (*text)
        put(*text++);
}

static void hex(u32 value, int digits)
{
    while (digits--)
        put("0123456789abcdef"[value >> 4 * digits & 15]);
}

static void send(u32 sgi) { GICD(0xf00) = 2 << 24 | sgi; }

/* What each of them does before it ends: call up the next more urgent one. */
static void act(u32 number)
{
    switch (number) {
    case LOW_SGI:
        IRQ_ON();
        UART(0x38) = 0x20;
        /* QEMU looks for interrupts between its blocks of code alone. */
        while (UART(0x38))
            ;
        break;
    case UART_TX:
        UART(0x38) = 0;
        IRQ_ON();
        u32 before = ticks;
        VIRTUAL_TVAL(TICKS);
        VIRTUAL_CTL(1);
        while (ticks == before)
            ;
        break;
    case VIRTUAL:
        ticks++;
        if (periodic && --periodic) {
            VIRTUAL_TVAL(TICKS);
            break;
        }
        VIRTUAL_CTL(0);
        IRQ_ON();
        send(LAST_SGI);
        send(HIGH_SGI);
        while (GICD(0x200) & 1u << HIGH_SGI)
            ;
        break;
    case PHYSICAL:
        PHYSICAL_CTL(0);
        break;
    }
    IRQ_OFF();
}

void irq(word from)
{
    u32 said = GICC(0xc), number = said & 0x3ff;
    hex(number, 2);
    put(from ? '{' : '(');
    hex(GICC(0x14), 2);
    act(number);
    put(' ');
    hex(GICC(0x14), 2);
    put(from ? '}' : ')');
    GICC(0x10) = said;
}

/* In user mode. */
void user(void)
{
    say("\nuser ");
    send(LOW_SGI);
    while (ticks < 2)
        ;
}

void system_call(void)
{
    say("\nsuspend ");
    PHYSICAL_TVAL(TICKS);
    PHYSICAL_CTL(1);
    hex(psci(0x84000001, 0), 8);
    hex(GICC(0x18), 4);
    IRQ_ON();
    IRQ_OFF();
    put('\n');
    psci(0x84000008, 0);
}

void kernel(void)
{
    GICD8(0x400 + LOW_SGI) = 0x80;
    GICD8(0x400 + HIGH_SGI) = 0x20;
    GICD8(0x400 + LAST_SGI) = 0xf0;
    GICD8(0x400 + VIRTUAL) = 0x40;
    GICD8(0x400 + PHYSICAL) = 0xa0;
    GICD8(0x400 + UART_TX) = 0x60;
    GICD(0x100) = 1u << VIRTUAL | 1u << PHYSICAL;
    GICD(0x104) = 1u << (UART_TX - 32);
    GICC(4) = 0xff;
    GICC(0) = 1;
    GICD(0) = 1;

    say("kernel ");
    send(LOW_SGI);
    hex(GICC(0x18), 4);
    IRQ_ON();
    while (ticks < 1)
        ;
    IRQ_OFF();

    say("\nwait ");
    periodic = PERIODS;
    VIRTUAL_TVAL(TICKS);
    VIRTUAL_CTL(1);
    while (periodic) {
        WFI();
        IRQ_ON();
        IRQ_OFF();
    }
    IRQ_ON();
    IRQ_OFF();
    ticks = 1;
    to_user();
}
