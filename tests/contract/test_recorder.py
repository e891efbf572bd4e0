# SPDX-License-Identifier: Apache-2.0
"""The recorder: that of the simulation and the one with files are asked the same, and answer the same.

Both have the same keys, so that seals and signatures are equal byte for byte. The words of a refusal are for people,
and differ.
"""

import resource
from collections.abc import Callable, Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from atoll.base.errors import LinkError
from atoll.domain.recorder.messages import (
    Answer,
    Append,
    Appended,
    Blocks,
    Code,
    Content,
    Create,
    Cut,
    Done,
    Forget,
    Keep,
    KeepCode,
    KeepSnapshot,
    Kept,
    List,
    Listed,
    Promise,
    Read,
    ReadCode,
    ReadSnapshot,
    Recorded,
    Refused,
    Request,
    Restart,
    Snapshot,
    Taken,
)
from atoll.domain.recorder.snapshots import open_snapshot
from atoll.domain.recorder.store import Store
from atoll.env.chain import GENESIS, Block, ChainError, Position, Seal, Sealed, pack_body
from atoll.lab.stewards.recorder import RecorderEnd, Signatures, SimRecorder
from tests.unit.recorder_world import (
    ENVIRONMENT,
    NODE,
    OTHER,
    STATE,
    WRITING,
    Hand,
    block_after,
    key_in,
    stored,
    writing,
)

SEED = bytes([9]) * 32 + bytes([1]) * 32  # As ``recorder_world`` makes the keys of a recorder and its node.
ANOTHER = b"e" * 16
STRANGER = Hand(7, b"no-members", signer=3)
RANDOM_RUNS, RANDOM_STEPS = 30, 40


class OnFiles:
    """The recorder with files."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._store: Store[int] = Store(state, key_in(state))

    def serve(self, requests: list[Request]) -> list[Answer]:
        answers = self._store.serve(enumerate(requests))
        assert len(answers) == len(requests), "each is answered once"
        return [answer for _, answer in sorted(answers, key=lambda one: one[0])]

    def crash(self) -> None:
        self._store.close()
        self._store = Store(self._state, key_in(self._state))

    @contextmanager
    def full(self) -> Generator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


class OfSimulation:
    """The recorder in memory, and its disk, which takes no time."""

    def __init__(self) -> None:
        self._is_full = False
        self._actions: list[Callable[[], object]] = []
        self._recorder = SimRecorder(NODE, SEED, self, Signatures())

    def disk_ns(self) -> int:
        return 0

    def refuses(self) -> bool:
        return self._is_full

    def after(self, span_ns: int, action: Callable[[], object]) -> None:
        assert span_ns == 0, "the disk takes no time"
        self._actions.append(action)

    def below(self, bound: int) -> int:
        assert bound == 1, "all that was asked is answered before the power goes"
        return 0

    def serve(self, requests: list[Request]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        end = RecorderEnd(self._recorder)

        def ask(index: int, request: Request) -> None:
            def told(answer: Answer | LinkError) -> None:
                assert not isinstance(answer, LinkError)
                assert index not in answers, "each is answered once"
                answers[index] = answer

            end.ask(lambda number: msgspec.structs.replace(request, id=number), told)

        ask(-1, List(0))  # Done alone; what is asked meanwhile is done together.
        for index, request in enumerate(requests):
            ask(index, request)
        while self._actions:
            self._actions.pop(0)()
        return [answers[index] for index in range(len(requests))]

    def crash(self) -> None:
        self._recorder.cut_power()

    @contextmanager
    def full(self) -> Generator[None]:
        self._is_full = True
        try:
            yield
        finally:
            self._is_full = False


class Pair:
    """Both, asked the same."""

    def __init__(self, state: Path) -> None:
        self.real, self.simulated = OnFiles(state), OfSimulation()
        self.said: list[object] = []  # For people, when they differ.

    def ask(self, *requests: Request) -> list[Any]:
        """Ask both for these at once; return what both answer."""
        self.said.append(requests)
        real = [_plain(answer) for answer in self.real.serve(list(requests))]
        simulated = [_plain(answer) for answer in self.simulated.serve(list(requests))]
        for request, one, other in zip(requests, real, simulated, strict=True):
            assert one == other, f"{request}, after {self.said}"
        return real

    def only(self, request: Request) -> Any:
        (answer,) = self.ask(request)
        return answer

    def refused(self, request: Request) -> Code:
        answer = self.only(request)
        assert isinstance(answer, Refused), answer
        return answer.code

    def crash(self) -> None:
        self.said.append("crash")
        self.real.crash()
        self.simulated.crash()

    @contextmanager
    def full(self) -> Generator[None]:
        self.said.append("full")
        with self.real.full(), self.simulated.full():
            yield
        self.said.append("not full")

    def recorded(self, environment: bytes = ENVIRONMENT) -> Recorded:
        found = [one for one in self.only(List(1)).environments if one.environment == environment]
        assert len(found) == 1
        assert isinstance(found[0], Recorded)
        return found[0]

    def all_blocks(self, environment: bytes = ENVIRONMENT) -> list[int]:
        """Return the numbers of all blocks; both give the same ones, with the same seals."""
        answer = self.only(Read(1, environment, self.recorded(environment).first))
        return [item.block.number for item in answer.items if isinstance(item, Sealed)]


def _plain(answer: Answer) -> Answer:
    """Return an answer without what may differ: its number, words for people, the order of a list."""
    if isinstance(answer, Refused):
        return Refused(0, answer.code, "")
    if isinstance(answer, Listed):
        return Listed(
            0, tuple(sorted(answer.environments, key=lambda one: one.environment)), tuple(sorted(answer.ended))
        )
    return msgspec.structs.replace(answer, id=0)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Return both, with one journal in which a node of another epoch may not seal."""
    made = Pair(tmp_path)
    assert made.ask(Create(1, ENVIRONMENT, "shop"), Promise(2, ENVIRONMENT, 1, NODE)) == [Done(0), Done(0)]
    return made


