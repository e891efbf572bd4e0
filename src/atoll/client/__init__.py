# SPDX-License-Identifier: Apache-2.0
"""The group from inside a Python program: connections, datagrams and news, through the node that runs on this machine.

::

    async with atoll.join() as group:
        reader, writer = await group.open_connection("sin", 5432)
        auction = await group.environment("auction")
        print(await auction.call(Bid("chair", "ann", 20), Lot))

The program holds no key and speaks no protocol of ours: the node does, and may be restarted or upgraded on its own.
"""

from atoll.client.connection import Writer
from atoll.client.datagrams import Datagrams
from atoll.client.environments import CallError, RemoteEnvironment
from atoll.client.group import Event, Group, join

__all__ = ["CallError", "Datagrams", "Event", "Group", "RemoteEnvironment", "Writer", "join"]
