/* What Python arms: breakpoints with conditions, watches, a range, collecting. */
#pragma once
#include "_agent.h"
#include "_core.h"
#include "_lists.h"
#include "_memory.h"
#include "_watch.h"
#include "_ways.h"

static void free_watches(Core *c)
{
    for (int i = 0; i < c->watch_count; i++) {
        free(c->watches[i].old);
        free(c->watches[i].before);
        free(c->watches[i].after);
    }
    c->watch_count = 0;
}

static void free_breakpoints(bp_entry *table, uint64_t size)
{
    for (uint64_t i = 0; table && i < size; i++)
        agent_free(table[i].codes);
    free(table);
}

static void update_points(Core *c)
{
    c->points = c->watch_count || c->bp_count || c->range_on;
}

static int take_register(void *to, Py_ssize_t k, PyObject *item)
{
    Core *c = to;
    (void)k;
    int id, at;
    unsigned int bits;
    if (!PyArg_ParseTuple(item, "iIi", &id, &bits, &at))
        return -1;
    c->registers[c->register_count++] = (agent_register){id, bits, at};
    return 0;
}

/* set_registers([(id, bits, place), ...]): by GDB's numbers, for conditions */
static PyObject *Core_set_registers(Core *c, PyObject *list)
{
    Py_ssize_t n = list_length(list, MAX_REGISTERS, "registers");
    if (n < 0)
        return NULL;
    c->register_count = 0;
    if (take_items(list, n, take_register, c))
        return NULL;
    Py_RETURN_NONE;
}

/* The conditions of one breakpoint, a tuple of bytes: decoded in ``*codes``, which stays NULL if Python must be asked. */
static int take_conditions(const Core *c, PyObject *conditions, agent_code **codes)
{
    if (!PyTuple_Check(conditions)) {
        PyErr_SetString(PyExc_TypeError, "conditions of a breakpoint: expected a tuple of bytes, or None");
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(conditions); i++) {
        char *bytes;
        Py_ssize_t length;
        int failed = 0;
        if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(conditions, i), &bytes, &length) < 0)
            return -1;
        agent_code *code = agent_decode(c, (uint8_t *)bytes, (size_t)length, &failed);
        if (failed) {
            PyErr_NoMemory();
            return -1;
        }
        if (!code) {
            agent_free(*codes);
            *codes = NULL;
            return 0;
        }
        code->next = *codes;
        *codes = code;
    }
    return 0;
}

/* set_breakpoints([(address, conditions or None), ...]) */
static PyObject *Core_set_breakpoints(Core *c, PyObject *list)
{
    Py_ssize_t n = PySequence_Size(list);
    if (n < 0)
        return NULL;
    uint64_t size = 16;
    while (size < (uint64_t)n * 4)
        size *= 2;
    bp_entry *table = calloc(size, sizeof *table);
    if (!table)
        return PyErr_NoMemory();
    uint8_t filter[BP_FILTER] = {0}, pages[256] = {0};
    for (Py_ssize_t k = 0; k < n; k++) {
        PyObject *item = PySequence_GetItem(list, k), *conditions;
        unsigned long long address;
        agent_code *codes = NULL;
        if (!item || !PyArg_ParseTuple(item, "KO", &address, &conditions) ||
            (conditions != Py_None && take_conditions(c, conditions, &codes) < 0)) {
            Py_XDECREF(item);
            agent_free(codes);
            free_breakpoints(table, size);
            return NULL;
        }
        uint8_t conditional = conditions != Py_None;
        Py_DECREF(item);
        uint64_t i = mix(address) & (size - 1);
        while (table[i].used && table[i].address != address)
            i = (i + 1) & (size - 1);
        if (table[i].used) { /* twice: either stops; of two conditions Python is to tell */
            conditional = table[i].conditional && conditional;
            agent_free(codes);
            agent_free(table[i].codes);
            codes = NULL;
        }
        table[i] = (bp_entry){address, 1, conditional, codes};
        filter[(address >> 1) & (BP_FILTER - 1)] = 1;
        pages[address >> 12 & 255] = 1;
    }
    free_breakpoints(c->bps, c->bp_mask + 1);
    c->bps = table;
    c->bp_mask = size - 1;
    c->bp_count = (uint32_t)n;
    memcpy(c->bp_filter, filter, sizeof filter);
    memcpy(c->bp_pages, pages, sizeof pages);
    c->checked++;
    update_points(c);
    Py_RETURN_NONE;
}

static void rearm(Core *c)
{
    for (int i = 0; i < c->watch_count; i++) {
        c->watches[i].hit = 0;
        if (c->watches[i].host)
            memcpy(c->watches[i].old, c->watches[i].host, c->watches[i].length);
    }
}

