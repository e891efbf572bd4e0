# SPDX-License-Identifier: Apache-2.0
"""Does a machine decide again what it decided then? Re-run it from its journal and compare every input's effects.

The recording holds a digest of the effects and not the effects themselves, so the first differing *input* is named;
``show`` gets what the replay did at that input before the error is raised. Wherever one segment continues another, the
replayed state must also be byte for byte the recorded snapshot, so state that no effect shows yet is compared too.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, final

from atoll.base.errors import CorruptError, DivergenceError, UserError, WireError
from atoll.core.codec import Codec
from atoll.core.journal import (
    DIGEST_BYTES,
    MARK_BYTES,
    Header,
    Origin,
    Record,
    SegmentStart,
    TornTail,
    digest_after,
    encode_effects,
    encode_raised,
    read,
)
from atoll.core.limits import INPUT_BYTES_MAX
from atoll.core.machine import Machine, MachineKind

__all__ = ["ReplayResult", "Replayed", "replay"]

AnyKind = MachineKind[Any, Any]  # A journal decides at run time which machine it is; typing has no name for that.


@dataclass(frozen=True, slots=True)
class Replayed:
    """One input as the replay saw it.

    Attributes:
        sequence: Number of the input.
        now_ns: The machine's clock.
        wall_ns: Wall time, ns since 1970, by the clock that the run started with.
        event: The input.
        effects: What the machine wanted done, in order; empty when it raised.
        raised: Name of the exception that the machine raised, which is a bug in it; None: it did not.
        agrees: Whether the recording says the same.
    """

    sequence: int
    now_ns: int
    wall_ns: int
    event: object
    effects: tuple[object, ...]
    raised: str | None
    agrees: bool


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a whole replay found.

    Attributes:
        inputs: How many inputs were re-run, all with the recorded effects.
        sequence: Number of the last input; 0: the journal holds nothing whole.
        digest: Digest of the effects of the last run or gapless part of it, 16 bytes.
        state: Snapshot of the machine at the end; empty when the journal holds nothing whole.
        kind: Name of the last machine's kind; empty when the journal holds nothing whole.
        segments: How many segments were read.
        runs: How many of them were the first of a process's life.
        gaps: Places where the journal says that inputs are missing.
        torn: Segments that end inside a record.
        raised: Inputs at which the machine raised, then and now.
    """

    inputs: int
    sequence: int
    digest: bytes
    state: bytes
    kind: str
    segments: int
    runs: int
    gaps: int
    torn: int
    raised: int


def replay(
    kinds: Mapping[str, AnyKind],
    segments: Iterable[bytes],
    *,
    until: int | None = None,
    show: Callable[[Replayed], None] | None = None,
) -> ReplayResult:
    """Re-run machines from their journal, oldest segment first.

    Args:
        kinds: The machine kinds that may occur, by name.
        segments: Bytes of one or several segments each, such as the files of a journal's directory in order, or one
            exported file. May start at any segment.
        until: Number of the last input to apply; None: all.
        show: Called after each input, also after the one that diverges.

    Raises:
        DivergenceError: The first input whose effects differ, or whose state differs where a segment continues.
        CorruptError: Bytes that were not written so. Everything before was shown.
        UserError: A301, recorded by another version or a kind of machine that ``kinds`` does not hold; A501, ``until``
            lies before the oldest segment.
    """
    rerun = _Rerun(kinds, show)
    for number, data in enumerate(segments):
        try:
            for item in read(data):
                if until is not None and rerun.reached(until):
                    return rerun.result()
                rerun.take(item)
        except CorruptError as error:
            raise CorruptError(f"segment file {number + 1}, {error}") from error
    return rerun.result()


