/* PMP: a page denied, one to read only, parts of a page; user, supervisor and machine mode, MPRV, a locked entry; entries
   changed on the way. s0 gathers what happened; a trap goes on behind the instruction that caused it. */
    .option norvc
    la t0, trap
    csrw mtvec, t0
    la s2, data                 /* page 0 denied, page 1 to read only, page 2 in parts */
    li s0, 0
    srli t0, s2, 2
    ori t0, t0, 0x1ff
    csrw pmpaddr0, t0           /* NAPOT: 4 KiB, nothing */
    li t1, 0x1000
    add t1, t1, s2
    srli t0, t1, 2
    ori t0, t0, 0x1ff
    csrw pmpaddr1, t0           /* NAPOT: 4 KiB, read */
    li t1, 0x2000
    add t1, t1, s2
    srli t0, t1, 2
    csrw pmpaddr2, t0
    addi t0, t0, 5
    csrw pmpaddr3, t0           /* TOR: 20 bytes, read and write */
    addi t0, t0, 1
    csrw pmpaddr4, t0           /* TOR: 4 bytes, nothing */
    li t0, -1
    csrw pmpaddr5, t0           /* NAPOT: all of it, everything */
    li t0, 0x080b0019
    slli t0, t0, 8
    li t1, 0x18
    or t0, t0, t1
#if __riscv_xlen == 64
    li t0, 0x1f080b001918
    csrw pmpcfg0, t0
#else
    li t0, 0x0b001918
    csrw pmpcfg0, t0
    li t0, 0x1f08
    csrw pmpcfg1, t0
#endif
    li t0, 3 << 11
    csrc mstatus, t0
    la t0, user
    csrw mepc, t0
    mret
user:
    call touch
    li a7, 1
    ecall                       /* to supervisor mode */
    call touch
    li a7, 3
    ecall                       /* to machine mode */
    call touch
    li t0, 1 << 17 | 3 << 11    /* loads and stores as in user mode */
    li t1, 3 << 11
    csrc mstatus, t1
    li t1, 1 << 17
    csrs mstatus, t1
    call touch
    li t1, 1 << 17
    csrc mstatus, t1
    li t0, 0x98                 /* the denied page: locked, so that machine mode is bound by it */
    csrs pmpcfg0, t0
    call touch
    csrw pmpcfg0, zero          /* all but the locked one are off */
    csrw pmpaddr0, zero
#if __riscv_xlen == 32
    csrw pmpcfg1, zero
#endif
    call touch
    csrr s3, pmpcfg0
    csrr s4, pmpaddr0
    la t0, end
    csrw mepc, t0
    li t0, 3 << 11
    csrc mstatus, t0
    mret                        /* in user mode no entry matches this */
end:
    nop

touch:
    lw a0, 0(s2)
    sw a0, 4(s2)
    li t6, 0x1000
    add t6, t6, s2
    lw a0, 0(t6)
    add s0, s0, a0
    sw a0, 4(t6)
    amoadd.w a1, a0, (t6)
    li t6, 0x2000
    add t6, t6, s2
    lw a0, 0(t6)
    sw s0, 16(t6)
    sw s0, 20(t6)
    lhu a0, 18(t6)
    lw a0, 18(t6)               /* runs into the next part */
    lw a0, 24(t6)
    add s0, s0, a0
    li t6, 0x0ffe
    add t6, t6, s2
    lw a0, 0(t6)                /* begins in the denied page */
    li t6, 0x1ffe
    add t6, t6, s2
    sw a0, 0(t6)                /* ends in the page of parts */
    jr ra

    .balign 4
trap:
    csrr t3, mcause
    csrr t4, mtval
    csrr t5, mepc
    slli s0, s0, 3
    add s0, s0, t3
    xor s0, s0, t4
    xor s0, s0, t5
    li t4, 8
    bltu t3, t4, 1f
    li t4, 11
    bgtu t3, t4, 1f
    slli t4, a7, 11             /* an ecall: to the mode in a7 */
    li t3, 3 << 11
    csrc mstatus, t3
    csrs mstatus, t4
1:  addi t5, t5, 4
    la t3, end + 4
    bgeu t5, t3, 2f
    csrw mepc, t5
    mret
2:  j 2b
    .balign 4096
data:
    .rept 3
    .word 0x11111111, 0x22222222, 3, 4, 5, 6, 7, 8
    .balign 4096
    .endr
