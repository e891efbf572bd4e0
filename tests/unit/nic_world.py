# SPDX-License-Identifier: Apache-2.0
"""Engines joined back to back in memory, for the tests of the packet device."""

from collections.abc import Callable
from random import Random

from atoll.base.ids import DIRECT, Endpoint, GroupId, NodeId, PublicKey, node_id_of, packed_address_of
from atoll.base.units import SECOND_NS
from atoll.device.nic.config import EngineConfig
from atoll.device.nic.engine import Engine
from atoll.device.nic.frame import FRAME_HEADER_BYTES, FRAME_KIND
from atoll.device.nic.messages import AdmitPeer, EngineOrder, PacketReceived, Report, SendPacket
from atoll.overlay.orders import SendControl, SetArrivalLabel, SetForwardLabel, SetTransmitLabel
from atoll.overlay.reports import ControlReceived
from atoll.overlay.session import PrivateKey

GROUP = GroupId(bytes(range(32)))
WALL_NS = 1_700_000_000 * SECOND_NS
ANY_RATE = 1 << 40

Datagram = tuple[Endpoint, Endpoint, bytes]  # From, to, bytes.


def key(number: int) -> bytes:
    return bytes([number]) * 32


def node_of(number: int) -> NodeId:
    return node_id_of(PublicKey(PrivateKey(key(number)).public))