@final
class _Rerun:
    """The state of one replay."""

    def __init__(self, kinds: Mapping[str, AnyKind], show: Callable[[Replayed], None] | None) -> None:
        self._kinds: Final = kinds
        self._show: Final = show
        self._header: Header | None = None
        self._machine: Machine[Any, Any] | None = None
        self._inputs: Codec[Any] | None = None
        self._digest = bytes(DIGEST_BYTES)
        self._sequence = 0
        self._count = self._segments = self._runs = self._gaps = self._torn = self._raised = 0

    def take(self, item: SegmentStart | Record | TornTail) -> None:
        match item:
            case SegmentStart():
                self._start(item)
            case Record():
                self._apply(item)
            case TornTail():
                self._torn += 1

    def reached(self, until: int) -> bool:
        """Return whether the machine is in its state after input ``until``, or later where that input is missing."""
        if self._header is None:
            return False
        if self._count == 0 and self._sequence > until:
            raise UserError(
                "A501",
                f"this journal begins after input {until}",
                where=f"its oldest snapshot is the state after input {self._sequence}",
                fix=f"choose --until {self._sequence} or later",
            )
        return self._sequence >= until

    def result(self) -> ReplayResult:
        return ReplayResult(
            inputs=self._count,
            sequence=self._sequence,
            digest=self._digest,
            state=b"" if self._machine is None else self._machine.snapshot(),
            kind="" if self._header is None else self._header.kind,
            segments=self._segments,
            runs=self._runs,
            gaps=self._gaps,
            torn=self._torn,
            raised=self._raised,
        )

    def _start(self, start: SegmentStart) -> None:
        header = start.header
        if self._header is not None and header.origin is Origin.ROLLOVER:
            self._continue(self._header, start)
        kind = self._kind_of(header)
        self._machine = kind.restore(start.snapshot)
        self._inputs = Codec(kind.inputs, bytes_max=INPUT_BYTES_MAX, name=f"{kind.name} input")
        self._header, self._digest, self._sequence = header, header.digest, header.sequence
        self._segments += 1
        self._runs += header.origin is Origin.START
        self._gaps += header.origin is Origin.RESUMED

    def _continue(self, before: Header, start: SegmentStart) -> None:
        """Compare the replayed state with the snapshot of the segment that continues it."""
        assert self._machine is not None
        header = start.header
        if (before.wall_ns, before.started_ns) != (header.wall_ns, header.started_ns):
            raise CorruptError(f"offset {start.offset}: a segment that continues another run")
        if header.sequence != self._sequence:
            raise CorruptError(f"offset {start.offset}: a segment after input {header.sequence}, not {self._sequence}")
        if header.digest != self._digest:
            raise DivergenceError(header.sequence, header.digest.hex(), self._digest.hex())
        state = self._machine.snapshot()
        if state != start.snapshot:
            raise DivergenceError(header.sequence, f"state {_short(start.snapshot)}", f"state {_short(state)}")

    def _kind_of(self, header: Header) -> AnyKind:
        kind = self._kinds.get(header.kind)
        if kind is None:
            known = ", ".join(self._kinds) or "none"
            raise UserError(
                "A301",
                f"this journal is of a machine called {header.kind}, which this atoll does not have",
                where=f"it has: {known}; recorded by atoll {header.product} on node {header.node}",
                fix=f"replay it with atoll {header.product}",
            )
        if kind.version != header.version:
            raise UserError(
                "A301",
                f"this journal is of version {header.version} of the {kind.name} machine, "
                f"and this atoll has version {kind.version}",
                where=f"recorded by atoll {header.product} on node {header.node}",
                fix=f"replay it with atoll {header.product}",
            )
        return kind

    def _apply(self, record: Record) -> None:
        assert self._machine is not None
        assert self._inputs is not None
        assert self._header is not None
        try:
            event: object = self._inputs.decode(record.payload)
        except WireError as error:
            # The frame checks, so the recorder wrote it: an input whose form changed without a new kind version.
            raise CorruptError(f"offset {record.offset}: {error.reason} (input {record.sequence})") from error
        raised: str | None = None
        effects: tuple[object, ...] = ()
        try:
            effects = tuple(self._machine.handle(event, record.now_ns))
            encoded = encode_effects(effects)
        except Exception as error:  # noqa: BLE001  The recording may hold the very same failure; the digest decides.
            raised, encoded = type(error).__name__, encode_raised(error)
            self._raised += 1
        digest = digest_after(self._digest, encoded)
        agrees = digest[:MARK_BYTES] == record.mark
        if self._show is not None:
            wall_ns = self._header.wall_ns + record.now_ns - self._header.started_ns
            self._show(Replayed(record.sequence, record.now_ns, wall_ns, event, effects, raised, agrees))
        if not agrees:
            raise DivergenceError(record.sequence, record.mark.hex(), digest[:MARK_BYTES].hex())
        self._digest, self._sequence = digest, record.sequence
        self._count += 1


def _short(state: bytes) -> str:
    return blake2b(state, digest_size=MARK_BYTES).hexdigest()
