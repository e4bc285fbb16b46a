/* Multiboot PC, flat 32-bit protected mode: start, COM1 at 0x3f8, isa-debug-exit at 0xf4. */
    .section .text.start, "ax"
    .balign 4
    .long 0x1badb002, 0, -0x1badb002
    .globl _start
_start:
    cli
    mov   $__stack_top, %esp
    mov   %cr0, %eax                /* SSE on: CR0.MP, not EM; CR4.OSFXSR, OSXMMEXCPT */
    and   $~4, %eax
    or    $2, %eax
    mov   %eax, %cr0
    mov   %cr4, %eax
    or    $0x600, %eax
    mov   %eax, %cr4
    fninit
    mov   $__bss_start, %edi
    mov   $__bss_end, %ecx
    sub   %edi, %ecx
    shr   $2, %ecx
    xor   %eax, %eax
    cld
    rep   stosl
    call  main
    push  %eax
    call  power_off

    .text
    .globl uart_putc
    .type uart_putc, @function
uart_putc:
    mov   $0x3fd, %edx
1:  inb   %dx, %al
    test  $0x20, %al
    jz    1b
    mov   4(%esp), %eax
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
    mov   4(%esp), %eax
    outb  %al, $0xf4
1:  hlt
    jmp   1b
    .size power_off, . - power_off
