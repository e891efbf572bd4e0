# SPDX-License-Identifier: Apache-2.0
"""What is told of slow members and what is believed: of itself anybody, of a third nobody alone."""

from collections import deque

import pytest

from atoll.base.errors import CorruptError, UsageError
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.core.machine import Tick
from atoll.health.members.bulletin import (
    AGE_NS_MAX,
    CREDIT_NS,
    FOUND_MAX,
    GAP_NS,
    NOTICES_MAX,
    REPEAT_NS,
    STAY_NS,
    Bulletin,
    BulletinEffect,
    BulletinInput,
    Found,
    HealthNotice,
    HealthReceived,
    Linked,
    Members,
    Shun,
    TellHealth,
    Unlinked,
)
from atoll.health.members.messages import AILMENTS_MAX, Ailment, Ailments, decode_ailments, encode_ailments
from atoll.health.model import State

BOOT = 7
A, B, C, D, E = (bytes([number]) * 10 for number in range(1, 6))
NODES = (A, B, C, D, E)
USUAL_NS, SLOW_NS = 10 * MILLISECOND_NS, 30 * MILLISECOND_NS


class Group:
    """Five bulletins that hear each other at once; what was sent is delivered after each input."""

    def __init__(self) -> None:
        self.now_ns: int = 1000 * SECOND_NS
        self.at = {node: Bulletin.create(node, BOOT) for node in NODES}
        self.effects: list[tuple[bytes, BulletinEffect]] = []
        self.cut: set[tuple[bytes, bytes]] = set()
        for node in NODES:
            self.feed(node, Members(tuple(other for other in NODES if other != node)))
        for node in NODES:
            for other in NODES:
                if other != node:
                    self.feed(node, Linked(other))

    def feed(self, node: bytes, event: BulletinInput) -> list[BulletinEffect]:
        """Give one input, and deliver what follows; return its own effects."""
        own = list(self.at[node].handle(event, self.now_ns))
        waiting = deque((node, effect) for effect in own)
        while waiting:
            sender, effect = waiting.popleft()
            self.effects.append((sender, effect))
            if isinstance(effect, TellHealth) and (sender, effect.node) not in self.cut:
                received = HealthReceived(sender, effect.payload)
                waiting += [(effect.node, one) for one in self.at[effect.node].handle(received, self.now_ns)]
        return own

    def found(self, node: bytes, of: bytes, what: str, state: State = State.SLOW) -> None:
        """Let a node find something."""
        self.feed(node, Found(of, what, state, self.now_ns - 6 * SECOND_NS, USUAL_NS, SLOW_NS))

    def pass_time(self, ns: int) -> None:
        """Serve every deadline until then."""
        end_ns = self.now_ns + ns
        while True:
            due_ns, node = min((one.deadline_ns or end_ns + 1, node) for node, one in self.at.items())
            if due_ns > end_ns:
                break
            self.now_ns = max(self.now_ns, due_ns)
            self.feed(node, Tick())
        self.now_ns = end_ns

    def shunned(self, node: bytes) -> tuple[bytes, ...]:
        """Whom a node shuns."""
        return tuple(other for other in NODES if other != node and self.at[node].health(other).shunned)


def test_who_says_that_it_is_slow_is_believed_and_shunned_as_a_relay() -> None:
    group = Group()
    group.found(A, b"", "cpu")
    for node in (B, C, D, E):
        health = group.at[node].health(A)
        assert (health.state, health.shunned) == (State.SLOW, True)
        (word,) = health.words
        assert (word.by, word.what, word.usual_us, word.newest_us) == (A, "cpu", 10_000, 30_000)
        assert word.since_ns == group.now_ns - 6 * SECOND_NS
    assert {(node, effect) for node, effect in group.effects if isinstance(effect, Shun)} == {
        (node, Shun((A,))) for node in (B, C, D, E)
    }


def test_a_slow_disk_is_told_and_does_not_keep_a_node_from_relaying() -> None:
    group = Group()
    group.found(A, b"", "disk")
    assert group.at[B].health(A).state is State.SLOW
    assert group.shunned(B) == ()


def test_one_member_cannot_get_another_shunned() -> None:
    group = Group()
    group.found(E, A, "link")
    group.found(E, A, "answers")
    for node in (B, C, D):
        health = group.at[node].health(A)
        assert (health.state, health.shunned) == (State.OK, False)
        assert {word.by for word in health.hearsay} == {E}
    assert group.at[A].health(A).state is State.OK
    assert group.shunned(E) == (A,), "who measured it itself may go around it"


def test_nobody_can_speak_for_another() -> None:
    group = Group()
    forged = Ailments(BOOT, 7, (Ailment(B, "cpu", failed=False, age_s=6, usual_us=1000, newest_us=9000),))
    group.feed(C, HealthReceived(E, encode_ailments(forged)))
    assert group.at[C].health(B).words == ()


