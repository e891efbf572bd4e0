/* SPDX-License-Identifier: Apache-2.0 */
/* Writes and checks the headers of relay frames by the dozen: what Heading does in Python (docs/spec/relay.md, 2).
 *
 * BLAKE2s is RFC 7693's. The block of the key is hashed once; what a frame adds is one block, of which only the label
 * and what the frame covers are not zero. LANES frames are hashed at once, each in one lane of the vectors, which the
 * compiler makes of what the processor has.
 */

#include "atoll_fast.h"

#include <openssl/crypto.h>
#include <stdint.h>
#include <string.h>

enum { BEGINS = 12, KIND = 4, COVERED = 16, MAC = 8, FRAME = BEGINS + MAC, FRAME_MIN = FRAME + 32, KEY = 32, BLOCK = 64 };
enum { LANES = 8, LABEL_WORDS = 2, COVERED_WORDS = 4, WORDS = 16, STATE = 8, MAC_WORDS = 2 };

typedef uint32_t lanes __attribute__((vector_size(4 * LANES)));

typedef struct {
    PyObject_HEAD
    unsigned char begins[BEGINS];
    uint32_t keyed[STATE];
} Label;

static const uint32_t IV[STATE] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                                   0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};

static const unsigned char ORDER[10][WORDS] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

/* Where the loader can choose, the widest vectors that the processor has; elsewhere those that the compiler may assume. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

#define ALL(word) ((lanes){0} + (word))
#define TURNED(word, bits) ((word) >> (bits) | (word) << (32 - (bits)))

static inline __attribute__((always_inline)) void mix(lanes *v, int a, int b, int c, int d, const lanes *x, const lanes *y) {
    v[a] += v[b] + *x;
    v[d] = TURNED(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = TURNED(v[b] ^ v[c], 12);
    v[a] += v[b] + *y;
    v[d] = TURNED(v[d] ^ v[a], 8);
    v[c] += v[d];
    v[b] = TURNED(v[b] ^ v[c], 7);
}

/* Hash one block in each lane. */
FOR_EACH_PROCESSOR static void compress(const uint32_t from[STATE], const lanes words[WORDS], uint32_t hashed, int is_last,
                     lanes to[STATE]) {
    lanes v[WORDS];
    for (int word = 0; word < STATE; word++) {
        v[word] = ALL(from[word]);
        v[STATE + word] = ALL(IV[word]);
    }
    v[12] ^= hashed;
    if (is_last)
        v[14] = ~v[14];
    for (int round = 0; round < 10; round++) {
        const unsigned char *order = ORDER[round];
        for (int column = 0; column < 4; column++)
            mix(v, column, 4 + column, 8 + column, 12 + column, &words[order[2 * column]],
                &words[order[2 * column + 1]]);
        for (int slant = 0; slant < 4; slant++)
            mix(v, slant, 4 + (slant + 1) % 4, 8 + (slant + 2) % 4, 12 + (slant + 3) % 4, &words[order[8 + 2 * slant]],
                &words[order[9 + 2 * slant]]);
    }
    for (int word = 0; word < STATE; word++)
        to[word] = from[word] ^ v[word] ^ v[STATE + word];
}

