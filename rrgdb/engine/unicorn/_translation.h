/* Whether the guest translates addresses. */
#pragma once
#include "_core.h"
#include "_family.h"
#include "_lists.h"

/* Of what Unicorn's interface answers to a selector, size bytes at an offset. It shows registers of higher privilege to that alone:
 * they are read at the least that does. */
static uint64_t read_register(Core *c, int id, const uint8_t *selector, size_t selector_size, uint32_t offset, size_t size,
                              uint32_t least)
{
    uint8_t buffer[64] = {0};
    uint64_t value = 0;
    uint32_t before = c->privilege ? *c->privilege : least;
    memcpy(buffer, selector, selector_size);
    if (before < least)
        *c->privilege = least;
    c->reg_read(c->uc, id, buffer);
    if (before < least)
        *c->privilege = before;
    memcpy(&value, buffer + offset, size);
    return value;
}

/* What of a control register counts. */
static uint64_t control_value(Core *c, const control *r)
{
    return read_register(c, r->id, r->selector, sizeof r->selector, r->offset, sizeof r->mask, r->privilege) & r->mask;
}

/* Whether the guest translates addresses, as its control registers are now. */
static int translating(Core *c)
{
    for (int i = 0; i < c->control_count; i++)
        if (control_value(c, &c->controls[i]))
            return 1;
    return 0;
}

/* The registers that say how addresses are translated, in whichever address space: have they changed since the last look? */
static void look_at_regime(Core *c)
{
    for (int i = 0; i < c->regime_count; i++) {
        uint64_t value = control_value(c, &c->regime[i]);
        c->regime_moved |= value != c->regime_values[i];
        c->regime_values[i] = value;
    }
}

/* to: the first of the controls */
static int take_control(void *to, Py_ssize_t k, PyObject *item)
{
    control *r = (control *)to + k;
    Py_buffer selector;
    unsigned long long mask;
    if (!PyArg_ParseTuple(item, "iy*IIK", &r->id, &selector, &r->offset, &r->privilege, &mask))
        return -1;
    memset(r->selector, 0, sizeof r->selector);
    memcpy(r->selector, selector.buf, selector.len < (Py_ssize_t)sizeof r->selector ? (size_t)selector.len : sizeof r->selector);
    PyBuffer_Release(&selector);
    r->mask = mask;
    return 0;
}

/* set_controls([(id, selector, offset, privilege, mask), ...]) */
static PyObject *Core_set_controls(Core *c, PyObject *list)
{
    Py_ssize_t n = list_length(list, MAX_CONTROLS, "control registers");
    if (n < 0)
        return NULL;
    c->control_count = 0;
    if (take_items(list, n, take_control, c->controls))
        return NULL;
    c->control_count = (int)n;
    Py_RETURN_NONE;
}

/* set_regime([(id, selector, offset, privilege, mask), ...]) */
static PyObject *Core_set_regime(Core *c, PyObject *list)
{
    Py_ssize_t n = list_length(list, MAX_REGIME, "registers of translation");
    if (n < 0 || take_items(list, n, take_control, c->regime))
        return NULL;
    c->regime_count = (int)n;
    look_at_regime(c);
    c->regime_moved = 0;
    Py_RETURN_NONE;
}

/* take_regime() -> whether those registers have changed since it was asked last, or since forget_code */
static PyObject *Core_take_regime(Core *c, PyObject *Py_UNUSED(ignored))
{
    look_at_regime(c);
    int moved = c->regime_moved;
    c->regime_moved = 0;
    return PyBool_FromLong(moved);
}
