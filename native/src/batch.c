/* SPDX-License-Identifier: Apache-2.0 */
/* Seals and opens packets by the dozen: the one loop of the packet device that runs once for each 1.4 kB; and one packet,
 * for which the way through five Python objects takes longer than its cipher.
 *
 * It does what Session.seal_burst, Sessions.open_run, Keypair.seal and .open, and (for guests) segments.Joint do in Python
 * with the same bytes as result, and nothing else: no protocol, no tables, no time. The ciphers are OpenSSL's. Every length
 * is checked before the first byte is touched.
 */

#include "atoll_fast.h"

#include <openssl/evp.h>
#include <stdint.h>
#include <string.h>

enum {
    HEADER = 16,
    TAG = 16,
    KEY = 32,
    NONCE = 12,
    IPV6 = 40,
    BLOCK = 16, /* Plaintexts for stock WireGuard are padded to it. */
    HEAD_MAX = 160, /* IPv6 and the longest TCP header are 100. */
    PROTOCOL_TCP = 6,
    PROTOCOL_UDP = 17,
    FIN_PSH = 0x09,
    CWR = 0x80,
    ACK = 0x10,
    ECE = 0x40,
    TCP_MIN = 20,
    PACKET_MAX = 1 << 20, /* Of what is taken alone; what a datagram holds is less. */
    FINISHED = 0x60, /* First nibbles of our plaintexts, see docs/spec/relay.md. */
    UNFINISHED = 0x50,
    CONTINUED = 0x70
};

typedef struct {
    PyObject_HEAD
    EVP_CIPHER_CTX *sealer, *opener;
} Batch;

static EVP_CIPHER_CTX *context(const unsigned char *key, int aes, int sealing) {
    EVP_CIPHER_CTX *made = EVP_CIPHER_CTX_new();
    const EVP_CIPHER *cipher = aes ? EVP_aes_256_gcm() : EVP_chacha20_poly1305();
    if (made && EVP_CipherInit_ex(made, cipher, NULL, key, NULL, sealing) == 1)
        return made;
    EVP_CIPHER_CTX_free(made);
    return NULL;
}

static PyObject *batch_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    const unsigned char *key;
    Py_ssize_t length;
    int aes;
    (void)keywords;
    if (!PyArg_ParseTuple(args, "y#p", &key, &length, &aes))
        return NULL;
    if (length != KEY) {
        PyErr_SetString(PyExc_ValueError, "a key has 32 bytes");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Batch *self = (Batch *)allocate(type, 0);
    if (!self)
        return NULL;
    self->sealer = context(key, aes, 1);
    self->opener = context(key, aes, 0);
    if (!self->sealer || !self->opener) {
        Py_DECREF(self);
        PyErr_SetString(PyExc_RuntimeError, "OpenSSL has no such cipher");
        return NULL;
    }
    return (PyObject *)self;
}

