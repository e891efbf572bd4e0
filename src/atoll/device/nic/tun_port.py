# SPDX-License-Identifier: Apache-2.0
"""The open TUN device of the live process: reads what the kernel sends, writes what it is given.

Decides nothing but what is well-formed: the kernel is trusted, but some of what it hands over came from programs.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, final

from atoll.base.errors import LinkError, WireError
from atoll.device.nic.counters import Counters
from atoll.device.nic.segments import (
    FLAG_NEEDS_SUM,
    HEADER,
    HEADER_BYTES,
    IPV6_BYTES,
    PACKET_BYTES_MAX,
    SUM_AT,
    Bulk,
    bulk_of,
    is_finishable,
)
from atoll.host.udp import error_name

__all__ = ["TunPort"]

_PLAIN: Final = bytes(HEADER_BYTES)  # One packet, checksum done.


@final
class TunPort:
    """One TUN device.

    Args:
        fd: Open, with virtio headers in little-endian order; owned from now on.
        counters: What is malformed or does not fit is counted here.
    """

    __slots__ = ("_buffer", "_counters", "_fd")

    def __init__(self, fd: int, counters: Counters) -> None:
        os.set_blocking(fd, False)
        self._fd, self._counters = fd, counters
        self._buffer: Final = bytearray(HEADER_BYTES + PACKET_BYTES_MAX)

    def fileno(self) -> int:
        """Return the file descriptor, for a selector."""
        return self._fd

    def packets(self, reads: int) -> Iterator[Bulk | tuple[bytes, bool]]:
        """Yield what the kernel has for us now, at most so many reads of it.

        Either a large packet, good until the next one is asked for, or (packet, whether its checksum is undone).

        Raises:
            LinkError: The device is gone; the text is the name of the operating system's error.
        """
        buffer = self._buffer
        for _ in range(reads):
            try:
                end = os.readv(self._fd, (buffer,))
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                raise LinkError(error_name(error)) from error
            try:
                yield self._sorted(end)
            except WireError:
                self._counters.drop("tun-malformed")

    def _sorted(self, end: int) -> Bulk | tuple[bytes, bool]:
        buffer = self._buffer
        if end < HEADER_BYTES + IPV6_BYTES:
            raise WireError("packet length")
        header = HEADER.unpack_from(buffer)
        bulk = bulk_of(header, buffer, HEADER_BYTES, end)
        if bulk is not None:
            return bulk
        packet = bytes(buffer[HEADER_BYTES:end])
        return packet, bool(header[0] & FLAG_NEEDS_SUM) and self._is_usual(packet, header[4], header[5])

    def _is_usual(self, packet: bytes, start: int, offset: int) -> bool:
        """Return whether an undone checksum stands where ``finished`` will look for it; nothing else is passed on."""
        if start == IPV6_BYTES and offset == SUM_AT.get(packet[6]) and is_finishable(packet):
            return True
        raise WireError("checksum place")

    def write(self, packets: Sequence[bytes | list[bytes | memoryview]]) -> None:
        """Hand to the kernel what ``Inlet.outbox`` holds; what it does not take is counted.

        Raises:
            LinkError: As ``packets``.
        """
        for packet in packets:
            try:
                os.writev(self._fd, packet if isinstance(packet, list) else (_PLAIN, packet))
            except (BlockingIOError, InterruptedError):
                self._counters.drop("tun-full")
            except OSError as error:
                name = error_name(error)
                if name in _GONE:
                    raise LinkError(name) from error
                self._counters.drop("tun-malformed")

    def close(self) -> None:
        """Close our file of it."""
        with suppress(OSError):
            os.close(self._fd)


_GONE: Final = frozenset({"EBADFD", "EBADF", "ENODEV", "EIO"})  # EIO: it was brought down, or taken away.
