/* Exclusives in loops, pairs, exclusives that must fail, and LSE atomics where the CPU has them. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 3000
#endif

static volatile u64 cell, other;
static volatile u64 pair[2] __attribute__((aligned(16)));

static void add_exclusive(u64 value)
{
    u64 old;
    u32 failed;
    do {
        __asm__ volatile("ldaxr %0, [%2]\n\tadd %0, %0, %3\n\tstlxr %w1, %0, [%2]"
                         : "=&r"(old), "=&r"(failed)
                         : "r"(&cell), "r"(value)
                         : "memory");
    } while (failed);
}

static void swap_pair(u64 value)
{
    u64 low, high;
    u32 failed;
    do {
        __asm__ volatile("ldxp %0, %1, [%3]\n\tadd %0, %0, %4\n\tstxp %w2, %1, %0, [%3]"
                         : "=&r"(low), "=&r"(high), "=&r"(failed)
                         : "r"(pair), "r"(value)
                         : "memory");
    } while (failed);
}

/* No monitor: after clrex, for a second store, and for another address. */
static u32 lost_reservations(u32 value)
{
    u32 old, cleared, first, second, third;
    __asm__ volatile("ldxr %w0, [%5]\n\t"
                     "clrex\n\t"
                     "stxr %w1, %w7, [%5]\n\t"
                     "ldxr %w0, [%5]\n\t"
                     "stxr %w2, %w7, [%5]\n\t"
                     "stxr %w3, %w7, [%5]\n\t"
                     "ldxr %w0, [%5]\n\t"
                     "stxr %w4, %w7, [%6]"
                     : "=&r"(old), "=&r"(cleared), "=&r"(first), "=&r"(second), "=&r"(third)
                     : "r"(&cell), "r"(&other), "r"(value)
                     : "memory");
    return cleared | first << 1 | second << 2 | third << 3;
}

static u32 lse(u64 value)
{
    u64 old, expected = cell ^ (value & 1);
    u32 sum = 0;
    __asm__ volatile(".arch_extension lse\n\tldaddal %1, %0, [%2]" : "=r"(old) : "r"(value), "r"(&cell) : "memory");
    sum = mix(sum, (u32)old);
    __asm__ volatile("casal %0, %1, [%2]" : "+r"(expected) : "r"(value), "r"(&cell) : "memory");
    sum = mix(sum, (u32)expected);
    __asm__ volatile("swp %1, %0, [%2]" : "=r"(old) : "r"(value), "r"(&cell) : "memory");
    return mix(sum, (u32)old);
}

int main(void)
{
    u32 sum = 2166136261u;
    u64 features;
    __asm__("mrs %0, id_aa64isar0_el1" : "=r"(features));
    for (u32 loop = 0; loop < LOOPS; loop++) {
        u64 value = sum * 2654435761ull;
        add_exclusive(value);
        swap_pair(value);
        sum = mix(sum, (u32)(cell + pair[0]));
        sum = mix(sum, lost_reservations((u32)value));
        if ((features >> 20 & 15) >= 2)
            sum = mix(sum, lse(value));
    }
    put_checksum("aarch64_atomic", sum);
    power_off(0);
}
