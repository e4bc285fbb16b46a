/* Two breakpoint instructions compiled in, with no handler; what a debugger passes over goes on. */
#include "guest.h"

#if defined(__riscv)
#define TRAP() __asm__ volatile("ebreak")
#elif defined(__aarch64__)
#define TRAP() __asm__ volatile("brk #7")
#elif defined(__arm__)
#define TRAP() __asm__ volatile("bkpt #7")
#else
#define TRAP() __asm__ volatile("int3")
#endif

volatile u32 stage;

int main(void)
{
    stage = 1;
    TRAP();
    stage = 2;
    TRAP();
    stage = 3;
    put_string("passed\n");
    power_off(0);
}
