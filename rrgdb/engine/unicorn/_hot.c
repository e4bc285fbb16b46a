/* The native half of the Unicorn engine: counting, stopping, watching, classifying.
 *
 * One Core serves one uc_engine. It calls the libunicorn that the Python package has loaded, through
 * addresses handed over by Python; it never links one of its own.
 *
 * Order of checks before each instruction: what the previous one did (watches), then the limit, then
 * requests and points at this position, then what the instruction itself is. The count is raised last.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fenv.h>
#include <structmember.h>

#include "_arming.h"
#include "_classes.h"
#include "_construct.h"
#include "_core.h"
#include "_exceptions.h"
#include "_families.h"
#include "_footprint.h"
#include "_gears.h"
#include "_hooks.h"
#include "_inline.h"
#include "_pmp.h"
#include "_registers.h"
#include "_script.h"
#include "_translation.h"

static void Core_dealloc(Core *c)
{
    free_watches(c);
    free_breakpoints(c->bps, c->bp_mask + 1);
    free(c->page_flags);
    free(c->blocks);
    free(c->copies);
    free(c->hooked_code.list);
    free(c->hooked_memory.list);
    free(c->noted);
    for (int i = 0; c->plans && i < PLANS; i++)
        free(c->plans[i].bytes);
    free(c->plans);
    free_sites(c);
    free(c->classes);
    Py_XDECREF(c->code_pages_owner);
    Py_XDECREF(c->entry_words);
    Py_TYPE(c)->tp_free((PyObject *)c);
}

static PyObject *Core_add_region(Core *c, PyObject *args)
{
    unsigned long long base, size, host, store = 0;
    if (!PyArg_ParseTuple(args, "KKK|K", &base, &size, &host, &store))
        return NULL;
    if (c->region_count == MAX_REGIONS) {
        PyErr_SetString(PyExc_ValueError, "too many RAM regions");
        return NULL;
    }
    int at = c->region_count++;
    c->found = NULL;
    for (; at > 0 && c->regions[at - 1].base > base; at--)
        c->regions[at] = c->regions[at - 1];
    c->regions[at] = (region){base, size, (uint8_t *)(uintptr_t)host, (store_fn)(uintptr_t)store};
    c->tlb_stale = c->watches_moved = 1;
    c->checked++;
    if (watch_holes(c)) {
        PyErr_SetString(PyExc_RuntimeError, "Unicorn refused a hook");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *Core_clear_regions(Core *c, PyObject *Py_UNUSED(ignored))
{
    c->region_count = 0;
    c->found = NULL;
    c->tlb_stale = c->watches_moved = 1;
    c->checked++;
    Py_RETURN_NONE;
}

static PyObject *Core_run(Core *c, PyObject *args)
{
    unsigned long long pc, limit;
    if (!PyArg_ParseTuple(args, "KK", &pc, &limit))
        return NULL;
    c->user_limit = limit;
    c->begun_icount = c->icount;
    c->restart_icount = NO_ICOUNT;
    c->pc = pc;
    if ((c->exact_count || c->point_hook_count) && c->hooks_checked != c->checked && limit - c->icount > BRIEF)
        drop_hooks(c);
    if (c->icount < c->last_icount)
        c->spell = c->spell_end = c->tails = c->tails_at = 0; /* the guest was put back */
    uint64_t before = c->icount;
    Py_BEGIN_ALLOW_THREADS
    /* Unicorn lets the host's FPU add and multiply for the guest: not in whatever way this thread was told to round. */
    fenv_t arithmetic;
    fegetenv(&arithmetic);
    fesetenv(FE_DFL_ENV);
    shrink_table(c);
    run_phases(c);
    fesetenv(&arithmetic);
    Py_END_ALLOW_THREADS
    c->last_icount = c->icount;
    c->executed += c->icount - before;
    return PyLong_FromLong(c->reason);
}

/* set_context(address, flags, previous, segment, modes): a uc_context to work with, and where in the CPU's bytes these
 * lie, or -1 */
static PyObject *Core_set_context(Core *c, PyObject *args)
{
    unsigned long long address;
    if (!PyArg_ParseTuple(args, "Kiiii", &address, &c->x86.flags_at, &c->x86.previous_at, &c->x86.segment_at,
                          &c->x86.modes_at))
        return NULL;
    c->x86.context = (uint8_t *)(uintptr_t)address;
    Py_RETURN_NONE;
}

