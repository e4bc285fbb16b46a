/* Interrupts in machine and in supervisor mode: software, timer and external ones by CLINT and PLIC, waited for in WFI
 * and awaited masked, handed down from machine mode as firmware does. It prints what came, in order: the mode, the
 * cause, what mip held, and behind a colon the PLIC's source. Nothing of it depends on how fast the CPU is. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 8
#endif
#define AT32(address) (*(volatile u32 *)(uptr)(address))
#define AT8(address) (*(volatile u8 *)(uptr)(address))
#define MSIP AT32(0x02000000)
#define MTIMECMP 0x02004000
#define MTIME 0x0200bff8
#define PLIC 0x0c000000
#define UART 0x10000000
#define RTC 0x00101000
#define NEVER (~0ull)
#define SSI 1
#define MSI 3
#define STI 5
#define MTI 7
#define SEI 9
#define MEI 11
#define UART_SOURCE 10
#define RTC_SOURCE 11

#define read_csr(name) ({ uptr value_; __asm__ volatile("csrr %0, " #name : "=r"(value_)::"memory"); value_; })
#define write_csr(name, value) __asm__ volatile("csrw " #name ", %0" ::"r"((uptr)(value)) : "memory")
#define set_csr(name, bits) __asm__ volatile("csrs " #name ", %0" ::"r"((uptr)(bits)) : "memory")
#define clear_csr(name, bits) __asm__ volatile("csrc " #name ", %0" ::"r"((uptr)(bits)) : "memory")
#define wait() __asm__ volatile("wfi" ::: "memory")

#if __riscv_xlen == 64
#define S "sd"
#define L "ld"
#define B "8"
#else
#define S "sw"
#define L "lw"
#define B "4"
#endif

/* Saves what the C handler may change. NAME_vectors: an entry for each cause, which leaves its number in xscratch. */
#define ENTRY(NAME, MODE)                                                                                              \
    __asm__(".text\n.balign 64\n.option push\n.option norvc\n"                                                         \
            ".globl " NAME "_vectors\n" NAME "_vectors:\n"                                                             \
            ".set i, 0\n.rept 12\n j " NAME "_vectored + 8 * i\n .set i, i + 1\n.endr\n"                               \
            NAME "_vectored:\n.set i, 0\n.rept 12\n csrwi " MODE "scratch, i\n j " NAME "_entry\n .set i, i + 1\n.endr\n" \
            ".option pop\n.balign 4\n.globl " NAME "_entry\n" NAME "_entry:\n"                                         \
            " addi sp, sp, -16*" B "\n"                                                                                \
            " " S " ra, 0*" B "(sp)\n " S " t0, 1*" B "(sp)\n " S " t1, 2*" B "(sp)\n " S " t2, 3*" B "(sp)\n"         \
            " " S " t3, 4*" B "(sp)\n " S " t4, 5*" B "(sp)\n " S " t5, 6*" B "(sp)\n " S " t6, 7*" B "(sp)\n"         \
            " " S " a0, 8*" B "(sp)\n " S " a1, 9*" B "(sp)\n " S " a2, 10*" B "(sp)\n " S " a3, 11*" B "(sp)\n"       \
            " " S " a4, 12*" B "(sp)\n " S " a5, 13*" B "(sp)\n " S " a6, 14*" B "(sp)\n " S " a7, 15*" B "(sp)\n"     \
            " csrr a0, " MODE "cause\n"                                                                                \
            " call " NAME "_handle\n"                                                                                  \
            " " L " ra, 0*" B "(sp)\n " L " t0, 1*" B "(sp)\n " L " t1, 2*" B "(sp)\n " L " t2, 3*" B "(sp)\n"         \
            " " L " t3, 4*" B "(sp)\n " L " t4, 5*" B "(sp)\n " L " t5, 6*" B "(sp)\n " L " t6, 7*" B "(sp)\n"         \
            " " L " a0, 8*" B "(sp)\n " L " a1, 9*" B "(sp)\n " L " a2, 10*" B "(sp)\n " L " a3, 11*" B "(sp)\n"       \
            " " L " a4, 12*" B "(sp)\n " L " a5, 13*" B "(sp)\n " L " a6, 14*" B "(sp)\n " L " a7, 15*" B "(sp)\n"     \
            " addi sp, sp, 16*" B "\n"                                                                                 \
            " " MODE "ret\n")

