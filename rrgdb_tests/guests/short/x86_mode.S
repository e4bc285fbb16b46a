/* i386: paging on and off, a page that is not there, exceptions and flags; string instructions in their middle. */
    .code32
    movl $idt + 7, %eax
    mov $gate, %esi
    xor %ebx, %ebx
    /* every gate of the first 32 leads to the handler */
    mov $idt, %edi
    mov $32, %ecx
1:  mov %cs, %edx
    shl $16, %edx
    mov %esi, %eax
    and $0xffff, %eax
    or %edx, %eax
    mov %eax, (%edi)
    mov %esi, %eax
    and $0xffff0000, %eax
    or $0x8e00, %eax
    mov %eax, 4(%edi)
    add $8, %edi
    loop 1b
    lidt descriptor
    /* 4 MiB as they are, by pages of 4 KiB; the page of `hole` is not there */
    mov $table, %edi
    mov $7, %eax
    mov $1024, %ecx
2:  mov %eax, (%edi)
    add $4, %edi
    add $4096, %eax
    loop 2b
    mov $hole, %eax
    shr $12, %eax
    movl $0, table(, %eax, 4)
    mov $table + 7, %eax
    mov %eax, directory
    mov $directory, %eax
    mov %eax, %cr3
    mov $3, %ebp
round:
    mov %cr0, %eax
    or $0x80000000, %eax
    mov %eax, %cr0
    add $0x7fffffff, %ebx       /* flags across the fault */
    mov hole, %edx
    pushf
    pop %edx
    add %edx, %ebx
    mov $hole - 6, %edi
    mov $table, %esi
    mov $4, %ecx
    rep movsd                   /* runs into the hole */
    int3
    mov %cr0, %eax
    and $0x7fffffff, %eax
    mov %eax, %cr0
    mov hole, %edx
    stc
    rcll hole
    pushf
    pop %edx
    xor %edx, %ebx
    mov $hole, %edi
    mov $3, %ecx
    rep stosb
    int $0x13
    dec %ebp
    jnz round
3:  jmp 3b
gate:
    /* with an error code or without: what was pushed tells, since the code segment is known */
    mov %cs, %edx
    cmp %edx, 4(%esp)
    je 4f
    pop %edx
    add %edx, %ebx
    mov (%esp), %edx
    cmpb $0xf3, (%edx)
    je 5f
    addl $6, (%esp)             /* behind the load */
    iret
5:  addl $2, (%esp)
    iret
4:  add $17, %ebx
    iret
descriptor:
    .word 255
    .long idt
    .balign 8
idt:
    .space 256
    .balign 4096
directory:
    .space 4096
table:
    .space 4096
hole:
    .space 4096
