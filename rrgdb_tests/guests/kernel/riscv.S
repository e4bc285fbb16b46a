/* RISC-V `virt`: from M mode on; M mode passes the timer's interrupt to S mode, as firmware does. */
#if __riscv_xlen == 64
#define S sd
#define L ld
#define B 8
#else
#define S sw
#define L lw
#define B 4
#endif
#define CLINT_MTIMECMP 0x2004000
#define CLINT_MTIME 0x200bff8
#define MTIE 0x80
#define STIP 0x20

    .option norvc
    .section .text.start, "ax"
    .globl _start
_start:
    la    sp, __stack_top
    la    t0, __bss_start
    la    t1, __bss_end
1:  S     zero, 0(t0)
    addi  t0, t0, B
    bltu  t0, t1, 1b
    la    t0, machine_saved
    csrw  mscratch, t0
    la    t0, machine_trap
    csrw  mtvec, t0
    li    t0, -1                    /* PMP: all of it */
    csrw  pmpaddr0, t0
    li    t0, 0x1f
    csrw  pmpcfg0, t0
    li    t0, 0xb1ff                /* all exceptions but system calls of S and M */
    csrw  medeleg, t0
    li    t0, 0x222
    csrw  mideleg, t0
    la    t0, trap_vectors + 1
    csrw  stvec, t0
    li    t0, 3 << 11
    csrc  mstatus, t0
    li    t0, 1 << 11               /* to S mode */
    csrs  mstatus, t0
    la    t0, kernel
    csrw  mepc, t0
    csrw  satp, zero
    mret

/* M mode: the timer's interrupt becomes S mode's; a call of S mode with a0 sets it that many ticks from now. */
    .balign 4
    .globl machine_trap
machine_trap:
    csrrw sp, mscratch, sp
    S     t0, 0(sp)
    S     t1, B(sp)
    S     t2, 2*B(sp)
    csrr  t0, mcause
    bltz  t0, 3f
    li    t1, 9
1:  bne   t0, t1, 1b                /* nothing else comes here */
    li    t0, CLINT_MTIME
#if __riscv_xlen == 64
    ld    t1, 0(t0)
    add   t1, t1, a0
    li    t0, CLINT_MTIMECMP
    sd    t1, 0(t0)
#else
2:  lw    t2, 4(t0)
    lw    t1, 0(t0)
    lw    t0, 4(t0)
    bne   t0, t2, machine_again
    add   t1, t1, a0
    sltu  t0, t1, a0
    add   t2, t2, t0
    li    t0, CLINT_MTIMECMP
    li    a0, -1
    sw    a0, 0(t0)
    sw    t2, 4(t0)
    sw    t1, 0(t0)
#endif
    csrr  t0, mepc
    addi  t0, t0, 4
    csrw  mepc, t0
    li    t0, STIP
    csrc  mip, t0
    li    t0, MTIE
    csrs  mie, t0
    j     4f
#if __riscv_xlen == 32
machine_again:
    li    t0, CLINT_MTIME
    j     2b
#endif
3:  li    t0, MTIE
    csrc  mie, t0
    li    t0, STIP
    csrs  mip, t0
4:  L     t0, 0(sp)
    L     t1, B(sp)
    L     t2, 2*B(sp)
    csrrw sp, mscratch, sp
    .globl machine_exit
machine_exit:
    mret

    .text
    .balign 256
    .globl trap_vectors, svc_entry, irq_entry
trap_vectors:
svc_entry:
    j     trap_entry
    .rept 4
    j     .
    .endr
irq_entry:                          /* interrupt 5: timer */
    j     trap_entry
    .rept 3
    j     .
    .endr
    j     trap_entry                /* interrupt 9: external */
trap_entry:
    csrrw t0, sscratch, t0
    .irp  n, 1,2,3,4,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    S     x\n, \n*B(t0)
    .endr
    csrr  t1, sscratch
    S     t1, 5*B(t0)
    csrr  t1, sepc
    S     t1, 0(t0)
    csrr  t1, sstatus
    S     t1, 32*B(t0)
    la    sp, __stack_top
    mv    a0, t0
    call  trap
    .globl resume
resume:
    csrw  sscratch, a0
    L     t1, 0(a0)
    csrw  sepc, t1
    L     t1, 32*B(a0)
    csrw  sstatus, t1
    .irp  n, 1,2,3,4,5,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    L     x\n, \n*B(a0)
    .endr
    L     a0, 10*B(a0)
    .globl trap_exit
trap_exit:
    sret

    .globl set_timer
set_timer:
    ecall
    ret

    .section .user.text, "ax"
    .globl u_syscall, svc_insn
    .type u_syscall, @function
u_syscall:
    mv    a7, a0
    mv    a0, a1
    mv    a1, a2
svc_insn:
    ecall
    ret
    .size u_syscall, . - u_syscall

    .bss
    .balign 8
machine_saved:
    .space 3*B
