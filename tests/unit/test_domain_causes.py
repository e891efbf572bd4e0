# SPDX-License-Identifier: Apache-2.0
"""A replay that differs is told why: the field where it can be known, and what likely made it differ."""

import io
import random
import sys
import time
from base64 import b64encode
from pathlib import Path

import msgspec
import pytest

from atoll.domain import causes, guard
from atoll.domain.causes import Cause, GuardedWalls, TimedWalls, cause_of, rehearsed
from atoll.domain.loading import FORMAT, Bundle, load
from atoll.domain.recorder.segments import open_segment
from atoll.domain.shelves import DiskShelf, find_journal
from atoll.env.chain import segment_start
from atoll.env.comparing import Difference
from atoll.env.past import Past
from atoll.env.records import Note
from atoll.env.state import State
from atoll.env.stepping import DivergedError
from atoll.env.walls import OPEN, HandlerKilled
from tests.unit.past_world import ANN, DiskWorld, arrived, bid

HEAD = """
import random, time, os
import atoll

class Bid(atoll.Tuple):
    who: str
    amount: int

class Auction(atoll.App):
    best: int = 0

    @atoll.on(Bid)
    def bid(self, bid: Bid, ctx):
"""


def shelf_of(state: Path, body: str, *, checkpointed: bool = False) -> DiskShelf:
    """Return what was recorded of a handler without walls."""
    world = DiskWorld(state, HEAD + "".join(f"        {line}\n" for line in body.splitlines()))
    world.seal(arrived(ANN, 1, bid("ann", 1), bid("bob", 2)))
    if checkpointed:
        world.checkpoint()
    return DiskShelf(find_journal(state, "auction"))


def diverged(shelf: DiskShelf, *, guarded: bool = True) -> DivergedError:
    try:
        past = Past(shelf, GuardedWalls()) if guarded else Past(shelf)
        with pytest.raises(DivergedError) as caught:
            past.redo()
    finally:
        guard.remove()
    return caught.value


@pytest.mark.parametrize(
    ("body", "kind", "call"),
    [
        ("self.best = time.time_ns()", "clock", "time.time_ns()"),
        ("self.best = random.randrange(10**9)\nctx.log(str(self.best))", "randomness", "random.randrange()"),
        ("with open('/dev/null') as file:\n    self.best = len(file.read())", "file", "open"),
    ],
)
def test_a_look_at_the_world_is_named_though_it_did_its_harm_silently(
    tmp_path: Path, body: str, kind: str, call: str
) -> None:
    shelf = shelf_of(tmp_path, body)
    found = cause_of(shelf, diverged(shelf))
    assert found.kind == kind
    assert call in found.sentence


def test_an_order_of_sets_is_found_by_trying_others_and_the_field_is_known(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, "ctx.log(''.join(list({'a', 'b', 'c', 'd', 'e', 'f', 'g', bid.who})))")
    # What was recorded in this process, with whatever hashes it has, is given another expectation here: the order that
    # a process with the hashes of the first trial gives is what "now" is, so that the outcome is the same in each run.
    outcome = causes.rehearse(shelf, (1, 1), "0")
    other = causes.rehearse(shelf, (1, 1), "1")
    assert outcome is not None
    assert other is not None
    assert outcome != other
    error = DivergedError("effects", (1, 1), (1, 2), "x", "y")
    error.effects = (Note("now"),)
    found = cause_of(shelf, error)
    assert found.kind == "set order"
    assert found.differences[0].path == "log[0]"
    assert found.differences[0].got == "'now'"


def test_what_changes_from_run_to_run_is_chance(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, "ctx.log(str(id(object()) + os.getpid()))")
    found = cause_of(shelf, diverged_by_hand(shelf))
    assert found.kind == "chance"
    assert found.differences[0].path.startswith("log[")


def diverged_by_hand(shelf: DiskShelf) -> DivergedError:
    error = DivergedError("effects", (1, 1), (1, 2), "x", "y")
    error.effects = (Note("now"),)
    assert shelf.last == 1
    return error


def test_what_gives_the_same_each_time_is_unknown_or_other_code(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, "ctx.log(str(os.environ.get('ATOLL_TRIED', 'no')))")
    found = causes.of_outcomes([causes.Outcome(got="same")] * 4, diverged_by_hand(shelf))
    assert found is None
    assert causes.of_outcomes([causes.Outcome(got="same"), None], diverged_by_hand(shelf)) is None
    assert causes.changed_code(shelf) == ""


def test_packages_and_versions_that_changed_are_named(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, "pass")
    bundle = Bundle(
        FORMAT, "auction", "Auction", {"auction": HEAD + "        pass\n"}, (("msgspec", "0"), ("gone", "1"))
    )
    program = load(shelf.bundle(bytes.fromhex(next((tmp_path / "code").iterdir()).stem)))
    assert program.bundle.needs == ()
    assert causes.changes_of(bundle, ("0.0.0",)).startswith("atoll 0.0.0 recorded, and this is ")
    assert "msgspec was 0, and is " in causes.changes_of(bundle, ())
    assert "gone was 1, and is missing" in causes.changes_of(bundle, ())


