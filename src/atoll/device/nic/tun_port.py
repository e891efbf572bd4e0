# SPDX-License-Identifier: Apache-2.0
"""The open TUN device of the live process: reads what the kernel sends, writes what it is given.

Decides what to do with a large packet: it is cut, and each segment's checksum is done.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, final

from atoll.base.errors import LinkError, WireError
from atoll.device.nic.counters import Counters
from atoll.device.nic.limits import TUN_READS_PER_TURN_MAX
from atoll.device.nic.segments import (
    FLAG_NEEDS_SUM,
    HEADER,
    HEADER_BYTES,
    IPV6_BYTES,
    PACKET_BYTES_MAX,
    SUM_AT,
    bulk_of,
    finish,
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

    def packets(self) -> Iterator[bytes]:
        """Yield what the kernel has for us now, at most TUN_READS_PER_TURN_MAX reads of it, checksums done.

        Raises:
            LinkError: The device is gone; the text is the name of the operating system's error.
        """
        buffer = self._buffer
        for _ in range(TUN_READS_PER_TURN_MAX):
            try:
                end = os.readv(self._fd, (buffer,))
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                raise LinkError(error_name(error)) from error
            if end <= HEADER_BYTES:
                self._counters.drop("tun-malformed")
                continue
            try:
                yield from self._cut(end)
            except WireError:
                self._counters.drop("tun-malformed")

    def _cut(self, end: int) -> Iterator[bytes]:
        buffer = self._buffer
        header = HEADER.unpack_from(buffer)
        bulk = bulk_of(header, buffer, HEADER_BYTES, end)
        if bulk is None:
            packet = buffer[HEADER_BYTES:end]
            if header[0] & FLAG_NEEDS_SUM:
                finish(packet, header[4], header[5])
            yield bytes(packet)
            return
        offset = SUM_AT[buffer[HEADER_BYTES + 6]]
        for start, until in bulk.segments():
            packet = buffer[start:until]
            finish(packet, IPV6_BYTES, offset)
            yield bytes(packet)

    def write(self, packets: Sequence[bytes]) -> None:
        """Hand packets to the kernel; those that it does not take are counted.

        Raises:
            LinkError: As ``packets``.
        """
        for packet in packets:
            try:
                os.writev(self._fd, (_PLAIN, packet))
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
