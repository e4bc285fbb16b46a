/* Hooks for invalid accesses, and what else they are good for.
 *
 * They lie where no RAM is. Where there is such a hook, Unicorn keeps every store on its slow path, on which it looks for
 * translated code that the store changes. Where Unicorn translates addresses that is wanted for pages that hold code: an
 * entry of its TLB through which a page was written before code was translated from it, under another address, is not
 * told of that code. So these pages are covered by a hook, which never fires, as soon as code runs there, and entries from
 * before are dropped.
 */
#pragma once
#include "_core.h"
#include "_family.h"
#include "_memory.h"

#define COVER_SIZE (64u << 10) /* of what is covered at once */

static int add_invalid_hook(Core *c, int type, uint64_t first, uint64_t last)
{
    return c->hook_add(c->uc, &c->invalid_hooks[c->invalid_hook_count++], type, c->hooks->invalid_memory, c, first, last);
}

/* Hook invalid accesses, but not over RAM, except for what is covered. */
static int watch_holes(Core *c)
{
    int error = 0;
    if (c->bare)
        return 0;
    for (int i = 0; i < c->invalid_hook_count; i++)
        c->hook_del(c->uc, c->invalid_hooks[i]);
    c->invalid_hook_count = 0;
    if (!c->fast)
        return add_invalid_hook(c, UC_HOOK_MEM_INVALID, 0, UINT64_MAX);
    uint64_t begin = 0;
    for (int i = 0; i <= c->region_count; i++) {
        uint64_t end = i < c->region_count ? c->regions[i].base - 1 : UINT64_MAX;
        if (i == c->region_count || c->regions[i].base > begin)
            error |= add_invalid_hook(c, UC_HOOK_MEM_INVALID, begin, end);
        if (i == c->region_count)
            break;
        begin = c->regions[i].base + c->regions[i].size;
        if (c->regions[i].store)
            error |= add_invalid_hook(c, UC_HOOK_MEM_WRITE_PROT, c->regions[i].base, begin - 1);
    }
    for (int i = 0; c->mmu_seen && i < c->cover_count; i++)
        error |= add_invalid_hook(c, UC_HOOK_MEM_INVALID & ~UC_HOOK_MEM_WRITE_PROT, c->covers[i].first, c->covers[i].last);
    return error;
}

/* Make one of two neighbours where the gap is smallest. */
static void join_covers(Core *c)
{
    int at = 0;
    for (int i = 1; i + 1 < c->cover_count; i++)
        if (c->covers[i + 1].first - c->covers[i].last < c->covers[at + 1].first - c->covers[at].last)
            at = i;
    c->covers[at].last = c->covers[at + 1].last;
    c->cover_count--;
    memmove(&c->covers[at + 1], &c->covers[at + 2], (size_t)(c->cover_count - at - 1) * sizeof *c->covers);
}

/* Code runs on the page at host. */
static void cover(Core *c, const uint8_t *host)
{
    for (int i = 0; i < c->region_count; i++) {
        const region *r = &c->regions[i];
        if ((uint64_t)(host - r->host) >= r->size)
            continue;
        uint64_t from = (uint64_t)(host - r->host) & -(uint64_t)COVER_SIZE;
        uint64_t size = r->size - from < COVER_SIZE ? r->size - from : COVER_SIZE;
        for (uint64_t page = 0; page < size; page += PAGE)
            c->page_flags[(uint64_t)(r->host + from + page - c->ram) >> 12] |= PAGE_COVERED;
        span added = {r->base + from, r->base + from + size - 1};
        int at = 0;
        while (at < c->cover_count && c->covers[at].last < added.first)
            at++;
        if (at < c->cover_count && c->covers[at].first <= added.first)
            return; /* in a gap that was joined */
        if (c->cover_count == MAX_COVERS)
            join_covers(c);
        for (at = c->cover_count++; at > 0 && c->covers[at - 1].first > added.first; at--)
            c->covers[at] = c->covers[at - 1];
        c->covers[at] = added;
        for (at = c->cover_count - 1; at > 0; at--)
            if (c->covers[at].first <= c->covers[at - 1].last + 1) {
                if (c->covers[at].last > c->covers[at - 1].last)
                    c->covers[at - 1].last = c->covers[at].last;
                c->cover_count--;
                memmove(&c->covers[at], &c->covers[at + 1], (size_t)(c->cover_count - at) * sizeof *c->covers);
            }
        watch_holes(c);
        c->ctl(c->uc, CTL_TLB_FLUSH);
        return;
    }
}

/* Code runs on the page at host. */
static inline void mark_code(Core *c, const uint8_t *host)
{
    uint64_t page = (uint64_t)(host - c->ram) >> 12;
    if (page >= c->code_pages_length)
        return;
    c->code_pages[page] = 1;
    if (c->mmu_seen && c->fast && !c->bare && !(c->page_flags[page] & PAGE_COVERED))
        cover(c, host);
}
