# SPDX-License-Identifier: Apache-2.0
"""From what the recorder keeps back to what runs: where a holding starts, and a runner as it was."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Protocol, final

from atoll.base.errors import CorruptError, ProjectError
from atoll.domain.limits import GUEST_TURN_S
from atoll.domain.loading import Loaded, decode_bundle, load
from atoll.domain.recorder.messages import Blocks, Code, Recorded, RefusedError
from atoll.domain.recorder.messages import Snapshot as Kept
from atoll.env.chain import Block, Sealed, unpack_body
from atoll.env.facts import Facts
from atoll.env.history import Body, Snapshot, decode_body, decode_snapshot
from atoll.env.holding import HoldingOptions
from atoll.env.places import Inline, Place
from atoll.env.records import INLINE, Began, Held, Level, Upgraded
from atoll.env.runner import Runner
from atoll.env.walls import OPEN, Walls

__all__ = ["Archive", "MissingCodeError"]


class Reads(Protocol):
    """What is read from: ``RecorderClient``, or what stands for it in a simulation."""

    async def read_code(self, digest: bytes) -> bytes:
        """Return an archive of code."""
        ...

    def read_snapshot(self, environment: bytes, number: int) -> Awaitable[Kept]:
        """Return a state."""
        ...

    def read(self, environment: bytes, number: int) -> Awaitable[Blocks]:
        """Return blocks from a number on."""
        ...


class MissingCodeError(ProjectError):
    """The recorder does not have some code; another holder of the environment has it.

    Args:
        code: Its SHA-256.
    """

    def __init__(self, code: bytes) -> None:
        super().__init__(code)
        self.code: Final = code

    def __str__(self) -> str:
        return f"the code {self.code.hex()} is not here"


async def _turn() -> None:
    """Let others run once."""
    await asyncio.sleep(0)


@final
class Archive:
    """What one recorder keeps, read back.

    Args:
        recorder: The recorder.
        guests: Makes a place in a process of its own for encoded code; None: handlers run in this process only.
    """

    def __init__(self, recorder: Reads, guests: Callable[[bytes], Awaitable[Place]] | None = None) -> None:
        self._recorder: Final = recorder
        self._guests: Final = guests
        self._loaded: dict[bytes, Loaded] = {}

    async def code(self, digest: bytes) -> Loaded:
        """Return code that can run.

        Raises:
            MissingCodeError: The recorder does not have it.
            UserError: It cannot be loaded here.
            CorruptError: It is no code.
        """
        if digest not in self._loaded:
            self._loaded[digest] = load(decode_bundle(await self._content(digest)))
        return self._loaded[digest]

    async def place(self, digest: bytes, level: Level) -> Place:
        """Return where code runs that is to be run at this level.

        Raises:
            MissingCodeError: The recorder does not have it.
            UserError: It cannot be loaded here, or not at this level.
            CorruptError: It is no code.
        """
        if level == INLINE or self._guests is None:
            return Inline((await self.code(digest)).program)
        return await self._guests(await self._content(digest))

    async def _content(self, digest: bytes) -> bytes:
        try:
            return await self._recorder.read_code(digest)
        except RefusedError as error:
            if error.code is Code.UNKNOWN:
                raise MissingCodeError(digest) from error
            raise

    async def options(self, recorded: Recorded, own: bytes, seed: bytes) -> tuple[HoldingOptions, Facts]:
        """Return where the holding of an environment starts, and what the environment is.

        Raises:
            CorruptError: Something in the journal does not decode.
        """
        number, snapshot = await self._newest(recorded, recorded.at.number)
        blocks: list[tuple[int, int, tuple[bytes, ...]]] = []
        code, origin = (b"", b"") if snapshot is None else (snapshot.code, snapshot.origin)
        async for block, body in self._blocks(recorded.environment, number + 1, recorded.at.number):
            holders: tuple[bytes, ...] = ()
            for entry in body.entries:
                match entry.record:
                    case Began():
                        code, origin = entry.record.code, entry.record.node
                    case Upgraded():
                        code = entry.record.code
                    case Held(nodes):
                        holders = nodes
                    case _:
                        pass
            blocks.append((block.number, block.epoch, holders))
        epoch = max(recorded.promised_epoch, recorded.at.epoch, recorded.floor[0])
        options = HoldingOptions(
            own=own,
            seed=seed,
            promise=(epoch, recorded.promised_to if epoch == recorded.promised_epoch else b""),
            base=(0, 0) if snapshot is None else (number, snapshot.epoch),
            holders=() if snapshot is None else snapshot.holders,
            blocks=tuple(blocks),
            floor=recorded.floor,
        )
        app = await self._app(code)
        return options, Facts(recorded.environment, recorded.name, app, code, origin)

    async def _app(self, code: bytes) -> str:
        """Return the name of an application; empty: its code is not here, which says so when it is to run.

        The code is not loaded for that: what is to run in a process of its own runs nowhere else, and not at all before
        it is this node's turn.
        """
        try:
            return decode_bundle(await self._content(code)).app if code else ""
        except (MissingCodeError, RefusedError, CorruptError):
            return ""

    async def runner(
        self, recorded: Recorded, number: int, walls: Walls = OPEN, rest: Callable[[], Awaitable[None]] = _turn
    ) -> Runner:
        """Return a runner in its state after block ``number``.

        Args:
            recorded: What the recorder has.
            number: Of the block.
            walls: What stands around handlers.
            rest: Waited for after each block.

        Raises:
            CorruptError: The journal does not decode, or fails when it is applied.
            DivergenceError: It gives other effects than it gave then.
            MissingCodeError: The code is not here.
            UserError: The code cannot be loaded here.
        """
        at, snapshot = await self._newest(recorded, number)
        runner: Runner | None = None
        try:
            if snapshot is not None:
                runner = await self._at(snapshot.code, snapshot.level, (at, snapshot), walls)
            async for block, body in self._blocks(recorded.environment, at + 1, number, rest):
                if runner is None:
                    first = body.entries[0].record if body.entries else None
                    if not isinstance(first, Began):
                        raise CorruptError(f"block {block.number} does not begin the environment")
                    runner = await self._at(first.code, first.level, None, walls)
                await self._redo(runner, block.number, body)
        except BaseException:
            if runner is not None:
                runner.close()
            raise
        if runner is None:
            raise CorruptError("a journal without a block")
        return runner

    async def follow(
        self, runner: Runner, environment: bytes, number: int, rest: Callable[[], Awaitable[None]] = _turn
    ) -> None:
        """Bring a runner that this has made up to a later block; ``rest`` as of ``runner``.

        Raises:
            Exception: As ``runner``. It is worth nothing then.
        """
        async for block, body in self._blocks(environment, runner.number + 1, number, rest):
            await self._redo(runner, block.number, body)

    async def _redo(self, runner: Runner, number: int, body: Body) -> None:
        changed = next((entry.record for entry in body.entries if isinstance(entry.record, Upgraded)), None)
        upgraded = None if changed is None else await self.place(changed.code, runner.level)
        try:
            for _ in runner.redoing(number, body, upgraded):
                await asyncio.sleep(GUEST_TURN_S)  # A handler in a process of its own takes as long as it took.
        except BaseException:
            if upgraded is not None:
                upgraded.close()
            raise

    async def _at(self, code: bytes, level: Level, snapshot: tuple[int, Snapshot] | None, walls: Walls) -> Runner:
        place = await self.place(code, level)
        try:
            return Runner(place, code, snapshot, walls)
        except BaseException:
            place.close()
            raise

    async def _newest(self, recorded: Recorded, number: int) -> tuple[int, Snapshot | None]:
        """Return the newest snapshot that is not after a block, and its number; (0, None): there is none."""
        usable = [one for one in recorded.snapshots if one <= number]
        if not usable:
            return 0, None
        answer = await self._recorder.read_snapshot(recorded.environment, usable[-1])
        return usable[-1], decode_snapshot(answer.content)

    async def _blocks(
        self, environment: bytes, first: int, last: int, rest: Callable[[], Awaitable[None]] = _turn
    ) -> AsyncIterator[tuple[Block, Body]]:
        while first <= last:
            answer = await self._recorder.read(environment, first)
            blocks = [item.block for item in answer.items if isinstance(item, Sealed)]
            if not blocks:
                raise CorruptError(f"block {first} is missing")
            for block in blocks:
                if block.number > last:
                    return
                yield block, decode_body(unpack_body(block.body))
                await rest()
            first = blocks[-1].number + 1
