# SPDX-License-Identifier: Apache-2.0
"""A recorder in memory: it answers as ``domain.recorder.store`` does, late, and keeps what it has through a crash.

Requests are done in their order, some at a time; only then are they answered. What was not done when the power is cut
is lost, and some of it may have been done although nobody heard of it. Both answer the same to what environments ask
(``tests/contract/test_recorder.py``). It has no need of what limits a disk or serves an operator: counts of files,
damage, ``Retain``, ``KeepHead`` and ``Certify``.
"""

from collections.abc import Callable, Generator, Sequence
from hashlib import sha256
from struct import Struct
from typing import Final, Generic, Protocol, TypeVar, final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from atoll.base.errors import CorruptError, LinkError
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
    Greeting,
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
    RefusedError,
    Request,
    Restart,
    Snapshot,
    Starting,
)
from atoll.domain.recorder.snapshots import Signed, checks
from atoll.env.chain import (
    GENESIS,
    Block,
    ChainError,
    Fault,
    Position,
    Seal,
    Sealed,
    Sealer,
    certificate_payload,
    is_certified,
    position_after,
    seal_payload,
    signed_by,
)
from atoll.env.history import check_written, decode_snapshot, written_in

__all__ = ["Journal", "Later", "RecorderEnd", "Signatures", "SimRecorder"]

T = TypeVar("T")
_SNAPSHOT: Final = b"atoll-snapshot-1"  # As in docs/spec/environment-journal.md, section 6.
_NUMBER: Final = Struct("<Q")
Told = Callable[[Answer | LinkError], None]
_CODES: Final = {Fault.NUMBER: Code.NUMBER, Fault.EPOCH: Code.EPOCH, Fault.CHAIN: Code.CHAIN}


@final
class Later(Generic[T]):
    """Something that comes later; a coroutine that awaits it is driven by ``node.Process.spawn``."""

    def __init__(self) -> None:
        self._result: T | None = None
        self._error: Exception | None = None
        self._is_done = False
        self._then: list[Callable[[], object]] = []

    def __await__(self) -> Generator["Later[T]", None, T]:
        if not self._is_done:
            yield self
        if self._error is not None:
            raise self._error
        assert self._is_done, "a coroutine goes on when there is something"
        return self._result  # type: ignore[return-value]  # It is a T once it is done.

    def then(self, step: Callable[[], object]) -> None:
        """Call this when it is there."""
        self._then.append(step)

    def give(self, result: T) -> None:
        """It is there."""
        self._result, self._is_done = result, True
        self._go_on()

    def fail(self, error: Exception) -> None:
        """It never comes."""
        self._error, self._is_done = error, True
        self._go_on()

    def _go_on(self) -> None:
        then, self._then = self._then, []
        for step in then:
            step()


@final
class Journal:
    """The journal of one environment on one disk.

    Attributes:
        name: What people call the environment.
        base: What the first block follows.
        blocks: With who sealed each.
        positions: After each block.
        promised: Epoch and node; empty: nobody.
        floor: Epoch and number of the newest block that was ever here and is not any more.
        snapshots: By number of the block after which they were taken.
    """

    def __init__(self, environment: bytes, name: str, base: Position) -> None:
        self.environment, self.name, self.base = environment, name, base
        self.blocks: list[tuple[Sealer, Sealed]] = []
        self.positions: list[Position] = []
        self.promised: tuple[int, bytes] = (0, b"")
        self.floor: tuple[int, int] = (0, 0)
        self.snapshots: dict[int, Signed] = {}
        self.is_aside = False  # Something of it was put aside.
        self.unleft: Restart | None = None  # All was to be put aside, and the disk refused.
        self.uncut: int | None = None  # Blocks from here on were to be cut, and the disk refused.

    @property
    def position(self) -> Position:
        """Where it stands."""
        return self.positions[-1] if self.positions else self.base

    def head(self, number: int) -> bytes:
        """Return the head after a block; empty: it is not here."""
        index = number - self.base.number - 1
        return self.positions[index].head if 0 <= index < len(self.positions) else b""

    def block(self, number: int) -> Block:
        """Return a block that is here."""
        return self.blocks[number - self.base.number - 1][1].block

    def cut(self, number: int) -> None:
        """Take the blocks from a number on out."""
        self.take_back(number)
        self.is_aside = True
        self.snapshots = {at: signed for at, signed in self.snapshots.items() if at < number}

    def take_back(self, number: int) -> None:
        """Forget the blocks from a number on, as if they had never been here."""
        keep = number - self.base.number - 1
        del self.blocks[keep:], self.positions[keep:]

    def after(self, number: int) -> Position:
        """Return where it stood after a block that is here, or the one before the first."""
        return self.base if number == self.base.number else self.positions[number - self.base.number - 1]


