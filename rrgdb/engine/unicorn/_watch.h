/* Watches, and the guards that tell the fast gear of accesses to watched pages.
 *
 * The virtual TLB maps a watched page to a page of the guard, so that Unicorn asks before each access, with the pc
 * brought up to date: for kind w that is the same RAM, but read-only; for the others a device without permissions.
 * What touches no watched byte is done on the RAM behind; what does is refused in the fast phase, so that the
 * instruction is executed where every one is looked at.
 */
#pragma once
#include "_core.h"
#include "_family.h"
#include "_memory.h"
#include "_ways.h"

static void place_watch(watch *w, uint64_t physical, uint8_t *host)
{
    if (physical == w->physical && host == w->host)
        return;
    int seen = w->suspect && physical - (w->address & PAGE_MASK) == w->suspect_page;
    w->physical = physical;
    w->host = host;
    if (seen) /* and old holds what was there before */
        w->hit |= w->suspect_hit && (w->kind != 'w' || !host);
    else if (host)
        memcpy(w->old, host, w->length);
}

static void note_lost(Core *c)
{
    c->watches_lost = c->suspects = c->watches_moved = 0;
    for (int i = 0; i < c->watch_count; i++) {
        watch *w = &c->watches[i];
        w->suspect = w->suspect_hit = 0;
        /* Without tables on its way it stays what it is, until the registers say otherwise. */
        c->watches_lost += !w->host && !w->fixed && !(w->way.known && !w->way.word_count);
    }
}

static void forget_ways(Core *c)
{
    for (int i = 0; i < c->watch_count; i++)
        c->watches[i].way.known = c->watches[i].before_move.way.known = 0;
}

/* RAM may lie elsewhere by now. Where the guest translates addresses, Python must look (R_FIND). */
static void find_watches(Core *c)
{
    forget_ways(c);
    for (int i = 0; i < c->watch_count; i++) {
        watch *w = &c->watches[i];
        if (c->mmu_seen && !w->fixed)
            continue;
        if (w->bound) /* what its tables say counts only while some are in use */
            place_watch(w, NO_PC, NULL);
        else
            place_watch(w, w->address, physical_to_host(c, w->address));
    }
    if (c->mmu_seen)
        c->watches_moved = 1;
    else
        note_lost(c);
}

/* An access of the instruction that is executing may be to a watch that is not known to be mapped. Whether it is, only a
 * look before the next instruction can tell (R_FIND). */
static void suspect(Core *c, uint64_t physical, uint32_t size, int store)
{
    uint32_t at = (uint32_t)(physical & PAGE_MASK);
    uint64_t page = physical - at;
    for (int i = 0; i < c->watch_count; i++) {
        watch *w = &c->watches[i];
        uint32_t offset = (uint32_t)(w->address & PAGE_MASK);
        if (w->host || w->fixed || offset >= at + size || at >= offset + w->length)
            continue;
        if (!w->suspect) {
            uint8_t *host = physical_to_host(c, page);
            if (host)
                memcpy(w->old, host + offset, w->length);
            w->suspect_page = page;
            w->suspect = 1;
            c->suspects = 1;
        }
        if (page == w->suspect_page && (w->kind == 'a' || (w->kind == 'r') == !store))
            w->suspect_hit = 1;
    }
}

/* The instruction that is executing did not happen. */
static void forget_hits(Core *c)
{
    for (int i = 0; i < c->watch_count; i++)
        c->watches[i].hit = c->watches[i].suspect = c->watches[i].suspect_hit = 0;
    c->suspects = 0;
}

/* A watch is where it was before its last move. */
static void move_back(watch *w)
{
    whereabouts here = {w->physical, w->host, w->way};
    w->way = w->before_move.way;
    place_watch(w, w->before_move.physical, w->before_move.host);
    w->before_move = here;
}

/* Whether any of what the places of the watches follow from is another by now, and it is not known where they are. */
static int ways_changed(Core *c)
{
    int moved = 0;
    for (int i = 0; i < c->watch_count; i++) {
        watch *w = &c->watches[i];
        if (still_leads(c, &w->way))
            continue;
        if (!still_leads(c, &w->before_move.way))
            return 1;
        moved = 1;
    }
    if (!moved)
        return 0;
    for (int i = 0; i < c->watch_count; i++)
        if (!still_leads(c, &c->watches[i].way))
            move_back(&c->watches[i]);
    int lost = c->watches_lost;
    note_lost(c);
    return c->watches_lost != lost; /* more has to be arranged for those */
}

/* It must be found out where watched bytes are. */
static inline int watches_astray(Core *c)
{
    if (!c->mmu_seen || !(c->watches_moved || c->suspects))
        return 0;
    if (c->suspects || ways_changed(c))
        return 1;
    c->watches_moved = 0;
    return 0;
}

static inline int changed(const watch *w)
{
    return w->kind != 'r' && w->host && memcmp(w->host, w->old, w->length) != 0;
}

/* Whether watched bytes changed since the last look: between runs the board may have written them. */
static int watches_changed(const Core *c)
{
    for (int i = 0; i < c->watch_count; i++) {
        const watch *w = &c->watches[i];
        if (w->hit || changed(w))
            return 1;
    }
    return 0;
}

