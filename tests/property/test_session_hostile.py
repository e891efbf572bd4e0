# SPDX-License-Identifier: Apache-2.0
"""Nothing that arrives can raise, leave something behind, or be taken for a peer's word."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from atoll.base.units import SECOND_NS
from atoll.overlay.session import Data, Sessions
from atoll.overlay.session.cookie import CookieJar
from tests.unit.session_world import WALL_NS


def shape(head: bytes, body: bytes, size: int) -> bytes:
    return (head + body).ljust(size, b"\0")[:size]


SHAPED = st.builds(
    shape,
    st.sampled_from([b"\1\0\0\0", b"\2\0\0\0", b"\3\0\0\0", b"\4\0\0\0"]),
    st.binary(max_size=160),
    st.sampled_from([31, 32, 48, 64, 92, 148]),
)


def connected() -> tuple[Sessions, Sessions, dict[str, bytes]]:
    """Return two nodes with a session, and one fresh datagram of each kind for the second."""
    a, b = (Sessions(private_key=bytes([n] * 32), rng=Random(n), now_ns=0) for n in (1, 2))
    a.add_peer(b.public_key)
    b.add_peer(a.public_key)
    a.connect(b.public_key, 0, WALL_NS)
    for _ in range(2):
        for source, target in ((a, b), (b, a)):
            for outgoing in source.outbox:
                target.receive(outgoing.datagram, b"source", 0, WALL_NS, under_load=False)
            source.outbox.clear()
    data = a.seal(b.public_key, b"a secret", 0, WALL_NS)
    assert data is not None
    late_ns = 130 * SECOND_NS
    b.connect(a.public_key, late_ns, WALL_NS)
    a.receive(b.outbox[0].datagram, b"source", late_ns, WALL_NS, under_load=True)
    cookie = a.outbox.pop().datagram
    a.receive(b.outbox[0].datagram, b"source", late_ns, WALL_NS, under_load=False)
    response = a.outbox.pop().datagram
    b.outbox.clear()
    a.connect(b.public_key, late_ns + 6 * SECOND_NS, WALL_NS + late_ns)
    initiation = a.outbox.pop().datagram
    return a, b, {"initiation": initiation, "response": response, "cookie": cookie, "data": data}


@given(
    datagrams=st.lists(st.one_of(st.binary(max_size=200), SHAPED), max_size=20),
    source=st.binary(max_size=20),
    under_load=st.booleans(),
)
def test_any_bytes_are_dropped_and_counted(datagrams: list[bytes], source: bytes, under_load: bool) -> None:
    _, node, _ = connected()
    before = sum(node.counters.dropped.values())
    deadline_ns = node.deadline_ns
    for datagram in datagrams:
        assert node.receive(datagram, source, 0, WALL_NS, under_load) is None
    assert sum(node.counters.dropped.values()) == before + len(datagrams)
    assert node.outbox == []
    assert node.deadline_ns == deadline_ns


@given(
    kind=st.sampled_from(["initiation", "response", "cookie", "data"]),
    place=st.integers(0, 147),
    change=st.integers(1, 255),
    signed=st.booleans(),
    under_load=st.booleans(),
)
def test_a_changed_byte_makes_a_datagram_worthless(
    kind: str, place: int, change: int, signed: bool, under_load: bool
) -> None:
    _, b, datagrams = connected()
    honest = datagrams[kind]
    place %= len(honest)
    forged = honest[:place] + bytes((honest[place] ^ change,)) + honest[place + 1 :]
    if signed and kind in {"initiation", "response"}:  # Anybody who knows b's public key can do this.
        forged = CookieJar(b.public_key).finish(forged[:-32], 0)
    now_ns = 137 * SECOND_NS
    event = b.receive(forged, b"source", now_ns, WALL_NS, under_load)
    assert not isinstance(event, Data)
    if event is None:
        b.outbox.clear()
        again = b.receive(honest, b"source", now_ns + SECOND_NS, WALL_NS, under_load=False)
        assert again is not None or kind in {"initiation", "cookie"}


@given(size=st.integers(0, 147), kind=st.sampled_from(["initiation", "response", "cookie", "data"]))
def test_a_datagram_cut_short_is_worthless(size: int, kind: str) -> None:
    _, b, datagrams = connected()
    cut = datagrams[kind][: min(size, len(datagrams[kind]) - 1)]
    assert b.receive(cut, b"source", 137 * SECOND_NS, WALL_NS, under_load=False) is None
    assert b.outbox == []
