/* What every bare guest gets from its start file and libc.c. */
#ifndef GUEST_H
#define GUEST_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned long uptr;

#define NOINLINE __attribute__((noinline, noclone))
/* A code page of its own. */
#define HOT __attribute__((section(".text.hot"), noinline, noclone))
#define BARRIER() __asm__ volatile("" ::: "memory")

void uart_putc(int c);
int uart_poll(void); /* a received byte, or -1 */
void power_off(int status) __attribute__((noreturn));

void put_string(const char *text);
void put_hex(u32 value);
/* "NAME checksum XXXXXXXX\n" */
void put_checksum(const char *name, u32 sum);
u32 mix(u32 sum, u32 value); /* one step of FNV-1a over a whole word */

#endif
