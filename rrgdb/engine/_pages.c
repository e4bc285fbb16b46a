/* Lists of RAM pages, handled in one call each: which were written, their contents, cleaning them, putting others back.
 * Two ways to know what was written (rrgdb/engine/tracking.py): private copies of a file's pages, write protection of
 * the file's pages themselves. */
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
#define BLOCK 512 /* pages that are armed at once: those of one page table */

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

/* linux/userfaultfd.h, Linux 6.7 */
typedef struct { uint64_t api, features, ioctls; } uffd_api;
typedef struct { uint64_t start, len, mode, ioctls; } uffd_register;
#define UFFDIO_API_CALL 0xC018AA3Ful
#define UFFDIO_REGISTER_CALL 0xC020AA00ul
typedef struct { uint64_t start, len, mode; } uffd_protect;
#define UFFDIO_WRITEPROTECT_CALL 0xC018AA06ul
#define UFFD_API_VERSION 0xAAu
#define UFFD_USER_MODE_ONLY 1
#define FEATURE_WP_ASYNC (1u << 15)
#define REGISTER_MODE_WP (1u << 1)
#define MODE_WP 1u

static PyObject *zero; /* 4096 bytes of 0: every page of zeros is this object */

/* What a page must be, must not be, and of what it must be one thing at least: categories of PAGEMAP_SCAN. */
typedef struct { uint64_t all, none, any; } category;
/* For this very question the kernel answers with every page that is not protected, so with those that are not in the
 * page table as well. */
static const category written = {.all = IS_WRITTEN};
static const category private = {.none = IS_FILE, .any = IS_PRESENT | IS_SWAPPED};

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

/* Pages of a category, appended to the list; without one, all pages are protected. */
static int scan(int fd, uint64_t address, uint64_t from, uint64_t to, const category *which, numbers_list *list)
{
    region ranges[RANGES];
    for (uint64_t at = address + from, end = address + to; at < end;) {
        scan_arg arg = {.size = sizeof arg, .start = at, .end = end, .inverted = which->none,
                        .mask = which->all | which->none, .anyof = which->any, .returned = which->all};
        if (list) {
            arg.vec = (uintptr_t)ranges;
            arg.vec_len = RANGES;
        } else {
            arg.flags = WP_MATCHING | CHECK_WPASYNC;
        }
        long n = ioctl(fd, PAGEMAP_SCAN_CALL, &arg);
        if (n < 0)
            return errno;
        for (long i = 0; list && i < n; i++)
            if (append(list, (ranges[i].start - address) / PAGE, (ranges[i].end - ranges[i].start) / PAGE))
                return ENOMEM;
        at = list && n == RANGES ? arg.walk_end : end;
    }
    return 0;
}

/* Pages that a file has, from and to in bytes; not its holes. */
static int data(int fd, uint64_t from, uint64_t to, numbers_list *list)
{
    for (uint64_t end = from; end < to;) {
        off_t start = lseek(fd, (off_t)end, SEEK_DATA);
        if (start < 0)
            return errno == ENXIO ? 0 : errno;
        if ((uint64_t)start >= to)
            return 0;
        off_t stop = lseek(fd, start, SEEK_HOLE);
        if (stop < 0)
            return errno;
        end = (uint64_t)stop < to ? (uint64_t)stop : to;
        if (append(list, (uint64_t)start / PAGE, (end - (uint64_t)start + PAGE - 1) / PAGE))
            return ENOMEM;
    }
    return 0;
}

static PyObject *result(int error, numbers_list *list)
{
    PyObject *numbers = NULL;
    if (error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    } else {
        numbers = PyBytes_FromStringAndSize((char *)list->found, (Py_ssize_t)(list->count * sizeof *list->found));
    }
    free(list->found);
    return numbers;
}

static PyObject *pages_private(PyObject *Py_UNUSED(self), PyObject *args)
{
    int fd, error;
    unsigned long long address, size;
    if (!PyArg_ParseTuple(args, "iKK", &fd, &address, &size))
        return NULL;
    numbers_list list = {0};
    Py_BEGIN_ALLOW_THREADS
    error = scan(fd, address, 0, size, &private, &list);
    Py_END_ALLOW_THREADS
    return result(error, &list);
}

static PyObject *pages_filled(PyObject *Py_UNUSED(self), PyObject *args)
{
    int fd, error;
    unsigned long long size;
    if (!PyArg_ParseTuple(args, "iK", &fd, &size))
        return NULL;
    numbers_list list = {0};
    Py_BEGIN_ALLOW_THREADS
    error = data(fd, 0, size, &list);
    Py_END_ALLOW_THREADS
    return result(error, &list);
}

/* A byte for each block of RAM. */
static bool armed_fits(const Py_buffer *armed, unsigned long long size)
{
    if ((uint64_t)armed->len == (size / PAGE + BLOCK - 1) / BLOCK)
        return true;
    PyErr_SetString(PyExc_ValueError, "expected a byte for each block of RAM");
    return false;
}