static int take_watch(void *to, Py_ssize_t k, PyObject *item)
{
    Core *c = to;
    (void)k;
    unsigned long long address;
    unsigned int length;
    char kind;
    int fixed = 0, bound = 0;
    if (!PyArg_ParseTuple(item, "KIc|pp", &address, &length, &kind, &fixed, &bound))
        return -1;
    if (!length || (address & PAGE_MASK) + length > PAGE) {
        PyErr_SetString(PyExc_ValueError, "a watched range lies in no page");
        return -1;
    }
    watch *w = &c->watches[c->watch_count++];
    *w = (watch){.address = address, .physical = NO_PC, .length = length, .kind = kind, .fixed = fixed, .bound = bound};
    w->old = malloc(length);
    w->before = malloc(length);
    w->after = malloc(length);
    if (!w->old || !w->before || !w->after) {
        free_watches(c);
        PyErr_NoMemory();
        return -1;
    }
    c->watches_access |= kind != 'w';
    return 0;
}

/* set_watches([(address, length, kind[, fixed[, bound]]), ...]): each within a page; fixed: at a physical address; bound: of one
 * address space */
static PyObject *Core_set_watches(Core *c, PyObject *list)
{
    Py_ssize_t n = list_length(list, MAX_WATCHES, "watched ranges");
    if (n < 0)
        return NULL;
    free_watches(c);
    c->watches_access = 0;
    if (take_items(list, n, take_watch, c))
        return NULL;
    find_watches(c);
    rearm(c);
    note_lost(c);
    update_points(c);
    c->code_watched = 0;
    c->checked++;
    Py_RETURN_NONE;
}

static int take_place(void *to, Py_ssize_t k, PyObject *item)
{
    Core *c = to;
    PyObject *place, *found;
    watch *w = &c->watches[k];
    if (!PyArg_ParseTuple(item, "OO", &place, &found))
        return -1;
    if (w->placed && w->way.known && !still_leads(c, &w->way))
        w->before_move = (whereabouts){w->physical, w->host, w->way};
    w->placed = place != Py_None;
    if (take_way(c, &w->way, found))
        return -1;
    if (!w->placed)
        return 0;
    uint64_t physical = PyLong_AsUnsignedLongLong(place);
    if (PyErr_Occurred())
        return -1;
    place_watch(w, physical, physical_to_host(c, physical));
    return 0;
}

/* place_watches([(physical or None, way), ...]): where each watch is now; None: nothing is mapped there, it stays where it was */
static PyObject *Core_place_watches(Core *c, PyObject *list)
{
    Py_ssize_t n = list_length(list, c->watch_count, "watched ranges");
    if (n < 0 || take_items(list, n, take_place, c))
        return NULL;
    note_lost(c);
    c->checked++;
    Py_RETURN_NONE;
}

/* set_guard(base): where 2 * GUARD_SIZE bytes of physical addresses are free; without it watches need the slow gear */
static PyObject *Core_set_guard(Core *c, PyObject *args)
{
    unsigned long long base;
    if (!PyArg_ParseTuple(args, "K", &base))
        return NULL;
    c->guard_base = base;
    Py_RETURN_NONE;
}

static PyObject *Core_rearm_watches(Core *c, PyObject *Py_UNUSED(ignored))
{
    rearm(c);
    Py_RETURN_NONE;
}

static PyObject *Core_set_collect(Core *c, PyObject *args)
{
    if (!PyArg_ParseTuple(args, "p", &c->collect))
        return NULL;
    rearm(c);
    for (int i = 0; i < c->watch_count; i++)
        c->watches[i].last = 0;
    c->bp_last = c->watch_last = NO_ICOUNT;
    c->checked++;
    Py_RETURN_NONE;
}

/* [(index, old, new), ...] of the last watch stop, or of the last one collected; forgets them */
static PyObject *Core_take_watch_hits(Core *c, PyObject *Py_UNUSED(ignored))
{
    PyObject *result = PyList_New(0);
    if (!result)
        return NULL;
    for (int i = 0; i < c->watch_count; i++) {
        watch *w = &c->watches[i];
        if (!w->last)
            continue;
        w->last = 0;
        Py_ssize_t known = w->host ? (Py_ssize_t)w->length : 0;
        PyObject *item = Py_BuildValue("(iy#y#)", i, (char *)w->before, known, (char *)w->after, known);
        if (!item || PyList_Append(result, item) < 0) {
            Py_XDECREF(item);
            Py_DECREF(result);
            return NULL;
        }
        Py_DECREF(item);
    }
    return result;
}

static PyObject *Core_set_range(Core *c, PyObject *args)
{
    unsigned long long start, end;
    if (!PyArg_ParseTuple(args, "KK", &start, &end))
        return NULL;
    c->range_start = start;
    c->range_end = end;
    c->range_on = start != end;
    update_points(c);
    Py_RETURN_NONE;
}
