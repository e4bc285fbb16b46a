/* Exceptions through VBAR: svc, bkpt, undefined instructions, data and prefetch aborts; the handler logs and skips. In
 * the middle of blocks and, as Thumb, inside IT blocks, which go on behind the handler. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 400
#endif

enum { UNDEFINED = 1, CALL, PREFETCH, DATA };
#define NOWHERE 0x0a800000u

volatile u32 kinds[8];
volatile u32 log_sum = 2166136261u;

struct frame {
    u32 r1, r2, r3, r12, lr, r0, pc, status;
};

#define ENTRY(name, number) \
    name ":\n" \
    " srsdb sp!, #0x13\n" \
    " cps #0x13\n" \
    " push {r0}\n" \
    " mov r0, #" number "\n" \
    " b 1f\n"

__asm__(".text\n"
        ".syntax unified\n"
        ".arm\n"
        ".balign 32\n"
        ".globl vectors\n"
        "vectors:\n"
        " b .\n"
        " b undefined_entry\n"
        ".globl call\n"
        ".type call, %function\n"
        "call:\n"
        " b call_entry\n"
        " b prefetch_entry\n"
        " b data_entry\n"
        " b .\n b .\n b .\n"
        ENTRY("undefined_entry", "1") ENTRY("call_entry", "2") ENTRY("prefetch_entry", "3") ENTRY("data_entry", "4")
        "1:\n"
        " push {r1-r3, r12, lr}\n"
        " mov r1, sp\n"
        " and r2, sp, #4\n"
        " sub sp, sp, r2\n"
        " push {r2, r3}\n"
        " bl handle\n"
        " pop {r2, r3}\n"
        " add sp, sp, r2\n"
        " pop {r1-r3, r12, lr}\n"
        " pop {r0}\n"
        " rfeia sp!\n"
#ifdef __thumb__
        ".thumb\n"
#endif
);

extern char vectors[];

/* Behind the instruction at pc; ITSTATE goes on. */
static void skip(struct frame *f, u32 pc)
{
    if (!(f->status & 0x20)) {
        f->pc = pc + 4;
        return;
    }
    u32 state = (f->status >> 25 & 3) | (f->status >> 8 & 0xfc);
    f->pc = pc + (*(unsigned short *)pc >= 0xe800 ? 4 : 2);
    state = state & 7 ? (state & 0xe0) | (state << 1 & 0x1f) : 0;
    f->status = (f->status & ~0x0600fc00u) | (state & 3) << 25 | (state & 0xfc) << 8;
}

__attribute__((used)) void handle(u32 kind, struct frame *f)
{
    u32 thumb = f->status >> 5 & 1, status, address;
    kinds[kind]++;
    log_sum = mix(log_sum, kind);
    if (kind == CALL)
        log_sum = mix(log_sum, thumb ? *(u8 *)(f->pc - 2) : *(u8 *)(f->pc - 4));
    if (kind == UNDEFINED)
        skip(f, f->pc - (thumb ? 2 : 4));
    if (kind == PREFETCH) {
        __asm__ volatile("mrc p15, 0, %0, c5, c0, 1" : "=r"(status));
        log_sum = mix(log_sum, status & 0x40f);
        if (f->pc - 4 == (NOWHERE & ~1u))
            f->pc = f->lr & ~1u, f->status = (f->status & ~0x20u) | (f->lr & 1) << 5;
        else
            skip(f, f->pc - 4);
    }
    if (kind == DATA) {
        __asm__ volatile("mrc p15, 0, %0, c5, c0, 0" : "=r"(status));
        __asm__ volatile("mrc p15, 0, %0, c6, c0, 0" : "=r"(address));
        log_sum = mix(mix(log_sum, status & 0xc0f), address);
        skip(f, f->pc - 8);
    }
}

NOINLINE u32 aborts(u32 value)
{
    u32 loaded = 77, stored = value, result = value; /* no memory there: registers keep their values */
    __asm__ volatile("tst %2, #1\n\t"
                     "add %0, %0, #1\n\t"
                     "ldr %1, [%3]\n\t"
                     "add %0, %0, %1\n\t"
                     "ittet ne\n\t"
                     "addne %0, %0, #8\n\t"
                     "ldrne %1, [%3, #4]\n\t"
                     "streq %2, [%3, #8]\n\t"
                     "addne %0, %0, #16\n\t"
                     "ite eq\n\t"
                     "svceq #0x21\n\t"
                     "svcne #0x22\n\t"
                     "ittt ne\n\t"
                     "svcne #0x23\n\t"
                     "strne %2, [%3, #16]\n\t"
                     "addne %0, %0, #32"
                     : "+r"(result), "+r"(loaded)
                     : "r"(stored), "r"(NOWHERE)
                     : "cc", "memory");
    return mix(result, loaded);
}

int main(void)
{
    u32 sum = 2166136261u;
    __asm__ volatile("mcr p15, 0, %0, c12, c0, 0\n\tisb" : : "r"(vectors) : "memory");
    for (u32 loop = 0; loop < LOOPS; loop++) {
        u32 kept = loop * 3u;
        __asm__ volatile("add %0, %0, #1\n\tsvc #0x12\n\tadd %0, %0, #2" : "+r"(kept)::"memory");
        if (loop % 2)
            __asm__ volatile("add %0, %0, #1\n\tudf #3\n\tadd %0, %0, #2" : "+r"(kept)::"memory");
        if (loop % 3 == 0)
            __asm__ volatile("bkpt #7" ::: "memory");
        if (loop % 5 == 0)
            ((void (*)(void))(uptr)NOWHERE)();
        if (loop % 7 < 2)
            sum = mix(sum, aborts(loop));
        sum = mix(mix(sum, kept), log_sum);
    }
    for (u32 i = 0; i < 8; i++)
        sum = mix(sum, kinds[i]);
    put_checksum("arm_trap", sum);
    power_off(kinds[CALL] >= LOOPS ? 0 : 1);
}
