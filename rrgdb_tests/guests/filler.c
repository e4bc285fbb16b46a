/* Fills RAM: MEGABYTES of it from 16 MiB on, eight words a page, with numbers (ZEROS: with zeros). Then ROUNDS times it
 * touches the first TOUCHED pages. `sum` is what it read there, `rounds` counts. */
#include "guest.h"

#ifndef MEGABYTES
#define MEGABYTES 8
#endif
#ifndef ROUNDS
#define ROUNDS 100
#endif
#ifndef TOUCHED
#define TOUCHED 200
#endif
#ifndef ZEROS
#define ZEROS 0
#endif

#if defined(__riscv)
#define FIRST 0x81000000ul
#else
#define FIRST 0x41000000ul
#endif
#define PAGE 4096ul
#define APART 512ul

u32 sum = 2166136261u;
volatile u32 rounds;

static volatile u64 *word(uptr offset)
{
    return (volatile u64 *)(FIRST + offset);
}

NOINLINE void fill(void)
{
    for (uptr at = 0; at < (uptr)MEGABYTES << 20; at += APART)
        *word(at) = ZEROS ? 0 : (at + 1) * 0x9e3779b97f4a7c15ull;
}

NOINLINE void touch(u32 round)
{
    for (u32 page = 0; page < TOUCHED; page++) {
        u64 value = *word(page * PAGE);
        sum = mix(sum, (u32)value);
        *word(page * PAGE) = ZEROS ? 0 : value + round;
    }
}

int main(void)
{
    fill();
    for (u32 round = 1; round <= ROUNDS; round++) {
        touch(round);
        rounds = round;
    }
    put_checksum("filler", sum);
    power_off(0);
}
