# SPDX-License-Identifier: Apache-2.0

"""Every decoder that foreign bytes reach, what it may raise, and good encodings to start from.

This list is the one place where decoders are registered: `make fuzz` runs atheris over it (fuzz/run.py), and
tests/property/test_decoders_fuzz.py runs hypothesis over it on each change, together with the kept corpus in
fuzz/corpus/NAME. Whoever writes a decoder adds a line to ``DECODERS``. What atheris finds is written to
fuzz/corpus/NAME and committed with the fix.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import msgspec
from environments import ENVIRONMENTS
from member import NOW_NS, WALL_NS, answer_request, group_of_three

from atoll.base.errors import CorruptError, UserError, WireError
from atoll.base.ids import DIRECT, Endpoint, NodeId, PublicKey, node_id_of, packed_address_of
from atoll.base.member import Member
from atoll.base.units import SECOND_NS
from atoll.cli.settings import load
from atoll.conduit import packets, proxy_wire
from atoll.conduit.names import Book
from atoll.conduit.opening import Opening
from atoll.conduit.stack import Stack
from atoll.conduit.stream import Kind, Service
from atoll.core.journal import Provenance, Recorder, read
from atoll.core.machine import MachineKind
from atoll.device.nic import messages as nic
from atoll.device.nic.engine import Engine
from atoll.device.nic.frame import LABEL_END, Heading, inner_of, label_of
from atoll.device.nic.limits import OUTBOX_MAX
from atoll.device.nic.plaintext import pad_control, take_packet, unpad_control
from atoll.env import holding, query, query_grammar
from atoll.env.holding import messages as owning
from atoll.env.space import Space, decode_tuple
from atoll.group import messages as group
from atoll.group.admission import Invites
from atoll.group.events import Sign, Signed, Stored, StoreRoster
from atoll.group.form import decode_form
from atoll.group.invite import Invitation, decode_invitation, encode_invitation
from atoll.group.roster import Roster
from atoll.group.statement import (
    Admit,
    AdmitGuest,
    Gateway,
    Name,
    Profile,
    RemoveGuest,
    Statement,
    decode_statement,
    encode_statement,
    signed,
)
from atoll.health.members.messages import Ailment, Ailments, decode_ailments, encode_ailments
from atoll.lab.emulator import serve
from atoll.lab.groups import blueprints, identity_of
from atoll.node.asking import decode_answer, decode_question
from atoll.node.attached import Letter, pack_letter, unpack_letter
from atoll.node.control import Control, ControlInput
from atoll.node.metrics_http import judge
from atoll.overlay import messages as overlay
from atoll.overlay.guests import Serving, decode_serving, encode_serving
from atoll.overlay.orders import SendControl, SetArrivalLabel, SetForwardLabel, SetGuest, SetRoute, SetTransmitLabel
from atoll.overlay.reports import ControlReceived, GuestUp, SessionDown, SessionUp
from atoll.overlay.session import Sessions

__all__ = ["CORPUS", "DECODERS", "INPUT_BYTES_MAX", "Decoder", "corpus_of", "run_once"]

CORPUS: Final = Path(__file__).resolve().parent / "corpus"
INPUT_BYTES_MAX: Final = 4096  # Longer than all bounds below but the journal's and HTTP's.


@dataclass(frozen=True, slots=True)
class Decoder:
    """One way in for foreign bytes.

    Attributes:
        name: Also the name of its corpus directory.
        decode: Called with any bytes.
        refuses: What it may raise; anything else is a fault.
        seeds: Good encodings, made by the encoder of today.
    """

    name: str
    decode: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]


_NODE: Final = bytes(range(10))
_MEMBER: Final = Member(b"k" * 32, b"s" * 32, "fra-1", (("192.0.2.1", 41641), ("2001:db8::1", 41641)))
_LINK: Final = overlay.Link(_NODE, 88_000, 900, 120, 0, 1)
_INVITATION: Final = Invitation(
    b"i" * 16, b"k" * 32, (("192.0.2.1", 41641), ("2001:db8::1", 1)), 1_700_000_000, b"g" * 8
)
_SYN: Final = bytes.fromhex("6000000000140640") + bytes(32) + b"\xc0\0\x11\x50" + bytes(8) + b"\x50\2" + bytes(6)
_HOLDING: Final = (
    owning.Store(3, 7, 2, (owning.Block(8, 3, (_NODE,), b"sealed"),), 6, 123, counted=True),
    owning.Stored(3, accepted=False, number=4, echo_ns=123),
    owning.Canvass(4, 9, 3, trial=True, transfer=False),
    owning.Promised(3, 4, trial=True, granted=True),
    owning.HandOver(3, (_NODE,)),
    owning.SnapshotPart(3, 5, 2, (_NODE,), 0, 10, b"part", 123),
    owning.PartStored(3, 5, 4, 123),
)
_HOLDING_SNAPSHOT: Final = holding.Holding.create(
    holding.HoldingOptions(_NODE, b"seed", (1, _NODE), holders=(_NODE,), blocks=((1, 1, (_NODE,)),)), 0
).snapshot()
_SOURCE, _TARGET = b"\xfd" + bytes(15), b"\xfd" + b"\1" * 15


class _Echo:
    """The smallest machine, for a journal to start from."""

    deadline_ns: int | None = None

    def handle(self, event: overlay.Probe, now_ns: int) -> tuple[overlay.Probe, ...]:
        return (event,) if now_ns else ()

    def snapshot(self) -> bytes:
        return b"\xc0"


def _journal() -> bytes:
    kind: MachineKind[overlay.Probe, overlay.Probe] = MachineKind(
        "echo", 1, overlay.Probe, overlay.Probe, lambda _: _Echo()
    )
    recorder = Recorder(kind, _Echo(), Provenance("0.1.0", "fra-1", 1, 0), segment_bytes_max=120)
    for now_ns in range(5):
        recorder.handle(overlay.Probe(now_ns, 1, 1000, 0, 0, 0, 0, 0), now_ns)
    return b"".join(append.payload for append in recorder.drain())


# Steps: what needs state is fed a row of them, each ``mode u8 | pick u8 | length u16 | body``. What mode and pick mean
# is each target's own; whatever the bytes are, they are steps, so that a fuzzer wastes none.

_Step = tuple[int, int, bytes]
STEPS_MAX: Final = 64


def _steps(data: bytes) -> Iterator[_Step]:
    at = 0
    for _ in range(STEPS_MAX):
        if at + 4 > len(data):
            return
        length = int.from_bytes(data[at + 2 : at + 4], "little")
        yield data[at], data[at + 1], data[at + 4 : at + 4 + length]
        at += 4 + length


def _step(mode: int, pick: int, body: bytes = b"") -> bytes:
    return bytes((mode, pick)) + len(body).to_bytes(2, "little") + body


def _mixed(datagram: bytes, mask: bytes) -> bytes:
    """Return the datagram with a mask laid over it; one as long as it or longer cuts it to the mask's last byte."""
    flipped = bytes(a ^ b for a, b in zip(datagram, mask, strict=False)) + datagram[len(mask) :]
    return flipped[: mask[-1]] if len(mask) >= len(datagram) else flipped


