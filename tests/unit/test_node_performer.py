# SPDX-License-Identifier: Apache-2.0
"""The one door to the control machine: effects in order, a disk that is slow or refuses, a machine that never stops."""

import logging
from pathlib import Path

import msgspec
import pytest

from atoll.base.errors import StorageError
from atoll.base.ids import DIRECT
from atoll.base.member import Member
from atoll.core.journal import Provenance, Recorder
from atoll.core.machine import Tick
from atoll.core.replay import replay
from atoll.device.nic.messages import AdmitPeer, ExpelPeer, Order
from atoll.group.events import DuplicateIdentity, InviteIssued, RemoveAsked, Removed, Sign, Signed, StoreRoster
from atoll.group.identity import Identity
from atoll.group.invite import invite_public_key
from atoll.group.messages import GROUP_TAGS, Push, encode
from atoll.group.roster import Roster
from atoll.group.statement import Admit, Body
from atoll.host.journal_files import JournalFiles, read_journal
from atoll.node.control import KIND, Control, ControlEffect, ControlInput
from atoll.node.limits import TURN_INPUTS_MAX
from atoll.node.performer import Performer
from atoll.node.state import StateDirectory
from atoll.overlay.orders import RouteNotice, SendControl
from atoll.overlay.reports import ControlReceived, NicRestarted, SessionUp
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
    """A performer with everything around it; the disk is a real directory, and as slow as the test wants.

    Attributes:
        is_slow: Whether rosters wait for ``write``; else each is written at once.
        unwritten: The newest roster that waits.
    """

    def __init__(self, directory: Path, index: int = 0) -> None:
        self.plan = plans()[index]
        self.state = StateDirectory(directory)
        self.state.keep_roster(self.plan.roster)
        self.clock, self.ear = StillClock(), Ear()
        self.orders: list[Order] = []
        self.is_slow = False
        self.unwritten: StoreRoster | None = None
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
            store=self.store,
            order=self.orders.append,
            name_of=lambda node: node.hex(),
            listener=self.ear,
            journal=self.journal,
        )
        self.performer.begin(self.first)

    def store(self, effect: StoreRoster) -> None:
        self.unwritten = effect
        if not self.is_slow:
            self.write()

    def write(self) -> None:
        """Let the disk do what it was asked for, or refuse it."""
        effect, self.unwritten = self.unwritten, None
        assert effect is not None
        refused = None
        try:
            self.state.keep_roster(effect.roster)
        except StorageError as error:
            refused = error
        self.performer.stored(effect, refused)

    def stores(self) -> bool:
        return self.performer.is_storing

    def is_refused(self) -> bool:
        return self.performer.refusal is not None

    def groupwise(self) -> list[SendControl]:
        """Return the orders so far that carry messages about membership."""
        return [order for order in self.orders if isinstance(order, SendControl) and order.payload[1] in GROUP_TAGS]

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


def news(shell: Shell, body: Body, index: int = 1) -> ControlReceived:
    """Return a statement of another member as it comes to us."""
    issuer = plans()[index]
    roster = Roster.decode(shell.plan.roster)
    draft = roster.draft(issuer.member.signing_key, body)
    statement = draft.with_signature(issuer.identity.sign(draft.payload(roster.group)))
    return ControlReceived(issuer.member.node, DIRECT, encode(Push((statement,))))


def newcomer() -> Member:
    identity = Identity(bytes([9]) * 64)
    return Member(identity.public_key, identity.signing_key, "four", (("192.0.2.7", 7747),))


def linked(directory: Path) -> Shell:
    shell = Shell(directory)
    for plan in plans()[1:]:
        shell.performer.feed(SessionUp(plan.member.node, 1))
    shell.orders.clear()
    return shell


def test_while_the_disk_is_slow_an_own_statement_counts_for_nobody_and_the_node_probes_on(tmp_path: Path) -> None:
    shell = linked(tmp_path)
    two = plans()[1].member
    shell.is_slow = True
    shell.performer.feed(RemoveAsked(two.node))
    assert shell.stores()
    for _ in range(40):
        shell.clock.now_ns = max(shell.clock.now_ns, shell.performer.deadline_ns or 0)
        shell.performer.tick()
        shell.performer.keep()
    probed = {order.node for order in shell.orders if isinstance(order, SendControl)}
    assert probed == {plan.member.node for plan in plans()[1:]}
    assert shell.groupwise() == []
    assert ExpelPeer(two.public_key) not in shell.orders
    assert shell.state.roster() == shell.plan.roster
    shell.orders.clear()
    shell.write()
    assert not shell.stores()
    assert {order.node for order in shell.groupwise()} == {plan.member.node for plan in plans()[1:]}
    assert ExpelPeer(two.public_key) in shell.orders


