# SPDX-License-Identifier: Apache-2.0
"""Whether the kernel tells the truth about large packets: one short TCP connection over a TUN device of its own.

An offload that is there and lies would lose or spoil every large packet, and nothing else would show it. So before a
device is served, a socket of the kernel's connects over it to an address at which nobody is; this end answers, in the
way in which the device is served later, and each sends the other more than one packet takes.

Source: RFC 9293, 3.5 (the handshake), 3.7.1 (MSS); struct virtio_net_hdr, Virtual I/O Device 1.2, 5.1.6.
"""

import hashlib
import os
import select
import socket
import time
from contextlib import suppress
from struct import Struct
from typing import Final, final

from atoll.base.errors import LinkError, WireError
from atoll.device.nic.counters import Counters
from atoll.device.nic.segments import (
    IPV6_BYTES,
    PROTOCOL_TCP,
    Bulk,
    Joint,
    finished,
    head_bytes_of,
    is_right,
    measure,
)
from atoll.device.nic.tun_port import TunPort

__all__ = ["large_packets_pass"]

TRIAL_S_MAX: Final = 0.5  # A kernel that tells the truth needs 1 ms.
READS_MAX: Final = 4096  # Programs may send at once as an interface comes up; beyond it nothing is known.

_PORT: Final = 9  # Discard (RFC 863).
_SEGMENT_BYTES: Final = 1000
_DATA: Final = hashlib.shake_128(b"large packets pass").digest(8 * _SEGMENT_BYTES)  # Within the first window.
_FIRST: Final = 0x7FFF_F000  # Sequence number; the data crosses the sign.
_WINDOW: Final = 0xFFFF
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_MSS: Final = b"\x02\x04" + _SEGMENT_BYTES.to_bytes(2)
_IPV6: Final = Struct(">IHBB16s16s")  # Version, payload length, next header, hop limit, source, destination.
_TCP: Final = Struct(">HHIIBBHHH")  # Ports, sequence, acknowledged, header length, flags, window, checksum, urgent.


def large_packets_pass(fd: int, program: socket.socket, address: bytes) -> bool:
    """Return whether what the kernel left undone, and what is left to it, arrives as it was sent.

    True, too, where it cannot be tried (a firewall forbids the connection): nothing is known against the kernel then.

    Args:
        fd: Of a TUN device with virtio headers, up, that nobody serves; stays open.
        program: A TCP socket of the device's network, neither bound nor connected; is closed.
        address: Of the device, 16 bytes; another one of its prefix is taken for the far end's.
    """
    tun = TunPort(os.dup(fd), Counters())
    try:
        with program:
            return _Trial(tun, program, address).passed()
    finally:
        tun.close()