# The packet device, with real sessions: we are an engine, and two peers are bare sessions that seal whatever they like.

_RAW, _REAL, _FRAMED, _SEALED = range(4)  # Two lowest bits of the mode: what the body is.
_FROM_RELAY, _FROM_FAR, _FROM_STRANGER, _FROM_NOWHERE = (0, 4, 8, 12)  # The next two: from where.
_LOADED, _LATER, _MUCH_LATER = 16, 32, 64  # Under load; a second, or 70 s, before it.
_STRANGER: Final[Endpoint] = ("203.0.113.9", 9)
_PLACES: Final[tuple[Endpoint, ...]] = (("10.0.0.1", 4000), ("10.0.0.2", 4000), _STRANGER, ("not an address", 1 << 20))
_GROUP: Final = blueprints(3, 1)[0].group
_LABEL_KEY: Final = b"l" * 32
_FORWARD, _ARRIVAL = 7, 8  # Labels: the first one we granted, the second one arrives with us.


def _secret(number: int) -> bytes:
    return bytes([number + 1]) * 32


class _Device:
    """Our engine in the middle of its life: two peers with sessions, labels in every role, a packet waiting."""

    def __init__(self) -> None:
        self.now_ns = NOW_NS
        self.engine = Engine(private_key=_secret(0), group=_GROUP, rng=Random(0), now_ns=NOW_NS, wall_ns=WALL_NS)
        self.peers = [Sessions(private_key=_secret(number), rng=Random(number), now_ns=NOW_NS) for number in (1, 2)]
        self.nodes = [node_id_of(PublicKey(peer.public_key)) for peer in self.peers]
        for peer, place in zip(self.peers, _PLACES, strict=False):
            peer.add_peer(self.engine.public_key)
            self.order(nic.AdmitPeer(peer.public_key, (place,)))
        self.settle()
        relay, far = self.nodes
        self.order(SetForwardLabel(_FORWARD, _LABEL_KEY, relay, far, 9, _LABEL_KEY, 1 << 20))
        self.order(SetArrivalLabel(_ARRIVAL, _LABEL_KEY, relay, far))
        self.order(SetTransmitLabel(far, relay, 10, _LABEL_KEY))
        self.order(SetRoute(far, 0, relay, DIRECT))
        self.fresh = self._under_way()
        self.engine.outbox.clear()
        self.engine.reports.clear()

    def order(self, order: nic.EngineOrder) -> None:
        self.engine.order(order, self.now_ns, WALL_NS + self.now_ns)

    def settle(self) -> None:
        """Finish the handshakes: carry everything, until nobody says anything."""
        while self.engine.outbox:
            for place, datagram in self.engine.outbox:
                peer = self.peers[_PLACES.index(place)]
                peer.receive(datagram, b"us", self.now_ns, WALL_NS, under_load=False)
            self.engine.outbox.clear()
            for peer, place in zip(self.peers, _PLACES, strict=False):
                for said in peer.outbox:
                    self.engine.receive(said.datagram, place, self.now_ns, WALL_NS)
                peer.outbox.clear()

    def _under_way(self) -> list[bytes]:
        """Return real datagrams to us that did not arrive yet: data, control, frames, a handshake."""
        own = self.engine
        plain = [packet_between(own.node, node) for node in self.nodes]
        plain += [pad_control(message, 7, direct=True) for message in _SAID]
        sealed = [self.sealed(index % 2, plaintext) for index, plaintext in enumerate([*plain, b""])]
        frames = [Heading(label, _LABEL_KEY).pack(sealed[1]) for label in (_FORWARD, _ARRIVAL)]
        again = Sessions(private_key=_secret(2), rng=Random(7), now_ns=NOW_NS, wall_floor_ns=2 * WALL_NS)
        again.add_peer(own.public_key)
        again.connect(own.public_key, NOW_NS, WALL_NS)
        return [*sealed, *frames, *(said.datagram for said in again.outbox)]

    def sealed(self, pick: int, plaintext: bytes) -> bytes:
        sealed = self.peers[pick].seal(self.engine.public_key, plaintext, self.now_ns, WALL_NS)
        return b"" if sealed is None else sealed

    def take(self, step: _Step) -> None:
        """Take one step: a datagram to us. Nothing may raise, grow, or be reported in a form that control refuses."""
        mode, pick, body = step
        self.now_ns += SECOND_NS * (bool(mode & _LATER) + 70 * bool(mode & _MUCH_LATER))
        engine, wall_ns = self.engine, WALL_NS + self.now_ns
        engine.tick(self.now_ns, wall_ns)
        engine.outbox.clear()
        match mode & 3:
            case 0:
                datagram = body
            case 1:
                datagram = _mixed(self.fresh[pick % len(self.fresh)], body)
            case 2:
                datagram = Heading(pick % 16, _LABEL_KEY).pack(body)
            case _:
                datagram = self.sealed(pick % 2, body)
        place = _PLACES[mode >> 2 & 3]
        engine.receive(datagram, place, self.now_ns, wall_ns, under_load=bool(mode & _LOADED))
        assert len(engine.outbox) <= OUTBOX_MAX
        if mode & 3 == _RAW:  # Who has no key and no session makes us send nothing, or less than was received.
            assert sum(len(out) for to, out in engine.outbox if to == place) <= len(datagram), "an amplifier"
        nic.decode_reports(nic.join_items([nic.encode_item(report) for report in engine.reports]))
        engine.reports.clear()


