# SPDX-License-Identifier: Apache-2.0
"""Whether the kernel tells the truth about large packets: one short TCP connection over a TUN device of its own.

An offload that is there and lies would lose or spoil every large packet, and nothing else would show it. So before a
device is served, a socket of the kernel's connects over it to an address at which nobody is; this end answers, in the
way in which the device is served later, and each sends the other more than one packet takes. Only TCP is tried, and the
checksums with it: UDP datagrams that the kernel leaves to be cut are rare.

Source: RFC 9293, 3.5 (the handshake), 3.7.1 (MSS); struct virtio_net_hdr, Virtual I/O Device 1.2, 5.1.6.
"""

import hashlib
import os
import select
import socket
import time
from collections.abc import Callable
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
from atoll.host.udp import error_name

__all__ = ["large_packets_pass"]

TRIALS_MAX: Final = 3  # Programs that send as the interface comes up may fill its queue: one that passes is enough.
CALL_S_MAX: Final = 0.05  # The kernel calls at once, or a firewall forbids it.
TRIAL_S_MAX: Final = 0.3  # A kernel that tells the truth needs 1 ms; it sends again what got lost after 0.2 s.
READS_MAX: Final = 4096  # In one trial; beyond it nothing is known.

_PORT: Final = 9  # Discard (RFC 863).
_SEGMENT_BYTES: Final = 1000
_DATA: Final = hashlib.shake_128(b"large packets pass").digest(8 * _SEGMENT_BYTES)  # Within the first window.
_FIRST: Final = 0x7FFF_F000  # Sequence number; the data crosses the sign.
_WINDOW: Final = 0xFFFF
_SYN, _ACK = 0x02, 0x10
_LINGER: Final = Struct("ii")  # struct linger of socket(7).
_MSS: Final = b"\x02\x04" + _SEGMENT_BYTES.to_bytes(2)
_IPV6: Final = Struct(">IHBB16s16s")  # Version, payload length, next header, hop limit, source, destination.
_TCP: Final = Struct(">HHIIBBHHH")  # Ports, sequence, acknowledged, header length, flags, window, checksum, urgent.


def large_packets_pass(fd: int, program: Callable[[], socket.socket], address: bytes) -> bool:
    """Return whether what the kernel left undone, and what is left to it, arrives as it was sent.

    True, too, where it cannot be tried (a firewall forbids the connection): nothing is known against the kernel then.
    Blocks for a millisecond; in the worst case for TRIALS_MAX times CALL_S_MAX and TRIAL_S_MAX.

    Args:
        fd: Of a TUN device with virtio headers, up, that nobody serves; stays open.
        program: Makes a TCP socket of the device's network, neither bound nor connected; it is closed.
        address: Of the device, 16 bytes; another one of its prefix is taken for the far end's.

    Raises:
        LinkError: No file is left; the text is the name of the operating system's error. And what ``program`` raises.
    """
    try:
        tun = TunPort(os.dup(fd), Counters())
    except OSError as error:
        raise LinkError(error_name(error)) from error
    try:
        failed = False
        for _ in range(TRIALS_MAX):
            passed = _Trial(tun, program(), address).passed()
            if passed:
                return True
            failed = failed or passed is False
        return not failed
    finally:
        tun.close()


