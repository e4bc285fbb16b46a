/* Sleeps, and does everything in interrupts: echoes what comes by the UART, and for each line reads the next sector of a
 * virtio disk (of either version of the registers) and prints its first word; `q` ends it. `sum` is what has come of it,
 * `echoed` and `sectors` count. */
#include "guest.h"

#if defined(__riscv)
#define FIRST_SLOT 0x10001000ul
#define STRIDE 0x1000ul
#define SLOTS 8
#define SLOT_LINE 1u /* PLIC source */
#define UART_LINE 10u
#else
#define FIRST_SLOT 0x0a000000ul
#define STRIDE 0x200ul
#define SLOTS 32
#define SLOT_LINE 48u /* GIC interrupt */
#define UART_LINE 33u
#endif
#define QUEUE 8

struct descriptor {
    u64 address;
    u32 length;
    u16 flags, next;
};

static struct {
    struct descriptor table[QUEUE];
    struct {
        u16 flags, index, ring[QUEUE];
    } available;
    struct {
        u16 flags, index;
        struct {
            u32 head, length;
        } ring[QUEUE];
    } used __attribute__((aligned(4096)));
} queue __attribute__((aligned(4096)));

static struct {
    u32 type, reserved;
    u64 sector;
} header;
static u32 buffer[128];
static volatile u8 status;
static uptr slot;
static u32 disk_line;
volatile u32 sum = 2166136261u;
volatile u32 echoed, sectors, done;

static volatile u32 *word(uptr address)
{
    return (volatile u32 *)address;
}

#if defined(__riscv)
__asm__(".text\n"
        ".balign 4\n"
        "trap_entry:\n"
        " addi sp, sp, -128\n"
        " sd ra, 0(sp)\n sd t0, 8(sp)\n sd t1, 16(sp)\n sd t2, 24(sp)\n sd t3, 32(sp)\n sd t4, 40(sp)\n"
        " sd t5, 48(sp)\n sd t6, 56(sp)\n sd a0, 64(sp)\n sd a1, 72(sp)\n sd a2, 80(sp)\n sd a3, 88(sp)\n"
        " sd a4, 96(sp)\n sd a5, 104(sp)\n sd a6, 112(sp)\n sd a7, 120(sp)\n"
        " call handle\n"
        " ld ra, 0(sp)\n ld t0, 8(sp)\n ld t1, 16(sp)\n ld t2, 24(sp)\n ld t3, 32(sp)\n ld t4, 40(sp)\n"
        " ld t5, 48(sp)\n ld t6, 56(sp)\n ld a0, 64(sp)\n ld a1, 72(sp)\n ld a2, 80(sp)\n ld a3, 88(sp)\n"
        " ld a4, 96(sp)\n ld a5, 104(sp)\n ld a6, 112(sp)\n ld a7, 120(sp)\n"
        " addi sp, sp, 128\n"
        " mret\n");
extern char trap_entry[];

static void enable(u32 line)
{
    *word(0x0c000000 + 4 * line) = 1;
    *word(0x0c002000) |= 1u << line;
}

static void begin(void)
{
    volatile u8 *uart = (volatile u8 *)0x10000000;
    __asm__ volatile("csrw mtvec, %0" : : "r"(trap_entry));
    *word(0x0c200000) = 0;
    uart[2] = 0xc1; /* FIFOs; a line of fewer than 14 characters comes by the time-out */
    uart[1] = 1;
    __asm__ volatile("csrw mie, %0\n\tcsrsi mstatus, 8" : : "r"(0x800));
}

static u32 claim(void)
{
    return *word(0x0c200004);
}

static void complete(u32 line)
{
    *word(0x0c200004) = line;
}
#else
__asm__(".text\n"
        ".balign 2048\n"
        "vectors:\n"
        " .rept 5\n b .\n .balign 128\n .endr\n"
        " stp x0, x1, [sp, #-192]!\n stp x2, x3, [sp, #16]\n stp x4, x5, [sp, #32]\n stp x6, x7, [sp, #48]\n"
        " stp x8, x9, [sp, #64]\n stp x10, x11, [sp, #80]\n stp x12, x13, [sp, #96]\n stp x14, x15, [sp, #112]\n"
        " stp x16, x17, [sp, #128]\n stp x18, x29, [sp, #144]\n str x30, [sp, #160]\n"
        " bl handle\n"
        " ldp x2, x3, [sp, #16]\n ldp x4, x5, [sp, #32]\n ldp x6, x7, [sp, #48]\n"
        " ldp x8, x9, [sp, #64]\n ldp x10, x11, [sp, #80]\n ldp x12, x13, [sp, #96]\n ldp x14, x15, [sp, #112]\n"
        " ldp x16, x17, [sp, #128]\n ldp x18, x29, [sp, #144]\n ldr x30, [sp, #160]\n ldp x0, x1, [sp], #192\n"
        " eret\n"
        " .balign 128\n"
        " .rept 10\n b .\n .balign 128\n .endr\n");
