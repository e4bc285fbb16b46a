/* x86-64: faults, flags and string instructions in their middle, an interrupt, a divide error. */
    .code64
    lea gate(%rip), %rsi
    xor %ebx, %ebx
    lea idt(%rip), %rdi
    mov $32, %ecx
1:  mov %cs, %edx
    shl $16, %edx
    mov %esi, %eax
    and $0xffff, %eax
    or %edx, %eax
    mov %eax, (%rdi)
    mov %esi, %eax
    and $0xffff0000, %eax
    or $0x8e00, %eax
    mov %eax, 4(%rdi)
    movq $0, 8(%rdi)
    add $16, %rdi
    loop 1b
    lidt descriptor(%rip)
    mov $4, %ebp
round:
    add $0x7fffffff, %ebx
    pushf
    pop %rdx
    add %edx, %ebx
    lea idt(%rip), %rsi
    lea data(%rip), %rdi
    mov $5, %ecx
    rep movsl
    int3
    int $0x13
    xor %ecx, %ecx
    stc
    mov $7, %eax
    xor %edx, %edx
    divl %ecx                   /* two bytes */
    pushf
    pop %rdx
    xor %edx, %ebx
    lock cmpxchg8b data(%rip)
    setc data(%rip)
    lea data(%rip), %rdi
    mov $6, %ecx
    mov $0x12, %al
    repne scasb
    dec %ebp
    jnz round
3:  jmp 3b
gate:
    mov (%rsp), %rdx
    cmpb $0xf7, (%rdx)
    jne 4f
    addq $2, (%rsp)
4:  add $17, %ebx
    iretq
descriptor:
    .word 511
    .quad idt
    .balign 16
idt:
    .space 512
data:
    .space 64