def append(pair: Pair, count: int = 1, records: bytes = WRITING, *, epoch: int = 1) -> Position:
    """Append some blocks at once; return where it stands then."""
    at, blocks = pair.recorded().at, list[Block]()
    for _ in range(count):
        blocks.append(block_after(at, records, epoch=epoch))
        at = _after(at, blocks[-1])
    answers = pair.ask(*(Append(1, ENVIRONMENT, block) for block in blocks))
    assert [type(answer) for answer in answers] == [Appended] * count
    assert pair.recorded().at == at
    return at


def _after(at: Position, block: Block) -> Position:
    return OTHER.seal(at, block)[1]


def others(at: Position, hand: Hand = OTHER, *, epoch: int = 1, environment: bytes = ENVIRONMENT) -> Keep:
    """Return the request to keep a block of another recorder that follows."""
    block = block_after(at, WRITING, epoch=epoch)
    return Keep(1, environment, hand.sealer, block, hand.seal(at, block, environment)[0].seal)


def state_of(hand: Hand, at: Position) -> Taken:
    """Return a state that a recorder has signed as the one at a place."""
    signed = open_snapshot(hand.snapshot(at, STATE), ENVIRONMENT, at.number)
    return Taken(signed.content, signed.sealer, signed.signature)


# Beginning, listing, ending.


def test_a_journal_is_begun_once_and_listed(pair: Pair) -> None:
    assert pair.refused(Create(1, ENVIRONMENT, "again")) is Code.EXISTS
    at = Position(5, 2, 9, b"h" * 32)
    assert pair.only(Create(1, ANOTHER, "other", at)) == Done(0)
    assert pair.recorded(ANOTHER) == Recorded(ANOTHER, "other", 6, at)
    assert pair.recorded() == Recorded(ENVIRONMENT, "shop", 1, GENESIS, 1, NODE)
    with pair.full():
        assert pair.refused(Create(1, b"f" * 16, "no room")) is Code.FULL
    assert len(pair.only(List(1)).environments) == 2


def test_what_is_not_there_is_unknown(pair: Pair) -> None:
    keep = others(GENESIS, environment=ANOTHER)
    for request in (
        Append(1, ANOTHER, block_after(GENESIS)),
        keep,
        Cut(1, ANOTHER, 1),
        Promise(1, ANOTHER, 1, NODE),
        Restart(1, ANOTHER),
        KeepSnapshot(1, ANOTHER, 0, STATE),
        ReadSnapshot(1, ANOTHER, 0),
        ReadSnapshot(1, ENVIRONMENT, 0),
        ReadSnapshot(1, ENVIRONMENT, 0, upto=True),
        Read(1, ANOTHER, 1),
        ReadCode(1, bytes(32)),
        Forget(1, ANOTHER),
        Forget(1, ANOTHER, ended=False),
    ):
        assert pair.refused(request) is Code.UNKNOWN


