/* PC started in flat 64-bit mode at the ELF entry, RSP at the top of RAM, SSE on: COM1, isa-debug-exit. */
    .section .text.start, "ax"
    .globl _start
_start:
    cli
    mov   $__stack_top, %rsp
    fninit
    pushq $0x1f80
    ldmxcsr (%rsp)
    pop   %rax
    mov   $__bss_start, %rdi
    mov   $__bss_end, %rcx
    sub   %rdi, %rcx
    shr   $3, %rcx
    xor   %eax, %eax
    cld
    rep   stosq
    call  main
    mov   %eax, %edi
    call  power_off

    .text
    .globl uart_putc
    .type uart_putc, @function
uart_putc:
    mov   $0x3fd, %edx
1:  inb   %dx, %al
    test  $0x20, %al
    jz    1b
    mov   %edi, %eax
    mov   $0x3f8, %edx
    outb  %al, %dx
    ret
    .size uart_putc, . - uart_putc

    .globl uart_poll
    .type uart_poll, @function
uart_poll:
    mov   $0x3fd, %edx
    inb   %dx, %al
    test  $1, %al
    mov   $-1, %eax
    jz    1f
    xor   %eax, %eax
    mov   $0x3f8, %edx
    inb   %dx, %al
1:  ret
    .size uart_poll, . - uart_poll

    .globl power_off
    .type power_off, @function
power_off:
    mov   %edi, %eax
    outb  %al, $0xf4
1:  hlt
    jmp   1b
    .size power_off, . - power_off
