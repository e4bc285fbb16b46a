/* The fast gear of an engine that a script drives: with its hooks, on Unicorn's own TLB, so that it computes what Unicorn
 * alone would.
 *
 * None of the script's hooks is called within a block that is counted as a whole. Where one may be called for an
 * instruction, or a block, by its address, all blocks there are exact. Hooks for accesses are known by their ranges: such an
 * access is refused, as those to devices are (see find_mapping), the instruction has not happened then, and its block becomes
 * exact. Hooks for instructions and for exceptions have companions, which are called before them, as all of rrgdb's are: the
 * one looks at the instruction. The other counts what ran of the block, which an exception ends: it is left to the script's
 * hook at once. Instructions after whose exceptions the flags would depend on that are not plain (`raises` of _family.h).
 */
#pragma once
#include "_core.h"
#include "_family.h"
#include "_inline.h"
#include "_lists.h"
#include "_memory.h"
#include "_points.h"

#define MAX_SPANS (1 << 20)

static inline int in_spans(const spans *s, uint64_t first, uint64_t last)
{
    if (!s->count || last < s->first || first > s->last)
        return 0;
    for (Py_ssize_t i = 0; i < s->count; i++)
        if (last >= s->list[i].first && first <= s->list[i].last)
            return 1;
    return 0;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* Whether a block that is counted as a whole would leave something to chance, besides what its flags say. */
static int script_exact(Core *c, uint64_t addr, const uint8_t *bytes, uint32_t size)
{
    const Family *f = c->family;
    if (in_second(f, c) && f->passes_over && f->passes_over(c, addr, size))
        return 1;
    for (uint32_t at = 0, n; f->raises && at < size; at += n) {
        n = f->plain_length(c, bytes + at, size - at);
        if (!n || f->raises(c, bytes + at, n))
            return 1;
    }
    return 0;
}

/* Keep the bytes of a block: Unicorn drops what the guest has written over by itself, and tells nobody. Zero: no memory. */
static int keep_copy(Core *c, block_entry *e, uint64_t addr)
{
    if (c->copies_room - c->copies_used < e->size) {
        uint32_t room = 2 * c->copies_room + e->size + (1 << 16);
        uint8_t *copies = room > c->copies_room ? realloc(c->copies, room) : NULL;
        if (!copies)
            return 0;
        c->copies = copies;
        c->copies_room = room;
    }
    e->copy = c->copies_used;
    c->copies_used += e->size;
    return copy_code(c, addr, c->copies + e->copy, e->size) == e->size;
}

static int same_copy(Core *c, const block_entry *e, uint64_t addr)
{
    uint32_t offset = (uint32_t)(addr & PAGE_MASK);
    if (offset + e->size <= PAGE) {
        const uint8_t *page = code_page(c, addr);
        return page && memcmp(page + offset, c->copies + e->copy, e->size) == 0;
    }
    uint8_t now[MAX_BLOCK];
    return e->size <= MAX_BLOCK && copy_code(c, addr, now, e->size) == e->size &&
           memcmp(now, c->copies + e->copy, e->size) == 0;
}

/* The hook of a block has done its part. Unless the run was stopped, the script's are called next: again is set if they were
 * for this block, before the run was stopped in its midst. */
static void tell_script(Core *c, uint64_t addr, uint64_t icount)
{
    int told = c->begins && !(c->untold == addr && c->untold_icount == icount);
    c->begins = 0;
    if (!c->stopped) {
        c->again = told;
        c->untold_icount = NO_ICOUNT;
    } else if (!told) {
        c->untold = addr;
        c->untold_icount = icount;
    }
}

/* ---- companions ------------------------------------------------------------------------------ */

/* The block at hand is done, as far as it went. */
static void leave_whole_block(Core *c)
{
    hook_next(c);
    c->whole = 0;
    c->block_length = 0;
}

/* refuses(type) -> bool: from within a hook of the script's for an access, while a block is counted as a whole: whether the
 * access is not made now, and the hook is to do nothing. type: UC_MEM_READ, … */
static PyObject *Core_refuses(Core *c, PyObject *args)
{
    int type, fetch;
    if (!PyArg_ParseTuple(args, "i", &type))
        return NULL;
    fetch = type == UC_MEM_FETCH_UNMAPPED || type == UC_MEM_FETCH_PROT;
    if (fetch && (!c->refused || c->refused == REFUSED_DEVICE)) { /* of the next block */
        c->refused = 0;
        leave_whole_block(c);
        Py_RETURN_FALSE;
    }
    if (!c->refused)
        c->refused = REFUSED_DEVICE;
    c->emu_stop(c->uc); /* nor do those behind it */
    Py_RETURN_TRUE;
}

/* Before the script's hooks for exceptions. ahead: how far pc is; behind: the instruction before pc has raised it. */
static void exception_in_block(Core *c, unsigned ahead, int behind)
{
    uint64_t pc = 0;
    if (!c->whole)
        return;
    count_inlined(c);
    c->reg_read(c->uc, c->pc_id, &pc);
    pc = linear(c, pc - ahead);
    if (!behind && pc - c->block < c->block_length) {
        uint8_t b[MAX_INSN];
        int64_t before = plain_between(c, c->block, pc);
        if (before < 0) {
            stop(c, R_LOST, pc);
            return;
        }
        c->icount = c->block_icount + (uint64_t)before + 1;
        c->last_pc = pc;
        c->last_size = c->family->plain_length(c, b, copy_code(c, pc, b, MAX_INSN));
    }
    leave_whole_block(c);
}

static void on_script_interrupt(void *uc, uint32_t number, void *user)
{
    Core *c = user;
    (void)uc;
    exception_in_block(c, c->stale_pc, c->family->single_step && number == c->family->single_step);
}

static bool on_script_unknown(void *uc, void *user)
{
    (void)uc;
    exception_in_block(user, 0, 0);
    return false;
}

/* count_stopped(): a hook for an access of the instruction counted last has stopped the run, but a helper of Unicorn's has gone on
 * to the end of the instruction. If the script has no hooks for instructions, that of the slow gear is called for the next
 * one of the block all the same, because Unicorn calls the only hook of its kind without a look at its exit flag: it counts. */
static PyObject *Core_count_stopped(Core *c, PyObject *Py_UNUSED(ignored))
{
    const Family *f = c->family;
    uint8_t b[MAX_INSN];
    uint64_t pc = 0;
    c->reg_read(c->uc, c->pc_id, &pc);
    pc = linear(c, pc);
    if (c->last_pc != NO_PC && pc == c->last_pc + c->last_size && pc - c->block < c->entered && c->icount < c->limit &&
        !c->interrupt && !f->held) {
        uint32_t n = copy_code(c, pc, b, MAX_INSN), size = f->plain_length(c, b, n);
        if (!size)
            size = f->restarts_itself ? 0 : n < 4 ? n : 4;
        if (size)
            ((void (*)(void *, uint64_t, uint32_t, void *))c->hooks->first_code)(c->uc, pc, size, c);
    }
    Py_RETURN_NONE;
}

/* ---- what Python says ------------------------------------------------------------------------ */

static int take_span(void *to, Py_ssize_t i, PyObject *pair)
{
    span *s = (span *)to + i;
    unsigned long long first, last;
    if (!PyArg_ParseTuple(pair, "KK", &first, &last))
        return -1;
    *s = (span){first, last};
    return 0;
}

static int take_spans(spans *s, PyObject *pairs)
{
    Py_ssize_t n = list_length(pairs, MAX_SPANS, "hooks");
    span *list = n < 0 ? NULL : malloc((size_t)(n + 1) * sizeof *list);
    if (!list || take_items(pairs, n, take_span, list)) {
        if (n >= 0 && !list)
            PyErr_NoMemory();
        free(list);
        return -1;
    }
    free(s->list);
    *s = (spans){list, n, UINT64_MAX, 0};
    for (Py_ssize_t i = 0; i < n; i++) {
        if (list[i].first < s->first)
            s->first = list[i].first;
        if (list[i].last > s->last)
            s->last = list[i].last;
    }
    return 0;
}

/* set_hooked(slow, code, memory): see hooked_code of _core.h */
static PyObject *Core_set_hooked(Core *c, PyObject *args)
{
    PyObject *code, *memory;
    if (!PyArg_ParseTuple(args, "pOO", &c->slow_hooks, &code, &memory) || take_spans(&c->hooked_code, code) ||
        take_spans(&c->hooked_memory, memory))
        return NULL;
    c->checked++;
    Py_RETURN_NONE;
}

/* accompany(kind, begin, end) -> handles of the companions of a hook that the script adds next */
static PyObject *Core_accompany(Core *c, PyObject *args)
{
    unsigned kind;
    unsigned long long begin, end;
    if (!PyArg_ParseTuple(args, "IKK", &kind, &begin, &end))
        return NULL;
    const struct { unsigned kind; void *callback; } companions[] = {
        {UC_HOOK_CODE, c->hooks->first_code},
        {UC_HOOK_INTR, (void *)on_script_interrupt},
        {UC_HOOK_INSN_INVALID, (void *)on_script_unknown},
    };
    PyObject *handles = PyList_New(0);
    for (size_t i = 0; handles && i < sizeof companions / sizeof *companions; i++) {
        size_t handle;
        if (!(kind & companions[i].kind))
            continue;
        int error = c->hook_add(c->uc, &handle, (int)companions[i].kind, companions[i].callback, c, (uint64_t)begin,
                                (uint64_t)end);
        PyObject *number = error ? NULL : PyLong_FromSize_t(handle);
        if (error)
            PyErr_Format(PyExc_RuntimeError, "Unicorn refused a hook (error %d)", error);
        if (!number || PyList_Append(handles, number))
            Py_CLEAR(handles);
        Py_XDECREF(number);
    }
    return handles;
}

/* dismiss(handle): of a companion */
static PyObject *Core_dismiss(Core *c, PyObject *args)
{
    Py_ssize_t handle;
    if (!PyArg_ParseTuple(args, "n", &handle))
        return NULL;
    c->hook_del(c->uc, (size_t)handle);
    Py_RETURN_NONE;
}