class Disturbed(Protocol):
    """What happens to the disk of a node."""

    def disk_ns(self) -> int:
        """Return how long the next requests take."""
        ...

    def refuses(self) -> bool:
        """Return whether the disk has no room for the next request."""
        ...

    def after(self, span_ns: int, action: Callable[[], object]) -> None:
        """Do this later."""
        ...

    def below(self, bound: int) -> int:
        """Draw a number."""
        ...


@final
class RecorderEnd:
    """One process's connection to a recorder, as ``domain.recorder.client``."""

    def __init__(self, recorder: "SimRecorder") -> None:
        self._recorder: Final = recorder
        self._last = 0
        self._told: dict[int, Told] = {}
        self.is_closed = False

    def ask(self, make: Callable[[int], Request], told: Told) -> None:
        """Ask."""
        self._last += 1
        self._told[self._last] = told
        self._recorder.put(self, make(self._last))

    def take(self, answer: Answer) -> None:
        """Take an answer."""
        assert not isinstance(answer, Greeting | Starting), "nobody is greeted here"
        if not self.is_closed:
            self._told.pop(answer.id)(answer)

    def request(self, make: Callable[[int], Request], kind: type[T]) -> Later[T]:
        """Ask, and return what gives the answer."""
        later: Later[T] = Later()

        def told(answer: Answer | LinkError) -> None:
            if isinstance(answer, kind):
                later.give(answer)
            elif isinstance(answer, Refused):
                later.fail(RefusedError(answer.code, answer.words))
            else:
                later.fail(LinkError("the answer to something else"))

        self.ask(make, told)
        return later

    async def listed(self) -> Listed:
        """Return what is kept, and what has ended."""
        return await self.request(List, Listed)

    async def environments(self) -> tuple[Recorded, ...]:
        """Return what is kept."""
        return (await self.listed()).environments

    async def read_code(self, digest: bytes) -> bytes:
        """Return code."""
        return (await self.request(lambda number: ReadCode(number, digest), Content)).content

    def read(self, environment: bytes, number: int, bytes_max: int = 64 * 1024) -> Later[Blocks]:
        """Return blocks."""
        return self.request(lambda request: Read(request, environment, number, bytes_max), Blocks)

    def read_snapshot(self, environment: bytes, number: int) -> Later[Snapshot]:
        """Return a state."""
        return self.request(lambda request: ReadSnapshot(request, environment, number), Snapshot)


@final
class Signatures:
    """Seals that were checked, by any node: each takes as long as ten events, and all nodes check the same ones."""

    def __init__(self) -> None:
        self._found: dict[tuple[bytes, Sealer, Seal], bool] = {}
        self._certified: dict[Sealer, bool] = {}

    def checks(self, environment: bytes, sealer: Sealer, seal: Seal) -> bool:
        """Return whether a sealer that its node has certified made this seal."""
        if sealer not in self._certified:
            self._certified[sealer] = is_certified(sealer)
        key = environment, sealer, seal
        if key not in self._found:
            is_signed = signed_by(sealer.recorder, seal_payload(environment, seal.head), seal.signature)
            self._found[key] = is_signed and self._certified[sealer]
        return self._found[key]


