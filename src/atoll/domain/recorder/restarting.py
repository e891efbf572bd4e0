# SPDX-License-Identifier: Apache-2.0
"""A journal that begins anew: after a snapshot that another node made, or because its node keeps it no more.

Whatever moment a crash comes at, the journal is the old one or the new one. The steps, each durable before the next:

    NNNNNNNN.ats    the snapshot that the new one begins with, empty: none; N is one more than the newest segment has
    NNNNNNNN.atb    its first segment
    promise         names that segment: from here on it counts, and nothing else does
    orphans/        older segments and snapshots are moved there, and the snapshot to its place

``settle`` goes back over the first two when the third was not reached, and on when it was. Nothing can be mistaken for
a segment that follows the one before: as long as NNNNNNNN.ats is there, that segment is of a journal that begins anew.
"""

import re
from pathlib import Path
from typing import Final

from atoll.domain.recorder.disk import sync_directory
from atoll.domain.recorder.pruning import ORPHANS_NAME, SNAPSHOTS_NAME, next_serial, snapshot_numbers
from atoll.domain.recorder.segments import open_segment
from atoll.env.chain import Manifest, segment_start
from atoll.host.files import write_atomic

__all__ = ["begin_anew", "counting", "is_settled", "segment_numbers", "segment_path", "settle"]

_SEGMENT: Final = re.compile(r"(\d{8})\.atb")
_COMING: Final = re.compile(r"(\d{8})\.ats")


def segment_path(directory: Path, number: int) -> Path:
    """Return the path of a segment."""
    return directory / f"{number:08d}.atb"


def segment_numbers(directory: Path) -> list[int]:
    """Return the numbers of an environment's segments, rising. Raises ``OSError``."""
    return _numbers(directory, _SEGMENT)


def counting(directory: Path, counts: int) -> list[int]:
    """Return the numbers of the segments that ``settle`` would leave, rising, for whoever only reads.

    Args:
        directory: Of the environment.
        counts: As of ``settle``.

    Raises:
        OSError: They cannot be listed.
    """
    coming = {number for number in _numbers(directory, _COMING) if number > counts}
    return [number for number in segment_numbers(directory) if number >= counts and number not in coming]


def is_settled(directory: Path, counts: int) -> bool:
    """Tell whether the snapshots in their place are of the journal that counts, and not of the one before."""
    return not counts or not _coming(directory, counts).exists()


def begin_anew(directory: Path, number: int, manifest: Manifest, snapshot: bytes) -> None:
    """Write what a journal begins anew with; it counts when the standing says so.

    Args:
        directory: Of the environment.
        number: Of the segment, above all that there are.
        manifest: What that begins with.
        snapshot: File of the snapshot; empty: there is none.

    Raises:
        StorageError: ``settle`` removes what there is of it.
    """
    write_atomic(_coming(directory, number), snapshot)
    write_atomic(segment_path(directory, number), segment_start(manifest))


def settle(directory: Path, counts: int) -> None:
    """Make whole what a crash or a full disk left of a journal that began anew. Otherwise nothing.

    Args:
        directory: Of the environment.
        counts: Number of the first segment that counts; 0: any does.

    Raises:
        OSError: Some of it is done.
        CorruptError: A segment does not begin as one.
        UserError: A301, it has another format.
    """
    coming = _numbers(directory, _COMING)
    older = [number for number in segment_numbers(directory) if number < counts]
    if not coming and not older:
        return
    sync_directory(directory)  # Where the disk refused to make it durable what counts is known, but may not last.
    for number in coming:
        if number > counts:
            segment_path(directory, number).unlink(missing_ok=True)
            sync_directory(directory)  # In this order: nobody may take that segment for one that follows.
            _coming(directory, number).unlink()
            sync_directory(directory)
    if counts in coming:
        _put_snapshots_aside(directory)
    for number in older:
        path = segment_path(directory, number)
        first = open_segment(path).first
        path.rename(directory / ORPHANS_NAME / f"{first:019d}-{next_serial(directory)}.atb")
    if older:
        sync_directory(directory / ORPHANS_NAME)
        sync_directory(directory)
    if counts in coming:
        _place_snapshot(directory, counts)


def _put_snapshots_aside(directory: Path) -> None:
    """Move all snapshots away: as long as the new one has not come, they are of the journal before."""
    serial = next_serial(directory)
    for number in snapshot_numbers(directory):
        path = directory / SNAPSHOTS_NAME / f"{number}.ats"
        path.rename(directory / ORPHANS_NAME / f"{number:019d}-{serial}.ats")
    sync_directory(directory / ORPHANS_NAME)
    sync_directory(directory / SNAPSHOTS_NAME)


def _place_snapshot(directory: Path, counts: int) -> None:
    coming = _coming(directory, counts)
    if coming.stat().st_size:
        number = open_segment(segment_path(directory, counts)).manifest.at.number
        coming.rename(directory / SNAPSHOTS_NAME / f"{number}.ats")
        sync_directory(directory / SNAPSHOTS_NAME)
    else:
        coming.unlink()
    sync_directory(directory)


def _coming(directory: Path, number: int) -> Path:
    return directory / f"{number:08d}.ats"


def _numbers(directory: Path, pattern: re.Pattern[str]) -> list[int]:
    return sorted(int(match[1]) for one in directory.iterdir() if (match := pattern.fullmatch(one.name)))
