/* Reads its console both ways, by the UART and by semihosting, until 'q' comes by either; `sum` is what has come of it,
 * with the way and the order. */
#include "guest.h"

#ifndef SHARE
#define SHARE 3 /* looks at the UART for one by semihosting */
#endif

volatile u32 sum = 2166136261u;
volatile u32 by_uart, by_semihosting;

/* SYS_READC: a byte, or -1. */
static int semihosting_poll(void)
{
#if defined(__riscv)
    register uptr operation __asm__("a0") = 7;
    register uptr parameter __asm__("a1") = 0;
    __asm__ volatile(".4byte 0x01f01013, 0x00100073, 0x40705013" : "+r"(operation) : "r"(parameter) : "memory");
#elif defined(__aarch64__)
    register uptr operation __asm__("x0") = 7;
    register uptr parameter __asm__("x1") = 0;
    __asm__ volatile("hlt #0xf000" : "+r"(operation) : "r"(parameter) : "memory");
#elif defined(__thumb__)
    register uptr operation __asm__("r0") = 7;
    register uptr parameter __asm__("r1") = 0;
    __asm__ volatile("svc #0xab" : "+r"(operation) : "r"(parameter) : "memory");
#else
    register uptr operation __asm__("r0") = 7;
    register uptr parameter __asm__("r1") = 0;
    __asm__ volatile("svc #0x123456" : "+r"(operation) : "r"(parameter) : "memory");
#endif
    return (int)operation;
}

static void take(u32 way, int c)
{
    sum = mix(sum, way << 8 | (u32)c);
}

int main(void)
{
    int c = 0;
    put_string("consoles: ready\n");
    for (u32 turn = 1; c != 'q'; turn++) {
        if (turn % (SHARE + 1)) {
            c = uart_poll();
            if (c >= 0) {
                by_uart = by_uart + 1;
                take(1, c);
            }
        } else {
            c = semihosting_poll();
            if (c >= 0) {
                by_semihosting = by_semihosting + 1;
                take(2, c);
            }
        }
    }
    put_hex(by_uart);
    uart_putc(' ');
    put_hex(by_semihosting);
    uart_putc('\n');
    put_checksum("consoles", sum);
    power_off(0);
}
