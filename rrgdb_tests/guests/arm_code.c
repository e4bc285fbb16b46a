/* Code that changes itself in both instruction sets, with the maintenance of the architecture and without any; calls
 * from each set into the other; pairs and lists across pages. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 400
#endif

static u32 code[1024] __attribute__((aligned(4096), section(".text.patched")));
static u8 area[3 * 4096] __attribute__((aligned(4096)));

typedef u32 (*routine)(u32);

#define SYNCHRONISE(at) \
    "mcr p15, 0, " at ", c7, c11, 1\n\t" /* DCCMVAU */ \
    "dsb\n\t" \
    "mcr p15, 0, " at ", c7, c5, 1\n\t" /* ICIMVAU */ \
    "mcr p15, 0, " at ", c7, c5, 6\n\t" /* BPIALL */ \
    "dsb\n\t" \
    "isb\n\t"

static void synchronise(void *at)
{
    __asm__ volatile(SYNCHRONISE("%0") : : "r"(at) : "memory");
}

static routine write_arm(u32 *at, u32 value)
{
    at[0] = 0xe2800000 | (value & 0xff); /* add r0, r0, #value */
    at[1] = 0xe12fff1e;                  /* bx lr */
    return (routine)at;
}

static routine write_thumb(u32 *at, u32 value)
{
    unsigned short *half = (unsigned short *)at;
    half[0] = (unsigned short)(0x3000 | (value & 0xff)); /* adds r0, #value */
    half[1] = 0x4770;                                    /* bx lr */
    return (routine)((uptr)at | 1);
}

/* add.w r0, r0, #value or its A32 form, as a word of memory */
static u32 encode_add(u32 value)
{
#ifdef __thumb__
    return 0xf100u | (value & 0xff) << 16;
#else
    return 0xe2800000u | (value & 0xff);
#endif
}

#define PATCH "adr r2, 1f\n\tstr %1, [r2]\n\t"
#ifdef __thumb__
#define ADD "add.w"
#else
#define ADD "add"
#endif
#define PATCHED ".balign 4\n1:\t" ADD " %0, %0, #0"

/* Stores the instruction behind the barriers, all in one straight line. */
NOINLINE u32 patch_straight(u32 value)
{
    register u32 result __asm__("r0") = 0;
    register u32 instruction __asm__("r1") = encode_add(value);
    __asm__ volatile(PATCH SYNCHRONISE("r2") PATCHED : "+r"(result) : "r"(instruction) : "r2", "memory");
    return result;
}

NOINLINE u32 patch_without_barrier(u32 value)
{
    register u32 result __asm__("r0") = 0;
    register u32 instruction __asm__("r1") = encode_add(value);
    __asm__ volatile(PATCH PATCHED : "+r"(result) : "r"(instruction) : "r2", "memory");
    return result;
}

/* A loop whose body replaces itself. */
NOINLINE u32 patch_loop(u32 count)
{
    register u32 value __asm__("r0") = 0;
    __asm__ volatile("adr r2, 1f\n"
                     ".balign 4\n"
                     "1:\t" ADD " %0, %0, #1\n\t"
                     "ldr r3, [r2]\n\t"
#ifdef __thumb__
                     "eor r3, r3, #0x30000\n\t" /* immediate 1 <-> 2 */
#else
                     "eor r3, r3, #3\n\t"
#endif
                     "str r3, [r2]\n\t"
                     "subs %1, %1, #1\n\t"
                     "bne 1b"
                     : "+r"(value), "+r"(count)::"r2", "r3", "memory", "cc");
    return value;
}

static u32 across_pages(u32 value)
{
    u8 *edge = area + 4096;
    u32 sum;
    __asm__ volatile("mov r4, %1\n\t"
                     "add r5, r4, #7\n\t"
                     "eor r6, r5, r4, lsl #3\n\t"
                     "stmia %2, {r4-r6}\n\t"
                     "strd r4, r5, [%2, #8]\n\t"
                     "ldmia %2, {r4-r6}\n\t"
                     "add %0, r4, r5\n\t"
                     "eor %0, %0, r6"
                     : "=&r"(sum)
                     : "r"(value), "r"(edge - 8)
                     : "r4", "r5", "r6", "memory");
    return sum;
}

__asm__(".text\n"
        ".syntax unified\n"
        ".arm\n"
        ".type even, %function\n"
        "even:\n" /* A32 */
        " subs r1, r1, #1\n"
        " bxmi lr\n"
        " add r0, r0, r0, lsl #2\n"
        " b odd\n"
        ".thumb\n"
        ".type odd, %function\n"
        ".thumb_func\n"
        "odd:\n" /* Thumb */
        " subs r1, #1\n"
        " it mi\n"
        " bxmi lr\n"
        " add.w r0, r0, #3\n"
        " b.w even\n");
u32 even(u32 value, u32 count);

int main(void)
{
    u32 sum = 2166136261u, unsure = sum;
    for (u32 loop = 0; loop < LOOPS; loop++) {
        u32 *at = code + loop % 64 * 2;
        /* both sets in turn at the same place */
        routine near = loop / 64 & 1 ? write_thumb(at, loop) : write_arm(at, loop);
        synchronise(at);
        sum = mix(sum, near(sum));
        sum = mix(sum, patch_straight(loop));
        unsure = mix(unsure, patch_without_barrier(loop));
        unsure = mix(unsure, patch_loop(loop % 6 + 1));
        sum = mix(sum, across_pages(sum));
        sum = mix(sum, even(sum, loop % 5));
    }
    put_checksum("arm_code", sum);
    put_checksum("arm_code without barriers", unsure); /* the architecture does not say */
    power_off(0);
}
