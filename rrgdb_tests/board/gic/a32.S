    .syntax unified
    .arch armv7-a
    .arch_extension virt
    .globl _start, to_user, psci
    .text
_start:
    ldr sp, =top
    ldr r0, =vectors
    mcr p15, 0, r0, c12, c0, 0
    isb
    bl kernel
    b .
to_user:
    cps #31
    ldr sp, =user_top
    cps #19
    mov r0, #16
    msr spsr_cxsf, r0
    adr lr, 1f
    movs pc, lr
1:  bl user
    svc #0
psci:
    hvc #0
    bx lr

    .balign 32
vectors:
    .space 8
    b call
    .space 12
    b entry
    .space 4
call:
    cpsid i
    ldr sp, =top
    b system_call
entry:
    sub lr, lr, #4
    srsdb sp!, #19
    cps #19
    push {r0-r3, r12, lr}
    ldr r0, [sp, #28]
    and r0, r0, #15
    rsbs r0, r0, #1
    movmi r0, #0
    mov r1, sp
    and r1, r1, #4
    sub sp, sp, r1
    push {r1, r2}
    bl irq
    pop {r1, r2}
    add sp, sp, r1
    pop {r0-r3, r12, lr}
    rfeia sp!

    .bss
    .balign 16
    .space 8192
top:
    .space 4096
user_top:
