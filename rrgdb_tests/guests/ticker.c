/* The guest of the debugging tests: known writers, known call counts, a place that is never reached.
 *
 * main() alternates work() and tick(), TICKS times. tick() is the only writer of tick_count, and work() the only
 * reader and writer of table. WORK sets the instructions of one round (about 10 * WORK).
 */
#include "guest.h"

#ifndef TICKS
#define TICKS 100
#endif
#ifndef WORK
#define WORK 10000
#endif
#define TABLE_WORDS 1024u

volatile u32 tick_count;
volatile u32 round_number;
volatile u32 mirror;
volatile u32 seed = 1;
u32 table[TABLE_WORDS];

HOT u32 work(u32 iterations)
{
    u32 x = seed;
    for (u32 i = 0; i < iterations; i++) {
        x = x * 1664525u + 1013904223u;
        table[x >> 22] += x ^ i;
    }
    seed = x;
    return x;
}

/* Shares work()'s page, so that a breakpoint here costs whoever treats pages and not addresses. */
HOT __attribute__((used)) void never(void)
{
    BARRIER();
}

/* For calls out of the debugger. */
NOINLINE __attribute__((used)) u32 square(u32 n)
{
    mirror = n;
    return n * n;
}

NOINLINE u32 leaf(u32 n)
{
    return n * 3u + seed;
}

NOINLINE u32 inner(u32 n)
{
    u32 sum = 0;
    for (u32 i = 0; i < 4; i++)
        sum += leaf(n + i);
    return sum;
}

NOINLINE u32 factorial(u32 n)
{
    if (n < 2)
        return 1;
    return n * factorial(n - 1);
}

NOINLINE void tick(void)
{
    u32 before = tick_count;
    u32 sum = inner(before);
    tick_count = before + 1; /* the store */
    if (tick_count % 10 == 0) {
        put_string("tick ");
        put_hex(tick_count);
        uart_putc(' ');
        put_hex(sum + factorial(6));
        uart_putc('\n');
    }
}

NOINLINE void at_half(void)
{
    BARRIER();
}

NOINLINE void at_end(void)
{
    BARRIER();
}

NOINLINE u32 look(void)
{
    u32 seen = tick_count; /* the load */
    return seen;
}

int main(void)
{
    put_string("ticker: start\n");
    for (u32 round = 1; round <= TICKS; round++) {
        round_number = round;
        work(WORK);
        tick();
        if (round == TICKS / 2)
            at_half();
    }
    put_checksum("ticker", mix(seed, look()));
    at_end();
    power_off(0);
}