/* Look at all watched bytes; nonzero if the run must stop. */
static int watches_hit(Core *c)
{
    int any = 0;
    for (int i = 0; i < c->watch_count; i++) {
        watch *w = &c->watches[i];
        if (changed(w))
            w->hit = 1;
        any |= w->hit;
    }
    if (!any)
        return 0;
    for (int i = 0; i < c->watch_count; i++) {
        watch *w = &c->watches[i];
        if (w->hit && w->host) {
            memcpy(w->before, w->old, w->length);
            memcpy(w->after, w->host, w->length);
            memcpy(w->old, w->host, w->length);
        }
        w->last = w->hit;
        w->hit = 0;
    }
    c->watch_last = c->icount;
    return !c->collect;
}

static int overlaps(const watch *w, uint64_t physical, uint32_t size)
{
    return physical < w->physical + w->length && w->physical < physical + size;
}

static void accessed(watch *w)
{
    if (!w->hit && w->host)
        memcpy(w->old, w->host, w->length); /* what stores of others have left there */
    w->hit = 1;
}

/* The instruction that is executing is a store-conditional, which Unicorn makes by reading what stands there. */
static int stores_only(const Family *f, Core *c)
{
    uint8_t b[4] = {0};
    return f->stores_only && copy_code(c, c->last_pc, b, 4) >= 2 && f->stores_only(c, b);
}

/* A device was accessed. */
static void device_accessed(Core *c, uint64_t physical, uint32_t size, int store)
{
    for (int i = 0; i < c->watch_count; i++) {
        watch *w = &c->watches[i];
        if (!w->host && overlaps(w, physical, size) && (w->kind == 'a' || (w->kind == 'r') == !store))
            w->hit = 1;
    }
}

ALWAYS_INLINE void on_access(const Family *f, Core *c, int type, uint64_t address, int size)
{
    uint64_t at = address - c->guard_base;
    if (at < (uint64_t)c->guard_count * PAGE && (type == UC_MEM_WRITE || c->guards[at >> 12].all))
        return; /* guarded() comes next, and needs the state up to date */
    if (c->mmu_seen && c->watches_lost)
        suspect(c, address, (uint32_t)size, type == UC_MEM_WRITE);
    for (int i = 0; i < c->watch_count; i++) {
        watch *w = &c->watches[i];
        if (w->kind == 'w' || !w->host || (w->kind == 'r' && type == UC_MEM_WRITE))
            continue;
        if (overlaps(w, address, (uint32_t)size) && (type == UC_MEM_WRITE || !stores_only(f, c)))
            accessed(w);
    }
    if (f->goes_on)
        f->goes_on(c);
}

/* Whether blocks may be counted as wholes all the same, in a guest that translates addresses: watched bytes are changed by stores
 * of its instructions alone, and those are asked for (see find_mapping). */
static int stores_are_asked(const Core *c)
{
    if (c->access_hooked || c->watches_access || c->watches_lost)
        return 0;
    for (int i = 0; i < c->watch_count; i++)
        if (c->watches[i].host && !(c->page_flags[(uint64_t)(c->watches[i].host - c->ram) >> 12] & PAGE_COVERED))
            return 0;
    return 1;
}

/* Whether the next access to anything may change watched bytes, without being one to them. */
ALWAYS_INLINE int walks_write(const Family *f, const Core *c)
{
    for (int i = 0; f->walk_writes && i < c->watch_count; i++)
        if (f->walk_writes(c, &c->watches[i]))
            return 1;
    return 0;
}

/* Whether an access there may touch watched bytes. */
static int may_touch(const Core *c, uint64_t physical)
{
    for (int i = 0; i < c->watch_count; i++)
        if (overlaps(&c->watches[i], physical, MAX_ACCESS))
            return 1;
    return 0;
}

/* ---- guards ---------------------------------------------------------------------------------- */

/* Whether a store leaves the watched bytes as they are. */
static int same_value(const Core *c, const watch *w, uint64_t physical, uint32_t size, uint64_t value)
{
    uint8_t bytes[sizeof value];
    if (size > sizeof value)
        return 0;
    store_value(c, bytes, value, size);
    for (uint32_t i = 0; i < size; i++) {
        uint64_t at = physical + i - w->physical;
        if (at < w->length && w->host[at] != bytes[i])
            return 0;
    }
    return 1;
}

