# SPDX-License-Identifier: Apache-2.0
"""How fast programs are recorded and replayed, and what moves and deaths of nodes cost those who use them.

    make bench-env [BENCH_ARGS="--quick --only events,moves --dir DIRECTORY"]

Parts: ``events``, ``alone``, ``cost`` (one node, its recorder), ``replay``, ``back`` (the past), ``guest`` (the process
level), ``remote``, ``moves``, ``kills`` (real nodes, as ``atoll up`` starts them; ``kills`` takes longest).
With ``--quick`` each part is a look, and goes to a file of its own.

What is compared runs in the same run, in turns, each in a process of its own. Figures depend on the disk: name a
directory on it with ``--dir``. It must not be a file system in memory.
"""

import argparse
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import env_child
from env_events import Scale, alone, back, cost, events, replay
from env_life import kills, moves
from env_remote import remote
from figures import ROOT, Figure, Part, Row, run_parts

GUEST: Final = env_child.HERE / "env_guest.py"
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "overlay-tmpfs"})


def guest(scale: Scale) -> Part:
    """What a bench of its own says of the process level."""
    if not GUEST.exists():
        print(f"  {GUEST.name} is not there", file=sys.stderr)
        return [], {"left out": f"{GUEST.name} is not there"}
    told = env_child.run(GUEST.name, *(["--quick"] if scale.quick else []))
    return [_figure(row) for row in told["figures"]], {}


def _figure(row: Row) -> Figure:
    """Return a figure that was written as JSON; which way its bound goes follows from whether it was met."""
    asked, measured = row["asked"], row["measured"]
    at_most = None in {asked, measured} or (measured <= asked) == row["met"]
    return Figure(row["name"], row["unit"], asked, measured, at_most=at_most, peer=row.get("peer"))


PARTS: Final[dict[str, Callable[[Scale], Part]]] = {
    "events": events,
    "alone": alone,
    "cost": cost,
    "replay": replay,
    "back": back,
    "guest": guest,
    "remote": remote,
    "moves": moves,
    "kills": kills,
}


def file_system(path: Path) -> str:
    """Return the type of the file system that holds a directory; empty: it is not known."""
    best, kind = "", ""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, mounted, what, *_ = line.split()
        if path.is_relative_to(mounted) and len(mounted) >= len(best):
            best, kind = mounted, what
    return kind


def working_directory() -> Path:
    """Return where temporary files are, or the repository if those are in memory."""
    temporary = Path(tempfile.gettempdir()).resolve()
    return ROOT if file_system(temporary) in IN_MEMORY else temporary


def _measured(part: Callable[[Scale], Part], scale: Scale, failed: list[str]) -> Part:
    """Measure a part; one that fails is told, and the others are measured all the same."""
    about = {"quick": scale.quick, "file system": file_system(scale.directory)}
    try:
        figures, extra = part(scale)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the next part may do.
        traceback.print_exc()
        failed.append(part.__name__)
        return [], {**about, "failed": f"{type(error).__name__}: {error}"}
    return figures, {**extra, **about}


def _interrupted(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure environments.")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="a look of some seconds each, into env-quick.json")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to measure; not in memory")
    options = parser.parse_args()
    directory = working_directory() if options.dir is None else options.dir.resolve()
    if not directory.is_dir():
        parser.error(f"no directory {directory}")
    if (kind := file_system(directory)) in IN_MEMORY:
        print(
            f"{directory} is in memory ({kind}): what is durable there costs nothing, and means nothing",
            file=sys.stderr,
        )
    signal.signal(signal.SIGTERM, _interrupted)  # So that nodes and files are cleared away then, too.
    scale = Scale(directory, options.quick)
    failed: list[str] = []
    parts = {name: partial(_measured, part, scale, failed) for name, part in PARTS.items()}
    run_parts("env-quick" if options.quick else "env", parts, options.only, parser)
    if failed:
        parser.exit(1, f"failed: {', '.join(failed)}\n")


if __name__ == "__main__":
    main()
