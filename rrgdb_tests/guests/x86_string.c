/* REP string instructions: every count from 0, both directions, across pages, ended early by a comparison. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 40
#endif

static u8 left[3 * 4096] __attribute__((aligned(4096)));
static u8 right[3 * 4096] __attribute__((aligned(4096)));

static void rep_movsb(void *to, const void *from, uptr count)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
}

static void rep_movsl(void *to, const void *from, uptr count)
{
    __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count)::"memory");
}

static void rep_movsb_down(u8 *to, const u8 *from, uptr count)
{
    to += count - 1, from += count - 1;
    __asm__ volatile("std\n\trep movsb\n\tcld" : "+D"(to), "+S"(from), "+c"(count)::"memory");
}

static void rep_stosw(void *to, u32 value, uptr count)
{
    __asm__ volatile("rep stosw" : "+D"(to), "+c"(count) : "a"(value) : "memory");
}

static uptr repe_cmpsb(const void *a, const void *b, uptr count)
{
    /* ecx = 0 leaves the flags alone, so they are set first */
    __asm__ volatile("xor %%eax, %%eax\n\trepe cmpsb" : "+D"(a), "+S"(b), "+c"(count)::"eax", "memory", "cc");
    return count;
}

static uptr repne_scasb(const void *a, u8 byte, uptr count)
{
    __asm__ volatile("test %%eax, %%eax\n\trepne scasb" : "+D"(a), "+c"(count) : "a"(byte) : "memory", "cc");
    return count;
}

static u32 lodsb_sum(const void *from, uptr count)
{
    u32 sum = 0;
    for (; count; count--) {
        u32 byte = 0;
        __asm__ volatile("lodsb" : "+S"(from), "+a"(byte)::"memory");
        sum = mix(sum, byte);
    }
    return sum;
}

int main(void)
{
    u32 sum = 2166136261u;
    for (u32 i = 0; i < sizeof left; i++)
        left[i] = (u8)(i * 7 + (i >> 8));
    for (u32 loop = 0; loop < LOOPS; loop++) {
        uptr count = loop % 67;
        u32 offset = 4096 - loop;
        rep_movsb(right + offset, left + loop, count);
        sum = mix(sum, lodsb_sum(right + offset, count));
        rep_movsl(right + 4096 - 2 * loop, left + offset, count);
        rep_movsb_down(right + offset + 3, right + offset, count + 1);
        rep_stosw(right + 8192 - loop, sum, count);
        sum = mix(sum, (u32)repe_cmpsb(left + offset, right + offset, count));
        rep_movsb(right, left, 100 + loop);
        right[loop * 2] ^= 1;
        sum = mix(sum, (u32)repe_cmpsb(left, right, 100));
        sum = mix(sum, (u32)repne_scasb(left + offset, (u8)(left[offset + 40]), 60));
        sum = mix(sum, (u32)repne_scasb(left, 1, 0));
        rep_movsb(left + 1, left, count); /* overlapping: spreads the first byte */
    }
    sum = mix(sum, lodsb_sum(right, sizeof right));
    put_checksum("x86_string", sum);
    power_off(0);
}