def test_what_has_ended_is_said_to_have_and_never_begins_again(pair: Pair) -> None:
    append(pair)
    with pair.full():  # Nothing is written for it.
        assert pair.only(Forget(1, ENVIRONMENT)) == Done(0)
    assert pair.only(List(1)) == Listed(0, (), (ENVIRONMENT,))
    assert pair.refused(Create(1, ENVIRONMENT, "shop")) is Code.EXISTS
    pair.crash()
    assert pair.only(List(1)) == Listed(0, (), (ENVIRONMENT,))
    assert pair.refused(Create(1, ENVIRONMENT, "shop")) is Code.EXISTS


def test_what_was_never_written_to_is_deleted_and_may_begin_again(pair: Pair) -> None:
    assert pair.only(Forget(1, ENVIRONMENT, ended=False)) == Done(0)
    assert pair.only(List(1)) == Listed(0, ())
    assert pair.only(Create(1, ENVIRONMENT, "shop")) == Done(0)


def _cut_to_nothing(pair: Pair) -> None:
    append(pair)
    pair.ask(Cut(1, ENVIRONMENT, 1))


def _left(pair: Pair) -> None:
    pair.ask(Restart(1, ENVIRONMENT))


def _begun_with(pair: Pair) -> None:
    pair.ask(KeepSnapshot(1, ENVIRONMENT, 0, STATE))


@pytest.mark.parametrize("change", [append, _cut_to_nothing, _left, _begun_with])
def test_of_what_something_was_kept_nothing_is_deleted(pair: Pair, change: Callable[[Pair], object]) -> None:
    change(pair)
    assert pair.refused(Forget(1, ENVIRONMENT, ended=False)) is Code.EXISTS


# Blocks.


def test_blocks_are_sealed_kept_and_read(pair: Pair) -> None:
    at = append(pair, 3)
    assert pair.only(others(at)) == Kept(0, 4)
    append(pair, 2)
    assert pair.all_blocks() == [1, 2, 3, 4, 5, 6]
    pair.crash()
    assert pair.all_blocks() == [1, 2, 3, 4, 5, 6]
    for number, bytes_max, blocks_max, count in ((1, 1, 9, 1), (2, 9999, 3, 3), (6, 9999, 9, 1), (7, 1, 1, 0)):
        answer = pair.only(Read(1, ENVIRONMENT, number, bytes_max, blocks_max))
        assert isinstance(answer, Blocks)
        assert sum(isinstance(item, Sealed) for item in answer.items) == count
    assert pair.refused(Read(1, ENVIRONMENT, 8)) is Code.NUMBER


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (Block(3, 1, 2, 1, pack_body(b"")), Code.NUMBER),
        (Block(1, 1, 1, 1, pack_body(b"")), Code.NUMBER),
        (Block(2, 1, 3, 1, pack_body(b"")), Code.NUMBER),
        (Block(2, 2, 2, 1, pack_body(b"")), Code.EPOCH),
    ],
)
def test_a_block_that_does_not_follow_is_refused(pair: Pair, block: Block, code: Code) -> None:
    append(pair)
    pair.ask(Promise(1, ENVIRONMENT, 2, b"other-node"))
    assert pair.refused(Append(1, ENVIRONMENT, block)) is (Code.EPOCH if block.epoch == 1 else code)
    seal = Seal(b"h" * 32, bytes(64))
    expected = code if code is Code.NUMBER else Code.CHAIN
    assert pair.refused(Keep(1, ENVIRONMENT, OTHER.sealer, block, seal)) is expected
    assert pair.all_blocks() == [1]


