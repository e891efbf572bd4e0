# SPDX-License-Identifier: Apache-2.0
"""The open TUN device of the live process: reads what the kernel sends, writes what it is given.

Decides nothing but what is well-formed: the kernel is trusted, but some of what it hands over came from programs.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, final

from atoll.base.errors import LinkError, WireError
from atoll.device.nic.counters import Counters
from atoll.device.nic.held import Lone
from atoll.device.nic.segments import (
    FLAG_NEEDS_SUM,
    HEADER,
    HEADER_BYTES,
    IPV6_BYTES,
    KIND_AT,
    KIND_NONE,
    PACKET_BYTES_MAX,
    SUM_AT,
    Bulk,
    apart,
    bulk_of,
    is_finishable,
)
from atoll.host.port import port_of
from atoll.host.udp import error_name

__all__ = ["TunPort"]

_PLAIN: Final = bytes(HEADER_BYTES)  # One packet, checksum done.


@final
class TunPort:
    """One TUN device.

    Args:
        fd: Open, with virtio headers in little-endian order; owned from now on.
        counters: What is malformed or does not fit is counted here.
        compiled: Whether packets take the compiled way, if there is one.
        whole: Whether every packet is finished here, because what is left to the kernel goes wrong.
    """

    __slots__ = ("_buffer", "_buffers", "_counters", "_fd", "_port", "_whole")

    def __init__(self, fd: int, counters: Counters, *, compiled: bool = False, whole: bool = False) -> None:
        os.set_blocking(fd, False)
        self._fd, self._counters, self._whole = fd, counters, whole
        self._buffer: Final = bytearray(HEADER_BYTES + PACKET_BYTES_MAX)
        self._buffers: Final = (self._buffer,)
        self._port: Final = port_of(fd) if compiled else None

    def fileno(self) -> int:
        """Return the file descriptor, for a selector."""
        return self._fd

    def read(self) -> Bulk | Lone | None:
        """Return the next packet of the kernel; None: there is none now. A large one is good until the next read.

        Raises:
            WireError: It is malformed; the next one may be read.
            LinkError: The device is gone; the text is the name of the operating system's error.
        """
        buffer = self._buffer
        try:
            found = os.readv(self._fd, self._buffers) if self._port is None else self._port.read(buffer)
            if not isinstance(found, bytes) and found < 0:
                raise OSError(-found, "TUN")
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise LinkError(error_name(error)) from error
        end = len(found) if isinstance(found, bytes) else found
        if end < HEADER_BYTES + IPV6_BYTES:
            raise WireError("packet length")
        head = found if isinstance(found, bytes) else bytes(buffer[:HEADER_BYTES])
        if head[KIND_AT] != KIND_NONE:
            bulk = bulk_of(HEADER.unpack_from(buffer), buffer, HEADER_BYTES, end)
            if bulk is not None:
                return bulk
        packet = found[HEADER_BYTES:] if isinstance(found, bytes) else bytes(buffer[HEADER_BYTES:end])
        return packet, bool(head[0] & FLAG_NEEDS_SUM) and self._is_usual(packet)

    def _is_usual(self, packet: bytes) -> bool:
        """Return whether an undone checksum stands where ``finished`` will look for it; nothing else is passed on."""
        _, _, _, _, start, offset = HEADER.unpack_from(self._buffer)
        if start == IPV6_BYTES and offset == SUM_AT.get(packet[6]) and is_finishable(packet):
            return True
        raise WireError("checksum place")

    def write(self, packets: Sequence[bytes | list[bytes | memoryview]]) -> None:
        """Hand to the kernel what ``Inlet.outbox`` holds; what it does not take is counted.

        Raises:
            LinkError: As ``packets``.
        """
        for packet in self._apart(packets) if self._whole else packets:
            try:
                if isinstance(packet, list):
                    os.writev(self._fd, packet)
                elif self._port is None:
                    os.writev(self._fd, (_PLAIN, packet))
                elif (failed := self._port.write(packet)) != 0:
                    raise OSError(failed, "TUN")
            except (BlockingIOError, InterruptedError):
                self._counters.drop("tun-full")
            except OSError as error:
                name = error_name(error)
                if name in _GONE:
                    raise LinkError(name) from error
                self._counters.drop("tun-malformed")

    def _apart(self, packets: Sequence[bytes | list[bytes | memoryview]]) -> list[bytes]:
        """Return the same packets, each by itself and finished."""
        whole: list[bytes] = []
        for packet in packets:
            if isinstance(packet, bytes):
                whole.append(packet)
                continue
            try:
                whole.extend(apart(packet))
            except WireError:
                self._counters.drop("tun-malformed")
        return whole

    def close(self) -> None:
        """Close our file of it."""
        with suppress(OSError):
            os.close(self._fd)


_GONE: Final = frozenset({"EBADFD", "EBADF", "ENODEV", "EIO"})  # EIO: it was brought down, or taken away.
