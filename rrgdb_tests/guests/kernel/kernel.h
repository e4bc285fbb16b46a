/* A preemptive kernel: what its parts know of each other. Built in one piece, without a C library. */
#ifndef KERNEL_H
#define KERNEL_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned long uptr;

/* What may be given on the compiler's command line. */
#ifndef PERIOD_NS
#define PERIOD_NS 100000 /* virtual nanoseconds from one timer interrupt to the next */
#endif
#ifndef ROUNDS
#define ROUNDS 100000 /* increments of `counter` by each worker */
#endif
#ifndef WORK
#define WORK 200 /* steps of the generator between two increments, and up to 63 more */
#endif
#ifndef CHECK
#define CHECK 16 /* rounds between two looks at the sum; a power of two */
#endif
#ifndef INPUT
#define INPUT 0 /* characters that are waited for and echoed */
#endif

#define PAGE 4096
#define USER_ALIAS 0x21000000ul /* the page of user.c's data once more */
#define STACK_TOP 0x22000000ul
#define STACK_PAGES 4
#define ARENA 0x23000000ul
#define ARENA_PAGES 16
#define FLIP 0x24000000ul /* one of two pages, changed by a system call */
#define CODE 0x25000000ul /* a page of code that is written at its other address, */
#define CODE_ALIAS 0x26000000ul
#define WILD 0x2f000000ul /* nothing, ever */

#if defined(__riscv)
#include "riscv.h"
#elif defined(__aarch64__)
#include "aarch64.h"
#else
#include "arm.h"
#endif

enum kind { USER_TEXT, USER_DATA };
enum access { FETCH, LOAD, STORE };
enum call { CALL_WRITE, CALL_YIELD, CALL_SLEEP, CALL_GETC, CALL_FLIP, CALL_CODE, CALL_REPORT, CALL_EXIT };
enum state { READY, ASLEEP, READING, DEAD };

struct space {
    entry *root;
    u32 asid;
};

struct thread {
    struct frame frame;
    struct space space;
    enum state state;
    u32 wake; /* tick until which it sleeps */
    u32 flipped;
    u32 result;
};

/* kernel.c: what the traps of each CPU come to; all return the frame to go on with. */
extern struct thread *current;
struct frame *timer_tick(void);
struct frame *uart_received(int c);
struct frame *system_call(struct frame *frame);
struct frame *page_fault(struct frame *frame, uptr address, enum access access);
void panic(const char *what, uptr value) __attribute__((noreturn));
void *page_new(void);

/* each CPU's own part */
extern const char cpu_name[];
void machine_start(void); /* interrupt controller, receive interrupt, first timer interrupt */
void timer_again(void);
void uart_put(int c);
void power_off(void) __attribute__((noreturn));
entry *kernel_root(void); /* a root table with the kernel's large pages */
void space_map(struct space *space, uptr address, uptr physical, enum kind kind);
entry *space_entry(struct space *space, uptr address); /* of a 4 KiB page; null without a table */
int entry_present(entry e);
int entry_touch(entry *e); /* whether the page had not been accessed; it has been now */
void space_use(const struct space *space);
void page_forget(const struct space *space, uptr address);
void user_access(int on);
void code_changed(uptr address); /* instructions there were written */
void frame_start(struct frame *frame, uptr pc, uptr stack, uptr argument, int user);
void resume(struct frame *frame) __attribute__((noreturn));

/* user.c */
#define USER_CODE __attribute__((section(".user.text"), noinline, noclone))
#define USER_TEXTS __attribute__((section(".user.rodata")))
#define USER_VALUES __attribute__((section(".user.data")))
extern volatile u32 counter, mailbox;
uptr u_syscall(uptr number, uptr a, uptr b);
void worker(uptr me);
void prober(uptr me);
void echoer(uptr me);

/* kernel.ld; those of the user's part are addresses in RAM and for the user */
extern char __stack_top[], __pages[], __pages_end[], __user_text[], __user_text_end[], __user_text_stored[];
extern char __user_data[], __user_data_stored[], __idle_stack_top[];

#endif
