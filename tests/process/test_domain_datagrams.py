# SPDX-License-Identifier: Apache-2.0
"""The way past control, with real sockets: two servers' doors, and packet devices that this test stands in for."""

import asyncio
import socket
from collections.abc import Callable, Coroutine

import pytest

from atoll.base.ids import NODE_ID_BYTES, GroupId, NodeId
from atoll.conduit.datagrams import BODY_BYTES_MAX, MESSAGE_BYTES_MAX, WINDOW_BEGIN
from atoll.conduit.packets import HEADERS_BYTES
from atoll.device.nic.client import message_pair
from atoll.domain.datagrams import DatagramDoor

pytestmark = pytest.mark.process

GROUP = GroupId(bytes(range(32)))
A, B = NodeId(b"a" * NODE_ID_BYTES), NodeId(b"b" * NODE_ID_BYTES)
WAIT_S = 20.0
HAS_BODY = 1


class Side:
    """A door, what came in by it, and what it sent the other way."""

    def __init__(self, own: NodeId, device: socket.socket) -> None:
        self.came: list[tuple[NodeId, bytes]] = []
        self.carried: list[tuple[NodeId, bytes]] = []
        self.batches = 0
        self.odd: bytes | None = None
        self.news = asyncio.Event()
        self.device = device
        addresses = GROUP, own
        self.door = DatagramDoor(device, addresses, take=self._take, carry=self._carry, taken=self._taken)

    def _take(self, node: NodeId, message: bytes) -> None:
        self.came.append((node, message))
        self.news.set()
        if message == self.odd:
            raise KeyError(message)

    def _taken(self) -> None:
        self.batches += 1

    def _carry(self, node: NodeId, message: bytes) -> None:
        self.carried.append((node, message))
        self.news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.news.clear()
                await self.news.wait()


class World:
    """Two sides, whose packets pass from one to the other unless they are lost. ``meet`` first."""

    def __init__(self) -> None:
        self._ends: list[socket.socket] = []
        sides = list[Side]()
        for own in (A, B):
            ours, theirs = message_pair()
            self._ends.append(ours)
            sides.append(Side(own, theirs))
        self.a, self.b = sides
        self.a.door.members(frozenset({B}))
        self.b.door.members(frozenset({A}))
        self.packets: list[bytes] = []
        self.lost: Callable[[bytes], bool] = lambda _: False
        loop = asyncio.get_running_loop()
        for here, there in (self._ends, self._ends[::-1]):
            loop.add_reader(here, self._pass, here, there)

    async def meet(self) -> None:
        """Let both hear of each other, and what went by streams meanwhile be over."""
        for side, other in ((self.a, B), (self.b, A)):
            there = self.b if other == B else self.a
            while not there.came:
                side.door.send(other, b"is it you?")
                await asyncio.sleep(0.01)
        for side in (self.a, self.b):
            side.came.clear()
            side.carried.clear()
            side.batches = 0
        self.packets.clear()

    def _pass(self, here: socket.socket, there: socket.socket) -> None:
        packet = here.recv(2_000)
        if packet[HEADERS_BYTES] == HAS_BODY:
            self.packets.append(packet)
        if not self.lost(packet):
            there.send(packet)

    def inject(self, packet: bytes) -> None:
        """Give B's door a packet that is none of A's."""
        self._ends[1].send(packet)

    def device_ends(self) -> None:
        """B's packet device ends, and control does not keep its end."""
        asyncio.get_running_loop().remove_reader(self._ends[1])
        self._ends[1].close()

    def close(self) -> None:
        self.a.door.close()
        self.b.door.close()
        for end in self._ends:
            if end.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(end)
                end.close()


async def gives_up(side: Side) -> None:
    async with asyncio.timeout(WAIT_S):
        while not side.door.counts.lost:  # noqa: ASYNC110 - nothing tells.
            await asyncio.sleep(0.01)


def run(scenario: Callable[[World], Coroutine[None, None, None]], *, have_met: bool = True) -> None:
    async def main() -> None:
        world = World()
        try:
            if have_met:
                await world.meet()
            await scenario(world)
        finally:
            world.close()

    asyncio.run(main())


def test_messages_of_one_turn_share_a_datagram() -> None:
    async def scenario(world: World) -> None:
        for number in range(10):
            world.a.door.send(B, b"%d" % number)
        await world.b.until(lambda: len(world.b.came) == 10)
        assert world.b.came == [(A, b"%d" % number) for number in range(10)]
        assert len(world.packets) == 1
        assert world.b.batches == 1
        assert world.a.carried == []

    run(scenario)


def test_the_first_that_cannot_wait_leaves_at_once_and_the_others_of_its_turn_together() -> None:
    async def scenario(world: World) -> None:
        for number in range(10):
            world.a.door.send(B, b"%d" % number)
            world.a.door.hurry()
        await world.b.until(lambda: len(world.b.came) == 10)
        assert world.b.came == [(A, b"%d" % number) for number in range(10)]
        assert len(world.packets) == 2

    run(scenario)