def packet_between(target: NodeId, source: NodeId) -> bytes:
    """Return an inner packet between two nodes of the group of this file."""
    ends = packed_address_of(_GROUP, source), packed_address_of(_GROUP, target)
    return packets.build_udp(packets.UdpPacket(*ends, 0, 7, 8, b"payload"))


def _receive_datagrams(data: bytes) -> int:
    device = _Device()
    for step in _steps(data):
        device.take(step)
    return sum(device.engine.dropped.values())


def _device_seeds() -> tuple[bytes, ...]:
    count = len(_Device().fresh)
    real = [_step(_REAL | _FROM_FAR * (pick % 2), pick) for pick in range(count)]
    return (
        b"".join(real),
        b"".join(_step(_REAL | _FROM_STRANGER, pick) for pick in range(count)),
        b"".join(one + one for one in real),
        b"".join(_step(_SEALED, pick, body) for pick, body in enumerate((*_SAID, bytes(40), b"\x60" + bytes(60)))),
        b"".join(_step(_FRAMED, label, b"\x04\0\0\0" + bytes(28)) for label in range(6, 11)),
        b"".join(
            _step(_RAW | _FROM_STRANGER | _LOADED, 0, kind.to_bytes(4, "little") + bytes(144)) for kind in range(6)
        ),
        _step(_REAL | _MUCH_LATER, 0, b"\1") + _step(_REAL | _LATER, 1),
    )


