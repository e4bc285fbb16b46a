/* Two address spaces with small pages, told apart by TTBR0 and ASID; accesses that run into a page that is not there, in
 * and out of IT blocks; a fetch from there; code that is changed; user mode, and conditions within all of it. Data are at
 * 0x80000000 and in the page behind, which is there every other time. */
#ifdef __thumb__
#define THUMB 1
#define RETURN 0x4770
    .thumb
#else
#define THUMB 0
#define RETURN 0xe12fff1e
#endif
    .syntax unified
    ldr r0, =vectors
    mcr p15, 0, r0, c12, c0, 0
    /* sections as they are, full access; in both roots */
    ldr r8, =roots
    lsr r1, r8, #20
    movw r2, #0x0c02
    orr r2, r2, r1, lsl #20
    add r10, r8, #0x4000
    str r2, [r8, r1, lsl #2]
    str r2, [r10, r1, lsl #2]
    /* the tables of small pages */
    ldr r9, =tables
    orr r3, r9, #1
    mov r2, #0x2000
    str r3, [r8, r2]
    add r3, r3, #0x400
    str r3, [r10, r2]
    ldr r2, =pages + 0x83e      @ not global, user, normal, executable
    str r2, [r9]
    add r2, r2, #0x1000
    str r2, [r9, #0x400]
    mcr p15, 0, r8, c2, c0, 0
    mov r0, #0
    mcr p15, 0, r0, c2, c0, 2
    mcr p15, 0, r0, c8, c7, 0
    mov r0, #1
    mcr p15, 0, r0, c3, c0, 0
    mcr p15, 0, r0, c13, c0, 1
    mrc p15, 0, r0, c1, c0, 0
    orr r0, r0, #1
    mcr p15, 0, r0, c1, c0, 0
    isb
    mov r7, #0
    mov r11, #0
1:  add r11, r11, #1
    /* the other space: its root, and its ASID */
    tst r11, #1
    ite eq
    moveq r0, r8
    movne r0, r10
    mcr p15, 0, r0, c2, c0, 0
    and r0, r11, #1
    mcr p15, 0, r0, c13, c0, 1
    isb
    /* the second page comes and goes in this space */
    and r2, r11, #2
    ldr r3, =pages + 0x203e + 0x800
    cmp r2, #0
    it eq
    moveq r3, #0
    add r2, r9, #4
    tst r11, #1
    it ne
    addne r2, r2, #0x400
    str r3, [r2]
    mov r0, #0
    mcr p15, 0, r0, c8, c7, 0
    dsb
    isb
    mov r2, #0x80000000
    add r12, r2, #0xff0
    ldr r3, [r2]
    add r3, r3, r11
    str r3, [r2]
    add r7, r7, r3
    cmp r7, #0
    itttt mi
    addmi r7, r7, #1
    strmi r7, [r12, #12]
    ldrmi r4, [r12, #16]        @ in the second page
    addmi r7, r7, r4
    itee pl
    addpl r7, r7, #3
    strmi r11, [r12, #20]
    addmi r7, r7, #5
    add r0, r12, #8
    stm r0, {r3, r4, r7, r11}   @ half of it in the second page
    ldm r0, {r3, r4, r5, r6}
    eor r7, r7, r5, ror #7
    tst r11, #4
    itt ne
    ldrdne r4, r5, [r0, #8]
    eorne r7, r7, r4
    /* a fetch from the second page, where it is, of code that was just written */
    ldr r3, =RETURN
    str r3, [r12, #0x20]
    mcr p15, 0, r0, c7, c5, 0
    add r3, r12, #0x20 + THUMB
    blx r3
    /* user mode, and back */
    tst r11, #3
    bne 2f
    mov r0, #0x10
    orr r0, r0, #THUMB << 5
    msr spsr_fsxc, r0
    ldr lr, =user + THUMB
    subs pc, lr, #0
2:  cmp r11, #40
    blt 1b
3:  b 3b
#ifdef __thumb__
    .thumb_func
#endif
user:
    adds r7, r7, #9
    itt ne
    ldrne r3, [r2, #4]
    strne r7, [r2, #4]
    svc #0
    b user
    .ltorg
    .arm
    .balign 32
vectors:
    b vectors
    b vectors
    b call
    b fetch
    b abort
call:
    add r7, r7, #0x100
    mrs r0, spsr
    bic r0, r0, #15
    orr r0, r0, #0x13
    ldr lr, =2b + THUMB
    bic lr, lr, #1
    msr spsr_fsxc, r0
    movs pc, lr
fetch:                          @ back to where it was called from
    add r7, r7, #0x1000
    cps #0x13
    mov r3, lr
    cps #0x17
    bic lr, r3, #1
    movs pc, lr
abort:                          @ behind the instruction, which has four bytes or two
    mrc p15, 0, r5, c5, c0, 0
    mrc p15, 0, r6, c6, c0, 0
    add r7, r5, r7, ror #3
    eor r7, r7, r6
    mrs r5, spsr
    tst r5, #0x20
    moveq r6, #0xe800
    ldrhne r6, [lr, #-8]
    cmp r6, #0xe800
    subhs lr, lr, #4
    sublo lr, lr, #6
    /* ITSTATE behind it */
    lsr r6, r5, #8
    and r6, r6, #0xfc
    lsr r0, r5, #25
    and r0, r0, #3
    orr r6, r6, r0
    tst r6, #7
    and r0, r6, #0xe0
    and r6, r6, #0x1f
    lsl r6, r6, #1
    and r6, r6, #0x1f
    orr r6, r6, r0
    moveq r6, #0
    bic r5, r5, #0xfc00
    bic r5, r5, #0x06000000
    and r0, r6, #0xfc
    orr r5, r5, r0, lsl #8
    and r0, r6, #3
    orr r5, r5, r0, lsl #25
    msr spsr_fsxc, r5
    add r0, r12, #8
    movs pc, lr
    .ltorg
    .balign 4096
pages:
    .space 0x3000
    .balign 16384
roots:
    .space 0x8000
tables:
    .space 0x800
