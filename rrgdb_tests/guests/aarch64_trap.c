/* Exceptions through VBAR_EL1: svc, brk, undefined instructions and a data abort; the handler logs and skips. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 400
#endif

volatile u32 classes[64];
volatile u32 log_sum = 2166136261u;

__asm__(".text\n"
        ".balign 2048\n"
        ".globl vectors\n"
        "vectors:\n"
        ".rept 4\n .balign 128\n b .\n .endr\n" /* SP_EL0 */
        ".balign 128\n"
        "sync:\n"
        " stp x0, x1, [sp, #-176]!\n stp x2, x3, [sp, #16]\n stp x4, x5, [sp, #32]\n stp x6, x7, [sp, #48]\n"
        " stp x8, x9, [sp, #64]\n stp x10, x11, [sp, #80]\n stp x12, x13, [sp, #96]\n stp x14, x15, [sp, #112]\n"
        " stp x16, x17, [sp, #128]\n stp x18, x30, [sp, #144]\n"
        " mrs x0, esr_el1\n"
        " mrs x1, elr_el1\n"
        " bl handle\n"
        " b 1f\n"
        ".rept 12\n .balign 128\n b .\n .endr\n"
        ".balign 128\n"
        "1:\n"
        " msr elr_el1, x0\n"
        " ldp x2, x3, [sp, #16]\n ldp x4, x5, [sp, #32]\n ldp x6, x7, [sp, #48]\n ldp x8, x9, [sp, #64]\n"
        " ldp x10, x11, [sp, #80]\n ldp x12, x13, [sp, #96]\n ldp x14, x15, [sp, #112]\n ldp x16, x17, [sp, #128]\n"
        " ldp x18, x30, [sp, #144]\n ldp x0, x1, [sp], #176\n"
        " eret\n");

extern char vectors[];

__attribute__((used)) u64 handle(u64 syndrome, u64 pc)
{
    u32 class = syndrome >> 26 & 63;
    classes[class]++;
    log_sum = mix(log_sum, class);
    if (class == 0x15 || class == 0x3c) /* svc, brk: the immediate */
        log_sum = mix(log_sum, syndrome & 0xffff);
    return class == 0x15 ? pc : pc + 4;
}

int main(void)
{
    u32 sum = 2166136261u;
    __asm__ volatile("msr vbar_el1, %0\n\tisb" : : "r"(vectors) : "memory");
    for (u32 loop = 0; loop < LOOPS; loop++) {
        u64 kept = loop * 3u;
        __asm__ volatile("add %0, %0, #1\n\tsvc #0x123\n\tadd %0, %0, #2" : "+r"(kept)::"memory");
        if (loop % 2)
            __asm__ volatile("add %0, %0, #1\n\t.inst 0x00000000\n\tadd %0, %0, #2" : "+r"(kept)::"memory");
        if (loop % 3 == 0)
            __asm__ volatile("brk #7" ::: "memory");
        if (loop % 7 == 0) {
            u64 loaded = 77; /* no memory there: the register keeps its value */
            __asm__ volatile("ldr %0, [%1]" : "+r"(loaded) : "r"(0x0a800000ull) : "memory");
            sum = mix(sum, (u32)loaded);
        }
        sum = mix(mix(sum, (u32)kept), log_sum);
    }
    for (u32 i = 0; i < 64; i++)
        sum = mix(sum, classes[i]);
    put_checksum("aarch64_trap", sum);
    power_off(classes[0x15] == LOOPS ? 0 : 1);
}