static uint64_t block_end(uint64_t block, uint64_t size)
{
    uint64_t end = block * BLOCK * PAGE;
    return end < size ? end : size;
}

static PyObject *pages_written(PyObject *Py_UNUSED(self), PyObject *args)
{
    int pagemap, fd, error = 0;
    unsigned long long address, size;
    Py_buffer buffer;
    if (!PyArg_ParseTuple(args, "iiKKy*", &pagemap, &fd, &address, &size, &buffer))
        return NULL;
    numbers_list list = {0};
    const char *armed = buffer.buf;
    bool fits = armed_fits(&buffer, size);
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        for (uint64_t block = 0, next, blocks = (uint64_t)buffer.len; block < blocks && !error; block = next) {
            for (next = block + 1; next < blocks && armed[next] == armed[block]; next++)
                ;
            uint64_t from = block_end(block, size), to = block_end(next, size);
            error = armed[block] ? scan(pagemap, address, from, to, &written, &list) : data(fd, from, to, &list);
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&buffer);
    return fits ? result(error, &list) : NULL;
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

/* Protect the pages of blocks that are not armed, whether they are there or not. */
static int arm(int guard, uint64_t address, uint64_t size, const int64_t *numbers, Py_ssize_t count, char *armed)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        uint64_t block = (uint64_t)numbers[i] / BLOCK, next = block;
        for (; i < count && (uint64_t)numbers[i] / BLOCK <= next && !armed[numbers[i] / BLOCK]; i++)
            next = (uint64_t)numbers[i] / BLOCK + 1;
        if (next == block)
            continue;
        i--;
        uint64_t from = block_end(block, size), to = block_end(next, size);
        uffd_protect range = {.start = address + from, .len = to - from, .mode = MODE_WP};
        if (ioctl(guard, UFFDIO_WRITEPROTECT_CALL, &range) != 0)
            return errno;
        memset(armed + block, 1, next - block);
    }
    return 0;
}

static PyObject *pages_arm(PyObject *Py_UNUSED(self), PyObject *args)
{
    int guard, error = 0;
    unsigned long long address, size;
    Py_buffer buffer, armed;
    if (!PyArg_ParseTuple(args, "iKKy*w*", &guard, &address, &size, &buffer, &armed))
        return NULL;
    Py_ssize_t count;
    const int64_t *numbers = armed_fits(&armed, size) ? numbers_of(&buffer, size, &count) : NULL;
    if (numbers) {
        Py_BEGIN_ALLOW_THREADS
        error = arm(guard, address, size, numbers, count, armed.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&buffer);
    PyBuffer_Release(&armed);
    return numbers ? done(error) : NULL;
}

static PyObject *pages_protect(PyObject *Py_UNUSED(self), PyObject *args)
{
    int fd, error = 0;
    unsigned long long address, size;
    Py_buffer buffer;
    if (!PyArg_ParseTuple(args, "iKKy*", &fd, &address, &size, &buffer))
        return NULL;
    Py_ssize_t count;
    const int64_t *numbers = numbers_of(&buffer, size, &count);
    if (numbers) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < count && !error;) {
            uint64_t block = (uint64_t)numbers[i] / BLOCK, next = block;
            for (; i < count && (uint64_t)numbers[i] / BLOCK <= next; i++)
                next = (uint64_t)numbers[i] / BLOCK + 1;
            error = scan(fd, address, block_end(block, size), block_end(next, size), &written, NULL);
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&buffer);
    return numbers ? done(error) : NULL;
}

static PyMethodDef methods[] = {
    {"written", pages_written, METH_VARARGS,
     "written(pagemap, fd, address, size, armed) -> int64 numbers, as bytes"},
    {"private", pages_private, METH_VARARGS, "private(pagemap, address, size): pages with private copies"},
    {"filled", pages_filled, METH_VARARGS, "filled(fd, size): pages that are no holes"},
    {"contents", pages_contents, METH_VARARGS, "contents(address, size, numbers) -> [bytes, ...]"},
    {"clean", pages_clean, METH_VARARGS, "clean(fd, address, size, numbers): fold all private pages into the file"},
    {"copy", pages_copy, METH_VARARGS, "copy(address, size, numbers, contents): one content for each page"},
    {"zeros", pages_zeros, METH_VARARGS, "zeros(address, size, numbers) -> a byte each: 1 for a page of zeros"},
    {"drop", pages_drop, METH_VARARGS, "drop(address, size, private): give all private copies back"},
    {"guard", pages_guard, METH_VARARGS, "guard(address, size) -> userfaultfd: the kernel notes what is written"},
    {"arm", pages_arm, METH_VARARGS, "arm(guard, address, size, numbers, armed): protect the pages' blocks"},
    {"protect", pages_protect, METH_VARARGS, "protect(pagemap, address, size, numbers): all of their blocks is clean"},
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
    if (PyModule_AddObject(m, "ZERO", zero) < 0 || PyModule_AddIntConstant(m, "BLOCK", BLOCK) < 0)
        return NULL;
    return m;
}
