# SPDX-License-Identifier: Apache-2.0
"""What the tests of a server's parts share: what stands for the server around one of them."""

import asyncio
from collections.abc import Coroutine

from atoll.base.ids import NodeId
from atoll.env.messages import Message, decode_message

__all__ = ["THREE", "TWO", "WAIT_S", "Server"]

WAIT_S = 20.0
TWO, THREE = NodeId(b"two".ljust(10, b".")), NodeId(b"three".ljust(10, b"."))


class Server:
    """Keeps what other nodes are told, and runs coroutines.

    Attributes:
        said: What was told to whom.
        tasks: Coroutines that have not ended.
    """

    def __init__(self) -> None:
        self.said: list[tuple[NodeId, Message]] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def tell_node(self, node: NodeId, payload: bytes) -> None:
        self.said.append((node, decode_message(payload)))

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def rest(self) -> None:
        """Wait until nothing is being done."""
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def stop(self) -> None:
        """End what is being done."""
        for task in tuple(self.tasks):
            task.cancel()
        await self.rest()
