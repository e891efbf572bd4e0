# SPDX-License-Identifier: Apache-2.0
"""One UDP association of the proxy: the datagrams of one SOCKS client, to any member and port, and the answers."""

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Final, final

from atoll.base.ids import NodeId
from atoll.conduit.correspondence import Correspondence
from atoll.conduit.forward import local_port_taken
from atoll.conduit.forward_udp import Flows, LocalAddress, Receiver
from atoll.conduit.names import Book
from atoll.conduit.proxy_wire import decode_datagram, encode_datagram

__all__ = ["ASSOCIATION_SOCKETS", "Association"]

ASSOCIATION_SOCKETS: Final = 2  # One towards the client, one towards this node's own loopback.


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
        self._flows, self._book = flows, book
        self._client_host, self._client_port = client
        self._relay: asyncio.DatagramTransport | None = None
        self._letters = Correspondence(flows, book, tag, self._answered)

    async def start(self, host: str) -> tuple[bytes, int]:
        """Open the sockets; return where the client should send, as 4 or 16 bytes and a port.

        Args:
            host: The address that the client is connected to.

        Raises:
            UserError: A404, no socket can be had.
        """
        loop = asyncio.get_running_loop()
        await self._letters.start()  # First: the other one may be sent to as soon as it is open.
        try:
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
        if self._relay is not None:
            self._relay.close()
        self._letters.close()

    def _said_by_client(self, data: bytes, sender: LocalAddress) -> None:
        host, port = sender
        if host != self._client_host or port != (self._client_port or port):
            self._flows.counts.dropped += 1
            return
        self._client_port = port
        datagram = decode_datagram(data)
        if datagram is None:
            self._flows.counts.dropped += 1
        else:
            self._letters.send(datagram.host, datagram.port, datagram.payload)

    def _answered(self, node: NodeId, port: int, data: bytes) -> None:
        assert self._relay is not None  # Whoever answers was asked by the client, through it.
        answer = encode_datagram(self._book().address(node), port, data)
        self._relay.sendto(answer, (self._client_host, self._client_port))
