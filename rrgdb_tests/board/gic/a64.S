    .globl _start, to_user, psci
    .text
_start:
    ldr x0, =top
    mov sp, x0
    ldr x0, =vectors
    msr vbar_el1, x0
    isb
    bl kernel
    b .
to_user:
    ldr x0, =user_top
    msr sp_el0, x0
    adr x0, 1f
    msr elr_el1, x0
    msr spsr_el1, xzr
    eret
1:  bl user
    svc #0
psci:
    hvc #0
    ret

    .balign 2048
vectors:
    .org vectors + 0x280
    stp x0, x1, [sp, #-16]!
    mov x0, #0
    b entry
    .org vectors + 0x400
    ldr x0, =top
    mov sp, x0
    b system_call
    .org vectors + 0x480
    stp x0, x1, [sp, #-16]!
    mov x0, #1
    b entry
    .org vectors + 0x800
entry:
    stp x2, x3, [sp, #-16]!
    stp x4, x5, [sp, #-16]!
    stp x6, x7, [sp, #-16]!
    stp x8, x9, [sp, #-16]!
    stp x10, x11, [sp, #-16]!
    stp x12, x13, [sp, #-16]!
    stp x14, x15, [sp, #-16]!
    stp x16, x17, [sp, #-16]!
    stp x18, x30, [sp, #-16]!
    mrs x1, elr_el1
    mrs x2, spsr_el1
    stp x1, x2, [sp, #-16]!
    bl irq
    ldp x1, x2, [sp], #16
    msr elr_el1, x1
    msr spsr_el1, x2
    ldp x18, x30, [sp], #16
    ldp x16, x17, [sp], #16
    ldp x14, x15, [sp], #16
    ldp x12, x13, [sp], #16
    ldp x10, x11, [sp], #16
    ldp x8, x9, [sp], #16
    ldp x6, x7, [sp], #16
    ldp x4, x5, [sp], #16
    ldp x2, x3, [sp], #16
    ldp x0, x1, [sp], #16
    eret

    .bss
    .balign 16
    .space 8192
top:
    .space 4096
user_top:
