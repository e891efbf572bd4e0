# SPDX-License-Identifier: Apache-2.0
"""Re-run a node's decisions from its journal: a file or a directory, of this computer or of another."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from atoll.core.machine import MachineKind
from atoll.core.replay import Replayed, replay
from atoll.host.journal_files import read_journal
from atoll.node.control import KIND

__all__ = ["KINDS", "REPLAY_SCHEMA", "ReplaySummary", "replay_file"]

KINDS: Final[Mapping[str, MachineKind[Any, Any]]] = {KIND.name: KIND}
REPLAY_SCHEMA: Final = "atoll.replay/1"


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