def _receive_sessions(data: bytes) -> int:
    """Feed steps to sessions that are established: raw, or real with a mask."""
    device = _Device()
    ours, theirs = device.peers[0], device.engine.public_key
    real = [datagram for place, datagram in _said_to_relay(device) if place == _PLACES[0]]
    now_ns = device.now_ns
    for mode, pick, body in _steps(data):
        now_ns += SECOND_NS * (bool(mode & _LATER) + 70 * bool(mode & _MUCH_LATER))
        datagram = _mixed(real[pick % len(real)], body) if mode & 3 == _REAL else body
        ours.tick(now_ns, WALL_NS)
        ours.outbox.clear()
        ours.receive(datagram, bytes((pick,)) * 18, now_ns, WALL_NS, under_load=bool(mode & _LOADED))
        ours.seal(theirs, body[:64], now_ns, WALL_NS)
        assert len(ours.outbox) <= STEPS_MAX
    return sum(ours.counters.dropped.values())


def _said_to_relay(device: _Device) -> list[tuple[Endpoint, bytes]]:
    """Return real datagrams from our engine: data, control and a handshake."""
    for message in _SAID:
        device.order(SendControl(device.nodes[0], DIRECT, message))
    device.order(nic.SendPacket(device.nodes[0], 0, packet_between(device.nodes[0], device.engine.node)))
    device.engine.tick(device.now_ns + 130 * SECOND_NS, WALL_NS + 130 * SECOND_NS)
    return list(device.engine.outbox)


def _obey_orders(data: bytes) -> int:
    """Decode orders as the packet device does, and obey them."""
    engine = Engine(private_key=_secret(0), group=_GROUP, rng=Random(0), now_ns=NOW_NS, wall_ns=WALL_NS)
    for order in nic.decode_orders(data):
        if not isinstance(order, nic.Configure | nic.AttachTun | nic.AttachPort | nic.Stop):
            engine.order(order, NOW_NS, WALL_NS)
    return len(engine.outbox)


def _batches(items: Sequence[nic.Order | nic.Report]) -> tuple[bytes, ...]:
    encoded = [nic.encode_item(item) for item in items]
    return (*(nic.join_items([item]) for item in encoded), nic.join_items(encoded))


def _frame(data: bytes) -> bool:
    label = label_of(data)
    return label is not None and label < LABEL_END and Heading(label, _LABEL_KEY).is_on(data) and bool(inner_of(data))


def _plaintext(data: bytes) -> bytes:
    """Open a plaintext of at least one byte, as the engine does: no shorter one comes from a session."""
    return take_packet(data)[0] if data[:1] and data[0] >> 4 == 6 else unpad_control(data or b"\0")[0]


# A whole control machine.


def _told_by_members(data: bytes) -> int:
    """Let two linked members say anything to a third. What it decides must be orders that the device accepts."""
    snapshot, now_ns = group_of_three()
    control = Control.restore(snapshot)
    nodes = [plan.member.node for plan in blueprints(3, 1)]
    for mode, pick, body in _steps(data):
        now_ns += SECOND_NS * (bool(mode & _LATER) + 70 * bool(mode & _MUCH_LATER))
        via = (DIRECT, nodes[2 - pick % 2], nodes[0], b"nobody----")[mode & 3]
        _handle(control, ControlReceived(nodes[1 + pick % 2], via, body), now_ns)
    control.snapshot()
    return control.unknown_messages