static void batch_free(PyObject *object) {
    Batch *self = (Batch *)object;
    PyTypeObject *type = Py_TYPE(object);
    EVP_CIPHER_CTX_free(self->sealer);
    EVP_CIPHER_CTX_free(self->opener);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static void put16(unsigned char *at, unsigned value) {
    at[0] = (unsigned char)(value >> 8);
    at[1] = (unsigned char)value;
}

static void put32(unsigned char *at, unsigned value) {
    put16(at, value >> 16);
    put16(at + 2, value);
}

static unsigned get32(const unsigned char *at) {
    return (unsigned)at[0] << 24 | (unsigned)at[1] << 16 | (unsigned)at[2] << 8 | at[3];
}

static void put_header(unsigned char *at, unsigned kind, unsigned index, unsigned long long counter) {
    for (int byte = 0; byte < 4; byte++) {
        at[byte] = (unsigned char)(kind >> 8 * byte);
        at[4 + byte] = (unsigned char)(index >> 8 * byte);
    }
    for (int byte = 0; byte < 8; byte++)
        at[8 + byte] = (unsigned char)(counter >> 8 * byte);
}

/* Write what depends on the length of the payload: lengths, and the pseudo-header's sum in the checksum's place. */
static void measure(unsigned char *head, Py_ssize_t head_bytes, Py_ssize_t payload) {
    unsigned length = (unsigned)(head_bytes - IPV6 + payload), protocol = head[6], total = 0;
    put16(head + 4, length);
    if (protocol == PROTOCOL_UDP)
        put16(head + IPV6 + 4, length);
    for (int at = 8; at < IPV6; at += 2)
        total += (unsigned)head[at] << 8 | head[at + 1];
    total += length + protocol;
    while (total > 0xFFFF)
        total = (total & 0xFFFF) + (total >> 16);
    put16(head + IPV6 + (protocol == PROTOCOL_TCP ? 16 : 6), total);
}

/* Return the one's complement sum of the data's 16-bit words, most significant byte first (RFC 1071, 2: it may be taken
 * in any order and width). */
static unsigned sum16(const unsigned char *data, Py_ssize_t size) {
    uint64_t total = 0;
    uint32_t word;
    unsigned char last[4] = {0}, pair[2];
    uint16_t folded;
    for (; size >= 4; size -= 4, data += 4) {
        memcpy(&word, data, 4);
        total += word;
    }
    memcpy(last, data, (size_t)size);
    memcpy(&word, last, 4);
    total += word;
    while (total > 0xFFFF)
        total = (total & 0xFFFF) + (total >> 16);
    folded = (uint16_t)total;
    memcpy(pair, &folded, 2);
    return (unsigned)pair[0] << 8 | pair[1];
}

/* Do the checksum of a packet that has the pseudo-header's sum in its place. */
static void finish(unsigned char *packet, Py_ssize_t size) {
    unsigned total = ~sum16(packet + IPV6, size - IPV6) & 0xFFFF;
    put16(packet + IPV6 + (packet[6] == PROTOCOL_TCP ? 16 : 6), total ? total : 0xFFFF);
}

static int seal_one(EVP_CIPHER_CTX *cipher, const unsigned char *header, const unsigned char *plain, Py_ssize_t size,
                    Py_ssize_t padding, unsigned char *out) {
    static const unsigned char zeros[BLOCK];
    unsigned char nonce[NONCE] = {0};
    int written, rest;
    memcpy(nonce + 4, header + 8, 8);
    return EVP_EncryptInit_ex(cipher, NULL, NULL, NULL, nonce) == 1 &&
           EVP_EncryptUpdate(cipher, out, &written, plain, (int)size) == 1 &&
           (!padding || EVP_EncryptUpdate(cipher, out + size, &written, zeros, (int)padding) == 1) &&
           EVP_EncryptFinal_ex(cipher, out + size + padding, &rest) == 1 &&
           EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, TAG, out + size + padding) == 1;
}

static int open_one(EVP_CIPHER_CTX *cipher, const unsigned char *header, const unsigned char *sealed, Py_ssize_t size,
                    unsigned char *out) {
    unsigned char nonce[NONCE] = {0}, tag[TAG];
    int written, rest;
    memcpy(nonce + 4, header + 8, 8);
    memcpy(tag, sealed + size, TAG);
    return EVP_DecryptInit_ex(cipher, NULL, NULL, NULL, nonce) == 1 &&
           EVP_DecryptUpdate(cipher, out, &written, sealed, (int)size) == 1 &&
           EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_SET_TAG, TAG, tag) == 1 &&
           EVP_DecryptFinal_ex(cipher, out + written, &rest) == 1;
}

PyDoc_STRVAR(seal_doc,
             "seal(kind, index, counter, buffer, start, end, head_bytes, size, out, room, step) -> int\n\n"
             "Cut the packet in buffer[start:end] as Bulk.segments does, seal each segment, and write the datagrams to\n"
             "out, each at the next multiple of step behind room bytes; return where the last one ends.");

