# SPDX-License-Identifier: Apache-2.0
"""What leaves a journal: blocks that were cut, which are kept aside, and what retention lets go of.

Whatever a crash leaves in between is a journal: a cut first writes what it takes out, then shortens from the end; the
retention removes from the begin, and never what a snapshot needs that stays.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from atoll.domain.limits import ORPHANS_MAX
from atoll.domain.recorder.disk import cut_file, sync_directory
from atoll.domain.recorder.messages import Code, RefusedError
from atoll.domain.recorder.segments import Segment
from atoll.env.chain import Manifest, Sealed, Sealer, encode_frame, segment_start

__all__ = [
    "ORPHANS_NAME",
    "SNAPSHOTS_NAME",
    "base_of",
    "check_room",
    "drop_old",
    "first_within",
    "keep_aside",
    "next_serial",
    "shorten",
    "snapshot_numbers",
    "thin_out",
]

SNAPSHOTS_NAME: Final = "snapshots"
ORPHANS_NAME: Final = "orphans"
_SNAPSHOT: Final = re.compile(r"(\d{1,19})\.ats")
_ORPHAN: Final = re.compile(r"(\d{19})-(\d{1,9})\.at[bs]")


def snapshot_numbers(directory: Path) -> list[int]:
    """Return the numbers of an environment's snapshots, rising. Raises ``OSError``."""
    names = [entry.name for entry in (directory / SNAPSHOTS_NAME).iterdir()]
    return sorted(int(match[1]) for name in names if (match := _SNAPSHOT.fullmatch(name)))


def _serials(directory: Path) -> list[int]:
    return [int(m[2]) for entry in (directory / ORPHANS_NAME).iterdir() if (m := _ORPHAN.fullmatch(entry.name))]


def next_serial(directory: Path) -> int:
    """Return a number that no file in ``orphans`` has yet. Raises ``OSError``."""
    return max(_serials(directory), default=0) + 1


def check_room(directory: Path) -> None:
    """Return if more may be put into ``orphans``.

    Raises:
        OSError: They cannot be counted.
        RefusedError: LIMIT.
    """
    if len(_serials(directory)) >= ORPHANS_MAX:
        raise RefusedError(Code.LIMIT, f"ORPHANS_MAX is {ORPHANS_MAX}")


def keep_aside(
    directory: Path, manifest: Manifest, blocks: Iterable[tuple[Sealer, Sealed]], snapshots: Sequence[int]
) -> None:
    """Write blocks that are about to be cut to a file in ``orphans``, durably, and move their snapshots there.

    Args:
        directory: Of the environment.
        manifest: Says what the first of them follows.
        blocks: With who sealed them, in order.
        snapshots: Numbers of those that go with them.

    Raises:
        OSError: Then some of the snapshots may be moved already.
        RefusedError: LIMIT.
    """
    orphans, number = directory / ORPHANS_NAME, manifest.at.number + 1
    check_room(directory)
    serial = next_serial(directory)
    path = orphans / f"{number:019d}-{serial}.atb"
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(segment_start(manifest))
            said = manifest.sealer
            for sealer, sealed in blocks:
                if sealer != said:
                    file.write(encode_frame(sealer, sealed.block.number))
                    said = sealer
                file.write(encode_frame(sealed, sealed.block.number))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    for snapshot in snapshots:
        (directory / SNAPSHOTS_NAME / f"{snapshot}.ats").rename(orphans / f"{snapshot:019d}-{serial}.ats")
    sync_directory(orphans)
    sync_directory(directory / SNAPSHOTS_NAME)


def shorten(directory: Path, segments: Sequence[Segment], size: int) -> None:
    """Remove all segments but the first of these, newest first, and cut that one to its size. Raises ``OSError``."""
    for segment in reversed(segments[1:]):
        segment.path.unlink()
        sync_directory(directory)  # In this order: no segment may come back after one before it is gone.
    cut_file(segments[0].path, size)


def base_of(snapshots: Sequence[int], number: int) -> int | None:
    """Return the snapshot from which the blocks from ``number`` on are replayed; None: there is none."""
    return max((snapshot for snapshot in snapshots if snapshot < number), default=None)


def first_within(segments: Sequence[Segment], size: int) -> int:
    """Return the first block of the newest segments that hold so many bytes together; of all, if they hold less."""
    for segment in reversed(segments):
        size -= segment.size
        if size <= 0:
            return segment.first
    return segments[0].first


def thin_out(directory: Path, most: int) -> list[int]:
    """Let go of every second snapshot, but neither the oldest nor the newest, until there are few; return the rest.

    Each of them can be made again from the blocks.

    Args:
        directory: Of the environment.
        most: How many may stay, at least 2.

    Raises:
        OSError: Some of it is done.
    """
    numbers = snapshot_numbers(directory)
    while len(numbers) > most:
        for number in numbers[1:-1:2]:
            (directory / SNAPSHOTS_NAME / f"{number}.ats").unlink()
        numbers = [numbers[0], *numbers[2:-1:2], numbers[-1]]
    return numbers


def drop_old(directory: Path, segments: list[Segment], base: int) -> None:
    """Remove what is not needed after the snapshot ``base``: whole segments, oldest first, snapshots and orphans.

    Raises:
        OSError: Some of it is removed; ``segments`` is what is left.
    """
    while len(segments) > 1 and segments[1].first <= base + 1:
        segments[0].path.unlink()
        del segments[0]
        sync_directory(directory)  # In this order: no gap may be left when only some of it lasts.
    for number in snapshot_numbers(directory):
        if number < base:
            (directory / SNAPSHOTS_NAME / f"{number}.ats").unlink()
    for orphan in (directory / ORPHANS_NAME).iterdir():
        if (match := _ORPHAN.fullmatch(orphan.name)) and int(match[1]) <= base:
            orphan.unlink()
