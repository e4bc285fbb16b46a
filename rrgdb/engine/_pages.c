/* Lists of RAM pages, handled in one call each: which were written, their contents, cleaning them, putting others back. */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096
#define RANGES 512
#define PARTS 512
#define NEAR 32

/* linux/fs.h, Linux 6.7 */
typedef struct { uint64_t start, end, categories; } region;
typedef struct {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t inverted, mask, anyof, returned;
} scan_arg;
#define PAGEMAP_SCAN_CALL 0xC0606610ul
#define IS_FILE (1u << 2)
#define IS_PRESENT (1u << 3)
#define IS_SWAPPED (1u << 4)

static PyObject *zero; /* 4096 bytes of 0: every page of zeros is this object */

static PyObject *pages_dirty(PyObject *Py_UNUSED(self), PyObject *args)
{
    int fd;
    unsigned long long address, size;
    if (!PyArg_ParseTuple(args, "iKK", &fd, &address, &size))
        return NULL;
    int64_t *found = NULL;
    size_t count = 0, room = 0;
    int error = 0;
    Py_BEGIN_ALLOW_THREADS
    uint64_t at = address, end = address + size;
    region ranges[RANGES];
    while (at < end && !error) {
        scan_arg arg = {.size = sizeof arg, .start = at, .end = end, .vec = (uintptr_t)ranges, .vec_len = RANGES,
                        .inverted = IS_FILE, .mask = IS_FILE, .anyof = IS_PRESENT | IS_SWAPPED, .returned = IS_FILE};
        long n = ioctl(fd, PAGEMAP_SCAN_CALL, &arg);
        if (n < 0) {
            error = errno;
            break;
        }
        for (long i = 0; i < n && !error; i++) {
            size_t first = (ranges[i].start - address) / PAGE, more = (ranges[i].end - ranges[i].start) / PAGE;
            if (count + more > room) {
                room = 2 * (count + more);
                int64_t *larger = realloc(found, room * sizeof *found);
                if (!larger) {
                    error = ENOMEM;
                    break;
                }
                found = larger;
            }
            for (size_t k = 0; k < more; k++)
                found[count++] = (int64_t)(first + k);
        }
        at = n == RANGES ? arg.walk_end : end;
    }
    Py_END_ALLOW_THREADS
    PyObject *result = NULL;
    if (error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    } else {
        result = PyBytes_FromStringAndSize((char *)found, (Py_ssize_t)(count * sizeof *found));
    }
    free(found);
    return result;
}

/* Page numbers out of a buffer of int64, all of them inside of RAM. */
static const int64_t *numbers_of(Py_buffer *buffer, unsigned long long size, Py_ssize_t *count)
{
    const int64_t *numbers = buffer->buf;
    *count = buffer->len / (Py_ssize_t)sizeof *numbers;
    for (Py_ssize_t i = 0; i < *count; i++)
        if (numbers[i] < 0 || (uint64_t)numbers[i] >= size / PAGE || (i && numbers[i] <= numbers[i - 1])) {
            PyErr_SetString(PyExc_ValueError, "expected ascending page numbers inside of RAM");
            return NULL;
        }
    return numbers;
}

static PyObject *pages_contents(PyObject *Py_UNUSED(self), PyObject *args)
{
    unsigned long long address, size;
    Py_buffer buffer;
    if (!PyArg_ParseTuple(args, "KKy*", &address, &size, &buffer))
        return NULL;
    Py_ssize_t count;
    PyObject *list = NULL;
    const int64_t *numbers = numbers_of(&buffer, size, &count);
    const char *zeros = PyBytes_AS_STRING(zero);
    if (numbers)
        list = PyList_New(count);
    for (Py_ssize_t i = 0; list && i < count; i++) {
        const char *from = (const char *)(uintptr_t)address + numbers[i] * PAGE;
        PyObject *content;
        if (memcmp(from, zeros, PAGE) == 0)
            content = Py_NewRef(zero);
        else
            content = PyBytes_FromStringAndSize(from, PAGE);
        if (!content)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, content);
    }
    PyBuffer_Release(&buffer);
    return list;
}

static Py_ssize_t run_length(const int64_t *numbers, Py_ssize_t i, Py_ssize_t count, Py_ssize_t most)
{
    Py_ssize_t n = 1;
    while (n < most && i + n < count && numbers[i + n] == numbers[i] + n)
        n++;
    return n;
}

/* Give private copies back: all that there are, so the pages between two that lie near are clean and lose nothing.
 * One call for both is cheaper than two. */
