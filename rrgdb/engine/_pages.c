/* Lists of RAM pages, handled in one call each: which were written, their contents, cleaning them, putting others back.
 * Two ways to know what was written (rrgdb/engine/tracking.py): private copies of a file's pages, write protection. */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096
#define RANGES 512
#define NEAR 32

/* linux/fs.h, Linux 6.7 */
typedef struct { uint64_t start, end, categories; } region;
typedef struct {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t inverted, mask, anyof, returned;
} scan_arg;
#define PAGEMAP_SCAN_CALL 0xC0606610ul
#define WP_MATCHING (1u << 0)
#define CHECK_WPASYNC (1u << 1)
#define IS_WRITTEN (1u << 1)
#define IS_FILE (1u << 2)
#define IS_PRESENT (1u << 3)
#define IS_SWAPPED (1u << 4)
#define IS_PFNZERO (1u << 5)

/* linux/userfaultfd.h, Linux 6.7 */
typedef struct { uint64_t api, features, ioctls; } uffd_api;
typedef struct { uint64_t start, len, mode, ioctls; } uffd_register;
#define UFFDIO_API_CALL 0xC018AA3Ful
#define UFFDIO_REGISTER_CALL 0xC020AA00ul
typedef struct { uint64_t start, len, mode; } uffd_protect;
#define UFFDIO_WRITEPROTECT_CALL 0xC018AA06ul
#define CLOSE 4 /* pages from one to the next that are lifted by one call */
#define WORTH_A_CALL 4
#define UFFD_API_VERSION 0xAAu
#define UFFD_USER_MODE_ONLY 1
#define FEATURE_WP_ASYNC (1u << 15)
#define REGISTER_MODE_WP (1u << 1)

static PyObject *zero; /* 4096 bytes of 0: every page of zeros is this object */

/* What a page must be, must not be, and of what it must be one thing at least: categories of PAGEMAP_SCAN. */
typedef struct { uint64_t all, none, any; } category;
/* Written, and there: what was never touched counts as written, and as protected it would take room in page tables. A
 * page that was only read is the one page of zeros that the kernel has. */
static const category written = {.all = IS_WRITTEN, .none = IS_PFNZERO, .any = IS_PRESENT | IS_SWAPPED};
static const category private = {.none = IS_FILE, .any = IS_PRESENT | IS_SWAPPED};
static const category filled = {.none = IS_PFNZERO, .any = IS_PRESENT | IS_SWAPPED};

typedef struct { int64_t *found; size_t count, room; } numbers_list;

static int append(numbers_list *list, size_t first, size_t more)
{
    if (list->count + more > list->room) {
        size_t room = 2 * (list->count + more);
        int64_t *larger = realloc(list->found, room * sizeof *larger);
        if (!larger)
            return ENOMEM;
        list->found = larger;
        list->room = room;
    }
    for (size_t k = 0; k < more; k++)
        list->found[list->count++] = (int64_t)(first + k);
    return 0;
}

/* Pages of a category; into list, if there is one, or with WP_MATCHING they are protected. */
static int scan(int fd, uint64_t address, uint64_t size, const category *which, uint64_t flags, numbers_list *list)
{
    region ranges[RANGES];
    for (uint64_t at = address, end = address + size; at < end;) {
        scan_arg arg = {.size = sizeof arg, .flags = flags, .start = at, .end = end, .vec = (uintptr_t)ranges,
                        .vec_len = RANGES, .inverted = which->none, .mask = which->all | which->none,
                        .anyof = which->any};
        long n = ioctl(fd, PAGEMAP_SCAN_CALL, &arg);
        if (n < 0)
            return errno;
        for (long i = 0; list && i < n; i++)
            if (append(list, (ranges[i].start - address) / PAGE, (ranges[i].end - ranges[i].start) / PAGE))
                return ENOMEM;
        at = n == RANGES ? arg.walk_end : end;
    }
    return 0;
}

