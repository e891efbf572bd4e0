# SPDX-License-Identifier: Apache-2.0
"""Real packet devices, each with a process of its node beside it that speaks with the other by itself."""

import asyncio
import socket
from contextlib import ExitStack
from struct import pack

import pytest

from atoll.base.ids import NodeId
from atoll.device.nic.client import message_pair
from atoll.device.nic.messages import AdmitPeer, AttachPort, ExpelPeer
from tests.process.test_nic_process import WAIT_S, Node, run, started
from tests.unit.nic_world import ipv6

pytestmark = pytest.mark.process

PORT = 4433


def udp(source: NodeId, target: NodeId, payload: bytes) -> bytes:
    return ipv6(source, target, pack(">HHHH", PORT, PORT, 8 + len(payload), 0) + payload)


def attach(node: Node, opened: ExitStack) -> socket.socket:
    """Return this process's end; the device has a copy of the other, which stays open here as control's does."""
    ours, theirs = message_pair()
    node.client.attach(AttachPort(PORT), theirs.fileno())
    opened.enter_context(theirs)
    return opened.enter_context(ours)


async def hears(end: socket.socket) -> bytes:
    async with asyncio.timeout(WAIT_S):
        return await asyncio.get_running_loop().sock_recv(end, 2_000)


def test_two_processes_speak_past_control() -> None:
    async def scenario() -> None:
        async with started(2) as (one, two):
            with ExitStack() as opened:
                first, second = attach(one, opened), attach(two, opened)
                there, back = udp(one.node, two.node, b"there"), udp(two.node, one.node, b"back")
                first.send(there)
                assert await hears(second) == there
                second.send(back)
                assert await hears(first) == back
                first.send(b"nonsense")
                first.send(udp(two.node, one.node, b"in another name"))
                first.send(there)
                assert await hears(second) == there
                one.send(two, b"control's")
                await two.until(lambda: two.packets() == [b"control's"])

    run(scenario())


def test_the_next_process_takes_the_place_and_one_that_ends_harms_nobody() -> None:
    async def scenario() -> None:
        async with started(2) as (one, two):
            with ExitStack() as opened:
                first, second = attach(one, opened), attach(two, opened)
                second.close()  # It died; control's copy of the device's end is still there.
                early, packet = (udp(one.node, two.node, said) for said in (b"early", b"here"))
                first.send(early)
                one.send(two, b"the device lives")
                await two.until(lambda: b"the device lives" in two.packets())
                successor = attach(two, opened)
                first.send(packet)
                while (heard := await hears(successor)) != packet:
                    assert heard == early, "it may still have been on its way"

    run(scenario())


def test_the_same_end_serves_the_next_device() -> None:
    async def scenario() -> None:
        async with started(2) as (one, two):
            with ExitStack() as opened:
                first = attach(one, opened)
                ours, theirs = message_pair()
                opened.enter_context(ours)
                opened.enter_context(theirs)
                two.client.attach(AttachPort(PORT), theirs.fileno())
                await two.client.stop()
                two.reports.clear()
                assert await two.start() == ""
                two.client.attach(AttachPort(PORT), theirs.fileno())
                one.reports.clear()
                one.client.order(ExpelPeer(two.public_key))
                one.client.order(AdmitPeer(two.public_key, (two.at,)))
                two.client.order(AdmitPeer(one.public_key, (one.at,)))
                await one.linked(two)
                await two.linked(one)
                packet = udp(one.node, two.node, b"again")
                first.send(packet)
                assert await hears(ours) == packet

    run(scenario())