/* where the CPU stands: address of the next instruction */
static PyObject *Core_address(Core *c, PyObject *Py_UNUSED(ignored))
{
    uint64_t pc = 0;
    c->reg_read(c->uc, c->pc_id, &pc);
    return PyLong_FromUnsignedLongLong(linear(c, pc));
}

/* the instruction here was performed by others */
static PyObject *Core_performed(Core *c, PyObject *Py_UNUSED(ignored))
{
    if (c->family->performed)
        c->family->performed(c);
    c->icount++;
    Py_RETURN_NONE;
}

static PyObject *Core_restore_flags(Core *c, PyObject *Py_UNUSED(ignored))
{
    if (c->family->restore_flags)
        c->family->restore_flags(c);
    Py_RETURN_NONE;
}

/* the instruction that ran last did not retire */
static PyObject *Core_retract(Core *c, PyObject *Py_UNUSED(ignored))
{
    retract(c);
    Py_RETURN_NONE;
}

/* device_accessed(physical, size, store) */
static PyObject *Core_device_accessed(Core *c, PyObject *args)
{
    unsigned long long physical;
    unsigned int size;
    int store;
    if (!PyArg_ParseTuple(args, "KIp", &physical, &size, &store))
        return NULL;
    device_accessed(c, physical, size, store);
    Py_RETURN_NONE;
}

/* the instruction that ran last has retired, although the run ended before the next one */
static PyObject *Core_retired(Core *c, PyObject *Py_UNUSED(ignored))
{
    if (c->family->retired)
        c->family->retired(c);
    if (c->mmu_moved) {
        c->mmu_moved = 0;
        set_mmu(c, translating(c));
    }
    Py_RETURN_NONE;
}

static PyObject *Core_leave(Core *c, PyObject *Py_UNUSED(ignored))
{
    sync_state(c);
    Py_RETURN_NONE;
}

static PyObject *Core_request_interrupt(Core *c, PyObject *Py_UNUSED(ignored))
{
    c->interrupt = 1;
    Py_RETURN_NONE;
}

static PyObject *Core_clear_interrupt(Core *c, PyObject *Py_UNUSED(ignored))
{
    c->interrupt = 0;
    Py_RETURN_NONE;
}

/* arrive(pc) -> reason: the checks that come before an instruction, for one that cannot even be fetched */
static PyObject *Core_arrive(Core *c, PyObject *args)
{
    unsigned long long pc;
    if (!PyArg_ParseTuple(args, "K", &pc))
        return NULL;
    c->pc = pc;
    note_code(c, pc, 1);
    int reason = unmasked(c);
    return PyLong_FromLong(reason == R_NONE ? obstacle(c, pc) : reason);
}

static PyObject *Core_lower_limit(Core *c, PyObject *args)
{
    unsigned long long limit;
    if (!PyArg_ParseTuple(args, "K", &limit))
        return NULL;
    if (limit < c->user_limit)
        c->user_limit = limit;
    if (limit < c->limit)
        c->limit = limit;
    Py_RETURN_NONE;
}

static PyObject *Core_set_mmu(Core *c, PyObject *args)
{
    int on;
    if (!PyArg_ParseTuple(args, "p", &on))
        return NULL;
    set_mmu(c, on);
    Py_RETURN_NONE;
}

static int take_mask(void *to, Py_ssize_t i, PyObject *pair)
{
    mask_bytes *m = (mask_bytes *)to + i;
    unsigned long long at;
    if (!PyArg_ParseTuple(pair, "KI", &at, &m->size))
        return -1;
    m->at = (const uint8_t *)(uintptr_t)at;
    if (m->size <= sizeof m->was)
        return 0;
    PyErr_SetString(PyExc_ValueError, "mask bytes: too many");
    return -1;
}

/* set_masks([(address, bytes), ...]) */
static PyObject *Core_set_masks(Core *c, PyObject *places)
{
    Py_ssize_t n = list_length(places, MAX_MASKS, "masks");
    if (n < 0 || take_items(places, n, take_mask, c->masks))
        return NULL;
    c->mask_count = (int)n;
    Py_RETURN_NONE;
}

