# SPDX-License-Identifier: Apache-2.0
"""The conduits of one node together: which inner packet goes to which of them, and echoes.

Decides nothing else. The node feeds it what the nic hands up and calls ``nudge`` when the overlay leaves a bad path.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final, final

from atoll.base.errors import LimitError, WireError
from atoll.base.ids import GroupId, NodeId, packed_address_of
from atoll.conduit.dial import Carriers
from atoll.conduit.forward import Order, Targets, TcpForward, TcpService, as_given
from atoll.conduit.forward_udp import FLOW_PORT, Flows, UdpForward
from atoll.conduit.kernel import Allow, InnerService, InnerTcp
from atoll.conduit.limits import ECHO_WAITERS_MAX
from atoll.conduit.names import Book
from atoll.conduit.packets import EchoPacket, UdpPacket, build_echo, parse, reset_for
from atoll.conduit.proxy import Proxy
from atoll.conduit.pump import Pump
from atoll.conduit.stream import Kind, Reason, Service, Stream
from atoll.conduit.streams import SendPacket, Serve, StreamHost
from atoll.conduit.timing import Served, Timed, untold

__all__ = ["ECHO_IDENTIFIER", "Stack", "allow_all"]

ECHO_IDENTIFIER: Final = 0xA701  # Tells our echoes from those of other programs that ping.
_ECHO_PAYLOAD: Final = b"atoll ping"


def allow_all(node: NodeId, protocol: str, port: int) -> bool:  # noqa: ARG001 -- the shape of a policy.
    """Allow every member to reach every port of this machine's loopback: the default policy."""
    return True


@final
class Stack:
    """Streams, forwards and echoes of one node.

    Args:
        group: The group, for overlay addresses.
        own: This node.
        send: Takes inner packets for members: (member, policy tag, packet).
        allow: Who may reach which loopback port of this machine.
        timed: Is told how quick the programs are that members reach there.
        clock: Monotonic seconds.

    Attributes:
        timed: As above; may be exchanged at any time.
    """

    def __init__(
        self,
        *,
        group: GroupId,
        own: NodeId,
        send: SendPacket,
        allow: Allow = allow_all,
        timed: Timed = untold,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._group, self._own, self._send, self._clock = group, own, send, clock
        self._own_address = packed_address_of(group, own)
        self.timed = timed
        self._tcp = TcpService(allow, self._served)
        pump = Pump()
        self.kernel: Final = InnerTcp(group, own, clock)
        self.inner: Final = InnerService(group, allow, pump, self._served)
        self._answers: dict[Kind, Serve] = {}
        self.streams: Final = StreamHost(group=group, own=own, send=send, serve=self._serve, clock=clock)
        self.carriers: Final = Carriers(own, self.streams, self.kernel, pump)
        self.flows: Final = Flows(group=group, own=own, send=send, allow=allow, clock=clock)
        self._echoes: dict[tuple[NodeId, int, int], asyncio.Future[float]] = {}
        self._sequence = 0
        self.dropped = 0  # Packets that do not parse, or are meant for nobody here.

    def receive(self, node: NodeId, packet: bytes) -> None:
        """Take an inner packet that came out of a member's session. Never raises."""
        try:
            parsed = parse(packet)
        except WireError:
            self._refuse(node, packet)
            return
        match parsed:
            case UdpPacket(target_port=port) if port == FLOW_PORT:
                self.flows.receive(node, parsed)
            case UdpPacket():
                self.streams.receive(node, parsed)
            case EchoPacket(is_reply=False):
                answer = EchoPacket(
                    self._own_address,
                    packed_address_of(self._group, node),
                    parsed.tag,
                    is_reply=True,
                    identifier=parsed.identifier,
                    sequence=parsed.sequence,
                    payload=parsed.payload,
                )
                self._send(node, parsed.tag, build_echo(answer))
            case EchoPacket():
                waiter = self._echoes.pop((node, parsed.identifier, parsed.sequence), None)
                if waiter is not None and not waiter.done():
                    waiter.set_result(self._clock())

    def receive_from_guest(self, guest: NodeId, packet: bytes) -> None:
        """Take an inner packet of a guest: an echo is answered, and nothing else here is for it. Never raises."""
        try:
            parsed = parse(packet)
        except WireError:
            parsed = None
        if isinstance(parsed, EchoPacket):
            self.receive(guest, packet)
        else:
            self.dropped += 1

    def _refuse(self, node: NodeId, packet: bytes) -> None:
        """Answer a TCP packet, which would be the kernel's if it had a network here; drop everything else."""
        reset = reset_for(packet)
        if reset is None:
            self.dropped += 1
        else:
            self._send(node, 0, reset)

    def _served(self, served: Served) -> None:
        self.timed(served)

    def answer(self, kind: Kind, answer: Serve) -> None:
        """Hand the streams of a kind, QUESTION or ENVIRONMENTS, to ``answer``.

        Until then they are refused, as by a node that does not know the kind.
        """
        self._answers[kind] = answer

    async def _serve(self, stream: Stream, service: Service) -> None:
        if service.kind is Kind.TCP:
            await self._tcp.serve(stream, service)
        elif (answer := self._answers.get(service.kind)) is None:
            stream.refuse(Reason.NO_SERVICE)
        else:
            await answer(stream, service)

    def nudge(self, node: NodeId) -> None:
        """Say that the overlay has just left a bad path to this member; see ``StreamHost.nudge``."""
        self.streams.nudge(node)
        self.kernel.nudge(node)

    def forget(self, node: NodeId) -> None:
        """End all connections with a node that is no member any more."""
        self.streams.forget(node)
        self.kernel.forget(node)
        self.inner.forget(node)

    def tcp_forward(self, nodes: tuple[NodeId, ...], port: int, tag: int, order: Order = as_given) -> TcpForward:
        """Return a TCP forward to one of these members at a time, this node too; ``start`` it."""
        return TcpForward(self.carriers, Targets(nodes, port, order), tag)

    def udp_forward(self, node: NodeId, port: int, tag: int) -> UdpForward:
        """Return a UDP forward, to this node too; ``start`` it."""
        return UdpForward(self.flows, node, port, tag)

    def proxy(self, book: Callable[[], Book], tag: int) -> Proxy:
        """Return a SOCKS5 and HTTP proxy into the overlay; ``start`` it. ``book`` says who is a member now."""
        return Proxy(self.carriers, self.flows, book, tag)

    async def echo(self, node: NodeId, tag: int, timeout_s: float) -> float | None:
        """Send one echo through the overlay; return its round trip in seconds, or None: no answer in time.

        Raises:
            LimitError: ECHO_WAITERS_MAX are on their way.
        """
        if len(self._echoes) >= ECHO_WAITERS_MAX:
            raise LimitError("ECHO_WAITERS_MAX", ECHO_WAITERS_MAX)
        self._sequence = (self._sequence + 1) & 0xFFFF
        key = (node, ECHO_IDENTIFIER, self._sequence)
        waiter: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._echoes[key] = waiter
        target = packed_address_of(self._group, node)
        request = EchoPacket(
            self._own_address,
            target,
            tag,
            is_reply=False,
            identifier=ECHO_IDENTIFIER,
            sequence=self._sequence,
            payload=_ECHO_PAYLOAD,
        )
        sent_at = self._clock()
        self._send(node, tag, build_echo(request))
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter - sent_at
        except TimeoutError:
            return None
        finally:
            self._echoes.pop(key, None)

    async def close(self) -> None:
        """End everything."""
        await self.kernel.close()
        await self.inner.close()
        await self.streams.close()
        await self.flows.close()
