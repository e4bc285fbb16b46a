/* Conditional instructions: as Thumb, IT blocks of every condition and pattern; as A32, the same by condition fields.
 * Blocks that load and store, return, compare, lie across two pages, and call. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 3000
#endif

static volatile u32 words[64];
static u32 code[64] __attribute__((aligned(64), section(".text.patched")));

typedef u32 (*routine)(u32);

static void synchronise(void *at)
{
    for (u32 line = 0; line < 64; line += 32)
        __asm__ volatile("mcr p15, 0, %0, c7, c11, 1\n\tdsb\n\tmcr p15, 0, %0, c7, c5, 1\n\tdsb\n\tisb"
                         :
                         : "r"((char *)at + line)
                         : "memory");
}

static u32 call_with_flags(routine at, u32 flags, u32 value)
{
    register u32 result __asm__("r0") = value;
    __asm__ volatile("msr cpsr_f, %1\n\tblx %2"
                     : "+r"(result)
                     : "r"(flags), "r"(at)
                     : "r1", "r2", "r3", "r12", "lr", "cc", "memory");
    return result;
}

/* Up to four additions of 1, 2, 4, 8: mask is that of an IT instruction, a set bit the opposite condition. */
static routine write_block(u32 condition, u32 mask)
{
#ifdef __thumb__
    unsigned short *at = (unsigned short *)code;
    u32 low = condition & 1, flipped = 0;
    for (u32 bit = 3; bit > 0 && mask & ((1u << bit) - 1); bit--)
        flipped |= (((mask >> bit & 1) ^ low) << bit);
    flipped |= mask & -mask;
    *at++ = (unsigned short)(0xbf00 | condition << 4 | flipped);
    for (u32 i = 0; i < 4; i++)
        *at++ = (unsigned short)(0x3000 | 1u << i); /* add(s) r0, #n */
    *at++ = 0x4770;
    synchronise(code);
    return (routine)((uptr)code | 1);
#else
    u32 *at = code, last = 0;
    while (!(mask >> last & 1))
        last++;
    for (u32 i = 0; i < 4 - last; i++) {
        u32 opposite = i ? mask >> (4 - i) & 1 : 0;
        *at++ = (condition ^ opposite) << 28 | 0x02800000 | 1u << i;
    }
    *at++ = 0xe12fff1e;
    synchronise(code);
    return (routine)code;
#endif
}

__asm__(".pushsection .text.edge, \"ax\"\n"
        ".syntax unified\n"
#ifdef __thumb__
        ".thumb\n"
#else
        ".arm\n"
#endif
        ".balign 4096\n"
        ".skip 4096 - 8\n"
        ".type across, %function\n"
        "across:\n"
        " mov r1, r0\n"
#ifdef __thumb__
        " nop\n"
#endif
        " itett ne\n"
        " addne r0, r0, #1\n"
        " addeq r0, r0, #0x10000\n" /* a wide one; in the next page */
        " addne r0, r0, #3\n"
        " addne r0, r0, r1\n"
        " bx lr\n"
        ".popsection\n");
u32 across(u32 value);

NOINLINE u32 memory(u32 value)
{
    u32 result = value;
    __asm__ volatile("tst %0, #1\n\t"
                     "itett ne\n\t"
                     "strne %0, [%1]\n\t"
                     "ldreq %0, [%1, #4]\n\t"
                     "strhne %0, [%1, #6]\n\t"
                     "ldrne %0, [%1, #8]\n\t"
                     "tst %0, #2\n\t"
                     "ite eq\n\t"
                     "ldmiaeq %1, {r2, r3}\n\t"
                     "stmiane %1, {r2, r3}\n\t"
                     "add %0, %0, r2"
                     : "+r"(result)
                     : "r"(words + value % 32)
                     : "r2", "r3", "cc", "memory");
    return result;
}

/* Returns out of an IT block, by its last instruction. */
__asm__(".text\n"
        ".syntax unified\n"
#ifdef __thumb__
        ".thumb\n"
#else
        ".arm\n"
#endif
        ".type early, %function\n"
        "early:\n"
        " push {r4, lr}\n"
        " add r4, r0, #5\n"
        " tst r0, #4\n"
        " itt ne\n"
        " addne r0, r0, r4\n"
        " popne {r4, pc}\n"
        " tst r0, #8\n"
        " ittt eq\n"
        " moveq r0, r4\n"
        " cmpeq r0, #100\n" /* decides about the next */
        " addeq r0, r0, #1\n"
        " tst r0, #16\n"
        " it ne\n"
        " bne 1f\n"
        " movw r3, #0x1234\n"
        " tst r0, #32\n"
        " itet ne\n"
        " movwne r3, #0xabcd\n"
        " bfceq r3, #3, #5\n"
        " blne leaf\n"
        " add r0, r0, r3\n"
        "1: pop {r4, pc}\n"
        ".type leaf, %function\n"
        "leaf:\n"
        " eor r0, r0, r0, lsr #3\n"
        " bx lr\n");
u32 early(u32 value);

int main(void)
{
    u32 sum = 2166136261u;
    for (u32 loop = 0; loop < LOOPS; loop++) {
        u32 condition = loop % 14, mask = loop * 7 % 15 + 1;
        routine block = write_block(condition, mask);
        for (u32 flags = 0; flags < 16; flags++)
            sum = mix(sum, call_with_flags(block, flags << 28, loop));
        sum = mix(sum, call_with_flags(across, (sum & 1) << 30, loop));
        sum = mix(sum, memory(sum));
        sum = mix(sum, early(sum));
    }
    put_checksum("arm_it", sum);
    power_off(0);
}
