/* Echoes serial input, upper-cased, until 'q'; `received` counts the bytes. */
#include "guest.h"

volatile u32 received;
volatile u32 polls;

NOINLINE void take(int c)
{
    received = received + 1;
    uart_putc(c >= 'a' && c <= 'z' ? c - 32 : c);
}

int main(void)
{
    int c;
    put_string("echo: ready\n");
    do {
        while ((c = uart_poll()) < 0)
            polls = polls + 1;
        take(c);
    } while (c != 'q');
    uart_putc('\n');
    power_off(0);
}
