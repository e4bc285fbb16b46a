/* Single-precision values in registers of 64 bits: boxed results, sources that are not boxed. */
    la t0, trap
    csrw mtvec, t0
    li t0, 3 << 13
    csrs mstatus, t0
    li s11, 40
again:
    la s1, data
    flw fa0, 0(s1)
    flw fa1, 4(s1)
    fld fa2, 8(s1)              /* not boxed */
    fadd.s fa3, fa0, fa1
    fsd fa3, 16(s1)
    fadd.s fa4, fa0, fa2        /* a NaN */
    fsd fa4, 24(s1)
    fsgnj.s fa5, fa2, fa0
    fsgnjn.s fa6, fa0, fa2
    feq.s a0, fa2, fa2
    fclass.s a1, fa2
    fmv.w.x ft0, a1
    fcvt.s.w ft1, a1
    fcvt.s.d ft2, fa2
    fcvt.d.s ft3, fa2
    fmadd.s ft4, fa0, fa1, fa2
    fmin.s ft5, fa0, fa2
    fmv.x.w a2, fa2
    fsw fa2, 32(s1)
    li a3, 3
1:  fmul.s fs0, fa0, fa1        /* blocks that are counted as a whole */
    fadd.s fs1, fs0, fa0
    fsqrt.s fs2, fs1
    addi a3, a3, -1
    bnez a3, 1b
    li a3, 2
2:  fmul.s fs0, fa0, fa2
    fadd.d fs3, fs0, fs0        /* reads the upper half */
    fadd.s fs4, fs3, fa0
    fld fs0, 8(s1)
    fadd.s fs5, fs0, fa0
    addi a3, a3, -1
    bnez a3, 2b
    fsd fs0, 40(s1)
    fsd fs2, 48(s1)
    fadd.s fs6, fa0, fa0
    lw a4, 0(zero)              /* a block that is left in its middle */
    fadd.s fs7, fa0, fa0
    addi s11, s11, -1
    bnez s11, again
3:  j 3b
    .balign 4
trap:                           /* the load is two bytes long, or four */
    csrr t0, mepc
    lhu t1, 0(t0)
    andi t1, t1, 3
    addi t0, t0, 2
    addi t1, t1, -3
    bnez t1, 4f
    addi t0, t0, 2
4:  csrw mepc, t0
    mret
    .balign 8
data:
    .word 0x3fc00000, 0xc0200000, 0x40490fdb, 0x400921fb
    .space 48
