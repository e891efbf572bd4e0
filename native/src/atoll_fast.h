/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

enum { FORM = 3 }; /* Of what this module offers; atoll uses no other than it knows (src/atoll/base/compiled.py). */

extern PyType_Spec label_spec; /* label.c */
