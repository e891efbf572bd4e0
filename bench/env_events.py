# SPDX-License-Identifier: Apache-2.0
"""Parts of bench/env.py about one node: events a second, one event alone, what recording costs, and the past."""

import sys
import tempfile
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import env_child
import env_peers
import env_wild
from figures import Figure, Part, Row, percentile

__all__ = ["Scale", "alone", "back", "cost", "events", "replay"]

SIZES: Final = (16, 64, 256, 1024)
PROCESSES: Final = 2
HANDLER_US: Final = 20


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        directory: On the disk that is measured; each part makes and removes directories in it.
        quick: A look, whose figures mean little.
    """

    directory: Path
    quick: bool

    def of(self, quick: int, full: int) -> int:
        """Return the number for this run."""
        return quick if self.quick else full

    @contextmanager
    def place(self) -> Generator[Path]:
        """Have an empty directory while the block lasts. Its path is short: sockets live in it."""
        with tempfile.TemporaryDirectory(prefix="ab-", dir=self.directory) as path:
            yield Path(path)


def events(scale: Scale) -> Part:
    """Ours and the others in turns, each in a process of its own."""
    left_out = env_peers.missing()
    for peer, why in left_out.items():
        print(f"  nothing is compared with {peer}: {why}", file=sys.stderr)
    peers = [peer for peer in env_peers.PEERS if peer not in left_out]
    counts = {
        "pykka": scale.of(50_000, 200_000),
        "thespian": scale.of(10_000, 50_000),
        "xoscar": scale.of(2_000, 10_000),
        "dbos": scale.of(30, 200),
    }
    ours = [number for size in SIZES for number in (size, scale.of(50_000, 400_000) // (1 if size > SIZES[0] else 4))]
    seen: dict[str, list[float]] = {}
    for at in range(scale.of(2, 7)):
        for name in ("ours", *peers) if at % 2 == 0 else (*peers[::-1], "ours"):
            with scale.place() as place:
                if name == "ours":
                    row = env_child.run("env_live.py", "rates", place, *ours)
                else:
                    row = {name: env_child.run("env_peers.py", name, counts[name], place)["rate"]}
            for key, value in row.items():
                seen.setdefault(key, []).append(value)
        print(f"  round {at + 1}: {_round(seen)}", file=sys.stderr)
    return _rated(seen, left_out)


def _round(seen: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {values[-1]:,.0f}" for name, values in seen.items() if "cpu" not in name)


def _rated(seen: dict[str, list[float]], left_out: dict[str, str]) -> Part:
    rounds = len(seen[str(SIZES[0])])
    figures: list[Figure] = []
    for size in SIZES:
        name = f"recorded, chained, signed, durable events of 64 B in frames of {size}: median of {rounds}"
        asked = 400_000.0 if size >= 64 else None
        figures.append(Figure(name, "events/s", asked, median(seen[str(size)]), at_most=False))
    best = max(SIZES, key=lambda size: median(seen[str(size)]))
    figures.append(Figure("the same: the best round", "events/s", None, max(seen[str(best)])))
    for peer, asked, what in (
        ("dbos", 1000.0, "steps on SQLite"),
        ("pykka", 1.5, "tell, which keeps nothing"),
        ("thespian", None, "tell, in one process"),
        ("xoscar", None, "call in one pool"),
    ):
        rates = seen.get(peer)
        mine = median(seen[str(best)])
        ratio = None if rates is None else mine / median(rates)
        rate = None if rates is None else median(rates)
        name = f"frames of {best} against {peer} {what}"
        figures.append(Figure(name, "x", asked, ratio, at_most=False, peer=rate))
    return figures, {
        "each round": {name: [round(value, 3) for value in values] for name, values in seen.items()},
        "of the best rounds, x": {
            peer: max(seen[str(best)]) / max(seen[peer]) for peer in env_peers.PEERS if peer in seen
        },
        "versions": env_peers.versions(),
        "left out": left_out,
    }


def alone(scale: Scale) -> Part:
    """One event at a time, beside the disk."""
    with scale.place() as place:
        row = env_child.run("env_live.py", "alone", place, scale.of(200, 2000))
    here, by_socket, disk = ([value * 1000 for value in row[key]] for key in ("here", "by socket", "disk"))
    p50_disk = percentile(disk, 0.5)
    return [
        Figure("one durable event alone, p50", "ms", 3.0, percentile(here, 0.5), peer=p50_disk),
        Figure("the same, p95", "ms", None, percentile(here, 0.95), peer=percentile(disk, 0.95)),
        Figure(
            "the same, p50 against write + fdatasync of the same bytes there, in turns",
            "x",
            2.0,
            percentile(here, 0.5) / p50_disk,
        ),
        Figure("the same from a client at the socket, p50", "ms", None, percentile(by_socket, 0.5), peer=p50_disk),
        Figure("the same, p95", "ms", None, percentile(by_socket, 0.95), peer=percentile(disk, 0.95)),
    ], {"bytes": row["bytes"], "events": len(here), "least ms": [min(here), min(by_socket), min(disk)]}


def cost(scale: Scale) -> Part:
    """The handler bare and recorded, in turns."""
    rounds = scale.of(3, 15)
    with scale.place() as place:
        row = env_child.run("env_live.py", "cost", place, HANDLER_US, scale.of(6_400, 19_200), rounds)
    shares = [(after - before) / before for before, after in zip(row["bare"], row["recorded"], strict=True)]
    return [
        Figure(
            f"cost of recording on a handler of {HANDLER_US} us, median of {rounds} pairs",
            "%",
            10.0,
            median(shares) * 100,
        ),
        Figure("an event of it, bare, median", "us", None, median(row["bare"]) * 1e6),
        Figure("the same, recorded", "us", None, median(row["recorded"]) * 1e6),
    ], {"each pair, %": [round(share * 100, 2) for share in shares]}


def replay(scale: Scale) -> Part:
    """A million events, lived and replayed; and many small lives of everything that a handler can do."""
    count = scale.of(100_096, 1_000_192)
    rows: list[Row] = []
    for _ in range(scale.of(1, 3)):
        with scale.place() as place:
            rows.append(env_child.run("env_live.py", "history", place, count))
    ratio = median(row["lived s"] / row["replayed s"] for row in rows)
    seeds = scale.of(8, 100)
    with ProcessPoolExecutor(PROCESSES) as pool:
        lives = list(pool.map(env_wild.trial, range(1, seeds + 1)))
    unequal = [life.seed for life in lives if life.difference]
    return [
        Figure(
            f"replay of {count:,} events against living them, median of {len(rows)}", "x", 1.0, ratio, at_most=False
        ),
        Figure("lived", "events/s", None, median(row["events"] / row["lived s"] for row in rows)),
        Figure("replayed", "events/s", None, median(row["events"] / row["replayed s"] for row in rows)),
        Figure("the same: runs whose state or effects were not equal", "", 0.0, sum(not row["equal"] for row in rows)),
        Figure(f"{seeds} random programs of 10,000 events: not equal", "", 0.0, len(unequal)),
        Figure(
            "the same: replays compared, from the begin and from checkpoints",
            "",
            None,
            sum(one.replays for one in lives),
        ),
    ], {
        "opened s": [row["opened s"] for row in rows],
        "random programs": {
            "events": sum(one.events for one in lives),
            "effects": sum(one.effects for one in lives),
            "handlers that failed": sum(one.failures for one in lives),
            "checkpoints": sum(one.checkpoints for one in lives),
            "lived, events/s": median(one.events / one.lived_s for one in lives),
            "replayed, events/s": median(one.events / one.replayed_s for one in lives),
            "unequal": {one.seed: one.difference for one in lives if one.difference},
        },
    }


def back(scale: Scale) -> Part:
    """Go to random events of a long past."""
    count, times = scale.of(100_096, 1_000_192), scale.of(5, 20)
    with scale.place() as place:
        row = env_child.run("env_live.py", "back", place, count, times)
    cold = row["cold"]
    return [
        Figure(
            f"go back to event N of {count:,}, {times} of them, the journal opened anew: p50", "s", None, median(cold)
        ),
        Figure("the same, the slowest", "s", 1.0, max(cold)),
        Figure("the same, going on in an open journal: p50", "s", None, median(row["warm"])),
    ], {"each, s": cold}
