# SPDX-License-Identifier: Apache-2.0
"""One UDP association of the proxy: the datagrams of one client, to any member and port, and the answers to it.

To a member, each (member, port) is one flow, as of a UDP forward. To this node itself the datagrams leave from a socket
on its loopback, and are answered there. What cannot be sent is dropped and counted: UDP has no refusal.
"""

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from atoll.base.ids import NodeId
from atoll.conduit.forward import LOOPBACK, local_port_taken
from atoll.conduit.forward_udp import TOWARDS, Flows, LocalAddress, Receiver
from atoll.conduit.limits import FLOW_IDLE_S, PROXY_TARGETS_MAX
from atoll.conduit.names import Book, Missing
from atoll.conduit.proxy_wire import decode_datagram, encode_datagram

__all__ = ["ASSOCIATION_SOCKETS", "Association"]

ASSOCIATION_SOCKETS: Final = 2  # One towards the client, one towards this node's own loopback.


@final
@dataclass(slots=True)
class _Target:
    """One member and port that the client has sent to; ``flow`` is None at this node itself."""

    node: NodeId
    port: int
    heard_at: float
    answered: Callable[["_Target", bytes], None]
    flow: int | None = None

    def deliver(self, flow: int, datagram: bytes) -> None:
        """Take an answer (forward_udp.FlowOwner)."""
        assert flow == self.flow
        self.answered(self, datagram)


@final
class Association:
    """A relay for the datagrams of one client.

    Args:
        flows: The node's flows.
        book: Says who is who now.
        tag: Policy tag.
        client: Address of the client, and its port; 0: that of its first datagram. All others' datagrams are dropped.
    """

    def __init__(self, flows: Flows, book: Callable[[], Book], tag: int, client: LocalAddress) -> None:
        self._flows, self._book, self._tag = flows, book, tag
        self._client_host, self._client_port = client
        self._relay: asyncio.DatagramTransport | None = None
        self._own: asyncio.DatagramTransport | None = None
        self._targets: OrderedDict[tuple[NodeId, int], _Target] = OrderedDict()

    async def start(self, host: str) -> tuple[bytes, int]:
        """Open the sockets; return where the client should send, as 4 or 16 bytes and a port.

        Args:
            host: The address that the client is connected to.

        Raises:
            UserError: A404, no socket can be had.
        """
        loop = asyncio.get_running_loop()
        try:
            # The own side first: the other one may be sent to as soon as it is open.
            self._own, _ = await loop.create_datagram_endpoint(
                lambda: Receiver(self._answered_here), local_addr=(LOOPBACK, 0)
            )
            self._relay, _ = await loop.create_datagram_endpoint(
                lambda: Receiver(self._said_by_client), local_addr=(host, 0)
            )
        except OSError as error:
            self.close()
            raise local_port_taken("udp", f"{host}:0", error) from error
        name = self._relay.get_extra_info("sockname")
        return ipaddress.ip_address(name[0]).packed, int(name[1])

    def close(self) -> None:
        """End it; answers that come from now on are dropped."""
        for transport in (self._relay, self._own):
            if transport is not None:
                transport.close()
        while self._targets:
            self._forget_oldest()

    def _said_by_client(self, data: bytes, sender: LocalAddress) -> None:
        host, port = sender
        if host != self._client_host or port != (self._client_port or port):
            self._flows.counts.dropped += 1
            return
        self._client_port = port
        datagram = decode_datagram(data)
        if datagram is None:
            self._flows.counts.dropped += 1
            return
        book = self._book()
        node = book.locate(datagram.host)
        if isinstance(node, Missing) or not datagram.port:
            self._flows.counts.refused += 1
            return
        target = self._touched(node, datagram.port, is_own=node == book.own.node)
        if target.flow is not None:
            self._flows.transmit(node, self._tag, (TOWARDS, target.port, target.flow), datagram.payload)
        else:
            assert self._own is not None
            self._own.sendto(datagram.payload, (LOOPBACK, target.port))

    def _answered_here(self, data: bytes, sender: LocalAddress) -> None:
        host, port = sender
        target = self._targets.get((self._book().own.node, port)) if host == LOOPBACK else None
        if target is None:  # A program that nobody has asked.
            self._flows.counts.dropped += 1
        else:
            self._answered(target, data)

    def _answered(self, target: _Target, data: bytes) -> None:
        target.heard_at = self._flows.clock()
        self._targets.move_to_end((target.node, target.port))
        assert self._relay is not None  # Whoever answers was asked by the client, through it.
        source = self._book().address(target.node)
        self._relay.sendto(encode_datagram(source, target.port, data), (self._client_host, self._client_port))

    def _touched(self, node: NodeId, port: int, *, is_own: bool) -> _Target:
        now = self._flows.clock()
        target = self._targets.get((node, port))
        if target is None:
            target = self._targets[node, port] = _Target(node, port, now, self._answered)
            if not is_own:
                target.flow = self._flows.enrol(target)
        target.heard_at = now
        self._targets.move_to_end((node, port))
        # Oldest first, so this stops at the first one that is still in use; the one just touched always is.
        while len(self._targets) > PROXY_TARGETS_MAX or next(iter(self._targets.values())).heard_at < now - FLOW_IDLE_S:
            self._forget_oldest()
        return target

    def _forget_oldest(self) -> None:
        _, target = self._targets.popitem(last=False)
        if target.flow is not None:
            self._flows.expel(target.flow)
