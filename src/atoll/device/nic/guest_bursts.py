# SPDX-License-Identifier: Apache-2.0
"""The fast path of guests: many packets of a stock WireGuard client at once, in either direction.

What it does for each packet is what ``Guests`` and ``Engine`` do, in the same order; whatever is not bulk of a TCP
stream between the guest and this machine goes to them. Nothing here is needed for a guest to be served.

Theory of operation. A guest's packets are finished: its kernel has done their checksums, and wants ours done. *In*: the
sum of each segment is looked at, once, after it was opened. A right one is as good as undone, so segments that continue
each other are put together as those of members are, and the kernel is told to trust them; one that is wrong goes on as
it came, by itself, and the kernel throws it away. We never put a sum right. *Out*: a large packet of the kernel is cut,
each segment gets its checksum and padding and is sealed as if it came alone, and the whole goes out in a few bursts.
"""

from collections.abc import Callable, Iterator
from typing import Final, final

from atoll.base.compiled import COMPILED
from atoll.base.ids import Endpoint
from atoll.device.nic.guests import Guest, Guests
from atoll.device.nic.inlet import Inlet
from atoll.device.nic.outlet import Outlet, bursts_of
from atoll.device.nic.plaintext import BLOCK_BYTES, IPV6_NIBBLE
from atoll.device.nic.segments import (
    IPV6_BYTES,
    PACKET_BYTES_MAX,
    PADDING_BYTES_MAX,
    SUM_AT,
    Bulk,
    Joint,
    finish,
    follows,
)
from atoll.host.udp import BURST_BYTES_MAX
from atoll.overlay.session import BURST_MAX, Burst, Run

__all__ = ["OVERHEAD_BYTES", "GuestBursts", "ends_of"]

Follows = Callable[[memoryview, int, int, int, int], int]

OVERHEAD_BYTES: Final = 32  # Of a data packet: header and tag.


def ends_of(length: int, size: int, least: int) -> list[int]:
    """Return where the datagrams of a burst end, at most BURST_MAX; a last one of less than ``least`` bytes is none."""
    ends = list(range(size, length + 1, size))[:BURST_MAX]
    if length % size >= least and len(ends) < BURST_MAX:
        ends.append(length)
    return ends


