# SPDX-License-Identifier: Apache-2.0
"""The recorder in memory: it is late, and a power cut takes what was not done. What it answers: tests/contract."""

from typing import TypeVar

import pytest

from atoll.base.errors import LinkError
from atoll.base.units import SECOND_NS
from atoll.domain.recorder.messages import (
    Answer,
    Append,
    Appended,
    Blocks,
    Code,
    Create,
    Done,
    KeepCode,
    KeepSnapshot,
    List,
    Listed,
    Promise,
    Refused,
    RefusedError,
    Snapshot,
)
from atoll.env.chain import GENESIS, Block, Position, Seal, Sealed, Sealer, Verifier
from atoll.lab.stewards.recorder import Journal, Later, RecorderEnd, Signatures
from tests.unit.quiet_world import Quiet, answer_of
from tests.unit.recorder_world import ENVIRONMENT, OTHER, STATE, WRITING, block_after

DISK_NS = 1000
T = TypeVar("T")


class Desk:
    """A computer's recorder that has one journal, and whoever asks it."""

    def __init__(self) -> None:
        self.world = Quiet()
        self.computer = self.world.computer()
        self.recorder = self.computer.recorder
        self.end = RecorderEnd(self.recorder)
        self.told: list[Answer | LinkError] = []
        assert answer_of(self.world, self.end, Create(1, ENVIRONMENT, "shop")) == Done(1)
        assert answer_of(self.world, self.end, Promise(2, ENVIRONMENT, 1, self.computer.id)) == Done(2)
        self.world.disk = DISK_NS
        self._at = GENESIS

    @property
    def journal(self) -> Journal:
        return self.recorder.journals[ENVIRONMENT]

    def append(self, count: int = 1) -> None:
        """Ask for some blocks one after the other, and wait for none."""
        for _ in range(count):
            block = block_after(self._at, WRITING)
            self._at = OTHER.seal(self._at, block)[1]
            self.ask_for(block)

    def ask_for(self, block: Block) -> None:
        self.end.ask(lambda number: Append(number, ENVIRONMENT, block), self.told.append)

    def numbers(self) -> list[int]:
        return [answer.number for answer in self.told if isinstance(answer, Appended)]


# Time.


def test_an_answer_takes_as_long_as_the_disk() -> None:
    desk = Desk()
    desk.append()
    desk.world.run(DISK_NS - 1)
    assert (desk.told, desk.journal.blocks) == ([], [])
    desk.world.run(1)
    assert desk.numbers() == [1]


def test_what_is_asked_for_meanwhile_is_done_together_afterwards() -> None:
    desk = Desk()
    desk.append(3)
    desk.world.run(DISK_NS)
    assert desk.numbers() == [1]
    desk.append(2)
    desk.world.run(DISK_NS)
    assert desk.numbers() == [1, 2, 3]
    desk.world.run(DISK_NS)
    assert desk.numbers() == [1, 2, 3, 4, 5]


def test_answers_come_in_order_and_a_refusal_among_them_in_its_place() -> None:
    desk = Desk()
    desk.append(2)
    desk.ask_for(Block(9, 1, 9, 1, b"\0"))
    desk.append()
    desk.world.run(2 * DISK_NS)
    assert [type(answer) for answer in desk.told] == [Appended, Appended, Refused, Appended]
    assert desk.recorder.refusals == {"Append number: block 9: its number does not check": 1}


def test_what_it_sealed_checks() -> None:
    desk = Desk()
    desk.append(3)
    desk.world.run(2 * DISK_NS)
    verifier = Verifier(ENVIRONMENT, position=GENESIS)
    verifier.feed(desk.recorder.sealer)
    for sealer, sealed in desk.journal.blocks:
        assert sealer == desk.recorder.sealer
        verifier.feed(sealed)
    assert verifier.position == desk.journal.position


# Power.


@pytest.mark.parametrize("done", [0, 1, 3])
def test_of_what_was_asked_for_when_the_power_is_cut_some_may_be_done_and_nobody_hears_of_it(done: int) -> None:
    desk = Desk()
    desk.append(3)
    desk.world.draws = [done]
    desk.recorder.cut_power()
    desk.world.run(10 * DISK_NS)
    assert (len(desk.journal.blocks), desk.told) == (done, [])
    listed = answer_of(desk.world, RecorderEnd(desk.recorder), List(1))
    assert isinstance(listed, Listed)
    assert listed.environments[0].at.number == done