def test_an_epoch_that_nobody_was_promised_is_sealed_and_one_of_somebody_else_is_not(pair: Pair) -> None:
    append(pair, epoch=4)
    assert pair.refused(Append(1, ENVIRONMENT, block_after(GENESIS, epoch=1))) is Code.NUMBER
    pair.ask(Promise(1, ENVIRONMENT, 4))
    at = pair.recorded().at
    assert pair.refused(Append(1, ENVIRONMENT, block_after(at, epoch=4))) is Code.EPOCH
    pair.ask(Promise(1, ENVIRONMENT, 5, b"other-node"))
    assert pair.refused(Append(1, ENVIRONMENT, block_after(at, epoch=5))) is Code.EPOCH
    assert pair.only(others(at, epoch=4)) == Kept(0, 2)
    assert pair.refused(others(Position(2, 3, 2, pair.recorded().at.head), epoch=3)) is Code.EPOCH


def test_a_block_of_another_recorder_is_kept_if_its_seal_and_its_certificate_check(pair: Pair) -> None:
    at = append(pair)
    keep = others(at)
    sealer = msgspec.structs.replace(OTHER.sealer, certificate=bytes(64))
    for wrong, code in (
        (msgspec.structs.replace(keep, seal=Seal(b"h" * 32, keep.seal.signature)), Code.CHAIN),
        (msgspec.structs.replace(keep, seal=Seal(keep.seal.head, bytes(64))), Code.SIGNATURE),
        (msgspec.structs.replace(keep, sealer=STRANGER.sealer), Code.SIGNATURE),
        (msgspec.structs.replace(keep, sealer=sealer), Code.SIGNATURE),
    ):
        assert pair.refused(wrong) is code
    assert pair.only(keep) == Kept(0, 2)


def test_a_full_disk_refuses_every_block_that_was_to_be_written_with_others(pair: Pair) -> None:
    at = append(pair)
    first = block_after(at)
    second = block_after(_after(at, first))
    with pair.full():
        answers = pair.ask(
            Append(1, ENVIRONMENT, first),
            Append(2, ENVIRONMENT, Block(9, 1, 9, 1, pack_body(b""))),
            Append(3, ENVIRONMENT, second),
        )
        assert [answer.code for answer in answers] == [Code.FULL, Code.NUMBER, Code.FULL]
        assert pair.all_blocks() == [1]
    assert pair.all_blocks() == [1]
    append(pair, 2)


def test_what_is_asked_in_between_sees_what_was_asked_before(pair: Pair) -> None:
    first = block_after(GENESIS, WRITING)
    answers = pair.ask(
        Append(1, ENVIRONMENT, first),
        Read(2, ENVIRONMENT, 1),
        KeepSnapshot(3, ENVIRONMENT, 1, STATE),
        Append(4, ENVIRONMENT, block_after(_after(GENESIS, first))),
        Cut(5, ENVIRONMENT, 2),
        List(6),
    )
    assert [type(answer) for answer in answers] == [Appended, Blocks, Done, Appended, Done, Listed]
    assert answers[-1].environments[0].at.number == 1


# Cuts.


def test_blocks_are_cut_with_their_snapshots(pair: Pair) -> None:
    append(pair, 4)
    for number in (1, 3):
        assert pair.only(KeepSnapshot(1, ENVIRONMENT, number, STATE)) == Done(0)
    assert pair.only(Cut(1, ENVIRONMENT, 5)) == Done(0)  # There is none to cut.
    assert pair.refused(Cut(1, ENVIRONMENT, 6)) is Code.NUMBER
    assert pair.only(Cut(1, ENVIRONMENT, 3)) == Done(0)
    assert (pair.all_blocks(), pair.recorded().snapshots) == ([1, 2], (1,))
    pair.crash()
    append(pair, 1, b"others")
    assert pair.all_blocks() == [1, 2, 3]


def test_what_would_leave_nothing_to_begin_with_is_not_cut(pair: Pair) -> None:
    at = append(pair)
    pair.ask(Create(1, ANOTHER, "other", at), others(at, environment=ANOTHER))
    assert pair.refused(Cut(1, ANOTHER, 2)) is Code.NUMBER
    assert pair.only(KeepSnapshot(1, ANOTHER, 1, STATE)) == Done(0)
    assert pair.only(Cut(1, ANOTHER, 2)) == Done(0)


