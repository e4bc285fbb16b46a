/* Scalar FP in every rounding mode with FPSR flags, and NEON over whole vectors. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 1000
#endif

static u32 low_bits(double value)
{
    union {
        double d;
        u32 u[2];
    } bits = {value};
    return mix(bits.u[0], bits.u[1]);
}

static u32 scalar(double a, double b, u64 mode)
{
    double result[6];
    long integer;
    u64 flags;
    u32 sum = 0;
    __asm__ volatile("msr fpcr, %0\n\tmsr fpsr, xzr" : : "r"(mode << 22) : "memory");
    __asm__ volatile("fadd %d0, %d1, %d2" : "=w"(result[0]) : "w"(a), "w"(b));
    __asm__ volatile("fdiv %d0, %d1, %d2" : "=w"(result[1]) : "w"(a), "w"(b));
    __asm__ volatile("fsqrt %d0, %d1" : "=w"(result[2]) : "w"(b));
    __asm__ volatile("fmadd %d0, %d1, %d2, %d1" : "=w"(result[3]) : "w"(a), "w"(b));
    __asm__ volatile("frintx %d0, %d1" : "=w"(result[4]) : "w"(a));
    __asm__ volatile("fcvt %s0, %d1\n\tfcvt %d0, %s0" : "=w"(result[5]) : "w"(a));
    __asm__ volatile("fcvtns %0, %d1" : "=r"(integer) : "w"(a));
    __asm__ volatile("mrs %0, fpsr" : "=r"(flags));
    for (int i = 0; i < 6; i++)
        sum = mix(sum, low_bits(result[i]));
    return mix(mix(sum, (u32)integer), (u32)flags);
}

static u32 vector(u32 seed)
{
    u32 lanes[8] __attribute__((aligned(16)));
    u32 sum = 0;
    for (u32 i = 0; i < 8; i++)
        lanes[i] = seed * (i + 1);
    __asm__ volatile("ld1 {v0.4s, v1.4s}, [%0]\n\t"
                     "add v2.4s, v0.4s, v1.4s\n\t"
                     "mul v3.4s, v0.4s, v1.4s\n\t"
                     "rev64 v0.8h, v2.8h\n\t"
                     "umull v1.2d, v2.2s, v3.2s\n\t"
                     "tbl v2.16b, {v0.16b, v1.16b}, v3.16b\n\t"
                     "ext v3.16b, v2.16b, v1.16b, #5\n\t"
                     "st2 {v2.4s, v3.4s}, [%0]"
                     :
                     : "r"(lanes)
                     : "v0", "v1", "v2", "v3", "memory");
    for (u32 i = 0; i < 8; i++)
        sum = mix(sum, lanes[i]);
    return sum;
}

int main(void)
{
    u32 sum = 2166136261u;
    for (u32 loop = 0; loop < LOOPS; loop++) {
        double a = (double)loop / 7.0 - 50.0, b = loop % 11 ? (double)(loop % 37) - 5.0 : 0.0;
        sum = mix(sum, scalar(a, b, loop & 3));
        sum = mix(sum, vector(sum));
    }
    put_checksum("aarch64_fp", sum);
    power_off(0);
}
