# SPDX-License-Identifier: Apache-2.0
"""Why a replay differs from its recording: the field where it is known, and the likely cause.

Of what a record brought about the journal has a digest only, so what was expected is known at a checkpoint, and else
where some replay repeats it. Therefore the record is applied again in processes that differ in one thing: the order of
sets, which follows from PYTHONHASHSEED. If one of them repeats the recording, or if they differ among each other, it
is that. A look at a clock, a generator, a file or the network raises by itself where ``guard`` stands, also when it did
its harm in an earlier event. What is left is code that is not the recorded code: another version of a package or of
atoll. If it is none of these, that is said.
"""

import os
import signal
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self, final

import msgspec

from atoll.base.errors import CorruptError, ProjectError
from atoll.base.version import __version__
from atoll.domain import guard
from atoll.domain.loading import Bundle
from atoll.domain.shelves import DiskShelf, find_journal
from atoll.env.comparing import Difference, differences, grouped_effects
from atoll.env.lint_rules import RULES
from atoll.env.past import Past, flat
from atoll.env.plain_data import decode_plain
from atoll.env.records import Effect
from atoll.env.state import State
from atoll.env.stepping import DivergedError
from atoll.env.walls import HandlerKilled, Walls

__all__ = [
    "Cause",
    "GuardedWalls",
    "Outcome",
    "TimedWalls",
    "cause_of",
    "changed_code",
    "changes_of",
    "main",
    "of_outcomes",
    "rehearse",
    "rehearsed",
]

SEEDS: Final = ("0", "1", "2")  # Three orders: two differ by chance where a set has but two items.
REHEARSAL_S_MAX: Final = 120.0  # Limit. One replay up to the record; a cause that takes longer is not looked for.
RESULT_BYTES_MAX: Final = 16 * 1024 * 1024  # Limit. What one record brings about is far below.
_encode: Final = msgspec.msgpack.Encoder().encode
_states: Final = msgspec.msgpack.Decoder(State)
_effects: Final = msgspec.msgpack.Decoder(list[Effect])


@final
class GuardedWalls:
    """Keeps handlers from looking at the world while they are replayed, as it was when they ran."""

    def __init__(self) -> None:
        guard.install()

    def enter(self, *, is_again: bool = False) -> None:
        """Handlers run from here on."""
        del is_again  # Nothing is ended here.
        guard.begin()

    def leave(self) -> None:
        """No handler runs any more."""
        guard.end(0)

    def about(self, environment: bytes, party: bytes, first: int, count: int) -> None:
        """Note nothing: what ends this process is seen by whoever started it."""

    def is_late(self, since_ns: int) -> bool:
        """Return that nobody waits."""
        del since_ns
        return False


@final
class TimedWalls:
    """As ``GuardedWalls``, and ends a handler that does not come to its end. Use it with ``with``, in the main thread.

    Other code than was recorded may loop, and so does the same code at an event at which it was ended then.

    Args:
        handler_s_max: A handler is ended after this long, or a little sooner; at least after half of it.
    """

    def __init__(self, handler_s_max: float) -> None:
        self._inner: Final = GuardedWalls()
        self._period_s: Final = handler_s_max / 2
        self._entered = self._seen = 0
        self._inside = False

    def __enter__(self) -> Self:
        signal.signal(signal.SIGALRM, self._alarm)
        signal.setitimer(signal.ITIMER_REAL, self._period_s, self._period_s)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def enter(self, *, is_again: bool = False) -> None:
        """Handlers run from here on."""
        self._entered += 1
        self._inside = True
        self._inner.enter(is_again=is_again)

    def leave(self) -> None:
        """No handler runs any more."""
        self._inside = False
        self._inner.leave()

    def about(self, environment: bytes, party: bytes, first: int, count: int) -> None:
        """Note nothing."""

    def is_late(self, since_ns: int) -> bool:
        """Return that nobody waits."""
        return self._inner.is_late(since_ns)

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._inside and self._seen == self._entered:
            self._inside = False
            raise HandlerKilled(f"it ran for more than {self._period_s:g} s")
        self._seen = self._entered


@dataclass(frozen=True, slots=True)
class Cause:
    """What is known of a divergence.

    Attributes:
        kind: ``clock``, ``randomness``, ``file``, ``network``, ``process``, ``host``, ``thread``, ``set order``,
            ``changed code``, ``chance`` or ``unknown``.
        sentence: Why it is thought so.
        differences: The fields, as recorded and as they came now; none: what was recorded is known by its digest only.
    """

    kind: str
    sentence: str
    differences: tuple[Difference, ...] = ()


def cause_of(shelf: DiskShelf, diverged: DivergedError) -> Cause:
    """Find out the likely cause of a divergence."""
    ambient = diverged.__cause__
    if isinstance(ambient, guard.AmbientError):
        word = next((word for word, rule in RULES.items() if rule.instead == ambient.instead), "unknown")
        return Cause({"random": "randomness"}.get(word, word), f"the handler calls {ambient.what}")
    found = _of_state(shelf, diverged)
    if diverged.what in {"effects", "raised"}:
        outcomes = [rehearse(shelf, (diverged.block, diverged.index), seed) for seed in (*SEEDS, SEEDS[0])]
        cause = of_outcomes(outcomes, diverged)
        if cause is not None:
            return cause
    changed = changed_code(shelf)
    if changed:
        return Cause("changed code", changed, found)
    return Cause("unknown", "the same code gives something else now, the same each time", found)


