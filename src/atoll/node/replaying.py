# SPDX-License-Identifier: Apache-2.0
"""Re-run a node's decisions from its journal: a file or a directory, of this computer or of another."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from atoll.base.errors import UserError
from atoll.core.machine import MachineKind
from atoll.core.replay import Replayed, replay
from atoll.host.journal_files import read_journal
from atoll.node.control import KIND

__all__ = ["KINDS", "REPLAY_SCHEMA", "ReplaySummary", "ReplayedInput", "replay_file", "shown"]

KINDS: Final[Mapping[str, MachineKind[Any, Any]]] = {KIND.name: KIND}
REPLAY_SCHEMA: Final = "atoll.replay/1"
INPUT_SCHEMA: Final = "atoll.replay-input/1"


class ReplaySummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay that did not diverge found.

    Attributes:
        path: The journal.
        machine: Kind of the machine; empty when the journal holds nothing whole.
        inputs: Inputs that were re-run, all with the recorded effects.
        last: Number of the last one.
        digest: Rolling digest of all effects, hex.
        segments: Segments read; ``runs``: lives of the process among them; ``gaps``: places where inputs are missing.
        torn: Segments that end inside a record, as a crash leaves them.
        raised: Inputs at which the machine raised, then and now: a bug in it.
    """

    schema: str = REPLAY_SCHEMA
    path: str
    machine: str
    inputs: int
    last: int
    digest: str
    segments: int
    runs: int
    gaps: int
    torn: int
    raised: int


class ReplayedInput(msgspec.Struct, frozen=True, kw_only=True):
    """One input that was re-run; the event and its effects as Python shows them."""

    schema: str = INPUT_SCHEMA
    sequence: int
    now_ns: int
    event: str
    effects: tuple[str, ...]
    raised: str | None


def shown(seen: Replayed) -> ReplayedInput:
    """Return an input as a line of ``atoll replay --show --json``."""
    effects = tuple(repr(effect) for effect in seen.effects)
    raised = None if seen.raised is None else str(seen.raised)
    return ReplayedInput(
        sequence=seen.sequence, now_ns=seen.now_ns, event=repr(seen.event), effects=effects, raised=raised
    )


def replay_file(path: Path, until: int | None = None, show: Callable[[Replayed], None] | None = None) -> ReplaySummary:
    """Re-run a journal's inputs and compare every effect with the recording.

    Args:
        path: A segment, an exported journal, or a journal directory.
        until: Number of the last input to apply; None: all.
        show: Called after each input.

    Raises:
        UserError: A301 to A304, see ``atoll help``.
        DivergenceError: The first input whose effects differ.
        CorruptError: Bytes that were not written so.
    """
    result = replay(KINDS, read_journal(path), until=until, show=show)
    if not result.kind:
        raise UserError(
            "A304",
            f"there is no journal in {path}",
            where="nothing whole in it could be read",
            fix="name a node's journal directory, or a file of it: atoll replay STATE/journal",
        )
    return ReplaySummary(
        path=str(path),
        machine=result.kind,
        inputs=result.inputs,
        last=result.sequence,
        digest=result.digest.hex(),
        segments=result.segments,
        runs=result.runs,
        gaps=result.gaps,
        torn=result.torn,
        raised=result.raised,
    )
