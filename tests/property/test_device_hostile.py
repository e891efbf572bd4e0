# SPDX-License-Identifier: Apache-2.0
"""Whatever comes, in whatever order: the engine does not raise, keeps its bounds, and goes on working."""

from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import WireError
from atoll.base.ids import DIRECT, Endpoint
from atoll.base.units import SECOND_NS
from atoll.device.nic.frame import Heading, inner_of, label_of
from atoll.device.nic.limits import OUTBOX_MAX, PACKETS_WAITING_MAX
from atoll.device.nic.messages import (
    AdmitPeer,
    EngineOrder,
    ExpelPeer,
    SendPacket,
    decode_orders,
    decode_reports,
    encode_item,
    join_items,
)
from atoll.device.nic.plaintext import pad_control, take_packet, unpad_control
from atoll.overlay.orders import (
    DropArrivalLabel,
    DropForwardLabel,
    DropTransmitLabel,
    SendControl,
    SetArrivalLabel,
    SetForwardLabel,
    SetRoute,
    SetTransmitLabel,
)
from tests.unit.nic_world import World, key

WORLD = World(3)  # Only for ids and packets.
PEER_KEYS = [engine.public_key for engine in WORLD.engines]
PACKETS = [WORLD.packet(source, target) for source in range(3) for target in range(3)]

labels = st.one_of(st.integers(0, 3), st.integers(-(1 << 63), (1 << 64) - 1))
label_keys = st.one_of(st.integers(0, 3).map(key), st.binary(max_size=70))
nodes = st.one_of(st.sampled_from([engine.node for engine in WORLD.engines]), st.binary(max_size=12))
vias = st.one_of(st.just(bytes(DIRECT)), nodes)
tags = st.one_of(st.integers(0, 3), st.integers(-(1 << 63), (1 << 63) - 1))
public_keys = st.one_of(st.sampled_from(PEER_KEYS), st.binary(min_size=32, max_size=32))
ports = st.integers(1, 65_535)
hosts = st.one_of(st.sampled_from([at[0] for at in WORLD.at]), st.text(min_size=1, max_size=45))
endpoints = st.one_of(st.sampled_from(WORLD.at), st.tuples(hosts, ports))
psks = st.one_of(st.none(), st.binary(min_size=32, max_size=32))
payloads = st.one_of(st.just(b"\x91\x05"), st.binary(max_size=1_300))

orders: st.SearchStrategy[EngineOrder] = st.one_of(
    st.builds(AdmitPeer, public_keys, st.lists(endpoints, max_size=8).map(tuple), psks, st.booleans()),
    st.builds(ExpelPeer, public_keys),
    st.builds(SendPacket, nodes, tags, st.one_of(st.sampled_from(PACKETS), st.binary(max_size=100))),
    st.builds(SendControl, nodes, vias, payloads),
    st.builds(SetRoute, nodes, tags, vias, st.one_of(st.none(), vias)),
    st.builds(SetTransmitLabel, nodes, nodes, labels, label_keys),
    st.builds(DropTransmitLabel, nodes, nodes),
    st.builds(SetForwardLabel, labels, label_keys, nodes, nodes, labels, label_keys, st.integers(-1, 1 << 62)),
    st.builds(DropForwardLabel, labels),
    st.builds(SetArrivalLabel, labels, label_keys, nodes, nodes),
    st.builds(DropArrivalLabel, labels),
)


def framed(label: int, label_key: bytes, inner: bytes) -> bytes:
    return Heading(label, label_key).pack(inner)


kinds = st.integers(0, 6).map(lambda kind: kind.to_bytes(4, "little"))
datagrams = st.one_of(
    st.binary(max_size=200),
    st.tuples(kinds, st.binary(max_size=200)).map(b"".join),
    st.builds(
        framed, st.integers(0, 3), st.integers(0, 3).map(key), st.tuples(kinds, st.binary(max_size=200)).map(b"".join)
    ),
)
sources: st.SearchStrategy[Endpoint] = st.one_of(
    st.sampled_from(WORLD.at), st.tuples(st.text(max_size=9), st.integers())
)
# An order, a datagram, or time that passes; each for or to engine 0.
steps = st.lists(
    st.one_of(orders, st.tuples(datagrams, sources, st.booleans()), st.integers(0, 300 * SECOND_NS)), max_size=40
)