def test_many_of_a_turn_take_as_few_as_hold_them() -> None:
    async def scenario(world: World) -> None:
        size = BODY_BYTES_MAX // 2 - 2
        for number in range(7):
            world.a.door.send(B, bytes((number,)) * size)
        await world.b.until(lambda: len(world.b.came) == 7)
        assert len(world.packets) == 4

    run(scenario)


def test_what_nobody_expected_of_a_message_does_not_keep_the_next_one_back(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: World) -> None:
        world.b.odd = b"odd"
        for message in (b"odd", b"odd", b"even"):
            world.a.door.send(B, message)
        await world.b.until(lambda: len(world.b.came) == 3)
        assert [message for _, message in world.b.came] == [b"odd", b"odd", b"even"]
        assert world.b.door.counts.dropped == 2
        assert [record.message for record in caplog.records if record.name == "atoll.envs"] == [
            "a message of another node was dropped: bytes"
        ]

    run(scenario)


def test_what_is_too_large_takes_the_stream_and_is_not_overtaken() -> None:
    async def scenario(world: World) -> None:
        large = bytes(MESSAGE_BYTES_MAX + 1)
        world.a.door.send(B, large)
        world.a.door.send(B, b"after it")
        assert world.a.carried == [(B, large), (B, b"after it")]
        assert world.packets == []

    run(scenario)


def test_what_follows_takes_the_stream_for_a_moment_only() -> None:
    async def scenario(world: World) -> None:
        world.a.door.send(B, bytes(MESSAGE_BYTES_MAX + 1))
        async with asyncio.timeout(WAIT_S):
            while not world.b.came:
                world.a.door.send(B, b"small, and often")
                await asyncio.sleep(0.01)
        assert len(world.a.carried) > 1

    run(scenario)


def test_what_is_too_much_takes_the_stream_and_nothing_vanishes() -> None:
    async def scenario(world: World) -> None:
        sent = [bytes((number,)) * 1_000 for number in range(WINDOW_BEGIN + 5)]
        for message in sent:
            world.a.door.send(B, message)
        await world.b.until(lambda: len(world.b.came) == WINDOW_BEGIN)
        assert [message for _, message in world.b.came + world.a.carried] == sent

    run(scenario)


def test_who_was_not_heard_of_is_told_by_the_stream() -> None:
    async def scenario(world: World) -> None:
        world.a.door.send(B, b"hello")
        await world.a.until(lambda: world.a.carried == [(B, b"hello")])
        await world.meet()
        world.a.door.send(B, b"and more")
        await world.b.until(lambda: world.b.came == [(A, b"and more")])
        assert world.a.carried == []

    run(scenario, have_met=False)


def test_who_does_not_answer_any_more_is_told_by_the_stream() -> None:
    async def scenario(world: World) -> None:
        world.lost = lambda _: True
        world.a.door.send(B, b"lost, as by a stream that breaks")
        await gives_up(world.a)
        world.a.door.send(B, b"hello")
        await world.a.until(lambda: world.a.carried == [(B, b"hello")])
        assert world.b.came == []

    run(scenario)


def test_what_is_lost_once_comes_all_the_same() -> None:
    async def scenario(world: World) -> None:
        world.lost = lambda _: len(world.packets) == 1
        world.a.door.send(B, b"hello")
        await world.b.until(lambda: world.b.came == [(A, b"hello")])
        assert world.a.carried == []

    run(scenario)


def test_strangers_and_nonsense_are_dropped() -> None:
    async def scenario(world: World) -> None:
        world.inject(b"nonsense")
        world.b.door.members(frozenset())
        world.a.door.send(B, b"from a stranger")
        await gives_up(world.a)  # No acknowledgement either.
        assert world.b.came == []
        assert world.b.door.dropped > 1

    run(scenario)


def test_to_who_is_no_member_it_is_controls_to_say() -> None:
    async def scenario(world: World) -> None:
        world.a.door.members(frozenset())
        world.a.door.send(B, b"hello")
        assert world.a.carried == [(B, b"hello")]

    run(scenario)


def test_a_device_that_ends_is_not_read_again_and_again() -> None:
    async def scenario(world: World) -> None:
        world.device_ends()
        async with asyncio.timeout(WAIT_S):
            while not world.b.door.counts.lost:
                world.b.door.send(A, b"lost")
                await asyncio.sleep(0.01)
        world.b.carried.clear()
        world.b.door.send(A, b"hello")
        await world.b.until(lambda: world.b.carried == [(A, b"hello")])
        assert not asyncio.get_running_loop().remove_reader(world.b.device), "it is read no more"

    run(scenario)
