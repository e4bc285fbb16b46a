/* Lists that Python hands over, taken item by item. */
#pragma once
#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Its length; -1, and an exception is set, if there is none, or more than there is room for. */
static Py_ssize_t list_length(PyObject *list, Py_ssize_t most, const char *what)
{
    Py_ssize_t n = PySequence_Size(list);
    if (n <= most)
        return n;
    PyErr_Format(PyExc_ValueError, "at most %zd %s", most, what);
    return -1;
}

/* Puts item number k where it belongs; -1: an exception is set. */
typedef int (*take_item)(void *to, Py_ssize_t k, PyObject *item);

/* Takes all n items; -1 behind the first that was not right. */
static int take_items(PyObject *list, Py_ssize_t n, take_item take, void *to)
{
    for (Py_ssize_t k = 0; k < n; k++) {
        PyObject *item = PySequence_GetItem(list, k);
        int error = item ? take(to, k, item) : -1;
        Py_XDECREF(item);
        if (error)
            return -1;
    }
    return 0;
}