static Py_ssize_t padding_of(Py_ssize_t size) { return (BLOCK - size % BLOCK) % BLOCK; }

static PyObject *sealed(PyObject *object, PyObject *args, int finished) {
    Batch *self = (Batch *)object;
    unsigned kind, index;
    unsigned long long counter;
    Py_buffer source, target;
    Py_ssize_t start, end, head_bytes, size, room, step;
    if (!PyArg_ParseTuple(args, "IIKw*nnnnw*nn", &kind, &index, &counter, &source, &start, &end, &head_bytes, &size,
                          &target, &room, &step))
        return NULL;
    PyObject *result = NULL;
    unsigned char *buffer = source.buf, *out = target.buf, head[HEAD_MAX];
    Py_ssize_t payload_bytes = end - start - head_bytes;
    if (start < 0 || end > source.len || head_bytes < IPV6 + 8 || head_bytes > HEAD_MAX || size <= 0 || size > 0xFFFF ||
        payload_bytes <= 0 || payload_bytes > 0xFFFF || room < 0 ||
        step < room + HEADER + head_bytes + size + (finished ? padding_of(head_bytes + size) : 0) + TAG) {
        PyErr_SetString(PyExc_ValueError, "a packet that cannot be cut so");
        goto done;
    }
    Py_ssize_t count = (payload_bytes + size - 1) / size;
    if (step > target.len || count > target.len / step) {
        PyErr_SetString(PyExc_ValueError, "no room for the datagrams");
        goto done;
    }
    memcpy(head, buffer + start, (size_t)head_bytes);
    int is_tcp = head[6] == PROTOCOL_TCP;
    if (is_tcp ? head_bytes < IPV6 + 20 : head[6] != PROTOCOL_UDP) {
        PyErr_SetString(PyExc_ValueError, "a packet that cannot be cut so");
        goto done;
    }
    unsigned char traffic = head[0] & 0x0F, flags = is_tcp ? head[IPV6 + 13] : 0;
    unsigned sequence = is_tcp ? get32(head + IPV6 + 4) : 0;
    Py_ssize_t first = start + head_bytes, at = room, ended = 0;
    for (Py_ssize_t payload = first; payload < end; payload += size, at += step, counter++) {
        Py_ssize_t until = payload + size;
        if (payload == first || until >= end) {
            if (until > end)
                until = end;
            head[0] = (finished ? FINISHED : UNFINISHED) | traffic;
            measure(head, head_bytes, until - payload);
            if (is_tcp) {
                unsigned char kept = until == end ? flags : (unsigned char)(flags & ~FIN_PSH);
                head[IPV6 + 13] = payload == first ? kept : (unsigned char)(kept & ~CWR);
            }
        } else if (payload == first + size && is_tcp) {
            head[0] = (finished ? FINISHED : CONTINUED) | traffic;
            head[IPV6 + 13] = (unsigned char)(flags & ~(FIN_PSH | CWR));
        }
        if (is_tcp)
            put32(head + IPV6 + 4, sequence + (unsigned)(payload - first));
        unsigned char *packet = buffer + payload - head_bytes;
        Py_ssize_t length = head_bytes + until - payload, padding = finished ? padding_of(length) : 0;
        memcpy(packet, head, (size_t)head_bytes);
        if (finished)
            finish(packet, length);
        put_header(out + at, kind, index, counter);
        if (!seal_one(self->sealer, out + at, packet, length, padding, out + at + HEADER)) {
            PyErr_SetString(PyExc_RuntimeError, "OpenSSL did not seal");
            goto done;
        }
        ended = at + HEADER + length + padding + TAG;
    }
    result = PyLong_FromSsize_t(ended);
done:
    PyBuffer_Release(&source);
    PyBuffer_Release(&target);
    return result;
}

