/* Whether the guest translates addresses. */
#pragma once
#include "_core.h"
#include "_lists.h"

/* Whether the guest translates addresses, as its control registers are now. */
static int translating(Core *c)
{
    for (int i = 0; i < c->control_count; i++) {
        const control *r = &c->controls[i];
        uint8_t buffer[64] = {0};
        uint64_t value = 0;
        memcpy(buffer, r->selector, sizeof r->selector);
        c->reg_read(c->uc, r->id, buffer);
        memcpy(&value, buffer + r->offset, sizeof value);
        if (value & r->mask)
            return 1;
    }
    return 0;
}

static int take_control(void *to, Py_ssize_t k, PyObject *item)
{
    Core *c = to;
    control *r = &c->controls[k];
    Py_buffer selector;
    unsigned long long mask;
    if (!PyArg_ParseTuple(item, "iy*IK", &r->id, &selector, &r->offset, &mask))
        return -1;
    memset(r->selector, 0, sizeof r->selector);
    memcpy(r->selector, selector.buf, selector.len < (Py_ssize_t)sizeof r->selector ? (size_t)selector.len : sizeof r->selector);
    PyBuffer_Release(&selector);
    r->mask = mask;
    return 0;
}

/* set_controls([(id, selector, offset, mask), ...]) */
static PyObject *Core_set_controls(Core *c, PyObject *list)
{
    Py_ssize_t n = list_length(list, MAX_CONTROLS, "control registers");
    if (n < 0)
        return NULL;
    c->control_count = 0;
    if (take_items(list, n, take_control, c))
        return NULL;
    c->control_count = (int)n;
    Py_RETURN_NONE;
}
