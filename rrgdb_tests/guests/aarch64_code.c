/* Code that changes itself, with the cache maintenance of the architecture and without any; DC ZVA, pairs and
 * unaligned accesses across pages. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 400
#endif

static u32 code[1024] __attribute__((aligned(4096), section(".text.patched")));
static u8 area[3 * 4096] __attribute__((aligned(4096)));

typedef u64 (*routine)(u64);

static void synchronise(void *at)
{
    __asm__ volatile("dc cvau, %0\n\tdsb ish\n\tic ivau, %0\n\tdsb ish\n\tisb" : : "r"(at) : "memory");
}

/* add x0, x0, #value */
static u32 encode_add(u32 value)
{
    return 0x91000000u | (value & 0xfff) << 10;
}

static routine write_routine(u32 *at, u32 value)
{
    at[0] = encode_add(value);
    at[1] = 0xd65f03c0; /* ret */
    return (routine)at;
}

/* Stores the instruction behind the barriers, all in one straight line. */
NOINLINE u64 patch_straight(u32 value)
{
    register u64 result __asm__("x0") = 0;
    register u32 instruction __asm__("x1") = encode_add(value);
    __asm__ volatile("adr x2, 1f\n\t"
                     "str %w1, [x2]\n\t"
                     "dc cvau, x2\n\t"
                     "dsb ish\n\t"
                     "ic ivau, x2\n\t"
                     "dsb ish\n\t"
                     "isb\n"
                     "1:\tadd %0, %0, #0"
                     : "+r"(result)
                     : "r"(instruction)
                     : "x2", "memory");
    return result;
}

/* Without barriers: old or new instruction, but the same one whenever it is repeated. */
NOINLINE u64 patch_without_barrier(u32 value)
{
    register u64 result __asm__("x0") = 0;
    register u32 instruction __asm__("x1") = encode_add(value);
    __asm__ volatile("adr x2, 1f\n\t"
                     "str %w1, [x2]\n"
                     "1:\tadd %0, %0, #0"
                     : "+r"(result)
                     : "r"(instruction)
                     : "x2", "memory");
    return result;
}

/* A loop whose body replaces itself. */
NOINLINE u64 patch_loop(u64 count)
{
    u64 value = 0;
    __asm__ volatile("adr x2, 1f\n"
                     "1:\tadd %0, %0, #1\n\t"
                     "ldr w3, [x2]\n\t"
                     "eor w3, w3, #0xc00\n\t" /* immediate 1 <-> 2 */
                     "str w3, [x2]\n\t"
                     "subs %1, %1, #1\n\t"
                     "b.ne 1b"
                     : "+r"(value), "+r"(count)::"x2", "x3", "memory", "cc");
    return value;
}

static u32 across_pages(u32 value)
{
    u8 *edge = area + 4096;
    u64 first, second, odd;
    __asm__ volatile("stp %3, %4, [%5, #-8]\n\t"
                     "ldp %1, %0, [%5, #-8]\n\t"
                     "stur %3, [%5, #-3]\n\t"
                     "ldur %2, [%5, #-5]"
                     : "=&r"(first), "=&r"(second), "=&r"(odd)
                     : "r"((u64)value * 3), "r"((u64)value << 20), "r"(edge)
                     : "memory");
    return mix(mix((u32)first, (u32)(second >> 16)), (u32)odd);
}

static u32 zero_block(u32 offset)
{
    u64 size;
    u32 sum = 0;
    __asm__("mrs %0, dczid_el0" : "=r"(size));
    if (size & 16)
        return 0;
    size = 4ull << (size & 15);
    u8 *block = area + 8192 + offset % 16 * size;
    for (u64 i = 0; i < size; i++)
        block[i] = (u8)(i + offset);
    __asm__ volatile("dc zva, %0" : : "r"(block + offset % size) : "memory");
    for (u64 i = 0; i < size; i++)
        sum += block[i];
    return sum;
}

int main(void)
{
    u32 sum = 2166136261u, unsure = sum;
    for (u32 loop = 0; loop < LOOPS; loop++) {
        u32 *at = code + loop % 64 * 2;
        routine near = write_routine(at, loop);
        synchronise(at);
        sum = mix(sum, (u32)near(sum));
        sum = mix(sum, (u32)patch_straight(loop));
        unsure = mix(unsure, (u32)patch_without_barrier(loop));
        unsure = mix(unsure, (u32)patch_loop(loop % 6 + 1));
        sum = mix(sum, across_pages(sum));
        sum = mix(sum, zero_block(loop));
    }
    put_checksum("aarch64_code", sum);
    put_checksum("aarch64_code without barriers", unsure); /* the architecture does not say */
    power_off(0);
}
