/* 32-bit Arm `virt` machine, SVC mode, MMU off: start, PL011 at 0x09000000, PSCI by hvc, semihosting exit. In A32 or
   Thumb as the compiler's; uart_putc is A32 always, so that every Thumb guest changes between them. */
#ifdef __thumb__
#define FLAVOUR .thumb
#else
#define FLAVOUR .arm
#endif
    .syntax unified
    .arch_extension virt
    .section .text.start, "ax"
    FLAVOUR
    .globl _start
    .type _start, %function
_start:
    mrc   p15, 0, r0, c1, c0, 2     /* CPACR: FP and SIMD on */
    orr   r0, r0, #(0xf << 20)
    mcr   p15, 0, r0, c1, c0, 2
    isb
    mov   r0, #(1 << 30)            /* FPEXC.EN */
    vmsr  fpexc, r0
    ldr   r0, =__stack_top
    mov   sp, r0
    ldr   r0, =__bss_start
    ldr   r1, =__bss_end
    mov   r2, #0
1:  cmp   r0, r1
    bhs   2f
    str   r2, [r0], #4
    b     1b
2:  bl    main
    bl    power_off
    .ltorg

    .text
    .arm
    .globl uart_putc
    .type uart_putc, %function
uart_putc:
    mov   r1, #0x09000000
1:  ldr   r2, [r1, #0x18]
    tst   r2, #(1 << 5)
    bne   1b
    str   r0, [r1]
    bx    lr
    .size uart_putc, . - uart_putc

    FLAVOUR
    .globl uart_poll
    .type uart_poll, %function
uart_poll:
    mov   r1, #0x09000000
    ldr   r2, [r1, #0x18]
    tst   r2, #(1 << 4)
    itte  eq
    ldreq r0, [r1]
    uxtbeq r0, r0
    mvnne r0, #0
    bx    lr
    .size uart_poll, . - uart_poll

    .globl power_off
    .type power_off, %function
power_off:
    cmp   r0, #0
    bne   1f
    ldr   r0, =0x84000008           /* PSCI SYSTEM_OFF */
    hvc   #0
    b     2f
1:  ldr   r1, =0x20026              /* ADP_Stopped_ApplicationExit, status */
    push  {r0, r1}
    str   r1, [sp]
    str   r0, [sp, #4]
    mov   r1, sp
    mov   r0, #0x20                 /* SYS_EXIT_EXTENDED */
#ifdef __thumb__
    svc   #0xab
#else
    svc   #0x123456
#endif
2:  wfi
    b     2b
    .ltorg
    .size power_off, . - power_off
