# SPDX-License-Identifier: Apache-2.0
"""The datagrams of one local client, to any member and port, and the answers to them.

To a member, each (member, port) is one flow, as of a UDP forward. To this node itself the datagrams leave from a socket
on its loopback, and are answered there. What cannot be sent is dropped and counted: UDP has no refusal.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from atoll.base.ids import NodeId
from atoll.conduit.forward import LOOPBACK, local_port_taken
from atoll.conduit.forward_udp import TOWARDS, Flows, LocalAddress, Receiver
from atoll.conduit.limits import FLOW_IDLE_S, PROXY_TARGETS_MAX
from atoll.conduit.names import Book, Missing

__all__ = ["Correspondence"]

Answered = Callable[[NodeId, int, bytes], None]
"""Takes an answer: (who, from which port, datagram)."""


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
class Correspondence:
    """One client's.

    Args:
        flows: The node's flows.
        book: Says who is who now.
        tag: Policy tag.
        answered: Takes the answers.
    """

    def __init__(self, flows: Flows, book: Callable[[], Book], tag: int, answered: Answered) -> None:
        self._flows, self._book, self._tag, self._answer = flows, book, tag, answered
        self._own: asyncio.DatagramTransport | None = None
        self._targets: Final[OrderedDict[tuple[NodeId, int], _Target]] = OrderedDict()

    async def start(self) -> None:
        """Open the socket towards this node's own loopback.

        Raises:
            UserError: A404, it cannot be had.
        """
        loop = asyncio.get_running_loop()
        try:
            self._own, _ = await loop.create_datagram_endpoint(
                lambda: Receiver(self._answered_here), local_addr=(LOOPBACK, 0)
            )
        except OSError as error:
            raise local_port_taken("udp", f"{LOOPBACK}:0", error) from error

    def close(self) -> None:
        """End it; answers that come from now on are dropped."""
        if self._own is not None:
            self._own.close()
        while self._targets:
            self._forget_oldest()

    def send(self, host: str | bytes, port: int, datagram: bytes) -> None:
        """Send one datagram; to nobody we know, or to port 0, it is dropped and counted."""
        book = self._book()
        node = book.locate(host)
        if isinstance(node, Missing) or not port:
            self._flows.counts.refused += 1
            return
        target = self._touched(node, port, is_own=node == book.own.node)
        if target.flow is not None:
            self._flows.transmit(node, self._tag, (TOWARDS, port, target.flow), datagram)
        elif self._own is not None:
            self._own.sendto(datagram, (LOOPBACK, port))

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
        self._answer(target.node, target.port, data)

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