ENTRY("machine", "m");
ENTRY("supervisor", "s");
extern char machine_entry[], machine_vectors[], supervisor_entry[], supervisor_vectors[];

volatile u32 taken;
static volatile u32 in_supervisor, wanted;
enum { NOTHING, SOFTWARE, TIMER, TIMER_DONE };

static void tell(int mode, u32 cause, u32 pending, u32 scratch, u32 source, u32 byte)
{
    static const char digits[] = "0123456789abcdef";
    uart_putc(mode);
    uart_putc(digits[cause & 15]);
    uart_putc(' ');
    for (int shift = 8; shift >= 0; shift -= 4)
        uart_putc(digits[pending >> shift & 15]);
    if (scratch < 12) {
        uart_putc('v');
        uart_putc(digits[scratch]);
    }
    if (source) {
        uart_putc(':');
        uart_putc(digits[source & 15]);
    }
    if (byte) {
        uart_putc('=');
        uart_putc(byte);
    }
    uart_putc('\n');
}

static void set_timer(u64 when)
{
    AT32(MTIMECMP + 4) = ~0u;
    AT32(MTIMECMP) = (u32)when;
    AT32(MTIMECMP + 4) = when >> 32;
}

static u64 now(void)
{
    u32 high, low;
    do {
        high = AT32(MTIME + 4);
        low = AT32(MTIME);
    } while (high != AT32(MTIME + 4));
    return (u64)high << 32 | low;
}

/* Of whose context; what it says is told when the UART is quiet. */
static u32 serve(u32 context, u32 *byte)
{
    u32 source = AT32(PLIC + 0x200004 + 0x1000 * context);
    *byte = 0;
    if (source == UART_SOURCE) {
        u32 why = AT8(UART + 2);
        if ((why & 7) == 4)
            *byte = AT8(UART); /* one of those that wait */
        else
            AT8(UART + 1) = 0;
    } else if (source == RTC_SOURCE) {
        AT32(RTC + 0x10) = 0;
        AT32(RTC + 0x1c) = 1;
    }
    AT32(PLIC + 0x200004 + 0x1000 * context) = source;
    return source;
}

__attribute__((used)) void machine_handle(uptr cause)
{
    u32 pending = read_csr(mip), scratch = read_csr(mscratch), source = 0, byte = 0;
    write_csr(mscratch, 31);
    taken++;
    if ((long)cause >= 0) { /* a call out of supervisor mode */
        write_csr(mepc, read_csr(mepc) + 4);
        if (wanted == SOFTWARE)
            MSIP = 1;
        else if (wanted == TIMER)
            set_timer(now() + 50);
        else if (wanted == TIMER_DONE)
            clear_csr(mip, 1 << STI);
        return;
    }
    switch (cause & 0xff) {
    case MSI:
        MSIP = 0;
        if (in_supervisor)
            set_csr(mip, 1 << SSI);
        break;
    case MTI:
        set_timer(NEVER);
        if (in_supervisor)
            set_csr(mip, 1 << STI);
        break;
    case MEI:
        source = serve(0, &byte);
        break;
    }
    tell('M', cause, pending, scratch, source, byte);
}

static void ask(u32 what)
{
    wanted = what;
    __asm__ volatile("ecall" ::: "memory");
    wanted = NOTHING;
}

__attribute__((used)) void supervisor_handle(uptr cause)
{
    u32 pending = read_csr(sip), scratch = read_csr(sscratch), source = 0, byte = 0;
    uptr epc = read_csr(sepc), status = read_csr(sstatus);
    write_csr(sscratch, 31);
    taken++;
    switch (cause & 0xff) {
    case SSI:
        clear_csr(sip, 1 << SSI);
        break;
    case STI:
        ask(TIMER_DONE);
        break;
    case SEI:
        source = serve(1, &byte);
        break;
    }
    tell('S', cause, pending, scratch, source, byte);
    write_csr(sepc, epc);
    write_csr(sstatus, status);
}

static void raise_uart(void)
{
    AT8(UART + 1) = 2; /* the transmitter is empty */
}

static void raise_rtc(void)
{
    AT32(RTC + 0x0c) = 0;
    AT32(RTC + 0x08) = 1; /* long ago */
    AT32(RTC + 0x10) = 1;
}