extern char vectors[];

static void enable(u32 line)
{
    ((volatile u8 *)0x08000800)[line] = 1; /* its target */
    *word(0x08000100 + line / 32 * 4) = 1u << (line % 32);
}

static void begin(void)
{
    __asm__ volatile("msr vbar_el1, %0\n\tisb" : : "r"(vectors));
    *word(0x08000000) = 1;
    *word(0x08010004) = 0xf0;
    *word(0x08010000) = 1;
    *word(0x0900002c) = 0x70; /* 8 bits, FIFOs */
    *word(0x09000030) = 0x301;
    *word(0x09000038) = 0x10; /* received */
    __asm__ volatile("msr daifclr, #2");
}

static u32 claim(void)
{
    u32 line = *word(0x0801000c);
    return line == 1023 ? 0 : line;
}

static void complete(u32 line)
{
    *word(0x08010010) = line;
}
#endif

static void set_address(u32 offset, const volatile void *address)
{
    u64 value = (uptr)address;
    *word(slot + offset) = (u32)value;
    *word(slot + offset + 4) = (u32)(value >> 32);
}

static void set_up(void)
{
    *word(slot + 0x70) = 0;
    *word(slot + 0x70) = 3;
    *word(slot + 0x24) = 0;
    *word(slot + 0x20) = 0;
    if (*word(slot + 4) == 1) {
        *word(slot + 0x28) = 4096;
        *word(slot + 0x30) = 0;
        *word(slot + 0x38) = QUEUE;
        *word(slot + 0x3c) = 4096;
        *word(slot + 0x40) = (u32)((uptr)&queue >> 12);
        *word(slot + 0x70) = 7;
        return;
    }
    *word(slot + 0x24) = 1;
    *word(slot + 0x20) = 1;
    *word(slot + 0x70) = 11;
    *word(slot + 0x30) = 0;
    *word(slot + 0x38) = QUEUE;
    set_address(0x80, queue.table);
    set_address(0x90, &queue.available);
    set_address(0xa0, &queue.used);
    *word(slot + 0x44) = 1;
    *word(slot + 0x70) = 15;
}

static void read_sector(void)
{
    header.sector = sectors;
    status = 0xff;
    queue.table[0] = (struct descriptor){(uptr)&header, 16, 1, 1};
    queue.table[1] = (struct descriptor){(uptr)buffer, sizeof buffer, 3, 2};
    queue.table[2] = (struct descriptor){(uptr)&status, 1, 2, 0};
    queue.available.ring[queue.available.index % QUEUE] = 0;
    __sync_synchronize();
    queue.available.index++;
    __sync_synchronize();
    *word(slot + 0x50) = 0; /* the notification */
}

NOINLINE void sector_has_come(void)
{
    *word(slot + 0x64) = *word(slot + 0x60);
    sectors++;
    sum = mix(mix(sum, status), buffer[0]);
    put_hex(buffer[0]); /* the sector */
    uart_putc('\n');
}

__attribute__((used)) void handle(void)
{
    u32 line;
    while ((line = claim()) != 0) {
        if (line == UART_LINE) {
            int c;
            while ((c = uart_poll()) >= 0) {
                echoed++; /* the character */
                sum = mix(sum, (u32)c);
                uart_putc(c);
                if (c == '\n' && slot)
                    read_sector();
                if (c == 'q')
                    done = 1;
            }
        } else if (line == disk_line) {
            sector_has_come();
        }
        complete(line);
    }
}

int main(void)
{
    for (u32 i = SLOTS; i-- > 0 && !slot;)
        if (*word(FIRST_SLOT + i * STRIDE + 8) == 2) {
            slot = FIRST_SLOT + i * STRIDE;
            disk_line = SLOT_LINE + i;
            set_up();
            enable(disk_line);
        }
    enable(UART_LINE);
    begin();
    put_string("ready\n");
    while (!done)
        __asm__ volatile("wfi");
    put_checksum("interrupts", sum);
    return 0;
}