@final
class SimRecorder:
    """What one node's recorder keeps.

    Args:
        node: The node's id.
        seed: 64 bytes, of which its keys are made.
        disk: What happens to its disk.
        signatures: What was checked already.

    Attributes:
        sealer: What it seals as.
        journals: What is kept, by environment.
        ended: Journals that have come to their end, oldest first.
        code: By its digest.
        refusals: How often what was refused, for people who look for what went wrong.
    """

    def __init__(self, node: bytes, seed: bytes, disk: Disturbed, signatures: "Signatures") -> None:
        self._key: Final = Ed25519PrivateKey.from_private_bytes(seed[:32])
        signing = Ed25519PrivateKey.from_private_bytes(seed[32:64])
        public = self._key.public_key().public_bytes_raw()
        certificate = signing.sign(certificate_payload(node, public))
        self.sealer: Final = Sealer(node, public, signing.public_key().public_bytes_raw(), certificate)
        self._disk: Final = disk
        self.journals: dict[bytes, Journal] = {}
        self.ended: list[Journal] = []
        self.code: dict[bytes, bytes] = {}
        self._queue: list[tuple[RecorderEnd, Request]] = []
        self._doing = 0
        self.refusals: dict[str, int] = {}
        self._staged: dict[bytes, list[tuple[int, Answer]]] = {}  # What is about to be written, by environment.
        self._turn = 0  # Of the power: what was begun before a cut never ends.
        self._signed_by: Final = signatures
        self._ways: Final[dict[type[Request], Callable[..., Answer]]] = {
            List: self._list,
            Create: self._create,
            Cut: self._cut,
            Promise: self._promise,
            KeepSnapshot: self._keep_snapshot,
            ReadSnapshot: self._read_snapshot,
            Read: self._read,
            KeepCode: self._keep_code,
            ReadCode: self._read_code,
            Forget: self._forget,
            Restart: self._restart,
        }

    # Time.

    def put(self, end: RecorderEnd, request: Request) -> None:
        """Take a request."""
        self._queue.append((end, request))
        if not self._doing:
            self._begin()

    def _begin(self) -> None:
        self._doing = len(self._queue)
        turn = self._turn
        self._disk.after(self._disk.disk_ns(), lambda: self._done(turn))

    def _done(self, turn: int) -> None:
        if turn != self._turn:
            return
        batch, self._queue = self._queue[: self._doing], self._queue[self._doing :]
        answers = self._serve([request for _, request in batch])
        self._doing = 0
        if self._queue:
            self._begin()
        for index, answer in answers:
            batch[index][0].take(answer)

    def cut_power(self) -> None:
        """Lose what is not on the disk; of what was asked for last some may be."""
        self._turn += 1
        self._serve([request for _, request in self._queue[: self._disk.below(len(self._queue) + 1)]])
        for journal in self.journals.values():
            journal.unleft = journal.uncut = None
        self._queue, self._doing = [], 0

    # What it does.

    def _serve(self, requests: Sequence[Request]) -> list[tuple[int, Answer]]:
        """Do what is asked, in this order; return the answers, each with which request it is to.

        Blocks of one journal that come together are written together, and the disk takes all of them or none.
        """
        answers: list[tuple[int, Answer]] = []
        for index, request in enumerate(requests):
            if isinstance(request, Append | Keep):
                self._stage(index, request, answers)
                continue
            answers += self._commit()
            try:
                answers.append((index, self._ways[type(request)](request)))
            except RefusedError as error:
                answers.append((index, self._refused(request, error)))
        return answers + self._commit()

    def _stage(self, index: int, request: Append | Keep, answers: list[tuple[int, Answer]]) -> None:
        environment = request.environment
        try:
            answer = self._append(request) if isinstance(request, Append) else self._keep(request)
        except RefusedError as error:  # After the answers to what was asked before it.
            self._staged.get(environment, answers).append((index, self._refused(request, error)))
        else:
            self._staged.setdefault(environment, []).append((index, answer))

    def _commit(self) -> list[tuple[int, Answer]]:
        staged, self._staged = self._staged, {}
        answers: list[tuple[int, Answer]] = []
        for environment, waiting in staged.items():
            try:
                self._write()
            except RefusedError as error:
                self.journals[environment].take_back(
                    min(answer.number for _, answer in waiting if isinstance(answer, Appended | Kept))
                )
                for index, answer in waiting:
                    if isinstance(answer, Appended | Kept):
                        answers.append((index, Refused.of(answer.id, error)))
                    else:
                        answers.append((index, answer))
            else:
                answers += waiting
        return answers

    def _refused(self, request: Request, error: RefusedError) -> Refused:
        what = f"{type(request).__name__} {error.code}: {error.words}"
        self.refusals[what] = self.refusals.get(what, 0) + 1
        return Refused.of(request.id, error)

    def _write(self) -> None:
        if self._disk.refuses():
            raise RefusedError(Code.FULL, "no room")

    def _journal(self, environment: bytes) -> Journal:
        if environment not in self.journals:
            raise RefusedError(Code.UNKNOWN, "no such environment")
        return self.journals[environment]

    def _list(self, request: List) -> Answer:
        environments = tuple(_recorded(one) for one in self.journals.values())
        return Listed(request.id, environments, tuple(one.environment for one in self.ended))

    def _create(self, request: Create) -> Answer:
        if request.environment in self.journals:
            raise RefusedError(Code.EXISTS, "it is there")
        if any(one.environment == request.environment for one in self.ended):
            raise RefusedError(Code.EXISTS, "it has ended")
        self._write()
        self.journals[request.environment] = Journal(request.environment, request.name, request.at)
        return Done(request.id)

    def _append(self, request: Append) -> Answer:
        journal, block = self._journal(request.environment), request.block
        epoch, node = journal.promised  # Others' blocks may be older: they are committed.
        if block.epoch < epoch or (block.epoch == epoch and node != self.sealer.node):
            raise RefusedError(Code.EPOCH, f"{journal.promised} was promised")
        after = self._follow(journal, block)
        before = journal.position.head
        seal = Seal(after.head, self._key.sign(seal_payload(request.environment, after.head)))
        journal.blocks.append((self.sealer, Sealed(block, seal)))
        journal.positions.append(after)
        return Appended(request.id, block.number, seal, before)

    def _keep(self, request: Keep) -> Answer:
        journal = self._journal(request.environment)
        after = self._follow(journal, request.block)
        if after.head != request.seal.head:
            raise RefusedError(Code.CHAIN, "its head does not follow")
        if not self._signed_by.checks(request.environment, request.sealer, request.seal):
            raise RefusedError(Code.SIGNATURE, "its seal does not check")
        journal.blocks.append((request.sealer, Sealed(request.block, request.seal)))
        journal.positions.append(after)
        return Kept(request.id, request.block.number)

    def _follow(self, journal: Journal, block: Block) -> Position:
        if journal.unleft is not None:
            self._begin_anew(journal, journal.unleft)
        if journal.uncut is not None:
            self._cut_from(journal, journal.uncut)
        try:
            return position_after(journal.position, block)
        except ChainError as error:
            raise RefusedError(_CODES[error.fault], str(error)) from error

    def _cut(self, request: Cut) -> Answer:
        self._cut_from(self._journal(request.environment), request.number)
        return Done(request.id)

    def _cut_from(self, journal: Journal, number: int) -> None:
        number = number if journal.uncut is None else min(number, journal.uncut)
        if number == journal.position.number + 1:
            return
        is_whole = not journal.base.number or any(at < number for at in journal.snapshots)
        if not journal.base.number < number <= journal.position.number or not is_whole:
            raise RefusedError(Code.NUMBER, "it cannot be cut there")
        journal.uncut = number
        self._write()
        journal.cut(number)
        journal.uncut = None

    def _promise(self, request: Promise) -> Answer:
        journal, promised = self._journal(request.environment), (request.epoch, request.node)
        before = journal.promised
        if promised != before:
            first = max(before[0], journal.position.epoch, journal.floor[0])
            if request.epoch < first or (request.epoch == before[0] and before[1]):
                raise RefusedError(Code.EPOCH, f"{promised} after {before}")
            self._write()
            journal.promised = promised
        return Done(request.id)

    def _keep_snapshot(self, request: KeepSnapshot) -> Answer:
        journal = self._journal(request.environment)
        if not journal.base.number <= request.number <= journal.position.number:
            raise RefusedError(Code.NUMBER, "that block is not here")
        if request.number > journal.base.number:
            try:
                check_written(decode_snapshot(request.content), written_in(journal.block(request.number)))
            except CorruptError as error:
                raise RefusedError(Code.DIGEST, f"a state that is not kept: {error}") from error
        self._write()
        journal.snapshots[request.number] = self._signed(journal, journal.after(request.number), request.content)
        return Done(request.id)

    def _signed(self, journal: Journal, at: Position, content: bytes) -> Signed:
        payload = b"".join((_SNAPSHOT, journal.environment, _NUMBER.pack(at.number), at.head, sha256(content).digest()))
        return Signed(at.head, content, self.sealer, self._key.sign(payload))

    def _restart(self, request: Restart) -> Answer:
        self._begin_anew(self._journal(request.environment), request)
        return Done(request.id)

    def _begin_anew(self, journal: Journal, request: Restart) -> None:
        taken = request.snapshot
        if taken is None and request.at != GENESIS:
            raise RefusedError(Code.NUMBER, "it needs the state there")
        if taken is not None:
            signed = Signed(request.at.head, taken.content, taken.sealer, taken.signature)
            if not checks(request.environment, request.at.number, signed):
                raise RefusedError(Code.SIGNATURE, "the snapshot's signature does not check")
        floor = request.floor if journal.unleft is None else max(request.floor, journal.unleft.floor)
        if taken is None:
            journal.unleft = msgspec.structs.replace(request, floor=floor)
        self._write()
        journal.base, journal.unleft, journal.uncut, journal.is_aside = request.at, None, None, True
        journal.blocks, journal.positions, journal.snapshots = [], [], {}
        journal.floor = max(journal.floor, floor)
        if taken is not None:
            journal.snapshots[request.at.number] = self._signed(journal, request.at, taken.content)

    def _read_snapshot(self, request: ReadSnapshot) -> Answer:
        journal = self._journal(request.environment)
        number = request.number
        if request.upto:
            number = max((one for one in journal.snapshots if one <= number), default=0)
        if number not in journal.snapshots:
            raise RefusedError(Code.UNKNOWN, "no such snapshot")
        at, signed = journal.after(number), journal.snapshots[number]
        place = at.epoch, at.events, signed.sealer, signed.signature
        return Snapshot(request.id, number, at.head, signed.content, *place)

    def _read(self, request: Read) -> Answer:
        journal = self._journal(request.environment)
        first, last = journal.base.number + 1, journal.position.number
        if not first <= request.number <= last + 1:
            raise RefusedError(Code.NUMBER, f"blocks {first} to {last} are here")
        items: list[Sealer | Sealed] = []
        said: Sealer | None = None
        room = request.bytes_max
        for sealer, sealed in journal.blocks[request.number - first :]:
            room -= len(sealed.block.body)
            if items and (room < 0 or sealed.block.number >= request.number + request.blocks_max):
                break
            if sealer != said:
                items.append(sealer)
                said = sealer
            items.append(sealed)
        return Blocks(request.id, tuple(items))

    def _keep_code(self, request: KeepCode) -> Answer:
        if sha256(request.content).digest() != request.digest:
            raise RefusedError(Code.DIGEST, "the code has another digest than was said")
        if request.digest not in self.code:
            self._write()
            self.code[request.digest] = request.content
        return Done(request.id)

    def _read_code(self, request: ReadCode) -> Answer:
        if request.digest not in self.code:
            raise RefusedError(Code.UNKNOWN, f"there is no code {request.digest.hex()}")
        return Content(request.id, self.code[request.digest])

    def _forget(self, request: Forget) -> Answer:
        journal = self._journal(request.environment)
        if request.ended:
            self.ended.append(journal)
        elif journal.is_aside or not _recorded(journal).is_blank:
            raise RefusedError(Code.EXISTS, "something of it is kept")
        del self.journals[request.environment]
        return Done(request.id)


def _recorded(journal: Journal) -> Recorded:
    at, (epoch, node) = journal.position, journal.promised
    snapshots = tuple(sorted(journal.snapshots))
    first = journal.base.number + 1
    return Recorded(journal.environment, journal.name, first, at, epoch, node, snapshots, floor=journal.floor)
