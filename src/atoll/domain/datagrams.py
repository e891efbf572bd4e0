# SPDX-License-Identifier: Apache-2.0
"""The way of small messages between servers of environments: straight to the packet device, past control.

Messages of one turn of the loop for one node share a datagram. What is too large, or too much, takes the stream that
control carries; and for a while after it, by its size, all that follows does, so that it is not overtaken. So do the
first messages to a server that was not heard of yet.
"""

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable
from typing import Final, final

from atoll.base.errors import WireError
from atoll.base.ids import NODE_ID_BYTES, GroupId, NodeId, packed_address_of
from atoll.base.units import MIB, SECOND_NS
from atoll.conduit.datagrams import (
    ACK_NS,
    DATAGRAM_PORT,
    MESSAGE_BYTES_MAX,
    ReliableDatagrams,
    bodies_of,
    messages_of,
)
from atoll.conduit.limits import INNER_BYTES_MAX
from atoll.conduit.packets import UdpPacket, build_udp, parse
from atoll.domain.messages import Datagrams
from atoll.domain.oddities import Oddities
from atoll.domain.turns import Turn

__all__ = ["DatagramDoor", "Streaming"]

log: Final = logging.getLogger("atoll.envs")

LIFE_BITS: Final = 32
STREAM_S: Final = 0.05
STREAM_BYTES_S: Final = 4 * MIB  # So much of a stream is taken to arrive in a second.
STREAM_S_MAX: Final = 2.0  # Limit. Then what is still on its way may be overtaken, which the machines mend.
TURN_PACKETS_MAX: Final = 64  # Limit. Read before anything else has its turn.


@final
class Streaming:
    """Decides until when small messages take the stream behind large ones. Times are monotonic, in seconds."""

    def __init__(self) -> None:
        self._until: dict[NodeId, float] = {}

    def note(self, node: NodeId, size: int, now_s: float) -> None:
        """Note that so many bytes of a message that is for the stream went there."""
        until_s = max(now_s + STREAM_S, self._until.get(node, 0.0)) + size / STREAM_BYTES_S
        self._until[node] = min(until_s, now_s + STREAM_S_MAX)

    def is_going_on(self, node: NodeId, now_s: float) -> bool:
        """Return whether what is on the stream to a node may not have arrived."""
        return now_s < self._until.get(node, 0.0)

    def keep(self, nodes: frozenset[NodeId]) -> None:
        """Forget all nodes but these."""
        self._until = {node: until for node, until in self._until.items() if node in nodes}


