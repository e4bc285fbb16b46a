/* LR/SC loops, reservations that must fail, and every AMO of the width. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 3000
#endif

static volatile uptr cell, other;

static void add_by_reservation(uptr value)
{
    uptr old, failed;
    do {
#if __riscv_xlen == 64
        __asm__ volatile("lr.d.aq %0, (%2)\n\tadd %0, %0, %3\n\tsc.d.rl %1, %0, (%2)"
#else
        __asm__ volatile("lr.w.aq %0, (%2)\n\tadd %0, %0, %3\n\tsc.w.rl %1, %0, (%2)"
#endif
                         : "=&r"(old), "=&r"(failed)
                         : "r"(&cell), "r"(value)
                         : "memory");
    } while (failed);
}

/* A second store-conditional has no reservation left; one to another address never had it. */
static uptr lost_reservations(uptr value)
{
    uptr old, first, second, third;
    __asm__ volatile("lr.w %0, (%4)\n\t"
                     "sc.w %1, %6, (%4)\n\t"
                     "sc.w %2, %6, (%4)\n\t"
                     "lr.w %0, (%4)\n\t"
                     "sc.w %3, %6, (%5)"
                     : "=&r"(old), "=&r"(first), "=&r"(second), "=&r"(third)
                     : "r"(&cell), "r"(&other), "r"(value)
                     : "memory");
    return (first ? 1 : 0) | (second ? 2 : 0) | (third ? 4 : 0);
}

#define AMO(name, width, value)                                                                                        \
    ({                                                                                                                 \
        uptr amo_old;                                                                                                  \
        __asm__ volatile(#name "." #width " %0, %2, (%1)" : "=r"(amo_old) : "r"(&cell), "r"(value) : "memory");        \
        amo_old;                                                                                                       \
    })

#define ALL_AMOS(width, value)                                                                                         \
    do {                                                                                                               \
        sum = mix(sum, (u32)AMO(amoadd, width, value));                                                                \
        sum = mix(sum, (u32)AMO(amoxor, width, value));                                                                \
        sum = mix(sum, (u32)AMO(amoor, width, value));                                                                 \
        sum = mix(sum, (u32)AMO(amoand, width, ~(value)));                                                             \
        sum = mix(sum, (u32)AMO(amomin, width, value));                                                                \
        sum = mix(sum, (u32)AMO(amomaxu, width, value));                                                               \
        sum = mix(sum, (u32)AMO(amomax, width, value));                                                                \
        sum = mix(sum, (u32)AMO(amominu, width, value));                                                               \
        sum = mix(sum, (u32)AMO(amoswap, width, value));                                                               \
    } while (0)

int main(void)
{
    u32 sum = 2166136261u;
    for (u32 loop = 0; loop < LOOPS; loop++) {
        uptr value = sum * 2654435761u;
        add_by_reservation(value);
        sum = mix(sum, (u32)cell);
        sum = mix(sum, (u32)lost_reservations(value));
        ALL_AMOS(w, value);
#if __riscv_xlen == 64
        ALL_AMOS(d, value);
#endif
    }
    put_checksum("riscv_atomic", sum);
    power_off(0);
}
