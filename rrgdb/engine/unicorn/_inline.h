/* Counting inside the code that Unicorn generates, on x86-64 hosts.
 *
 * At the head of each block Unicorn loads four arguments and calls the hook. Once the hook has found that a block may be
 * counted as a whole, and needs nothing else, it replaces the loads of that one call, in place:
 *
 *     sub qword [budget], count
 *     jb  call                    the budget does not suffice: the hook decides
 *     mov dword [current], number of the block
 *     mov byte [seen + number], 1
 *     jmp behind                  past Unicorn's look at its exit flag
 * call:
 *     call hook                   the last bytes of the site, as before, but to a hook that finds the arguments by its place
 *
 * So the budget says how many instructions may run before a hook must be called again: never beyond the limit, and
 * none at all where the next block needs a look. The bytes of a site are recognised, never assumed; where they are others
 * the hook stays. It is the thread that runs this code which changes it, and no other runs it.
 *
 * Unicorn may have dropped the code of a site and put other code in its place. So a site is put back only where all of
 * its bytes are still ours.
 */
#pragma once
#include "_condition.h"
#include "_core.h"
#include "_exit_flag.h"
#include "_footprint.h"
#include "_generated.h"

/* The Core whose code this thread runs: a site's hook gets no arguments. */
static _Thread_local Core *running __attribute__((tls_model("initial-exec")));

/* What ran since the last look, by the budget; the block at hand, if no hook knows it. */
static inline void count_inlined(Core *c)
{
    near_words *n = c->near;
    if (!n)
        return;
    c->icount += c->granted - n->budget;
    c->granted = n->budget;
    if (!n->current)
        return;
    const site *s = &c->sites[n->current];
    n->current = 0;
    c->block = s->addr;
    c->block_length = c->tail_size = s->size;
    c->block_icount = c->icount - s->count;
    c->block_host = s->host;
    c->block_code = s->end;
}

/* What ran is counted, and the next block calls its hook. */
static inline void hook_next(Core *c)
{
    count_inlined(c);
    if (c->near)
        c->granted = c->near->budget = 0;
}

static inline void grant(Core *c)
{
    uint64_t left = c->limit - c->icount;
    if (c->near)
        c->granted = c->near->budget = left < INLINE_CHUNK ? left : INLINE_CHUNK;
}

#if CAN_INLINE
#include <stdio.h>
#include <sys/mman.h>

#define REACH (1ul << 31)
#define REACH_STEP (16ul << 20) /* nothing is mapped below */
#define NEAR_SPACE (64ul << 10)
#define MOST_CODE (256ul << 20) /* of one engine */

static inline uint32_t *site_place(const Core *c, const uint8_t *end)
{
    uint64_t i = mix((uintptr_t)end) & c->site_mask;
    while (c->site_table[i] && c->sites[c->site_table[i]].end != end)
        i = (i + 1) & c->site_mask;
    return &c->site_table[i];
}

static const site *site_at(const Core *c, const uint8_t *end)
{
    uint32_t n = c->site_count ? *site_place(c, end) : 0;
    return n ? &c->sites[n] : NULL;
}

/* What replaces the loads of site number n; returns how many bytes that are, 0: there is no room for them. */
static uint32_t inlined_bytes(const Core *c, uint32_t n, uint8_t *out)
{
    const site *s = &c->sites[n];
    const uint8_t *begin = s->end - s->length;
    uint32_t room = (uint32_t)(s->length - s->call);
    uint8_t *o = out;
    *o++ = 0x48;
    *o++ = s->count < 128 ? 0x83 : 0x81;
    *o++ = 0x2d;
    if (s->count < 128) {
        o = put(o, from(begin + 8, &c->near->budget));
        *o++ = (uint8_t)s->count;
    } else {
        o = put(o, from(begin + 11, &c->near->budget));
        o = put(o, s->count);
    }
    *o++ = 0x72;
    *o = (uint8_t)(room - (uint32_t)(o + 1 - out));
    o++;
    *o++ = 0xc7;
    *o++ = 0x05;
    o = put(o, from(begin + (o - out) + 8, &c->near->current));
    o = put(o, n);
    *o++ = 0xc6;
    *o++ = 0x05;
    o = put(o, from(begin + (o - out) + 5, &c->near->seen[n]));
    *o++ = 1;
    *o++ = 0xeb;
    *o = (uint8_t)((uint32_t)(s->length + s->behind) - (uint32_t)(o + 1 - out));
    o++;
    uint32_t used = (uint32_t)(o - out);
    if (used > room)
        return 0;
    memset(o, 0x90, room - used);
    return room;
}

