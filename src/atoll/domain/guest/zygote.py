# SPDX-License-Identifier: Apache-2.0
"""The process that guests are forked from: started once, with everything imported that a guest needs.

It has one thread and does what the server says over one socket: fork a guest with the memory that comes along, and
bury a dead one. When the server is gone it ends, and the kernel ends its guests with it. No code of an application
is ever in it.
"""

import logging
import os
import socket
import sys
from contextlib import suppress
from importlib import import_module
from typing import Final

import msgspec

from atoll.base.errors import LinkError
from atoll.core.machine import Tuple
from atoll.domain import guard
from atoll.domain.guest.clock import Clock
from atoll.domain.guest.confine import Confinement, readable
from atoll.domain.guest.process import run_guest
from atoll.domain.guest.vdso import stop_clock
from atoll.env.app import App, program_of
from atoll.host.heap import freeze_heap

__all__ = ["MESSAGE_BYTES_MAX", "Bury", "Done", "Fork", "Order", "decode_done", "decode_order", "encode_order", "main"]

log: Final = logging.getLogger("atoll.envs")

MESSAGE_BYTES_MAX: Final = 64  # Limit. An order and its answer are a few bytes.
EXIT_NO_WALLS: Final = 3

_IMPORTED_AHEAD: Final = (
    *("_strptime", "abc", "array", "asyncio", "base64", "binascii", "bisect", "calendar", "cmath", "collections.abc"),
    *("colorsys", "contextlib", "copy", "csv", "dataclasses", "datetime", "decimal", "difflib", "email.utils", "enum"),
    *("fractions", "functools", "graphlib", "hashlib", "heapq", "hmac", "html", "html.parser", "io", "ipaddress"),
    *("itertools", "json", "math", "numbers", "operator", "pprint", "queue", "random", "re", "secrets", "shlex"),
    *("statistics", "string", "struct", "textwrap", "tomllib", "traceback", "types", "typing", "unicodedata"),
    *("urllib.parse", "uuid", "warnings", "weakref", "xml.etree.ElementTree", "zlib", "zoneinfo"),
    *("encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.utf_16", "encodings.cp1252"),
)
"""What handlers import now and then where they need it, which a confined process cannot any more."""


class _Warm(App):
    """An application without anything."""


class Fork(Tuple, frozen=True, tag=1):
    """Make a guest; two descriptors come along: the memory and the bell. The answer is a pid, and a pidfd with it.

    Attributes:
        number: Of the order; from 1, never used twice.
    """

    number: int


class Bury(Tuple, frozen=True, tag=2):
    """Wait for a guest that was killed or is dead; the answer is its status as of ``os.waitpid``.

    Attributes:
        number: As above.
        pid: Of the guest.
    """

    number: int
    pid: int


class Done(msgspec.Struct, frozen=True, array_like=True):
    """The answer to an order. Who has given up waiting for one knows by the number that it is not that of the next.

    Attributes:
        number: Of the order; 0: the zygote is ready.
        value: As above.
    """

    number: int
    value: int = 0


Order = Fork | Bury

encode_order: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(Order)
decode_done: Final = msgspec.msgpack.Decoder(Done).decode


def decode_order(data: bytes) -> Order:
    """Return an order of the server's."""
    order: Order = _decoder.decode(data)
    return order


def main() -> int:
    """Serve the socket that is standard input until the server is gone; return the exit status."""
    for name in _IMPORTED_AHEAD:
        with suppress(ImportError):  # Not every Python has all of them.
            import_module(name)
    sys.dont_write_bytecode = True
    clock = Clock()
    try:
        confinement = Confinement(readable())
    except LinkError as error:
        log.error("no guests: %s", error)  # noqa: TRY400 - the sentence is the message.
        return EXIT_NO_WALLS
    connection = socket.socket(fileno=os.dup(0))
    program_of(_Warm)  # The types that all programs know are looked at once: 6 ms that no guest spends again.
    stop_clock()
    clock.install()
    guard.install()
    freeze_heap()
    connection.send(encode_order(Done(0)))
    while True:
        data, files, _, _ = socket.recv_fds(connection, MESSAGE_BYTES_MAX, 2)
        if not data:
            return 0
        match decode_order(data):
            case Fork(number):
                pid = os.fork()
                if not pid:
                    run_guest(files[0], files[1], confinement, clock)
                with_it = os.pidfd_open(pid)
                socket.send_fds(connection, [encode_order(Done(number, pid))], [with_it])
                for file in (*files, with_it):
                    os.close(file)
            case Bury(number, pid):
                _, status = os.waitpid(pid, 0)
                connection.send(encode_order(Done(number, status)))
