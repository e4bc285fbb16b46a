/* The footprint's code: which blocks were entered since the set was taken last.
 *
 * A superset of all addresses at which an instruction stood: whole blocks, entered or not left at their end; where the
 * hooks look at every instruction, each one outside the block that was noted last is noted by itself.
 */
#pragma once
#include "_core.h"
#include "_translation.h"

#define FIRST_NOTED (1 << 12)
#define MAX_NOTED (1 << 21)

static uint64_t noted_slot(const noted *table, uint64_t mask, uint64_t addr, uint32_t size)
{
    uint64_t i = mix(addr + ((uint64_t)size << 48)) & mask;
    while (table[i].size && !(table[i].addr == addr && table[i].size == size))
        i = (i + 1) & mask;
    return i;
}

static int grow_noted(Core *c)
{
    uint64_t n = c->noted_mask + 1;
    if (c->noted_count * 2 < n)
        return 1;
    noted *bigger = n < MAX_NOTED ? calloc(2 * n, sizeof *bigger) : NULL;
    if (!bigger)
        return 0;
    for (uint64_t i = 0; i < n; i++)
        if (c->noted[i].size)
            bigger[noted_slot(bigger, 2 * n - 1, c->noted[i].addr, c->noted[i].size)] = c->noted[i];
    free(c->noted);
    c->noted = bigger;
    c->noted_mask = 2 * n - 1;
    return 1;
}

/* size bytes of code at addr are, or may be, executed */
static void note_code(Core *c, uint64_t addr, uint32_t size)
{
    if (!size)
        size = 1;
    c->seen = addr;
    c->seen_size = size;
    uint64_t i = noted_slot(c->noted, c->noted_mask, addr, size);
    if (c->noted[i].size)
        return;
    if (!grow_noted(c)) {
        c->noted_lost = 1;
        return;
    }
    c->noted[noted_slot(c->noted, c->noted_mask, addr, size)] = (noted){addr, size};
    c->noted_count++;
}

static void forget_noted(Core *c)
{
    if (c->noted_count)
        memset(c->noted, 0, (c->noted_mask + 1) * sizeof *c->noted);
    c->noted_count = 0;
    c->noted_lost = 0;
    if (c->near)
        memset(c->near->seen, 0, c->site_count + 1);
    c->seen_size = 0;
    c->epoch++;
}

/* Blocks that were counted by their own code, since these were noted. */
static void note_inlined(Core *c)
{
    if (!c->near)
        return;
    for (uint32_t i = 1; i <= c->site_count; i++)
        if (c->near->seen[i])
            note_code(c, c->sites[i].addr, c->sites[i].size);
    memset(c->near->seen, 0, c->site_count + 1);
}

/* take_code() -> (u64 address, u64 bytes) of every block noted, or None if some are not known; begins a new set */
static PyObject *Core_take_code(Core *c, PyObject *Py_UNUSED(ignored))
{
    PyObject *out = NULL;
    note_inlined(c);
    if (!c->noted_lost)
        out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(c->noted_count * 16));
    else
        out = Py_NewRef(Py_None);
    if (out && !c->noted_lost) {
        char *o = PyBytes_AS_STRING(out);
        for (uint64_t i = 0; i <= c->noted_mask; i++) {
            uint64_t pair[2] = {c->noted[i].addr, c->noted[i].size};
            if (!pair[1])
                continue;
            memcpy(o, pair, sizeof pair);
            o += sizeof pair;
        }
    }
    if (out)
        forget_noted(c);
    return out;
}

static PyObject *Core_forget_code(Core *c, PyObject *Py_UNUSED(ignored))
{
    forget_noted(c);
    look_at_regime(c);
    c->regime_moved = 0;
    Py_RETURN_NONE;
}
