# SPDX-License-Identifier: Apache-2.0
"""The network of the kernel in which this node has its overlay address: which one it is, made when it is needed.

That is the machine's own (``up --tun``) or the private one. Programs enter it (``exec``), and connections between
members are opened and accepted in it (``conduit.kernel``). Without need, none of it exists and nothing is spent.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from hashlib import blake2s
from typing import Final, final

from atoll.base.errors import LinkError, UserError
from atoll.base.ids import GroupId, NodeId, address_of
from atoll.conduit.kernel import InnerService
from atoll.conduit.opening import INNER_KEY_BYTES, TCP_PORT
from atoll.group.identity import Identity
from atoll.node.limits import PRIVATE_RETRY_S
from atoll.node.private import Private
from atoll.node.tunnel import Tunnel

__all__ = ["Inner", "inner_key"]

log: Final = logging.getLogger("atoll.node")


def inner_key(identity: Identity, node: NodeId) -> bytes:
    """Return what a member must show to be connected here: the same in each life of this node, and no two alike.

    It is told to members over their sessions. Without it any program on a member's machine that has the overlay as its
    network could open what only the member itself may.
    """
    secret = blake2s(identity.secret, person=b"atolltcp").digest()
    return blake2s(node, key=secret, digest_size=INNER_KEY_BYTES).digest()


@final
class Inner:
    """The network, and the listening socket in it.

    Args:
        group: The group.
        identity: Of this node.
        service: Serves what members open.
        is_member: Says whether a node is a member now.
        made: Called when the private network has been made.
        listening: Called when members can connect.
    """

    def __init__(
        self,
        group: GroupId,
        identity: Identity,
        service: InnerService,
        is_member: Callable[[NodeId], bool],
        *,
        made: Callable[[], None],
        listening: Callable[[], None],
    ) -> None:
        self._group, self._identity, self._service = group, identity, service
        self._is_member, self._made, self._listening = is_member, made, listening
        self.tunnel: Tunnel | None = None
        self.private: Private | None = None
        self.is_listening = False
        self._lock, self._opening = asyncio.Lock(), asyncio.Lock()
        self._refusal: tuple[float, UserError] | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def network(self) -> Tunnel | Private | None:
        """The network, if there is one by now."""
        return self.tunnel or self.private

    async def ready(self, *, fresh: bool = False) -> Tunnel | Private:
        """Return the network, made if need be.

        Args:
            fresh: Try also when it was refused a moment ago: a person asks, who may have changed a setting.

        Raises:
            UserError: A112, the system forbids it.
        """
        async with self._lock:
            if self.network is None:
                if self._refusal is not None and not fresh and self._loop.time() < self._refusal[0]:
                    raise self._refusal[1]
                try:
                    self.private = await asyncio.to_thread(Private, self._group, self._identity.node)
                except UserError as error:
                    if self._refusal is None:
                        log.info("connections go by QUIC alone: %s (%s)", error.sentence, error.where)
                    self._refusal = (self._loop.time() + PRIVATE_RETRY_S, error)
                    raise
                self._made()
            found = self.network
            assert found is not None
            return found

    async def socket(self) -> socket.socket:
        """Return a TCP socket in it, neither bound nor connected.

        Raises:
            LinkError: None can be made now.
            UserError: A112.
        """
        return await (await self.ready()).socket()

    async def offer(self, node: NodeId) -> bytes | None:
        """Return the key by which a member may open connections here, once they are accepted; None: they are not."""
        try:
            await self._listen()
        except (LinkError, UserError):
            return None
        return inner_key(self._identity, node)

    def key_for(self, node: NodeId) -> bytes | None:
        """Return the key that a node must show; None: it is no member."""
        return inner_key(self._identity, node) if self._is_member(node) else None

    async def _listen(self) -> None:
        async with self._opening:  # Two members may ask at once.
            if not self.is_listening:
                await self._begin()

    async def _begin(self) -> None:
        listener = await self.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address_of(self._group, self._identity.node), TCP_PORT))
        except OSError as error:
            listener.close()
            log.info("connections of members come by QUIC alone: TCP port %d: %s", TCP_PORT, error.strerror)
            raise LinkError(str(error)) from error
        self.is_listening = True
        await self._service.serve(listener, self.key_for)
        self._listening()

    async def close(self) -> None:
        """Let go of it."""
        if self.tunnel is not None:
            self.tunnel.close()
        if self.private is not None:
            await self.private.close()