def _handle(control: Control, event: ControlInput, now_ns: int) -> None:
    waiting = [event]
    for _ in range(STEPS_MAX):
        if not waiting:
            return
        for effect in control.handle(waiting.pop(0), now_ns):
            match effect:
                case Sign(request_id, payload):
                    waiting.append(Signed(request_id, identity_of(1, 0).sign(payload)))
                case StoreRoster():
                    waiting.append(Stored(effect.version))
                case _ if isinstance(effect, nic.EngineOrder):
                    nic.decode_orders(nic.join_items([nic.encode_item(effect)]))
                case _:
                    pass


def _take_inner(data: bytes) -> int:
    """Hand a member's inner packets to the conduits; nobody may reach a port of this machine."""

    async def received() -> int:
        own, node = (plan.member.node for plan in blueprints(2, 1))
        stack = Stack(group=_GROUP, own=own, send=lambda *_: None, allow=lambda *_: False)
        for mode, _, body in _steps(data):
            if mode & 1:  # The body of a datagram to the port that QUIC or flows have; else a whole packet.
                port = 4430 + (mode >> 1 & 1)
                udp = packets.UdpPacket(_SOURCE, _TARGET, 0, 50_000, port, body[:1200])
                stack.receive(node, packets.build_udp(udp))
            else:
                stack.receive(node, body)
            await asyncio.sleep(0)
        await stack.close()
        return stack.dropped

    return asyncio.run(received())


