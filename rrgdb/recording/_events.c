/* The events of one chunk, taken apart in one call: a log may hold millions. Layout: rrgdb/recording/log.py. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define KINDS 4
#define END 3
#define MAX_SOURCES 255
#define MAX_SOURCE_NAME 64
#define MAX_PAYLOAD (1u << 20)

typedef struct { const uint8_t *raw; Py_ssize_t at, size; } reader;
typedef struct { uint64_t icount; unsigned source, kind; const uint8_t *payload; uint64_t length; } event;
/* Where events of one kind go: columns as rrgdb/recording/events.py keeps them. */
typedef struct { uint64_t *icounts, *ends, bytes; uint8_t *sources, *payloads; Py_ssize_t count; } column;
typedef struct {
    Py_ssize_t count;
    unsigned long long first, horizon;
    int names;         /* sources defined so far */
    int ended;
    PyObject *defined; /* list of the names that this chunk defines; NULL: they are noted already */
} chunk;

static bool refuse(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    PyErr_FormatV(PyExc_ValueError, format, list);
    va_end(list);
    return false;
}

static bool cut_short(const chunk *c)
{
    return refuse("expected %zd events, the chunk ends inside one", c->count);
}

/* Unsigned LEB128 in its shortest form, below 2^64. */
static bool varint(reader *r, uint64_t *value)
{
    Py_ssize_t begin = r->at;
    *value = 0;
    for (unsigned shift = 0; r->at < r->size && shift < 70; shift += 7) {
        uint8_t byte = r->raw[r->at++];
        if (shift == 63 && byte > 1)
            break;
        *value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            if (byte == 0 && shift)
                break;
            return true;
        }
    }
    return refuse("expected a varint below 2**64 at byte %zd of the chunk", begin);
}

/* The source's index; a definition is noted. */
static bool source(reader *r, chunk *c, unsigned *index)
{
    if (r->at >= r->size)
        return cut_short(c);
    *index = r->raw[r->at++];
    if ((int)*index < c->names)
        return true;
    if ((int)*index > c->names || *index >= MAX_SOURCES)
        return refuse("expected a source index up to %d, got %u",
                      c->names < MAX_SOURCES ? c->names : MAX_SOURCES - 1, *index);
    if (r->at >= r->size)
        return cut_short(c);
    Py_ssize_t length = r->raw[r->at++];
    if (!length || length > MAX_SOURCE_NAME || length > r->size - r->at)
        return refuse("expected a source name of 1 to %d bytes, got %zd", MAX_SOURCE_NAME, length);
    const char *text = (const char *)r->raw + r->at;
    r->at += length;
    c->names++;
    if (!c->defined)
        return true;
    PyObject *name = PyBytes_FromStringAndSize(text, length);
    bool noted = name && !PyList_Append(c->defined, name);
    Py_XDECREF(name);
    return noted;
}

/* The next event; ``index`` is its number in the chunk, ``last`` the icount of the one before. */
static bool next(reader *r, chunk *c, Py_ssize_t index, uint64_t last, event *e)
{
    uint64_t delta;
    if (!varint(r, &delta))
        return false;
    if (index == 0 && delta)
        return refuse("expected delta 0 at the first event, got %llu", (unsigned long long)delta);
    if (last > c->horizon || delta > c->horizon - last)
        return refuse("expected icounts up to %llu, got %llu and %llu more", c->horizon, (unsigned long long)last,
                      (unsigned long long)delta);
    e->icount = last + delta;
    if (!source(r, c, &e->source))
        return false;
    if (r->at >= r->size)
        return cut_short(c);
    e->kind = r->raw[r->at++];
    if (!varint(r, &e->length))
        return false;
    if (e->kind >= KINDS)
        return refuse("event kind %u is unknown to this version of rrgdb", e->kind);
    uint64_t most = (uint64_t)(r->size - r->at);
    if (most > MAX_PAYLOAD)
        most = MAX_PAYLOAD;
    if (e->length > most)
        return refuse("expected an event of at most %llu bytes, got %llu", (unsigned long long)most,
                      (unsigned long long)e->length);
    if (c->ended)
        return refuse("expected no event behind the end of the guest");
    c->ended = e->kind == END;
    e->payload = r->raw + r->at;
    r->at += (Py_ssize_t)e->length;
    return true;
}

