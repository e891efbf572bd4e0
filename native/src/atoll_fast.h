/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

enum { FORM = 6 }; /* Of what this module offers; atoll uses no other than it knows (src/atoll/base/compiled.py). */

extern PyType_Spec label_spec;       /* label.c */
extern PyType_Spec port_spec;        /* port.c */
extern PyMethodDef turn_functions[]; /* turn.c */
extern PyMethodDef ring_functions[]; /* ring.c */

/* Return whether a call has so many arguments; if not, it has failed. */
static inline int is_called_with(Py_ssize_t given, Py_ssize_t wanted) {
    if (given == wanted)
        return 1;
    PyErr_Format(PyExc_TypeError, "%zd arguments instead of %zd", given, wanted);
    return 0;
}
