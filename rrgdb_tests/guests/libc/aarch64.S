/* AArch64 `virt` machine, EL1, MMU off: start, PL011 at 0x09000000, PSCI by hvc, semihosting exit. */
    .section .text.start, "ax"
    .globl _start
_start:
    mov   x0, #(3 << 20)            /* CPACR_EL1.FPEN: no traps */
    msr   cpacr_el1, x0
    isb
    adrp  x1, __stack_top
    add   x1, x1, :lo12:__stack_top
    mov   sp, x1
    adrp  x0, __bss_start
    add   x0, x0, :lo12:__bss_start
    adrp  x1, __bss_end
    add   x1, x1, :lo12:__bss_end
1:  cmp   x0, x1
    b.hs  2f
    str   xzr, [x0], #8
    b     1b
2:  bl    main
    bl    power_off

    .text
    .globl uart_putc
    .type uart_putc, @function
uart_putc:
    mov   x1, #0x09000000
1:  ldr   w2, [x1, #0x18]
    tbnz  w2, #5, 1b
    str   w0, [x1]
    ret
    .size uart_putc, . - uart_putc

    .globl uart_poll
    .type uart_poll, @function
uart_poll:
    mov   x1, #0x09000000
    ldr   w2, [x1, #0x18]
    mov   w0, #-1
    tbnz  w2, #4, 1f
    ldr   w0, [x1]
    and   w0, w0, #0xff
1:  ret
    .size uart_poll, . - uart_poll

    .globl power_off
    .type power_off, @function
power_off:
    cbnz  w0, 1f
    mov   w0, #0x84000000           /* PSCI SYSTEM_OFF */
    add   w0, w0, #8
    hvc   #0
    b     2f
1:  mov   w0, w0
    movz  x1, #0x2, lsl #16         /* ADP_Stopped_ApplicationExit, status */
    movk  x1, #0x26
    stp   x1, x0, [sp, #-16]!
    mov   x1, sp
    mov   w0, #0x18                 /* SYS_EXIT */
    hlt   #0xf000
2:  wfi
    b     2b
    .size power_off, . - power_off
