/* F and D arithmetic in every rounding mode, with the accrued exception flags. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 1000
#endif

#define FLAGS()                                                                                                        \
    ({                                                                                                                 \
        uptr fp_flags;                                                                                                 \
        __asm__ volatile("csrrwi %0, fflags, 0" : "=r"(fp_flags)::"memory");                                           \
        (u32)fp_flags;                                                                                                 \
    })

static u32 single(float a, float b, u32 mode)
{
    float result[6];
    int integer;
    u32 sum = 0;
    __asm__ volatile("csrw frm, %0" : : "r"(mode) : "memory");
    __asm__ volatile("fadd.s %0, %1, %2" : "=f"(result[0]) : "f"(a), "f"(b));
    __asm__ volatile("fdiv.s %0, %1, %2" : "=f"(result[1]) : "f"(a), "f"(b));
    sum = mix(sum, FLAGS());
    __asm__ volatile("fsqrt.s %0, %1" : "=f"(result[2]) : "f"(b));
    sum = mix(sum, FLAGS());
    __asm__ volatile("fmadd.s %0, %1, %2, %1" : "=f"(result[3]) : "f"(a), "f"(b));
    __asm__ volatile("fnmsub.s %0, %1, %2, %2" : "=f"(result[4]) : "f"(a), "f"(b));
    __asm__ volatile("fmin.s %0, %1, %2" : "=f"(result[5]) : "f"(a), "f"(b));
    __asm__ volatile("fcvt.w.s %0, %1" : "=r"(integer) : "f"(a));
    sum = mix(sum, FLAGS());
    for (int i = 0; i < 6; i++) {
        union {
            float f;
            u32 u;
        } bits = {result[i]};
        sum = mix(sum, bits.u);
    }
    return mix(sum, (u32)integer);
}

#if __riscv_xlen == 64
static u32 twice(double a, double b)
{
    double result[4];
    long integer;
    u32 sum = 0;
    __asm__ volatile("fsub.d %0, %1, %2" : "=f"(result[0]) : "f"(a), "f"(b));
    __asm__ volatile("fdiv.d %0, %1, %2" : "=f"(result[1]) : "f"(a), "f"(b));
    __asm__ volatile("fmsub.d %0, %1, %2, %1" : "=f"(result[2]) : "f"(a), "f"(b));
    __asm__ volatile("fsgnjn.d %0, %1, %2" : "=f"(result[3]) : "f"(a), "f"(b));
    __asm__ volatile("fcvt.l.d %0, %1" : "=r"(integer) : "f"(b));
    sum = mix(sum, FLAGS());
    for (int i = 0; i < 4; i++) {
        union {
            double d;
            u32 u[2];
        } bits = {result[i]};
        sum = mix(mix(sum, bits.u[0]), bits.u[1]);
    }
    return mix(sum, (u32)integer);
}
#endif

int main(void)
{
    u32 sum = 2166136261u;
    for (u32 loop = 0; loop < LOOPS; loop++) {
        float a = (float)loop / 7.0f - 50.0f, b = loop % 11 ? (float)(loop % 37) - 5.0f : 0.0f;
        sum = mix(sum, single(a, b, loop % 5));
#if __riscv_xlen == 64
        sum = mix(sum, twice((double)a * 1e10, (double)b + 0.3));
#endif
    }
    put_checksum("riscv_fp", sum);
    power_off(0);
}