/* await_unmasked(raised): interrupts wait for one of the masks to change from what it is now */
static PyObject *Core_await(Core *c, PyObject *args)
{
    if (!PyArg_ParseTuple(args, "I", &c->awaiting))
        return NULL;
    for (int i = 0; i < c->mask_count; i++)
        memcpy(c->masks[i].was, c->masks[i].at, c->masks[i].size);
    Py_RETURN_NONE;
}

static PyObject *Core_forget_blocks(Core *c, PyObject *Py_UNUSED(ignored))
{
    forget_blocks(c);
    Py_RETURN_NONE;
}

static PyObject *Core_trapped_code(Core *c, PyObject *Py_UNUSED(ignored))
{
    return PyBytes_FromStringAndSize((char *)c->code, c->code_size);
}

/* keep_time(shift, slept, ahead): virtual time is (icount << shift) + slept nanoseconds, and the guest's clock so many of its
 * ticks ahead of it */
static PyObject *Core_keep_time(Core *c, PyObject *args)
{
    unsigned long long slept, ahead;
    if (!PyArg_ParseTuple(args, "IKK", &c->time_shift, &slept, &ahead))
        return NULL;
    c->time_slept = slept;
    c->time_ahead = ahead;
    c->keeps_time = 1;
    Py_RETURN_NONE;
}

