/* How a Core is made: its family, what Python hands over, the hooks that stay. */
#pragma once
#include "_core.h"
#include "_families.h"
#include "_family.h"
#include "_fast.h"
#include "_footprint.h"
#include "_gears.h"
#include "_lists.h"

static int add_hook(Core *c, int type, void *callback, size_t *handle)
{
    return c->hook_add(c->uc, handle, type, callback, c, (uint64_t)1, (uint64_t)0);
}

static int take_filter(void *to, Py_ssize_t i, PyObject *pair)
{
    filters *f = to;
    unsigned int mask, value;
    if (!PyArg_ParseTuple(pair, "II", &mask, &value))
        return -1;
    if (f->turned) {
        mask = __builtin_bswap32(mask);
        value = __builtin_bswap32(value);
    }
    f->mask[i] = mask;
    f->value[i] = value;
    for (unsigned byte = 0; byte < 256; byte++) {
        f->low[byte] |= (uint16_t)(((byte ^ value) & mask & 0xff) == 0) << i;
        f->high[byte] |= (uint16_t)(((byte << 24 ^ value) & mask & 0xff000000u) == 0) << i;
    }
    return 0;
}

static int take_filters(const Core *c, filters *f, PyObject *pairs)
{
    Py_ssize_t n = list_length(pairs, MAX_FILTERS, "trap filters");
    f->turned = c->big_endian;
    return n < 0 || take_items(pairs, n, take_filter, f) ? -1 : 0;
}

static int take_family(Core *c, const char *name)
{
    for (size_t i = 0; i < FAMILY_COUNT; i++) {
        if (strcmp(families[i].family->name, name) != 0)
            continue;
        c->family = families[i].family;
        c->hooks = families[i].hooks;
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "no family %s", name);
    return -1;
}

/* places: name to number or address */
static int take_places(Core *c, PyObject *places)
{
    Py_ssize_t given = PyDict_Size(places), known = 0;
    if (!given && c->family->places_optional)
        return 0;
    for (const place *p = c->family->places; p && p->name; p++, known++) {
        PyObject *item = PyDict_GetItemString(places, p->name);
        char *to = (char *)c + p->at;
        if (!item) {
            PyErr_Format(PyExc_KeyError, "%s", p->name);
            return -1;
        }
        if (p->pointer)
            *(void **)to = PyLong_AsVoidPtr(item);
        else
            *(int *)to = (int)PyLong_AsLong(item);
        if (PyErr_Occurred())
            return -1;
    }
    if (known == given)
        return 0;
    PyErr_Format(PyExc_ValueError, "places that the family %s does not have", c->family->name);
    return -1;
}

/* libunicorn's functions, and where a Core keeps their addresses. */
static const struct { const char *name; size_t at; } functions_used[] = {
    {"uc_emu_start", offsetof(Core, emu_start)},
    {"uc_emu_stop", offsetof(Core, emu_stop)},
    {"uc_reg_read", offsetof(Core, reg_read)},
    {"uc_reg_write", offsetof(Core, reg_write)},
    {"uc_hook_add", offsetof(Core, hook_add)},
    {"uc_hook_del", offsetof(Core, hook_del)},
    {"uc_vmem_translate", offsetof(Core, translate)},
    {"uc_ctl", offsetof(Core, ctl)},
    {"uc_context_save", offsetof(Core, context_save)},
    {"uc_context_restore", offsetof(Core, context_restore)},
    {"uc_mmio_map", offsetof(Core, mmio_map)},
    {"uc_mem_protect", offsetof(Core, mem_protect)},
    {"uc_mem_map_ptr", offsetof(Core, mem_map_ptr)},
    {"uc_mem_unmap", offsetof(Core, mem_unmap)},
};
#define FUNCTIONS (sizeof functions_used / sizeof *functions_used)

