/* Exceptions through mtvec: illegal instructions of two and four bytes, ecall, ebreak and an access fault; also
 * misaligned loads and stores, which the CPU performs or traps and the handler then performs. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 400
#endif

volatile u32 causes[16];
volatile u32 log_sum = 2166136261u;
static u8 area[2 * 4096] __attribute__((aligned(4096)));

#if __riscv_xlen == 64
#define S "sd"
#define L "ld"
#define B "8"
#else
#define S "sw"
#define L "lw"
#define B "4"
#endif

/* Saves what the C handler may change: ra, t0-t6, a0-a7. */
__asm__(".text\n"
        ".balign 4\n"
        ".globl trap_entry\n"
        "trap_entry:\n"
        " addi sp, sp, -16*" B "\n"
        " " S " ra, 0*" B "(sp)\n " S " t0, 1*" B "(sp)\n " S " t1, 2*" B "(sp)\n " S " t2, 3*" B "(sp)\n"
        " " S " t3, 4*" B "(sp)\n " S " t4, 5*" B "(sp)\n " S " t5, 6*" B "(sp)\n " S " t6, 7*" B "(sp)\n"
        " " S " a0, 8*" B "(sp)\n " S " a1, 9*" B "(sp)\n " S " a2, 10*" B "(sp)\n " S " a3, 11*" B "(sp)\n"
        " " S " a4, 12*" B "(sp)\n " S " a5, 13*" B "(sp)\n " S " a6, 14*" B "(sp)\n " S " a7, 15*" B "(sp)\n"
        " csrr a0, mcause\n"
        " csrr a1, mepc\n"
        " call handle\n"
        " csrw mepc, a0\n"
        " " L " ra, 0*" B "(sp)\n " L " t0, 1*" B "(sp)\n " L " t1, 2*" B "(sp)\n " L " t2, 3*" B "(sp)\n"
        " " L " t3, 4*" B "(sp)\n " L " t4, 5*" B "(sp)\n " L " t5, 6*" B "(sp)\n " L " t6, 7*" B "(sp)\n"
        " " L " a0, 8*" B "(sp)\n " L " a1, 9*" B "(sp)\n " L " a2, 10*" B "(sp)\n " L " a3, 11*" B "(sp)\n"
        " " L " a4, 12*" B "(sp)\n " L " a5, 13*" B "(sp)\n " L " a6, 14*" B "(sp)\n " L " a7, 15*" B "(sp)\n"
        " addi sp, sp, 16*" B "\n"
        " mret\n");

extern char trap_entry[];

__attribute__((used)) uptr handle(uptr cause, uptr pc)
{
    causes[cause & 15]++;
    log_sum = mix(log_sum, (u32)cause);
    return pc + ((*(volatile u16 *)pc & 3) == 3 ? 4 : 2);
}

static u32 misaligned(u32 offset, u32 value)
{
    u32 loaded, half;
    __asm__ volatile("sw %2, 0(%3)\n\tlw %0, -1(%3)\n\tlhu %1, 3(%3)"
                     : "=&r"(loaded), "=&r"(half)
                     : "r"(value), "r"(area + offset)
                     : "memory");
    return mix(loaded, half);
}

int main(void)
{
    u32 sum = 2166136261u;
    __asm__ volatile("csrw mtvec, %0" : : "r"(trap_entry));
    for (u32 loop = 0; loop < LOOPS; loop++) {
        uptr kept = loop * 3u;
        __asm__ volatile("addi %0, %0, 1\n\t.half 0\n\taddi %0, %0, 2" : "+r"(kept)::"memory");
        if (loop % 2)
            __asm__ volatile("addi %0, %0, 1\n\t.word 0xffffffff\n\taddi %0, %0, 2" : "+r"(kept)::"memory");
        if (loop % 3 == 0)
            __asm__ volatile("ecall" ::: "memory");
        if (loop % 5 == 0)
            __asm__ volatile(".option push\n\t.option norvc\n\tebreak\n\t.option pop" ::: "memory");
        if (loop % 7 == 0) {
            uptr loaded = 77; /* no memory there: the register keeps its value */
            __asm__ volatile("lw %0, 0(%1)" : "+r"(loaded) : "r"(0x20000) : "memory");
            sum = mix(sum, (u32)loaded);
        }
        sum = mix(mix(sum, (u32)kept), log_sum);
        sum = mix(sum, misaligned(4096 - 8 + loop % 12, sum));
    }
    for (u32 i = 0; i < 16; i++)
        if (i != 4 && i != 6) /* misaligned accesses: in hardware or not */
            sum = mix(sum, causes[i]);
    put_checksum("riscv_trap", sum);
    power_off(causes[2] == LOOPS + LOOPS / 2 ? 0 : 1);
}
