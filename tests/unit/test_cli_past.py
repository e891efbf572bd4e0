# SPDX-License-Identifier: Apache-2.0
"""Commands about the past give what was asked for, refuse what does not go together, and exit as scripts expect."""

import io
import json
import os
import pty
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from pdb import Pdb
from typing import Any

import msgspec
import pytest

from atoll.base.errors import UserError
from atoll.cli import past_look
from atoll.cli.app import run
from atoll.cli.past import AGAIN_VARIABLE, when
from atoll.cli.past_look import debug
from atoll.domain import guard
from atoll.domain.loading import PREFIX
from atoll.domain.recorder.heads import HeadFiles
from atoll.domain.recorder.journal import create_journal
from atoll.domain.recorder.messages import KeptHead, Restart
from atoll.domain.shelves import DiskShelf, find_journal
from atoll.env.chain import GENESIS, Frame, read
from atoll.env.records import Held
from atoll.env.stepping import DivergedError
from tests.unit.past_world import ANN, AUCTION, BOB, START_NS, DiskWorld, arrived, bid
from tests.unit.recorder_world import ENVIRONMENT, key_in

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def world(tmp_path: Path) -> DiskWorld:
    """Return a journal with 8 events, a checkpoint, and 2 more of which one failed."""
    made = DiskWorld(tmp_path / "state")
    made.bids(8)
    made.checkpoint()
    made.seal(arrived(ANN, 5, bid("ann", 50), bid("ann", -1)))
    return made


