/* Ways to virtual addresses: what their translation follows from.
 *
 * No hook walks page tables: rrgdb/engine/paging/ does, in Python, and says which words of tables and which registers it has read.
 * While those are as they were, so is the place of the address.
 */
#pragma once
#include "_core.h"
#include "_lists.h"
#include "_translation.h"

static int still_leads(Core *c, const way *w)
{
    if (!w->known)
        return 0;
    for (int i = 0; i < w->word_count; i++)
        if (memcmp(w->words[i].at, w->words[i].was, w->words[i].size) != 0)
            return 0;
    for (int i = 0; i < w->register_count; i++)
        if (control_value(c, &w->registers[i]) != w->values[i])
            return 0;
    return 1;
}

/* to: the first of the words */
static int take_way_word(void *to, Py_ssize_t k, PyObject *item)
{
    mask_bytes *word = (mask_bytes *)to + k;
    unsigned long long host;
    unsigned int size;
    if (!PyArg_ParseTuple(item, "KI", &host, &size))
        return -1;
    if (size > sizeof word->was) {
        PyErr_SetString(PyExc_ValueError, "an entry of a page table is too large");
        return -1;
    }
    *word = (mask_bytes){(const uint8_t *)(uintptr_t)host, size, {0}};
    memcpy(word->was, word->at, size);
    return 0;
}

/* ([(host, bytes), ...], [(id, selector, offset, privilege, mask), ...]) as they are now, or None: it is not known */
static int take_way(Core *c, way *w, PyObject *item)
{
    PyObject *words, *registers;
    w->known = 0;
    if (item == Py_None)
        return 0;
    if (!PyArg_ParseTuple(item, "OO", &words, &registers))
        return -1;
    Py_ssize_t n = list_length(words, MAX_WAY, "entries of page tables"), m = list_length(registers, MAX_REGIME, "registers");
    if (n < 0 || m < 0 || take_items(words, n, take_way_word, w->words) ||
        take_items(registers, m, take_control, w->registers))
        return -1;
    w->word_count = (int)n;
    w->register_count = (int)m;
    for (int i = 0; i < w->register_count; i++)
        w->values[i] = control_value(c, &w->registers[i]);
    w->known = 1;
    return 0;
}