def test_a_state_is_compared_field_by_field_with_its_snapshot(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, "self.best += bid.amount + len(bid.who)", checkpointed=True)
    kept = shelf.snapshot(2)
    state = msgspec.msgpack.decode(kept.state, type=State)
    state.branches[""].fields = msgspec.Raw(msgspec.msgpack.encode({"best": 10}))
    error = DivergedError("state", (2, 0), (2, 2), "x", "y")
    error.state = msgspec.msgpack.encode(state)
    found = cause_of(shelf, error)
    assert found == Cause(found.kind, found.sentence, (Difference("best", "9", "10"),))
    assert found.kind == "unknown"
    (shelf.journal.directory / "snapshots" / "2.ats").write_bytes(b"")
    assert cause_of(shelf, error).differences == ()


def test_a_rehearsal_says_whether_it_repeats_the_recording(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, "ctx.log(str(bid.amount))")
    try:
        walls = GuardedWalls()
        walls.about(b"", b"", 0, 0)
        outcome = rehearsed(shelf, 1, 1, walls)
    finally:
        guard.remove()
    assert outcome.repeats
    assert isinstance(outcome.plain(), dict)
    assert causes.Outcome(got="x").plain() == "x"
    assert time.time_ns() > 0
    assert random.random() < 1


def test_a_handler_that_does_not_come_to_its_end_is_ended_once() -> None:
    def loop() -> None:
        while True:
            pass

    try:
        with TimedWalls(0.02) as walls:
            walls.about(b"", b"", 0, 0)
            walls.enter()
            with pytest.raises(HandlerKilled, match=r"more than 0\.01 s"):
                loop()
            for _ in range(2_000_000):
                pass  # What clears up after it is not ended as well.
            walls.leave()
            walls.enter()
            walls.leave()
    finally:
        guard.end(0)
        guard.remove()


def test_a_rehearsal_that_comes_to_nothing_says_nothing(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, "pass")
    next((tmp_path / "code").iterdir()).unlink()
    assert causes.rehearse(shelf, (1, 1), "0") is None


def test_a_process_rehearses_what_its_input_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = shelf_of(tmp_path, "ctx.log(str(bid.amount))")
    order = {"path": str(shelf.journal.directory), "code": list(map(str, shelf.code)), "block": 1, "index": 1}
    output = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(msgspec.json.encode(order))))
    monkeypatch.setattr(sys, "stdout", output)
    try:
        assert causes.main() == 0
    finally:
        guard.remove()
    assert msgspec.json.decode(output.buffer.getvalue())["repeats"]


def test_a_rehearsal_that_differs_gives_what_came(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, "ctx.log(str(id(bid)))\nif bid.amount > 2: raise ValueError")
    outcome = rehearsed(shelf, 1, 1, OPEN)
    assert not outcome.repeats
    assert isinstance(outcome.plain(), dict)


def test_one_that_repeats_the_recording_gives_what_was_expected() -> None:
    effects = b64encode(msgspec.msgpack.encode([Note("then")])).decode()
    outcomes = [causes.Outcome(got="x"), causes.Outcome(repeats=True, effects=effects)]
    outcomes += [causes.Outcome(got="y"), causes.Outcome(got="x")]
    error = DivergedError("effects", (1, 1), (1, 2), "x", "y")
    error.effects = (Note("now"),)
    found = causes.of_outcomes(outcomes, error)
    assert found is not None
    assert (found.kind, found.differences) == ("set order", (Difference("log[0]", "'then'", "'now'"),))


def test_other_code_is_named_before_it_is_said_that_nothing_is_known(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, "pass")
    error = DivergedError("digest", (1, 1), (1, 2), "x", "y")
    assert cause_of(shelf, error).kind == "unknown"
    path = shelf.journal.segments[0]
    manifest = msgspec.structs.replace(open_segment(path).manifest, product="0.0.0")
    path.write_bytes(segment_start(manifest) + path.read_bytes()[open_segment(path).begin :])
    found = cause_of(DiskShelf(find_journal(tmp_path, "auction")), error)
    assert (found.kind, found.sentence.partition(",")[0]) == ("changed code", "atoll 0.0.0 recorded")
    next((tmp_path / "code").iterdir()).unlink()
    assert causes.changed_code(shelf) == ""


def test_effects_that_are_the_same_each_time_leave_the_code(tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, "ctx.log(str(bid.amount))")
    error = DivergedError("effects", (1, 1), (1, 2), "x", "y")
    error.effects = (Note("now"),)
    found = cause_of(shelf, error)
    assert (
        found.kind == "set order"
    )  # What it gives in another process is what was recorded, and this error is made up.
    assert found.differences[0].expected == "'1'"
