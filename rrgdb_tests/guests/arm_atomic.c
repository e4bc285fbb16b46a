/* Exclusives in loops, of words and of pairs, exclusives that must fail; registers saved and loaded by the list. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 3000
#endif

static volatile u32 cell, other;
static volatile u64 pair;

static void add_exclusive(u32 value)
{
    u32 old, failed;
    do {
        __asm__ volatile("ldrex %0, [%2]\n\tadd %0, %0, %3\n\tstrex %1, %0, [%2]"
                         : "=&r"(old), "=&r"(failed)
                         : "r"(&cell), "r"(value)
                         : "memory");
    } while (failed);
}

static void swap_pair(u32 value)
{
    u32 failed;
    do {
        __asm__ volatile("ldrexd r2, r3, [%1]\n\t"
                         "mov r4, r3\n\t"
                         "add r5, r2, %2\n\t"
                         "strexd %0, r4, r5, [%1]"
                         : "=&r"(failed)
                         : "r"(&pair), "r"(value)
                         : "r2", "r3", "r4", "r5", "memory");
    } while (failed);
}

/* No monitor: after clrex, for a second store, and for another address. */
static u32 lost_reservations(u32 value)
{
    u32 old, cleared, first, second, third;
    __asm__ volatile("ldrex %0, [%5]\n\t"
                     "clrex\n\t"
                     "strex %1, %7, [%5]\n\t"
                     "ldrex %0, [%5]\n\t"
                     "strex %2, %7, [%5]\n\t"
                     "strex %3, %7, [%5]\n\t"
                     "ldrex %0, [%5]\n\t"
                     "strex %4, %7, [%6]"
                     : "=&r"(old), "=&r"(cleared), "=&r"(first), "=&r"(second), "=&r"(third)
                     : "r"(&cell), "r"(&other), "r"(value)
                     : "memory");
    return cleared | first << 1 | second << 2 | third << 3;
}

static u32 narrow(u32 value)
{
    u32 byte, half, failed;
    __asm__ volatile("ldrexb %0, [%3]\n\tadd %0, %0, %4\n\tstrexb %2, %0, [%3]\n\t"
                     "ldrexh %1, [%3]\n\tadd %1, %1, %4\n\tstrexh %2, %1, [%3]"
                     : "=&r"(byte), "=&r"(half), "=&r"(failed)
                     : "r"(&cell), "r"(value)
                     : "memory");
    return mix(byte, half) + failed;
}

static u32 lists(u32 value)
{
    u32 area[12], sum = 0, top;
    for (u32 i = 0; i < 12; i++)
        area[i] = value + i;
    __asm__ volatile("push {r4-r7}\n\t"
                     "ldmia %1, {r4-r7}\n\t"
                     "stmdb %2, {r4-r7}\n\t"
                     "ldrd r4, r5, [%1, #8]\n\t"
                     "strd r4, r5, [%1]\n\t"
                     "push {r4, r6}\n\t"
                     "pop {r5, r7}\n\t"
                     "add %0, r5, r7\n\t"
                     "pop {r4-r7}"
                     : "=&r"(top)
                     : "r"(area), "r"(area + 10)
                     : "memory");
    for (u32 i = 0; i < 12; i++)
        sum = mix(sum, area[i]);
    return sum + top;
}

int main(void)
{
    u32 sum = 2166136261u;
    for (u32 loop = 0; loop < LOOPS; loop++) {
        u32 value = sum * 2654435761u;
        add_exclusive(value);
        swap_pair(value);
        sum = mix(sum, cell + (u32)pair + (u32)(pair >> 32));
        sum = mix(sum, lost_reservations(value));
        sum = mix(sum, narrow(value));
        sum = mix(sum, lists(sum));
    }
    put_checksum("arm_atomic", sum);
    power_off(0);
}
