/* A preemptive kernel for a Cortex-M3: SysTick switches between two unprivileged threads through PendSV, SVC prints and
 * ends. Both threads add to one counter without a lock: RACE of the additions are lost. */
#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define ICSR REGISTER(0xe000ed04)
#define PENDSVSET (1u << 28)
#ifndef ROUNDS
#define ROUNDS 3000
#endif
#ifndef PERIOD
#define PERIOD 60
#endif

typedef struct { uint32_t *sp; uint32_t stack[128]; } thread;

volatile uint32_t counter, ticks, switches, done;
static thread threads[2];
thread *current;

static void print(const char *text)
{
    while (*text)
        REGISTER(0x40004000) = (uint8_t)*text++;
}

static void hex(uint32_t value)
{
    for (int shift = 28; shift >= 0; shift -= 4)
        REGISTER(0x40004000) = (uint8_t)"0123456789abcdef"[value >> shift & 15];
    print("\n");
}

void systick_handler(void)
{
    ticks++;
    ICSR = PENDSVSET;
}

thread *next_thread(void)
{
    switches++;
    current = current == &threads[0] ? &threads[1] : &threads[0];
    return current;
}

__attribute__((naked)) void pendsv_handler(void)
{
    __asm__ volatile("mrs r0, psp\n stmdb r0!, {r4-r11}\n ldr r1, =current\n ldr r1, [r1]\n str r0, [r1]\n"
                     "push {r3, lr}\n bl next_thread\n pop {r3, lr}\n ldr r0, [r0]\n ldmia r0!, {r4-r11}\n msr psp, r0\n bx lr\n");
}

void svc(uint32_t *frame)
{
    uint32_t number = ((uint8_t *)frame[6])[-2];
    if (number == 1) {
        counter += 0;
        done++;
        if (done == 2) {
            print("counter "), hex(counter);
            print("ticks "), hex(ticks);
            __asm__ volatile("mov r0, #0x18\n ldr r1, =0x20026\n bkpt 0xab" ::: "r0", "r1", "memory");
        }
    }
}

__attribute__((naked)) void svc_handler(void)
{
    __asm__ volatile("mrs r0, psp\n b svc\n");
}

void fault_handler(void)
{
    print("fault\n");
    for (;;)
        ;
}

static void worker(void)
{
    for (uint32_t i = 0; i < ROUNDS; i++)
        counter++;
    __asm__ volatile("svc 1" ::: "memory");
    for (;;)
        __asm__ volatile("wfi");
}

static void prepare(thread *t)
{
    uint32_t *frame = t->stack + 128 - 8;
    frame[6] = (uint32_t)worker & ~1u;
    frame[7] = 1u << 24;
    t->sp = frame - 8;
}

void reset_handler(void)
{
    REGISTER(0x40004010) = 16;
    REGISTER(0x40004008) = 1;
    print("start\n");
    prepare(&threads[0]);
    prepare(&threads[1]);
    current = &threads[0];
    REGISTER(0xe000ed20) = 0x40ff0000; /* SysTick 0x40, PendSV last */
    REGISTER(0xe000e014) = PERIOD - 1;
    REGISTER(0xe000e018) = 0;
    REGISTER(0xe000e010) = 7;
    __asm__ volatile("msr psp, %0\n mov r0, #3\n msr control, r0\n isb\n bx %1" ::"r"(threads[0].stack + 128), "r"(worker) : "r0");
    for (;;)
        ;
}

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    (void *)0x20008000, (void *)reset_handler, (void *)fault_handler, (void *)fault_handler, (void *)fault_handler,
    (void *)fault_handler, (void *)fault_handler, 0, 0, 0, 0, (void *)svc_handler, (void *)fault_handler, 0,
    (void *)pendsv_handler, (void *)systick_handler,
};
