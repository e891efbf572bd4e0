# SPDX-License-Identifier: Apache-2.0
"""What is told of the program that the demo kept running, and when a promise about it counts as kept."""

from dataclasses import replace

import msgspec
import pytest

from atoll.lab.bidders import Account
from atoll.lab.histories import Replayed, Tampered
from atoll.lab.kept import (
    AGAIN_S_MAX,
    PAUSE_S_MAX,
    KeepReport,
    KillReport,
    keep_lines,
    told_audit,
    told_kill,
    told_move,
    told_replay,
)

FAIR = Account(acknowledged=240, failed=0, lost=0, doubled=0, rivals=0)
UNFAIR = [
    replace(FAIR, failed=1),
    replace(FAIR, lost=1),
    replace(FAIR, doubled=1),
    replace(FAIR, rivals=1),
    replace(FAIR, acknowledged=0),
]
WAY = ("fra", "ash", "ash")
TIMES_S = (0.9, 0.73, 0.35)
OWNERS = (("fra",), ("ash",), ("home",))
PAST = Replayed(246, 2, "5a" * 32)
AUDIT = Tampered(85, 43, 43, "content that does not check (block 43)")
MOVED = told_move(WAY, TIMES_S, FAIR, "")
KILLED = told_kill(("ash", "home"), 2.06, FAIR, OWNERS)
REPLAYED = told_replay("home", "fra", PAST.digest, PAST)
AUDITED = told_audit("fra", AUDIT)
REPORT = KeepReport(
    name="lot",
    clients=("home", "sin"),
    holders=("fra", "ash", "home"),
    moved=MOVED,
    killed=KILLED,
    replayed=REPLAYED,
    audited=AUDITED,
    kept=True,
)


def test_a_move_that_nobody_suffers_from_is_a_promise_kept() -> None:
    assert MOVED.kept
    assert (MOVED.source, MOVED.target, MOVED.node) == WAY
    assert (MOVED.took_s, MOVED.pause_s, MOVED.usual_s, MOVED.pause_max_s) == (*TIMES_S, PAUSE_S_MAX)
    assert (MOVED.acknowledged, MOVED.failed, MOVED.lost, MOVED.doubled) == (240, 0, 0, 0)


@pytest.mark.parametrize("account", UNFAIR)
def test_a_call_that_is_lost_doubled_or_failed_is_a_miss(account: Account) -> None:
    assert not told_move(WAY, TIMES_S, account, "").kept
    assert not told_kill(("ash", "home"), 2.06, account, OWNERS).kept


def test_a_long_pause_a_refusal_or_another_node_is_a_miss() -> None:
    assert not told_move(WAY, (0.9, PAUSE_S_MAX + 0.1, 0.35), FAIR, "").kept
    assert not told_move(WAY, TIMES_S, FAIR, "it did not move").kept
    assert not told_move(("fra", "ash", "fra"), TIMES_S, FAIR, "").kept
    assert not told_move(("ash", "ash", "ash"), TIMES_S, FAIR, "").kept


@pytest.mark.parametrize(
    "told",
    [
        told_kill(("ash", "home"), None, FAIR, OWNERS),
        told_kill(("ash", "home"), AGAIN_S_MAX + 0.1, FAIR, OWNERS),
        told_kill(("ash", ""), 2.06, FAIR, OWNERS),
        told_kill(("ash", "ash"), 2.06, FAIR, OWNERS),
        told_kill(("ash", "home"), 2.06, FAIR, (("fra",), ("ash", "gpu"), ("home",))),
        told_kill(("ash", "home"), 2.06, FAIR, ()),
    ],
)
def test_late_nowhere_or_two_owners_is_a_miss(told: KillReport) -> None:
    assert KILLED.kept
    assert not told.kept


def test_a_replay_counts_on_another_node_with_the_same_digest() -> None:
    assert REPLAYED.kept
    assert not told_replay("home", "fra", "00" * 32, PAST).kept
    assert not told_replay("home", "home", PAST.digest, PAST).kept
    assert not told_replay("home", "", PAST.digest, PAST).kept
    assert not told_replay("home", "fra", "", Replayed(words="nothing")).kept, "two that are missing are not equal"


def test_an_audit_counts_when_it_names_the_block_and_the_journal_is_sound() -> None:
    assert AUDITED.kept
    assert not told_audit("fra", replace(AUDIT, named=42)).kept
    assert not told_audit("fra", replace(AUDIT, named=None)).kept
    assert not told_audit("fra", replace(AUDIT, blocks=0)).kept
    assert not told_audit("fra", Tampered(85, 0, 0)).kept


def lines(report: KeepReport) -> list[str]:
    return [" ".join(line.split()) for line in keep_lines(report)]


def test_the_verdict_tells_pause_death_past_and_audit() -> None:
    assert lines(REPORT) == [
        "program moved, fra to ash pause - 0.73 s 240 calls, 0 lost, 0 doubled",
        "its node killed, ash answers again - 2.06 s on home: 240 calls, 0 lost, 0 doubled",
        "owners - 1 at a time fra, ash, home",
        "its past, on fra replayed - 246 events the same digest as on home, 5a5a5a5a5a5a",
        "audited - 85 blocks one byte changed in a copy: block 43 named",
    ]
    assert max(map(len, keep_lines(REPORT))) <= 120, "a terminal of 120 columns"


def test_without_faults_there_is_no_death_to_tell() -> None:
    told = lines(msgspec.structs.replace(REPORT, killed=None))
    assert len(told) == 3
    assert not any("killed" in line for line in told)


def test_the_verdict_says_what_was_missed() -> None:
    slow = told_move(WAY, (0.9, 3.1, 0.35), replace(FAIR, failed=2), "")
    dead = told_kill(("ash", ""), None, replace(FAIR, rivals=1), (("fra",), ("ash", "gpu")), "it cannot go on")
    other = told_replay("home", "fra", "00" * 32, PAST)
    bad = msgspec.structs.replace(
        REPORT, moved=slow, killed=dead, replayed=other, audited=told_audit("fra", Tampered(85, 43, None, "all well"))
    )
    told = lines(bad)
    assert told[0].endswith("240 calls, 0 lost, 0 doubled, 2 failed MISSED: promised 3.00 s, no call lost")
    assert "answers again - never on no node: 240 calls, 0 lost, 0 doubled, 1 from two owners" in told[1]
    assert told[1].endswith("MISSED: promised 6.00 s, one owner, no call lost. it cannot go on")
    assert told[2] == "owners - 2 at a time fra, ash and gpu"
    assert told[3].endswith("MISSED: another digest than on home")
    assert told[4].endswith("MISSED: block 43 changed in a copy, and nothing named. all well")
    wrong = told_audit("fra", Tampered(85, 43, 42, "block 42"))
    refused = told_move(WAY, TIMES_S, FAIR, "lot did not move: the disk refuses")
    nobody = told_replay("home", "", "", Replayed(words="no other node that lives keeps it"))
    told = lines(msgspec.structs.replace(REPORT, moved=refused, replayed=nobody, audited=wrong))
    assert told[0].endswith("MISSED: lot did not move: the disk refuses")
    assert told[3] == "its past, on no node replayed - 0 events MISSED: no other node that lives keeps it"
    assert "and block 42 named" in told[4]
