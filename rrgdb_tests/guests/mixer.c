/* Mixes serial input and the wall clock into memory, until 'q' comes; `sum` is what has come of it. */
#include "guest.h"

#ifndef READ_CLOCK
#define READ_CLOCK 50 /* polls between two looks at the clock */
#endif

volatile u32 sum = 2166136261u;
volatile u32 received;
u32 table[4096];

#if defined(__riscv)
static u32 clock_read(void)
{
    return *(volatile u32 *)0x101000;
}
#elif defined(__aarch64__) || defined(__arm__)
static u32 clock_read(void)
{
    return *(volatile u32 *)0x9010000;
}
#else
static u32 clock_read(void)
{
    u8 seconds;
    __asm__ volatile("outb %b1, $0x70\n\tinb $0x71, %b0" : "=a"(seconds) : "0"((u8)0));
    return seconds;
}
#endif

NOINLINE void take(u32 value)
{
    sum = mix(sum, value);
    table[sum % 4096] += value;
}

int main(void)
{
    int c = 0;
    put_string("mixer: ready\n");
    for (u32 polls = 1; c != 'q'; polls++) {
        c = uart_poll();
        if (c >= 0) {
            received = received + 1;
            take((u32)c);
            uart_putc(c);
        }
        if (polls % READ_CLOCK == 0)
            take(clock_read());
    }
    put_checksum("mixer", sum);
    power_off(0);
}
