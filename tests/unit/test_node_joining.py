# SPDX-License-Identifier: Apache-2.0
"""Between the machine that joins and its packet device: what is carried, what is left out, how each end is told."""

import pytest

from atoll.base.ids import DIRECT
from atoll.base.problems import PROBLEMS
from atoll.base.units import SECOND_NS
from atoll.device.nic.messages import NicCounters, Order, Timestamp
from atoll.group.identity import founding_roster, join_proof
from atoll.group.invite import invite_public_key
from atoll.group.join import Joined, JoinFailed, Joining, JoinOptions
from atoll.group.limits import JOIN_ASK_INTERVAL_NS, JOIN_CONNECT_NS, JOIN_STALL_NS
from atoll.group.messages import REFUSED_USED, JoinAccept, JoinRefused, JoinRequest, decode, encode
from atoll.group.roster import Roster
from atoll.group.statement import Admit, signed
from atoll.node.joining import Applicant, refusal
from atoll.overlay.orders import SendControl
from atoll.overlay.reports import ControlReceived, FlowSeen, SessionDown, SessionUp
from tests.unit.group_world import identity, record

INVITER, JOINER = identity(0), identity(7)
STRANGER = b"stranger.."


class Clock:
    now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return 0


class Desk:
    """An applicant, what it ordered, and its clock."""

    def __init__(self) -> None:
        key = invite_public_key(b"s" * 16)
        options = JoinOptions(
            record(7),
            join_proof(JOINER, key, record(7)),
            INVITER.public_key,
            INVITER.signing_key[:8],
            "192.0.2.1:7747",
        )
        self.clock = Clock()
        self.orders: list[Order] = []
        self.applicant = Applicant(Joining.create(options, 0), INVITER.node, self.orders.append, self.clock)

    def asked(self) -> int:
        """Return how often membership was asked for; nothing else may ever be sent, and only to the inviter."""
        for order in self.orders:
            assert isinstance(order, SendControl)
            assert (order.node, order.via) == (INVITER.node, DIRECT)
            assert isinstance(decode(order.payload), JoinRequest)
        return len(self.orders)

    def pass_time(self, span_ns: int) -> None:
        """Let time pass, waking when the applicant wants to be woken."""
        end_ns = self.clock.now_ns + span_ns
        while (wait_s := self.applicant.wait_s) is not None and self.clock.now_ns + wait_s * SECOND_NS <= end_ns:
            self.clock.now_ns += round(wait_s * SECOND_NS)
            self.applicant.tick()
        self.clock.now_ns = end_ns

    def is_waiting(self) -> bool:
        return self.applicant.outcome is None

    def from_inviter(self, message: JoinAccept | JoinRefused) -> None:
        self.applicant.hear([ControlReceived(INVITER.node, DIRECT, encode(message))])


@pytest.fixture
def desk() -> Desk:
    return Desk()


def grown() -> Roster:
    roster = founding_roster(INVITER, record(0))
    roster.add(signed(roster.group, roster.draft(roster.group, Admit(record(7))), INVITER.sign))
    return roster


def accept(roster: Roster) -> JoinAccept:
    statements = roster.statements()
    return JoinAccept(roster.group, roster.digest(), len(statements), 0, statements)


def test_it_asks_once_there_is_a_session_and_again_until_it_is_answered(desk: Desk) -> None:
    assert desk.applicant.wait_s == JOIN_CONNECT_NS / SECOND_NS
    assert desk.asked() == 0
    desk.applicant.hear([SessionUp(INVITER.node, 1)])
    assert desk.asked() == 1
    desk.pass_time(3 * JOIN_ASK_INTERVAL_NS)
    assert desk.asked() == 4
    desk.applicant.hear([SessionDown(INVITER.node)])
    desk.pass_time(3 * JOIN_ASK_INTERVAL_NS)
    assert desk.asked() == 4, "nobody there to be asked"
    desk.applicant.hear([SessionUp(INVITER.node, 2)])
    assert desk.asked() == 5


def test_a_waking_that_comes_too_early_does_nothing(desk: Desk) -> None:
    desk.applicant.hear([SessionUp(INVITER.node, 1)])
    for _ in range(10):
        desk.applicant.tick()
    assert desk.asked() == 1


def test_the_roster_that_names_us_is_the_outcome(desk: Desk) -> None:
    roster = grown()
    desk.applicant.hear([SessionUp(INVITER.node, 1)])
    desk.from_inviter(accept(roster))
    assert desk.applicant.outcome == Joined(roster.group, roster.encode())
    assert desk.applicant.wait_s is None
    desk.applicant.lost("signal 9")
    desk.applicant.tick()
    desk.from_inviter(JoinRefused(REFUSED_USED, 1, 1))
    assert isinstance(desk.applicant.outcome, Joined), "the first outcome stays"


def test_what_strangers_send_and_what_does_not_concern_us_is_left_out(desk: Desk) -> None:
    desk.applicant.hear(
        [
            SessionUp(STRANGER, 1),
            ControlReceived(STRANGER, DIRECT, encode(accept(grown()))),
            ControlReceived(STRANGER, DIRECT, encode(JoinRefused(REFUSED_USED, 1, 1))),
            SessionDown(STRANGER),
            Timestamp(5),
            NicCounters({}),
            FlowSeen(STRANGER, 1, 1),
        ]
    )
    assert (desk.asked(), desk.applicant.outcome) == (0, None)
    desk.applicant.hear([SessionUp(INVITER.node, 1), ControlReceived(INVITER.node, DIRECT, b"garbage")])
    assert (desk.asked(), desk.applicant.outcome) == (1, None)


@pytest.mark.parametrize(
    ("is_linked", "within_ns", "stage"),
    [(False, JOIN_CONNECT_NS, "no answer to the handshake"), (True, JOIN_STALL_NS, "then no more")],
)
def test_silence_ends_in_bounded_time_and_says_where_it_ended(
    desk: Desk, is_linked: bool, within_ns: int, stage: str
) -> None:
    if is_linked:
        desk.applicant.hear([SessionUp(INVITER.node, 1)])
    desk.pass_time(within_ns - 1)
    assert desk.is_waiting()
    desk.pass_time(1)
    failed = desk.applicant.outcome
    assert isinstance(failed, JoinFailed)
    assert (failed.code, stage in failed.where, "192.0.2.1:7747" in failed.where) == ("A205", True, True)


def test_a_refusal_is_the_outcome_and_is_told_with_its_fix(desk: Desk) -> None:
    desk.applicant.hear([SessionUp(INVITER.node, 1)])
    desk.from_inviter(JoinRefused(REFUSED_USED, 1, 1))
    assert isinstance(desk.applicant.outcome, JoinFailed)
    error = refusal(desk.applicant.outcome)
    assert (error.code, error.sentence) == ("A204", "this invitation was used already")
    assert "atoll invite" in error.fix


def test_a_device_that_dies_ends_the_attempt(desk: Desk) -> None:
    desk.applicant.lost("signal 9")
    assert desk.applicant.outcome == JoinFailed("A205", "the packet device is lost: signal 9")


@pytest.mark.parametrize("code", [f"A20{digit}" for digit in range(2, 10)])
def test_every_way_to_fail_has_a_sentence_a_fix_and_an_entry_in_the_catalogue(code: str) -> None:
    error = refusal(JoinFailed(code, "the evidence"))
    assert (error.code, error.where) == (code, "the evidence")
    assert error.sentence != "the join failed"
    assert "atoll" in error.fix
    assert code in PROBLEMS
