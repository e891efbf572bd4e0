# SPDX-License-Identifier: Apache-2.0
"""Reliable streams between members: which connection a packet belongs to, and when one is opened, kept or dropped.

One QUIC connection for each (member, policy tag), opened on demand by whoever needs it first; a second one, in the
other direction, when the other side opens streams as well. Connections are told apart by the inner UDP ports: the
opener takes a fresh port for each, the acceptor's is STREAM_PORT. A connection that completes its handshake replaces
its elder of the same member and tag, because a member opens a second one only after it has lost the first.

The overlay may change the path under a connection at any moment. QUIC does not see it, except through ``nudge``.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final, final

from atoll.base.errors import LimitError, LinkError, WireError
from atoll.base.ids import GroupId, NodeId, packed_address_of
from atoll.conduit.connection import Connection, ConnectionKey
from atoll.conduit.far import read_exactly
from atoll.conduit.limits import ACCEPT_TIMEOUT_S, CONNECTIONS_MAX, CONNECTIONS_PER_PEER_MAX
from atoll.conduit.packets import UdpPacket, build_udp
from atoll.conduit.quic import PeerQuic, client_configuration, first_connection_id, server_configuration
from atoll.conduit.stream import HEADER_BYTES, BrokenStreamError, Kind, Reason, Service, Stream

__all__ = ["STREAM_PORT", "SendPacket", "Serve", "StreamCounts", "StreamHost"]

STREAM_PORT: Final = 4430  # Spec. Inner UDP port on which streams are accepted.
UNKNOWN: Final = b"\x00atoll: unknown"  # Spec. The answer to a packet of no connection. Those of QUIC begin otherwise.
_FIRST_PORT: Final = 0xC000  # The ephemeral range of RFC 6335.
_PORTS: Final = 0x4000

SendPacket = Callable[[NodeId, int, bytes], None]
"""Hand an inner packet to the nic: (member, policy tag, packet). Returns at once; the packet may be lost."""

Serve = Callable[[Stream, Service], Awaitable[None]]
"""Serve one incoming stream: ``accept`` or ``refuse`` it first. It is closed when this returns."""


@dataclass(slots=True)
class StreamCounts:
    """Counters of one host, since its start."""

    dropped: int = 0  # Packets that belonged to no connection and could not open one.
    refused: int = 0  # Openings beyond a limit.
    faults: int = 0  # Connections ended by a bug inside aioquic.


@final
class StreamHost:
    """All streams of one node.

    Args:
        group: The group, for overlay addresses.
        own: This node.
        send: Takes inner packets for members.
        serve: Serves incoming streams other than echoes.
        clock: Monotonic seconds.
    """

    def __init__(
        self, *, group: GroupId, own: NodeId, send: SendPacket, serve: Serve, clock: Callable[[], float] = monotonic
    ) -> None:
        self._group, self._send, self._serve = group, send, serve
        self._own_address = packed_address_of(group, own)
        self.clock = clock
        self.buffered_bytes = 0
        self.counts: Final = StreamCounts()
        self._connections: dict[ConnectionKey, Connection] = {}
        self._outgoing: dict[tuple[NodeId, int], Connection] = {}
        self._client, self._server = client_configuration(), server_configuration()
        self._next_port = secrets.randbelow(_PORTS)  # A restarted node must not meet its elder's connections.
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connection_count(self) -> int:
        """Connections in both roles."""
        return len(self._connections)

    def stands(self, node: NodeId, tag: int) -> bool:
        """Return whether a stream to a member would begin without a handshake."""
        connection = self._outgoing.get((node, tag))
        return connection is not None and connection.is_established

    def open(self, node: NodeId, tag: int, service: Service) -> Stream:
        """Open a stream to a member, over the connection in use or a new one; write to it at once.

        A refusal, or a member that cannot be reached, shows as ``BrokenStreamError`` at the first read or write.

        Raises:
            LimitError: CONNECTIONS_MAX connections, or STREAMS_MAX streams on this one.
        """
        connection = self._outgoing.get((node, tag))
        if connection is None:
            connection = self._outgoing[node, tag] = self._connect(node, tag)
        return connection.open(service)

    def receive(self, node: NodeId, packet: UdpPacket) -> None:
        """Take an inner packet of a member, addressed to this node. Never raises.

        Args:
            node: The member whose session it came out of; the nic has checked the packet's source address.
            packet: As parsed.
        """
        key = ConnectionKey(node, packet.tag, packet.target_port, packet.source_port)
        connection = self._connections.get(key)
        if packet.payload == UNKNOWN:
            self._disown(connection)
            return
        if connection is None:
            try:
                connection = self._accept(key, packet.payload)
            except WireError:
                self.counts.dropped += 1
                if key.own_port == STREAM_PORT:
                    self.transmit(key, UNKNOWN)
                return
            except LimitError:
                self.counts.refused += 1
                return
        connection.feed(packet.payload)

    def _disown(self, connection: Connection | None) -> None:
        """End a connection that its member does not know: it was started anew, and whoever writes there would wait."""
        if connection is not None and connection.is_established and connection.key.peer_port == STREAM_PORT:
            connection.close()

    def nudge(self, node: NodeId) -> None:
        """Say that packets to or from this member were lost and the cause is over: resend them now.

        To be called when the overlay leaves a silent or lossy path, or begins to send copies; not at a change for a
        merely better path, because it resends up to NUDGE_PACKETS_MAX packets that may not be lost.
        """
        for key, connection in tuple(self._connections.items()):
            if key.node == node:
                connection.nudge()

    def forget(self, node: NodeId) -> None:
        """End all connections with a node that is no member any more."""
        for key, connection in tuple(self._connections.items()):
            if key.node == node:
                connection.close()

    async def close(self) -> None:
        """End everything; the members are told."""
        for connection in tuple(self._connections.values()):
            connection.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What connections tell the host (connection.ConnectionOwner).

    def transmit(self, key: ConnectionKey, datagram: bytes) -> None:
        """Send one datagram of a connection."""
        target = packed_address_of(self._group, key.node)
        packet = UdpPacket(self._own_address, target, key.tag, key.own_port, key.peer_port, datagram)
        self._send(key.node, key.tag, build_udp(packet))

    def incoming(self, stream: Stream) -> None:
        """Serve a stream that a member opened."""
        task = asyncio.get_running_loop().create_task(self._served(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def established(self, connection: Connection) -> None:
        """Drop the elders of a connection that a member opened, and with them ours to it.

        A member that opens anew while its elder stands was itself started anew: it knows nothing of what we opened
        either, and whoever writes there would wait for IDLE_TIMEOUT_S.
        """
        if connection.key.own_port != STREAM_PORT:
            return
        for key, elder in tuple(self._connections.items()):
            is_twin = (key.node, key.tag, key.own_port) == (connection.node, connection.tag, STREAM_PORT)
            if is_twin and elder is not connection and elder.is_established:
                elder.close()
                ours = self._outgoing.get((connection.node, connection.tag))
                if ours is not None and ours.is_established:
                    ours.close()

    def ended(self, connection: Connection) -> None:
        """Forget a connection."""
        self.counts.faults += connection.fault is not None
        self._connections.pop(connection.key, None)
        if self._outgoing.get((connection.node, connection.tag)) is connection:
            del self._outgoing[connection.node, connection.tag]

    def _connect(self, node: NodeId, tag: int) -> Connection:
        if len(self._connections) >= CONNECTIONS_MAX:
            raise LimitError("CONNECTIONS_MAX", CONNECTIONS_MAX)
        while True:  # At most CONNECTIONS_MAX of the 16,384 ports are taken.
            self._next_port = (self._next_port + 1) % _PORTS
            key = ConnectionKey(node, tag, _FIRST_PORT + self._next_port, STREAM_PORT)
            if key not in self._connections:
                break
        connection = self._connections[key] = Connection(self, key, PeerQuic(self._client), is_client=True)
        return connection

    def _accept(self, key: ConnectionKey, datagram: bytes) -> Connection:
        if key.own_port != STREAM_PORT:
            raise WireError("packet of no connection")
        opened_with = first_connection_id(datagram)
        mine = [connection for other, connection in self._connections.items() if other.node == key.node]
        if len(mine) >= CONNECTIONS_PER_PEER_MAX:
            # A member that keeps opening and never completes takes its own place, nobody else's.
            unfinished = [one for one in mine if one.key.own_port == STREAM_PORT and not one.is_established]
            if not unfinished:
                raise LimitError("CONNECTIONS_PER_PEER_MAX", CONNECTIONS_PER_PEER_MAX)
            unfinished[0].close()
        if len(self._connections) >= CONNECTIONS_MAX:
            raise LimitError("CONNECTIONS_MAX", CONNECTIONS_MAX)
        quic = PeerQuic(self._server, opened_with)
        connection = self._connections[key] = Connection(self, key, quic, is_client=False)
        return connection

    async def _served(self, stream: Stream) -> None:
        try:
            async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                header = await read_exactly(stream, HEADER_BYTES)
            service = Service.decode(header)
            if service.kind is Kind.ECHO:
                await _echo(stream)
            else:
                await self._serve(stream, service)
        except WireError:
            stream.refuse(Reason.NO_SERVICE)
        except (LinkError, TimeoutError):
            pass  # Its own end: the member went away, or never said what it wanted.
        finally:
            stream.close()


async def _echo(stream: Stream) -> None:
    stream.accept()
    try:
        while data := await stream.read(HEADER_BYTES * 1024):
            await stream.write(data)
        stream.write_end()
    except BrokenStreamError:
        stream.close()
