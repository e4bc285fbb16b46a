/* Words at addresses that are mapped as global in two address spaces: written there, beneath them by another address and
 * in machine mode, and while the page is mapped elsewhere. Another page is each space's own; that of the first one is written
 * beneath its address as well, whichever is in use. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 2400
#endif

typedef u64 table[512] __attribute__((aligned(4096)));

#define UPPER ((volatile u32 *)0xffffffc000000000)
#define OWN ((volatile u32 *)0x0000000040000000)
#define TABLE 1
#define LEAF 0xc7 /* valid, read, write, accessed, dirty */
#define GLOBAL 0x20
#define ENTRY(target, flags) ((u64)(uptr)(target) >> 12 << 10 | (flags))
#define write_csr(name, value) __asm__ volatile("csrw " #name ", %0" : : "r"((uptr)(value)) : "memory")

volatile u32 frames[4][1024] __attribute__((aligned(4096)));
static table roots[2], middle, leaf, own_middles[2], own_leaves[2];

static void map(u32 page, u32 frame)
{
    leaf[page] = ENTRY(frames[frame], LEAF | GLOBAL);
    __asm__ volatile("sfence.vma" : : : "memory");
}

static void use(u32 space)
{
    write_csr(satp, 8ull << 60 | (uptr)roots[space] >> 12);
    __asm__ volatile("sfence.vma" : : : "memory");
}

/* Machine mode adds to a word, by its physical address. */
__asm__(".text\n.balign 4\n.globl machine\nmachine:\n"
        " la t0, frames + 4 * 20\n lw t1, 0(t0)\n addi t1, t1, 1\n sw t1, 0(t0)\n"
        " csrr t0, mepc\n addi t0, t0, 4\n csrw mepc, t0\n mret\n");
extern char machine[];

int main(void)
{
    u32 sum = 0;
    for (u32 space = 0; space < 2; space++) {
        roots[space][0] = ENTRY(0, LEAF); /* devices */
        roots[space][2] = ENTRY(0x80000000, LEAF | 8);
        roots[space][256] = ENTRY(middle, TABLE);
        roots[space][1] = ENTRY(own_middles[space], TABLE);
        own_middles[space][0] = ENTRY(own_leaves[space], TABLE);
        own_leaves[space][0] = ENTRY(frames[2 + space], LEAF);
    }
    middle[0] = ENTRY(leaf, TABLE);
    map(0, 0);
    map(1, 1);
    write_csr(mtvec, machine);
    write_csr(pmpaddr0, ~(uptr)0);
    write_csr(pmpcfg0, 0x1f);
    use(0);
    __asm__ volatile("csrc mstatus, %0\n\tcsrs mstatus, %1\n\tla t0, 1f\n\tcsrw mepc, t0\n\tmret\n1:"
                     : : "r"(3 << 11), "r"(1 << 11 | 1 << 13) : "t0", "memory");
    for (u32 i = 0; i < LOOPS; i++) {
        UPPER[4] += i;
        OWN[4] += i;
        if (i % 64 == 5)
            UPPER[16]++;
        if (i % 150 == 7)
            UPPER[1024 + 16] = i;
        if (i % 200 == 9)
            frames[1][32]++;
        if (i % 180 == 13)
            frames[2][16]++;
        if (i % 300 == 11)
            __asm__ volatile("ecall" : : : "t0", "t1", "memory");
        if (i % 700 == 400)
            map(1, 3);
        if (i % 700 == 650)
            map(1, 1);
        if (i % 256 == 100)
            use(i >> 8 & 1);
        if (i == LOOPS / 2)
            UPPER[48] = i;
        sum = mix(sum, UPPER[4]);
    }
    return sum & 15;
}
