# SPDX-License-Identifier: Apache-2.0
"""The overlay machine under random inputs: it never raises, stays bounded, and a restored twin does the same."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.base.ids import DIRECT, NodeId, PublicKey, node_id_of
from atoll.base.member import Member
from atoll.core.machine import Tick
from atoll.overlay.config import Config
from atoll.overlay.limits import PATHS_PER_PAIR_MAX
from atoll.overlay.mesh import Mesh
from atoll.overlay.messages import (
    LabelGrant,
    LabelNotice,
    LabelRefusal,
    LabelRequest,
    Link,
    LinkState,
    OverlayMessage,
    Place,
    Probe,
    encode,
)
from atoll.overlay.orders import SendControl
from atoll.overlay.reports import (
    ControlReceived,
    EndpointSeen,
    FlowSeen,
    MembersChanged,
    NicRestarted,
    OverlayInput,
    RelayMetered,
    SessionDown,
    SessionUp,
)

MEMBERS = tuple(Member(bytes([n]) * 32, bytes([n]) * 32, f"n{n}") for n in range(1, 7))
NODES: tuple[NodeId, ...] = tuple(one.node for one in MEMBERS)
ME = node_id_of(PublicKey(b"\0" * 32))
STRANGER = NodeId(b"stranger00")
STEPS = 150


def message(random: Random) -> OverlayMessage:
    """Draw any message that decodes; numbers are often small, so that some fit."""

    def number(bits: int) -> int:
        return random.choice((0, 1, 2, random.randrange(100), random.getrandbits(bits), (1 << bits) - 1))

    def node() -> bytes:
        return random.choice((*NODES, ME, STRANGER))

    def link() -> Link:
        return Link(node(), number(32), number(32), number(16), number(16), number(8))

    match random.randrange(10):
        case 0:
            links = tuple(link() for _ in range(random.randrange(41)))
            return LinkState(
                number(3), number(32), random.random() < 0.5, number(2), number(2), number(8), number(2), links
            )
        case 1:
            return LabelRequest(node())
        case 2:
            return LabelGrant(node(), number(63), bytes(32), number(63), bytes(32), number(16))
        case 3:
            return LabelNotice(node(), number(63), bytes(32), number(63), bytes(32), number(16))
        case 4:
            return LabelRefusal(node(), number(8))
        case 5:
            return Place(node(), random.choice(("192.0.2.9", "x", "::", "255.255.255.255")), 1 + number(15))
        case _:
            return Probe(*(number(bits) for bits in (32, 32, 16, 32, 32, 32, 32, 3)))


def event(random: Random) -> OverlayInput:
    """Draw any input."""
    node = random.choice((*NODES, *NODES, *NODES, STRANGER))
    match random.randrange(40):
        case 0:
            return MembersChanged(tuple(one for one in MEMBERS if random.random() < 0.8))
        case 1:
            return SessionDown(node)
        case 2:
            return NicRestarted()
        case 3:
            return RelayMetered(random.getrandbits(63), random.getrandbits(40), 0)
        case 4 | 5 | 6 | 7:
            return SessionUp(node, random.randrange(3))
        case 8 | 9 | 10 | 11 | 12:
            return FlowSeen(node, random.randrange(9), random.randrange(9))
        case 14:
            return EndpointSeen(node, random.choice(("192.0.2.9", "2001:db8::1")), 1 + random.randrange(3))
        case 13:
            return ControlReceived(node, DIRECT, random.randbytes(random.randrange(60)))
        case drawn if drawn < 24:
            return Tick()
        case _:
            via = random.choice((DIRECT, DIRECT, *NODES, STRANGER))
            return ControlReceived(node, via, encode(message(random)))


def step_ns(random: Random, mesh: Mesh, now_ns: int) -> int:
    """Draw the next time: often the deadline, sometimes a stall of an hour."""
    due_ns = mesh.deadline_ns
    choices = [now_ns, now_ns + random.randrange(10**8), now_ns + random.choice((0, 10**9, 36 * 10**11))]
    if due_ns is not None:
        choices += [max(now_ns, due_ns)] * 3
    return random.choice(choices)


def started(seed: int) -> Mesh:
    mesh = Mesh(Config(node=ME, boot=1), seed.to_bytes(8, "little"), 0)
    mesh.handle(MembersChanged(MEMBERS), 0)
    for node in NODES:
        mesh.handle(SessionUp(node, 0), 0)
    return mesh


@given(seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_nothing_raises_and_nothing_grows_without_bound(seed: int) -> None:
    random = Random(seed)
    mesh, now_ns = started(seed), 0
    for _ in range(STEPS):
        now_ns = step_ns(random, mesh, now_ns)
        drawn = event(random)
        effects = mesh.handle(drawn, now_ns)
        if isinstance(drawn, ControlReceived):
            probes = [one for one in effects if isinstance(one, SendControl) and one.node == drawn.node]
            assert len(probes) <= 1 + PATHS_PER_PAIR_MAX + len(NODES)  # An answer, and no flood.
        for node in (*NODES, STRANGER):
            mesh.peer_report(node, now_ns)
            mesh.explain(node, 0, now_ns)
    assert len(mesh.snapshot()) < 150_000


@given(seed=st.integers(0, 2**32))
@settings(max_examples=40)
def test_a_restored_twin_has_the_same_effects_byte_for_byte(seed: int) -> None:
    random = Random(seed)
    mesh, now_ns = started(seed), 0
    twin: Mesh | None = None
    for step in range(STEPS):
        now_ns = step_ns(random, mesh, now_ns)
        drawn = event(random)
        if step == STEPS // 3:
            twin = Mesh.restore(mesh.snapshot())
        effects = mesh.handle(drawn, now_ns)
        if twin is not None:
            assert twin.handle(drawn, now_ns) == effects
            assert twin.deadline_ns == mesh.deadline_ns
    assert twin is not None
    assert twin.snapshot() == mesh.snapshot()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=40)
def test_a_tick_moves_the_deadline_on(seed: int) -> None:
    random = Random(seed)
    mesh, now_ns = started(seed), 0
    for _ in range(STEPS):
        now_ns = step_ns(random, mesh, now_ns)
        mesh.handle(event(random), now_ns)
        ticks = 0
        while (due_ns := mesh.deadline_ns) is not None and due_ns <= now_ns:
            mesh.handle(Tick(), now_ns)
            ticks += 1
            assert ticks <= 4  # Else a driver would spin.


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_reading_changes_nothing(seed: int) -> None:
    random = Random(seed)
    mesh, now_ns = started(seed), 0
    for _ in range(STEPS // 2):
        now_ns = step_ns(random, mesh, now_ns)
        mesh.handle(event(random), now_ns)
    before = mesh.snapshot()
    for node in NODES:
        mesh.peer_report(node, now_ns)
        for tag in range(4):
            mesh.explain(node, tag, now_ns)
    mesh.rejects()
    mesh.relay_load(now_ns)
    assert mesh.snapshot() == before
