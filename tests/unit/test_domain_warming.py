# SPDX-License-Identifier: Apache-2.0
"""What is restored beforehand is used when the journal still is what it was made of, and only then."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from atoll.base.errors import CorruptError
from atoll.domain.limits import WARM_SLICE_S
from atoll.domain.recorder.messages import Recorded
from atoll.domain.reviving import MissingCodeError
from atoll.domain.warming import Warming
from atoll.env.holding import Holding, HoldingOptions
from atoll.env.runner import Runner
from tests.unit.recorder_world import ENVIRONMENT, NODE
from tests.unit.shelf_world import CODE, NEXT_CODE, Shelf, archive_of, written


class Node:
    """What is around the runners that wait: a journal of which the node knows so many blocks, in these epochs."""

    def __init__(self, shelf: Shelf, known: int) -> None:
        self.shelf, self.known = shelf, known
        self.epochs: dict[int, int] = {}
        self.listings = 0
        self.warming = Warming(archive_of(shelf), self.listed, self.holding)

    async def listed(self) -> tuple[Recorded, ...]:
        self.listings += 1
        return (self.shelf.recorded(),)

    def holding(self, identity: bytes) -> Holding | None:
        if identity != ENVIRONMENT:
            return None
        blocks = tuple((number, self.epochs.get(number, 1), ()) for number in range(1, self.known + 1))
        return Holding.create(HoldingOptions(NODE, b"s" * 32, blocks=blocks), 0)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def test() -> None:
        await work()

    asyncio.run(test())


def n_of(runner: Runner | None) -> object:
    assert runner is not None
    return runner.environment.fields()["n"]


@pytest.mark.parametrize("checkpoint", [False, True])
def test_only_what_came_since_is_applied(*, checkpoint: bool) -> None:
    node = Node(written(checkpoint=checkpoint), 4)

    async def test() -> None:
        await node.warming.make(ENVIRONMENT)
        assert node.warming.has(ENVIRONMENT)
        node.shelf.first = 5  # What was applied is not read again.
        node.known = 5
        runner = await node.warming.take(ENVIRONMENT, 5)
        assert (n_of(runner), node.listings) == (6, 1)
        assert await node.warming.take(ENVIRONMENT, 5) is None, "it is used once"

    run(test)


def test_one_that_waits_is_brought_up_to_date() -> None:
    node = Node(written(), 3)

    async def test() -> None:
        await node.warming.make(ENVIRONMENT)
        node.known = 5
        await node.warming.make(ENVIRONMENT)
        node.shelf.sealed.clear()
        assert n_of(await node.warming.take(ENVIRONMENT, 5)) == 6

    run(test)


def test_one_of_another_past_is_thrown_away() -> None:
    node = Node(written(), 4)

    async def test() -> None:
        await node.warming.make(ENVIRONMENT)
        node.epochs = {4: 2, 5: 2}
        assert await node.warming.take(ENVIRONMENT, 5) is None
        node.epochs = {}
        await node.warming.make(ENVIRONMENT)
        node.epochs = {4: 2}
        await node.warming.make(ENVIRONMENT)
        assert node.listings == 3, "it was made anew"

    run(test)


def test_one_that_is_ahead_of_what_is_wanted_is_of_no_use() -> None:
    node = Node(written(), 5)

    async def test() -> None:
        await node.warming.make(ENVIRONMENT)
        assert await node.warming.take(ENVIRONMENT, 4) is None
        assert not node.warming.has(ENVIRONMENT)

    run(test)


def test_where_there_is_nothing_nothing_waits() -> None:
    node = Node(written(), 0)

    async def test() -> None:
        for identity in (ENVIRONMENT, b"x" * 16):
            await node.warming.make(identity)
            assert await node.warming.take(identity, 0) is None
        node.warming.drop(ENVIRONMENT)

    run(test)


def test_what_cannot_be_restored_says_why() -> None:
    node = Node(written(), 5)
    del node.shelf.code[CODE]

    async def test() -> None:
        with pytest.raises(MissingCodeError):
            await node.warming.make(ENVIRONMENT)
        assert not node.warming.has(ENVIRONMENT)

    run(test)


def test_what_cannot_be_followed_is_left_to_who_restores_it_all() -> None:
    node = Node(written(upgrade=True), 3)

    async def test() -> None:
        await node.warming.make(ENVIRONMENT)
        node.known = 6
        del node.shelf.code[NEXT_CODE]
        assert await node.warming.take(ENVIRONMENT, 6) is None

    run(test)


def test_while_it_catches_up_what_is_wrong_is_said() -> None:
    node = Node(written(), 3)

    async def test() -> None:
        await node.warming.make(ENVIRONMENT)
        node.known = 9  # More than there is.
        with pytest.raises(CorruptError):
            await node.warming.make(ENVIRONMENT)
        assert not node.warming.has(ENVIRONMENT)

    run(test)


def test_one_that_ran_here_waits_like_any_other() -> None:
    node = Node(written(), 3)

    async def test() -> None:
        await node.warming.make(ENVIRONMENT)
        ran = await node.warming.take(ENVIRONMENT, 3)
        assert ran is not None
        node.warming.put(ENVIRONMENT, ran)
        node.known = 5
        assert await node.warming.take(ENVIRONMENT, 5) is ran
        assert (n_of(ran), node.listings) == (6, 1)

    run(test)


def test_all_are_let_go_of_at_the_end() -> None:
    node = Node(written(), 5)

    async def test() -> None:
        await node.warming.make(ENVIRONMENT)
        node.warming.close()
        assert not node.warming.has(ENVIRONMENT)

    run(test)


def test_it_rests_as_long_as_it_works() -> None:
    rests: list[float] = []

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    shelf = written()
    node = Node(shelf, 5)
    warming = Warming(archive_of(shelf), node.listed, node.holding, sleep=sleep)

    async def test() -> None:
        await warming.make(ENVIRONMENT)
        assert len(rests) == 5, "after each block"
        assert all(one == 0 or one >= WARM_SLICE_S for one in rests)
        warming.close()

    run(test)