def test_a_node_that_the_others_find_slow_takes_it_for_true_and_says_so() -> None:
    group = Group()
    group.found(B, A, "link")
    assert group.at[A].health(A).state is State.OK, "one is not enough"
    group.found(C, A, "link")
    (word,) = group.at[A].health(A).words
    assert word.what == "seen"
    group.pass_time(2 * GAP_NS)
    assert group.shunned(D) == (A,)
    group.found(C, A, "link", State.OK)
    group.pass_time(2 * GAP_NS)
    assert group.at[A].health(A).state is State.OK
    assert group.at[D].health(A).state is State.OK
    assert group.shunned(D) == (A,), "for a minute"
    group.pass_time(STAY_NS)
    assert group.shunned(D) == ()


@pytest.mark.parametrize("what", ["disk", "db:orders"])
def test_what_it_finds_of_itself_besides_hides_no_gray_failure(what: str) -> None:
    group = Group()
    group.found(A, b"", what)
    for node in (B, C, D):
        group.found(node, A, "link")
    group.pass_time(2 * GAP_NS)
    assert group.shunned(E) == (A,)


def test_what_it_finds_itself_needs_no_others() -> None:
    group = Group()
    for node in (B, C, D):
        group.found(node, A, "link")
    group.pass_time(2 * GAP_NS)
    group.found(A, b"", "cpu")
    assert [word.what for word in group.at[A].health(A).words] == ["cpu"]


def test_however_many_say_so_half_are_shunned_at_most() -> None:
    group = Group()
    for node in (A, B, C):
        group.found(node, b"", "cpu")
    assert len(group.shunned(D)) == 2


def test_one_that_makes_itself_look_worse_frees_nobody() -> None:
    group = Group()
    group.found(A, b"", "cpu")
    group.feed(E, Found(b"", "cpu", State.SLOW, group.now_ns, 1, 10**15))
    assert group.shunned(B) == (A, E)


def test_nobody_moves_the_others_routes_more_often_than_each_minute() -> None:
    group = Group()
    for node in (A, B):
        group.found(node, b"", "cpu")
    before = len(group.effects)
    for second in range(300):
        state = State.SLOW if second % 2 else State.OK
        group.feed(E, Found(b"", "cpu", state, group.now_ns, USUAL_NS, (3 + second % 7) * SLOW_NS))
        group.pass_time(SECOND_NS)
    changes = [effect for node, effect in group.effects[before:] if node == C and isinstance(effect, Shun)]
    assert len(changes) <= 2 * 300 * SECOND_NS // STAY_NS
    assert all(len(effect.nodes) <= 2 for effect in changes)


def test_what_was_measured_here_comes_before_what_others_say_of_themselves() -> None:
    group = Group()
    group.feed(A, Found(b"", "cpu", State.SLOW, group.now_ns, USUAL_NS, 1000 * USUAL_NS))
    group.found(B, b"", "cpu")
    group.found(D, C, "answers")
    group.pass_time(STAY_NS)
    assert C in group.shunned(D)


def test_recovery_is_told_at_once_and_a_lost_telling_ends_by_itself() -> None:
    group = Group()
    group.found(A, b"", "cpu")
    group.cut.add((A, C))
    group.pass_time(2 * SECOND_NS)
    group.found(A, b"", "cpu", State.OK)
    group.pass_time(GAP_NS)
    assert group.at[B].health(A).state is State.OK
    assert group.at[C].health(A).state is State.SLOW, "the telling was lost"
    group.pass_time(AGE_NS_MAX)
    assert group.at[C].health(A).state is State.OK
    notices = [effect.slow for node, effect in group.effects if node == C and isinstance(effect, HealthNotice)]
    assert notices == [True], "silence is no recovery"


def test_what_lasts_is_said_again_and_nothing_is_said_while_all_is_well() -> None:
    group = Group()
    assert not any(isinstance(effect, TellHealth) for _, effect in group.effects)
    group.found(A, b"", "cpu")
    before = len(group.effects)
    group.pass_time(2 * REPEAT_NS + SECOND_NS)
    told = [effect for node, effect in group.effects[before:] if node == A and isinstance(effect, TellHealth)]
    assert len(told) == 2 * 4
    assert decode_ailments(told[-1].payload).ailments[0].age_s == (6 * SECOND_NS + 2 * REPEAT_NS) // SECOND_NS


def test_tellings_are_a_second_apart() -> None:
    group = Group()
    group.found(A, b"", "cpu")
    group.found(A, b"", "disk")
    assert [word.what for word in group.at[B].health(A).words] == ["cpu"]
    group.pass_time(GAP_NS)
    assert {word.what for word in group.at[B].health(A).words} == {"cpu", "disk"}


def test_a_new_session_hears_at_once() -> None:
    group = Group()
    group.cut.add((A, B))
    group.found(A, b"", "cpu")
    group.cut.clear()
    group.feed(B, Unlinked(A))
    group.feed(A, Unlinked(B))
    group.feed(A, Linked(B))
    assert group.at[B].health(A).state is State.SLOW
    group.feed(B, Linked(A))


