/* x87 and SSE: arithmetic, rounding modes, saving and restoring of the whole unit. The accrued exception flags are
 * left out of the checksum: QEMU 5.0, and so Unicorn, does not set them. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 1000
#endif

static u8 saved[512] __attribute__((aligned(16)));
static double table[64];

static u32 low_bits(double value)
{
    union {
        double d;
        u32 u[2];
    } bits = {value};
    return mix(bits.u[0], bits.u[1]);
}

static u32 x87(double value, u16 control)
{
    double result;
    u16 status;
    u32 integer;
    __asm__ volatile("fldcw %1\n\t"
                     "fldl %2\n\t"
                     "fld1\n\t"
                     "faddp\n\t"
                     "fldpi\n\t"
                     "fmulp\n\t"
                     "fld %%st(0)\n\t"
                     "fabs\n\t"
                     "fsqrt\n\t"
                     "fdivrp\n\t"
                     "fstl %0"
                     : "=m"(result)
                     : "m"(control), "m"(value));
    __asm__ volatile("fistpl %0\n\tfnstsw %1\n\tfnclex" : "=m"(integer), "=a"(status));
    return mix(mix(low_bits(result), integer), status & 0x3800);
}

static u32 sse(float value, u32 control)
{
    float vector[4] __attribute__((aligned(16))) = {value, value * 3, value + 0.1f, value * value};
    double wide = value;
    u32 flags;
    int rounded;
    __asm__ volatile("ldmxcsr %[control]\n\t"
                     "movaps %[vector], %%xmm0\n\t"
                     "movaps %%xmm0, %%xmm1\n\t"
                     "shufps $0x1b, %%xmm1, %%xmm1\n\t"
                     "addps %%xmm0, %%xmm1\n\t"
                     "mulps %%xmm1, %%xmm0\n\t"
                     "divps %%xmm1, %%xmm0\n\t"
                     "sqrtps %%xmm0, %%xmm0\n\t"
                     "movaps %%xmm0, %[vector]\n\t"
                     "movsd %[wide], %%xmm2\n\t"
                     "cvtsd2si %%xmm2, %[rounded]\n\t"
                     "mulsd %%xmm2, %%xmm2\n\t"
                     "movsd %%xmm2, %[wide]\n\t"
                     "stmxcsr %[flags]"
                     : [vector] "+m"(vector), [wide] "+m"(wide), [flags] "=m"(flags), [rounded] "=r"(rounded)
                     : [control] "m"(control)
                     : "xmm0", "xmm1", "xmm2");
    u32 sum = mix(flags & 0xffc0, (u32)rounded);
    for (int i = 0; i < 4; i++) {
        union {
            float f;
            u32 u;
        } bits = {vector[i]};
        sum = mix(sum, bits.u);
    }
    return mix(sum, low_bits(wide));
}

int main(void)
{
    u32 sum = 2166136261u;
    for (u32 loop = 0; loop < LOOPS; loop++) {
        double value = (double)loop / 7.0;
        sum = mix(sum, x87(value, (u16)(0x37f & ~0xf00) | (u16)(loop % 4 << 10) | (loop & 4 ? 0x300 : 0x200)));
        sum = mix(sum, sse((float)value - 20.0f, 0x1f80u | (loop % 4) << 13));
        table[loop % 64] += value * 0.5;
        if (loop % 16 == 0) {
            __asm__ volatile("fldl %1\n\tfxsave %0\n\tfninit\n\tfxrstor %0\n\tfstpl %1"
                             : "+m"(saved), "+m"(table[loop % 64]));
            for (u32 i = 32; i < 48; i++) /* st(0); the pointers before it differ between CPUs */
                sum = mix(sum, saved[i]);
            __asm__ volatile("fninit");
        }
    }
    for (u32 i = 0; i < 64; i++)
        sum = mix(sum, low_bits(table[i]));
    put_checksum("x86_fp", sum);
    power_off(0);
}