def test_what_was_begun_before_a_cut_does_not_disturb_what_comes_after_it() -> None:
    desk = Desk()
    desk.append()
    desk.recorder.cut_power()
    desk.world.run(DISK_NS // 2)
    end, told = RecorderEnd(desk.recorder), list[Answer | LinkError]()
    end.ask(List, told.append)
    desk.world.run(DISK_NS // 2)
    assert not told, "the timer of before is none of this one's"
    desk.world.run(DISK_NS // 2)
    assert [type(answer) for answer in told] == [Listed]


def test_what_is_on_the_disk_outlives_a_cut() -> None:
    desk = Desk()
    desk.append(2)
    desk.world.run(2 * DISK_NS)
    desk.recorder.cut_power()
    assert (desk.journal.position.number, desk.journal.promised) == (2, (1, desk.computer.id))


def test_a_full_disk_takes_nothing_and_says_so() -> None:
    desk = Desk()
    desk.world.full.append(desk.computer)
    desk.append()
    desk.world.run(DISK_NS)
    assert [answer.code for answer in desk.told if isinstance(answer, Refused)] == [Code.FULL]
    assert desk.journal.blocks == []


# The end of a connection.


def test_who_is_gone_is_told_nothing() -> None:
    desk = Desk()
    desk.append()
    desk.end.is_closed = True
    desk.world.run(DISK_NS)
    assert (desk.told, len(desk.journal.blocks)) == ([], 1)


def drive(desk: Desk, later: Later[T]) -> T:
    """Await this as ``Process`` does; return what it gives."""
    found: list[T] = []

    async def work() -> None:
        found.append(await later)

    running = work()
    waits = running.send(None)
    assert waits is later
    desk.world.run(DISK_NS)
    with pytest.raises(StopIteration):
        running.send(None)
    return found[0]


def test_an_answer_can_be_awaited() -> None:
    desk = Desk()
    desk.append()
    desk.world.run(DISK_NS)
    assert isinstance(drive(desk, desk.end.read(ENVIRONMENT, 1)), Blocks)
    assert answer_of(desk.world, desk.end, KeepSnapshot(1, ENVIRONMENT, 1, STATE)) == Done(5)
    assert isinstance(drive(desk, desk.end.read_snapshot(ENVIRONMENT, 1)), Snapshot)


def test_a_refusal_and_an_answer_to_something_else_are_raised() -> None:
    desk = Desk()
    with pytest.raises(RefusedError, match="number"):
        drive(desk, desk.end.read(ENVIRONMENT, 9))
    with pytest.raises(LinkError, match="something else"):
        drive(desk, desk.end.request(List, Blocks))


def test_lists_and_code_can_be_awaited_too() -> None:
    desk = Desk()
    digest = bytes.fromhex("5694d08a2e53ffcae0c3103e5ad6f6076abd960eb1f8a56577040bc1028f702b")
    assert answer_of(desk.world, desk.end, KeepCode(1, digest, b"code")) == Done(3)
    found: list[object] = []

    async def work() -> None:
        found.append([one.name for one in await desk.end.environments()])
        found.append((await desk.end.listed()).ended)
        found.append(await desk.end.read_code(digest))

    running = work()
    for _ in range(3):
        running.send(None)
        desk.world.run(DISK_NS)
    with pytest.raises(StopIteration):
        running.send(None)
    assert found == [["shop"], (), b"code"]


def test_something_that_is_there_is_not_waited_for_and_calls_whoever_waits_once() -> None:
    later: Later[int] = Later()
    called: list[str] = []
    later.then(lambda: called.append("one"))
    later.then(lambda: called.append("two"))
    later.give(5)
    later.give(5)
    assert called == ["one", "two"]
    with pytest.raises(StopIteration) as ended:
        later.__await__().send(None)
    assert ended.value.value == 5


def test_a_coroutine_that_goes_on_before_there_is_something_is_a_fault() -> None:
    waiting = Later[int]().__await__()
    next(waiting)
    with pytest.raises(AssertionError, match="when there is something"):
        next(waiting)


# Journals and seals.


def test_a_journal_knows_its_blocks_by_number() -> None:
    desk = Desk()
    desk.append(3)
    desk.world.run(2 * DISK_NS)
    journal = desk.journal
    assert [journal.block(number).number for number in (1, 3)] == [1, 3]
    assert [bool(journal.head(number)) for number in (0, 1, 3, 4)] == [False, True, True, False]
    assert (journal.after(0), journal.after(3)) == (GENESIS, journal.position)
    at = Position(7, 1, 7, b"h" * 32)
    assert Journal(ENVIRONMENT, "late", at).position == at


def changed(sealer: Sealer, seal: Seal) -> list[tuple[bytes, Sealer, Seal]]:
    return [
        (b"e" * 16, sealer, seal),
        (ENVIRONMENT, OTHER.sealer, seal),
        (ENVIRONMENT, Sealer(sealer.node, sealer.recorder, sealer.signing_key, bytes(64)), seal),
        (ENVIRONMENT, sealer, Seal(b"h" * 32, seal.signature)),
        (ENVIRONMENT, sealer, Seal(seal.head, bytes(64))),
    ]


@pytest.mark.parametrize("step", [1, -1])
def test_a_seal_is_remembered_for_what_it_is_of_and_for_nothing_else(step: int) -> None:
    desk = Desk()
    desk.append()
    desk.world.run(SECOND_NS)
    sealer, sealed = desk.journal.blocks[0]
    assert isinstance(sealed, Sealed)
    right = (ENVIRONMENT, sealer, sealed.seal)
    signatures = Signatures()
    for row in [right, *changed(sealer, sealed.seal), right][::step]:
        assert signatures.checks(*row) == (row == right)
