# SPDX-License-Identifier: Apache-2.0
"""Two nodes with WireGuard sessions on one virtual clock, joined back to back, for the tests of the sessions."""

from random import Random

from atoll.base.units import SECOND_NS
from atoll.overlay.session import PrivateKey, Received, Sessions

WALL_NS = 1_700_000_000 * SECOND_NS
SOURCE = b"\x0a\0\0\1\x12\x34"
LOW_ORDER = bytes(32)
STRANGER = PrivateKey(bytes([77] * 32)).public


class Node:
    def __init__(self, number: int, *, prefers_aes: bool = True) -> None:
        self.sessions = Sessions(
            private_key=bytes([number] * 32), rng=Random(number), now_ns=0, prefers_aes=prefers_aes
        )
        self.key = self.sessions.public_key

    def take(self) -> list[bytes]:
        """Drain the outbox."""
        taken = [outgoing.datagram for outgoing in self.sessions.outbox]
        self.sessions.outbox.clear()
        return taken

    def dropped(self) -> dict[str, int]:
        """Return the counts that are not 0."""
        return {reason: count for reason, count in self.sessions.counters.dropped.items() if count}


class Pair:
    """Two nodes that know each other, on one clock; ``ours``: as nodes of ours, and not as any WireGuard."""

    def __init__(
        self, *, psk: bytes = bytes(32), ours: tuple[bool, bool] = (False, False), aes: tuple[bool, bool] = (True, True)
    ) -> None:
        self.now_ns = 0
        self.a, self.b = Node(1, prefers_aes=aes[0]), Node(2, prefers_aes=aes[1])
        self.a.sessions.add_peer(self.b.key, psk=psk, ours=ours[0])
        self.b.sessions.add_peer(self.a.key, psk=psk, ours=ours[1])

    def other(self, node: Node) -> Node:
        return self.b if node is self.a else self.a

    def connect(self, node: Node) -> None:
        node.sessions.connect(self.other(node).key, self.now_ns, WALL_NS + self.now_ns)

    def seal(self, node: Node, plaintext: bytes = b"hello") -> bytes | None:
        return node.sessions.seal(self.other(node).key, plaintext, self.now_ns, WALL_NS + self.now_ns)

    def sealed(self, node: Node, plaintext: bytes = b"hello") -> bytes:
        datagram = self.seal(node, plaintext)
        assert datagram is not None
        return datagram

    def give(self, node: Node, datagram: bytes, *, under_load: bool = False, source: bytes = SOURCE) -> Received | None:
        return node.sessions.receive(datagram, source, self.now_ns, WALL_NS + self.now_ns, under_load)

    def exchange(self) -> list[tuple[Node, Received]]:
        """Deliver everything at once and in order until nobody has anything to say."""
        events: list[tuple[Node, Received]] = []
        while self.a.sessions.outbox or self.b.sessions.outbox:
            for node in (self.a, self.b):
                for datagram in node.take():
                    event = self.give(self.other(node), datagram)
                    if event is not None:
                        events.append((self.other(node), event))
        return events

    def tick(self, now_ns: int, *nodes: Node) -> None:
        self.now_ns = now_ns
        for node in nodes or (self.a, self.b):
            node.sessions.tick(now_ns, WALL_NS + now_ns)

    def established(self) -> tuple[bool, bool]:
        return self.a.sessions.established(self.b.key), self.b.sessions.established(self.a.key)

    def connected(self) -> "Pair":
        self.connect(self.a)
        self.exchange()
        assert self.established() == (True, True)
        return self

    def follow_deadlines(self, until_ns: int, node: Node) -> list[tuple[int, bytes]]:
        """Tick one node at each of its deadlines; return what it sends into the void, and when."""
        sent: list[tuple[int, bytes]] = []
        while (at_ns := node.sessions.deadline_ns) is not None and at_ns <= until_ns:
            self.tick(max(at_ns, self.now_ns), node)
            sent += [(self.now_ns, datagram) for datagram in node.take()]
        self.now_ns = until_ns
        return sent