static PyObject *scanned(PyObject *args, const category *which)
{
    int fd;
    unsigned long long address, size;
    if (!PyArg_ParseTuple(args, "iKK", &fd, &address, &size))
        return NULL;
    numbers_list list = {0};
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = scan(fd, address, size, which, 0, &list);
    Py_END_ALLOW_THREADS
    PyObject *result = NULL;
    if (error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    } else {
        result = PyBytes_FromStringAndSize((char *)list.found, (Py_ssize_t)(list.count * sizeof *list.found));
    }
    free(list.found);
    return result;
}

static PyObject *pages_written(PyObject *Py_UNUSED(self), PyObject *args) { return scanned(args, &written); }
static PyObject *pages_private(PyObject *Py_UNUSED(self), PyObject *args) { return scanned(args, &private); }
static PyObject *pages_filled(PyObject *Py_UNUSED(self), PyObject *args) { return scanned(args, &filled); }

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

static Py_ssize_t run_length(const int64_t *numbers, Py_ssize_t i, Py_ssize_t count)
{
    Py_ssize_t n = 1;
    while (i + n < count && numbers[i + n] == numbers[i] + n)
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
            n = run_length(numbers, i, count);
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

static bool contents_fit(PyObject *contents, Py_ssize_t count)
{
    if (PyList_GET_SIZE(contents) != count) {
        PyErr_SetString(PyExc_ValueError, "expected one content for each page");
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *content = PyList_GET_ITEM(contents, i);
        if (!PyBytes_Check(content) || PyBytes_GET_SIZE(content) != PAGE) {
            PyErr_SetString(PyExc_ValueError, "expected contents of 4096 bytes");
            return false;
        }
    }
    return true;
}

static PyObject *pages_copy(PyObject *Py_UNUSED(self), PyObject *args)
{
    unsigned long long address, size;
    Py_buffer buffer;
    PyObject *contents;
    if (!PyArg_ParseTuple(args, "KKy*O!", &address, &size, &buffer, &PyList_Type, &contents))
        return NULL;
    Py_ssize_t count;
    const int64_t *numbers = numbers_of(&buffer, size, &count);
    bool fit = numbers && contents_fit(contents, count);
    for (Py_ssize_t i = 0; fit && i < count; i++) {
        char *page = (char *)(uintptr_t)address + numbers[i] * PAGE;
        const char *content = PyBytes_AS_STRING(PyList_GET_ITEM(contents, i));
        /* A write to a protected page is a fault, so one that changes nothing costs more than to look. */
        if (memcmp(page, content, PAGE) != 0)
            memcpy(page, content, PAGE);
    }
    PyBuffer_Release(&buffer);
    return fit ? done(0) : NULL;
}

static PyObject *pages_drop(PyObject *Py_UNUSED(self), PyObject *args)
{
    unsigned long long address, size;
    Py_buffer buffer;
    if (!PyArg_ParseTuple(args, "KKy*", &address, &size, &buffer))
        return NULL;
    Py_ssize_t count;
    const int64_t *numbers = numbers_of(&buffer, size, &count);
    int error = numbers ? drop((char *)(uintptr_t)address, numbers, count) : 0;
    PyBuffer_Release(&buffer);
    return numbers ? done(error) : NULL;
}

static PyObject *pages_zeros(PyObject *Py_UNUSED(self), PyObject *args)
{
    unsigned long long address, size;
    Py_buffer buffer;
    if (!PyArg_ParseTuple(args, "KKy*", &address, &size, &buffer))
        return NULL;
    Py_ssize_t count;
    const int64_t *numbers = numbers_of(&buffer, size, &count);
    PyObject *found = numbers ? PyBytes_FromStringAndSize(NULL, count) : NULL;
    for (Py_ssize_t i = 0; found && i < count; i++) {
        const char *page = (const char *)(uintptr_t)address + numbers[i] * PAGE;
        PyBytes_AS_STRING(found)[i] = memcmp(page, PyBytes_AS_STRING(zero), PAGE) == 0;
    }
    PyBuffer_Release(&buffer);
    return found;
}

static PyObject *pages_guard(PyObject *Py_UNUSED(self), PyObject *args)
{
    unsigned long long address, size;
    if (!PyArg_ParseTuple(args, "KK", &address, &size))
        return NULL;
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    uffd_api api = {.api = UFFD_API_VERSION, .features = FEATURE_WP_ASYNC};
    uffd_register range = {.start = address, .len = size, .mode = REGISTER_MODE_WP};
    if (fd < 0 || ioctl(fd, UFFDIO_API_CALL, &api) != 0 || ioctl(fd, UFFDIO_REGISTER_CALL, &range) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    return PyLong_FromLong(fd);
}

static int protect(int fd, uint64_t address, uint64_t size)
{
    return scan(fd, address, size, &written, WP_MATCHING | CHECK_WPASYNC, NULL);
}

static PyObject *pages_protect(PyObject *Py_UNUSED(self), PyObject *args)
{
    int fd, error;
    unsigned long long address, size;
    if (!PyArg_ParseTuple(args, "iKK", &fd, &address, &size))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    error = protect(fd, address, size);
    Py_END_ALLOW_THREADS
    return done(error);
}

/* A fault costs less than a call, so only pages that lie together are worth one. If it fails, each write is a fault, no
 * more. */
static void lift(int guard, uint64_t address, const int64_t *numbers, Py_ssize_t count)
{
    for (Py_ssize_t i = 0, n; i < count; i += n) {
        for (n = 1; i + n < count && numbers[i + n] - numbers[i + n - 1] <= CLOSE; n++)
            ;
        if (n < WORTH_A_CALL)
            continue;
        uffd_protect range = {.start = address + (uint64_t)numbers[i] * PAGE,
                              .len = (uint64_t)(numbers[i + n - 1] - numbers[i] + 1) * PAGE};
        (void)ioctl(guard, UFFDIO_WRITEPROTECT_CALL, &range);
    }
}

static PyObject *pages_lift(PyObject *Py_UNUSED(self), PyObject *args)
{
    int guard;
    unsigned long long address, size;
    Py_buffer buffer;
    if (!PyArg_ParseTuple(args, "iKKy*", &guard, &address, &size, &buffer))
        return NULL;
    Py_ssize_t count;
    const int64_t *numbers = numbers_of(&buffer, size, &count);
    if (numbers)
        lift(guard, address, numbers, count);
    PyBuffer_Release(&buffer);
    return numbers ? done(0) : NULL;
}

static PyMethodDef methods[] = {
    {"written", pages_written, METH_VARARGS, "written(pagemap, address, size) -> int64 numbers, as bytes"},
    {"private", pages_private, METH_VARARGS, "private(pagemap, address, size): pages with private copies"},
    {"filled", pages_filled, METH_VARARGS, "filled(pagemap, address, size): pages that are there"},
    {"contents", pages_contents, METH_VARARGS, "contents(address, size, numbers) -> [bytes, ...]"},
    {"clean", pages_clean, METH_VARARGS, "clean(fd, address, size, numbers): fold all private pages into the file"},
    {"copy", pages_copy, METH_VARARGS, "copy(address, size, numbers, contents): one content for each page"},
    {"zeros", pages_zeros, METH_VARARGS, "zeros(address, size, numbers) -> a byte each: 1 for a page of zeros"},
    {"drop", pages_drop, METH_VARARGS, "drop(address, size, private): give all private copies back"},
    {"guard", pages_guard, METH_VARARGS, "guard(address, size) -> userfaultfd: the kernel notes what is written"},
    {"protect", pages_protect, METH_VARARGS, "protect(pagemap, address, size): what was written is clean"},
    {"lift", pages_lift, METH_VARARGS, "lift(guard, address, size, numbers): pages that are about to be written"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_pages", .m_doc = "Lists of RAM pages", .m_size = -1, .m_methods = methods,
};

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
