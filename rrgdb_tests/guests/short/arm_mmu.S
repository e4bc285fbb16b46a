/* Translation on and off: sections as they are, an address that is not there; conditions, exclusives, system calls. */
#ifdef __thumb__
#define LDR ldr.w
#define LDRNE ldrne.w
    .thumb
#else
#define LDR ldr
#define LDRNE ldrne
#endif
    .syntax unified
    ldr r0, =vectors
    mcr p15, 0, r0, c12, c0, 0
    mov r7, #0
    ldr r8, =table
    lsr r1, r8, #20
    movw r2, #0x0c02
    orr r2, r2, r1, lsl #20     @ section: full access
    str r2, [r8, r1, lsl #2]
    mcr p15, 0, r8, c2, c0, 0
    mov r0, #0
    mcr p15, 0, r0, c2, c0, 2
    mov r0, #1
    mcr p15, 0, r0, c3, c0, 0   @ domain 0: client
    mrc p15, 0, r9, c1, c0, 0
    orr r10, r9, #1
    mov r11, #3
1:  mcr p15, 0, r10, c1, c0, 0
    isb
    ldr r1, [r8]
    mov r2, #0x80000000
    LDR r1, [r2]           @ not mapped
    ldrex r3, [r8]
    strex r4, r3, [r8]
    cmp r11, #2
    ite eq
    addeq r7, r7, #1
    LDRNE r1, [r2, #4]
    mov r0, #0
    mcr p15, 0, r0, c8, c7, 0
    dsb
    mcr p15, 0, r9, c1, c0, 0
    isb
    ldr r1, [r8]
    LDR r1, [r2, #8]       @ no memory there
    svc #0
    subs r11, r11, #1
    bne 1b
2:  b 2b
    .ltorg
    .arm
    .balign 32
vectors:
    b vectors
    b vectors
    b call
    b vectors
    b abort
call:
    add r7, r7, #0x100
    movs pc, lr
abort:
    mrc p15, 0, r5, c5, c0, 0
    mrc p15, 0, r6, c6, c0, 0
    add r7, r5, r7, lsl #3
    eor r7, r7, r6
    subs pc, lr, #4             @ behind the load
    .balign 16384
table:
    .space 16384
