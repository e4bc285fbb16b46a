/* Translation on and off: an identity map of large pages, a page that is not there, MPRV; traps on the way. */
    .option norvc
    la t0, trap
    csrw mtvec, t0
    li t0, -1
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    li s0, 0
    li s1, 3                    /* rounds */
    la s2, root
    /* the large page that this lies in, as itself */
#if __riscv_xlen == 64
    srli t0, s2, 30
    slli t1, t0, 28
    ori t1, t1, 0xcf            /* D A X W R V */
    andi t0, t0, 511
    slli t0, t0, 3
    add t0, t0, s2
    sd t1, 0(t0)
    li s3, 8
    slli s3, s3, 60
#else
    srli t0, s2, 22
    slli t1, t0, 20
    ori t1, t1, 0xcf
    slli t0, t0, 2
    add t0, t0, s2
    sw t1, 0(t0)
    li s3, 1
    slli s3, s3, 31
#endif
    srli t0, s2, 12
    or s3, s3, t0
round:
    csrw satp, s3
    lw a0, 0(s2)                /* machine mode is not translated */
    li t0, 3 << 11
    csrc mstatus, t0
    li t0, 1 << 11
    csrs mstatus, t0
    la t0, 1f
    csrw mepc, t0
    mret
1:  lw a0, 0(s2)
    li t0, 0x40
    lw a0, 0(t0)                /* not there */
    sfence.vma
    csrr t1, satp
    csrw satp, zero
    lw a0, 0(s2)
    lw a0, 0(t0)                /* no memory there */
    csrw satp, t1
    ecall
    li t0, 1 << 17
    csrs mstatus, t0
    li t0, 3 << 11
    csrc mstatus, t0
    li t0, 1 << 11
    csrs mstatus, t0
    lw a0, 0(s2)
    lw a0, 0x40(zero)           /* as supervisor */
    li t0, 1 << 17
    csrc mstatus, t0
    csrw satp, zero
    addi s1, s1, -1
    bnez s1, round
2:  j 2b
    .balign 4
trap:
    csrr t3, mcause
    csrr t4, mtval
    csrr t5, mepc
    slli s0, s0, 3
    add s0, s0, t3
    xor s0, s0, t4
    li t4, 9
    bne t3, t4, 3f
    li t4, 3 << 11
    csrs mstatus, t4
3:  addi t5, t5, 4
    csrw mepc, t5
    mret
    .balign 4096
root:
    .space 4096
