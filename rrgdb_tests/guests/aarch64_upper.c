/* Words at addresses that TTBR1 translates: written there, beneath them by another address, and while the page is mapped
 * elsewhere. At three quarters TTBR1 gets other tables. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 2400
#endif

typedef u64 table[512] __attribute__((aligned(4096)));

#define UPPER ((volatile u32 *)0xffffff8000000000)
#define TABLE 3
#define BLOCK 1
#define NORMAL (1 << 10 | 3 << 8) /* accessed, inner shareable */
#define SYSTEM(name, value) __asm__ volatile("msr " #name ", %0\n\tisb" : : "r"((u64)(value)) : "memory")

volatile u32 frames[3][1024] __attribute__((aligned(4096)));
static table lower, roots[2], middles[2], leaves[2];

static void forget(void)
{
    __asm__ volatile("dsb sy\n\ttlbi vmalle1\n\tdsb sy\n\tisb" : : : "memory");
}

static void map(u32 space, u32 page, u32 frame)
{
    leaves[space][page] = (u64)frames[frame] | NORMAL | 1ull << 53 | TABLE;
    forget();
}

int main(void)
{
    u32 sum = 0;
    for (u32 space = 0; space < 2; space++) {
        roots[space][0] = (u64)middles[space] | TABLE;
        middles[space][0] = (u64)leaves[space] | TABLE;
        map(space, 0, space);
        map(space, 1, 2 - space);
    }
    lower[1] = 0x40000000 | NORMAL | BLOCK;
    SYSTEM(mair_el1, 0xff);
    SYSTEM(tcr_el1, 25 | 1 << 8 | 1 << 10 | 3 << 12 | 25 << 16 | 1 << 24 | 1 << 26 | 3 << 28 | 2ull << 30);
    SYSTEM(ttbr0_el1, lower);
    SYSTEM(ttbr1_el1, roots[0]);
    forget();
    SYSTEM(sctlr_el1, 0x30d01805);
    for (u32 i = 0; i < LOOPS; i++) {
        UPPER[4] += i;
        if (i % 64 == 5)
            UPPER[16]++;
        if (i % 150 == 7)
            UPPER[1024 + 16] = i;
        if (i % 200 == 9)
            frames[1][32]++;
        if (i % 700 == 400)
            map(0, 1, 1);
        if (i % 700 == 650)
            map(0, 1, 2);
        if (i == LOOPS / 2)
            UPPER[48] = i;
        if (i == LOOPS / 4 * 3) {
            SYSTEM(ttbr1_el1, roots[1]);
            forget();
        }
        sum = mix(sum, UPPER[4]);
    }
    return sum & 15;
}