class World:
    """A few engines on one lossless network without delay; ``lost`` says what does not arrive."""

    def __init__(self, count: int, *, relay_bytes_s: int = ANY_RATE, compiled: bool = True) -> None:
        self.now_ns = 1_000 * SECOND_NS
        self.engines = [
            Engine(
                private_key=key(number),
                group=GROUP,
                rng=Random(number),
                now_ns=self.now_ns,
                wall_ns=WALL_NS,
                limits=EngineConfig(relay_bytes_s=relay_bytes_s, compiled=compiled),
            )
            for number in range(1, count + 1)
        ]
        self.at: list[Endpoint] = [(f"10.0.0.{number}", 4000) for number in range(1, count + 1)]
        self.sent: list[Datagram] = []
        self.reports: list[list[Report]] = [[] for _ in self.engines]
        self.lost: Callable[[Datagram], bool] = lambda _: False
        self.kernel: list[list[bytes]] = [[] for _ in self.engines]  # Writes to the TUN device, virtio header first.
        self.bursts = 0
        # Over TCP: (from, endpoint there) to (to, endpoint as it is seen there).
        self.connections: dict[tuple[int, Endpoint], tuple[int, Endpoint]] = {}

    @property
    def wall_ns(self) -> int:
        return WALL_NS + self.now_ns

    def order(self, number: int, *orders: EngineOrder) -> None:
        for order in orders:
            self.engines[number].order(order, self.now_ns, self.wall_ns)
        self.settle()

    def receive(self, number: int, datagram: bytes, source: Endpoint, *, under_load: bool = False) -> None:
        self.engines[number].receive(datagram, source, self.now_ns, self.wall_ns, under_load=under_load)
        self.settle()

    def settle(self) -> None:
        """Deliver everything, and what comes of it, until nothing is on its way."""
        moving = True
        while moving:
            moving = False
            for index, engine in enumerate(self.engines):
                self.reports[index] += engine.reports
                engine.reports.clear()
                out = [(self.at[index], to, datagram) for to, datagram in engine.outbox]
                engine.outbox.clear()
                self.take_bursts(index)
                for datagram in out:
                    moving = True
                    connected = self.connections.get((index, datagram[1]))
                    if connected is not None:
                        there, source = connected
                        self.engines[there].receive(datagram[2], source, self.now_ns, self.wall_ns)
                        continue
                    self.sent.append(datagram)
                    if not self.lost(datagram) and datagram[1] in self.at:
                        there = self.at.index(datagram[1])
                        self.engines[there].receive(datagram[2], datagram[0], self.now_ns, self.wall_ns)

    def take_bursts(self, index: int) -> None:
        """Take what is good only until the engine's next call; deliver bursts as bursts, but for what is lost."""
        engine = self.engines[index]
        for packet in engine.inlet.outbox:
            self.kernel[index].append(b"".join(packet) if isinstance(packet, list) else bytes(10) + packet)
        engine.inlet.outbox.clear()
        bursts = [(to, bytes(data), size) for to, data, size in engine.bursts]
        engine.bursts.clear()
        for to, data, size in bursts:
            self.bursts += 1
            cut = [(self.at[index], to, data[at : at + size]) for at in range(0, len(data), size)]
            self.sent += cut
            left = bytearray().join(one[2] for one in cut if not self.lost(one))
            if left and to in self.at:
                there = self.at.index(to)
                self.engines[there].receive_burst(memoryview(left), size, self.at[index], self.now_ns, self.wall_ns)
                self.take_bursts(there)

    def run(self, duration_ns: int) -> None:
        """Let time pass, ticking each engine when it wants it."""
        end_ns = self.now_ns + duration_ns
        while (next_ns := min(engine.deadline_ns for engine in self.engines)) <= end_ns:
            self.now_ns = max(self.now_ns, next_ns)
            for engine in self.engines:
                if engine.deadline_ns <= self.now_ns:
                    engine.tick(self.now_ns, self.wall_ns)
                    assert engine.deadline_ns > self.now_ns
            self.settle()
        self.now_ns = end_ns

    def introduce(self) -> None:
        """Make all peers of all, before any of them is heard."""
        for index in range(len(self.engines)):
            for other, engine in enumerate(self.engines):
                if other != index:
                    admit = AdmitPeer(engine.public_key, (self.at[other],))
                    self.engines[index].order(admit, self.now_ns, self.wall_ns)
        self.settle()

    def lease(self, origin: int, relay: int, target: int, *, rate_bytes_s: int = ANY_RATE) -> None:
        """Give labels for one direction: origin to target over relay."""
        label = 1 + 16 * origin + target
        away, onward = key(100 + label), key(150 + label)
        source, middle, sink = self.node(origin), self.node(relay), self.node(target)
        self.order(relay, SetForwardLabel(label, away, source, sink, label + 1000, onward, rate_bytes_s))
        self.order(target, SetArrivalLabel(label + 1000, onward, middle, source))
        self.order(origin, SetTransmitLabel(sink, middle, label, away))

    def node(self, index: int) -> NodeId:
        return self.engines[index].node

    def packet(self, source: int, target: int, payload: bytes = b"hello") -> bytes:
        return ipv6(self.node(source), self.node(target), payload)

    def send(self, source: int, target: int, payload: bytes = b"hello", *, tag: int = 0) -> None:
        self.order(source, SendPacket(self.node(target), tag, self.packet(source, target, payload)))

    def say(self, source: int, target: int, payload: bytes, via: bytes = DIRECT) -> None:
        self.order(source, SendControl(self.node(target), via, payload))

    def packets(self, index: int) -> list[bytes]:
        """Payloads of the packets that a node got."""
        return [report.packet[40:] for report in self.reports[index] if isinstance(report, PacketReceived)]

    def heard(self, index: int) -> list[tuple[bytes, bytes]]:
        """(via, payload) of the control messages that a node got."""
        return [(report.via, report.payload) for report in self.reports[index] if isinstance(report, ControlReceived)]

    def dropped(self, index: int) -> dict[str, int]:
        return self.engines[index].dropped

    def frames(self) -> list[Datagram]:
        return [datagram for datagram in self.sent if datagram[2].startswith(FRAME_KIND)]


def ipv6(source: NodeId, target: NodeId, payload: bytes) -> bytes:
    addresses = packed_address_of(GROUP, source) + packed_address_of(GROUP, target)
    return b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + b"\x11\x40" + addresses + payload


def reforged(frame: bytes, **changes: bytes) -> bytes:
    """Return the frame with some of its fields replaced."""
    fields = {"kind": frame[:4], "label": frame[4:12], "mac": frame[12:20], "inner": frame[FRAME_HEADER_BYTES:]}
    return b"".join((fields | changes).values())