@final
class _Trial:
    """The far end of the connection."""

    def __init__(self, tun: TunPort, program: socket.socket, address: bytes) -> None:
        self._tun, self._program, self._own = tun, program, address
        self._far: Final = address[:-1] + bytes((address[-1] ^ 1,))
        self._ends: Final = time.monotonic() + TRIAL_S_MAX
        self._reads = 0
        self._port = self._acknowledged = 0
        self._is_spoiled = False

    def passed(self) -> bool:
        program = self._program
        program.settimeout(0)
        try:
            program.bind((socket.inet_ntop(socket.AF_INET6, self._own), 0))
            self._port = program.getsockname()[1]
            program.connect_ex((socket.inet_ntop(socket.AF_INET6, self._far), _PORT))
            if not self._answered():
                return not self._is_spoiled
            program.send(_DATA)
            if not self._hears_all():
                return self._reads == READS_MAX
            self._say_all()
            return self._was_heard()
        except (OSError, LinkError):  # The device is gone, or taken over: whoever serves it next finds out.
            return True
        finally:
            with suppress(LinkError):
                self._tun.write([finished(self._segment(_RST | _ACK, _FIRST + 1))])

    def _answered(self) -> bool:
        """Wait for the call and answer it; False: none came."""
        while (packet := self._heard()) is not None:
            flags, sequence, _ = packet
            if flags & _SYN:
                self._acknowledged = sequence + 1
                self._tun.write([finished(self._segment(_SYN | _ACK, _FIRST, options=_MSS))])
            elif flags & _ACK:
                return True
        return False

    def _hears_all(self) -> bool:
        """Return whether the data comes, whole and right."""
        came = bytearray(len(_DATA))
        missing, begin = set(range(len(_DATA))), self._acknowledged
        while missing:
            if (packet := self._heard()) is None:
                return False
            _, sequence, payload = packet
            at = sequence - begin & 0xFFFF_FFFF
            if payload and at + len(payload) <= len(_DATA):
                came[at : at + len(payload)] = payload
                missing.difference_update(range(at, at + len(payload)))
        self._acknowledged += len(_DATA)
        return bytes(came) == _DATA

    def _say_all(self) -> None:
        """Send the same data, to be cut by the kernel."""
        joint = Joint()
        for at in range(0, len(_DATA), _SEGMENT_BYTES):
            joint.add(memoryview(self._segment(_ACK, _FIRST + 1 + at, _DATA[at : at + _SEGMENT_BYTES])))
        self._tun.write([joint.take()])

    def _was_heard(self) -> bool:
        came = b""
        while len(came) < len(_DATA) and self._waits_for(self._program):
            came += self._program.recv(len(_DATA))
        return came == _DATA

    def _heard(self) -> tuple[int, int, bytes] | None:
        """Return flags, first sequence number and payload of the next packet of the connection; None: too late."""
        while self._reads < READS_MAX:
            self._reads += 1
            try:
                item = self._tun.read()
            except WireError:
                continue
            if item is None:
                if not self._waits_for(self._tun):
                    return None
            elif (found := self._joined(item) if isinstance(item, Bulk) else self._parsed(*item)) is not None:
                return found
        return None

    def _waits_for(self, what: TunPort | socket.socket) -> bool:
        left = self._ends - time.monotonic()  # Looks once more when it is over: this process may have had no turn.
        return bool(select.select((what,), (), (), max(0.0, left))[0])

    def _joined(self, bulk: Bulk) -> tuple[int, int, bytes] | None:
        cut = [self._parsed(bytes(bulk.buffer[at:until]), undone=True) for at, until in bulk.segments()]
        found = [one for one in cut if one is not None]
        if len(found) != len(cut) or not found:
            return None
        flags, sequence, _ = found[0]
        return flags, sequence, b"".join(payload for _, _, payload in found)

    def _parsed(self, packet: bytes, undone: bool) -> tuple[int, int, bytes] | None:  # noqa: FBT001 - as it is read.
        if len(packet) < IPV6_BYTES + _TCP.size or packet[6] != PROTOCOL_TCP:
            return None
        if undone:
            packet = finished(packet)
        source, _, sequence, _, _, flags, _, _, _ = _TCP.unpack_from(packet, IPV6_BYTES)
        if source != self._port or packet[24:IPV6_BYTES] != self._far:
            return None
        if not is_right(packet):
            self._is_spoiled = True
            return None
        return flags, sequence, packet[head_bytes_of(packet) :]

    def _segment(self, flags: int, sequence: int, payload: bytes = b"", options: bytes = b"") -> bytes:
        """Return a packet to the program whose checksum is undone."""
        length = _TCP.size + len(options)
        head = bytearray(_IPV6.pack(6 << 28, 0, PROTOCOL_TCP, 64, self._far, self._own))
        acknowledged = self._acknowledged & 0xFFFF_FFFF
        head += _TCP.pack(_PORT, self._port, sequence, acknowledged, length << 2, flags, _WINDOW, 0, 0) + options
        measure(head, len(payload))
        return bytes(head) + payload
