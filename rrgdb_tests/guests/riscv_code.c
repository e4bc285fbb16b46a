/* Code that changes itself: with FENCE.I behind a call, with FENCE.I in the same straight line, and without it;
 * two-byte and four-byte instructions mixed, and one that lies across two pages. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 400
#endif

static u16 code[2 * 2048] __attribute__((aligned(4096), section(".text.patched")));

typedef uptr (*routine)(uptr);

#define FENCE_I() __asm__ volatile("fence.i" ::: "memory")

/* addi a0, a0, value */
static u32 encode_addi(u32 value)
{
    return 0x00050513u | (value & 0x7ff) << 20;
}

/* addi a0, a0, value (4 bytes); c.addi a0, 1 (2 bytes); ret (2 bytes) */
static routine write_routine(u16 *at, u32 value)
{
    u32 addi = encode_addi(value);
    at[0] = (u16)addi;
    at[1] = (u16)(addi >> 16);
    at[2] = 0x0505;
    at[3] = 0x8082;
    return (routine)at;
}

/* Stores a new immediate into the instruction behind the fence, all in one straight line. */
NOINLINE uptr patch_straight(u32 value)
{
    register uptr result __asm__("a0") = 0;
    register u32 instruction __asm__("a1") = encode_addi(value);
    __asm__ volatile(".option push\n\t.option norvc\n\t"
                     "la t0, 1f\n\t"
                     "sw %1, 0(t0)\n\t"
                     "fence.i\n"
                     "1:\taddi %0, %0, 0\n\t"
                     ".option pop"
                     : "+r"(result)
                     : "r"(instruction)
                     : "t0", "memory");
    return result;
}

/* The same without the fence: old or new instruction, but the same one whenever it is repeated. */
NOINLINE uptr patch_without_fence(u32 value)
{
    register uptr result __asm__("a0") = 0;
    register u32 instruction __asm__("a1") = encode_addi(value);
    __asm__ volatile(".option push\n\t.option norvc\n\t"
                     "la t0, 1f\n\t"
                     "sw %1, 0(t0)\n"
                     "1:\taddi %0, %0, 0\n\t"
                     ".option pop"
                     : "+r"(result)
                     : "r"(instruction)
                     : "t0", "memory");
    return result;
}

/* A loop whose body replaces itself, so that the stale block is never left by a call. */
NOINLINE uptr patch_loop(uptr count)
{
    uptr value = 0;
    __asm__ volatile(".option push\n\t.option norvc\n\t"
                     "la t0, 1f\n"
                     "1:\taddi %0, %0, 1\n\t"
                     "lw t1, 0(t0)\n\t"
                     "li t2, 0x00300000\n\t" /* immediate 1 <-> 2 */
                     "xor t1, t1, t2\n\t"
                     "sw t1, 0(t0)\n\t"
                     "addi %1, %1, -1\n\t"
                     "bnez %1, 1b\n\t"
                     ".option pop"
                     : "+r"(value), "+r"(count)::"t0", "t1", "t2", "memory");
    return value;
}

int main(void)
{
    u32 sum = 2166136261u, unsure = sum;
    for (u32 loop = 0; loop < LOOPS; loop++) {
        routine near = write_routine(code + loop % 32, loop);
        FENCE_I();
        sum = mix(sum, (u32)near(sum));
        routine across = write_routine(code + 2047, loop * 5);
        FENCE_I();
        sum = mix(sum, (u32)across(loop));
        sum = mix(sum, (u32)patch_straight(loop));
        unsure = mix(unsure, (u32)patch_without_fence(loop));
        unsure = mix(unsure, (u32)patch_loop(loop % 6 + 1));
        sum = mix(sum, loop);
    }
    put_checksum("riscv_code", sum);
    put_checksum("riscv_code without barriers", unsure); /* the architecture does not say */
    power_off(0);
}