/* Return how many bytes of headers a plaintext has that segments of the same stream may continue; 0: none may. */
static Py_ssize_t continuable(const unsigned char *plain, Py_ssize_t size) {
    if (size <= IPV6 + TCP_MIN || plain[6] != PROTOCOL_TCP || ((Py_ssize_t)plain[4] << 8 | plain[5]) + IPV6 != size ||
        ((plain[0] & 0xF0) != UNFINISHED && (plain[0] & 0xF0) != CONTINUED))
        return 0;
    Py_ssize_t head_bytes = IPV6 + (plain[IPV6 + 12] >> 4) * 4;
    if (head_bytes < IPV6 + TCP_MIN || head_bytes >= size || (plain[IPV6 + 13] & ~(CWR | ACK | ECE)))
        return 0;
    return head_bytes;
}

static PyObject *batch_seal(PyObject *object, PyObject *args) { return sealed(object, args, 0); }

PyDoc_STRVAR(seal_finished_doc, "seal_finished(...) -> int\n\n"
                                "As seal, for stock WireGuard: checksums are done, and zeros added up to a multiple of 16.");

static PyObject *batch_seal_finished(PyObject *object, PyObject *args) { return sealed(object, args, 1); }

/* Return the length of a TCP segment with payload and a right checksum in so many bytes, padding included; 0: no such. */
static Py_ssize_t segment(const unsigned char *packet, Py_ssize_t size) {
    if (size < IPV6 + TCP_MIN || packet[0] >> 4 != FINISHED >> 4 || packet[6] != PROTOCOL_TCP)
        return 0;
    Py_ssize_t rest = (Py_ssize_t)packet[4] << 8 | packet[5], length = IPV6 + rest, head = (packet[52] >> 4) * 4;
    if (head < TCP_MIN || head >= rest || length > size || size >= length + BLOCK)
        return 0;
    unsigned total = sum16(packet + 8, length - 8) + (unsigned)rest + PROTOCOL_TCP; /* Addresses and all behind them. */
    return (total & 0xFFFF) + (total >> 16) == 0xFFFF ? length : 0;
}

/* Return whether one segment continues the stream of another one, of which so many bytes of payload are there. */
static int continues(const unsigned char *first, const unsigned char *next, Py_ssize_t payload) {
    return memcmp(next, first, 4) == 0 && memcmp(next + 6, first + 6, 38) == 0 &&
           get32(next + 44) == (uint32_t)(get32(first + 44) + (uint32_t)payload) &&
           memcmp(next + 48, first + 48, 5) == 0 && (next[53] & ~FIN_PSH) == (first[53] & ~CWR) &&
           memcmp(next + 54, first + 54, 2) == 0 &&
           memcmp(next + 58, first + 58, (size_t)((first[52] >> 4) * 4 - 18)) == 0;
}

PyDoc_STRVAR(follows_doc,
             "follows(data, step, size, count, last) -> int\n\n"
             "Return how many of the packets, step bytes apart, each of size bytes with its padding and the last of count\n"
             "of last, are segments of one TCP stream with right checksums, each continuing the one before it as Joint\n"
             "wants it; 0: the first is none.");

static PyObject *batch_follows(PyObject *type, PyObject *args) {
    Py_buffer source;
    Py_ssize_t step, size, count, last, found = 0;
    (void)type;
    if (!PyArg_ParseTuple(args, "y*nnnn", &source, &step, &size, &count, &last))
        return NULL;
    if (size <= 0 || size > step || last < 0 || last > size || count <= 0 || count > 0xFFFF || last > source.len ||
        count - 1 > (source.len - last) / step) {
        PyBuffer_Release(&source);
        PyErr_SetString(PyExc_ValueError, "packets that cannot stand so");
        return NULL;
    }
    const unsigned char *first = source.buf, *next = first;
    Py_ssize_t length = segment(first, count == 1 ? last : size), payload = 0;
    Py_ssize_t head = length ? IPV6 + (first[52] >> 4) * 4 : 0;
    if (length && first[53] & ~(FIN_PSH | CWR | ACK | ECE))
        length = 0;
    for (Py_ssize_t here = length; here; next += step) {
        payload += here - head;
        found++;
        if (next[53] & FIN_PSH || here < length || found == count)
            break;
        here = segment(next + step, found == count - 1 ? last : size);
        if (here > length || payload + here - head > 0xFFFF - head || !here || !continues(first, next + step, payload))
            break;
    }
    PyBuffer_Release(&source);
    return PyLong_FromSsize_t(found);
}

