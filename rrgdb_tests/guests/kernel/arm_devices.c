#include "kernel.h"
#include "arm_devices.h"

#define REGISTER8(address) (*(volatile u8 *)(uptr)(address))
#define REGISTER(address) (*(volatile u32 *)(uptr)(address))
#define GICD 0x08000000
#define GICC 0x08010000
#define PL011 0x09000000
#define TIMER_ID 27
#define UART_ID 33

void uart_put(int c)
{
    while (REGISTER(PL011 + 0x18) & 0x20)
        ;
    REGISTER(PL011) = (u8)c;
}

void machine_start(void)
{
    REGISTER8(GICD + 0x400 + TIMER_ID) = 0xa0;
    REGISTER8(GICD + 0x400 + UART_ID) = 0x80;
    REGISTER8(GICD + 0x800 + UART_ID) = 1;
    REGISTER(GICD + 0x100) = 1u << TIMER_ID;
    REGISTER(GICD + 0x104) = 1u << (UART_ID - 32);
    REGISTER(GICD) = 1;
    REGISTER(GICC + 4) = 0xf0;
    REGISTER(GICC) = 1;
    REGISTER(PL011 + 0x2c) = 0x70; /* 8 bits, FIFOs */
    REGISTER(PL011 + 0x30) = 0x301;
    REGISTER(PL011 + 0x34) = 0; /* an interrupt at 1/8 */
    REGISTER(PL011 + 0x38) = 0x50; /* receive, receive time-out */
    timer_again();
}

struct frame *interrupt(void)
{
    struct frame *next = &current->frame;
    u32 id = REGISTER(GICC + 0x0c);
    if ((id & 0x3ff) == TIMER_ID)
        next = timer_tick();
    else if ((id & 0x3ff) == UART_ID)
        while (!(REGISTER(PL011 + 0x18) & 0x10))
            next = uart_received(REGISTER(PL011) & 0xff);
    if ((id & 0x3ff) < 1020)
        REGISTER(GICC + 0x10) = id;
    return next;
}