def test_a_cut_that_the_disk_refused_is_done_before_the_next_block(pair: Pair) -> None:
    append(pair, 3)
    with pair.full():
        assert pair.refused(Cut(1, ENVIRONMENT, 2)) is Code.FULL
        assert pair.all_blocks() == [1, 2, 3]
        at = pair.recorded().at
        assert pair.refused(Append(1, ENVIRONMENT, block_after(at))) is Code.FULL
        assert pair.refused(Cut(1, ENVIRONMENT, 3)) is Code.FULL
    first = pair.only(Read(1, ENVIRONMENT, 1, 1)).items[1]
    at = _after(GENESIS, first.block)
    assert isinstance(pair.only(Append(1, ENVIRONMENT, block_after(at, b"others"))), Appended)
    assert pair.all_blocks() == [1, 2]


def test_a_cut_that_the_disk_refused_is_forgotten_in_a_crash(pair: Pair) -> None:
    append(pair, 3)
    with pair.full():
        assert pair.refused(Cut(1, ENVIRONMENT, 2)) is Code.FULL
    pair.crash()
    append(pair)
    assert pair.all_blocks() == [1, 2, 3, 4]


# Promises.


def test_an_epoch_is_promised_once(pair: Pair) -> None:
    assert pair.only(Promise(1, ENVIRONMENT, 1, NODE)) == Done(0)  # Again.
    assert pair.refused(Promise(1, ENVIRONMENT, 1, b"other-node")) is Code.EPOCH
    assert pair.only(Promise(1, ENVIRONMENT, 3)) == Done(0)
    assert pair.only(Promise(1, ENVIRONMENT, 3, b"other-node")) == Done(0)
    assert pair.refused(Promise(1, ENVIRONMENT, 2, NODE)) is Code.EPOCH
    pair.crash()
    assert (pair.recorded().promised_epoch, pair.recorded().promised_to) == (3, b"other-node")
    assert pair.only(others(GENESIS, epoch=5)) == Kept(0, 1)
    assert pair.refused(Promise(1, ENVIRONMENT, 4, NODE)) is Code.EPOCH
    with pair.full():
        assert pair.refused(Promise(1, ENVIRONMENT, 6, NODE)) is Code.FULL
        assert pair.only(Promise(1, ENVIRONMENT, 3, b"other-node")) == Done(0)
    assert pair.recorded().promised_epoch == 3


# States.


def test_a_state_is_kept_if_its_block_says_it(pair: Pair) -> None:
    append(pair)
    append(pair, 1, writing(b"another"))
    append(pair, 1, b"no records")
    assert pair.refused(KeepSnapshot(1, ENVIRONMENT, 4, STATE)) is Code.NUMBER
    for number, content in ((2, STATE), (1, stored(b"state", epoch=2)), (1, b"no state"), (3, STATE)):
        assert pair.refused(KeepSnapshot(1, ENVIRONMENT, number, content)) is Code.DIGEST
    for number, content in ((0, b"whatever it is"), (2, stored(b"another")), (1, STATE), (1, STATE)):
        assert pair.only(KeepSnapshot(1, ENVIRONMENT, number, content)) == Done(0)
    with pair.full():
        assert pair.refused(KeepSnapshot(1, ENVIRONMENT, 1, STATE)) is Code.FULL
    pair.crash()
    assert pair.recorded().snapshots == (0, 1, 2)
    for number, upto, found in ((0, False, 0), (2, False, 2), (1, True, 1), (9, True, 2)):
        answer = pair.only(ReadSnapshot(1, ENVIRONMENT, number, upto))
        assert isinstance(answer, Snapshot)
        assert answer.number == found
    assert pair.refused(ReadSnapshot(1, ENVIRONMENT, 3)) is Code.UNKNOWN


# Beginning anew.