def test_another_life_begins_to_count_anew_and_a_late_packet_of_the_former_is_dropped() -> None:
    group = Group()
    for _ in range(50):
        group.found(A, b"", "cpu")
        group.pass_time(REPEAT_NS)
    former = next(effect for node, effect in reversed(group.effects) if isinstance(effect, TellHealth) and node == A)
    group.feed(B, HealthReceived(A, encode_ailments(Ailments(BOOT + 1, 1, ()))))
    assert group.at[B].health(A).state is State.OK
    group.feed(B, HealthReceived(A, former.payload))
    assert group.at[B].health(A).state is State.OK
    slow = Ailment(A, "cpu", failed=False, age_s=6, usual_us=1000, newest_us=9000)
    group.feed(B, HealthReceived(A, encode_ailments(Ailments(BOOT + 1, 2, (slow,)))))
    assert group.at[B].health(A).state is State.SLOW


def test_who_says_too_much_is_not_heard_and_people_are_not_flooded() -> None:
    group = Group()
    for number in range(1, 1001):
        what = tuple(
            Ailment(A, f"cpu{number % 2}{one}", failed=False, age_s=1, usual_us=1, newest_us=9)
            for one in range(AILMENTS_MAX)
        )
        group.feed(B, HealthReceived(A, encode_ailments(Ailments(BOOT, number, what))))
    assert group.at[B].dropped == 1000 - CREDIT_NS // GAP_NS
    notices = [effect for node, effect in group.effects if node == B and isinstance(effect, HealthNotice)]
    assert len(notices) == NOTICES_MAX


def test_what_keeps_it_from_relaying_is_told_before_what_its_programs_report() -> None:
    group = Group()
    for number in range(AILMENTS_MAX):
        group.found(A, b"", f"db:{number}")
    group.found(A, B, "link")
    group.found(A, b"", "program:80")
    group.found(A, b"", "disk")
    group.found(A, b"", "loop")
    group.pass_time(2 * GAP_NS)
    told = {word.what for word in group.at[C].health(A).words}
    assert {"loop", "disk", "program:80"} < told
    assert {word.what for word in group.at[C].health(B).hearsay} == {"link"}


def test_a_late_message_and_a_strangers_and_garbage_change_nothing() -> None:
    group = Group()
    group.found(A, b"", "cpu")
    group.feed(B, HealthReceived(A, encode_ailments(Ailments(BOOT, 0, ()))))
    group.feed(B, HealthReceived(bytes(10), encode_ailments(Ailments(BOOT, 9, ()))))
    group.feed(B, HealthReceived(A, b"\x93\x40\x00"))
    assert group.at[B].health(A).state is State.SLOW
    assert group.at[B].dropped == 3


def test_what_is_told_of_nobody_we_know_is_not_kept() -> None:
    group = Group()
    stranger = Ailment(bytes(10), "link", failed=False, age_s=1, usual_us=1, newest_us=9)
    group.feed(B, HealthReceived(A, encode_ailments(Ailments(BOOT, 1, (stranger,)))))
    assert group.at[B].health(bytes(10)).hearsay == ()


def test_a_former_member_is_forgotten() -> None:
    group = Group()
    group.found(A, b"", "cpu")
    group.found(B, A, "link")
    group.feed(B, Members((C, D, E)))
    assert group.at[B].health(A) == group.at[B].health(bytes(10))
    group.found(B, A, "link")
    assert group.at[B].health(A).words == ()


def test_what_it_finds_of_itself_fits_the_message_first() -> None:
    group = Group()
    for number in range(AILMENTS_MAX):
        group.found(B, A, f"link{number}")
    group.found(B, b"", "cpu")
    group.pass_time(GAP_NS)
    assert group.at[C].health(B).state is State.SLOW


def test_what_is_found_is_bounded() -> None:
    group = Group()
    for number in range(FOUND_MAX):
        group.found(B, A, f"link{number}")
    group.found(B, C, "link")
    assert group.at[B].health(C).words == ()
    assert group.at[B].dropped == 1


def test_the_longest_message_fits() -> None:
    longest = Ailment(A, "a" * 32, failed=True, age_s=0xFFFF_FFFF, usual_us=0xFFFF_FFFF, newest_us=0xFFFF_FFFF)
    assert len(encode_ailments(Ailments((1 << 63) - 1, 0xFFFF_FFFF, (longest,) * AILMENTS_MAX))) <= 1200


def test_time_does_not_go_back() -> None:
    group = Group()
    with pytest.raises(UsageError):
        group.at[A].handle(Tick(), group.now_ns - 1)


def test_a_snapshot_is_the_whole_state() -> None:
    group = Group()
    group.found(A, b"", "cpu")
    group.found(B, A, "link")
    snapshot = group.at[B].snapshot()
    again = Bulletin.restore(snapshot)
    assert again.snapshot() == snapshot
    assert again.health(A) == group.at[B].health(A)
    assert again.deadline_ns == group.at[B].deadline_ns
    with pytest.raises(CorruptError):
        Bulletin.restore(b"\xc1")
