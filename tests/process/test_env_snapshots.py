# SPDX-License-Identifier: Apache-2.0
"""Snapshots between real nodes: for a holder that was away too long, and for those that shall take over quickly."""

import json
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from atoll.base.errors import CorruptError
from atoll.domain.auditing import heads_in
from atoll.domain.recorder.segments import open_segment
from atoll.domain.recorder.snapshots import Standing, decode_standing
from tests.process.env_apps import COUNTER
from tests.process.node_world import Box, Nodes, nodes, until

pytestmark = pytest.mark.process

MOVE_S = 45.0


@pytest.fixture(scope="module")
def three() -> Generator[Nodes]:
    with nodes() as world:
        world.group("one", "two", "three")
        (world.directory / "counter.py").write_text(COUNTER)
        yield world


def run(world: Nodes, box: Box, name: str, copies: int, *options: str) -> str:
    """Run a counter; return its id once it has so many holders."""
    program = str(world.directory / "counter.py")
    said = box.run("run", program, "--name", name, "--copies", str(copies), *options, "--json")
    assert said.status == 0, said.err
    until(lambda: len(seen(box, name)["holders"]) == copies, f"{copies} holders of {name}", MOVE_S)
    return str(json.loads(said.out)["id"])


def seen(box: Box, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(box.run("env", "show", name, "--json").out or '{"holders": [], "node": ""}')
    return found


def add(box: Box, name: str, n: int) -> int:
    """Add something; return the sum."""

    def summed() -> int | None:
        said = box.run("env", "call", name, "Add", f"n={n}", "--json")
        with suppress(ValueError, KeyError):
            return int(json.loads(said.out)["response"]["n"])
        return None

    answer = until(lambda: (found := summed()) is not None and [found], f"an answer of {name}", MOVE_S)
    assert isinstance(answer, list)
    return answer[0]


def files(box: Box, identity: str) -> Path:
    return box.state / "envs" / identity


def snapshots(box: Box, identity: str) -> list[int]:
    return sorted(int(path.stem) for path in (files(box, identity) / "snapshots").glob("*.ats"))


def first_segment(box: Box, identity: str) -> int:
    """Return the first block that a node keeps; 0: none can be read now."""
    paths = sorted(files(box, identity).glob("*.atb"))
    with suppress(OSError, CorruptError, IndexError):
        return open_segment(paths[0]).first
    return 0


def standing(box: Box, identity: str) -> Standing:
    path = files(box, identity) / "promise"
    if not path.exists():
        return Standing(bytes.fromhex(identity), 0, b"")
    return decode_standing(path.read_bytes(), bytes.fromhex(identity))


def restart(box: Box) -> None:
    assert box.down().status == 0
    box.again()


def test_a_holder_that_was_away_gets_a_snapshot_and_can_take_over(three: Nodes) -> None:
    one, two, away = three.boxes
    identity = run(three, one, "shop", 3)
    assert add(one, "shop", 5) == 5
    until(lambda: first_segment(away, identity) == 1, "a journal at the third")
    assert away.down().status == 0
    assert add(one, "shop", 6) == 11
    assert one.run("env", "checkpoint", "shop").status == 0
    until(lambda: snapshots(one, identity), "a snapshot at the owner")
    number = snapshots(one, identity)[-1]
    until(lambda: snapshots(two, identity) == [number], "the same snapshot at the other holder", MOVE_S)
    assert (files(one, identity) / "snapshots" / f"{number}.ats").stat().st_size > 0
    restart(one)
    restart(two)  # Either of them begins with its snapshot now, and does not go back further.
    assert add(one, "shop", 7) == 18
    away.again()
    until(lambda: first_segment(away, identity) == number + 1, "the snapshot at the one that was away", MOVE_S)
    until(lambda: snapshots(away, identity) == [number], "the snapshot in its place")
    assert list((files(away, identity) / "orphans").glob("*.atb"))  # What it had before it was away.
    until(lambda: one.run("env", "move", "shop", "three").status == 0, "the move", MOVE_S)
    assert add(one, "shop", 8) == 26
    assert seen(one, "shop")["node"] == "three"
    looks_back_to_where_its_journal_begins(away, "shop", 26)


def looks_back_to_where_its_journal_begins(box: Box, name: str, n: int) -> None:
    """A journal that begins with a state is replayed and audited like any other, and says what is before it."""
    said = box.run("replay", name, "--at", "-0s", "--json")
    assert said.status == 0, said.err
    now = json.loads(said.out)
    assert now["state"] == {"": {"n": n}}
    said = box.run("replay", name)
    assert said.status == 0, said.err
    said = box.run("replay", name, "--event", "1")
    assert said.status != 0
    assert "A501" in said.err
    assert "are kept" in said.err
    said = box.run("audit", "verify", name)
    assert said.status == 0, said.out + said.err
    assert "as it was sealed" in said.out


def test_a_program_behind_walls_moves_and_its_journal_replays(three: Nodes) -> None:
    one, two, _ = three.boxes
    run(three, one, "walled", 3, "--level", "process")
    assert add(one, "walled", 5) == 5
    until(lambda: one.run("env", "move", "walled", "two").status == 0, "the move", MOVE_S)
    assert add(one, "walled", 6) == 11
    found = seen(two, "walled")
    assert (found["node"], found["level"]) == ("two", "process")
    said = two.run("replay", "walled", "--at", "-0s", "--json")
    assert said.status == 0, said.err
    assert json.loads(said.out)["state"] == {"": {"n": 11}}


def test_a_node_that_has_left_and_comes_back_remembers_what_it_promised_and_had(three: Nodes) -> None:
    one, two, _ = three.boxes
    identity = run(three, one, "lonely", 1)
    assert add(one, "lonely", 5) == 5
    until(lambda: one.run("env", "move", "lonely", "two").status == 0, "the move", MOVE_S)
    until(lambda: standing(one, identity).segment, "that the first one gives it up", MOVE_S)
    left = standing(one, identity)
    assert left.epoch >= 2
    assert left.floor_number >= 2
    until(lambda: list((files(one, identity) / "orphans").glob("*.atb")), "the old blocks aside")
    assert add(one, "lonely", 6) == 11
    restart(one)
    again = standing(one, identity)
    assert (again.epoch, again.floor_epoch, again.floor_number) >= (left.epoch, left.floor_epoch, left.floor_number)
    until(lambda: seen(one, "lonely")["node"] == "two", "who runs it", MOVE_S)
    until(lambda: two.run("env", "move", "lonely", "one").status == 0, "the move back", MOVE_S)
    assert add(two, "lonely", 7) == 18
    assert msgspec.structs.astuple(standing(one, identity))[3:5] == (left.floor_epoch, left.floor_number)


def audited(box: Box, name: str, *more: str) -> dict[str, Any]:
    """Return what an audit of a journal finds, which must be no fault."""
    said = box.run("audit", "verify", name, *more, "--json")
    assert said.status == 0, said.out + said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def test_heads_are_shown_to_others_and_a_journal_that_was_given_up_lacks_nothing(three: Nodes) -> None:
    one, two, away = three.boxes
    identity = run(three, one, "shown", 1)
    assert add(one, "shown", 5) == 5

    def shown(box: Box) -> int:
        """Return how many heads of the journal this node has heard from the one that runs it."""
        kept, _ = heads_in(box.state / "heads")
        return sum(head.environment.hex() == identity for _, head in kept)

    until(lambda: shown(two) and shown(away), "a head at both others", MOVE_S)
    assert audited(one, "shown", "--heads", str(away.state / "heads"))["counts"]["heads"] >= 1
    until(lambda: one.run("env", "move", "shown", "two").status == 0, "the move", MOVE_S)
    until(lambda: standing(one, identity).segment, "that the first one gives it up", MOVE_S)
    assert add(one, "shown", 6) == 11
    until(lambda: shown(one), "a head of the new owner at the one that gave it up", MOVE_S)
    assert "the journal is not kept here" in audited(one, identity)["remarks"][0]
    assert audited(two, "shown", "--heads", str(one.state / "heads"))["counts"]["heads"] >= 2