/* Code hooks of a block's instructions: each is passed over by a jump in its first two bytes, or called again. */
static void call_instructions(const site *s)
{
    uint8_t *p = s->end + s->behind;
    for (uint32_t left = s->calls; left && p + MOST_CHECK <= s->last; p++)
        if (p[0] == 0xeb && memcmp(p + 2, s->original + 2, 8) == 0) {
            memcpy(p, s->original, 2);
            left--;
        }
}

/* Whether the code of a site is still ours: Unicorn drops all code when its buffer is full, and generates other code there,
 * or the same again. */
static int is_ours(const Core *c, uint32_t n)
{
    uint8_t bytes[SITE_BYTES];
    const site *s = &c->sites[n];
    uint32_t length = s->hooked ? s->length : inlined_bytes(c, n, bytes);
    return s->live && memcmp(s->end - s->length, s->hooked ? s->original : bytes, length) == 0 &&
           s->end[-s->call] == s->original[s->length - s->call] && (!s->calls || s->end[s->first] == 0xeb);
}

/* The block's hooks are called again: that of the block, and those of its instructions. */
static void put_back(Core *c, uint32_t n)
{
    site *s = &c->sites[n];
    if (is_ours(c, n)) {
        call_instructions(s);
        memcpy(s->end - s->length, s->original, s->length);
    }
    s->live = 0;
}

/* No block is counted inside its code any more. Those that may be ask again. */
static void forget_sites(Core *c)
{
    c->sites_checked = c->checked;
    forget_conditions(c);
    if (!c->site_count)
        return;
    note_inlined(c);
    for (uint32_t n = 1; n <= c->site_count; n++)
        put_back(c, n);
    memset(c->site_table, 0, (c->site_mask + 1) * sizeof *c->site_table);
    c->site_count = 0;
}

static int grow_sites(Core *c)
{
    if (c->site_count + 1 < c->site_room)
        return 1;
    uint32_t room = c->site_room ? 2 * c->site_room : 1024;
    if (room > MAX_SITES) {
        forget_sites(c);
        return 1;
    }
    site *sites = realloc(c->sites, room * sizeof *sites);
    if (!sites)
        return 0;
    c->sites = sites;
    uint32_t *table = calloc(2 * room, sizeof *table);
    if (!table)
        return 0;
    free(c->site_table);
    c->site_table = table;
    c->site_mask = 2 * room - 1;
    c->site_room = room;
    for (uint32_t n = 1; n <= c->site_count; n++)
        *site_place(c, sites[n].end) = n;
    return 1;
}

/* What this process has mapped, one after the other; zero: no more. */
static int next_mapping(FILE *maps, unsigned long *begin, unsigned long *end, char *mode)
{
    char line[512];
    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %4s", begin, end, mode) == 3)
            return 1;
    return 0;
}

