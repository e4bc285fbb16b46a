/* Sleeps NAPS times SECONDS, each time until its timer runs out, and mixes what the clock shows then into `sum`. `woken`
 * counts. */
#include "guest.h"

#ifndef SECONDS
#define SECONDS 3600
#endif
#ifndef NAPS
#define NAPS 3
#endif

u32 sum = 2166136261u;
volatile u32 woken;

#if defined(__riscv)
#define HZ 10000000u
static u32 read_word(uptr address)
{
    return *(volatile u32 *)address;
}

static u64 now(void)
{
    u32 high, low;
    do {
        high = read_word(0x0200bffc);
        low = read_word(0x0200bff8);
    } while (high != read_word(0x0200bffc));
    return (u64)high << 32 | low;
}

static void wake_at(u64 when)
{
    *(volatile u32 *)0x02004004 = ~0u;
    *(volatile u32 *)0x02004000 = (u32)when;
    *(volatile u32 *)0x02004004 = (u32)(when >> 32);
    __asm__ volatile("csrs mie, %0" : : "r"(1ul << 7));
}
#elif defined(__aarch64__)
#define HZ 62500000u
static u64 now(void)
{
    u64 value;
    __asm__ volatile("isb\n mrs %0, cntvct_el0" : "=r"(value));
    return value;
}

static void wake_at(u64 when)
{
    __asm__ volatile("msr cntv_cval_el0, %0\n msr cntv_ctl_el0, %1\n isb" : : "r"(when), "r"(1ul));
}
#else
#define HZ 62500000u
static u64 now(void)
{
    u64 value;
    __asm__ volatile("isb\n mrrc p15, 1, %Q0, %R0, c14" : "=r"(value));
    return value;
}

static void wake_at(u64 when)
{
    __asm__ volatile("mcrr p15, 3, %Q0, %R0, c14\n mcr p15, 0, %1, c14, c3, 1\n isb" : : "r"(when), "r"(1));
}
#endif

int main(void)
{
    for (u32 nap = 0; nap < NAPS; nap++) {
        u64 when = now() + (u64)SECONDS * HZ;
        wake_at(when);
        while (now() < when)
            __asm__ volatile("wfi");
        sum = mix(sum, (u32)(now() - when));
        woken++;
    }
    put_checksum("sleeper", sum);
    power_off(0);
}