def _proxied(data: bytes) -> object:
    """Take what a program says to the proxy, as a handshake in two pieces and as a datagram; look up whom it names."""
    own, *members = (plan.member for plan in blueprints(3, 1))
    book = Book(_GROUP, "group", own, tuple(members))
    handshake = proxy_wire.Handshake()
    steps = handshake.feed(data[: len(data) // 2])
    if not steps or isinstance(steps[-1], proxy_wire.Say):
        steps += handshake.feed(data[len(data) // 2 :])
    asked = [step for step in steps if isinstance(step, proxy_wire.Request)]
    datagram = proxy_wire.decode_datagram(data)
    hosts = [one.host for one in asked] + ([] if datagram is None else [datagram.host])
    return [book.locate(host) for host in hosts], [one.target for one in asked]


# Files and commands of people.


def _settings(data: bytes) -> object:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return load({}, {}, Path(file.name))


def _command(data: bytes) -> None:
    """Give lines to the emulator; each is answered."""

    async def served() -> list[bytes]:
        reader, answers = asyncio.StreamReader(), list[bytes]()
        reader.feed_data(data)
        reader.feed_eof()
        await serve(1, reader, answers.append)
        return answers

    for answer in asyncio.run(served()):
        msgspec.json.decode(answer)


def _roster(data: bytes) -> object:
    roster = Roster.decode(data)
    invites = Invites.restored(decode_form(data).kept, 9, 5)
    assert Invites.restored(invites.keep(1, 9, 5), 9, 5) == invites, "what was read is the same when it was written"
    return roster.members(), roster.name, roster.digest(), Roster.decode(roster.encode())


def _take_statement(data: bytes) -> object:
    """Take in a statement from anywhere, beside what is known."""
    roster = Roster.trusted(_ROSTER)
    statement = decode_statement(data)
    return roster.add(statement), roster.members(), roster.encode()


def _statements() -> tuple[bytes, ...]:
    """Return statements that a roster takes: an admission, a profile, a name; a removal is made by the fuzzer."""
    roster, founder = Roster.trusted(_ROSTER), identity_of(1, 0)
    guest = identity_of(1, 9)
    bodies = (
        Admit(Member(guest.public_key, guest.signing_key, "late", (("192.0.2.9", 1),))),
        Profile(Member(founder.public_key, founder.signing_key, "renamed", ())),
        Name("lab"),
        Gateway(b"g" * 32, ((guest.node, b"b" * 80),)),
        AdmitGuest(b"p" * 32, b"g" * 32, "phone"),
        RemoveGuest(b"p" * 32),
    )
    return tuple(
        encode_statement(signed(roster.group, roster.draft(founder.signing_key, body), founder.sign)) for body in bodies
    )


_SAID: Final = (
    overlay.encode(overlay.Probe(1, 2, 1000, 3, 4, 5, 0xFFFF_FFFF, 1)),
    overlay.encode(overlay.LinkState(7, 1, True, 0, 1, 255, 2, (_LINK,))),  # noqa: FBT003  A wire field.
    overlay.encode(overlay.LabelRequest(blueprints(3, 1)[2].member.node)),
    overlay.encode(overlay.LabelNotice(blueprints(3, 1)[2].member.node, 1, b"a" * 32, 2, b"b" * 32, 120)),
    group.encode(group.Hello(1, 1, 99, 1_700_000_000, "0.1.0")),
    group.encode(group.Digest(99, b"d" * 16)),
)
_ROSTER: Final = blueprints(3, 1)[0].roster
_INVITES: Final = Invites()
_INVITES.issue(b"k" * 32, 1_700_000_600, 1_700_000_000, 0)
_BATCHES: Final = (
    nic.AdmitPeer(b"p" * 32, (("192.0.2.1", 1),), b"k" * 32),
    nic.ExpelPeer(b"p" * 32),
    nic.SendPacket(_NODE, 0, b"\x60" + bytes(39)),
    nic.OpenGateway(b"g" * 32, b"b" * 80),
    nic.ServeGuest(b"p" * 32, b"g" * 32),
    nic.ShareGateway(b"", (b"p" * 32,)),
    nic.SetTraffic(((_NODE, 6, 1, 2, -1, 200, 1, 1),), asks=True),
    nic.FlowOwned(6, bytes(20), (1,), 2),
    SetGuest(_NODE, _NODE),
    SendControl(_NODE, DIRECT, b"\x91\x01"),
    SetRoute(_NODE, 0, DIRECT, _NODE),
    SetTransmitLabel(_NODE, _NODE, 1, b"k" * 32),
    SetForwardLabel(1, b"k" * 32, _NODE, _NODE, 2, b"k" * 32, 1),
    SetArrivalLabel(1, b"k" * 32, _NODE, _NODE),
    nic.Configure(b"g" * 32, b"k" * 32, (("192.0.2.1", 0),)),
    nic.Stop(),
)
_REPORTS: Final = (
    SessionUp(_NODE, 1),
    GuestUp(_NODE, b"s" * 12),
    nic.GatewayShared(b"g" * 32, ((b"p" * 32, b"b" * 80),)),
    SessionDown(_NODE),
    ControlReceived(_NODE, DIRECT, b"\x91\x01"),
    nic.Listening((("192.0.2.1", 1),), "EADDRINUSE"),
    nic.PacketReceived(_NODE, b"\x60" + bytes(39)),
    nic.EndpointSeen(_NODE, "192.0.2.1", 1),
    nic.NicCounters({"forged": 1}),
    nic.FlowOpened(17, bytes(20)),
    nic.Timestamp(1),
)
_REQUESTS: Final = (
    b'{"method":"status"}',
    b'{"method":"why","params":{"target":"n1","tag":"loss","source":"n0"}}',
    b'{"method":"why","params":{"target":"n1","port":80}}',
    b'{"method":"observe","params":{"samples":[{"component":"db:orders","latency_s":0.1}]}}',
    b'{"method":"metrics"}',
    b'{"method":"ping","params":{"node":"n2","count":1}}',
    b'{"method":"invite"}',
    b'{"method":"remove","params":{"node":"n2"}}',
    b'{"method":"forward.add","params":{"protocol":"tcp","local":"127.0.0.1:1","node":"n1","port":80}}',
    b'{"method":"forward.add","params":{"protocol":"socks","local":"127.0.0.1:1","anyone":true}}',
    b'{"method":"forward.list"}',
    b'{"method":"client.list"}',
    b'{"method":"down"}',
)
_COMMANDS: Final = (
    b'{"type":"AddNode","name":"a","port":1}\n{"type":"AddNode","name":"b","port":2}\n'
    b'{"type":"SetLink","source":"a","target":"b","delay_us":1000,"jitter_us":10,"loss":1}\n'
    b'{"type":"Impair","source":"a","target":"b","key":"k","loss":3000,"rate_bytes_s":9,"blackhole":true}\n'
    b'{"type":"Mend","key":"k"}\n{"type":"Count"}\n'
)


_PLAIN: Final = msgspec.msgpack.encode({"is": "Bid", "who": "bob", "amount": 101, "tags": ["a", 1, None, {"b": b"c"}]})
_QUERY: Final = query.where(
    "Bid", query.field("amount") > 100, ~query.field("tags").contains("b") | query.field("who").one_of("bob", None)
)


def _query(data: bytes) -> object:
    """Decode a query, print it, read it, and ask it."""
    found = query.decode(data)
    assert query_grammar.parse(query_grammar.text(found)) == found, "what was printed is read as the same"
    return query.types_of(found), query.matches(found, decode_tuple(_PLAIN))


def _keep_tuple(data: bytes) -> object:
    """Put a tuple into a space and restore that."""
    space = Space()
    space.put(decode_tuple(data), 1, 1)
    restored = msgspec.msgpack.decode(msgspec.msgpack.encode(space), type=Space)
    assert msgspec.msgpack.encode(restored) == msgspec.msgpack.encode(space), "restored and living are the same"
    return space.take(_QUERY, 1), restored.expire(1 << 40)


def _scraped(data: bytes) -> object:
    """Judge the head of a request for metrics."""
    return judge(data, lambda host: host == "fra")


DECODERS: Final = (
    Decoder(
        "overlay",
        overlay.decode,
        (WireError,),
        (
            overlay.encode(overlay.Probe(1, 2, 1000, 3, 4, 5, 0xFFFF_FFFF, 1)),
            overlay.encode(overlay.LinkState(7, 1, True, 0, 1, 255, 2, (_LINK, _LINK))),  # noqa: FBT003  A wire field.
            overlay.encode(overlay.LabelRequest(_NODE)),
            overlay.encode(overlay.LabelGrant(_NODE, 1, b"a" * 32, 2, b"b" * 32, 120)),
            overlay.encode(overlay.LabelRefusal(_NODE, 2)),
            overlay.encode(overlay.Place(_NODE, "192.0.2.9", 7_747)),
        ),
    ),
    Decoder(
        "group",
        group.decode,
        (WireError,),
        (
            group.encode(group.Hello(1, 1, 99, 1_700_000_000, "0.1.0")),
            group.encode(group.Digest(99, b"d" * 16)),
            group.encode(group.JoinRequest(1, 1, _MEMBER, b"p" * 64, 0)),
        ),
    ),
    Decoder(
        "statement",
        decode_statement,
        (WireError,),
        (encode_statement(Statement(b"s" * 32, 1, b"", Admit(_MEMBER), b"g" * 64)),),
    ),
    Decoder(
        "invitation",
        lambda data: decode_invitation(data.decode("utf-8", "surrogateescape")),  # As a command line gives it.
        (UserError,),
        (encode_invitation(_INVITATION).encode(),),
    ),
    Decoder(
        "packet",
        packets.parse,
        (WireError,),
        (
            packets.build_udp(packets.UdpPacket(_SOURCE, _TARGET, 0, 1, 2, b"payload")),
            packets.build_echo(packets.EchoPacket(_SOURCE, _TARGET, 1, False, 1, 2, b"odd")),  # noqa: FBT003  A field.
        ),
    ),
    Decoder(
        "stream",
        # A stream's reader hands over exactly a header, whatever the sender did.
        lambda data: Service.decode((data + bytes(4))[: len(Service(Kind.ECHO).encode())]),
        (WireError,),
        (Service(Kind.TCP, 443).encode(),),
    ),
    Decoder("opening", Opening.decode, (WireError,), (Opening(443, 2, bytes(range(16))).encode(),)),
    Decoder("unasked", packets.reset_for, (), (_SYN,)),
    Decoder("journal", lambda data: list(read(data)), (CorruptError, UserError), (_journal(),)),
    *(Decoder(*one) for one in ENVIRONMENTS),
    Decoder("orders", _obey_orders, (WireError,), _batches(_BATCHES)),
    Decoder("reports", nic.decode_reports, (WireError,), _batches(_REPORTS)),
    Decoder("serving", decode_serving, (WireError,), (encode_serving(Serving(((_NODE, b"s" * 12),))),)),
    Decoder(
        "ailments",
        decode_ailments,
        (WireError,),
        (
            encode_ailments(
                Ailments(9, 7, (Ailment(_NODE, "disk", failed=False, age_s=9, usual_us=1000, newest_us=90_000),))
            ),
        ),
    ),
    Decoder("holding", holding.decode, (WireError,), tuple(holding.encode(bytes(16), said) for said in _HOLDING)),
    Decoder("holding-snapshot", holding.Holding.restore, (CorruptError,), (_HOLDING_SNAPSHOT,)),
    Decoder("letter", unpack_letter, (WireError,), (pack_letter(Letter("fra-1", 53, b"payload")),)),
    Decoder("frame", _frame, (), (Heading(1, _LABEL_KEY).pack(b"\4\0\0\0" + bytes(28)),)),
    Decoder(
        "plaintext",
        _plaintext,
        (WireError,),
        (
            packets.build_udp(packets.UdpPacket(_SOURCE, _TARGET, 0, 1, 2, b"payload")),
            pad_control(_SAID[0], 7, direct=True),
        ),
    ),
    Decoder("device", _receive_datagrams, (), _device_seeds()),
    Decoder(
        "sessions",
        _receive_sessions,
        (),
        (b"".join(_step(_REAL, pick) for pick in range(9)), _step(_RAW, 0, b"\1" * 148)),
    ),
    Decoder(
        "members",
        _told_by_members,
        (),
        tuple(_step(_LATER, pick, body) for pick, body in enumerate((*_SAID, *_SAID))),
    ),
    Decoder("roster", _roster, (CorruptError,), (_ROSTER, Roster.trusted(_ROSTER).encode(kept=_INVITES.keep(1, 0, 0)))),
    Decoder("taken", _take_statement, (WireError,), _statements()),
    Decoder("snapshot", Control.restore, (CorruptError,), (group_of_three()[0],)),
    Decoder(
        "conduits",
        _take_inner,
        (),
        (_step(1, 0, b"\xc0\0\0\0\1\x08" + bytes(40)), _step(3, 0, b"\1\0\0\x50" + bytes(9))),
    ),
    Decoder(
        "proxy",
        _proxied,
        (),
        (
            b"\5\1\0\5\1\0\3\2n1\0\x50",
            b"CONNECT n1.group.atoll:80 HTTP/1.1\r\nHost: n1\r\n\r\n",
            b"\0\0\0\4" + _SOURCE + b"\0\x35query",
        ),
    ),
    Decoder("request", answer_request, (UserError, ConnectionError), _REQUESTS),
    Decoder("metrics", _scraped, (), (b"GET /metrics HTTP/1.1\r\nHost: localhost:9464",)),
    Decoder("question", decode_question, (WireError,), (b'{"ask":"why","target":"%020d","tag":"loss"}' % 0,)),
    Decoder(
        "answer", decode_answer, (WireError,), (b'{"failure":"path"}', b'{"tcp":"000102030405060708090a0b0c0d0e0f"}')
    ),  # Whole ones are in the corpus.
    Decoder("query", _query, (WireError,), (query.encode(_QUERY), query.encode(query.Everything()))),
    Decoder(
        "query-text",
        lambda data: query_grammar.parse(data.decode("utf-8", "surrogateescape")),  # As a command line gives it.
        (UserError,),
        (query_grammar.text(_QUERY).encode(), rb"""'\u{1f600}'."b c" in (x"00ff", 1.5e3, true)"""),
    ),
    Decoder("tuple", _keep_tuple, (WireError,), (_PLAIN,)),
    Decoder("settings", _settings, (UserError,), (b'name = "fra"\nlisten = "0.0.0.0:7747"\nrelay-budget = 2\n',)),
    Decoder("emulator", _command, (), (_COMMANDS,)),
)


def corpus_of(decoder: Decoder) -> list[bytes]:
    """Return the seeds and the kept corpus of a decoder."""
    kept = sorted(path for path in (CORPUS / decoder.name).glob("*") if path.is_file())
    return [*decoder.seeds, *(path.read_bytes() for path in kept)]


def run_once(decoder: Decoder, data: bytes) -> bool:
    """Decode these bytes; return whether they are good. Anything but a declared refusal is raised."""
    try:
        decoder.decode(data)
    except decoder.refuses:
        return False
    return True
