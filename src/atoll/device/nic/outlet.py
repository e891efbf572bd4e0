# SPDX-License-Identifier: Apache-2.0
"""The way out of the packet device: from (peer, way) to (endpoint, bytes).

Decides by which way a session's own datagrams go: what answers a datagram goes back by the way on which that came,
because that way works; a handshake that we start tries the ways in turn (``Peer.next_ways``); the rest follows tag 0.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, final

from atoll.base.ids import DIRECT, Endpoint
from atoll.device.nic.counters import Counters
from atoll.device.nic.evidence import Evidence
from atoll.device.nic.frame import FRAME_HEADER_BYTES
from atoll.device.nic.limits import OUTBOX_MAX, RECENT_NS
from atoll.device.nic.peers import DEFAULT_TAG, Peer
from atoll.device.nic.relay import Arrival
from atoll.host.udp import BURST_BYTES_MAX, BURST_DATAGRAMS_MAX
from atoll.overlay.session import Outgoing

__all__ = ["Outlet", "bursts_of", "gathered"]

_INITIATION: Final = 1
_RESPONSE: Final = 2


@final
class Outlet:
    """Everything that leaves.

    Args:
        peers: All peers by node, kept by the engine.
        by_key: The same by public key.
        counters: Drops are counted here.
        evidence: Told of peers that moved.

    Attributes:
        outbox: (endpoint, datagram), in order; at most OUTBOX_MAX; cleared by the engine's caller.
        bursts: (endpoint, datagrams back to back, length of each but the last); good until the next call of the engine.
    """

    __slots__ = ("_by_key", "_counters", "_evidence", "_peers", "bursts", "outbox")

    def __init__(
        self, peers: dict[bytes, Peer], by_key: dict[bytes, Peer], counters: Counters, evidence: Evidence
    ) -> None:
        self._peers: Final = peers
        self._by_key: Final = by_key
        self._counters: Final = counters
        self._evidence: Final = evidence
        self.outbox: Final[list[tuple[Endpoint, bytes]]] = []
        self.bursts: Final[list[tuple[Endpoint, memoryview, int]]] = []

    def emit(self, endpoint: Endpoint | None, datagram: bytes) -> None:
        """Send to an endpoint."""
        if endpoint is None:
            self._counters.drop("endpoint-unknown")
        elif len(self.outbox) >= OUTBOX_MAX:
            self._counters.drop("outbox-full")
        else:
            self.outbox.append((endpoint, datagram))

    def send(self, peer: Peer, via: bytes, datagram: bytes) -> None:
        """Send a datagram of a session by exactly this way."""
        if via == DIRECT:
            self.emit(peer.where.endpoint, datagram)
            return
        transmit, relay = peer.transmit.get(via), self._peers.get(via)
        if transmit is None or relay is None:
            self._counters.drop("path-unknown")
        else:
            self.emit(relay.where.endpoint, transmit.pack(datagram))

    def room_of(self, peer: Peer, via: bytes) -> int | None:
        """Return how many bytes a way needs before each datagram; None: it is not to be had, and that is counted."""
        if via == DIRECT:
            known = peer.where.endpoint is not None
            self._counters.drop("endpoint-unknown", not known)
            return 0 if known else None
        relay = self._peers.get(via)
        if via not in peer.transmit or relay is None or relay.where.endpoint is None:
            self._counters.drop("path-unknown")
            return None
        return FRAME_HEADER_BYTES

    def send_burst(self, peer: Peer, via: bytes, data: memoryview, step: int) -> None:
        """Send datagrams that stand back to back, each behind the room that ``room_of`` asked for."""
        if via == DIRECT:
            endpoint = peer.where.endpoint
        else:
            transmit, endpoint = peer.transmit[via], self._peers[via].where.endpoint
            transmit.head_all(data, step)
        if endpoint is not None:
            self.bursts.append((endpoint, data, step))

    def resend(self, peer: Peer, tag: int, before: bytes, ways: Iterable[bytes], now_ns: int) -> None:
        """Send again by other ways what went last by one that may have failed; one too many dies in the replay window.

        Neither way is judged by it: for the one before, these packets no longer count.

        Args:
            peer: To whom.
            tag: Whose route has changed.
            before: The way that it was.
            ways: Those that are new.
            now_ns: Monotonic time.
        """
        for at_ns, of, via, datagram in tuple(peer.recent):
            if of == tag and via == before and now_ns - at_ns <= RECENT_NS:
                peer.recent.remove((at_ns, of, via, datagram))
                peer.count_sent(via, -1)
                for way in ways:
                    self.send(peer, way, datagram)

    def follow(self, peer: Peer, tag: int, datagram: bytes) -> None:
        """Send a datagram of a session by the route of a tag, and a copy where the route says so."""
        via, also, _ = peer.route(tag)
        self.send(peer, via, datagram)
        if also is not None and also != via:
            self.send(peer, also, datagram)

    def speak(self, outgoings: Iterable[Outgoing]) -> None:
        """Send what the sessions say of their own accord: handshakes and keepalives."""
        for outgoing in outgoings:
            peer = None if outgoing.public_key is None else self._by_key.get(outgoing.public_key)
            if peer is None:
                continue
            if outgoing.datagram[0] != _INITIATION:
                self.follow(peer, DEFAULT_TAG, outgoing.datagram)
                continue
            for via, endpoint in peer.next_ways():
                if via == DIRECT:
                    self.emit(endpoint, outgoing.datagram)
                else:
                    self.send(peer, via, outgoing.datagram)

    def answer(self, outgoings: Iterable[Outgoing], source: Endpoint, arrival: Arrival | None, now_ns: int) -> None:
        """Send what the sessions say about the datagram just received from there."""
        for outgoing in outgoings:
            datagram = outgoing.datagram
            if arrival is None:
                if datagram[0] == _RESPONSE and outgoing.public_key is not None:
                    # Only an authentic and fresh initiation is answered.
                    caller = self._by_key[outgoing.public_key]
                    self.note_place(caller, news=caller.where.called(source), now_ns=now_ns)
                self.emit(source, datagram)
                continue
            # Without a key it is a cookie, for somebody who says that he is the origin behind the label.
            peer = self._peers.get(arrival.origin) if outgoing.public_key is None else self._by_key[outgoing.public_key]
            if peer is None:
                self._counters.drop("path-unknown")
            elif arrival.relay in peer.transmit:
                self.send(peer, arrival.relay, datagram)
            else:
                self.follow(peer, DEFAULT_TAG, datagram)

    def note_place(self, peer: Peer, *, news: bool, now_ns: int) -> None:
        """Report where a peer is, if that is news."""
        if news and not peer.endpoint_due_ns:
            self._evidence.endpoint(peer, now_ns)


def bursts_of(data: memoryview, step: int) -> Iterator[memoryview]:
    """Yield datagrams that stand back to back, ``step`` bytes apart, in parts that one burst takes."""
    most = step * min(BURST_DATAGRAMS_MAX, BURST_BYTES_MAX // step)
    for at in range(0, len(data), most):
        yield data[at : at + most]


def gathered(outbox: Sequence[tuple[Endpoint, bytes]]) -> Iterator[tuple[Endpoint, bytes, int]]:
    """Yield (endpoint, datagrams back to back, length of each) of datagrams that follow each other, in their order.

    Only those of one length to one endpoint are put together, and no more than one burst takes.
    """
    at = 0
    while at < len(outbox):
        endpoint, first = outbox[at]
        size, end = len(first), at + 1
        most = min(len(outbox), at + BURST_DATAGRAMS_MAX, at + BURST_BYTES_MAX // max(size, 1))
        while end < most and outbox[end][0] == endpoint and len(outbox[end][1]) == size:
            end += 1
        yield endpoint, first if end == at + 1 else b"".join(datagram for _, datagram in outbox[at:end]), size
        at = end