PyDoc_STRVAR(open_doc,
             "open(kind, index, counter, data, size, head, count, last, out) -> (int, int)\n\n"
             "Open datagrams that stand back to back, size bytes apart, the last of count ending at last, each behind\n"
             "head bytes, as long as their headers have the next counter and they are authentic. Return how many there\n"
             "were, and how many right behind the first one say that they continue it and are as long: of these only\n"
             "the payload is written to out, back to back behind the first plaintext. The other plaintexts are each as\n"
             "far from the beginning of out as its datagram is from that of data.");

static PyObject *batch_open(PyObject *object, PyObject *args) {
    Batch *self = (Batch *)object;
    unsigned kind, index;
    unsigned long long counter;
    Py_buffer source, target;
    Py_ssize_t size, head, count, last, opened = 0, followed = 0;
    if (!PyArg_ParseTuple(args, "IIKy*nnnnw*", &kind, &index, &counter, &source, &size, &head, &count, &last, &target))
        return NULL;
    const unsigned char *data = source.buf;
    unsigned char *out = target.buf, expected[HEADER], kept[HEAD_MAX];
    Py_ssize_t overhead = head + HEADER + TAG;
    if (size <= 0 || head < 0 || count <= 0 || count > 0xFFFF || last > source.len || last <= size * (count - 1) ||
        last > size * count || last - size * (count - 1) < overhead || size < overhead ||
        target.len < last - overhead) {
        PyBuffer_Release(&source);
        PyBuffer_Release(&target);
        PyErr_SetString(PyExc_ValueError, "datagrams that cannot stand so");
        return NULL;
    }
    Py_ssize_t whole = size - overhead, joins = 0, tail = whole;
    for (; opened < count; opened++, counter++) {
        Py_ssize_t at = opened * size, end = opened == count - 1 ? last : at + size, length = end - at - overhead;
        const unsigned char *sealed = data + at + head + HEADER;
        put_header(expected, kind, index, counter);
        if (memcmp(sealed - HEADER, expected, HEADER) != 0)
            break;
        if (joins && length == whole && tail + whole - joins <= 0xFFFF) {
            /* The header goes over the end of the payload before it, which is put back. */
            unsigned char *place = out + tail - joins;
            memcpy(kept, place, (size_t)joins);
            int is_good = open_one(self->opener, expected, sealed, length, place);
            int follows = is_good && (place[0] & 0xF0) == CONTINUED;
            if (is_good && !follows)
                memmove(out + at, place, (size_t)length);
            memcpy(place, kept, (size_t)joins);
            if (!is_good)
                break;
            if (follows) {
                tail += whole - joins;
                followed++;
            } else
                joins = 0;
            continue;
        }
        joins = 0;
        if (!open_one(self->opener, expected, sealed, length, out + at))
            break;
        if (opened == 0 && length == whole)
            joins = continuable(out, length);
    }
    PyBuffer_Release(&source);
    PyBuffer_Release(&target);
    return Py_BuildValue("nn", opened, followed);
}

PyDoc_STRVAR(seal_packet_doc, "seal_packet(kind, index, counter, plaintext) -> bytes\n\n"
                              "Return one plaintext, padded with zeros to a multiple of 16, as a datagram.");

