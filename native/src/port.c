/* SPDX-License-Identifier: Apache-2.0 */
/* One packet in or out of the process, by a UDP socket or a TUN device that does not block.
 *
 * It does what UdpSocket.send and .receive_burst, and TunPort.read and .write of one packet do in Python by way of the socket
 * and os modules, with the same result. These translate addresses to text and back, and let other threads run, each time;
 * here the newest address is kept in both forms, and there are no other threads.
 */

#include "atoll_fast.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef UDP_GRO
#define UDP_GRO 104 /* Linux's udp(7). */
#endif

enum { SHORT = 2048 };    /* Bytes that are cheaper to copy than to look at where they are. */
enum { TUN_HEADER = 10 }; /* struct virtio_net_hdr; all zeros: one packet, its checksum done. */

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} Address;

/* An address, and the same as text and number. */
typedef struct {
    Address address;
    socklen_t length; /* 0: none yet. */
    PyObject *host;
    long port;
} Place;

typedef struct {
    PyObject_HEAD
    int fd;
    Place target, source;
} Port;

static PyObject *port_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    int fd;
    (void)keywords;
    if (!PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Port *self = (Port *)allocate(type, 0);
    if (self)
        self->fd = fd;
    return (PyObject *)self;
}

static void port_free(PyObject *object) {
    Port *self = (Port *)object;
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(self->target.host);
    Py_XDECREF(self->source.host);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* Keep a place as the newest. */
static void keep(Place *place, const Address *address, socklen_t length, PyObject *host, long port) {
    PyObject *before = place->host;
    Py_INCREF(host);
    *place = (Place){*address, length, host, port};
    Py_XDECREF(before);
}

/* Make an address of a numeric host; 0: it is none that can be told without a resolver. */
static int addressed(Place *place, PyObject *host, long port) {
    Address made;
    socklen_t length = 0;
    PyObject *text = PyUnicode_AsUTF8String(host);
    char *name;
    if (!text || PyBytes_AsStringAndSize(text, &name, NULL) < 0) { /* A zero byte in it is an error, too. */
        Py_XDECREF(text);
        return 0;
    }
    memset(&made, 0, sizeof made);
    if (inet_pton(AF_INET, name, &made.v4.sin_addr) == 1) {
        made.v4.sin_family = AF_INET;
        made.v4.sin_port = htons((uint16_t)port);
        length = sizeof made.v4;
    } else if (inet_pton(AF_INET6, name, &made.v6.sin6_addr) == 1) {
        made.v6.sin6_family = AF_INET6;
        made.v6.sin6_port = htons((uint16_t)port);
        length = sizeof made.v6;
    }
    Py_DECREF(text);
    if (length)
        keep(place, &made, length, host, port);
    return length != 0;
}

PyDoc_STRVAR(send_doc, "send(host, port, data) -> int\n\n"
                       "Send one datagram; return 0, or the number of the operating system's error. EDESTADDRREQ, which\n"
                       "cannot come of a call with an address: the host is not plainly numeric, and nothing was tried.");

static PyObject *port_send(PyObject *object, PyObject *const *args, Py_ssize_t given) {
    Port *self = (Port *)object;
    Place *target = &self->target;
    Py_buffer data;
    if (!is_called_with(given, 3))
        return NULL;
    long port = PyLong_AsLong(args[1]);
    if (port == -1 && PyErr_Occurred())
        return NULL;
    if (port < 0 || port > UINT16_MAX || !PyUnicode_Check(args[0])) {
        PyErr_SetString(PyExc_ValueError, "an endpoint that cannot be");
        return NULL;
    }
    if ((args[0] != target->host || port != target->port) && !addressed(target, args[0], port))
        return PyErr_Occurred() ? NULL : PyLong_FromLong(EDESTADDRREQ);
    if (PyObject_GetBuffer(args[2], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    ssize_t sent = sendto(self->fd, data.buf, (size_t)data.len, MSG_DONTWAIT, &target->address.any, target->length);
    int error = sent < 0 ? errno : 0;
    PyBuffer_Release(&data);
    return PyLong_FromLong(error);
}

/* Take over where a datagram came from, unless it is where the one before it came from. */
static int sourced(Place *place, const Address *address, socklen_t length) {
    char text[INET6_ADDRSTRLEN];
    int is_v4 = address->any.sa_family == AF_INET;
    if (length == place->length && (is_v4 ? address->v4.sin_port == place->address.v4.sin_port &&
                                                address->v4.sin_addr.s_addr == place->address.v4.sin_addr.s_addr
                                          : memcmp(address, &place->address, length) == 0))
        return 1;
    if (!inet_ntop(address->any.sa_family, is_v4 ? (void *)&address->v4.sin_addr : (void *)&address->v6.sin6_addr, text,
                   sizeof text)) {
        PyErr_SetFromErrno(PyExc_OSError);
        return 0;
    }
    PyObject *host = PyUnicode_FromString(text);
    if (!host)
        return 0;
    keep(place, address, length, host, ntohs(is_v4 ? address->v4.sin_port : address->v6.sin6_port));
    Py_DECREF(host);
    return 1;
}

/* Read what came from one source into a buffer, and take over the source; return how many bytes, and the length of each
 * datagram but the last; -1: there is nothing, or there is an exception. */
static ssize_t received(Port *self, Py_buffer *into, int *size) {
    Address address;
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {into->buf, (size_t)into->len};
    struct msghdr message = {.msg_name = &address,
                             .msg_namelen = sizeof address,
                             .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t read = recvmsg(self->fd, &message, MSG_DONTWAIT);
    if (read < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    *size = read ? (int)read : 1;
    for (struct cmsghdr *one = CMSG_FIRSTHDR(&message); one; one = CMSG_NXTHDR(&message, one)) {
        int told;
        if (one->cmsg_type == UDP_GRO && one->cmsg_len == CMSG_LEN(sizeof told)) {
            memcpy(&told, CMSG_DATA(one), sizeof told);
            if (told > 0)
                *size = told;
        }
    }
    return sourced(&self->source, &address, message.msg_namelen) ? read : -1;
}

/* Read, and return it in Python's terms. */
static PyObject *told(Port *self, PyObject *buffer, int wants_lone) {
    Py_buffer into;
    int size = 0;
    if (PyObject_GetBuffer(buffer, &into, PyBUF_WRITABLE) < 0)
        return NULL;
    ssize_t read = received(self, &into, &size);
    PyObject *found = read < 0 ? NULL : PyTuple_New(4);
    if (found) {
        int is_lone = wants_lone && read <= size;
        PyTuple_SetItem(found, 0, is_lone ? PyBytes_FromStringAndSize(into.buf, read) : PyLong_FromSsize_t(read));
        PyTuple_SetItem(found, 1, PyLong_FromLong(size));
        Py_INCREF(self->source.host);
        PyTuple_SetItem(found, 2, self->source.host);
        PyTuple_SetItem(found, 3, PyLong_FromLong(self->source.port));
    }
    PyBuffer_Release(&into);
    if (!found && !PyErr_Occurred())
        Py_RETURN_NONE;
    return found;
}

PyDoc_STRVAR(receive_doc, "receive(buffer) -> (int, int, str, int) | None\n\n"
                          "Read what came from one source; return how many bytes, the length of each datagram but the last,\n"
                          "host and port; None: there is nothing.");

static PyObject *port_receive(PyObject *object, PyObject *buffer) {
    return told((Port *)object, buffer, 0);
}

PyDoc_STRVAR(receive_first_doc, "receive_first(buffer) -> (int | bytes, int, str, int) | None\n\n"
                                "As receive, but one datagram that came alone is returned instead of how long it is.");

static PyObject *port_receive_first(PyObject *object, PyObject *buffer) {
    return told((Port *)object, buffer, 1);
}

PyDoc_STRVAR(read_doc, "read(buffer) -> int | bytes\n\n"
                       "Read once; return how many bytes, or what was read, too, if it is short; or the number of the error,\n"
                       "negative.");

static PyObject *port_read(PyObject *object, PyObject *buffer) {
    Py_buffer into;
    if (PyObject_GetBuffer(buffer, &into, PyBUF_WRITABLE) < 0)
        return NULL;
    ssize_t got = read(((Port *)object)->fd, into.buf, (size_t)into.len);
    if (got < 0)
        got = -errno;
    PyObject *found = got < 0 || got > SHORT ? PyLong_FromSsize_t(got) : PyBytes_FromStringAndSize(into.buf, got);
    PyBuffer_Release(&into);
    return found;
}

PyDoc_STRVAR(write_doc, "write(packet) -> int\n\n"
                        "Write one packet, whose checksum is done, to a TUN device; return 0, or the number of the error.");

static PyObject *port_write(PyObject *object, PyObject *packet) {
    static char plain[TUN_HEADER];
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(packet, &bytes, &size) < 0)
        return NULL;
    struct iovec parts[2] = {{plain, sizeof plain}, {bytes, (size_t)size}};
    return PyLong_FromLong(writev(((Port *)object)->fd, parts, 2) < 0 ? errno : 0);
}

static PyMethodDef methods[] = {
    {"send", (PyCFunction)(void (*)(void))port_send, METH_FASTCALL, send_doc},
    {"receive", port_receive, METH_O, receive_doc},
    {"receive_first", port_receive_first, METH_O, receive_first_doc},
    {"read", port_read, METH_O, read_doc},
    {"write", port_write, METH_O, write_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, port_new},
    {Py_tp_dealloc, port_free},
    {Py_tp_methods, methods},
    {Py_tp_doc, "Port(fd)\n\nA UDP socket or a TUN device, which stays its owner's."},
    {0, NULL},
};

PyType_Spec port_spec = {"atoll_fast.Port", sizeof(Port), 0, Py_TPFLAGS_DEFAULT, slots};