/* Three bytes come back to the receiver at once; interrupts are masked by the caller. */
static void raise_receiver(void)
{
    AT8(UART + 2) = 7;
    AT8(UART + 4) = 0x10;
    for (int i = 0; i < 3; i++)
        AT8(UART) = 'a' + i;
    AT8(UART + 4) = 0;
    AT8(UART + 1) = 1;
}

static void let_in(u32 context)
{
    AT32(PLIC + 4 * UART_SOURCE) = 2;
    AT32(PLIC + 4 * RTC_SOURCE) = 5;
    AT32(PLIC + 0x2000 + 0x80 * context) = 1 << UART_SOURCE | 1 << RTC_SOURCE;
    AT32(PLIC + 0x2080 - 0x80 * context) = 0;
    AT32(PLIC + 0x200000 + 0x1000 * context) = 1;
}

/* Both, raised while masked: by their priorities. */
#define BOTH(status, bit)                                                                                              \
    do {                                                                                                               \
        clear_csr(status, bit);                                                                                        \
        raise_uart();                                                                                                  \
        raise_rtc();                                                                                                   \
        set_csr(status, bit);                                                                                          \
        clear_csr(status, bit);                                                                                        \
        raise_receiver();                                                                                              \
        set_csr(status, bit);                                                                                          \
        AT8(UART + 1) = 0;                                                                                             \
        AT8(UART + 2) = 0;                                                                                             \
    } while (0)

/* Waits for one interrupt, with no gap between the look and the wait. */
#define UNTIL(count, status, bit)                                                                                      \
    do {                                                                                                               \
        clear_csr(status, bit);                                                                                        \
        while (taken < (count)) {                                                                                      \
            wait();                                                                                                    \
            set_csr(status, bit);                                                                                      \
            clear_csr(status, bit);                                                                                    \
        }                                                                                                              \
        set_csr(status, bit);                                                                                          \
    } while (0)

static void supervise(void)
{
    u32 before;
    in_supervisor = 1;
    write_csr(stvec, supervisor_entry);
    write_csr(sie, 1 << SSI | 1 << STI | 1 << SEI);
    set_csr(sstatus, 2);
    let_in(1);
    set_csr(sip, 1 << SSI);
    ask(SOFTWARE);
    for (u32 loop = 0; loop < LOOPS; loop++) {
        before = taken;
        clear_csr(sstatus, 2);
        ask(TIMER);
        UNTIL(before + 4, sstatus, 2); /* two calls, machine mode, supervisor mode */
        if (loop == LOOPS / 2)
            write_csr(stvec, supervisor_vectors + 1);
        raise_rtc();
        BOTH(sstatus, 2);
    }
    put_string("done\n");
    power_off(0);
}

int main(void)
{
    u32 before;
    write_csr(mscratch, 31);
    write_csr(sscratch, 31);
    write_csr(mtvec, machine_entry);
    tell('R', 0, read_csr(mip), 31, 0, 0); /* mtip is high out of reset */
    set_timer(NEVER);
    tell('R', 0, read_csr(mip), 31, 0, 0);
    write_csr(mie, 1 << MSI | 1 << MTI | 1 << MEI);
    let_in(0);
    set_csr(mstatus, 8);
    MSIP = 1;
    for (u32 loop = 0; loop < LOOPS; loop++) {
        before = taken;
        clear_csr(mstatus, 8);
        set_timer(now() + 50);
        UNTIL(before + 1, mstatus, 8);
        if (loop == LOOPS / 2)
            write_csr(mtvec, machine_vectors + 1);
        raise_rtc();
        BOTH(mstatus, 8);
        /* Raised at once, masked; QEMU takes an external one last, others first. */
        clear_csr(mie, 1 << MEI);
        clear_csr(mstatus, 8);
        set_timer(0);
        MSIP = 1;
        raise_uart();
        set_csr(mstatus, 8);
        set_csr(mie, 1 << MEI);
    }
    write_csr(pmpaddr0, ~(uptr)0);
    write_csr(pmpcfg0, 0x1f);
    write_csr(mideleg, 1 << SSI | 1 << STI | 1 << SEI);
    write_csr(mstatus, (read_csr(mstatus) & ~(uptr)0x1800) | 0x880);
    write_csr(mepc, supervise);
    __asm__ volatile("mret");
    return 1;
}