@final
class _Trial:
    """The far end of one connection.

    Args:
        tun: The device.
        program: The kernel's end, not bound yet; closed at the end.
        address: The kernel's.
    """

    def __init__(self, tun: TunPort, program: socket.socket, address: bytes) -> None:
        self._tun, self._program, self._own = tun, program, address
        self._far: Final = address[:-1] + bytes((address[-1] ^ 1,))
        self._ends_s = time.monotonic() + CALL_S_MAX
        self._reads = self._port = 0
        self._next, self._acknowledged = _FIRST, 0  # Sequence numbers: ours, and what we have of the kernel's.
        self._is_spoilt = False

    def passed(self) -> bool | None:
        """Return whether all came as it was sent; None: it could not be tried."""
        with self._program as program:
            try:
                # Closed without a word: nothing is left that would send again and again to who is not there.
                program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(1, 0))
                program.settimeout(0)
                program.bind((socket.inet_ntop(socket.AF_INET6, self._own), 0))
                self._port = program.getsockname()[1]
                program.connect_ex((socket.inet_ntop(socket.AF_INET6, self._far), _PORT))
                if not self._is_called():
                    return False if self._is_spoilt else None
                self._ends_s = time.monotonic() + TRIAL_S_MAX
                program.send(_DATA)
                if not self._hears_all():
                    return None if self._reads == READS_MAX else False
                self._say_all()
                return self._was_heard()
            except (OSError, LinkError):  # The device is gone, or taken over: whoever serves it next finds out.
                return None

    def _is_called(self) -> bool:
        """Wait for the call and answer it; False: none came."""
        while (packet := self._heard()) is not None:
            flags, sequence, _ = packet
            if flags & _SYN:
                self._acknowledged = sequence + 1
                self._tun.write([finished(self._segment(_SYN | _ACK, options=_MSS))])
                self._next = _FIRST + 1
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
            joint.add(memoryview(self._segment(_ACK, _DATA[at : at + _SEGMENT_BYTES])))
            self._next += _SEGMENT_BYTES
        self._tun.write([joint.take()])

    def _was_heard(self) -> bool:
        came = b""
        while len(came) < len(_DATA) and self._waits_for(self._program):
            found = self._program.recv(len(_DATA))
            if not found:
                break
            came += found
        return came == _DATA

    def _heard(self) -> tuple[int, int, bytes] | None:
        """Return flags, first sequence number and payload of the next packet of the connection; None: too late."""
        while self._reads < READS_MAX:
            self._reads += 1
            try:
                item = self._tun.read()
                if item is None:
                    if not self._waits_for(self._tun):
                        return None
                elif (found := self._joined(item) if isinstance(item, Bulk) else self._parsed(*item)) is not None:
                    return found
            except WireError:  # Of a program that makes its own packets, or of a kernel that spoils them.
                continue
        return None

    def _waits_for(self, what: TunPort | socket.socket) -> bool:
        """Wait for something to read. Looks once more when the time is over: this process may have had no turn."""
        waiting = select.poll()
        waiting.register(what, select.POLLIN)
        return bool(waiting.poll(max(0.0, 1000 * (self._ends_s - time.monotonic()))))

    def _joined(self, bulk: Bulk) -> tuple[int, int, bytes] | None:
        if not self._is_ours(bulk.buffer[bulk.start : bulk.end]):
            return None
        cut = [self._parsed(bytes(bulk.buffer[at:until]), undone=True) for at, until in bulk.segments()]
        found = [one for one in cut if one is not None]
        if len(found) != len(cut):
            return None
        flags, sequence, _ = found[0]
        return flags, sequence, b"".join(payload for _, _, payload in found)

    def _parsed(self, packet: bytes, undone: bool) -> tuple[int, int, bytes] | None:  # noqa: FBT001 - as it is read.
        if not self._is_ours(packet):
            return None
        if undone:
            packet = finished(packet)
        if not is_right(packet):
            self._is_spoilt = True
            return None
        _, _, sequence, _, _, flags, _, _, _ = _TCP.unpack_from(packet, IPV6_BYTES)
        return flags, sequence, packet[head_bytes_of(packet) :]

    def _is_ours(self, packet: bytes | bytearray) -> bool:
        return (
            len(packet) >= IPV6_BYTES + _TCP.size
            and packet[6] == PROTOCOL_TCP
            and packet[24:IPV6_BYTES] == self._far
            and packet[IPV6_BYTES : IPV6_BYTES + 2] == self._port.to_bytes(2)
        )

    def _segment(self, flags: int, payload: bytes = b"", options: bytes = b"") -> bytes:
        """Return the next packet to the program, its checksum undone."""
        length = _TCP.size + len(options)
        head = bytearray(_IPV6.pack(6 << 28, 0, PROTOCOL_TCP, 64, self._far, self._own))
        acknowledged = self._acknowledged & 0xFFFF_FFFF
        head += _TCP.pack(_PORT, self._port, self._next, acknowledged, length << 2, flags, _WINDOW, 0, 0) + options
        measure(head, len(payload))
        return bytes(head) + payload