/* Words where nothing is mapped yet, within reach of all of the buffer; NULL: there is no room. */
static near_words *map_near(FILE *maps, unsigned long low, unsigned long high)
{
    const unsigned long size = sizeof(near_words);
    unsigned long begin, end, free_from = REACH_STEP;
    char mode[5];
    rewind(maps);
    while (next_mapping(maps, &begin, &end, mode)) {
        /* as near to the buffer as that hole has it, and not at its very end, where something else may grow */
        unsigned long to = begin <= low ? begin - size - NEAR_SPACE : free_from + NEAR_SPACE;
        int fits = begin > free_from && begin - free_from >= size + 2 * NEAR_SPACE;
        free_from = end;
        if (!fits || (to < low ? high - to : to + size - low) >= REACH)
            continue;
        void *words = mmap((void *)to, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
        if (words == (void *)to)
            return words;
        if (words != MAP_FAILED) /* a kernel that does not know the flag */
            munmap(words, size);
    }
    return NULL;
}

/* Whether Unicorn's buffer there is writable and executable at once, and words can be mapped within its reach. */
static int reach_code(Core *c, const uint8_t *at)
{
    if ((uintptr_t)at - c->buffer_begin < c->buffer_end - c->buffer_begin)
        return 1;
    FILE *maps = c->near ? NULL : fopen("/proc/self/maps", "re");
    unsigned long begin = 0, end = 0;
    char mode[5] = "";
    int found = 0;
    while (!found && next_mapping(maps, &begin, &end, mode))
        found = (uintptr_t)at - begin < end - begin;
    if (found && strncmp(mode, "rwx", 3) == 0) {
        /* The buffers of several engines may be one mapping. */
        if ((uintptr_t)at - begin > MOST_CODE)
            begin = (uintptr_t)at - MOST_CODE;
        if (end - (uintptr_t)at > MOST_CODE)
            end = (uintptr_t)at + MOST_CODE;
        c->near = map_near(maps, begin, end);
    }
    if (maps)
        fclose(maps);
    if (!c->near || !found)
        return 0;
    c->near->hook = c->hooks->inlined;
    c->buffer_begin = begin;
    c->buffer_end = end;
    return 1;
}

/* The same, of the hook of a block that returns to end; call: of the call alone. */
static uint32_t site_length(const Core *c, const uint8_t *end, uint64_t addr, uint32_t size, uint32_t *call)
{
    uint8_t bytes[SITE_BYTES];
    uint32_t loads = loads_of(c, addr, size, c, bytes);
    for (*call = 5; *call <= 6; ++*call)
        if (hook_at(c, end - loads - *call, c->hooks->block, addr, size) == loads + *call)
            return loads + *call;
    return 0;
}

/* Whether the block whose hook returns to end has a hook of its first instruction; where there are hooks of others
 * nothing is known. asks: it is one that asks for bounds. */
static int has_calls(const Core *c, const uint8_t *end, uint64_t addr, int asks)
{
    const uint64_t uc = (uintptr_t)c->uc;
    const void *helper;
    uint8_t bytes[SITE_BYTES];
    uint32_t loads = loads_of(c, addr, 0, c, bytes), size_at = loads - 14, asked;
    const uint8_t *last = code_end(c, end, addr);
    for (const uint8_t *p = end; last && p + MOST_CHECK <= last; p++) {
        if (memcmp(p + 2, &uc, sizeof uc) != 0)
            continue;
        uint32_t check = check_at(c, p, &helper);
        if (check) {
            p += check - 1;
            continue;
        }
        if (asks && asks_at(c, p, &asked))
            return asked == addr;
        const void *called = NULL;
        return p + loads + 6 <= last && memcmp(p, bytes, size_at) == 0 &&
               memcmp(p + size_at + 4, bytes + size_at + 4, 10) == 0 && call_at(c, p + loads, &called) &&
               called == c->hooks->code;
    }
    return 0;
}
/* Where the hooks of the block's instructions are in its code: offsets from end, and how far to jump over them in the upper
 * byte. Returns how many there are; zero: there are not these alone. Where there are more of one instruction, Unicorn calls them by a function of its
 * own; and behind the block may lie another, or what was left of one. All of them name the engine. */
static uint32_t find_calls(const Core *c, const uint8_t *end, uint64_t addr, const uint8_t *host, uint32_t size,
                      const uint8_t *last, uint32_t *calls)
{
    const uint64_t uc = (uintptr_t)c->uc;
    const void *helper;
    const Family *f = c->family;
    const uint8_t *p = end + check_at(c, end, &helper);
    uint32_t found = 0, asked;
    uint8_t state = 0;
    for (uint32_t at = 0, n; at < size; at += n) {
        n = f->plain_length(c, host + at, size - at);
        uint32_t length = 0;
        if (!n)
            return 0;
        if (f->asks_bounds && f->asks_bounds(c, host + at, n, &state))
            continue; /* the bounds are closed, so it is not called */
        while (!length) {
            while (p + MOST_CHECK <= last && memcmp(p + 2, &uc, sizeof uc) != 0)
                p++;
            if (p + MOST_CHECK > last)
                return 0;
            uint32_t check = check_at(c, p, &helper);
            check = check ? check : asks_at(c, p, &asked);
            if (check) {
                p += check;
                continue;
            }
            length = hook_at(c, p, c->hooks->code, addr + at, n);
            if (!length)
                return 0;
        }
        uint32_t behind = check_at(c, p + length, &helper);
        if (!behind)
            return 0;
        calls[found++] = (uint32_t)(p - end) | (length + behind - 2) << 24;
        p += length + behind;
    }
    return found;
}

/* The hook that returns to end was called for a block that may be counted as a whole: from now on its code does. host: of
 * its instructions, if they may have hooks, which are passed over then; else NULL. hooked: the block keeps its own hook, as do those
 * for which there is no room. Nonzero: done. */
static int inline_block(Core *c, const uint8_t *end, uint64_t addr, uint32_t size, uint32_t count, const uint8_t *host,
                        int hooked)
{
    uint8_t bytes[SITE_BYTES];
    uint32_t calls[PLAN_BYTES];
    c->inlines = c->inlines && reach_code(c, end);
    if (!c->inlines)
        return 0;
    const void *helper;
    const uint8_t *last = code_end(c, end, addr);
    uint32_t call, length = site_length(c, end, addr, size, &call), behind = check_at(c, end, &helper);
    if (!last || !length || !behind || !grow_sites(c))
        return 0;
    int64_t away = (int64_t)((uintptr_t)c->hooks->inlined - (uintptr_t)end);
    int hooks = host && (!c->bounds || has_calls(c, end, addr, 0));
    uint32_t found = hooks ? find_calls(c, end, addr, host, size, last, calls) : 0;
    if ((call == 5 && away != (int32_t)away) || (hooks && !found))
        return 0;
    uint32_t *place = site_place(c, end), n = *place ? *place : c->site_count + 1;
    site *s = &c->sites[n];
    if (*place && (s->addr != addr || s->size != size)) { /* other code, at the same place: the footprint needs both */
        n = c->site_count + 1;
        s = &c->sites[n];
    }
    *s = (site){.end = (uint8_t *)end, .addr = addr, .host = host, .size = size, .count = count, .live = 1};
    s->length = (uint8_t)length;
    s->call = (uint8_t)call;
    s->behind = (uint8_t)behind;
    s->calls = found;
    s->first = hooks ? calls[0] & 0xffffff : 0;
    s->last = last;
    memcpy(s->original, end - length, length);
    uint32_t used = hooked ? 0 : inlined_bytes(c, n, bytes);
    s->hooked = !used;
    if (!c->exit_helper)
        prepare_exit(c, helper, c->at_hand);
    const uint8_t *looks = end + behind;
    for (uint32_t i = 0; c->exit_flag; i++) {
        looks = look_in_place(c, looks, last);
        if (i == s->calls || looks != end + (calls[i] & 0xffffff))
            break;
        looks += (calls[i] >> 24) + 2;
    }
    for (uint32_t i = 0; i < s->calls; i++) {
        uint8_t *at = s->end + (calls[i] & 0xffffff);
        at[0] = 0xeb;
        at[1] = (uint8_t)(calls[i] >> 24);
    }
    if (n > c->site_count)
        c->site_count = n;
    *place = n;
    if (used) {
        memcpy(s->end - length, bytes, used);
        put(s->end - 4, call == 5 ? (uint32_t)away : from(end, &c->near->hook));
    }
    return 1;
}

/* Whether the hooks of the instructions of the block are passed over, whose own hook returns to end. */
static inline int passes_over(const Core *c, const uint8_t *end, uint64_t addr, uint32_t size)
{
    const site *s = site_at(c, end);
    return s && s->addr == addr && s->size == size && is_ours(c, (uint32_t)(s - c->sites));
}

/* The block whose hook returns to end is looked at instruction by instruction. */
static inline void leave_inlined(Core *c, const uint8_t *end)
{
    const site *s = site_at(c, end);
    if (s && s->live)
        put_back(c, (uint32_t)(s - c->sites));
}

/* The code is not there any more, or will not run again. */
static void free_sites(Core *c)
{
    free(c->sites);
    free(c->site_table);
    if (c->near)
        munmap(c->near, sizeof *c->near);
}
#else
static const site *site_at(const Core *c, const uint8_t *end)
{
    (void)c;
    (void)end;
    return NULL;
}

static void forget_sites(Core *c)
{
    c->sites_checked = c->checked;
}

static int inline_block(Core *c, const uint8_t *end, uint64_t addr, uint32_t size, uint32_t count, const uint8_t *host,
                        int hooked)
{
    (void)c;
    (void)hooked;
    (void)end;
    (void)addr;
    (void)size;
    (void)count;
    (void)host;
    return 0;
}

static inline int passes_over(const Core *c, const uint8_t *end, uint64_t addr, uint32_t size)
{
    (void)c;
    (void)end;
    (void)addr;
    (void)size;
    return 0;
}

static inline void leave_inlined(Core *c, const uint8_t *end)
{
    (void)c;
    (void)end;
}

static void free_sites(Core *c)
{
    (void)c;
}
#endif
