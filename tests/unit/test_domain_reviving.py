# SPDX-License-Identifier: Apache-2.0
"""What the recorder keeps says where a holding starts, and gives back a runner as it was."""

import asyncio

import msgspec
import pytest

from atoll.base.errors import CorruptError, DivergenceError, UserError
from atoll.domain.loading import Bundle
from atoll.domain.recorder.messages import Code, RefusedError
from atoll.domain.reviving import Archive, MissingCodeError
from atoll.env.chain import Block, Sealed, pack_body
from atoll.env.history import Body, decode_body, decode_snapshot, encode_body
from atoll.env.places import Inline, Place
from atoll.env.records import PROCESS, Level
from tests.unit.recorder_world import NODE
from tests.unit.shelf_world import BUNDLE, CODE, HOLDERS, NEXT_CODE, SHOP, Shelf, archive_of, written


def n_of(shelf: Shelf, number: int) -> object:
    async def fields() -> object:
        runner = await archive_of(shelf).runner(shelf.recorded(), number)
        assert runner.number == number
        return runner.environment.fields()["n"]

    return asyncio.run(fields())


def test_a_holding_starts_from_all_blocks_or_from_the_newest_snapshot() -> None:
    shelf = written()

    async def test() -> None:
        options, facts = await archive_of(shelf).options(shelf.recorded(), NODE, b"s" * 32)
        assert (options.base, options.holders, options.promise, options.floor) == ((0, 0), (), (1, b""), (0, 0))
        assert options.blocks == ((1, 1, ()), (2, 1, HOLDERS), (3, 1, ()), (4, 1, ()), (5, 1, ()))
        assert (facts.name, facts.app, facts.code, facts.origin) == ("shop", "Shop", CODE, NODE)

    asyncio.run(test())


def test_a_snapshot_says_what_was_before_it() -> None:
    async def test(shelf: Shelf, number: int, code: bytes) -> None:
        options, facts = await archive_of(shelf).options(shelf.recorded(), NODE, b"s" * 32)
        assert (options.base, options.holders) == ((number, 1), HOLDERS)
        assert options.blocks == ((number + 1, 1, ()),)
        assert (facts.app, facts.code, facts.origin) == ("Shop", code, NODE)

    asyncio.run(test(written(checkpoint=True), 4, CODE))
    asyncio.run(test(written(upgrade=True), 5, NEXT_CODE))
    shelf = written(upgrade=True)
    shelf.snapshots.clear()
    _, facts = asyncio.run(archive_of(shelf).options(shelf.recorded(), NODE, b"s" * 32))
    assert facts.code == NEXT_CODE


@pytest.mark.parametrize(
    ("promised", "floor", "promise"),
    [
        ((0, b""), (0, 0), (1, b"")),
        ((3, NODE), (0, 0), (3, NODE)),
        ((1, NODE), (0, 0), (1, NODE)),
        ((3, NODE), (5, 70), (5, b"")),
        ((5, NODE), (5, 70), (5, NODE)),
    ],
)
def test_what_was_promised_and_what_was_given_up_are_remembered(
    promised: tuple[int, bytes], floor: tuple[int, int], promise: tuple[int, bytes]
) -> None:
    shelf = written()

    async def test() -> None:
        recorded = shelf.recorded(promised_epoch=promised[0], promised_to=promised[1], floor=floor)
        options, _ = await archive_of(shelf).options(recorded, NODE, b"s" * 32)
        assert (options.promise, options.floor) == (promise, floor)

    asyncio.run(test())


def test_a_journal_that_was_given_up_starts_with_its_promise_and_floor_only() -> None:
    async def test() -> None:
        recorded = Shelf().recorded(promised_epoch=4, promised_to=NODE, floor=(4, 9))
        options, facts = await archive_of(Shelf()).options(recorded, NODE, b"s" * 32)
        assert (options.promise, options.floor, options.blocks, options.holders) == ((4, NODE), (4, 9), (), ())
        assert (facts.name, facts.app, facts.code) == ("shop", "", b"")

    asyncio.run(test())