static PyObject *batch_seal_packet(PyObject *object, PyObject *const *args, Py_ssize_t given) {
    char *plain;
    Py_ssize_t size;
    if (!is_called_with(given, 4) || PyBytes_AsStringAndSize(args[3], &plain, &size) < 0)
        return NULL;
    unsigned long kind = PyLong_AsUnsignedLong(args[0]), index = PyLong_AsUnsignedLong(args[1]);
    unsigned long long counter = PyLong_AsUnsignedLongLong(args[2]);
    if (PyErr_Occurred())
        return NULL;
    if (size > PACKET_MAX || kind > UINT32_MAX || index > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "a packet that cannot be sealed so");
        return NULL;
    }
    Py_ssize_t padding = padding_of(size);
    PyObject *sealed = PyBytes_FromStringAndSize(NULL, HEADER + size + padding + TAG);
    if (!sealed)
        return NULL;
    unsigned char *out = (unsigned char *)PyBytes_AsString(sealed);
    put_header(out, (unsigned)kind, (unsigned)index, counter);
    if (seal_one(((Batch *)object)->sealer, out, (unsigned char *)plain, size, padding, out + HEADER))
        return sealed;
    Py_DECREF(sealed);
    PyErr_SetString(PyExc_RuntimeError, "OpenSSL did not seal");
    return NULL;
}

PyDoc_STRVAR(open_packet_doc, "open_packet(datagram) -> bytes | None\n\n"
                              "Return the plaintext of one datagram; None: it is not authentic. Its header is not looked at\n"
                              "but for the counter.");

static PyObject *batch_open_packet(PyObject *object, PyObject *datagram) {
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(datagram, &data, &size) < 0)
        return NULL;
    if (size < HEADER + TAG || size > PACKET_MAX) {
        PyErr_SetString(PyExc_ValueError, "a datagram that cannot be opened");
        return NULL;
    }
    size -= HEADER + TAG;
    PyObject *plain = PyBytes_FromStringAndSize(NULL, size);
    if (!plain)
        return NULL;
    unsigned char *header = (unsigned char *)data;
    if (open_one(((Batch *)object)->opener, header, header + HEADER, size, (unsigned char *)PyBytes_AsString(plain)))
        return plain;
    Py_DECREF(plain);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"seal", batch_seal, METH_VARARGS, seal_doc},
    {"seal_finished", batch_seal_finished, METH_VARARGS, seal_finished_doc},
    {"follows", batch_follows, METH_VARARGS | METH_STATIC, follows_doc},
    {"open", batch_open, METH_VARARGS, open_doc},
    {"seal_packet", (PyCFunction)(void (*)(void))batch_seal_packet, METH_FASTCALL, seal_packet_doc},
    {"open_packet", batch_open_packet, METH_O, open_packet_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, batch_new},
    {Py_tp_dealloc, batch_free},
    {Py_tp_methods, methods},
    {Py_tp_doc, "Batch(key, aes)\n\nOne direction's key: AES-256-GCM, or else ChaCha20-Poly1305."},
    {0, NULL},
};

static PyType_Spec spec = {"atoll_fast.Batch", sizeof(Batch), 0, Py_TPFLAGS_DEFAULT, slots};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "atoll_fast", "Packets by the dozen.", -1, turn_functions,
                             NULL, NULL, NULL, NULL};

static int add(PyObject *made, const char *name, PyType_Spec *from) {
    PyObject *type = PyType_FromSpec(from);
    int added = type && PyModule_AddObjectRef(made, name, type) == 0;
    Py_XDECREF(type);
    return added;
}

PyMODINIT_FUNC PyInit_atoll_fast(void) {
    PyObject *made = PyModule_Create(&module);
    if (made && add(made, "Batch", &spec) && add(made, "Label", &label_spec) && add(made, "Port", &port_spec) &&
        PyModule_AddFunctions(made, ring_functions) == 0 && PyModule_AddIntConstant(made, "FORM", FORM) == 0)
        return made;
    Py_XDECREF(made);
    return NULL;
}
