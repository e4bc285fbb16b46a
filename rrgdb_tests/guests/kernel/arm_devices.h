/* The GIC and the PL011 of Arm's `virt`. */
#define TIMER_TICK_NS 16
#define SYSTEM_OFF 0x84000008

struct frame *interrupt(void);