def _of_state(shelf: DiskShelf, diverged: DivergedError) -> tuple[Difference, ...]:
    """Return the fields in which the state of a checkpoint differs, if its snapshot is still here."""
    if diverged.what != "state" or diverged.block not in shelf.snapshots:
        return ()
    try:
        kept = shelf.snapshot(diverged.block).state
    except CorruptError:
        return ()
    fields = differences(flat(_fields(kept)), flat(_fields(diverged.state)))
    return fields or differences(decode_plain(kept), decode_plain(diverged.state))


def _fields(state: bytes) -> dict[str, dict[str, Any]]:
    """Return the declared state in a snapshot, by path."""
    return {path: decode_plain(branch.fields) for path, branch in _states.decode(state).branches.items()}


class Outcome(msgspec.Struct, frozen=True):
    """What a rehearsal gave.

    Attributes:
        repeats: Whether it was what was recorded.
        effects: What the record brought about, encoded, in base 64.
        got: What else can be said of it.
    """

    repeats: bool = False
    effects: str = ""
    got: str = ""

    def plain(self) -> object:
        """Return what came of it as plain data."""
        return grouped_effects(_effects.decode(b64decode(self.effects))) if self.effects else self.got


def of_outcomes(outcomes: Sequence[Outcome | None], diverged: DivergedError) -> Cause | None:
    """Judge what rehearsals gave: one for each of SEEDS, and the first once more; None: they say nothing."""
    known = [one for one in outcomes if one is not None]
    if len(known) < len(outcomes):
        return None
    repeated = next((one for one in known if one.repeats), None)
    first, again = known[0], known[-1]
    if first != again:
        different = differences(first.plain(), again.plain())
        return Cause("chance", "two replays in the same conditions differ from each other", different)
    got = grouped_effects(diverged.effects) if diverged.effects else diverged.got
    if repeated is not None:
        sentence = "with another PYTHONHASHSEED it gives what was recorded"
        return Cause("set order", sentence, differences(repeated.plain(), got))
    other = next((one for one in known if one != first), None)
    if other is not None:
        sentence = "what it gives changes with PYTHONHASHSEED"
        return Cause("set order", sentence, differences(other.plain(), got))
    return None


def changed_code(shelf: DiskShelf) -> str:
    """Return what of the code is not as it was; empty: nothing that can be seen."""
    try:
        bundle = shelf.bundle(Past(shelf).start_before(shelf.last_event).code)
    except ProjectError:
        return ""
    return changes_of(bundle, shelf.products())


def changes_of(bundle: Bundle, products: Sequence[str]) -> str:
    """Return which versions are not as they were, of atoll and of what an application needs; empty: none."""
    found: list[str] = []
    others = [product for product in products if product != __version__]
    if others:
        found.append(f"atoll {', '.join(others)} recorded, and this is {__version__}")
    for name, version in bundle.needs:
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            here = "missing"
        if here != version:
            found.append(f"{name} was {version}, and is {here}")
    return "; ".join(found)


class _Order(msgspec.Struct, frozen=True):
    """What a process is to rehearse."""

    path: str
    code: tuple[str, ...]
    block: int
    index: int


def rehearse(shelf: DiskShelf, place: tuple[int, int], seed: str) -> Outcome | None:
    """Apply everything up to a record in a process of its own; None: it came to nothing."""
    directory = shelf.journal.directory
    order = _Order(str(directory), tuple(map(str, shelf.code)), *place)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "atoll.domain.causes"],
            input=msgspec.json.encode(order),
            capture_output=True,
            timeout=REHEARSAL_S_MAX,
            check=False,
            env={**os.environ, **guard.INTERPRETER_VARIABLES, "PYTHONHASHSEED": seed},
        )
        return msgspec.json.decode(done.stdout[:RESULT_BYTES_MAX], type=Outcome)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):
        return None


def main() -> int:
    """Rehearse what standard input says, and print the outcome."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=_Order)
    shelf = DiskShelf(find_journal(Path(order.path), order.path), tuple(map(Path, order.code)))
    sys.stdout.buffer.write(msgspec.json.encode(rehearsed(shelf, order.block, order.index, GuardedWalls())))
    return 0


def rehearsed(shelf: DiskShelf, block: int, index: int, walls: Walls) -> Outcome:
    """Apply everything up to a record."""
    try:
        effects = Past(shelf, walls).effects_of(block, index)
    except DivergedError as error:
        return Outcome(effects=_text(error.effects) if error.effects else "", got=f"{error.event}: {error.got}")
    return Outcome(repeats=True, effects=_text(effects))


def _text(effects: tuple[Effect, ...]) -> str:
    return b64encode(_encode(effects)).decode()


if __name__ == "__main__":
    sys.exit(main())
