/* Ends at once, with a status that is not zero. */
#include "guest.h"

int main(void)
{
    power_off(3);
}
