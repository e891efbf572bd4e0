# SPDX-License-Identifier: Apache-2.0
"""Small messages between nodes, one datagram each, sent again until they are acknowledged. A machine without a clock.

For those who say little at a time and wait for the answer: a stream wakes control on both sides, and this does not.
As with a stream a message comes once or, when one of the two processes ends or nothing gets through, not at all; order
is not kept.

Theory of operation. A process is one *life*, with a number drawn at random. Messages are for a life that is known: a
hello asks for it, and until the answer everything takes another way. When the peer begins anew, what was on its way to
the life before is given up; for that may have taken it, and nobody would know. Each side numbers its datagrams for each
peer, and says with all it sends what it has seen of the other's: the newest number and which of the SEEN_BITS before
it. An acknowledgement waits ACK_NS for something to travel with. What is not acknowledged is sent again after a
time-out by the measured round trip (RFC 6298, without samples of what was sent twice), or at once when REORDER_MAX
later ones were. At most ``window`` are on their way; that halves with each time-out and grows by one with each window
acknowledged. After TRIES_MAX nothing gets through; what was on its way is given up, and the peer is asked for its life
again before anything else is sent.

Format: docs/spec/streams.md, "Messages of environments". Source: RFC 6298; RFC 9002, 6.1.1; RFC 8085, 3.1.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Final, final

from atoll.base.errors import WireError
from atoll.base.ids import NodeId
from atoll.base.units import MILLISECOND_NS
from atoll.conduit.limits import INNER_BYTES_MAX
from atoll.conduit.packets import HEADERS_BYTES

__all__ = [
    "ACK_NS",
    "BODY_BYTES_MAX",
    "DATAGRAM_PORT",
    "MESSAGE_BYTES_MAX",
    "ReliableDatagrams",
    "bodies_of",
    "messages_of",
]

DATAGRAM_PORT: Final = 4433  # Spec. Inner UDP port, at both ends.

_HEADER: Final = Struct(">BIIIIQ")  # Kind, life, number, and of the other side: life, newest number, those before it.
_DATA: Final = 1
_ACK: Final = 2
_HELLO: Final = 3  # Is answered at once.

_LENGTH: Final = Struct("<H")  # Of a message, before it.

BODY_BYTES_MAX: Final = INNER_BYTES_MAX - HEADERS_BYTES - _HEADER.size
MESSAGE_BYTES_MAX: Final = BODY_BYTES_MAX - _LENGTH.size
WINDOW_MAX: Final = 32  # Limit. On their way to one peer; more take the stream, whose flow control is made for it.
WINDOW_BEGIN: Final = 16
SPAN_MAX: Final = 48  # Limit. From the oldest that is on its way to the newest: less than SEEN_BITS.
SEEN_BITS: Final = 64
REORDER_MAX: Final = 3  # RFC 9002's packet threshold.
ACK_NS: Final = 10 * MILLISECOND_NS
RTO_BEGIN_NS: Final = 100 * MILLISECOND_NS
RTO_MIN_NS: Final = 30 * MILLISECOND_NS  # Above ACK_NS, and what a busy machine takes to answer.
RTO_MAX_NS: Final = 250 * MILLISECOND_NS  # Low: when the overlay has found another way, the next try is not far.
TRIES_MAX: Final = 8  # Limit. Some 1.5 s, in which the overlay finds another way if there is one.
HELLO_NS: Final = 100 * MILLISECOND_NS  # So often a peer is asked who it is, while there is something to say.
LIVES_MAX: Final = 8  # Limit. Lives of a peer that are over; a datagram that is later than so many restarts is no more.
_NUMBERS: Final = 1 << 32


@final
@dataclass(slots=True)
class _Flying:
    """One datagram that is not acknowledged."""

    body: bytes
    sent_ns: int
    tries: int = 1


@final
@dataclass(slots=True)
class _Peer:
    """What is known of one peer.

    Attributes:
        flying: By number, oldest first.
        number: The last one used.
        life: The peer's, as it says; 0: nothing came yet.
        over: Lives before it: what is still on its way from them comes too late.
        is_reached: Whether something came since the last time that nothing got through.
        newest: Highest number seen in that life.
        seen: Bit i: ``newest - 1 - i`` was seen.
        owes_ns: When it is owed an acknowledgement; None: it has them all.
    """

    flying: dict[int, _Flying] = field(default_factory=dict[int, _Flying])
    number: int = 0
    life: int = 0
    over: deque[int] = field(default_factory=lambda: deque[int](maxlen=LIVES_MAX))
    is_reached: bool = False
    hello_ns: int = 0
    newest: int = 0
    seen: int = 0
    owes_ns: int | None = None
    round_trip_ns: int = 0
    variation_ns: int = 0
    window: int = WINDOW_BEGIN
    grown: int = 0

    @property
    def timeout_ns(self) -> int:
        """How long an acknowledgement may take."""
        if not self.round_trip_ns:
            return RTO_BEGIN_NS
        return min(max(self.round_trip_ns + 4 * self.variation_ns + ACK_NS, RTO_MIN_NS), RTO_MAX_NS)

    def due_ns(self) -> int | None:
        """Return when something is to be done for it; None: nothing is."""
        due = self.owes_ns
        if self.flying:
            timeout_ns = self.timeout_ns
            first = min(one.sent_ns + _backed_off(timeout_ns, one.tries) for one in self.flying.values())
            due = first if due is None else min(due, first)
        return due


def _backed_off(timeout_ns: int, tries: int) -> int:
    return min(timeout_ns << tries - 1, RTO_MAX_NS)


@final
class ReliableDatagrams:
    """All peers of one process.

    After each call the caller sends what is in ``outbox`` and clears it. ``tick`` is owed at ``deadline_ns``; late is
    harmless.

    Args:
        life: Tells this process from the one before it on this node: 1 to 2^32 - 1, random.

    Attributes:
        outbox: (peer, UDP payload) to send.
        sent: How many datagrams with something in them were sent so far.
        resent: How often one of them was sent again.
        lost: How many were given up: whether they came is not known.
    """

    def __init__(self, life: int) -> None:
        self._life: Final = life
        self._peers: dict[NodeId, _Peer] = {}
        self.outbox: Final[list[tuple[NodeId, bytes]]] = []
        self.sent = self.resent = self.lost = 0

    @property
    def deadline_ns(self) -> int | None:
        """When ``tick`` is owed; None: never."""
        return min((due for peer in self._peers.values() if (due := peer.due_ns()) is not None), default=None)

    def send(self, node: NodeId, body: bytes, now_ns: int) -> bool:
        """Send this; False: not now, and it is for another way.

        Args:
            node: A member.
            body: At most BODY_BYTES_MAX bytes.
            now_ns: Monotonic time.
        """
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = _Peer()
        if not peer.is_reached:
            if now_ns >= peer.hello_ns:
                peer.hello_ns = now_ns + HELLO_NS
                self._emit(node, peer, _HELLO, 0, b"")
            return False
        flying = peer.flying
        if len(body) > BODY_BYTES_MAX or len(flying) >= peer.window:
            return False
        number = peer.number + 1
        if number >= _NUMBERS or (flying and number - next(iter(flying)) > SPAN_MAX):
            return False
        peer.number = number
        self.sent += 1
        flying[number] = _Flying(body, now_ns)
        self._emit(node, peer, _DATA, number, body)
        return True

    def receive(self, node: NodeId, payload: bytes, now_ns: int) -> bytes | None:
        """Take a UDP payload of a member; return the body in it, None: there is none, or it came before.

        Raises:
            WireError: It is no such datagram. Nothing else.
        """
        if len(payload) < _HEADER.size:
            raise WireError("datagram length")
        kind, life, number, own_life, newest, seen = _HEADER.unpack_from(payload)
        if not _DATA <= kind <= _HELLO or not life:
            raise WireError("datagram kind")
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = _Peer()
        if life in peer.over:
            return None
        if life != peer.life:
            self._begin_anew(peer, life)
        peer.is_reached = True
        if own_life == self._life and newest:
            self._acknowledged(node, peer, newest, seen, now_ns)
        if kind == _HELLO or (kind == _DATA and own_life != self._life):  # Not for us: so it learns who we are.
            self._emit(node, peer, _ACK, 0, b"")
            return None
        if kind == _ACK:
            return None
        if peer.owes_ns is None:
            peer.owes_ns = now_ns + ACK_NS
        return payload[_HEADER.size :] if _is_new(peer, number) else None

    def tick(self, now_ns: int) -> None:
        """Do what is due."""
        for node, peer in self._peers.items():
            if peer.flying:
                self._time_out(node, peer, now_ns)
            if peer.owes_ns is not None and now_ns >= peer.owes_ns:
                self._emit(node, peer, _ACK, 0, b"")

    def keep(self, nodes: frozenset[NodeId]) -> None:
        """Forget all peers but these."""
        for node in [node for node in self._peers if node not in nodes]:
            del self._peers[node]

    def _begin_anew(self, peer: _Peer, life: int) -> None:
        if peer.life:
            peer.over.append(peer.life)
        self._give_up(peer)
        peer.life, peer.newest, peer.seen, peer.owes_ns = life, 0, 0, None

    def _give_up(self, peer: _Peer) -> None:
        self.lost += len(peer.flying)
        peer.flying.clear()
        peer.window, peer.grown = WINDOW_BEGIN, 0

    def _time_out(self, node: NodeId, peer: _Peer, now_ns: int) -> None:
        timeout_ns = peer.timeout_ns
        late = [
            (number, one)
            for number, one in peer.flying.items()
            if now_ns >= one.sent_ns + _backed_off(timeout_ns, one.tries)
        ]
        if not late:
            return
        if any(one.tries >= TRIES_MAX for _, one in late):
            self._give_up(peer)
            peer.is_reached = False
            return
        peer.window, peer.grown = max(1, peer.window // 2), 0
        for number, one in late:
            self._again(node, peer, number, one, now_ns)

    def _acknowledged(self, node: NodeId, peer: _Peer, newest: int, seen: int, now_ns: int) -> None:
        flying = peer.flying
        found = [n for n in flying if n == newest or (n < newest <= n + SEEN_BITS and seen >> newest - 1 - n & 1)]
        for number in found:
            one = flying.pop(number)
            if number == newest and one.tries == 1:
                self._measured(peer, now_ns - one.sent_ns)
            peer.grown += 1
        if peer.grown >= peer.window:
            peer.window, peer.grown = min(peer.window + 1, WINDOW_MAX), 0
        if not found:
            return
        lost = [(n, one) for n, one in flying.items() if n + REORDER_MAX <= newest and one.tries == 1]
        if lost:
            peer.window, peer.grown = max(1, peer.window // 2), 0
        for number, one in lost:
            self._again(node, peer, number, one, now_ns)

    @staticmethod
    def _measured(peer: _Peer, sample_ns: int) -> None:
        sample_ns = max(1, sample_ns)
        if not peer.round_trip_ns:
            peer.round_trip_ns, peer.variation_ns = sample_ns, sample_ns // 2
            return
        peer.variation_ns += (abs(peer.round_trip_ns - sample_ns) - peer.variation_ns) // 4
        peer.round_trip_ns += (sample_ns - peer.round_trip_ns) // 8

    def _again(self, node: NodeId, peer: _Peer, number: int, one: _Flying, now_ns: int) -> None:
        one.tries += 1
        one.sent_ns = now_ns
        self.resent += 1
        self._emit(node, peer, _DATA, number, one.body)

    def _emit(self, node: NodeId, peer: _Peer, kind: int, number: int, body: bytes) -> None:
        peer.owes_ns = None
        head = _HEADER.pack(kind, self._life, number, peer.life, peer.newest, peer.seen)
        self.outbox.append((node, head + body))


def bodies_of(messages: Sequence[bytes]) -> list[bytes]:
    """Return these messages, put together to as few bodies as their order allows.

    Args:
        messages: At most MESSAGE_BYTES_MAX bytes each.
    """
    found, parts, size = list[bytes](), list[bytes](), 0
    for message in messages:
        if size + _LENGTH.size + len(message) > BODY_BYTES_MAX:
            found.append(b"".join(parts))
            parts, size = [], 0
        parts += (_LENGTH.pack(len(message)), message)
        size += _LENGTH.size + len(message)
    return [*found, b"".join(parts)] if parts else found


def messages_of(body: bytes) -> list[bytes]:
    """Return the messages in a body.

    Raises:
        WireError: The last one is not whole. Nothing else.
    """
    found, at = list[bytes](), 0
    while at < len(body):
        begin = at + _LENGTH.size
        at = begin + _LENGTH.unpack_from(body, at)[0] if begin <= len(body) else begin
        if at > len(body):
            raise WireError("message length")
        found.append(body[begin:at])
    return found


def _is_new(peer: _Peer, number: int) -> bool:
    """Note a number of a peer; return whether it comes for the first time."""
    ahead = number - peer.newest
    if ahead > 0:
        mark = 1 << ahead - 1 if peer.newest else 0
        peer.seen = (peer.seen << ahead | mark) & (1 << SEEN_BITS) - 1 if ahead <= SEEN_BITS else 0
        peer.newest = number
        return True
    if ahead == 0 or -ahead > SEEN_BITS or peer.seen >> -ahead - 1 & 1:
        return False
    peer.seen |= 1 << -ahead - 1
    return True