def test_news_of_others_reaches_nobody_before_the_disk_has_them(tmp_path: Path) -> None:
    shell, four = linked(tmp_path), newcomer()
    two, three = (plan.member for plan in plans()[1:])
    shell.is_slow = True
    shell.performer.feed(news(shell, Admit(four)))
    shell.performer.feed(NicRestarted())
    assert {order.public_key for order in shell.orders if isinstance(order, AdmitPeer)} == {
        two.public_key,
        three.public_key,
    }, "a new device gets its peers back at once, but not the one that is not on disk"
    assert shell.groupwise() == []
    assert not any(four.node in msgspec.structs.astuple(order) for order in shell.orders)
    shell.orders.clear()
    shell.write()
    assert four.public_key in shell.peers()
    assert [order.node for order in shell.groupwise()][:1] == [three.node], "it is passed on now"
    first = next(index for index, order in enumerate(shell.orders) if four.node in msgspec.structs.astuple(order))
    admitted = next(index for index, order in enumerate(shell.orders) if isinstance(order, AdmitPeer))
    assert admitted < first, "the device knows a peer before anything is ordered about it"


def test_a_newer_roster_on_its_way_keeps_everything_waiting(tmp_path: Path) -> None:
    shell, four = linked(tmp_path), newcomer()
    two, three = (plan.member for plan in plans()[1:])
    shell.is_slow = True
    shell.performer.feed(RemoveAsked(three.node))
    own = shell.unwritten
    assert own is not None
    shell.performer.feed(news(shell, Admit(four)))
    newest = shell.unwritten
    assert newest is not None
    assert newest is not own
    shell.state.keep_roster(own.roster)
    shell.performer.stored(own, None)  # Our own statement counts now; and it goes out behind the other's.
    assert shell.stores()
    assert shell.groupwise() == []
    shell.write()
    assert four.public_key in shell.peers()
    assert three.public_key not in shell.peers()
    assert {order.node for order in shell.groupwise()} >= {two.node}


def test_an_older_roster_that_was_refused_says_nothing_while_a_newer_one_is_on_its_way(tmp_path: Path) -> None:
    shell = linked(tmp_path)
    shell.is_slow = True
    shell.performer.feed(RemoveAsked(plans()[2].member.node))
    own = shell.unwritten
    assert own is not None
    shell.performer.feed(news(shell, Admit(newcomer())))
    shell.performer.stored(own, StorageError("no"))
    assert not shell.is_refused()
    assert shell.groupwise() == []
    shell.write()
    assert plans()[2].member.public_key not in shell.peers()


def test_a_disk_that_refuses_lets_news_of_others_pass(tmp_path: Path) -> None:
    """They are on the disks of those who sent them; a full disk must not cut a node off from its group."""
    shell, four = linked(tmp_path), newcomer()
    shell.is_slow = True
    shell.performer.feed(news(shell, Admit(four)))
    shell.refuse()
    shell.write()
    assert four.public_key in shell.peers()
    assert shell.groupwise()
    assert shell.performer.warnings


class Parrot:
    """A machine that answers each of its own answers."""

    deadline_ns = None

    def handle(self, event: ControlInput, now_ns: int) -> tuple[ControlEffect, ...]:
        assert isinstance(event, Tick | Signed)
        return (Sign(now_ns, b"again"),)

    def snapshot(self) -> bytes:
        return b""


def test_a_machine_that_talks_to_itself_is_cut_short_counted_and_told_once(
    shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    recorder: Recorder[ControlInput, ControlEffect] = Recorder(KIND, Parrot(), Provenance("0.1.0", "one", 0, NOW_NS))
    performer = Performer(
        recorder,
        clock=shell.clock,
        identity=shell.plan.identity,
        store=shell.store,
        order=shell.orders.append,
        name_of=lambda node: node.hex(),
        listener=shell.ear,
        journal=None,
    )
    with caplog.at_level(logging.ERROR):
        performer.tick()
        performer.tick()
    assert performer.unanswered == 2
    assert caplog.text.count(f"more than {TURN_INPUTS_MAX} times") == 1


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
