# SPDX-License-Identifier: Apache-2.0
"""Connections over TCP of real packet devices: who is let in, who is cut off, and what survives."""

import asyncio
import select
import socket
import time

import pytest

from atoll.base.ids import Endpoint
from atoll.device.nic.limits import STRANGERS_MAX
from atoll.device.nic.messages import AdmitPeer, Configure
from tests.process.test_nic_process import WAIT_S, Node, run
from tests.unit.nic_world import GROUP

pytestmark = pytest.mark.process


async def listening(number: int) -> tuple[Node, Endpoint]:
    """Start a device that is to be reached over TCP."""
    node = Node(number)
    told = await node.client.start(Configure(GROUP, node.private_key, (("127.0.0.1", 0), ("tcp/127.0.0.1", 0))))
    node.at = told.endpoints[0]
    return node, told.endpoints[1]


def test_a_peer_that_lists_tcp_alone_is_reached() -> None:
    async def test() -> None:
        (one, _), (two, at) = await listening(1), await listening(2)
        try:
            two.client.order(AdmitPeer(one.public_key))
            one.client.order(AdmitPeer(two.public_key, (at,)))
            await one.linked(two)
            await two.linked(one)
            one.send(two, b"hello")
            await two.until(lambda: two.packets() == [b"hello"])
            two.send(one, bytes(1200))
            await one.until(lambda: one.packets() == [bytes(1200)])
        finally:
            await one.client.stop()
            await two.client.stop()

    run(test())


def is_closed(connection: socket.socket) -> bool:
    """Read what has come, such as the greeting, and return whether the end is among it."""
    while select.select([connection], [], [], 0)[0]:
        try:
            if not connection.recv(64):
                return True
        except OSError:
            return True
    return False


def test_strangers_make_room_for_each_other_and_for_a_peer() -> None:
    async def test() -> None:
        (one, _), (two, at) = await listening(1), await listening(2)
        where = ("127.0.0.1", at[1])
        strangers = [socket.create_connection(where, timeout=WAIT_S) for _ in range(STRANGERS_MAX)]
        try:
            two.client.order(AdmitPeer(one.public_key))
            one.client.order(AdmitPeer(two.public_key, (at,)))
            await one.linked(two)
            strangers += [socket.create_connection(where, timeout=WAIT_S) for _ in range(STRANGERS_MAX)]
            give_up_s = time.monotonic() + WAIT_S
            while not all(is_closed(one) for one in strangers[:STRANGERS_MAX]):
                assert time.monotonic() < give_up_s
                await asyncio.sleep(0.05)
            assert not any(is_closed(one) for one in strangers[-STRANGERS_MAX // 2 :])
            one.send(two, b"hello")
            await two.until(lambda: two.packets() == [b"hello"])
        finally:
            for connection in strangers:
                connection.close()
            await one.client.stop()
            await two.client.stop()

    run(test())


def test_a_port_that_is_taken_is_done_without() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            wanted: Endpoint = ("tcp/127.0.0.1", taken.getsockname()[1])
            node = Node(1)
            told = await node.client.start(Configure(GROUP, node.private_key, (("127.0.0.1", 0), wanted)))
            try:
                assert (told.error, len(told.endpoints), told.missing) == ("", 1, (wanted,))
            finally:
                await node.client.stop()

    run(test())
