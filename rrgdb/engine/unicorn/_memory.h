/* Memory as the hooks see it: RAM by physical address, and code by the address at which it is executed. */
#pragma once
#include "_core.h"

static const region *region_at(const Core *c, uint64_t pa)
{
    for (int i = 0; i < c->region_count; i++)
        if (pa - c->regions[i].base < c->regions[i].size)
            return &c->regions[i];
    return NULL;
}

static uint8_t *physical_to_host(Core *c, uint64_t pa)
{
    const region *r = region_at(c, pa);
    return r ? r->host + (pa - r->base) : NULL;
}

/* Whether stores there go to a device. */
static int is_rom(const Core *c, uint64_t pa)
{
    const region *r = region_at(c, pa);
    return r && r->store;
}

/* The virtual TLB was filled once more. Unicorn makes its table smaller when it is flushed and little was in use for 100
 * ms by the clock, and larger at another flush only, for which a guest that does not translate gives no reason. */
static inline void note_fill(Core *c)
{
    if (++c->fills < c->fills_look)
        return;
    uint64_t since = c->fills - c->fills_looked;
    int thick = c->icount - c->fills_at < since * THICK_FILLS;
    c->crowded |= thick;
    c->tlb_stale |= thick;
    c->fills_looked = c->fills;
    c->fills_look += !thick ? MANY_FILLS : since < MOST_FILLS ? 2 * since : since;
    c->fills_at = c->icount;
}

static void find_watches(Core *c);

static void tlb_clear(Core *c)
{
    memset(c->tlb, 0, sizeof c->tlb);
    c->tlb_stale = 0;
    if (c->watch_count && !c->mmu_seen)
        find_watches(c);
    if (c->crowded) {
        c->crowded = 0;
        if (c->fills - c->table_begun > c->table_size)
            c->table_size = c->fills - c->table_begun;
        c->table_begun = c->fills;
        c->shrinking = 0;
        c->ctl(c->uc, CTL_TLB_FLUSH);
    }
}

/* Unicorn walks over all of its table for each block that it translates, so a guest that has once gone through much memory
 * stays slow. Nothing but flushes makes the table smaller, over some time of the host's. Whether the guest still uses that much
 * shows between two of them; as long as it does, the next try waits longer. What the guest does is the same either way. */
static void shrink_table(Core *c)
{
    struct timespec t;
    if (c->table_size < LARGE_TABLE || c->mmu_seen || c->bare)
        return;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t now = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec, used = c->fills - c->table_begun;
    if (now < c->shrink_at)
        return;
    if (c->shrinking && used > c->table_size / 4) {
        c->shrinking = 0;
        c->shrink_pause = c->shrink_pause < MOST_PAUSE ? 2 * c->shrink_pause : MOST_PAUSE;
        c->shrink_at = now + c->shrink_pause;
    } else if (c->shrinking == SHRINK_FLUSHES) {
        c->shrinking = 0;
        c->table_size = used;
        c->shrink_pause = SHRINK_APART;
    } else {
        c->shrinking++;
        c->table_begun = c->fills;
        c->shrink_at = now + SHRINK_APART;
        c->ctl(c->uc, CTL_TLB_FLUSH);
    }
}

/* Host address of a page that is being executed; NULL where it is not RAM. */
static uint8_t *code_page(Core *c, uint64_t va)
{
    uint64_t page = va & ~(uint64_t)PAGE_MASK;
    tlb_entry *e = &c->tlb[(va >> 12) & (TLB_SIZE - 1)];
    if (e->tag == (page | 1))
        return e->host;
    uint64_t pa = page;
    if (c->mmu_seen && c->translate(c->uc, page, UC_PROT_EXEC, &pa) != 0)
        return NULL;
    uint8_t *host = physical_to_host(c, pa);
    if (host) { /* failures are not kept: the guest may map the page without telling */
        e->host = host;
        e->tag = page | 1;
    }
    return host;
}

/* Copy up to n code bytes that may cross a page; returns how many were there. */
static uint32_t copy_code(Core *c, uint64_t va, uint8_t *out, uint32_t n)
{
    uint32_t done = 0;
    while (done < n) {
        uint32_t offset = (uint32_t)((va + done) & PAGE_MASK), part = PAGE - offset;
        uint8_t *host = code_page(c, va + done);
        if (!host)
            break;
        if (part > n - done)
            part = n - done;
        memcpy(out + done, host + offset, part);
        done += part;
    }
    return done;
}

static inline int same_bytes(const uint8_t *a, const uint8_t *b, uint32_t n)
{
    if (n == 4) {
        uint32_t x, y;
        memcpy(&x, a, 4);
        memcpy(&y, b, 4);
        return x == y;
    }
    return memcmp(a, b, n) == 0;
}

/* Up to eight bytes as the guest reads and writes them. */
static inline uint64_t load_value(const Core *c, const uint8_t *from, size_t size)
{
    uint64_t value = 0;
    memcpy(&value, from, size);
    return c->big_endian ? __builtin_bswap64(value) >> (64 - 8 * size) : value;
}

static inline void store_value(const Core *c, uint8_t *to, uint64_t value, size_t size)
{
    if (c->big_endian)
        value = __builtin_bswap64(value << (64 - 8 * size));
    memcpy(to, &value, size);
}
