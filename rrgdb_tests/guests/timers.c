/* Sets the timers of the device `Toy` of the tests, and mixes what they bring into `sum`, LOOPS times. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 300
#endif
#ifndef PERIOD
#define PERIOD 97 /* virtual nanoseconds from one tick to the next */
#endif

volatile u32 ticked[16]; /* the device writes here: number and time of the last tick, and what follows from those before */
u32 sum = 2166136261u;

#if defined(__riscv)
#define TOY 0x10202000
static u32 counter(void)
{
    u32 value;
    __asm__ volatile("rdcycle %0" : "=r"(value));
    return value;
}
#elif defined(__aarch64__)
#define TOY 0x0b003000
static u32 counter(void)
{
    u64 value;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
    return (u32)value;
}
#elif defined(__arm__)
#define TOY 0x0b003000
static u32 counter(void)
{
    u32 low, high;
    __asm__ volatile("mrrc p15, 1, %0, %1, c14" : "=r"(low), "=r"(high));
    return low;
}
#else
#define TOY 0xeb0
static u32 counter(void)
{
    u32 low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return low;
}
#endif

static void toy_write(u32 offset, u32 value)
{
#if defined(__i386__) || defined(__x86_64__)
    __asm__ volatile("outl %0, %w1" : : "a"(value), "d"(TOY + offset));
#else
    *(volatile u32 *)(uptr)(TOY + offset) = value;
#endif
}

int main(void)
{
    toy_write(4, (u32)(uptr)ticked);
    toy_write(0, PERIOD);
    for (u32 i = 0; i < LOOPS; i++) {
        sum = mix(sum, ticked[i % 16]);
        if (i % 5 == 0)
            sum = mix(sum, counter());
        if (i % 32 == 31)
            toy_write(8, 0);
        if (i % 64 == 50)
            toy_write(0, PERIOD + i);
    }
    put_checksum("timers", sum);
    power_off(0);
}
