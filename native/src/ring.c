/* SPDX-License-Identifier: Apache-2.0 */
/* A frame out and the one that answers it in, through memory that two processes share.
 *
 * It does what Sender.begin, Receiver.wait and Receiver.pull do in Python (domain/guest/ring.py, which describes the memory)
 * for frames that are written at once and come at once. For all others it does nothing, or leaves the rest to those.
 */

#include "atoll_fast.h"

#ifdef __linux__

#include <linux/futex.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, HEAD = 4, CONSUMED = 16, AWAITED = 64 }; /* Words, the last two. */

static uint32_t seen(const uint32_t *word) {
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* Numbers that a call was given; all of them, or it has failed. */
static int numbers(PyObject *const *args, int count, long long *found) {
    for (int number = 0; number < count; number++) {
        found[number] = PyLong_AsLongLong(args[number]);
        if (found[number] == -1 && PyErr_Occurred())
            return 0;
    }
    return 1;
}

/* Wait until a word has another value than this, at most so long; 0: however long it takes. A signal ends it, too, and is
 * handled when the caller goes on. */
static void wait_for(const uint32_t *word, uint32_t value, long long timeout_ns) {
    struct timespec span = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    Py_BEGIN_ALLOW_THREADS;
    syscall(SYS_futex, word, FUTEX_WAIT, value, timeout_ns ? &span : NULL);
    Py_END_ALLOW_THREADS;
}

/* Return the frame that has come at once and whole, and say that it was read; NULL: there is none, or no memory for it. */
static PyObject *taken(const char *ring, uint32_t size, uint32_t *word, uint32_t consumed, long long bytes_max) {
    uint32_t produced = seen(word), there = produced - consumed, start = consumed & (size - 1), length;
    if (there < HEAD || there > size - start || there > bytes_max)
        return NULL;
    memcpy(&length, ring + start, HEAD);
    if (length != there - HEAD)
        return NULL;
    PyObject *frame = PyBytes_FromStringAndSize(ring + start + HEAD, length);
    if (frame)
        __atomic_store_n(word + CONSUMED, produced, __ATOMIC_RELEASE);
    return frame;
}

PyDoc_STRVAR(exchange_doc,
             "exchange(memory, frame, out, in, produced, consumed, bytes_max, timeout_ns, bell) -> bytes | None | bool\n\n"
             "Write a frame, wait, and return the one that came: at most bytes_max bytes with its length.\n"
             "None: it was written, and no such frame has come. False: nothing was done.");

static PyObject *ring_exchange(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    enum { OUT, IN, PRODUCED, CONSUMED_BEFORE, BYTES_MAX, TIMEOUT, BELL, NUMBERS };
    long long number[NUMBERS];
    PyObject *answer;
    Py_buffer memory;
    char *bytes;
    Py_ssize_t length;
    (void)module;
    if (!is_called_with(given, 2 + NUMBERS) || !numbers(args + 2, NUMBERS, number) ||
        PyBytes_AsStringAndSize(args[1], &bytes, &length) < 0 || PyObject_GetBuffer(args[0], &memory, PyBUF_WRITABLE) < 0)
        return NULL;
    uint32_t size = memory.len > PAGE ? (uint32_t)((memory.len - PAGE) / 2) : 0;
    if (!size || size & (size - 1) || number[OUT] < 0 || number[OUT] > AWAITED || number[IN] < 0 || number[IN] > AWAITED) {
        PyErr_SetString(PyExc_ValueError, "no such memory");
        PyBuffer_Release(&memory);
        return NULL;
    }
    uint32_t *words = memory.buf, *out = words + number[OUT], *in = words + number[IN];
    char *rings = (char *)memory.buf + PAGE;
    char *out_ring = rings + (number[OUT] ? size : 0), *in_ring = rings + (number[IN] ? size : 0);
    uint32_t produced = (uint32_t)number[PRODUCED], consumed = (uint32_t)number[CONSUMED_BEFORE];
    uint32_t start = produced & (size - 1), head = (uint32_t)length;
    if (length > (Py_ssize_t)(size - start) - HEAD || seen(out + CONSUMED) != produced) {
        answer = Py_NewRef(Py_False);
    } else {
        memcpy(out_ring + start, &head, HEAD);
        memcpy(out_ring + start + HEAD, bytes, (size_t)length);
        __atomic_store_n(out, produced + HEAD + head, __ATOMIC_RELEASE);
        syscall(SYS_futex, out, FUTEX_WAKE, 1);
        if (number[BELL] >= 0 && seen(words + AWAITED)) {
            const uint64_t one = 1;
            ssize_t told = write((int)number[BELL], &one, sizeof one);
            (void)told; /* It fails only where it rings already. */
        }
        if (seen(in) == consumed)
            wait_for(in, consumed, number[TIMEOUT]);
        answer = taken(in_ring, size, in, consumed, number[BYTES_MAX]);
        if (!answer) { /* Whatever it was: the frame is written, and the caller must know that. */
            PyErr_Clear();
            answer = Py_NewRef(Py_None);
        }
    }
    PyBuffer_Release(&memory);
    return answer;
}

#endif

PyMethodDef ring_functions[] = {
#ifdef __linux__
    {"exchange", (PyCFunction)(void (*)(void))ring_exchange, METH_FASTCALL, exchange_doc},
#endif
    {NULL, NULL, 0, NULL},
};