def test_a_journal_begins_anew_with_a_state_of_another_recorder(pair: Pair) -> None:
    append(pair, 2)
    at = Position(7, 3, 11, b"h" * 32)
    wrong = msgspec.structs.replace(state_of(OTHER, at), signature=bytes(64))
    assert pair.refused(Restart(1, ENVIRONMENT, at, snapshot=wrong)) is Code.SIGNATURE
    with pair.full():
        assert pair.refused(Restart(1, ENVIRONMENT, at, snapshot=wrong)) is Code.SIGNATURE
        assert pair.refused(Restart(1, ENVIRONMENT, at, (2, 5), state_of(OTHER, at))) is Code.FULL
    assert (pair.all_blocks(), pair.recorded().floor) == ([1, 2], (0, 0))
    assert pair.only(Restart(1, ENVIRONMENT, at, (2, 5), state_of(OTHER, at))) == Done(0)
    assert pair.recorded() == Recorded(ENVIRONMENT, "shop", 8, at, 1, NODE, (7,), floor=(2, 5))
    assert isinstance(pair.only(ReadSnapshot(1, ENVIRONMENT, 7)), Snapshot)
    pair.crash()
    assert pair.only(others(at, epoch=3)) == Kept(0, 8)
    assert pair.refused(Read(1, ENVIRONMENT, 7)) is Code.NUMBER
    assert pair.only(Cut(1, ENVIRONMENT, 8)) == Done(0)
    assert pair.refused(Cut(1, ENVIRONMENT, 7)) is Code.NUMBER


def test_a_journal_that_is_left_remembers_what_it_had(pair: Pair) -> None:
    append(pair, 2, epoch=2)
    assert pair.only(Restart(1, ENVIRONMENT, floor=(2, 2))) == Done(0)
    assert pair.recorded() == Recorded(ENVIRONMENT, "shop", 1, GENESIS, 1, NODE, floor=(2, 2))
    assert pair.refused(Promise(1, ENVIRONMENT, 1, b"other-node")) is Code.EPOCH
    assert pair.only(Restart(1, ENVIRONMENT, floor=(1, 9))) == Done(0)
    assert pair.recorded().floor == (2, 2)
    assert pair.refused(Restart(1, ENVIRONMENT, Position(3, 1, 3, b"h" * 32))) is Code.NUMBER
    pair.crash()
    append(pair, epoch=3)
    assert pair.recorded().floor == (2, 2)


def test_what_is_to_be_left_is_left_before_the_next_block_where_the_disk_refused(pair: Pair) -> None:
    append(pair, 2)
    with pair.full():
        assert pair.refused(Restart(1, ENVIRONMENT, floor=(1, 2))) is Code.FULL
        assert pair.all_blocks() == [1, 2]
        assert pair.refused(others(GENESIS)) is Code.FULL
    assert pair.only(others(GENESIS)) == Kept(0, 1)
    assert pair.recorded().floor == (1, 2)


def test_the_highest_block_that_was_to_be_left_is_remembered(pair: Pair) -> None:
    append(pair, 2)
    with pair.full():
        assert pair.refused(Restart(1, ENVIRONMENT, floor=(1, 2))) is Code.FULL
        assert pair.refused(Restart(1, ENVIRONMENT, floor=(1, 1))) is Code.FULL
    assert pair.only(others(GENESIS)) == Kept(0, 1)
    assert pair.recorded().floor == (1, 2)


def test_who_is_given_a_state_instead_of_what_was_to_be_left_remembers_it_too(pair: Pair) -> None:
    append(pair, 2)
    at = Position(7, 3, 11, b"h" * 32)
    with pair.full():
        assert pair.refused(Restart(1, ENVIRONMENT, floor=(1, 2))) is Code.FULL
        assert pair.refused(Restart(1, ENVIRONMENT, at, (1, 1), state_of(OTHER, at))) is Code.FULL
    assert pair.only(Restart(1, ENVIRONMENT, at, snapshot=state_of(OTHER, at))) == Done(0)
    assert pair.recorded().floor == (1, 2)
    assert pair.only(others(at, epoch=3)) == Kept(0, 8)


def test_what_is_to_be_left_is_forgotten_in_a_crash_as_nobody_was_told_that_it_is(pair: Pair) -> None:
    append(pair, 2)
    with pair.full():
        assert pair.refused(Restart(1, ENVIRONMENT, floor=(1, 2))) is Code.FULL
    pair.crash()
    append(pair)
    assert (pair.all_blocks(), pair.recorded().floor) == ([1, 2, 3], (0, 0))


# Code.


