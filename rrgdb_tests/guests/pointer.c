/* A pointer to nothing, then to a buffer; the target is written and read through it. */
#include "guest.h"

volatile u32 buffer[2];
volatile u32 *volatile pointer;
volatile u32 seen;

NOINLINE void aim(void)
{
    pointer = &buffer[1];
}

NOINLINE void shoot(u32 value)
{
    *pointer = value;
}

int main(void)
{
    aim();
    shoot(3);
    shoot(4);
    seen = *pointer;
    put_string("done\n");
    power_off(0);
}