/* functions: name to address */
static int take_functions(Core *c, PyObject *functions)
{
    for (size_t i = 0; i < FUNCTIONS; i++) {
        PyObject *address = PyDict_GetItemString(functions, functions_used[i].name);
        if (!address) {
            PyErr_Format(PyExc_KeyError, "%s", functions_used[i].name);
            return -1;
        }
        void *function = PyLong_AsVoidPtr(address);
        if (!function && PyErr_Occurred())
            return -1;
        memcpy((char *)c + functions_used[i].at, &function, sizeof function);
    }
    return 0;
}

static int Core_init(Core *c, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"uc", "functions", "family", "wide", "big_endian", "places", "filters", "code_pages", "ram",
                            "fast", "pc", "stale_pc", "bare", "no_sync", "inlines", "mapping", NULL};
    unsigned long long uc, ram, no_sync, mapping_at;
    const char *family;
    PyObject *functions, *places, *filters[2], *pages;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KO!sppO!(OO)OKpiIpKpK", names, &uc, &PyDict_Type, &functions, &family,
                                     &c->wide, &c->big_endian, &PyDict_Type, &places, &filters[0], &filters[1], &pages,
                                     &ram, &c->fast, &c->pc_id, &c->stale_pc, &c->bare, &no_sync,
                                     &c->inlines, &mapping_at))
        return -1;
    c->uc = (void *)(uintptr_t)uc;
    c->address_mask = c->wide ? UINT64_MAX : UINT32_MAX;
    c->ram = (uint8_t *)(uintptr_t)ram;
    c->no_sync = (uint8_t *)(uintptr_t)no_sync;
    c->mapping_at = (mapping_fn *)(uintptr_t)mapping_at;
    c->mapping = c->mapping_at ? *c->mapping_at : NULL;
    c->skip = c->bp_last = c->watch_last = c->untold_icount = NO_ICOUNT;
    forget_known(c);
    if (take_functions(c, functions) || take_family(c, family) || take_places(c, places) ||
        take_filters(c, &c->filters[0], filters[0]) || take_filters(c, &c->filters[1], filters[1]))
        return -1;
    if (!PyByteArray_Check(pages)) {
        PyErr_SetString(PyExc_TypeError, "code_pages must be a bytearray");
        return -1;
    }
    Py_INCREF(pages);
    c->code_pages_owner = pages;
    c->code_pages = (uint8_t *)PyByteArray_AS_STRING(pages);
    c->code_pages_length = (uint64_t)PyByteArray_GET_SIZE(pages);
    c->page_flags = calloc(c->code_pages_length + 1, 1);
    c->block_mask = FIRST_BLOCKS - 1;
    c->blocks = calloc(FIRST_BLOCKS, sizeof *c->blocks);
    c->noted_mask = FIRST_NOTED - 1;
    c->noted = calloc(FIRST_NOTED, sizeof *c->noted);
    c->epoch = 1;
    c->phase = PHASE_FAST;
    c->fills_look = MANY_FILLS;
    c->shrink_pause = SHRINK_APART;
    c->classes = calloc(CLASS_SIZE, sizeof *c->classes);
    c->bps = calloc(1, sizeof *c->bps);
    c->plans = calloc(PLANS, sizeof *c->plans);
    if (!c->classes || !c->bps || !c->page_flags || !c->blocks || !c->noted || !c->plans) {
        PyErr_NoMemory();
        return -1;
    }
    size_t h;
    int e = add_hook(c, UC_HOOK_BLOCK, c->hooks->block, &h);
    if (c->fast && !c->bare)
        e |= add_hook(c, UC_HOOK_TLB_FILL, c->hooks->tlb, &h);
    if (c->bare && !c->fast) {
        enter_phase(c, PHASE_SLOW, 0, 0); /* counting comes before all hooks of others */
    } else if (!c->bare) {
        e |= add_hook(c, UC_HOOK_INTR, (void *)on_interrupt, &h);
        e |= add_hook(c, UC_HOOK_INSN_INVALID, (void *)on_invalid_insn, &h);
    }
    if (e || watch_holes(c)) {
        PyErr_Format(PyExc_RuntimeError, "Unicorn refused a hook (error %d)", e);
        return -1;
    }
    return 0;
}

