# SPDX-License-Identifier: Apache-2.0
"""Parts ``moves`` and ``kills`` of bench/env.py: what users of an environment notice of its moves and its deaths."""

import asyncio
import sys
import time
from collections.abc import Sequence
from random import Random
from typing import Final

from env_events import Scale
from env_lanes import Lane, Past, compared, lanes, read_past
from env_nodes import NAMES, Nodes
from figures import Figure, Part, percentile

from atoll.base.errors import UserError

__all__ = ["kills", "moves"]

NEVER: Final = float("inf")
LEDGER: Final = "ledger"
ROWS: Final = 20_000  # Of 100 bytes: the 2 MB that are moved.
TELL_EVERY: Final = 10


def moves(scale: Scale) -> Part:
    """Move an environment with 2 MB of state from node to node, while a client at each node calls it."""
    wanted = scale.of(50, 1000)
    with scale.place() as place:
        with Nodes.running(place) as nodes:
            nodes.run(NAMES[0], "Ledger", LEDGER, len(NAMES), f"rows_begun={ROWS}")
            nodes.call(NAMES[0], "env.checkpoint", {"name": LEDGER})  # Else the rows are made anew, and not moved.
            pauses, spans, told = asyncio.run(_moved(nodes, wanted))
        past = read_past([place / name for name in NAMES], LEDGER)
    figures = [
        Figure(f"move with 2 MB of state under load, {len(pauses)} moves: pause, p50", "ms", 30.0, _ms(pauses, 0.5)),
        Figure("the same, p95", "ms", None, _ms(pauses, 0.95)),
        Figure("the same, the longest", "ms", None, _ms(pauses, 1.0)),
        Figure("the same: the command, p50", "ms", None, _ms(spans, 0.5)),
        Figure("the same: moves that failed", "", 0.0, float(wanted - len(pauses))),
        *_accounts(told, past),
    ]
    return figures, {**told, **_journals(past), "pauses ms": [round(pause * 1000, 1) for pause in pauses]}


async def _moved(nodes: Nodes, wanted: int) -> tuple[list[float], list[float], dict[str, object]]:
    rng, pauses, spans = Random(8), list[float](), list[float]()
    errors: list[str] = []
    owner = NAMES[0]
    async with lanes([nodes.state(name) for name in NAMES], LEDGER) as made:
        await _all_after(made, time.perf_counter())
        usual = await _usual(made)
        for at in range(wanted):
            target = rng.choice([name for name in NAMES if name != owner])
            for lane in made:
                lane.longest_s = 0.0
            began = time.perf_counter()
            try:
                seen = await asyncio.to_thread(nodes.call, owner, "env.move", {"name": LEDGER, "node": target})
            except UserError as error:
                errors.append(f"move {at + 1} to {target}: {error.code} {error.sentence}: {error.where}")
                print(f"  {errors[-1]}", file=sys.stderr)
                await asyncio.sleep(1)
                owner = (await asyncio.to_thread(nodes.call, owner, "env.show", {"name": LEDGER}))["node"]
                continue
            spans.append(time.perf_counter() - began)
            owner = seen["node"]
            answered = await _all_after(made, time.perf_counter())
            pauses.append(max(lane.longest_s for lane in made) if answered else NEVER)
            if not answered:
                errors.append(f"move {at + 1} to {target}: somebody is not answered any more")
                break
            if (at + 1) % TELL_EVERY == 0:
                print(f"  {at + 1} moves: p50 {_ms(pauses, 0.5):.1f} ms, longest {_ms(pauses, 1):.1f}", file=sys.stderr)
            await asyncio.sleep(rng.random() * 0.05)
        for lane in made:
            lane.end()
        told: dict[str, object] = {"usual call ms": usual, "errors": errors}
        if not errors or pauses[-1] != NEVER:
            told |= await _closed(made)
    return pauses, spans, told


def kills(scale: Scale) -> Part:
    """Kill the node that runs an environment, again and again, while a client at each node calls it."""
    wanted = scale.of(10, 200)
    with scale.place() as place:
        with Nodes.running(place) as nodes:
            nodes.run(NAMES[0], "Ledger", LEDGER, len(NAMES))
            spans, returns, told = asyncio.run(_killed(nodes, wanted))
        past = read_past([place / name for name in NAMES], LEDGER)
    figures = [
        Figure(
            f"node killed, {len(spans)} kills: its environment answers again, p50", "s", None, percentile(spans, 0.5)
        ),
        Figure("the same, p95", "s", 3.0, percentile(spans, 0.95)),
        Figure("the same, the longest", "s", None, max(spans)),
        Figure("the killed node is up again: who waits there is answered, p50", "s", None, percentile(returns, 0.5)),
        Figure("the same, the longest", "s", None, max(returns)),
        *_accounts(told, past),
    ]
    each = {"each s": spans, "each return s": returns}
    return figures, {**told, **_journals(past), **{key: [round(one, 3) for one in some] for key, some in each.items()}}


