/* TSR, TW, TVM, UXL, counters that are written, triggers that do not exist, a code that is reserved. */
    la t0, trap
    csrw mtvec, t0
    li s0, 0
    li t0, -1
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    li t0, 3 << 13
    csrc mstatus, t0
    csrr s1, mstatus
    csrr s2, sstatus
    li t0, 7 << 20
    csrs mstatus, t0
    csrr s3, mstatus
    csrrc s4, mstatus, t0
    csrs mstatus, t0
    li t0, 3 << 11
    csrc mstatus, t0
    li t0, 1 << 11
    csrs mstatus, t0
    la t0, 1f
    csrw mepc, t0
    mret
    .balign 4
1:  .option push
    .option norvc
    sret
    wfi
    csrr a0, satp
    sfence.vma
    csrr a0, sstatus
    .option pop
    ecall                       /* to machine mode, TSR and its like off */
    csrwi minstret, 0
    csrr a0, minstret
    csrr a1, minstret
    li t0, 1000
    csrw mcycle, t0
    csrr a2, mcycle
    csrsi mcycle, 1
    csrr a3, mcycle
    csrr a4, tselect
    csrwi tdata1, 31
    csrr a5, tdata1
    .half 0x9c61                /* C.ZEXT.B s0 in Zcb */
    .half 0x8002                /* C.JR x0 */
    .option norvc
    csrw 0x3a1, t0              /* pmpcfg1 */
    csrw pmpaddr3, t0
    csrr a7, pmpaddr3
2:  j 2b
    .balign 4
trap:
    csrr t3, mcause
    csrr t4, mepc
    slli s0, s0, 4
    xor s0, s0, t3
    add s0, s0, t4
    lhu t5, 0(t4)
    andi t5, t5, 3
    addi t4, t4, 2
    addi t5, t5, -3
    bnez t5, 3f
    addi t4, t4, 2
3:  csrw mepc, t4
    li t5, 9
    bne t3, t5, 4f
    li t5, 7 << 20
    csrc mstatus, t5
    li t5, 3 << 11
    csrs mstatus, t5
4:  mret