@final
class DatagramDoor:
    """One server's.

    Args:
        device: Connection to the packet device, one inner packet a message; owned from now on.
        addresses: The group, and this node.
        take: Takes a message of a member.
        carry: Sends a message the other way, by the stream.
        taken: Called after messages that came together were all taken.
    """

    def __init__(
        self,
        device: socket.socket,
        addresses: tuple[GroupId, NodeId],
        *,
        take: Callable[[NodeId, bytes], None],
        carry: Callable[[NodeId, bytes], None],
        taken: Callable[[], None],
    ) -> None:
        device.setblocking(False)  # noqa: FBT003 - the socket module's own form.
        self._device, (self._group, own) = device, addresses
        self._own_address: Final = packed_address_of(self._group, own)
        self._addresses: dict[NodeId, bytes] = {}  # Of the members.
        self._take, self._carry, self._taken = take, carry, taken
        self._loop: Final = asyncio.get_running_loop()
        self._machine: Final = ReliableDatagrams(secrets.randbelow((1 << LIFE_BITS) - 1) + 1)
        self._waiting: dict[NodeId, list[bytes]] = {}
        self._streaming: Final = Streaming()
        self._turn: Final = Turn(self._flush)
        self._timer: asyncio.TimerHandle | None = None
        self._oddities: Final = Oddities(log, "another node")
        self.dropped = 0  # What the device did not take, and what is no datagram of ours.
        self._loop.add_reader(device, self._readable)

    @property
    def counts(self) -> Datagrams:
        """What became of everything so far."""
        machine = self._machine
        return Datagrams(machine.sent, machine.resent, machine.lost, self.dropped)

    def members(self, members: frozenset[NodeId]) -> None:
        """Speak with these from now on, and with nobody else."""
        self._addresses = {node: packed_address_of(self._group, node) for node in members}
        self._machine.keep(members)
        self._streaming.keep(members)

    def send(self, node: NodeId, message: bytes) -> None:
        """Send a message to a member, by either way. It comes once or, as by a stream that breaks, not at all."""
        if len(message) > MESSAGE_BYTES_MAX:
            self._stream(node, message)
            return
        if node not in self._addresses or self._streaming.is_going_on(node, self._loop.time()):
            self._carry(node, message)
            return
        self._waiting.setdefault(node, []).append(message)
        self._turn.later()

    def hurry(self) -> None:
        """Let what was sent leave now, if it is the first of this turn."""
        if self._waiting:
            self._turn.now()

    def close(self) -> None:
        """End it."""
        self._loop.remove_reader(self._device)
        if self._timer is not None:
            self._timer.cancel()
        self._device.close()

    def _stream(self, node: NodeId, message: bytes) -> None:
        self._streaming.note(node, len(message), self._loop.time())
        self._carry(node, message)

    def _flush(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        now_ns = self._now_ns()
        for node, messages in waiting.items():
            for body in bodies_of(messages):
                if not self._machine.send(node, body, now_ns):
                    for message in messages_of(body):
                        self._stream(node, message)
        self._after()

    def _readable(self) -> None:
        now_ns, has_taken = self._now_ns(), False
        for _ in range(TURN_PACKETS_MAX):
            try:
                packet = self._device.recv(INNER_BYTES_MAX + 1)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                packet = b""
            if not packet:  # The device let go of it: control gives another one to the next, and all goes by streams.
                self._loop.remove_reader(self._device)
                break
            has_taken |= self._received(packet, now_ns)
        if has_taken:
            self._taken()
        self._after()

    def _received(self, packet: bytes, now_ns: int) -> bool:
        """Take a packet; return whether there were messages in it."""
        try:
            inner = parse(packet)
            node = NodeId(inner.source[-NODE_ID_BYTES:])
            if not isinstance(inner, UdpPacket) or node not in self._addresses:
                raise WireError("datagram of a stranger")
            body = self._machine.receive(node, inner.payload, now_ns)
            messages = messages_of(body or b"")
        except WireError:
            self.dropped += 1
            return False
        for message in messages:
            try:
                self._take(node, message)
            except Exception as error:  # noqa: BLE001  A supervisor: what is behind it is not to be lost with it.
                self.dropped += 1
                self._oddities.note(message, error)
        return bool(messages)

    def _tick(self) -> None:
        self._timer = None
        self._machine.tick(self._now_ns())
        self._after()

    def _after(self) -> None:
        """Do what the machine wants done, and set the timer, unless one goes off sooner: it looks again then."""
        machine = self._machine
        for node, payload in machine.outbox:
            self._emit(node, payload)
        machine.outbox.clear()
        if self._timer is not None and self._timer.when() <= self._loop.time() + ACK_NS / SECOND_NS:
            return  # Nothing new is due sooner, and in traffic this is nearly always so.
        due_ns = machine.deadline_ns
        if due_ns is not None and (self._timer is None or due_ns / SECOND_NS < self._timer.when()):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due_ns / SECOND_NS, self._tick)

    def _emit(self, node: NodeId, payload: bytes) -> None:
        target = self._addresses.get(node)
        if target is None:
            return
        packet = build_udp(UdpPacket(self._own_address, target, 0, DATAGRAM_PORT, DATAGRAM_PORT, payload))
        try:
            self._device.send(packet)
        except OSError:  # It does not take more now, or is being started again; it is sent again in a moment.
            self.dropped += 1

    def _now_ns(self) -> int:
        return int(self._loop.time() * SECOND_NS)
