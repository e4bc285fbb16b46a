/* AArch64 `virt`: the kernel at EL1 with its own stack, threads at EL0; what idles is at EL1 on SP_EL0. */
    .section .text.start, "ax"
    .globl _start
_start:
    adrp  x1, __stack_top
    mov   sp, x1
    adrp  x0, __bss_start
    adrp  x1, __bss_end
    add   x1, x1, :lo12:__bss_end
1:  str   xzr, [x0], #8
    cmp   x0, x1
    b.lo  1b
    adr   x0, vectors
    msr   vbar_el1, x0
    bl    mmu_start
    b     kernel

    .macro handler number
    .balign 128
    stp   x0, x1, [sp, #-16]!
    mov   x1, #\number
    b     trap_entry
    .endm

    .text
    .balign 2048
    .globl vectors, svc_entry, irq_entry
vectors:
    handler 0
    handler 1                       /* an interrupt while the kernel idles */
    handler 2
    handler 3
    handler 4
    handler 5
    handler 6
    handler 7
    .balign 128
svc_entry:
    handler 8
    .balign 128
irq_entry:
    handler 9
    handler 10
    handler 11
    .rept 4
    handler 12
    .endr

trap_entry:
    mrs   x0, tpidr_el1
    stp   x2, x3, [x0, #8*2]
    stp   x4, x5, [x0, #8*4]
    stp   x6, x7, [x0, #8*6]
    stp   x8, x9, [x0, #8*8]
    stp   x10, x11, [x0, #8*10]
    stp   x12, x13, [x0, #8*12]
    stp   x14, x15, [x0, #8*14]
    stp   x16, x17, [x0, #8*16]
    stp   x18, x19, [x0, #8*18]
    stp   x20, x21, [x0, #8*20]
    stp   x22, x23, [x0, #8*22]
    stp   x24, x25, [x0, #8*24]
    stp   x26, x27, [x0, #8*26]
    stp   x28, x29, [x0, #8*28]
    str   x30, [x0, #8*30]
    ldp   x2, x3, [sp], #16
    stp   x2, x3, [x0]
    mrs   x2, sp_el0
    mrs   x3, elr_el1
    stp   x2, x3, [x0, #8*31]
    mrs   x2, spsr_el1
    str   x2, [x0, #8*33]
    bl    trap
    .globl resume
resume:
    adrp  x1, __stack_top
    mov   sp, x1
    msr   tpidr_el1, x0
    ldp   x2, x3, [x0, #8*31]
    msr   sp_el0, x2
    msr   elr_el1, x3
    ldr   x2, [x0, #8*33]
    msr   spsr_el1, x2
    ldr   x30, [x0, #8*30]
    ldp   x28, x29, [x0, #8*28]
    ldp   x26, x27, [x0, #8*26]
    ldp   x24, x25, [x0, #8*24]
    ldp   x22, x23, [x0, #8*22]
    ldp   x20, x21, [x0, #8*20]
    ldp   x18, x19, [x0, #8*18]
    ldp   x16, x17, [x0, #8*16]
    ldp   x14, x15, [x0, #8*14]
    ldp   x12, x13, [x0, #8*12]
    ldp   x10, x11, [x0, #8*10]
    ldp   x8, x9, [x0, #8*8]
    ldp   x6, x7, [x0, #8*6]
    ldp   x4, x5, [x0, #8*4]
    ldp   x2, x3, [x0, #8*2]
    ldp   x0, x1, [x0]
    .globl trap_exit
trap_exit:
    eret

    .section .user.text, "ax"
    .globl u_syscall, svc_insn
    .type u_syscall, @function
u_syscall:
    mov   x8, x0
    mov   x0, x1
    mov   x1, x2
svc_insn:
    svc   #0
    ret
    .size u_syscall, . - u_syscall
