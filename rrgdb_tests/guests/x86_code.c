/* Self-modifying code: of a routine called later, of the next instruction in the same block, by REP STOS over the
 * code that runs on, and of an instruction that lies across two pages. x86 needs no barrier for any of it. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 500
#endif

static u8 code[2 * 4096] __attribute__((aligned(4096), section(".text.patched")));

typedef u32 (*routine)(void);

/* mov $value, %eax; ret */
static routine write_routine(u8 *at, u32 value)
{
    at[0] = 0xb8;
    at[1] = (u8)value, at[2] = (u8)(value >> 8), at[3] = (u8)(value >> 16), at[4] = (u8)(value >> 24);
    at[5] = 0xc3;
    return (routine)at;
}

/* The store changes the immediate of the instruction that comes two later. */
NOINLINE u32 patch_same_block(u32 value)
{
    u32 result;
    __asm__ volatile("movl %1, 1f+1\n\t"
                     "nop\n"
                     "1:\tmovl $0x11111111, %%eax\n\t"
                     "movl %%eax, %0"
                     : "=r"(result)
                     : "r"(value)
                     : "eax", "memory");
    return result;
}

/* A backward jump to an `inc` that the loop itself turns into a `dec`, and back. */
NOINLINE u32 patch_loop(u32 count)
{
    u32 value = 1000;
    __asm__ volatile("1:\tlea (%0), %0\n"
                     "2:\t.byte 0x83, 0xc0, 0x01\n\t" /* add $1, %eax */
                     "xorb $0x28, 2b+1\n\t"           /* c0: add, e8: sub */
                     "dec %1\n\t"
                     "jnz 1b\n\t"
                     "movb $0xc0, 2b+1"
                     : "+a"(value), "+c"(count)::"memory", "cc");
    return value;
}

/* REP STOSB fills the bytes behind itself with `inc %edx` (ff c2 pairs come from a word store). */
NOINLINE u32 patch_by_rep(u32 words)
{
    u32 result = 0;
    __asm__ volatile("mov $2f, %%edi\n\t"
                     "mov $0xc2ff, %%eax\n\t"
                     "rep stosw\n"
                     "2:\t.rept 16\n\t"
                     ".byte 0x66, 0x90\n\t"
                     ".endr\n\t"
                     "mov $2b, %%edi\n\t"
                     "mov $0x9066, %%eax\n\t"
                     "mov $16, %%ecx\n\t"
                     "rep stosw"
                     : "+d"(result), "+c"(words)::"eax", "edi", "memory", "cc");
    return result;
}

int main(void)
{
    u32 sum = 2166136261u;
    for (u32 loop = 0; loop < LOOPS; loop++) {
        routine near = write_routine(code + 16 * (loop % 8), sum);
        sum = mix(sum, near());
        sum = mix(sum, patch_same_block(loop * 0x01010101u));
        sum = mix(sum, patch_loop(loop % 5 + 1));
        sum = mix(sum, patch_by_rep(loop % 17));
        routine across = write_routine(code + 4096 - 1 - loop % 5, loop);
        sum = mix(sum, across());
    }
    put_checksum("x86_code", sum);
    power_off(0);
}