@final
class GuestBursts:
    """Packets of guests by the dozen.

    Args:
        guests: Those that we serve.
        inlet: The door to the kernel.
        outlet: The way out.
        sealed: Where datagrams are made.
    """

    __slots__ = ("_follows", "_guests", "_inlet", "_is_compiled", "_joint", "_outlet", "_scratch", "_sealed")

    def __init__(self, guests: Guests, inlet: Inlet, outlet: Outlet, sealed: memoryview) -> None:
        self._guests, self._inlet, self._outlet, self._sealed = guests, inlet, outlet, sealed
        self._scratch: Final = memoryview(bytearray(PACKET_BYTES_MAX + PADDING_BYTES_MAX))
        self._joint: Final = Joint()
        self._is_compiled: Final = guests.compiled and COMPILED is not None
        self._follows: Final[Follows] = COMPILED.Batch.follows if guests.compiled and COMPILED is not None else follows

    # In.

    def take_run(  # tidy: allow parameters, one place in a burst.
        self, data: memoryview, size: int, out: memoryview, source: Endpoint, now_ns: int, wall_ns: int
    ) -> int:
        """Take the first data packet, for which ``Guests.takes`` holds, and as many as can be taken with it.

        Args:
            data: Datagrams, back to back.
            size: Length of each but the last.
            out: For their plaintexts; must stay as it is until ``flush``, and what that gives is written.
            source: Where all came from.
            now_ns: Monotonic time.
            wall_ns: Time since 1970.

        Returns:
            How many bytes of ``data`` are done; 0: none, and the first datagram is for ``Guests.receive``.
        """
        ends = ends_of(len(data), size, OVERHEAD_BYTES)
        opened = self._guests.open_run(Run(data, size, 0, ends, out), source, now_ns, wall_ns)
        if opened is None:
            self.flush()
            return 0
        guest, count, joined = opened
        done, last = 0, ends[count - 1] - (count - 1) * size - OVERHEAD_BYTES
        if joined:  # They are not where they came any more, and the first one is no packet of a guest either.
            self._take(guest, out[: size - OVERHEAD_BYTES])
            done = joined + 1
        while done < count:
            plaintexts = out[done * size :]
            taken = self._take_stream(guest, plaintexts, size, count - done, last, now_ns)
            if not taken:
                taken, body = 1, size - OVERHEAD_BYTES if done < count - 1 else last
                self._take(guest, plaintexts[:body])
            done += taken
        return count * size

    def _take(self, guest: Guest, plaintext: memoryview) -> None:
        if len(plaintext):
            self.flush()  # What came before it stays before it.
            self._guests.take(guest, bytes(plaintext))

    def _take_stream(  # tidy: allow parameters, one place in a burst.
        self, guest: Guest, plaintexts: memoryview, step: int, count: int, last: int, now_ns: int
    ) -> int:
        """Take what is one stream of right segments for this machine; return how many, 0: the first is none."""
        size = step - OVERHEAD_BYTES if count > 1 else last
        if (
            size < IPV6_BYTES
            or not self._inlet.is_open
            or plaintexts[8:IPV6_BYTES].tobytes() != guest.address + self._inlet.own
        ):
            return 0
        found = self._follows(plaintexts, step, step - OVERHEAD_BYTES, count, last)
        if not found:
            return 0
        access = self._inlet.access
        if access.is_active and not access.admits(guest.node, plaintexts[: _length_of(plaintexts)], now_ns):
            return 0  # As with members, the first one speaks for its stream.
        final = (found - 1) * step
        lengths = [_length_of(plaintexts)] * (found - 1) + [_length_of(plaintexts[final:])]
        total = sum(lengths)
        if not guest.meter.fits(total, now_ns):  # Some of them may.
            for at, length in zip(range(0, final + 1, step), lengths, strict=True):
                self._take(guest, plaintexts[at : at + length])
            return found
        if not self._join(plaintexts[: lengths[0]]):
            return 0
        guest.meter.take(total, now_ns)
        follow = self._joint.follow
        for at, length in zip(range(step, final + 1, step), lengths[1:], strict=True):
            packet = plaintexts[at : at + length]
            if at == final or not follow(packet):
                self._join(packet)
        return found

    def _join(self, packet: memoryview) -> bool:
        """Put a right segment to those before it, or begin anew; False: it is one that stays alone."""
        if self._joint.add(packet):
            return True
        self.flush()
        return self._joint.add(packet)

    def flush(self) -> None:
        """Hand to the kernel what waits to be continued."""
        if self._joint.parts:
            self._inlet.outbox.append(self._joint.take())

    # Out.

    def send(self, guest: Guest, bulk: Bulk, now_ns: int, wall_ns: int) -> bool:
        """Send a large packet; False: there is no session now, or it is too large, and nothing was done."""
        endpoint, size = guest.endpoint, bulk.head_bytes + bulk.size
        step = size + -size % BLOCK_BYTES + OVERHEAD_BYTES
        if endpoint is None or bulk.count * step > len(self._sealed) or step > BURST_BYTES_MAX:
            return False
        if not self._is_compiled:
            burst = Burst(self._scratch, _finished(bulk, self._scratch), self._sealed, 0, step, finished=True)
        else:
            cut = (bulk.start, bulk.end, bulk.head_bytes, bulk.size)
            burst = Burst(memoryview(bulk.buffer), (), self._sealed, 0, step, cut, finished=True)
        end = self._guests.seal_burst(guest, burst, now_ns, wall_ns)
        if end is None:
            return False
        for part in bursts_of(self._sealed[:end], step):
            self._outlet.bursts.append((endpoint, part, step))
        return True


def _length_of(packet: memoryview) -> int:
    return IPV6_BYTES + (packet[4] << 8 | packet[5])


def _finished(bulk: Bulk, scratch: memoryview) -> Iterator[tuple[int, int]]:
    """Yield (from, until) in ``scratch`` of each segment: checksum done, padded; good until the next is asked for."""
    for start, until in bulk.segments():
        size = until - start
        end = size + -size % BLOCK_BYTES
        scratch[:size] = memoryview(bulk.buffer)[start:until]
        scratch[0] = IPV6_NIBBLE << 4 | scratch[0] & 0x0F
        finish(scratch[:size], IPV6_BYTES, SUM_AT[scratch[6]])
        scratch[size:end] = bytes(end - size)
        yield 0, end
