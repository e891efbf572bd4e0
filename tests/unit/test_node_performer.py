# SPDX-License-Identifier: Apache-2.0
"""The one door to the control machine: effects in order, answers in the same turn, a disk that refuses."""

import logging
from pathlib import Path

import pytest

from atoll.base.ids import DIRECT
from atoll.core.journal import Provenance, Recorder
from atoll.core.replay import replay
from atoll.device.nic.messages import AdmitPeer, ExpelPeer, Order
from atoll.group.events import DuplicateIdentity, InviteIssued, RemoveAsked, Removed
from atoll.group.invite import invite_public_key
from atoll.host.journal_files import JournalFiles, read_journal
from atoll.node.control import KIND, Control, ControlEffect, ControlInput
from atoll.node.performer import Performer
from atoll.node.state import StateDirectory
from atoll.overlay.orders import RouteNotice, SendControl
from atoll.overlay.reports import SessionUp
from tests.unit.node_unit_world import NOW_NS, WALL_S, control_of, plans


class StillClock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_ns = NOW_NS

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return WALL_S * 1_000_000_000


class Ear:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.notices: list[RouteNotice] = []
        self.copies: list[bytes] = []
        self.ends: list[Removed | DuplicateIdentity] = []

    def route_changed(self, notice: RouteNotice) -> None:
        self.notices.append(notice)

    def copies_began(self, node: bytes) -> None:
        self.copies.append(node)

    def removed(self, effect: Removed) -> None:
        self.ends.append(effect)

    def duplicated(self, effect: DuplicateIdentity) -> None:
        self.ends.append(effect)


class Shell:
    """A performer with everything around it; the disk is a real directory."""

    def __init__(self, directory: Path, index: int = 0) -> None:
        self.plan = plans()[index]
        self.state = StateDirectory(directory)
        self.state.keep_roster(self.plan.roster)
        self.clock, self.ear = StillClock(), Ear()
        self.orders: list[Order] = []
        self.control: Control
        self.control, self.first = control_of(self.plan)
        self.journal = JournalFiles(directory / "journal")
        recorder: Recorder[ControlInput, ControlEffect] = Recorder(
            KIND, self.control, Provenance("0.1.0", "one", 0, NOW_NS)
        )
        self.performer = Performer(
            recorder,
            clock=self.clock,
            identity=self.plan.identity,
            state=self.state,
            order=self.orders.append,
            name_of=lambda node: node.hex(),
            listener=self.ear,
            journal=self.journal,
        )
        self.performer.begin(self.first)

    def refuse(self) -> None:
        """Let the disk refuse to replace the roster: something is where the new one must be written."""
        (self.state.path / "roster.new" / "in the way").mkdir(parents=True)

    def allow(self) -> None:
        (self.state.path / "roster.new" / "in the way").rmdir()
        (self.state.path / "roster.new").rmdir()

    def peers(self) -> set[bytes]:
        """Return the public keys that the device serves."""
        served: dict[bytes, None] = {}
        for order in self.orders:
            if isinstance(order, AdmitPeer):
                served[order.public_key] = None
            elif isinstance(order, ExpelPeer):
                served.pop(order.public_key, None)
        return set(served)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_the_first_orders_are_for_the_device(shell: Shell) -> None:
    others = {plan.member.public_key for plan in plans()[1:]}
    assert shell.peers() == others


def test_a_signature_and_a_stored_roster_are_answered_in_the_same_turn(shell: Shell) -> None:
    two = plans()[1].member
    shell.performer.feed(RemoveAsked(two.node))
    assert two.public_key not in shell.peers()
    stored = shell.state.roster()
    assert stored == shell.control.group.roster.encode()
    assert stored != shell.plan.roster


def test_a_refused_roster_counts_for_nobody_and_is_tried_again(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    two = plans()[1].member
    shell.performer.feed(SessionUp(two.node, 1))
    shell.orders.clear()
    shell.refuse()
    with caplog.at_level(logging.WARNING):
        shell.performer.feed(RemoveAsked(two.node))
    assert "the roster cannot be written" in caplog.text
    assert shell.performer.warnings[0].startswith("the roster cannot be written")
    assert shell.state.roster() == shell.plan.roster
    assert not any(isinstance(order, ExpelPeer) for order in shell.orders), "it is a member as long as the disk says so"
    told = [order for order in shell.orders if isinstance(order, SendControl)]
    assert told == [], "and nobody is told what a crash could take back"
    shell.performer.keep()
    assert shell.performer.warnings, "still refused"
    shell.allow()
    shell.performer.keep()
    assert shell.performer.warnings == ()
    assert ExpelPeer(two.public_key) in shell.orders
    assert shell.state.roster() == shell.control.group.roster.encode()


def test_only_the_newest_refused_roster_is_written(shell: Shell) -> None:
    shell.refuse()
    for plan in plans()[1:]:
        shell.performer.feed(RemoveAsked(plan.member.node))
    shell.allow()
    shell.performer.keep()
    assert shell.peers() == set()
    assert shell.state.roster() == shell.control.group.roster.encode()


def test_being_removed_ends_the_node_and_says_by_whom(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.performer.feed(RemoveAsked(shell.plan.member.node))
    assert [type(end) for end in shell.ear.ends] == [Removed]


def test_every_input_is_recorded_and_replays(shell: Shell) -> None:
    key = invite_public_key(bytes(16))
    for step in range(50):
        shell.clock.now_ns += 200_000_000
        if step == 10:
            shell.performer.feed(InviteIssued(key, WALL_S + 600))
        if shell.performer.deadline_ns is not None and shell.performer.deadline_ns <= shell.clock.now_ns:
            shell.performer.tick()
        shell.performer.keep()
    shell.performer.close()
    result = replay({KIND.name: KIND}, read_journal(shell.state.journal))
    assert result.inputs > 5
    assert (result.raised, result.gaps, result.torn) == (0, 0, 0)


def test_a_journal_that_the_disk_refuses_is_a_warning_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shell = Shell(tmp_path)
    journal = tmp_path / "journal"
    journal.rmdir()
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            shell.clock.now_ns += 1_000_000_000
            shell.performer.tick()
            shell.performer.keep()
    assert caplog.text.count("the journal is suspended") == 1
    assert any("journal suspended" in warning for warning in shell.performer.warnings)
    journal.mkdir()
    with caplog.at_level(logging.WARNING):
        for _ in range(60):
            shell.clock.now_ns += 1_000_000_000
            shell.performer.tick()
            shell.performer.keep()
    assert "the journal goes on" in caplog.text
    assert shell.performer.warnings == ()
    shell.performer.close()


def test_a_change_of_route_is_logged_by_name_and_told(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    two, three = (plan.member for plan in plans()[1:])
    notice = RouteNotice(
        node=two.node, tag=0, before=DIRECT, via=three.node, cause="silent", evidence="3 missing", took_ns=120_000_000
    )
    with caplog.at_level(logging.INFO):
        shell.performer.begin([notice])
    assert f"route to {two.node.hex()} tag 0: direct -> via {three.node.hex()}, silent in 0.120 s" in caplog.text
    assert shell.ear.notices == [notice]


def test_a_member_that_joined_is_news_and_not_a_warning(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    from atoll.group import notices  # noqa: PLC0415 - beside its only use.

    with caplog.at_level(logging.INFO):
        shell.performer.begin([notices.joined(b"x" * 10, "four")])
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "joined: four joined the group (by an invitation of this node)")
    ]
