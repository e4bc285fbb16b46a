/* Virtual pages whose places are known, for conditions of breakpoints in guests that translate addresses.
 *
 * A hook does not walk page tables: rrgdb/engine/paging/ does, in Python, for a page that a condition asks for (R_LEARN), and says
 * which words of tables and which registers it has read. While those are as they were, so is the page.
 */
#pragma once
#include "_core.h"
#include "_lists.h"
#include "_memory.h"
#include "_translation.h"

static known_page *known_slot(Core *c, uint64_t page)
{
    return &c->known_pages[(page >> 12) & (KNOWN_PAGES - 1)];
}

static int still_known(Core *c, const known_page *k)
{
    for (int i = 0; i < k->ways; i++)
        if (memcmp(k->way[i].at, k->way[i].was, k->way[i].size) != 0)
            return 0;
    for (int i = 0; i < k->register_count; i++)
        if (control_value(c, &k->registers[i]) != k->values[i])
            return 0;
    return 1;
}

/* Where size bytes at a virtual address are; NULL: not known, or in no RAM. */
static const uint8_t *known_host(Core *c, uint64_t address, uint64_t size)
{
    uint64_t page = address & ~(uint64_t)PAGE_MASK;
    if (!c->learns || (address & PAGE_MASK) + size > PAGE)
        return NULL;
    const known_page *k = known_slot(c, page);
    if (k->page != page || !still_known(c, k)) {
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

static int take_word_of_way(void *to, Py_ssize_t k, PyObject *item)
{
    known_page *known = to;
    unsigned long long host;
    unsigned int size;
    if (!PyArg_ParseTuple(item, "KI", &host, &size))
        return -1;
    if (size > sizeof known->way->was) {
        PyErr_SetString(PyExc_ValueError, "an entry of a page table is too large");
        return -1;
    }
    known->way[k] = (mask_bytes){(const uint8_t *)(uintptr_t)host, size, {0}};
    memcpy(known->way[k].was, known->way[k].at, size);
    known->ways++;
    return 0;
}

static int take_register_of_way(void *to, Py_ssize_t k, PyObject *item)
{
    known_page *known = to;
    if (take_control_to(&known->registers[k], item))
        return -1;
    known->register_count++;
    return 0;
}

/* learn(page, host or 0, [(host, bytes), ...], registers): where a page is, and what that follows from; no words and registers: for
 * good */
static PyObject *Core_learn(Core *c, PyObject *args)
{
    unsigned long long page, host;
    PyObject *words, *registers;
    known_page known = {.ways = 0};
    if (!PyArg_ParseTuple(args, "KKOO", &page, &host, &words, &registers))
        return NULL;
    Py_ssize_t n = list_length(words, MAX_WAY, "entries of page tables"), m = list_length(registers, MAX_REGIME, "registers");
    if (n < 0 || m < 0 || take_items(words, n, take_word_of_way, &known) ||
        take_items(registers, m, take_register_of_way, &known))
        return NULL;
    known.page = page;
    known.host = (const uint8_t *)(uintptr_t)host;
    for (int i = 0; i < known.register_count; i++)
        known.values[i] = control_value(c, &known.registers[i]);
    *known_slot(c, page) = known;
    Py_RETURN_NONE;
}