static int drop(char *ram, const int64_t *numbers, Py_ssize_t count)
{
    for (Py_ssize_t i = 0, n; i < count; i += n) {
        for (n = 1; i + n < count && numbers[i + n] - numbers[i + n - 1] <= NEAR; n++)
            ;
        size_t length = (size_t)(numbers[i + n - 1] - numbers[i] + 1) * PAGE;
        if (madvise(ram + numbers[i] * PAGE, length, MADV_DONTNEED) != 0)
            return errno;
    }
    return 0;
}

static int write_all(int fd, struct iovec *parts, int n, off_t at)
{
    while (n) {
        ssize_t done = pwritev(fd, parts, n, at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done ? errno : EIO;
        at += done;
        while (n && (size_t)done >= parts->iov_len) {
            done -= (ssize_t)parts->iov_len;
            parts++;
            n--;
        }
        if (n) {
            parts->iov_base = (char *)parts->iov_base + done;
            parts->iov_len -= (size_t)done;
        }
    }
    return 0;
}

static PyObject *done(int error)
{
    if (!error)
        Py_RETURN_NONE;
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *pages_clean(PyObject *Py_UNUSED(self), PyObject *args)
{
    int fd;
    unsigned long long address, size;
    Py_buffer buffer;
    if (!PyArg_ParseTuple(args, "iKKy*", &fd, &address, &size, &buffer))
        return NULL;
    Py_ssize_t count;
    const int64_t *numbers = numbers_of(&buffer, size, &count);
    int error = 0;
    if (numbers) {
        char *ram = (char *)(uintptr_t)address;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0, n; i < count && !error; i += n) {
            n = run_length(numbers, i, count, count);
            struct iovec part = {ram + numbers[i] * PAGE, (size_t)n * PAGE};
            error = write_all(fd, &part, 1, (off_t)numbers[i] * PAGE);
        }
        if (!error)
            error = drop(ram, numbers, count);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&buffer);
    return numbers ? done(error) : NULL;
}

static PyObject *pages_put(PyObject *Py_UNUSED(self), PyObject *args)
{
    int fd;
    unsigned long long address, size;
    Py_buffer buffer, held;
    PyObject *contents;
    if (!PyArg_ParseTuple(args, "iKKy*O!y*", &fd, &address, &size, &buffer, &PyList_Type, &contents, &held))
        return NULL;
    Py_ssize_t count, dirty_count;
    const int64_t *numbers = numbers_of(&buffer, size, &count), *dirty = NULL;
    if (numbers)
        dirty = numbers_of(&held, size, &dirty_count);
    struct iovec *parts = NULL;
    bool fit = dirty != NULL;
    if (fit && PyList_GET_SIZE(contents) != count) {
        PyErr_SetString(PyExc_ValueError, "expected one content for each page");
        fit = false;
    }
    if (fit && !(parts = PyMem_New(struct iovec, count ? count : 1))) {
        PyErr_NoMemory();
        fit = false;
    }
    for (Py_ssize_t i = 0; fit && i < count; i++) {
        PyObject *content = PyList_GET_ITEM(contents, i);
        if (!PyBytes_Check(content) || PyBytes_GET_SIZE(content) != PAGE) {
            PyErr_SetString(PyExc_ValueError, "expected contents of 4096 bytes");
            fit = false;
            break;
        }
        parts[i] = (struct iovec){PyBytes_AS_STRING(content), PAGE};
    }
    int error = 0;
    if (fit) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0, n; i < count && !error; i += n) {
            n = run_length(numbers, i, count, PARTS);
            error = write_all(fd, parts + i, (int)n, (off_t)numbers[i] * PAGE);
        }
        if (!error)
            error = drop((char *)(uintptr_t)address, dirty, dirty_count);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(parts);
    PyBuffer_Release(&buffer);
    PyBuffer_Release(&held);
    return fit ? done(error) : NULL;
}

static PyMethodDef methods[] = {
    {"dirty", pages_dirty, METH_VARARGS, "dirty(pagemap, address, size) -> int64 numbers of the private pages, as bytes"},
    {"contents", pages_contents, METH_VARARGS, "contents(address, size, numbers) -> [bytes, ...]"},
    {"clean", pages_clean, METH_VARARGS, "clean(fd, address, size, numbers): fold all private pages into the file"},
    {"put", pages_put, METH_VARARGS, "put(fd, address, size, numbers, contents, private): all private ones, which are among them, become clean"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_pages", .m_doc = "Lists of RAM pages", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__pages(void)
{
    PyObject *m = PyModule_Create(&module);
    if (!m)
        return NULL;
    zero = PyBytes_FromStringAndSize(NULL, PAGE);
    if (!zero)
        return NULL;
    memset(PyBytes_AS_STRING(zero), 0, PAGE);
    Py_INCREF(zero);
    if (PyModule_AddObject(m, "ZERO", zero) < 0)
        return NULL;
    return m;
}