static PyMethodDef Core_methods[] = {
    {"add_region", (PyCFunction)Core_add_region, METH_VARARGS, "add_region(base, size, host, store=0): memory seen by the hooks"},
    {"clear_regions", (PyCFunction)Core_clear_regions, METH_NOARGS, "forget all RAM"},
    {"arrive", (PyCFunction)Core_arrive, METH_VARARGS, "arrive(pc) -> reason why the run stops there, or NONE"},
    {"run", (PyCFunction)Core_run, METH_VARARGS, "run(pc, limit) -> reason"},
    {"retired", (PyCFunction)Core_retired, METH_NOARGS, "the instruction counted last has retired, and the next one raised an exception"},
    {"set_rules", (PyCFunction)Core_set_rules, METH_VARARGS, "set_rules(bits, [(first, last, permissions, without privilege), ...]): what Armv7-M finds faults in"},
    {"set_pmp", (PyCFunction)Core_set_pmp, METH_O, "set_pmp([(first, last, permissions, locked), ...]): RISC-V"},
    {"set_controls", (PyCFunction)Core_set_controls, METH_O, "set_controls([(id, selector, offset, mask), ...]): of translation"},
    {"set_regime", (PyCFunction)Core_set_regime, METH_O, "set_regime([(id, selector, offset, mask), ...]): of translation, in all address spaces"},
    {"take_regime", (PyCFunction)Core_take_regime, METH_NOARGS, "take_regime() -> whether they have changed"},
    {"set_masks", (PyCFunction)Core_set_masks, METH_O, "set_masks([(address, bytes), ...]): what masks interrupts"},
    {"await_unmasked", (PyCFunction)Core_await, METH_VARARGS, "await_unmasked(raised): stop when a mask has changed from now on"},
    {"retract", (PyCFunction)Core_retract, METH_NOARGS, "the instruction counted last raised an exception"},
    {"set_context", (PyCFunction)Core_set_context, METH_VARARGS, "set_context(address, flags, previous, segment, modes): x86"},
    {"set_entry", (PyCFunction)Core_set_entry, METH_VARARGS, "set_entry(context, fault address, syndrome, places): see _exceptions.h"},
    {"address", (PyCFunction)Core_address, METH_NOARGS, "address() -> linear address of the next instruction"},
    {"performed", (PyCFunction)Core_performed, METH_NOARGS, "the next instruction was performed by the caller"},
    {"restore_flags", (PyCFunction)Core_restore_flags, METH_NOARGS, "x86: of the instruction counted last, which did not retire"},
    {"leave", (PyCFunction)Core_leave, METH_NOARGS, "from within a hook: the instruction that is executing will be left"},
    {"request_interrupt", (PyCFunction)Core_request_interrupt, METH_NOARGS, "stop before the next instruction"},
    {"clear_interrupt", (PyCFunction)Core_clear_interrupt, METH_NOARGS, "withdraw request_interrupt"},
    {"set_class", (PyCFunction)Core_set_class, METH_VARARGS, "set_class(code, second, class): second: of the second instruction set"},
    {"set_registers", (PyCFunction)Core_set_registers, METH_O, "set_registers([(id, bits, place), ...]): for conditions"},
    {"set_breakpoints", (PyCFunction)Core_set_breakpoints, METH_O, "set_breakpoints([(address, conditions or None), ...])"},
    {"set_watches", (PyCFunction)Core_set_watches, METH_O, "set_watches([(address, length, kind[, fixed[, bound]]), ...]): within pages"},
    {"learn", (PyCFunction)Core_learn, METH_VARARGS, "learn(page, host or 0, way): for conditions"},
    {"place_watches", (PyCFunction)Core_place_watches, METH_O, "place_watches([(physical or None, way), ...]): where they are now"},
    {"device_accessed", (PyCFunction)Core_device_accessed, METH_VARARGS, "device_accessed(physical, size, store): for watches"},
    {"set_guard", (PyCFunction)Core_set_guard, METH_VARARGS, "set_guard(base): free physical addresses for guards"},
    {"rearm", (PyCFunction)Core_rearm_watches, METH_NOARGS, "take the watched bytes as they are now"},
    {"set_collect", (PyCFunction)Core_set_collect, METH_VARARGS, "set_collect(on): note hits instead of stopping; forgets those noted"},
    {"take_watch_hits", (PyCFunction)Core_take_watch_hits, METH_NOARGS, "-> [(index, old, new), ...]"},
    {"lower_limit", (PyCFunction)Core_lower_limit, METH_VARARGS, "lower_limit(icount): of the run that is under way"},
    {"set_mmu", (PyCFunction)Core_set_mmu, METH_VARARGS, "set_mmu(on): the guest does (not) translate addresses"},
    {"forget_blocks", (PyCFunction)Core_forget_blocks, METH_NOARGS, "code was changed from outside"},
    {"take_code", (PyCFunction)Core_take_code, METH_NOARGS, "take_code() -> u64 pairs: address, bytes of what was executed"},
    {"forget_code", (PyCFunction)Core_forget_code, METH_NOARGS, "what was executed so far is of no interest"},
    {"set_hooked", (PyCFunction)Core_set_hooked, METH_VARARGS, "set_hooked(slow, code, memory): (first, last) of what a script has hooks for"},
    {"accompany", (PyCFunction)Core_accompany, METH_VARARGS, "accompany(kind, begin, end) -> handles of the companions of a script's hook"},
    {"refuses", (PyCFunction)Core_refuses, METH_VARARGS, "refuses(type) -> whether an access that a script has a hook for is not made now"},
    {"count_stopped", (PyCFunction)Core_count_stopped, METH_NOARGS, "a hook has stopped the run within an instruction, which went on"},
    {"dismiss", (PyCFunction)Core_dismiss, METH_VARARGS, "dismiss(handle): of a companion"},
    {"set_range", (PyCFunction)Core_set_range, METH_VARARGS, "set_range(start, end); equal: off"},
    {"trapped_code", (PyCFunction)Core_trapped_code, METH_NOARGS, "bytes of the instruction that trapped"},
    {"keep_time", (PyCFunction)Core_keep_time, METH_VARARGS, "keep_time(shift, slept, ahead): what virtual time is"},
    {"read_registers", (PyCFunction)Core_read_registers, METH_VARARGS, "read_registers(plan) -> bytes"},
    {"read_word", (PyCFunction)Core_read_word, METH_O, "read_word(place) -> value of one register"},
    {"write_word", (PyCFunction)(void (*)(void))Core_write_word, METH_FASTCALL, "write_word(place, value) -> uc_err"},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef Core_members[] = {
    {"limit", T_ULONGLONG, offsetof(Core, limit), 0, "stop before this instruction"},
    {"user_limit", T_ULONGLONG, offsetof(Core, user_limit), READONLY, "of the last run, as it was lowered"},
    {"skip", T_ULONGLONG, offsetof(Core, skip), 0, "no breakpoint or range stop at this icount"},
    {"pc", T_ULONGLONG, offsetof(Core, pc), 0, "where the last run stopped"},
    {"last_pc", T_ULONGLONG, offsetof(Core, last_pc), READONLY, "last counted instruction of this run"},
    {"run_icount", T_ULONGLONG, offsetof(Core, run_icount), READONLY, "last counted instruction of this run"},
    {"interrupt", T_INT, offsetof(Core, interrupt), READONLY, "request_interrupt was called"},
    {"last_size", T_UINT, offsetof(Core, last_size), READONLY, "its length"},
    {"exception", T_INT, offsetof(Core, exception), READONLY, "interrupt number or -1"},
    {"error", T_INT, offsetof(Core, error), READONLY, "uc_err of the last run"},
    {"faulted", T_INT, offsetof(Core, faulted), READONLY, "an access failed"},
    {"fault_address", T_ULONGLONG, offsetof(Core, fault_address), READONLY, "its address"},
    {"bp_last", T_ULONGLONG, offsetof(Core, bp_last), READONLY, "icount of the last collected breakpoint"},
    {"watch_last", T_ULONGLONG, offsetof(Core, watch_last), READONLY, "icount behind the last watch hit"},
    {"denied", T_INT, offsetof(Core, denied), READONLY, "kind of access that PMP has refused (1 read, 2 write, 4 fetch)"},
    {"denied_at", T_ULONGLONG, offsetof(Core, denied_at), READONLY, "its address"},
    {"denied_status", T_INT, offsetof(Core, denied_status), READONLY, "why, as the family has it; 0: it says nothing"},
    {"code_thumb", T_INT, offsetof(Core, code_thumb), READONLY, "trapped_code() is of the second instruction set"},
    {"mmu_seen", T_INT, offsetof(Core, mmu_seen), 0, "the guest touched its address translation"},
    {"table_size", T_ULONGLONG, offsetof(Core, table_size), READONLY, "entries that filled the virtual TLB from one flush to the next, at most"},
    {"tlb_stale", T_INT, offsetof(Core, tlb_stale), 0, "look code pages up again"},
    {"fills", T_ULONGLONG, offsetof(Core, fills), READONLY, "of the virtual TLB, so far"},
    {"code_base", T_ULONGLONG, offsetof(Core, code_base), READONLY, "x86: of the code segment, when address() was asked last"},
    {"executed", T_ULONGLONG, offsetof(Core, executed), READONLY, "instructions of all runs"},
    {"looked", T_ULONGLONG, offsetof(Core, looked), READONLY, "of those, the ones that were counted one by one"},
    {"exceptions", T_ULONGLONG, offsetof(Core, exceptions), READONLY, "exceptions that were entered here"},
    {"hooks_asked", T_ULONGLONG, offsetof(Core, hooks_asked), READONLY, "how often a block was translated anew to have hooks"},
    {"learns", T_INT, offsetof(Core, learns), 0, "a page that a condition asks for can be looked up: LEARN"},
    {"asked_page", T_ULONGLONG, offsetof(Core, asked_page), READONLY, "that page"},
    {"watches_asked", T_INT, offsetof(Core, watches_asked), READONLY, "stores are asked whether they change watched bytes, of blocks that are counted as wholes"},
    {"inlined", T_UINT, offsetof(Core, site_count), READONLY, "blocks that are counted inside their code"},
    {"time_ahead", T_ULONGLONG, offsetof(Core, time_ahead), 0, "see keep_time"},
    {"judged", T_UINT, offsetof(Core, judged_count), READONLY, "breakpoints whose conditions their code judges"},
    {"exit_looks", T_ULONGLONG, offsetof(Core, exit_looks), READONLY, "looks at Unicorn's exit flag that were put in its code"},
    {"whole", T_INT, offsetof(Core, whole), READONLY, "the block at hand is counted as a whole"},
    {"again", T_INT, offsetof(Core, again), READONLY, "the block that begins was told to a script's hooks before"},
    {"phase", T_INT, offsetof(Core, phase), READONLY, "the phase of the last run: SLOW or another"},
    {NULL, 0, 0, 0, NULL},
};

/* From within a hook of a script, blocks may have been counted by their code since. */
static PyObject *Core_get_icount(Core *c, void *Py_UNUSED(closure))
{
    count_inlined(c);
    return PyLong_FromUnsignedLongLong(c->icount);
}

static int Core_set_icount(Core *c, PyObject *value, void *Py_UNUSED(closure))
{
    uint64_t icount = value ? PyLong_AsUnsignedLongLong(value) : NO_ICOUNT;
    if (!value || (icount == UINT64_MAX && PyErr_Occurred()))
        return -1;
    hook_next(c);
    c->icount = icount;
    c->untold_icount = NO_ICOUNT;
    return 0;
}

static PyGetSetDef Core_computed[] = {
    {"icount", (getter)Core_get_icount, (setter)Core_set_icount, "instructions retired", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject CoreType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "rrgdb.engine.unicorn._hot.Core",
    .tp_basicsize = sizeof(Core),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Hooks and counters of one uc_engine",
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)Core_init,
    .tp_dealloc = (destructor)Core_dealloc,
    .tp_methods = Core_methods,
    .tp_members = Core_members,
    .tp_getset = Core_computed,
};

static PyMethodDef module_methods[] = {
    {"set_agent_operations", set_agent_operations, METH_O, "set_agent_operations(table): see rrgdb/agent/bytecode.py"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_hot", .m_doc = "Native hooks of the Unicorn engine", .m_size = -1,
    .m_methods = module_methods,
};

/* A tuple of n strings, each a stride behind the one before. */
static int add_names(PyObject *m, const char *name, const char *const *first, size_t n, size_t stride)
{
    PyObject *names = PyTuple_New((Py_ssize_t)n);
    for (size_t i = 0; names && i < n; i++) {
        const char *one = *(const char *const *)((const char *)first + i * stride);
        PyTuple_SET_ITEM(names, (Py_ssize_t)i, PyUnicode_FromString(one));
    }
    return names ? PyModule_AddObject(m, name, names) : -1;
}

PyMODINIT_FUNC PyInit__hot(void)
{
    static const struct { const char *name; int value; } constants[] = {
        {"LIMIT", R_LIMIT}, {"BREAKPOINT", R_BREAKPOINT}, {"WATCHPOINT", R_WATCHPOINT}, {"RANGE", R_RANGE},
        {"INTERRUPT", R_INTERRUPT}, {"CLASSIFY", R_CLASSIFY}, {"TRAP", R_TRAP}, {"SYSCALL", R_SYSCALL},
        {"EXCEPTION", R_EXCEPTION}, {"ERROR", R_ERROR}, {"LOST", R_LOST}, {"NONE", R_NONE}, {"DEBUG", R_DEBUG},
        {"CLASS_PLAIN", CLASS_PLAIN}, {"CLASS_MMU", CLASS_MMU}, {"CLASS_TRAP", CLASS_TRAP},
        {"CLASS_SYSCALL", CLASS_SYSCALL}, {"CLASS_STATUS", CLASS_STATUS}, {"DENIED", R_DENIED}, {"ILLEGAL", R_ILLEGAL}, {"DIVISION", R_DIVISION}, {"UNMASKED", R_UNMASKED},
        {"REGISTER_PC", REGISTER_PC}, {"REGISTER_ZERO", REGISTER_ZERO},
        {"FIND", R_FIND}, {"LEARN", R_LEARN}, {"REGISTER_ASK", REGISTER_ASK}, {"SLOW", PHASE_SLOW}, {"CAN_INLINE", CAN_INLINE},
    };
    if (PyType_Ready(&CoreType) < 0)
        return NULL;
    PyObject *m = PyModule_Create(&module);
    if (!m)
        return NULL;
    Py_INCREF(&CoreType);
    if (PyModule_AddIntConstant(m, "JUMP_BYTES", (long)sizeof(sigjmp_buf)) < 0)
        return NULL;
    if (PyModule_AddObject(m, "Core", (PyObject *)&CoreType) < 0)
        return NULL;
    const char *names[FAMILY_COUNT];
    for (size_t i = 0; i < FAMILY_COUNT; i++)
        names[i] = families[i].family->name;
    if (add_names(m, "FAMILIES", names, FAMILY_COUNT, sizeof *names) < 0 ||
        add_names(m, "FUNCTIONS", &functions_used[0].name, FUNCTIONS, sizeof *functions_used) < 0)
        return NULL;
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(m, constants[i].name, constants[i].value) < 0)
            return NULL;
    return m;
}