@pytest.mark.parametrize(
    ("content", "app"),
    [
        (None, ""),
        (b"nonsense", ""),
        (Bundle(1, "shop", "No", {"shop": SHOP}).encode(), "No"),
        (Bundle(1, "shop", "Shop", {"shop": "raise ValueError"}).encode(), "Shop"),  # It is not run for that.
    ],
)
def test_what_was_promised_is_known_without_the_code(content: bytes | None, app: str) -> None:
    shelf = written()

    async def test() -> None:
        del shelf.code[CODE]
        if content is not None:
            shelf.code[CODE] = content
        _, facts = await archive_of(shelf).options(shelf.recorded(), NODE, b"s" * 32)
        assert (facts.app, facts.code) == (app, CODE)
        with pytest.raises((MissingCodeError, UserError, CorruptError)):
            await archive_of(shelf).runner(shelf.recorded(), 5)

    asyncio.run(test())


def test_code_that_is_missing_and_code_that_cannot_be_read_are_two_things() -> None:
    async def test() -> None:
        shelf = Shelf()
        with pytest.raises(MissingCodeError, match=(b"x" * 32).hex()):
            await archive_of(shelf).code(b"x" * 32)
        shelf.code_error = Code.IO
        with pytest.raises(RefusedError):
            await archive_of(shelf).code(b"x" * 32)

    asyncio.run(test())


def test_a_runner_is_as_it_was_after_any_block() -> None:
    shelf = written()
    assert [n_of(shelf, number) for number in range(1, 6)] == [0, 0, 1, 3, 6]
    assert [n_of(written(checkpoint=True), number) for number in range(1, 6)] == [0, 0, 1, 3, 6]
    assert [n_of(written(upgrade=True), number) for number in (4, 5, 6)] == [3, 3, 33]
    shelf = written(upgrade=True)
    shelf.snapshots.clear()
    assert n_of(shelf, 6) == 33


def test_places_of_guests_are_asked_for_where_the_environment_says_so() -> None:
    async def test() -> None:
        shelf, asked = Shelf(), list[bytes]()

        async def guest(content: bytes) -> Place:
            asked.append(content)
            return Inline((await archive_of(shelf).code(CODE)).program)

        archive = Archive(shelf, guest)
        level: Level = PROCESS
        await archive.place(CODE, level)
        assert await archive.code(CODE) is await archive.code(CODE)
        assert asked == [BUNDLE]
        assert isinstance(await archive_of(shelf).place(CODE, level), Inline)

    asyncio.run(test())


def test_a_journal_that_does_not_hold_together_is_said() -> None:
    async def runner(shelf: Shelf, number: int) -> None:
        await archive_of(shelf).runner(shelf.recorded(), number)

    empty = Shelf()
    with pytest.raises(CorruptError, match="without a block"):
        asyncio.run(runner(empty, 0))
    with pytest.raises(CorruptError, match="block 1 is missing"):
        asyncio.run(runner(empty, 1))
    for body in (encode_body(bytes(16), []), encode_body(bytes(16), list(_second(written()).entries))):
        shelf = Shelf()
        shelf.put(body, 0)
        with pytest.raises(CorruptError, match="does not begin"):
            asyncio.run(runner(shelf, 1))
    shelf = written()
    shelf.sealed[2:3] = [_changed(shelf)]
    with pytest.raises(DivergenceError):
        asyncio.run(runner(shelf, 5))
    shelf = written(checkpoint=True)
    shelf.snapshots[4] = msgspec.structs.replace(decode_snapshot(shelf.snapshots[4]), state=b"nonsense").encode()
    with pytest.raises(CorruptError):
        asyncio.run(runner(shelf, 5))


def _second(shelf: Shelf) -> Body:
    return decode_body(shelf.sealed[1].block.body[1:])


def _changed(shelf: Shelf) -> Sealed:
    """Return the third block with another digest."""
    block = shelf.sealed[2].block
    body = decode_body(block.body[1:])
    other = Block(3, 1, block.first_event, block.events, pack_body(encode_body(b"x" * 16, list(body.entries))))
    return Sealed(other, shelf.sealed[2].seal)
