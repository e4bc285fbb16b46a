/* Virtual pages whose places are known, for conditions of breakpoints in guests that translate addresses: Python finds one
 * when a condition asks for it (R_LEARN). */
#pragma once
#include "_core.h"
#include "_memory.h"
#include "_ways.h"

static known_page *known_slot(Core *c, uint64_t page)
{
    return &c->known_pages[(page >> 12) & (KNOWN_PAGES - 1)];
}

/* Where size bytes at a virtual address are; NULL: not known, or in no RAM. */
static const uint8_t *known_host(Core *c, uint64_t address, uint64_t size)
{
    uint64_t page = address & ~(uint64_t)PAGE_MASK;
    if (!c->learns || (address & PAGE_MASK) + size > PAGE)
        return NULL;
    const known_page *k = known_slot(c, page);
    if (k->page != page || !still_leads(c, &k->way)) {
        c->asked_page = page;
        return NULL;
    }
    return k->host ? k->host + (address & PAGE_MASK) : NULL;
}

static void forget_known(Core *c)
{
    for (int i = 0; i < KNOWN_PAGES; i++)
        c->known_pages[i].page = NO_PC;
    c->asked_page = NO_PC;
}

/* learn(page, host or 0, way): where a page is; a way of nothing: for good */
static PyObject *Core_learn(Core *c, PyObject *args)
{
    unsigned long long page, host;
    PyObject *found;
    known_page known = {.page = NO_PC};
    if (!PyArg_ParseTuple(args, "KKO", &page, &host, &found) || take_way(c, &known.way, found))
        return NULL;
    known.page = page;
    known.host = (const uint8_t *)(uintptr_t)host;
    *known_slot(c, page) = known;
    Py_RETURN_NONE;
}
