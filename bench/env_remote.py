# SPDX-License-Identifier: Apache-2.0
"""Part ``remote`` of bench/env.py: calls between environments on two nodes, durable at both ends, over loopback."""

import asyncio
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Final

import env_child
from env_apps import Go, Gone
from env_events import Scale
from env_nodes import Nodes
from figures import Figure, Part, percentile

from atoll.client.environments import Desk

__all__ = ["remote"]

BYTES: Final = 300  # Of a block with one event.
WINDOWS: Final = (300, 1000, 2000)
CALL_S: Final = 300.0


def remote(scale: Scale) -> Part:
    """With one copy at each end, and with three."""
    figures: list[Figure] = []
    extra: dict[str, object] = {}
    for copies, names in ((1, ("one", "two")), (3, ("one", "two", "three"))):
        with scale.place() as place, Nodes.running(place, names) as nodes:
            nodes.run("one", "Caller", "caller", copies)
            echo = nodes.run("two", "Echo", "echo", copies)
            some, told = asyncio.run(_called(scale, nodes, bytes.fromhex(echo["id"]), copies))
        figures += some
        extra[f"{copies} copies"] = told
    return figures, extra


async def _called(scale: Scale, nodes: Nodes, echo: bytes, copies: int) -> tuple[list[Figure], dict[str, object]]:
    inside: list[float] = []
    outside: list[float] = []
    disk: list[float] = []
    rates: dict[str, list[float]] = {}
    failed = 0
    async with Desk(nodes.state("one")) as desk:
        caller = await desk.environment("caller")
        await caller.call(Go(echo, 20, 1), Gone, timeout_s=CALL_S)
        for _ in range(scale.of(4, 20)):
            for _ in range(50):
                began = time.perf_counter()
                gone = await caller.call(Go(echo, 1, 1), Gone, timeout_s=CALL_S)
                outside.append((time.perf_counter() - began) * 1000)
                inside += [ns / 1e6 for ns in gone.spans_ns]
                failed += gone.failed
            disk += _disk(nodes.state("one") / "bench-bare", 50)
        for _ in range(scale.of(1, 5)):
            for window in WINDOWS:
                gone = await caller.call(Go(echo, scale.of(10_000, 100_000), window), Gone, timeout_s=CALL_S)
                rates.setdefault(str(window), []).append(scale.of(10_000, 100_000) / (gone.ns / 1e9))
                failed += gone.failed
        print(f"  {copies} copies: {rates}", file=sys.stderr)
    sync_ms = percentile(disk, 0.5)
    ends = "durable at both ends" if copies == 1 else f"durable on {copies} nodes at each end"
    best = max(WINDOWS, key=lambda window: percentile(rates[str(window)], 0.5))
    bound = copies == 1
    return [
        Figure(
            f"remote operation over loopback, {ends}, alone: from handler to handler, p50",
            "ms",
            5.0 if bound else None,
            percentile(inside, 0.5),
            peer=sync_ms,
        ),
        Figure(
            "the same, of 4 x write + fdatasync there + 1 ms",
            "x",
            1.0 if bound else None,
            percentile(inside, 0.5) / (4 * sync_ms + 1),
        ),
        Figure("the same, p95", "ms", None, percentile(inside, 0.95), peer=percentile(disk, 0.95)),
        Figure("the same with a client that waits for the whole, p50", "ms", None, percentile(outside, 0.5)),
        Figure("the same, p95", "ms", None, percentile(outside, 0.95)),
        Figure(
            f"the same, up to {best} on their way, median of {len(rates[str(best)])}",
            "operations/s",
            20_000.0 if bound else None,
            percentile(rates[str(best)], 0.5),
            at_most=False,
        ),
        Figure("the same: operations that failed", "", 0.0, failed),
    ], {"rates": rates, "4 x write + fdatasync + 1 ms": 4 * sync_ms + 1, "alone": len(inside)}


def _disk(path: Path, count: int) -> list[float]:
    """Return what appending and flushing takes there, ms each."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        content = secrets.token_bytes(BYTES)
        return [env_child.synced(descriptor, content, time.perf_counter) * 1000 for _ in range(count)]
    finally:
        os.close(descriptor)
        path.unlink()
