/* SPDX-License-Identifier: Apache-2.0 */
/* What each turn of a process's loop asks the operating system: who is ready, and what time it is.
 *
 * The select and time modules answer the same, by way of three times as much code, which is cold when a packet comes alone.
 */

#include "atoll_fast.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <sched.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#endif

PyDoc_STRVAR(clock_doc, "clock_ns(clock) -> int\n\nReturn the time of one of the operating system's clocks, ns.");

static PyObject *turn_clock(PyObject *module, PyObject *clock) {
    struct timespec now;
    (void)module;
    long which = PyLong_AsLong(clock);
    if (which == -1 && PyErr_Occurred())
        return NULL;
    if (clock_gettime((clockid_t)which, &now) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLongLong(now.tv_sec * 1000000000LL + now.tv_nsec);
}

#ifdef __linux__

enum { READY_MAX = 16 }; /* In one turn; who is left out is found by the next one. */
enum { IN = 1, OUT = 4 };

PyDoc_STRVAR(wait_doc, "wait(epoll, timeout_ns) -> list[tuple[int, int]]\n\n"
                       "Wait until a file is ready, or for so long; return files, each with 1 (read), 4 (write) or 5. What\n"
                       "is in trouble is ready for both. After a signal: whatever is ready.");

static PyObject *turn_wait(PyObject *module, PyObject *const *args, Py_ssize_t given) {
    struct epoll_event ready[READY_MAX];
    int found;
    (void)module;
    if (!is_called_with(given, 2))
        return NULL;
    long epoll = PyLong_AsLong(args[0]);
    long long timeout_ns = PyLong_AsLongLong(args[1]);
    if (PyErr_Occurred())
        return NULL;
    long long wait_ms = timeout_ns <= 0 ? 0 : (timeout_ns - 1) / 1000000 + 1; /* Not to come back too early. */
    if (wait_ms > INT32_MAX)
        wait_ms = INT32_MAX;
    Py_BEGIN_ALLOW_THREADS;
    found = epoll_wait((int)epoll, ready, READY_MAX, (int)wait_ms);
    Py_END_ALLOW_THREADS;
    if (found < 0) {
        if (errno != EINTR)
            return PyErr_SetFromErrno(PyExc_OSError);
        if (PyErr_CheckSignals() < 0)
            return NULL;
        found = 0;
    }
    PyObject *all = PyList_New(found);
    for (int number = 0; all && number < found; number++) {
        uint32_t events = ready[number].events;
        int told = (events & ~(uint32_t)OUT ? IN : 0) | (events & ~(uint32_t)IN ? OUT : 0);
        PyObject *one = PyTuple_New(2);
        if (!one) {
            Py_CLEAR(all);
            break;
        }
        PyTuple_SetItem(one, 0, PyLong_FromLong(ready[number].data.fd));
        PyTuple_SetItem(one, 1, PyLong_FromLong(told));
        PyList_SetItem(all, number, one);
    }
    return all;
}

PyDoc_STRVAR(slice_doc, "ask_for_slices(slice_ns) -> None\n\n"
                        "Ask the scheduler to let this process run for so long at a time, and sooner for it; its share stays.\n"
                        "Linux before 6.12 does not listen.");

static PyObject *turn_slice(PyObject *module, PyObject *slice_ns) {
    struct { /* struct sched_attr, sched_setattr(2); no header of the C library has it before glibc 2.41. */
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } wanted;
    (void)module;
    unsigned long long slice = PyLong_AsUnsignedLongLong(slice_ns);
    if (PyErr_Occurred())
        return NULL;
    memset(&wanted, 0, sizeof wanted);
    if (syscall(SYS_sched_getattr, 0, &wanted, sizeof wanted, 0) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    wanted.runtime = slice;
    if (wanted.policy == SCHED_OTHER && syscall(SYS_sched_setattr, 0, &wanted, 0) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

#endif

PyMethodDef turn_functions[] = {
    {"clock_ns", turn_clock, METH_O, clock_doc},
#ifdef __linux__
    {"wait", (PyCFunction)(void (*)(void))turn_wait, METH_FASTCALL, wait_doc},
    {"ask_for_slices", turn_slice, METH_O, slice_doc},
#endif
    {NULL, NULL, 0, NULL},
};
