/* Exceptions that a handler of the guest's own takes, entered without leaving for Python: system calls, and accesses to pages that
 * are not there. All else, and whatever somebody else has to hear of, is Python's (rrgdb/arch, Arch.enter_exception, which this
 * must agree with).
 */
#pragma once
#include "_core.h"
#include "_family.h"
#include "_registers.h"
#include "_watch.h"

/* A number in the context as it was when the exception came. */
static uint64_t saved_word(const Core *c, int at, size_t size)
{
    uint64_t value = 0;
    memcpy(&value, c->saved + CONTEXT_HEADER + at, size);
    return value;
}

/* The instruction that was counted last has raised an exception: it has not retired. */
static void retract(Core *c)
{
    forget_hits(c);
    c->icount--;
    c->mmu_moved = 0;
    if (c->family->undone)
        c->family->undone(c);
}

/* Whether the run has ended with an exception that was entered here, which counts as an instruction: it goes on. */
static int entered(Core *c)
{
    const Family *f = c->family;
    uint64_t pc = 0;
    if (c->reason != R_EXCEPTION || !c->entry_words || c->last_pc == NO_PC || c->watch_count || c->range_on)
        return 0;
    /* A device may have ended the run with the instruction that was counted last. */
    if (c->icount >= c->user_limit || c->faulted || c->denied)
        return 0;
    c->reg_read(c->uc, c->pc_id, &pc);
    pc = linear(c, pc - c->stale_pc);
    int behind = pc == c->last_pc + c->last_size;
    if (pc != c->last_pc && !behind)
        return 0;
    c->context_save(c->uc, c->saved);
    if (!f->enters(c, c->exception, behind))
        return 0;
    retract(c);
    f->enter_exception(c, c->exception);
    c->icount++;
    c->exceptions++;
    pc = 0;
    c->reg_read(c->uc, c->pc_id, &pc);
    c->pc = linear(c, pc);
    c->watches_moved = 1;
    return 1;
}

/* item: a number, or None */
static int take_offset(PyObject *item, void *to)
{
    *(int *)to = item == Py_None ? -1 : (int)PyLong_AsLong(item);
    return !PyErr_Occurred();
}

/* set_entry(context, fault address, syndrome, (place, ...)): a uc_context to save into, where in the CPU's bytes those two lie, and how the registers of the family's own are passed that an exception changes */
static PyObject *Core_set_entry(Core *c, PyObject *args)
{
    unsigned long long context;
    PyObject *words;
    if (!PyArg_ParseTuple(args, "KO&O&O!", &context, take_offset, &c->fault_at, take_offset, &c->syndrome_at,
                          &PyTuple_Type, &words))
        return NULL;
    Py_ssize_t n = PyTuple_GET_SIZE(words);
    if (!c->family->enters || n != c->family->entry_words) {
        PyErr_SetString(PyExc_ValueError, "not the registers of an exception of this family");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < n; i++)
        if (!word_place_of(PyTuple_GET_ITEM(words, i)))
            return NULL;
    c->saved = (uint8_t *)(uintptr_t)context;
    Py_INCREF(words);
    Py_XSETREF(c->entry_words, words);
    Py_RETURN_NONE;
}