async def _killed(nodes: Nodes, wanted: int) -> tuple[list[float], list[float], dict[str, object]]:
    rng, spans, returns, errors = Random(9), list[float](), list[float](), list[str]()
    shown: dict[int, set[str]] = {}
    async with lanes([nodes.state(name) for name in NAMES], LEDGER) as made:
        by_name = dict(zip(NAMES, made, strict=True))
        await _all_after(made, time.perf_counter())
        owner = await _owner(nodes, NAMES, shown)
        for at in range(wanted):
            others = [name for name in NAMES if name != owner]
            killed_s = await asyncio.to_thread(nodes.kill, owner)
            answers = await asyncio.gather(*(by_name[name].after(killed_s) for name in others))
            spans.append(max(NEVER if one is None else one - killed_s for one in answers))
            if spans[-1] == NEVER:
                errors.append(f"kill {at + 1}, of {owner}: not answered; {nodes.log(others[0])}")
                break
            killed, owner = owner, await _owner(nodes, others, shown)
            await asyncio.to_thread(nodes.up, killed)
            await asyncio.to_thread(nodes.until_seen)
            up_s = time.perf_counter()
            answered_s = await by_name[killed].after(up_s)
            returns.append(NEVER if answered_s is None else answered_s - up_s)
            if answered_s is None:
                errors.append(f"kill {at + 1}: whoever waits at {killed} is not answered; {nodes.log(killed)}")
                break
            owner = await _owner(nodes, NAMES, shown)
            if (at + 1) % TELL_EVERY == 0:
                print(
                    f"  {at + 1} kills: p50 {percentile(spans, 0.5):.2f} s, longest {max(spans):.2f}", file=sys.stderr
                )
            await asyncio.sleep(rng.random())
        for lane in made:
            lane.end()
        told: dict[str, object] = {
            "errors": errors,
            "epochs that two nodes show as theirs": [epoch for epoch, names in shown.items() if len(names) > 1],
        }
        if not errors:
            told |= await _closed(made)
    return spans, returns or [NEVER], told


async def _owner(nodes: Nodes, names: Sequence[str], shown: dict[int, set[str]]) -> str:
    """Return who runs it by the highest epoch that is known on these nodes; note what each says of itself."""
    best = (0, "")
    for name in names:
        seen = await asyncio.to_thread(nodes.call, name, "env.show", {"name": LEDGER})
        shown.setdefault(seen["epoch"], set()).add(seen["node"])
        best = max(best, (seen["epoch"], seen["node"]))
    return best[1]


async def _all_after(made: Sequence[Lane], at_s: float) -> bool:
    """Wait until each lane has the answer to a call that it made after a time; False: one has none."""
    return None not in await asyncio.gather(*(lane.after(at_s) for lane in made))


async def _usual(made: Sequence[Lane]) -> dict[str, float]:
    """Return what a call takes when nothing moves."""
    longest: list[float] = []
    sent, began = sum(lane.sent for lane in made), time.perf_counter()
    for _ in range(20):
        for lane in made:
            lane.longest_s = 0.0
        await asyncio.sleep(0.05)
        longest.append(max(lane.longest_s for lane in made))
    took_s = time.perf_counter() - began
    calls = sum(lane.sent for lane in made) - sent
    return {
        "mean": took_s * len(made) / max(calls, 1) * 1000,
        "longest of 50 ms, p50": _ms(longest, 0.5),
        "calls a second": calls / took_s,
    }


async def _closed(made: Sequence[Lane]) -> dict[str, object]:
    """Compare what was acknowledged with what the ledger has, once all calls have ended."""
    while any(lane.is_running for lane in made):  # noqa: ASYNC110 -- a moment, once.
        await asyncio.sleep(0.01)
    told: dict[str, object] = dict(compared(await made[0].books(), made))
    told["calls that failed"] = {f"lane {at}": dict(lane.failures) for at, lane in enumerate(made) if lane.failures}
    return told


def _accounts(told: dict[str, object], past: Past) -> list[Figure]:
    def number(key: str) -> float | None:
        value = told.get(key)
        return float(value) if isinstance(value, int) else None

    return [
        Figure("the same: operations that were acknowledged", "", None, number("acknowledged")),
        Figure("the same: of these lost", "", 0.0, number("lost")),
        Figure("the same: doubled", "", 0.0, number("doubled")),
        Figure("the same: epochs that two nodes opened, by three journals", "", 0.0, float(len(past.doubles))),
    ]


def _journals(past: Past) -> dict[str, object]:
    return {
        "epochs": len(past.owners),
        "blocks that are kept in two forms": past.forks[:20],
        "faults": past.faults[:20],
    }


def _ms(values: Sequence[float], share: float) -> float:
    return percentile(values, share) * 1000 if values else NEVER
