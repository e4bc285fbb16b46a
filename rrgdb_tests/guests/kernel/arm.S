/* 32-bit Arm `virt`: the kernel in SVC mode, threads in user mode; what idles is in system mode. */
    .syntax unified
    .arm
    .arch_extension virt
    .section .text.start, "ax"
    .globl _start
_start:
    ldr   sp, =__stack_top
    ldr   r0, =__bss_start
    ldr   r1, =__bss_end
    mov   r2, #0
1:  str   r2, [r0], #4
    cmp   r0, r1
    blo   1b
    ldr   r0, =vectors
    mcr   p15, 0, r0, c12, c0, 0    /* VBAR */
    bl    mmu_start
    b     kernel
    .ltorg

    .macro handler number, back
    .if   \back
    sub   lr, lr, #\back
    .endif
    srsdb sp!, #0x13
    cpsid i, #0x13
    push  {r0, r1}
    mov   r1, #\number
    b     trap_entry
    .endm

    .text
    .balign 32
    .globl vectors, svc_entry, irq_entry
vectors:
    b     .
    b     undefined
svc_entry:
    b     svc_handler
    b     prefetch_abort
    b     data_abort
    b     .
irq_entry:
    b     irq_handler
    b     .

undefined:
    handler 1, 0
svc_handler:
    handler 2, 0
prefetch_abort:
    handler 3, 4
data_abort:
    handler 4, 8
irq_handler:
    handler 6, 4

trap_entry:
    mrc   p15, 0, r0, c13, c0, 4    /* TPIDRPRW */
    add   r0, r0, #8
    stm   r0, {r2-r14}^
    nop
    sub   r0, r0, #8
    pop   {r2, r3}
    stm   r0, {r2, r3}
    pop   {r2, r3}
    str   r2, [r0, #60]
    str   r3, [r0, #64]
    bl    trap
    .globl resume
resume:
    ldr   sp, =__stack_top
    mcr   p15, 0, r0, c13, c0, 4
    ldr   r2, [r0, #60]
    ldr   r3, [r0, #64]
    push  {r2, r3}
    clrex
    ldm   r0, {r0-r14}^
    nop
    .globl trap_exit
trap_exit:
    rfeia sp!
    .ltorg

    .section .user.text, "ax"
    .globl u_syscall, svc_insn
    .type u_syscall, %function
u_syscall:
    push  {r7, lr}
    mov   r7, r0
    mov   r0, r1
    mov   r1, r2
svc_insn:
    svc   #0
    pop   {r7, pc}
    .size u_syscall, . - u_syscall
