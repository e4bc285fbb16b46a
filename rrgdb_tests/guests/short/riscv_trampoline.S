/* Translation on where it maps the code elsewhere only, and off again there, as Linux begins: what comes behind either
 * write of satp is not mapped where it was, with no fence between, and the trap is what goes on. */
    .option norvc
    .text
    la t0, trap
    csrw mtvec, t0
    li t0, -1
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    li t0, 1 << 12 | 1 << 1     /* faults of fetches: the supervisor's */
    csrw medeleg, t0
    la s2, root
    la s4, start                /* here, and where it is mapped */
#if __riscv_xlen == 64
    srli t0, s4, 30
    slli t1, t0, 28
    ori t1, t1, 0xcf            /* D A X W R V */
    li t2, 510 * 8
    add t2, t2, s2
    sd t1, 0(t2)
    li s5, -1 << 31             /* 510 GiB into the upper half, as 0x80000000 */
    slli t0, t0, 30
    sub s5, s5, t0
    li s3, 8
    slli s3, s3, 60
#else
    srli t0, s4, 22
    slli t1, t0, 20
    ori t1, t1, 0xcf
    li t2, 768 * 4
    add t2, t2, s2
    sw t1, 0(t2)
    li s5, 3 << 30
    slli t0, t0, 22
    sub s5, s5, t0
    li s3, 1
    slli s3, s3, 31
#endif
    srli t0, s2, 12
    or s3, s3, t0
    li t0, 3 << 11
    csrc mstatus, t0
    li t0, 1 << 11
    csrs mstatus, t0
    csrw mepc, s4
    li s0, 0
    mret
    .balign 64
start:
    la t0, high
    add t0, t0, s5
    csrw stvec, t0
    sfence.vma
    csrw satp, s3
    addi s0, s0, 1              /* not reached: nothing is mapped here */
    addi s0, s0, 1
    .balign 64
high:
    csrr t1, scause
    csrr t2, sepc
    slli s0, s0, 1
    add s0, s0, t1
    xor s0, s0, t2
    la t0, low
    sub t0, t0, s5
    csrw stvec, t0
    csrw satp, zero
    addi s0, s0, 3              /* not reached: there is no memory here */
    .balign 64
low:
    csrr t1, scause
    csrr t2, sepc
    slli s0, s0, 1
    add s0, s0, t1
    xor s0, s0, t2
    j start
    .balign 4
trap:
    j trap
    .balign 4096
root:
    .space 4096
