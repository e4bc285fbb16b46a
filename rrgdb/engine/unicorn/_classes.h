/* What has to be looked at before it runs: found by filters, and told apart by classes that Python gives to instructions. */
#pragma once
#include "_core.h"
#include "_family.h"

/* Whether a filter finds the instruction. See take_filter for those of a big-endian CPU. */
static int filtered(const Core *c, const uint8_t *b, uint32_t n, int second)
{
    if (n < 4 && !second)
        return 0;
    uint32_t word = 0;
    memcpy(&word, b, n < 4 ? n : 4);
    const filters *f = &c->filters[second];
    for (unsigned left = f->low[b[0]] & f->high[word >> 24], i = 0; left; left >>= 1, i++)
        if ((left & 1) && (word & f->mask[i]) == f->value[i])
            return 1;
    return 0;
}

ALWAYS_INLINE int interesting(const Family *f, const Core *c, const uint8_t *b, uint32_t n)
{
    return f->interesting ? f->interesting(c, b, n) : filtered(c, b, n, in_second(f, c));
}

static class_entry *class_slot(Core *c, const uint8_t *b, int n, int second)
{
    uint64_t h = (uint64_t)n;
    for (int i = 0; i < n; i++)
        h = h * 0x100000001b3ull ^ b[i];
    uint64_t i = mix(h) & (CLASS_SIZE - 1);
    while (c->classes[i].size && !(c->classes[i].size == n && c->classes[i].second == second &&
                                   memcmp(c->classes[i].bytes, b, (size_t)n) == 0))
        i = (i + 1) & (CLASS_SIZE - 1);
    return &c->classes[i];
}

/* set_class(code, second, class) */
static PyObject *Core_set_class(Core *c, PyObject *args)
{
    Py_buffer b;
    int cls, second;
    if (!PyArg_ParseTuple(args, "y*pi", &b, &second, &cls))
        return NULL;
    if (b.len >= 1 && b.len <= MAX_INSN) {
        if (c->class_count > CLASS_SIZE / 2) {
            memset(c->classes, 0, CLASS_SIZE * sizeof *c->classes);
            c->class_count = 0;
        }
        class_entry *e = class_slot(c, b.buf, (int)b.len, second);
        c->class_count += e->size == 0;
        memcpy(e->bytes, b.buf, (size_t)b.len);
        e->size = (uint8_t)b.len;
        e->second = (uint8_t)second;
        e->cls = (uint8_t)cls;
    }
    PyBuffer_Release(&b);
    Py_RETURN_NONE;
}