/* An access to a guarded page is about to happen; false: it does not, and the run is left before its instruction. */
static bool guarded(const Family *f, Core *c, int store, uint64_t offset, uint32_t size, uint64_t value)
{
    const guard *g = &c->guards[offset >> 12];
    uint32_t at = (uint32_t)(offset & PAGE_MASK);
    uint64_t physical = g->physical + at;
    int whole = c->phase == PHASE_FAST && !c->exact;
    for (int i = 0; i < c->watch_count; i++) {
        watch *w = &c->watches[i];
        if (!overlaps(w, physical, size) || (w->kind == 'r' && store))
            continue;
        if (w->kind == 'w' && (!whole || !store || same_value(c, w, physical, size, value)))
            continue; /* where every instruction is looked at, so are the bytes */
        if (whole) {
            c->refused = REFUSED_WATCH;
            sync_state(c);
            if (f->refused)
                f->refused(c, store);
            return false;
        }
        if (store || !stores_only(f, c))
            accessed(w);
    }
    if (f->goes_on)
        f->goes_on(c);
    if (store && !g->all) { /* Unicorn drops stores to read-only RAM; what is behind the page comes as bytes of its own */
        uint8_t bytes[MAX_ACCESS];
        store_value(c, bytes, value, size);
        memcpy(g->host + at, bytes, size < PAGE - at ? size : PAGE - at);
    }
    return true;
}

/* Accesses that go on; aligned, of eight bytes at most. */
static uint64_t guard_read(void *uc, uint64_t offset, unsigned size, void *user)
{
    const guard *g = user;
    (void)uc;
    return load_value(g->core, g->host + offset, size);
}

static void guard_write(void *uc, uint64_t offset, unsigned size, uint64_t value, void *user)
{
    const guard *g = user;
    (void)uc;
    store_value(g->core, g->host + offset, value, size);
}

static uint8_t *flags_of(Core *c, const uint8_t *host)
{
    return &c->page_flags[(uint64_t)(host - c->ram) >> 12];
}

static int guard_number(const guard *list, int count, uint64_t physical)
{
    for (int i = 0; i < count; i++)
        if (list[i].physical == physical)
            return i;
    return -1;
}

/* The pages that need a guard; -1 if guards will not do: a watched page holds code, or a device takes its stores. */
static int wanted_guards(Core *c, guard *list)
{
    int n = 0;
    for (int i = 0; i < c->watch_count; i++) {
        const watch *w = &c->watches[i];
        uint64_t first = w->physical & ~(uint64_t)PAGE_MASK, page = first;
        /* Of a load that begins on the page before, Unicorn asks there only. */
        if (w->kind != 'w' && w->physical - first < MAX_ACCESS)
            page -= PAGE;
        for (; page != first + PAGE; page += PAGE) {
            uint8_t *host = physical_to_host(c, page);
            int known = guard_number(list, n, page);
            if (!host)
                continue;
            if (*flags_of(c, host) & PAGE_CODE || is_rom(c, page))
                return -1;
            if (known < 0)
                list[known = n++] = (guard){c, page, host, 0};
            list[known].all |= w->kind != 'w';
        }
    }
    return n;
}

static void map_guards(Core *c, const guard *list, int n)
{
    for (int i = 0; i < c->guard_count; i++) {
        *flags_of(c, c->guards[i].host) &= (uint8_t)~PAGE_GUARDED;
        c->mem_unmap(c->uc, c->guard_base + (uint64_t)i * PAGE, PAGE);
    }
    memcpy(c->guards, list, (size_t)n * sizeof *list);
    c->guard_count = n;
    for (int i = 0; i < n; i++) {
        uint64_t at = c->guard_base + (uint64_t)i * PAGE;
        *flags_of(c, list[i].host) |= PAGE_GUARDED;
        if (list[i].all) {
            /* the offsets that the callbacks get begin at 0 */
            c->mmio_map(c->uc, at, PAGE, (void *)guard_read, &c->guards[i], (void *)guard_write, &c->guards[i]);
            c->mem_protect(c->uc, at, PAGE, 0);
        } else {
            c->mem_map_ptr(c->uc, at, PAGE, UC_PROT_READ, list[i].host);
        }
    }
    c->checked++;
    c->ctl(c->uc, CTL_TLB_FLUSH);
}

/* Before a part of a run: guards and the hook on all accesses are as the watches need them. What is too much stays for
 * a short run: it costs time only. */
static void place_guards(Core *c)
{
    int brief = c->user_limit - c->icount < BRIEF, change = 0, n = 0;
    guard list[MAX_GUARDS];
    if (c->fast && !c->mmu_seen && !c->unguard && !c->code_watched)
        n = !c->guard_base ? -(c->watch_count > 0) : wanted_guards(c, list);
    c->code_watched |= n < 0 || c->unguard;
    c->unguard = 0;
    if (n < 0)
        n = 0;
    for (int i = 0; i < n; i++) {
        int known = guard_number(c->guards, c->guard_count, list[i].physical);
        change |= known < 0 || c->guards[known].all < list[i].all;
    }
    if (change || (n != c->guard_count && (!brief || c->code_watched)))
        map_guards(c, list, n);
    int access = (c->watches_access && (!c->fast || c->mmu_seen || c->code_watched)) || (c->watches_lost && c->mmu_seen);
    if (access != c->access_hooked && (access || !brief)) {
        if (access)
            c->hook_add(c->uc, &c->access_hook, UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, c->hooks->access, c, (uint64_t)1,
                        (uint64_t)0);
        else
            c->hook_del(c->uc, c->access_hook);
        c->access_hooked = access;
        c->ctl(c->uc, CTL_TB_FLUSH);
    }
}
