/* Unicorn's look at its exit flag, in the generated code itself.
 *
 * Behind each access that is made by generated code Unicorn calls helper_check_exit_request, which returns at once unless the run is to
 * be left. In a block that is counted by its code, such a call is replaced, in place:
 *
 *     cmp dword [flag], 0         as the helper does: the run is to be left if it is negative
 *     jns behind
 *     call helper                 with its arguments, by a piece of code near the buffer
 *
 * It does what the call did, wherever and whenever it runs, so it is never put back. Where the flag is follows from the
 * helper's own bytes; a build of Unicorn with others keeps its calls.
 */
#pragma once
#include "_core.h"
#include "_generated.h"

#if CAN_INLINE
#include <sys/mman.h>

/* Bytes from the CPU's registers to the flag that this helper looks at; 0: its code is another. */
static int8_t flag_of(const Core *c, const uint8_t *helper, const uint8_t *registers)
{
    /* mov r8, [rdi + cpu]; mov eax, [r8 + flag]; test eax, eax; jns */
    static const uint8_t loads_cpu[] = {0x4c, 0x8b, 0x87}, loads_flag[] = {0x41, 0x8b, 0x80}, tests[] = {0x85, 0xc0, 0x79};
    uint32_t cpu_at, flag_at;
    if (memcmp(helper, loads_cpu, 3) != 0 || memcmp(helper + 7, loads_flag, 3) != 0 || memcmp(helper + 14, tests, 3) != 0)
        return 0;
    memcpy(&cpu_at, helper + 3, 4);
    memcpy(&flag_at, helper + 10, 4);
    const uint8_t *cpu;
    memcpy(&cpu, (const uint8_t *)c->uc + cpu_at, sizeof cpu);
    int64_t away = (int64_t)((uintptr_t)cpu + flag_at - (uintptr_t)registers);
    return away >= INT8_MIN && away < 0 ? (int8_t)away : 0;
}

/* The call of the helper with its arguments is made by the code near the buffer; that of another is left. */
static void prepare_exit(Core *c, const void *helper, const uint8_t *registers)
{
    const uint64_t uc = (uintptr_t)c->uc, to = (uintptr_t)helper;
    c->exit_helper = helper;
    c->exit_flag = flag_of(c, helper, registers);
    uint8_t *o = c->near->code;
    *o++ = 0x48; /* movabs rdi, uc */
    *o++ = 0xbf;
    memcpy(o, &uc, 8);
    o += 8;
    *o++ = 0x33; /* xor esi, esi */
    *o++ = 0xf6;
    *o++ = 0x48; /* movabs rax, helper */
    *o++ = 0xb8;
    memcpy(o, &to, 8);
    o += 8;
    *o++ = 0xff; /* jmp rax */
    *o++ = 0xe0;
    if (mprotect(c->near->code, sizeof c->near->code, PROT_READ | PROT_EXEC))
        c->exit_flag = 0;
}

/* The calls from p on, until something else is called that gets the engine, or the block ends. */
static const uint8_t *look_in_place(Core *c, const uint8_t *p, const uint8_t *end)
{
    const uint64_t uc = (uintptr_t)c->uc;
    const void *helper;
    for (; p + MOST_CHECK <= end; p++) {
        if (memcmp(p + 2, &uc, sizeof uc) != 0)
            continue;
        uint32_t length = check_at(c, p, &helper);
        if (!length || helper != c->exit_helper)
            break;
        uint8_t *o = (uint8_t *)p;
        *o++ = 0x83;
        *o++ = 0x7d;
        *o++ = (uint8_t)c->exit_flag;
        *o++ = 0;
        *o++ = 0x79;
        *o = (uint8_t)(p + length - (o + 1));
        o++;
        *o++ = 0xe8;
        o = put(o, from(o + 4, c->near->code));
        memset(o, 0x90, (size_t)(p + length - o));
        c->exit_looks++;
        p += length - 1;
    }
    return p;
}
#endif
