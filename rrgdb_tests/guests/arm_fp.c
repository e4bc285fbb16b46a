/* VFP in every rounding mode with its flags, and NEON over whole vectors. */
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

static u32 scalar(double a, double b, u32 mode)
{
    double result[6];
    float narrow, integer;
    u32 flags, sum = 0;
    __asm__ volatile("vmsr fpscr, %0" : : "r"(mode << 22) : "memory");
    __asm__ volatile("vadd.f64 %P0, %P1, %P2" : "=w"(result[0]) : "w"(a), "w"(b));
    __asm__ volatile("vdiv.f64 %P0, %P1, %P2" : "=w"(result[1]) : "w"(a), "w"(b));
    __asm__ volatile("vsqrt.f64 %P0, %P1" : "=w"(result[2]) : "w"(b));
    __asm__ volatile("vmov.f64 %P0, %P1\n\tvfma.f64 %P0, %P1, %P2" : "=&w"(result[3]) : "w"(a), "w"(b));
    __asm__ volatile("vcvt.f32.f64 %0, %P1" : "=t"(narrow) : "w"(a));
    __asm__ volatile("vcvt.f64.f32 %P0, %1" : "=w"(result[4]) : "t"(narrow));
    __asm__ volatile("vcvtr.s32.f64 %0, %P1" : "=t"(integer) : "w"(a));
    __asm__ volatile("vcvt.f64.s32 %P0, %1" : "=w"(result[5]) : "t"(integer));
    __asm__ volatile("vmrs %0, fpscr" : "=r"(flags));
    for (int i = 0; i < 6; i++)
        sum = mix(sum, low_bits(result[i]));
    return mix(sum, flags);
}

static u32 compare(double a, double b)
{
    u32 result = 0;
    __asm__ volatile("vcmp.f64 %P1, %P2\n\t"
                     "vmrs APSR_nzcv, fpscr\n\t"
                     "ittet gt\n\t"
                     "addgt %0, %0, #1\n\t"
                     "vmovgt.f64 d16, %P1\n\t"
                     "vmovle.f64 d16, %P2\n\t"
                     "addgt %0, %0, #4"
                     : "+r"(result)
                     : "w"(a), "w"(b)
                     : "cc", "d16");
    return result;
}

static u32 vector(u32 seed)
{
    u32 lanes[8] __attribute__((aligned(16)));
    u32 sum = 0;
    for (u32 i = 0; i < 8; i++)
        lanes[i] = seed * (i + 1);
    __asm__ volatile("vld1.32 {d16-d19}, [%0]\n\t"
                     "vadd.i32 q10, q8, q9\n\t"
                     "vmul.i32 q11, q8, q9\n\t"
                     "vrev64.16 q8, q10\n\t"
                     "vmull.u32 q9, d20, d22\n\t"
                     "vtbl.8 d24, {d16-d19}, d22\n\t"
                     "vext.8 q13, q8, q9, #5\n\t"
                     "veor q12, q12, q13\n\t"
                     "vqadd.s32 q13, q13, q11\n\t"
                     "vst2.32 {d24-d27}, [%0]"
                     :
                     : "r"(lanes)
                     : "d16", "d17", "d18", "d19", "d20", "d21", "d22", "d23", "d24", "d25", "d26", "d27", "memory");
    for (u32 i = 0; i < 8; i++)
        sum = mix(sum, lanes[i]);
    return sum;
}

static u32 saved(u32 seed)
{
    u32 words[8] __attribute__((aligned(8)));
    for (u32 i = 0; i < 8; i++)
        words[i] = seed + i;
    __asm__ volatile("vldmia %0, {d4-d7}\n\tvpush {d4-d7}\n\tvpop {d0-d3}\n\tvstmia %0, {s2-s7}"
                     :
                     : "r"(words)
                     : "d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "memory");
    return mix(words[0], words[5]);
}

int main(void)
{
    u32 sum = 2166136261u;
    for (u32 loop = 0; loop < LOOPS; loop++) {
        double a = (double)(int)loop / 7.0 - 50.0, b = loop % 11 ? (double)(int)(loop % 37) - 5.0 : 0.0;
        sum = mix(sum, scalar(a, b, loop & 3));
        sum = mix(sum, compare(a, b));
        sum = mix(sum, vector(sum));
        sum = mix(sum, saved(sum));
    }
    put_checksum("arm_fp", sum);
    power_off(0);
}