/* (icounts, sources, ends, payloads) as bytes, with room for what the column has counted. */
static PyObject *room_for(column *to)
{
    PyObject *parts[4] = {
        PyBytes_FromStringAndSize(NULL, to->count * 8),
        PyBytes_FromStringAndSize(NULL, to->count),
        PyBytes_FromStringAndSize(NULL, to->count * 8),
        PyBytes_FromStringAndSize(NULL, (Py_ssize_t)to->bytes),
    };
    PyObject *tuple = PyTuple_New(4);
    for (int i = 0; i < 4; i++)
        if (!tuple || !parts[i]) {
            for (; i < 4; i++)
                Py_XDECREF(parts[i]);
            Py_XDECREF(tuple);
            return NULL;
        } else
            PyTuple_SET_ITEM(tuple, i, parts[i]);
    to->icounts = (uint64_t *)PyBytes_AS_STRING(parts[0]);
    to->sources = (uint8_t *)PyBytes_AS_STRING(parts[1]);
    to->ends = (uint64_t *)PyBytes_AS_STRING(parts[2]);
    to->payloads = (uint8_t *)PyBytes_AS_STRING(parts[3]);
    return tuple;
}

static void put(column *to, const event *e, uint64_t base)
{
    to->icounts[to->count] = e->icount;
    to->sources[to->count] = (uint8_t)e->source;
    memcpy(to->payloads + to->bytes, e->payload, e->length);
    to->bytes += e->length;
    to->ends[to->count++] = base + to->bytes;
}

static PyObject *columns_of(const uint8_t *raw, Py_ssize_t size, const chunk *given, const unsigned long long *bases)
{
    chunk c = *given;
    reader r = {raw, 0, size};
    column columns[KINDS] = {0};
    event e = {.icount = c.first};
    for (Py_ssize_t i = 0; i < c.count; i++) {
        if (!next(&r, &c, i, e.icount, &e))
            return NULL;
        columns[e.kind].count++;
        columns[e.kind].bytes += e.length;
    }
    if (r.at != size) {
        refuse("expected %zd events in %zd bytes, they take %zd", c.count, size, r.at);
        return NULL;
    }
    PyObject *found = PyTuple_New(KINDS);
    for (int kind = 0; found && kind < KINDS; kind++) {
        PyObject *parts = room_for(&columns[kind]);
        if (!parts)
            Py_CLEAR(found);
        else
            PyTuple_SET_ITEM(found, kind, parts);
        columns[kind].count = 0;
        columns[kind].bytes = 0;
    }
    if (!found)
        return NULL;
    /* The same once more, which cannot fail now. */
    c = *given;
    c.defined = NULL;
    r.at = 0;
    e.icount = c.first;
    for (Py_ssize_t i = 0; i < c.count; i++) {
        next(&r, &c, i, e.icount, &e);
        put(&columns[e.kind], &e, bases[e.kind]);
    }
    return found;
}

static PyObject *decode(PyObject *Py_UNUSED(self), PyObject *args)
{
    Py_buffer raw;
    chunk c;
    unsigned long long bases[KINDS];
    if (!PyArg_ParseTuple(args, "y*nKKip(KKKK)", &raw, &c.count, &c.first, &c.horizon, &c.names, &c.ended, &bases[0],
                          &bases[1], &bases[2], &bases[3]))
        return NULL;
    PyObject *columns = NULL, *result = NULL;
    c.defined = PyList_New(0);
    if (c.defined)
        columns = columns_of(raw.buf, raw.len, &c, bases);
    if (columns)
        result = PyTuple_Pack(2, columns, c.defined);
    Py_XDECREF(columns);
    Py_XDECREF(c.defined);
    PyBuffer_Release(&raw);
    return result;
}

static PyMethodDef methods[] = {
    {"decode", decode, METH_VARARGS,
     "decode(raw, count, first, horizon, names, ended, bases) -> "
     "(((icounts, sources, ends, payloads) for each kind), [name defined, ...])"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_events", .m_doc = "Events of a chunk of the log", .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__events(void)
{
    return PyModule_Create(&module);
}