def test_code_is_kept_under_its_digest(pair: Pair) -> None:
    digest = sha256(b"code").digest()
    assert pair.refused(KeepCode(1, digest, b"other")) is Code.DIGEST
    with pair.full():
        assert pair.refused(KeepCode(1, digest, b"code")) is Code.FULL
    assert pair.refused(ReadCode(1, digest)) is Code.UNKNOWN
    assert pair.only(KeepCode(1, digest, b"code")) == Done(0)
    with pair.full():
        assert pair.only(KeepCode(1, digest, b"code")) == Done(0)  # It is there.
    pair.crash()
    assert pair.only(ReadCode(1, digest)) == Content(0, b"code")


# Anything.


class Chance:
    """Draws requests that are right more often than not."""

    def __init__(self, seed: int) -> None:
        self._draw = Random(seed)

    def some(self) -> int:
        return self._draw.choice((1, 1, 1, 2, 3))

    def chance(self, percent: int) -> bool:
        return self._draw.randrange(100) < percent

    def request(self, known: Recorded | None, environment: bytes) -> Request:
        """Draw one, given what there is."""
        draw = self._draw
        if known is None:
            at = GENESIS if draw.randrange(3) else Position(draw.randrange(1, 5), 1, 4, b"h" * 32)
            return Create(1, environment, "shop", at)
        near = max(1, known.at.number + draw.choice((-2, -1, 0, 0, 1, 2)))
        match draw.randrange(14):
            case 0 | 1 | 2:
                return Append(1, environment, self._block(known.at))
            case 3 | 4:
                return self._keep(known.at, environment)
            case 5:
                return Cut(1, environment, near)
            case 6 | 7:
                epoch = max(1, known.promised_epoch + draw.choice((-1, 0, 0, 1)))
                return Promise(1, environment, epoch, draw.choice((NODE, NODE, b"", b"other-node")))
            case 8:
                content = draw.choice((STATE, STATE, stored(b"state", epoch=2), stored(b"other"), b"none"))
                return KeepSnapshot(1, environment, draw.choice((0, near, near)), content)
            case 9:
                return ReadSnapshot(1, environment, near, draw.choice((True, False)))
            case 10:
                return Read(1, environment, near, draw.choice((1, 200, 64 * 1024)), draw.choice((1, 2, 99)))
            case 11:
                return self._restart(environment)
            case 12:
                return Forget(1, environment, ended=draw.randrange(8) == 0)
            case _:
                return Create(1, environment, "shop")

    def _block(self, at: Position) -> Block:
        draw = self._draw
        epoch = max(1, at.epoch + draw.choice((-1, 0, 0, 0, 0, 1)))
        number = at.number + draw.choice((1, 1, 1, 1, 1, 2))
        return Block(number, epoch, at.events + 1, draw.randrange(1, 3), pack_body(WRITING))

    def _keep(self, at: Position, environment: bytes) -> Keep:
        block = self._block(at)
        try:
            seal = OTHER.seal(at, block, environment)[0].seal
        except ChainError:
            seal = Seal(b"h" * 32, bytes(64))
        if self.chance(10):
            seal = Seal(seal.head, bytes(64))
        return Keep(1, environment, OTHER.sealer, block, seal)

    def _restart(self, environment: bytes) -> Restart:
        draw = self._draw
        floor = draw.randrange(3), draw.randrange(5)
        if draw.randrange(2):
            return Restart(1, environment, floor=floor)
        at = Position(draw.randrange(1, 9), draw.randrange(1, 3), 4, b"h" * 32)
        signed = open_snapshot(OTHER.snapshot(at, STATE, environment), environment, at.number)
        taken = Taken(signed.content, signed.sealer, signed.signature)
        return Restart(1, environment, at, floor, None if self.chance(10) else taken)


@pytest.mark.parametrize("seed", range(RANDOM_RUNS))
def test_whatever_is_asked_in_whatever_order_both_answer_the_same(seed: int, tmp_path: Path) -> None:
    pair, chance = Pair(tmp_path), Chance(seed)
    for _ in range(RANDOM_STEPS):
        known = {one.environment: one for one in pair.only(List(1)).environments}
        environment = ENVIRONMENT if chance.chance(70) else ANOTHER
        requests = [chance.request(known.get(environment), environment) for _ in range(chance.some())]
        if chance.chance(20):
            with pair.full():
                pair.ask(*requests)
        else:
            pair.ask(*requests)
        if chance.chance(10):
            pair.crash()
    for recorded in pair.only(List(1)).environments:
        pair.all_blocks(recorded.environment)
