/* Registers as Python reads and writes them, by Unicorn's numbers. */
#pragma once
#include "_core.h"
#include "_translation.h"

/* read_registers(plan): plan holds (int32 id, int32 bytes) pairs, id < 0 for bytes of zero */
static PyObject *Core_read_registers(Core *c, PyObject *args)
{
    Py_buffer plan;
    if (!PyArg_ParseTuple(args, "y*", &plan))
        return NULL;
    const int32_t *p = plan.buf;
    Py_ssize_t n = plan.len / 8, total = 0;
    for (Py_ssize_t i = 0; i < n; i++)
        total += p[2 * i + 1];
    PyObject *out = PyBytes_FromStringAndSize(NULL, total);
    if (out) {
        char *o = PyBytes_AS_STRING(out);
        for (Py_ssize_t i = 0; i < n; i++) {
            uint8_t value[64] = {0};
            if (p[2 * i] >= 0)
                c->reg_read(c->uc, p[2 * i], value);
            memcpy(o, value, (size_t)p[2 * i + 1]);
            o += p[2 * i + 1];
        }
    }
    PyBuffer_Release(&plan);
    return out;
}

/* How Unicorn's interface passes a register of up to eight bytes: what it is given begins with the selector, if there is one,
 * and has the value at the offset; parted: what else is passed with it stays as it is; privilege: the least that it is read at. */
typedef struct { int32_t id; uint32_t offset, size, parted, privilege, selector_size; uint8_t selector[]; } word_place;

static const word_place *word_place_of(PyObject *bytes)
{
    const word_place *p = PyBytes_Check(bytes) ? (const word_place *)PyBytes_AS_STRING(bytes) : NULL;
    size_t length = p ? (size_t)PyBytes_GET_SIZE(bytes) : 0;
    if (length < sizeof *p || p->selector_size > 32 || length != sizeof *p + p->selector_size || p->size > 8 || p->offset > 32) {
        PyErr_SetString(PyExc_ValueError, "the place of a register: expected id, offset, size, parted, privilege, bytes of the selector, and those");
        return NULL;
    }
    return p;
}

static uint64_t read_word(Core *c, const word_place *p)
{
    return read_register(c, p->id, p->selector, p->selector_size, p->offset, p->size, p->privilege);
}

/* Unicorn's error. What needs privilege is written with that of the CPU. */
static int write_word(Core *c, const word_place *p, uint64_t value)
{
    uint8_t buffer[64] = {0};
    memcpy(buffer, p->selector, p->selector_size);
    if (p->parted)
        c->reg_read(c->uc, p->id, buffer);
    memcpy(buffer + p->offset, &value, p->size);
    return c->reg_write(c->uc, p->id, buffer);
}

static PyObject *Core_read_word(Core *c, PyObject *place)
{
    const word_place *p = word_place_of(place);
    return p ? PyLong_FromUnsignedLongLong(read_word(c, p)) : NULL;
}

static PyObject *Core_write_word(Core *c, PyObject *const *args, Py_ssize_t n)
{
    const word_place *p = n == 2 ? word_place_of(args[0]) : NULL;
    if (!p) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "expected a place and a value");
        return NULL;
    }
    uint64_t value = PyLong_AsUnsignedLongLongMask(args[1]);
    if (PyErr_Occurred())
        return NULL;
    return PyLong_FromLong(write_word(c, p, value));
}

/* Registers that an exception of the family's own changes, by their numbers in its list (see _exceptions.h). */
static const word_place *entry_place(const Core *c, int n)
{
    return (const word_place *)PyBytes_AS_STRING(PyTuple_GET_ITEM(c->entry_words, n));
}

static uint64_t entry_read(Core *c, int n)
{
    return read_word(c, entry_place(c, n));
}

static void entry_write(Core *c, int n, uint64_t value)
{
    write_word(c, entry_place(c, n), value);
}