@pytest.fixture
def command(world: DiskWorld, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Return what runs a command line about that state: exit status, output, errors."""
    monkeypatch.setenv(AGAIN_VARIABLE, "1")

    def call(*arguments: str) -> tuple[int, str, str]:
        status = run([*arguments, "--state", str(world.state)])
        said = capsys.readouterr()
        return status, said.out, said.err

    yield call
    guard.remove()


def test_a_whole_replay_says_that_nothing_differs(command: Command) -> None:
    status, out, _ = command("replay", "auction")
    assert status == 0
    assert out.startswith("auction: events 1 to 10 in 4 blocks gave the same effects (digest ")
    assert "and 1 checkpoints the same state" in out
    assert json.loads(command("replay", "auction", "--json")[1])["last"] == 10


def test_an_event_is_shown_with_its_input_effects_and_state(command: Command) -> None:
    status, out, _ = command("replay", "auction", "--event", "9")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith("event 9 of 10  2025-06-15 15:06:40.004000")
    assert "  in       Bid(who='ann', amount=50)" in lines
    assert "  log      best is 50" in lines
    assert "  * best  50   was 7" in lines
    assert "  * who  'ann'   was 'bob'" in lines
    failed = command("replay", "auction", "--event", "10")[1]
    assert "Bid(who='ann', amount=-1) failed: raised, ValueError: no" in failed
    assert json.loads(command("replay", "auction", "--event", "9", "--json")[1])["changed"] == ["best", "who", "bids"]
    assert "where the journal begins" in command("replay", "auction", "--event", "0")[1]


def test_what_a_stranger_has_sent_beside_the_fields_of_a_type_is_shown_whatever_it_is(
    command: Command, world: DiskWorld
) -> None:
    odd = b"\x85\xa2is\xa3Bid\xa3who\xa3ann\xa6amount\xcc\xc8\xa1x\xa1\xff\xa1y\x81\x81\xa1z\xc4\x01\xfe\x07"
    world.seal(arrived(ANN, 7, msgspec.Raw(odd)))
    status, out, err = command("replay", "auction", "--event", "11")
    assert (status, err) == (0, "")
    assert "  in       Bid(who='ann', amount=200, x='\N{REPLACEMENT CHARACTER}', y={{'z': fe}: 7})" in out.splitlines()
    plain = json.loads(command("replay", "auction", "--event", "11", "--json")[1])
    assert plain["in"]["event"]["y"] == {"{'z': 'fe'}": 7}
    assert command("replay", "auction", "--show")[0] == 0
    assert command("trace", "auction", "11")[0] == 0


def test_a_walk_prints_a_line_for_each_event(command: Command) -> None:
    _, out, _ = command("replay", "auction", "--event", "3", "--until", "5")
    assert [line.split("\t")[0] for line in out.splitlines()[:3]] == ["3", "4", "5"]
    assert "log: best is 4" not in out.splitlines()[0]
    assert out.splitlines()[3].startswith("event 5 of 10")
    lines = command("replay", "auction", "--show", "--until", "2", "--json")[1].splitlines()
    assert [json.loads(line)["event"] for line in lines] == [1, 2]


def test_a_time_names_an_event(command: Command) -> None:
    assert command("replay", "auction", "--at", "2025-06-15T15:06:40.002")[1].startswith("event 4 of 10")
    assert command("replay", "auction", "--until", "2025-06-15T15:06:40.002+00:00")[1].startswith("event 4 of 10")
    assert command("replay", "auction", "--at", "-1min")[1].startswith("event 10 of 10")


def test_a_watch_shows_the_event(command: Command) -> None:
    assert command("replay", "auction", "--break", "best > 4")[1].startswith("event 6 of 10")
    status, out, err = command("replay", "auction", "--break", "best > 1000")
    assert (status, out) == (1, "")
    assert "no event from 1 to 10 makes it true" in err
    out = command("replay", "auction", "--changed", "who")[1]
    assert out.startswith("who  'bob' -> 'ann'\nevent 9 of 10")
    assert "event 5 of 10" in command("replay", "auction", "--changed", "who", "--event", "8")[1]
    assert json.loads(command("replay", "auction", "--changed", "best", "--json")[1])["event"] == 9
    assert command("replay", "auction", "--changed", "bids.get('x')")[0] == 1


def test_changed_code_is_compared_with_history(command: Command, tmp_path: Path) -> None:
    new = tmp_path / "auction.py"
    new.write_text(AUCTION)
    status, out, _ = command("replay", "auction", "--with", str(new))
    assert (status, out.splitlines()[0]) == (0, f"0 of 10 events differ with {new}")
    new.write_text(AUCTION.replace("> self.best", ">= self.best + 2").replace('raise ValueError("no")', "return None"))
    status, out, _ = command("replay", "auction", "--with", str(new))
    assert status == 1
    assert "first at event 5" in out
    assert "handlers that failed: 1 then, 0 now" in out
    assert json.loads(command("replay", "auction", "--with", str(new), "--json")[1])["first"]["event"] == 5


def test_changed_code_that_loops_is_ended(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_look, "REVISED_S_MAX", 0.1)
    new = tmp_path / "auction.py"
    new.write_text(AUCTION.replace('raise ValueError("no")', "while True: pass"))
    status, out, _ = command("replay", "auction", "--with", str(new))
    assert (status, out.splitlines()[0]) == (1, f"1 of 10 events differ with {new}")
    assert "it ran for more than 0.05 s" in out
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--at", "-1min", "--event", "3"), "--at and --event exclude each other"),
        (("--break", "1", "--changed", "1"), "--break and --changed exclude each other"),
        (("--with", "x.py", "--break", "1"), "--with and --break exclude each other"),
        (("--event", "11"), "there is no event 11 here"),
        (("--event", "5", "--until", "3"), "it ends with event 3, before it begins"),
        (("--at", "yesterday"), "'yesterday' is no time"),
        (("--break", "best >"), "'best >' is no Python expression"),
        (("--changed", "never"), "there is no field never"),
        (("--pdb",), "--pdb needs a terminal"),
        (("--event", "1", "--until", "2", "--pdb"), "--pdb stops in one event"),
        (("--show", "--changed", "best"), "--show and --changed exclude each other"),
        (("--show", "--break", "best"), "--show and --break exclude each other"),
        (("--show", "--with", "x.py"), "--show and --with exclude each other"),
        (("--show", "--pdb"), "--show and --pdb exclude each other"),
        (("--until", "²"), "'²' is no time"),
        (("--until", "9" * 5_000), "is no time"),
    ],
)
def test_what_does_not_fit_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    status, _, err = command("replay", "auction", *arguments)
    assert status == 2
    assert sentence in err
    assert "\n  fix     " in err


def test_a_journal_that_is_not_here_is_said_so(command: Command) -> None:
    status, _, err = command("replay", "other")
    assert (status, "A304" in err) == (1, True)


def test_a_copy_that_was_given_away_is_no_damage(command: Command, world: DiskWorld) -> None:
    given = world.state / "envs" / bytes(16).hex()
    create_journal(given, key_in(world.state), "lobby", GENESIS)
    for arguments in (("replay", "lobby"), ("trace", "lobby", "1"), ("diff", "lobby", "auction")):
        status, _, err = command(*arguments)
        assert (status, "A610: nothing of the journal of lobby is kept on this node" in err) == (1, True)
        assert "fix     atoll env list" in err


def test_an_environments_name_wins_over_an_entry_of_that_name(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = tmp_path / "auction"
    entry.write_text("notes")
    assert command("replay", "auction")[0] == 0
    entry.unlink()
    entry.mkdir()
    assert command("replay", "auction")[0] == 0
    (entry / "00000001.atj").write_bytes(b"")  # Now it is clearly a path: a node's journal lies there.
    assert "A304" in command("replay", "auction")[2]
    (tmp_path / "exported").write_text("no journal")
    assert "exported" in command("replay", "exported")[2]


def test_code_of_a_journal_from_elsewhere_is_run_only_when_it_is_trusted(
    command: Command, world: DiskWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "it-ran"
    given = DiskWorld(tmp_path / "given", AUCTION + f"\n__import__('pathlib').Path({str(mark)!r}).touch()\n")
    given.bids(4)
    mark.unlink()  # It was run once, to be recorded.
    for name in [name for name in sys.modules if name.startswith(PREFIX + given.code.hex()[:16])]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.chdir(given.directory.parent)
    for place in (str(given.directory), str(given.segment), given.directory.name):
        for arguments in (("replay", place), ("trace", place, "best"), ("diff", "auction", place)):
            status, out, err = command(*arguments)
            assert (status, out, "A305" in err) == (6, "", True)
            assert "--trust-code" in err
    assert command("audit", "verify", str(given.directory))[0] == 0
    assert not mark.exists()
    assert command("replay", str(given.directory), "--trust-code")[0] == 0
    assert mark.exists()
    assert command("replay", str(world.directory))[0] == 0, "a path to the node's own needs no trust"
    world.directory.parent.rename(world.state / "ended")
    ended = world.state / "ended" / world.directory.name
    assert command("replay", str(ended.rename(ended.with_name(f"{ended.name}-1"))))[0] == 0


def test_a_journal_that_its_node_keeps_on_another_disk_is_its_own(
    command: Command, world: DiskWorld, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    world.directory.rename(disk / "big")
    world.directory.symlink_to(disk / "big")
    for place in ("auction", str(world.directory), str(world.segment)):
        assert command("replay", place, "--event", "3")[0] == 0
    assert command("replay", str(disk / "big"))[0] == 6, "nothing says there whose it is"
    outside = world.directory.parent / ".." / ".." / "disk" / "big"
    assert command("replay", str(outside))[0] == 6


def test_a_journal_from_elsewhere_without_blocks_is_none(command: Command, tmp_path: Path) -> None:
    given = tmp_path / "given" / bytes(16).hex()
    given.parent.mkdir()
    create_journal(given, key_in(given.parent), "lobby", GENESIS)
    assert "A304" in command("replay", str(given), "--trust-code")[2]


def test_a_nodes_journal_is_replayed_as_before(command: Command, tmp_path: Path) -> None:
    status, _, err = command("replay", str(tmp_path / "journal"))
    assert (status, "A304" in err) == (1, True)
    assert "given: --event" in command("replay", str(tmp_path / "journal"), "--event", "1")[2]
    assert "is no number of an input" in command("replay", str(tmp_path / "journal"), "--until", "x")[2]


def test_damage_is_named(command: Command, world: DiskWorld) -> None:
    data = bytearray(world.segment.read_bytes())
    data[-100] ^= 1
    world.segment.write_bytes(data)
    status, _, err = command("replay", "auction")
    assert (status, "A302" in err) == (1, True)
    assert command("audit", "verify")[0] == 1


def test_damage_that_is_found_later_is_named(command: Command, world: DiskWorld) -> None:
    path = world.directory / "snapshots" / "3.ats"
    path.write_bytes(path.read_bytes()[:-1])
    status, _, err = command("replay", "auction", "--event", "10")
    assert (status, "A302" in err) == (1, True)


def test_a_damaged_roster_is_no_damaged_journal(command: Command, world: DiskWorld) -> None:
    (world.state / "roster").write_bytes(b"odd")
    asked = (("replay", "auction"), ("diff", "auction", "auction"), ("trace", "auction", "9"), ("audit", "verify"))
    for arguments in asked:
        status, out, err = command(*arguments)
        assert (status, out) == (1, ""), arguments
        assert err.startswith(f"error A108: the file {world.state / 'roster'} is damaged"), err
        assert "move it away" in err
    (world.state / "roster").unlink()
    assert command("audit", "verify")[0] == 0, "as the error says"


def test_a_replay_that_differs_says_where_and_why(command: Command, tmp_path: Path, world: DiskWorld) -> None:
    source = AUCTION.replace('ctx.log(f"best is {self.best}")', "import time; ctx.log(str(time.time_ns()))")
    other = DiskWorld(tmp_path / "other", source)
    other.bids(8)
    status, _, err = command("replay", str(other.directory), "--trust-code")
    assert status == 1
    assert "A303: the replay differs at event 5" in err
    assert "likely cause: clock (the handler calls time.time_ns())" in err
    assert world.directory.exists()


def test_a_replay_that_differs_in_the_order_of_sets_names_the_field(command: Command, tmp_path: Path) -> None:
    text = "''.join(list({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i'}))"
    other = DiskWorld(tmp_path / "other", AUCTION.replace('f"best is {self.best}"', text + " + str(id(self))"))
    other.bids(8)
    status, _, err = command("replay", str(other.directory), "--trust-code")
    assert status == 1
    assert "likely cause: chance" in err
    assert "field log[0]: expected " in err


def test_an_audit_is_a_table_and_a_status(command: Command, world: DiskWorld) -> None:
    status, out, _ = command("audit", "verify", "auction")
    assert status == 0
    assert f"auction  {ENVIRONMENT.hex()}: as it was sealed" in out
    assert "to change event N, all blocks from its own to 4 would have to be sealed anew" in out
    HeadFiles(world.state / "heads").keep(b"other-node", world.head(4))
    out = command("audit", "verify")[1]
    assert "6f746865722d6e6f6465 to block 4" in out
    assert "and the heads that are kept apart, up to block 4" in out


def test_an_audit_of_a_journal_that_is_behind_says_how_far(command: Command, world: DiskWorld) -> None:
    more = world.state.parent / "more"
    later = msgspec.structs.replace(world.head(4).link, number=9)
    HeadFiles(more).keep(b"third-node", KeptHead(ENVIRONMENT, later, bytes(64)))
    status, out, _ = command("audit", "verify", "--heads", str(more))
    assert (status, "  behind: 4 of 9 blocks" in out, "FAULT" in out) == (0, True, False)


def test_an_audit_of_a_journal_that_lacks_what_its_node_sealed_names_no_forger(
    command: Command, world: DiskWorld
) -> None:
    more = world.state.parent / "more"
    HeadFiles(more).keep(b"third-node", world.head(4))
    frames = [frame for frame in read(world.segment.read_bytes()) if isinstance(frame, Frame)]
    world.segment.write_bytes(world.segment.read_bytes()[: frames[-1].offset])
    status, out, _ = command("audit", "verify", "--heads", str(more))
    assert (status, "FAULT  blocks 4 to 4 are missing" in out, "sealed anew" in out) == (1, True, False)
    plain = json.loads(command("audit", "verify", "--heads", str(more), "--json")[1])
    assert (plain["codes"], plain["codes_complete"]) == ([world.code.hex()], False)
    assert (plain["sound"], plain["counts"]["blocks"], plain["contradicting"]) == (
        False,
        3,
        [["74686972642d6e6f6465", 4]],
    )


def test_an_audit_that_cannot_decide_accuses_nobody(command: Command, world: DiskWorld) -> None:
    more = world.state.parent / "more"
    HeadFiles(more).keep(b"third-node", world.head(4))
    world.journal.restart(Restart(1, ENVIRONMENT, floor=(1, 4)))
    status, out, _ = command("audit", "verify", "--heads", str(more))
    assert (status, "FAULT" in out, "sealed anew" in out) == (1, False, False)
    assert "no fault was found, but what was shown of it and is not here is open" in out
    assert "  OPEN  blocks 1 to 4 were given up, as this node says; " in out
    plain = json.loads(command("audit", "verify", "--heads", str(more), "--json")[1])
    assert (plain["sound"], plain["faults"], plain["contradicting"]) == (False, [], [])
    assert [question["block"] for question in plain["open"]] == [4]


def test_an_audit_names_what_a_forger_would_have_had_to_change(command: Command, world: DiskWorld) -> None:
    HeadFiles(world.state / "heads").keep(b"other-node", world.head(4))
    data = bytearray(world.segment.read_bytes())
    data[-5] ^= 1
    world.segment.write_bytes(data + b"x")
    status, out, _ = command("audit", "verify")
    assert status == 1
    assert "for this to pass, blocks 4 to 4 (events 9 to 10) would have to be sealed anew" in out
    world.segment.write_bytes(bytes(data[:-700]) + b"")
    assert command("audit", "verify")[0] == 1


def test_an_audit_of_nothing_says_so(command: Command, tmp_path: Path) -> None:
    assert run(["audit", "verify", "--state", str(tmp_path / "none")]) == 0
    assert "ends with 3 bytes of no whole block" not in command("audit", "verify")[1]


def test_heads_that_do_not_check_are_mentioned_and_no_end_of_the_audit(command: Command, world: DiskWorld) -> None:
    HeadFiles(world.state / "heads").keep(b"other-node", world.head(4))
    path = world.state / "heads" / f"{b'other-node'.hex()}.ath"
    path.write_bytes(bytes(176) + path.read_bytes())
    status, out, err = command("audit", "verify")
    assert (status, "up to block 4" in out) == (0, True)
    assert "1 of 2 heads do not check, and count for nothing" in err


def test_a_journal_that_cannot_be_read_is_a_fault_with_its_place(command: Command, world: DiskWorld) -> None:
    data = bytearray(world.segment.read_bytes())
    data[60] ^= 1  # In the manifest.
    world.segment.write_bytes(data)
    for name in ((), (ENVIRONMENT.hex(),)):
        status, out, _ = command("audit", "verify", *name)
        assert status == 1
        assert f"(no name)  {ENVIRONMENT.hex()}: " in out
        assert f"FAULT  {world.segment}: offset" in out
    status, _, err = command("audit", "verify", "auction")
    assert (status, "A304" in err, str(world.directory) in err) == (1, True, True)


def test_an_audit_speaks_of_no_blocks_that_are_not_there(command: Command, world: DiskWorld) -> None:
    (world.directory / "snapshots" / "9.ats").write_bytes(b"that of another journal")
    status, out, _ = command("audit", "verify")
    assert (status, "snapshots/9.ats" in out, "for this to pass" in out) == (1, True, False)
    world.segment.unlink()
    status, out, _ = command("audit", "verify")
    assert (status, "for this to pass" in out, "0 to 0" in out) == (1, False, False)
    rows = [line.split() for line in out.splitlines()]
    assert ["blocks", "0", "-"] in rows
    assert ["events", "0", "-"] in rows


def test_heads_that_are_not_there_are_refused(command: Command, world: DiskWorld) -> None:
    status, out, err = command("audit", "verify", "--heads", str(world.state / "none"))
    assert (status, out) == (2, "")
    assert "A501" in err
    assert "STATE/heads" in err
    status, _, err = command("audit", "verify", "--heads", str(world.state))
    assert (status, "no heads are kept there" in err) == (0, True)


def test_a_journal_that_was_given_up_is_said_to_be_elsewhere(command: Command, world: DiskWorld) -> None:
    HeadFiles(world.state / "heads").keep(b"other-node", world.head(4))
    world.journal.restart(Restart(1, ENVIRONMENT, floor=(1, 4)))
    status, out, _ = command("audit", "verify")
    assert (status, "the journal is not kept here: this node gave it up, and heads up to 4" in out) == (0, True)
    assert ": nothing was checked, for no block is here" in out
    assert "sealed anew" not in out
    assert json.loads(command("audit", "verify", "--json")[1])["remarks"] != []


def test_a_torn_tail_is_mentioned(command: Command, world: DiskWorld) -> None:
    world.segment.write_bytes(world.segment.read_bytes() + b"abc")
    status, out, _ = command("audit", "verify")
    assert (status, "ends with 3 bytes of no whole block" in out) == (0, True)


def test_a_trace_is_a_chain(command: Command) -> None:
    status, out, _ = command("trace", "auction", "9")
    assert status == 0
    assert out.startswith("event 9  2025-06-15")
    assert "    because of best: event 8" in out
    assert out.splitlines()[-1].endswith("of 9 steps; 9 without the filter")
    assert command("trace", "auction", "best")[1].startswith("event 9 ")
    assert command("trace", "auction", f"{ANN.hex()[:6]}/5")[1].startswith("event 9 ")
    assert command("trace", "auction", "best", "--until", "7", "--all")[1].startswith("event 7 ")
    assert json.loads(command("trace", "auction", "2", "--json")[1])["all"] == 2
    assert "Failed (raised)" in command("trace", "auction", "10")[1]


@pytest.mark.parametrize("what", ["never", "xx/1", "99", "²", f"{ANN.hex()}/²"])
def test_a_trace_of_nothing_is_refused(command: Command, what: str) -> None:
    status, _, err = command("trace", "auction", what)
    assert (status, f"called {what}" in err or "there is no event" in err) == (2, True)
    assert "\n  fix     " in err


def test_a_trace_looks_at_nothing_that_was_later(command: Command) -> None:
    status, out, err = command("trace", "auction", "best", "--until", "0")
    assert (status, out, "nothing happened up to event 0" in err) == (2, "", True)
    assert "events 1 to 10 are kept" in err
    assert command("trace", "auction", "0")[0] == 2
    status, _, err = command("trace", "auction", "9", "--until", "7")
    assert (status, "nothing that is called 9 was found" in err) == (2, True)


def test_an_environment_to_which_nothing_has_happened_has_a_past(tmp_path: Path, command: Command) -> None:
    DiskWorld(tmp_path / "new").seal(Held((bytes(10),), 1))
    state = ("--state", str(tmp_path / "new"))
    for arguments in (("replay", "auction"), ("replay", "auction", "--show"), ("replay", "auction", "--event", "0")):
        assert run([*arguments, *state]) == 0
    for arguments in (("--break", "best > 3"), ("--changed", "best")):
        assert run(["replay", "auction", *arguments, *state]) == 1
    assert run(["trace", "auction", "best", *state]) == 2


def test_json_has_a_schema_and_says_what_text_says(command: Command) -> None:
    def said(*arguments: str) -> dict[str, Any]:
        (line,) = command(*arguments, "--json")[1].splitlines()
        return dict(json.loads(line))

    same = said("diff", "auction", "auction")
    assert same == {"schema": "atoll.diff/1", "same": True, "last": 10, "state": []}
    changed = said("replay", "auction", "--changed", "who")
    assert (changed["schema"], changed["was"], changed["became"]) == ("atoll.past/1", "'bob'", "'ann'")
    nothing = said("replay", "auction", "--break", "best > 1000")
    assert nothing == {"schema": "atoll.past/1", "event": None, "looked": [1, 10]}
    assert command("replay", "auction", "--break", "best > 1000", "--json")[::2] == (1, "")
    assert said("replay", "auction", "--changed", "bids.get('x')")["event"] is None
    walk = command("replay", "auction", "--show", "--json")[1].splitlines()
    assert {json.loads(line)["schema"] for line in walk} == {"atoll.past/1"}


def test_a_trace_in_json_names_fields_as_the_command_line_does(command: Command) -> None:
    found = json.loads(command("trace", "auction", "9", "--json")[1])
    assert found["schema"] == "atoll.trace/1"
    step = found["steps"][0]
    assert (step["event"], step["from"], step["number"], step["answers"]) == (9, ANN.hex(), 5, 0)
    assert step["writes"] == {"best": None, "who": None, "bids": ["ann"]}
    assert step["what"] == bid("ann", 50)
    assert {"event": 8, "through": "best"} in step["because"]
    assert step["sent"] == [{"to": ANN.hex(), "number": 5}]


def test_two_runs_are_compared(command: Command, tmp_path: Path) -> None:
    other = DiskWorld(tmp_path / "other")
    other.bids(6)
    other.seal(arrived(BOB, 3, bid("bob", 70)))
    assert "the same came into both, up to event 10" in command("diff", "auction", "auction")[1]
    status, out, _ = command("diff", "auction", str(other.directory), "--trust-code")
    assert status == 0
    assert out.splitlines()[0] == "auction  event 7: Bid(who='bob', amount=6)"
    assert "  best         6        70" in out
    plain = json.loads(command("diff", "auction", str(other.directory), "--trust-code", "--json")[1])
    assert plain["events"] == [7, 7]
    out = command("diff", "auction", "--at", "5", "--at", "9")[1]
    assert out.splitlines()[0].split() == ["field", "event", "5", "event", "9"]
    assert "the states are equal" in command("diff", "auction", "--at", "9", "--at", "10")[1]
    assert command("diff", "auction")[0] == 2


@pytest.mark.parametrize(
    ("text", "now_ns", "expected"),
    [
        ("-10min", START_NS, START_NS - 600 * 10**9),
        ("-1.5 h", START_NS, START_NS - 5_400 * 10**9),
        ("1970-01-01", 0, 0),
        ("1970-01-01T01:00:00.000001+01:00", 0, 1_000),
    ],
)
def test_times(text: str, now_ns: int, expected: int) -> None:
    assert when(text, now_ns) == expected


def test_the_debugger_stops_in_the_handler_with_its_source(
    world: DiskWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf = DiskShelf(find_journal(world.state, "auction"))
    said = io.StringIO()
    debugger = Pdb(stdin=io.StringIO("p bid.amount\np self.best\nlist\nc\n"), stdout=said)
    debug(shelf, 9, debugger)
    assert "50" in said.getvalue()
    assert "self.bids[bid.who] = bid.amount" in said.getvalue()
    debug(shelf, 9, Pdb(stdin=io.StringIO("q\n"), stdout=said))
    assert "did not end as it did then" in capsys.readouterr().err
    debug(shelf, 10, Pdb(stdin=io.StringIO(""), stdout=said))
    assert "no handler runs in event 10" in capsys.readouterr().err


def test_the_debugger_stops_in_a_coroutine(tmp_path: Path) -> None:
    source = AUCTION.replace("def bid(", "async def bid(").replace("ctx.log(", "await ctx.sleep(1); ctx.log(")
    other = DiskWorld(tmp_path / "other", source)
    other.seal(arrived(ANN, 1, bid("ann", 9)))
    said = io.StringIO()
    shelf = DiskShelf(find_journal(other.state, "auction"))
    debug(shelf, 1, Pdb(stdin=io.StringIO("p bid.amount\nc\n"), stdout=said))
    assert "9" in said.getvalue()


def test_a_change_in_the_debugger_is_said_and_one_before_it_is_a_divergence(
    world: DiskWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf = DiskShelf(find_journal(world.state, "auction"))
    debug(shelf, 9, Pdb(stdin=io.StringIO("!self.best = 1000\nc\n"), stdout=io.StringIO()))
    assert "did not end as it did then" in capsys.readouterr().err
    other = DiskWorld(tmp_path / "other", AUCTION.replace('f"best is {self.best}"', "str(id(bid))"))
    other.bids(16)
    with pytest.raises(DivergedError):
        debug(DiskShelf(find_journal(other.state, "auction")), 16, Pdb(stdin=io.StringIO(), stdout=io.StringIO()))


def test_at_a_terminal_the_event_is_debugged(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    os.write(master, b"c\nc\nc\n")
    with os.fdopen(slave, "r") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        assert command("replay", "auction", "--event", "9", "--pdb")[0] == 0
        assert command("replay", "auction", "--pdb")[0] == 0
    os.close(master)


def test_an_error_of_the_catalogue_is_one() -> None:
    with pytest.raises(UserError):
        when("", 0)
