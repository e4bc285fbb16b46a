/* The code that Unicorn generates, on x86-64 hosts: what is recognised in it, byte by byte. */
#pragma once
#include "_core.h"

#if defined(__x86_64__) && defined(__linux__)
#define CAN_INLINE 1
#else
#define CAN_INLINE 0
#endif

#if CAN_INLINE
#define CHECK_LOADS 12 /* movabs rdi, uc; xor esi, esi; then a call of helper_check_exit_request */
#define MOST_CHECK (CHECK_LOADS + 6)
#define ASKS_BYTES 15
#define MOST_KNOWN 64 /* words before a block's hook is called first */
#define MOST_OF_BLOCK (64ul << 10) /* bytes of code */

static uint8_t *put(uint8_t *to, uint32_t word)
{
    memcpy(to, &word, sizeof word);
    return to + sizeof word;
}

/* Displacement of a word from the end of the instruction that names it. */
static uint32_t from(const uint8_t *end, const void *word)
{
    return (uint32_t)((uintptr_t)word - (uintptr_t)end);
}

/* End of the code of the block whose hook returns to a place in it; NULL: it is not known. Before its code is what Unicorn
 * knows of it: at which address it is, and further on, one behind the other, where its code begins and how long it is.
 * What lies behind the code may be anything: what Unicorn knows of another block, of which parts are never written, and hold code
 * that was there before. */
static const uint8_t *code_end(const Core *c, const uint8_t *place, uint64_t addr)
{
    const uint8_t *word = (const uint8_t *)((uintptr_t)place & -sizeof(uint64_t));
    uint64_t found[2], known;
    for (int i = 0; i < MOST_KNOWN && (uintptr_t)word > c->buffer_begin + MOST_KNOWN; i++, word -= sizeof known) {
        memcpy(found, word, sizeof found);
        if (found[0] <= (uintptr_t)word || found[0] >= (uintptr_t)place || found[0] + found[1] <= (uintptr_t)place ||
            found[0] + found[1] > c->buffer_end || found[1] > MOST_OF_BLOCK)
            continue;
        for (int back = 1; back <= MOST_KNOWN / 4; back++) {
            memcpy(&known, word - (size_t)back * sizeof known, sizeof known);
            if (known == addr)
                return (const uint8_t *)(uintptr_t)(found[0] + found[1]);
        }
    }
    return NULL;
}

/* Length of the call at p, and what it calls; 0: there is none. It may go by a word behind the block. */
static uint32_t call_at(const Core *c, const uint8_t *p, const void **to)
{
    int32_t away;
    if (p[0] == 0xe8) {
        memcpy(&away, p + 1, 4);
        *to = p + 5 + away;
        return 5;
    }
    memcpy(&away, p + 2, 4);
    const uint8_t *word = p + 6 + away;
    if (p[0] != 0xff || p[1] != 0x15 || (uintptr_t)word - c->buffer_begin >= c->buffer_end - c->buffer_begin - 8)
        return 0;
    memcpy(to, word, sizeof *to);
    return 6;
}

/* Length of Unicorn's look at its exit flag at p, and the helper that looks; 0: it is something else. */
static uint32_t check_at(const Core *c, const uint8_t *p, const void **helper)
{
    const uint64_t uc = (uintptr_t)c->uc;
    if (p[0] != 0x48 || p[1] != 0xbf || memcmp(p + 2, &uc, sizeof uc) != 0 || p[10] != 0x33 || p[11] != 0xf6)
        return 0;
    uint32_t call = call_at(c, p + CHECK_LOADS, helper);
    return call ? CHECK_LOADS + call : 0;
}

/* The loads of the arguments of a hook for the block or instruction, as user gave it; returns how many bytes they are. */
static uint32_t loads_of(const Core *c, uint64_t addr, uint32_t size, const void *user, uint8_t *out)
{
    const uint64_t uc = (uintptr_t)c->uc, told = (uintptr_t)user;
    uint8_t *o = out;
    *o++ = 0x48;
    *o++ = 0xbf;
    memcpy(o, &uc, 8);
    o += 8;
    if (addr >> 32 && (int64_t)addr == (int32_t)addr) {
        *o++ = 0x48;
        *o++ = 0xc7;
        *o++ = 0xc6;
        o = put(o, (uint32_t)addr);
    } else if (addr >> 32) {
        *o++ = 0x48;
        *o++ = 0xbe;
        memcpy(o, &addr, 8);
        o += 8;
    } else {
        *o++ = 0xbe;
        o = put(o, (uint32_t)addr);
    }
    *o++ = 0xba;
    o = put(o, size);
    *o++ = 0x48;
    *o++ = 0xb9;
    memcpy(o, &told, 8);
    return (uint32_t)(o + 8 - out);
}

/* Whether the last two arguments are loaded at p of Unicorn's function that asks for the bounds of a hook before it calls it, and
 * for which instruction: size, kind of hook, engine, address. */
static int asks_at(const Core *c, const uint8_t *p, uint32_t *addr)
{
    const uint64_t uc = (uintptr_t)c->uc;
    if (p[0] != 0x48 || p[1] != 0xba || memcmp(p + 2, &uc, sizeof uc) != 0 || p[10] != 0xb9)
        return 0;
    memcpy(addr, p + 11, 4);
    return ASKS_BYTES;
}

/* Length of the loads and the call at p, if they are those of that hook; otherwise 0. */
static uint32_t hook_at(const Core *c, const uint8_t *p, const void *hook, uint64_t addr, uint32_t size)
{
    uint8_t bytes[SITE_BYTES];
    const void *called = NULL;
    uint32_t loads = loads_of(c, addr, size, c, bytes);
    if (memcmp(p, bytes, loads) != 0)
        return 0;
    uint32_t call = call_at(c, p + loads, &called);
    return call && called == hook ? loads + call : 0;
}
#endif
