/* Exceptions through an IDT: division by zero, int3, ud2 and int n; the handlers log the vector and skip. */
#include "guest.h"

#ifndef LOOPS
#define LOOPS 300
#endif

struct frame {
    uptr vector, ip, cs, flags;
};

volatile u32 handled[256];
volatile u32 log_sum = 2166136261u;

/* Called by the entry code with the frame; returns in frame->ip where to go on. */
__attribute__((used)) void handle(struct frame *frame)
{
    handled[frame->vector & 255]++;
    log_sum = mix(log_sum, (u32)frame->vector);
    log_sum = mix(log_sum, (u32)frame->flags & 0x8d5);
    if (frame->vector == 0 || frame->vector == 6)
        frame->ip += 2; /* div %ecx and ud2 are two bytes long */
}

#ifdef __x86_64__
#define SAVE                                                                                                            \
    "push %rax\n push %rcx\n push %rdx\n push %rbx\n push %rbp\n push %rsi\n push %rdi\n push %r8\n push %r9\n"         \
    "push %r10\n push %r11\n lea 88(%rsp), %rdi\n cld\n call handle\n"                                                  \
    "pop %r11\n pop %r10\n pop %r9\n pop %r8\n pop %rdi\n pop %rsi\n pop %rbp\n pop %rbx\n pop %rdx\n pop %rcx\n"       \
    "pop %rax\n add $8, %rsp\n iretq\n"
#define PUSH "pushq $"
#else
#define SAVE "pusha\n lea 32(%esp), %eax\n push %eax\n cld\n call handle\n pop %eax\n popa\n add $4, %esp\n iret\n"
#define PUSH "pushl $"
#endif
#define ENTRY(n) ".globl vector" #n "\nvector" #n ": " PUSH #n "\n jmp common\n"

__asm__(".text\n" ENTRY(0) ENTRY(3) ENTRY(6) ENTRY(64) "common:\n" SAVE);

extern char vector0[], vector3[], vector6[], vector64[];

static u64 gdt[] = {
    0,
#ifdef __x86_64__
    0x00af9a000000ffffull, /* 64-bit code */
#else
    0x00cf9a000000ffffull, /* 32-bit code */
#endif
    0x00cf92000000ffffull,
};
static u32 idt[256 * sizeof(uptr) / 2] __attribute__((aligned(16)));

struct __attribute__((packed)) pointer {
    u16 limit;
    uptr base;
};

static void set_gate(u32 vector, const char *entry)
{
    u32 *gate = idt + vector * sizeof(uptr) / 2;
    uptr address = (uptr)entry;
    gate[0] = 8u << 16 | (address & 0xffff);
    gate[1] = ((u32)address & 0xffff0000u) | 0x8e00; /* present, interrupt gate */
#ifdef __x86_64__
    gate[2] = (u32)(address >> 32);
    gate[3] = 0;
#endif
}

static void load_tables(void)
{
    struct pointer gdtr = {sizeof gdt - 1, (uptr)gdt}, idtr = {sizeof idt - 1, (uptr)idt};
    set_gate(0, vector0);
    set_gate(3, vector3);
    set_gate(6, vector6);
    set_gate(64, vector64);
#ifdef __x86_64__
    __asm__ volatile("lgdt %0\n\tpushq $8\n\tpushq $1f\n\tlretq\n1:" : : "m"(gdtr) : "memory");
#else
    __asm__ volatile("lgdt %0\n\tljmp $8, $1f\n1:" : : "m"(gdtr) : "memory");
#endif
    __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es\n\tmov %0, %%ss" : : "r"(16) : "memory");
    __asm__ volatile("lidt %0" : : "m"(idtr) : "memory");
}

int main(void)
{
    u32 sum = 2166136261u;
    load_tables();
    for (u32 loop = 0; loop < LOOPS; loop++) {
        u32 low = loop, high = 0, divisor = loop % 3;
        __asm__ volatile("div %%ecx" : "+a"(low), "+d"(high) : "c"(divisor) : "cc", "memory");
        sum = mix(mix(sum, low), high);
        if (loop % 2)
            __asm__ volatile("int3" ::: "memory");
        if (loop % 5 == 0)
            __asm__ volatile("ud2" ::: "memory");
        if (loop % 7 == 0)
            __asm__ volatile("int $64" ::: "memory");
        sum = mix(sum, log_sum);
    }
    for (u32 i = 0; i < 256; i++)
        sum = mix(sum, handled[i]);
    put_checksum("x86_trap", sum);
    power_off(handled[0] == (LOOPS + 2) / 3 ? 0 : 1);
}