static uint32_t get32(const unsigned char *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void put32(unsigned char *at, uint32_t word) {
    for (int byte = 0; byte < 4; byte++)
        at[byte] = (unsigned char)(word >> 8 * byte);
}

/* Write the headers of at most LANES frames that stand step bytes apart, as far as the datagrams in them go, to out. */
static void put_frames(const Label *label, const unsigned char *data, Py_ssize_t step, int count,
                       unsigned char out[LANES][FRAME]) {
    lanes words[WORDS] = {0}, state[STATE];
    for (int word = 0; word < LABEL_WORDS; word++)
        words[word] = ALL(get32(label->begins + KIND + 4 * word));
    for (int lane = 0; lane < count; lane++)
        for (int word = 0; word < COVERED_WORDS; word++)
            words[LABEL_WORDS + word][lane] = get32(data + lane * step + FRAME + 4 * word);
    compress(label->keyed, words, BLOCK + BEGINS - KIND + COVERED, 1, state);
    for (int lane = 0; lane < count; lane++) {
        memcpy(out[lane], label->begins, BEGINS);
        for (int word = 0; word < MAC_WORDS; word++)
            put32(out[lane] + BEGINS + 4 * word, state[word][lane]);
    }
}

static PyObject *label_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    const unsigned char *begins, *key;
    Py_ssize_t begins_bytes, key_bytes;
    (void)keywords;
    if (!PyArg_ParseTuple(args, "y#y#", &begins, &begins_bytes, &key, &key_bytes))
        return NULL;
    if (begins_bytes != BEGINS || key_bytes != KEY) {
        PyErr_SetString(PyExc_ValueError, "a heading has 12 bytes, and a key has 32");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Label *self = (Label *)allocate(type, 0);
    if (!self)
        return NULL;
    lanes words[WORDS] = {0}, state[STATE];
    uint32_t first[STATE];
    memcpy(self->begins, begins, BEGINS);
    memcpy(first, IV, sizeof IV);
    first[0] ^= 0x01010000 | KEY << 8 | MAC; /* Fanout and depth 1, lengths of key and digest. */
    for (int word = 0; word < KEY / 4; word++)
        words[word] = ALL(get32(key + 4 * word));
    compress(first, words, BLOCK, 0, state);
    for (int word = 0; word < STATE; word++)
        self->keyed[word] = state[word][0];
    OPENSSL_cleanse(words, sizeof words);
    OPENSSL_cleanse(state, sizeof state);
    return (PyObject *)self;
}

static void label_free(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    OPENSSL_cleanse(((Label *)object)->keyed, sizeof((Label *)object)->keyed);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

PyDoc_STRVAR(head_doc, "head(data, step)\n\n"
                       "Write the headers of frames that stand back to back, step bytes apart, datagrams in place.");

static PyObject *label_head(PyObject *object, PyObject *args) {
    Py_buffer target;
    Py_ssize_t step;
    if (!PyArg_ParseTuple(args, "w*n", &target, &step))
        return NULL;
    unsigned char *data = target.buf, headers[LANES][FRAME];
    Py_ssize_t rest = step > 0 ? target.len % step : 0;
    if (step < FRAME + COVERED || (rest && rest < FRAME + COVERED)) {
        PyBuffer_Release(&target);
        PyErr_SetString(PyExc_ValueError, "frames that cannot stand so");
        return NULL;
    }
    Py_ssize_t frames = target.len / step + (rest > 0);
    for (Py_ssize_t frame = 0; frame < frames; frame += LANES) {
        int count = frames - frame < LANES ? (int)(frames - frame) : LANES;
        put_frames((Label *)object, data + frame * step, step, count, headers);
        for (int lane = 0; lane < count; lane++)
            memcpy(data + (frame + lane) * step, headers[lane], FRAME);
    }
    PyBuffer_Release(&target);
    Py_RETURN_NONE;
}

/* Return how many of the next frames, at most LANES, are long enough and hold datagrams of this kind. */
static int alike(const unsigned char *data, Py_ssize_t left, Py_ssize_t size, const unsigned char *kind) {
    int count = 0;
    for (; count < LANES && left > 0; count++, data += size, left -= size)
        if ((left < size ? left : size) < FRAME_MIN || memcmp(data + FRAME, kind, KIND) != 0)
            break;
    return count;
}

PyDoc_STRVAR(run_doc, "run(data, size, onward) -> int\n\n"
                      "Of frames that stand back to back, size bytes apart, return where those end that have this\n"
                      "heading and the first one's kind of datagram; give them the heading onward, if it is not None.");

static PyObject *label_run(PyObject *object, PyObject *args) {
    Py_buffer target;
    Py_ssize_t size, at = 0;
    PyObject *onward;
    if (!PyArg_ParseTuple(args, "w*nO", &target, &size, &onward))
        return NULL;
    unsigned char *data = target.buf, kind[KIND], expected[LANES][FRAME];
    if (size <= 0 || target.len < FRAME_MIN || (onward != Py_None && Py_TYPE(onward) != Py_TYPE(object))) {
        int is_short = size > 0 && target.len < FRAME_MIN;
        PyBuffer_Release(&target);
        if (is_short)
            return PyLong_FromSsize_t(0);
        PyErr_SetString(PyExc_ValueError, "frames that cannot stand so, or no heading");
        return NULL;
    }
    memcpy(kind, data + FRAME, KIND);
    int count, good = LANES;
    while (good == LANES && (count = alike(data + at, target.len - at, size, kind)) > 0) {
        put_frames((Label *)object, data + at, size, count, expected);
        for (good = 0; good < count; good++)
            if (CRYPTO_memcmp(expected[good], data + at + good * size, FRAME) != 0)
                break;
        if (onward != Py_None) {
            put_frames((Label *)onward, data + at, size, good, expected);
            for (int lane = 0; lane < good; lane++)
                memcpy(data + at + lane * size, expected[lane], FRAME);
        }
        at += good * size;
    }
    Py_ssize_t end = at < target.len ? at : target.len;
    PyBuffer_Release(&target);
    return PyLong_FromSsize_t(end);
}

static PyMethodDef methods[] = {
    {"head", label_head, METH_VARARGS, head_doc},
    {"run", label_run, METH_VARARGS, run_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, label_new},
    {Py_tp_dealloc, label_free},
    {Py_tp_methods, methods},
    {Py_tp_doc, "Label(begins, key)\n\nKind and label of a frame, and the label's key."},
    {0, NULL},
};

PyType_Spec label_spec = {"atoll_fast.Label", sizeof(Label), 0, Py_TPFLAGS_DEFAULT, slots};
