# SPDX-License-Identifier: Apache-2.0
"""UDP forwards: datagrams to a local port come out of the loopback of another member, and the answers come back.

One inner UDP packet carries one datagram, behind a header: ``kind u8 (1 towards the service, 2 back) | reserved u8 |
port u16 | flow u32``. A flow is one local client of one forward; its random number keeps a restarted forward apart from
its elder. Nothing is acknowledged and nothing is resent: UDP in, UDP out. A datagram too long for one inner packet is
dropped and counted. Normative text: docs/spec/streams.md.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct
from time import monotonic
from typing import Final, Protocol, final

from atoll.base.errors import WireError
from atoll.base.ids import GroupId, NodeId, packed_address_of
from atoll.conduit.forward import LOOPBACK, local_port_taken
from atoll.conduit.kernel import Allow
from atoll.conduit.limits import FLOW_IDLE_S, FLOW_PENDING_MAX, FLOWS_MAX, FLOWS_PER_PEER_MAX, INNER_BYTES_MAX
from atoll.conduit.packets import HEADERS_BYTES, UdpPacket, build_udp
from atoll.conduit.streams import SendPacket

__all__ = [
    "FLOW_PORT",
    "PAYLOAD_BYTES_MAX",
    "TOWARDS",
    "FlowCounts",
    "FlowOwner",
    "Flows",
    "LocalAddress",
    "Receiver",
    "UdpForward",
]

FLOW_PORT: Final = 4431  # Spec. Inner UDP port of forwarded datagrams, at both ends.
_HEADER: Final = Struct(">BBHI")
TOWARDS: Final = 1  # Spec. Kind of a datagram towards the service; an answer is 2.
_BACK: Final = 2
PAYLOAD_BYTES_MAX: Final = INNER_BYTES_MAX - HEADERS_BYTES - _HEADER.size

LocalAddress = tuple[str, int]


@dataclass(slots=True)
class FlowCounts:
    """Counters since the start."""

    dropped: int = 0  # Frames that do not decode, or belong to no flow.
    too_long: int = 0  # Datagrams longer than PAYLOAD_BYTES_MAX.
    refused: int = 0  # Beyond a limit, or not allowed.


class FlowOwner(Protocol):
    """Who has flows at the asking side."""

    node: NodeId

    def deliver(self, flow: int, datagram: bytes) -> None:
        """Take an answer of ``node`` to one of its flows."""
        ...


@dataclass(slots=True)
class _Served:
    """A flow at the serving side; ``transport`` None: its socket is being opened, and ``pending`` waits for it."""

    heard_at: float
    transport: asyncio.DatagramTransport | None = None
    pending: list[bytes] = field(default_factory=list[bytes])


@final
class Flows:
    """All forwarded datagrams of one node, in both roles.

    Args:
        group: The group, for overlay addresses.
        own: This node.
        send: Takes inner packets for members.
        allow: Policy of the serving side.
        clock: Monotonic seconds.
    """

    def __init__(
        self, *, group: GroupId, own: NodeId, send: SendPacket, allow: Allow, clock: Callable[[], float] = monotonic
    ) -> None:
        self._group, self._own, self._send, self._allow, self.clock = group, own, send, allow, clock
        self._own_address = packed_address_of(group, own)
        self.counts: Final = FlowCounts()
        self._forwards: dict[int, FlowOwner] = {}  # By flow.
        self._served: OrderedDict[tuple[NodeId, int, int], _Served] = OrderedDict()  # By (member, tag, flow).
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def served_count(self) -> int:
        """Flows that this node serves now."""
        return len(self._served)

    @property
    def asked_count(self) -> int:
        """Flows whose answers this node waits for now."""
        return len(self._forwards)

    def receive(self, node: NodeId, packet: UdpPacket) -> None:
        """Take an inner packet of a member, addressed to FLOW_PORT of this node. Never raises."""
        try:
            if len(packet.payload) < _HEADER.size:
                raise WireError("flow header")
            kind, _, port, flow = _HEADER.unpack_from(packet.payload)
            datagram = packet.payload[_HEADER.size :]
            if kind == TOWARDS and port:
                self._serve((node, packet.tag, flow), port, datagram)
            elif kind == _BACK and (forward := self._forwards.get(flow)) is not None and forward.node == node:
                forward.deliver(flow, datagram)
            else:
                raise WireError("flow unknown")
        except WireError:
            self.counts.dropped += 1

    async def close(self) -> None:
        """Forget all flows."""
        for served in self._served.values():
            if served.transport is not None:
                served.transport.close()
        self._served.clear()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # For UdpForward and proxies.

    def enrol(self, forward: FlowOwner) -> int:
        """Return a number for a new flow of this owner."""
        while True:  # At most some ten thousand of 2^32 numbers are taken.
            flow = secrets.randbits(32)
            if flow not in self._forwards:
                self._forwards[flow] = forward
                return flow

    def expel(self, flow: int) -> None:
        """Forget a flow of a forward."""
        self._forwards.pop(flow, None)

    def transmit(self, node: NodeId, tag: int, header: tuple[int, int, int], datagram: bytes) -> None:
        """Send one datagram, which comes back at once if it is for this node; ``header`` is (kind, port, flow)."""
        if len(datagram) > PAYLOAD_BYTES_MAX:
            self.counts.too_long += 1
            return
        kind, port, flow = header
        payload = _HEADER.pack(kind, 0, port, flow) + datagram
        target = packed_address_of(self._group, node)
        packet = UdpPacket(self._own_address, target, tag, FLOW_PORT, FLOW_PORT, payload)
        if node == self._own:
            self.receive(node, packet)
        else:
            self._send(node, tag, build_udp(packet))

    # The serving side.

    def _serve(self, key: tuple[NodeId, int, int], port: int, datagram: bytes) -> None:
        served = self._served.get(key)
        if served is None:
            self._expire()
            node = key[0]
            is_full = sum(1 for other, _, _ in self._served if other == node) >= FLOWS_PER_PEER_MAX
            if is_full or (node != self._own and not self._allow(node, "udp", port)):
                self.counts.refused += 1
                return
            if len(self._served) >= FLOWS_MAX:
                self._drop(next(iter(self._served)))
            self._served[key] = _Served(self.clock(), pending=[datagram])
            task = asyncio.get_running_loop().create_task(self._dial(key, port))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        served.heard_at = self.clock()
        self._served.move_to_end(key)
        if served.transport is not None:
            served.transport.sendto(datagram)
        elif len(served.pending) < FLOW_PENDING_MAX:
            served.pending.append(datagram)

    async def _dial(self, key: tuple[NodeId, int, int], port: int) -> None:
        node, tag, flow = key

        def back(answer: bytes, _: LocalAddress) -> None:
            served = self._served.get(key)
            if served is not None:
                served.heard_at = self.clock()
                self._served.move_to_end(key)
            self.transmit(node, tag, (_BACK, port, flow), answer)

        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_datagram_endpoint(lambda: Receiver(back), remote_addr=(LOOPBACK, port))
        except OSError:
            self._served.pop(key, None)
            self.counts.refused += 1
            return
        served = self._served.get(key)
        if served is None:
            transport.close()
            return
        served.transport = transport
        for datagram in served.pending:
            transport.sendto(datagram)
        served.pending.clear()

    def _expire(self) -> None:
        # Oldest first, so this stops at the first one that is still in use.
        horizon = self.clock() - FLOW_IDLE_S
        while self._served and next(iter(self._served.values())).heard_at < horizon:
            self._drop(next(iter(self._served)))

    def _drop(self, key: tuple[NodeId, int, int]) -> None:
        served = self._served.pop(key)
        if served.transport is not None:
            served.transport.close()


@final
class UdpForward:
    """Takes datagrams on a local port and forwards them to ``port`` of a member.

    Args:
        flows: The node's flows.
        node: The member.
        port: The port on the member's loopback.
        tag: Policy tag.
    """

    def __init__(self, flows: Flows, node: NodeId, port: int, tag: int) -> None:
        self._flows, self.node, self.port, self.tag = flows, node, port, tag
        self._transport: asyncio.DatagramTransport | None = None
        self._clients: OrderedDict[LocalAddress, tuple[int, float]] = OrderedDict()  # Address -> (flow, heard at).
        self._addresses: dict[int, LocalAddress] = {}  # Flow -> address.

    @property
    def connections(self) -> int:
        """Local clients remembered now."""
        return len(self._clients)

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; return the address in use (``port`` 0: the system chooses one).

        Raises:
            UserError: A404, the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(
                lambda: Receiver(self._arrived), local_addr=(host, port)
            )
        except OSError as error:
            raise local_port_taken("udp", f"{host}:{port}", error) from error
        name = self._transport.get_extra_info("sockname")
        return str(name[0]), int(name[1])

    async def close(self) -> None:
        """Stop listening and forget the clients."""
        if self._transport is not None:
            self._transport.close()
        for address in tuple(self._clients):
            self._forget(address)

    def deliver(self, flow: int, datagram: bytes) -> None:
        """Hand an answer to the local client of a flow."""
        address = self._addresses.get(flow)
        if address is not None and self._transport is not None:
            self._touch(address, flow)
            self._transport.sendto(datagram, address)

    def _arrived(self, datagram: bytes, address: LocalAddress) -> None:
        known = self._clients.get(address)
        flow = self._flows.enrol(self) if known is None else known[0]
        self._touch(address, flow)
        if known is None:
            self._addresses[flow] = address
            self._expire()
        self._flows.transmit(self.node, self.tag, (TOWARDS, self.port, flow), datagram)

    def _touch(self, address: LocalAddress, flow: int) -> None:
        self._clients[address] = (flow, self._flows.clock())
        self._clients.move_to_end(address)

    def _expire(self) -> None:
        horizon = self._flows.clock() - FLOW_IDLE_S
        while len(self._clients) > FLOWS_MAX or next(iter(self._clients.values()))[1] < horizon:
            self._forget(next(iter(self._clients)))

    def _forget(self, address: LocalAddress) -> None:
        flow, _ = self._clients.pop(address)
        self._addresses.pop(flow, None)
        self._flows.expel(flow)


@final
class Receiver(asyncio.DatagramProtocol):
    """Hands datagrams on, with where they came from.

    Errors (a closed port at the far end) are what UDP makes of them: silence.
    """

    def __init__(self, arrived: Callable[[bytes, LocalAddress], None]) -> None:
        self._arrived = arrived

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        """Take one (asyncio.DatagramProtocol)."""
        self._arrived(data, (str(addr[0]), int(addr[1])))
