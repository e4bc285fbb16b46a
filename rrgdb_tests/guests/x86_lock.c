/* LOCK-prefixed read-modify-write instructions, aligned and across cache lines and pages. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 2000
#endif

static u8 area[2 * 4096] __attribute__((aligned(4096)));

static u32 locked_operations(void *where, u32 value)
{
    u32 *p = where;
    u32 old = value, taken;
    u8 carry, equal;
    __asm__ volatile("lock addl %1, %0" : "+m"(*p) : "r"(value) : "cc");
    __asm__ volatile("lock xaddl %0, %1" : "+r"(old), "+m"(*p)::"cc");
    __asm__ volatile("lock incl %0" : "+m"(*p)::"cc");
    __asm__ volatile("lock notl %0" : "+m"(*p));
    __asm__ volatile("lock btsl %2, %0\n\tsetc %1" : "+m"(*p), "=q"(carry) : "r"(value & 31) : "cc");
    __asm__ volatile("lock btcl $3, %0" : "+m"(*p)::"cc");
    taken = *p + (value & 1); /* every second exchange fails */
    __asm__ volatile("lock cmpxchgl %3, %1\n\tsete %2" : "+a"(taken), "+m"(*p), "=q"(equal) : "r"(value) : "cc");
    __asm__ volatile("xchgl %0, %1" : "+r"(value), "+m"(*p));
    __asm__ volatile("lock subb $1, %0" : "+m"(*(u8 *)p)::"cc");
    __asm__ volatile("lock orw $0x100, %0" : "+m"(*(u16 *)p)::"cc");
    return mix(mix(mix(old, taken), value), (u32)carry << 1 | equal);
}

static u32 exchange_eight_bytes(void *where, u32 value)
{
    u64 *p = where;
    u64 expected = *p ^ (value & 3 ? 0 : 1);
    u32 low = (u32)expected, high = (u32)(expected >> 32);
    u8 equal;
    __asm__ volatile("lock cmpxchg8b %2\n\tsete %3"
                     : "+a"(low), "+d"(high), "+m"(*p), "=m"(equal)
                     : "b"(value), "c"(~value)
                     : "cc");
    return mix(mix(low, high), equal);
}

int main(void)
{
    u32 sum = 2166136261u;
    for (u32 loop = 0; loop < LOOPS; loop++) {
        sum = mix(sum, locked_operations(area + 64, sum));
        sum = mix(sum, locked_operations(area + 62, loop));
        sum = mix(sum, locked_operations(area + 4094, loop * 3));
        sum = mix(sum, exchange_eight_bytes(area + 128, loop));
        sum = mix(sum, exchange_eight_bytes(area + 4092, loop));
    }
    put_checksum("x86_lock", sum);
    power_off(0);
}