@given(steps=steps)
def test_no_sequence_of_orders_and_datagrams_raises(
    steps: list[EngineOrder | tuple[bytes, Endpoint, bool] | int],
) -> None:
    world = World(2)
    world.introduce()
    engine = world.engines[0]
    for step in steps:
        if isinstance(step, int):
            world.now_ns += step
            engine.tick(world.now_ns, world.wall_ns)
            assert engine.deadline_ns > world.now_ns
        elif isinstance(step, tuple):
            engine.receive(step[0], step[1], world.now_ns, world.wall_ns, under_load=step[2])
        else:
            engine.order(step, world.now_ns, world.wall_ns)
        assert len(engine.outbox) <= OUTBOX_MAX
        world.settle()
    # It still works: as if control gave all that holds again, after the peer's session has expired at the latest.
    admit = [AdmitPeer(world.engines[1 - index].public_key, (world.at[1 - index],)) for index in (0, 1)]
    for index in (0, 1):
        world.order(index, ExpelPeer(world.engines[1 - index].public_key))
    world.run(10 * SECOND_NS)
    for index in (0, 1):
        world.order(index, admit[index])
    world.run(10 * SECOND_NS)
    before = len(world.packets(1))
    world.send(0, 1, b"still here")
    assert world.packets(1)[before:] == [b"still here"]


@given(orders=st.lists(orders, max_size=10))
def test_valid_orders_survive_the_way_between_processes(orders: list[EngineOrder]) -> None:
    batch = join_items([encode_item(order) for order in orders])
    try:
        assert list(decode_orders(batch)) == orders
    except WireError:
        # A field out of the range of its type, such as a text that is no host; one more reason to decode totally.
        assert any(not _passes(order) for order in orders)


def _passes(order: EngineOrder) -> bool:
    try:
        decode_orders(join_items([encode_item(order)]))
    except WireError:
        return False
    return True


@given(batch=st.one_of(st.binary(max_size=300), st.lists(st.binary(max_size=60), max_size=4).map(join_items)))
def test_decoding_raises_wire_errors_only(batch: bytes) -> None:
    for decode in (decode_orders, decode_reports):
        try:
            decode(batch)
        except WireError:
            continue


@given(payload=st.binary(min_size=1, max_size=1_200), sent=st.integers(0, 0xFFFF_FFFF), direct=st.booleans())
def test_control_messages_come_back_whole(payload: bytes, sent: int, direct: bool) -> None:
    assert unpad_control(pad_control(payload, sent, direct=direct)) == (payload, sent, direct)


@given(plaintext=st.binary(min_size=1, max_size=64))
def test_only_what_was_padded_is_unpadded(plaintext: bytes) -> None:
    try:
        payload, sent, direct = unpad_control(plaintext)
    except WireError:
        return
    assert pad_control(payload, sent, direct=direct) == plaintext


@given(plaintext=st.binary(min_size=1, max_size=80))
def test_plaintexts_raise_wire_errors_only(plaintext: bytes) -> None:
    for first in (b"\x60", b"\x91"):
        candidate = first + plaintext[1:]
        try:
            taken = take_packet(candidate)[0] if first == b"\x60" else unpad_control(candidate)[0]
        except WireError:
            continue
        assert candidate.startswith(taken)
        assert len(candidate) - len(taken) <= 31


@given(
    label=st.integers(0, (1 << 63) - 1),
    inner=st.binary(min_size=32, max_size=99),
    other=st.binary(min_size=32, max_size=32),
)
def test_frames_come_back_and_open_with_their_key_only(label: int, inner: bytes, other: bytes) -> None:
    inner = b"\x04\0\0\0" + inner[4:]
    frame = framed(label, key(1), inner)
    assert (label_of(frame), inner_of(frame)) == (label, inner)
    assert Heading(label, key(1)).is_on(frame)
    assert Heading(label, other).is_on(frame) == (other == key(1))


@given(count=st.integers(0, 3 * PACKETS_WAITING_MAX))
def test_the_newest_packets_wait(count: int) -> None:
    world = World(2)
    world.lost = lambda _: True
    world.order(0, AdmitPeer(world.engines[1].public_key, (world.at[1],)))
    for number in range(count):
        world.send(0, 1, bytes([number]))
    world.order(1, AdmitPeer(world.engines[0].public_key))
    world.lost = lambda _: False
    world.run(6 * SECOND_NS)
    assert world.packets(1) == [bytes([number]) for number in range(count)][-PACKETS_WAITING_MAX:]
