# SPDX-License-Identifier: Apache-2.0
"""One peer's timers, keypairs and packets, between two nodes on a virtual clock."""

from itertools import pairwise
from random import Random

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.overlay.session import Data, Established, PrivateKey, Sessions
from atoll.overlay.session.events import Counters
from atoll.overlay.session.keypair import NEVER_NS
from atoll.overlay.session.limits import OUTBOX_MAX, PREVIOUS_MAX
from atoll.overlay.session.protocol import (
    INITIATION_BYTES,
    KEEPALIVE_TIMEOUT_NS,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME_NS,
    REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME_NS,
    REKEY_ATTEMPTS_MAX,
    REKEY_TIMEOUT_JITTER_NS,
    REKEY_TIMEOUT_NS,
)
from atoll.overlay.session.session import Local, Session
from atoll.overlay.session.timestamp import Timestamps
from tests.unit.session_world import LOW_ORDER, WALL_NS, Node, Pair

# Timers.


def test_an_unanswered_handshake_is_tried_for_90_s_and_then_given_up() -> None:
    pair = Pair()
    pair.connect(pair.a)
    (first,) = pair.a.take()
    sent = [(0, first), *pair.follow_deadlines(1000 * SECOND_NS, pair.a)]
    assert len(sent) == REKEY_ATTEMPTS_MAX == 18
    assert {len(datagram) for _, datagram in sent} == {INITIATION_BYTES}
    pauses = [later - earlier for (earlier, _), (later, _) in pairwise(sent)]
    assert all(REKEY_TIMEOUT_NS <= pause <= REKEY_TIMEOUT_NS + REKEY_TIMEOUT_JITTER_NS for pause in pauses)
    assert len({*pauses}) > 1
    assert pair.a.sessions.deadline_ns is None
    assert pair.a.sessions.expired == []
    assert pair.seal(pair.a) is None  # New traffic, a new series.
    assert len(pair.a.take()) == 1
    assert len(pair.follow_deadlines(2000 * SECOND_NS, pair.a)) == REKEY_ATTEMPTS_MAX - 1


def test_traffic_keeps_the_handshake_trying() -> None:
    pair = Pair()
    sent = 0
    for second in range(300):
        pair.tick(second * SECOND_NS)
        assert pair.seal(pair.a) is None
        sent += len(pair.a.take())
    assert 300 // 6 <= sent <= 300 // 5


def test_connect_does_nothing_while_a_handshake_runs_or_the_session_is_fresh() -> None:
    pair = Pair()
    pair.connect(pair.a)
    pair.connect(pair.a)
    assert len(pair.a.sessions.outbox) == 1
    pair.exchange()
    pair.tick(REKEY_AFTER_TIME_NS - 1)
    pair.exchange()
    pair.connect(pair.b)
    assert pair.b.take() == []
    pair.tick(REKEY_AFTER_TIME_NS)
    pair.connect(pair.b)
    assert len(pair.b.take()) == 1


def test_a_node_that_just_answered_waits_a_second_before_it_starts_itself() -> None:
    pair = Pair()
    pair.connect(pair.a)
    pair.give(pair.b, pair.a.take()[0])
    pair.b.take()  # The answer is lost.
    assert pair.seal(pair.b) is None
    assert pair.b.take() == []
    assert pair.b.sessions.deadline_ns == SECOND_NS
    pair.tick(SECOND_NS, pair.b)
    pair.exchange()
    assert pair.established() == (True, True)


def test_the_starter_renews_the_session_after_two_minutes_of_use() -> None:
    pair = Pair().connected()
    pair.now_ns = REKEY_AFTER_TIME_NS - 1
    pair.give(pair.a, pair.sealed(pair.b))
    pair.give(pair.b, pair.sealed(pair.a))
    assert pair.a.take() == pair.b.take() == []
    pair.now_ns = REKEY_AFTER_TIME_NS + REKEY_TIMEOUT_JITTER_NS
    pair.give(pair.a, pair.sealed(pair.b))
    pair.give(pair.b, pair.sealed(pair.a))
    assert pair.b.take() == []
    events = pair.exchange()
    assert [event for _, event in events] == [
        Established(pair.b.key, initiator=True),
        Established(pair.a.key, initiator=False),
    ]
    pair.tick(REJECT_AFTER_TIME_NS + REKEY_TIMEOUT_JITTER_NS)
    assert pair.established() == (True, True)
    assert pair.a.sessions.expired == pair.b.sessions.expired == []


def test_a_starter_that_only_receives_renews_15_s_before_the_end() -> None:
    pair = Pair().connected()
    for at_ns, starts in ((164 * SECOND_NS, False), (165 * SECOND_NS, True)):
        pair.now_ns = at_ns
        pair.give(pair.a, pair.sealed(pair.b))
        assert bool(pair.a.take()) == starts


def test_a_session_ends_after_three_minutes_and_says_so() -> None:
    pair = Pair().connected()
    late = pair.sealed(pair.b)
    pair.tick(REJECT_AFTER_TIME_NS - 1)
    assert pair.established() == (True, True)
    pair.exchange()
    pair.tick(2 * REJECT_AFTER_TIME_NS)
    assert pair.established() == (False, False)
    assert pair.a.sessions.expired == [pair.b.key]
    pair.tick(2 * REJECT_AFTER_TIME_NS + SECOND_NS)
    assert pair.a.sessions.expired == [pair.b.key]
    assert pair.give(pair.a, late) is None
    assert pair.a.dropped() == {"index-unknown": 1}


def test_an_expired_session_is_neither_used_nor_heard_even_when_the_tick_is_late() -> None:
    pair = Pair().connected()
    late = pair.sealed(pair.b)
    pair.now_ns = REJECT_AFTER_TIME_NS
    assert pair.give(pair.a, late) is None
    assert pair.a.dropped() == {"expired": 1}
    assert pair.seal(pair.a) is None
    assert [len(datagram) for datagram in pair.a.take()] == [INITIATION_BYTES]


def test_an_unconfirmed_answer_is_forgotten_after_three_minutes() -> None:
    pair = Pair()
    pair.connect(pair.a)
    pair.give(pair.b, pair.a.take()[0])
    pair.tick(REJECT_AFTER_TIME_NS, pair.b)
    assert pair.b.sessions.expired == []
    assert pair.b.sessions.deadline_ns is None


def test_who_hears_data_and_has_nothing_to_say_sends_a_keepalive_after_10_s() -> None:
    pair = Pair().connected()
    pair.give(pair.b, pair.sealed(pair.a))
    sent = pair.follow_deadlines(100 * SECOND_NS, pair.b)
    assert [(at_ns, len(datagram)) for at_ns, datagram in sent] == [(KEEPALIVE_TIMEOUT_NS, 32)]
    assert pair.give(pair.a, sent[0][1]) == Data(pair.b.key, b"", 0, 0)
    assert pair.follow_deadlines(100 * SECOND_NS, pair.a) == []  # A keepalive asks for none in return.


def test_who_answers_needs_no_keepalive() -> None:
    pair = Pair().connected()
    pair.give(pair.b, pair.sealed(pair.a))
    pair.give(pair.a, pair.sealed(pair.b))
    assert pair.follow_deadlines(14 * SECOND_NS, pair.b) == []


def test_who_speaks_and_hears_nothing_shakes_hands_after_15_s() -> None:
    pair = Pair().connected()
    pair.sealed(pair.a)
    ((at_ns, datagram), *_) = pair.follow_deadlines(16 * SECOND_NS, pair.a)
    assert 15 * SECOND_NS <= at_ns <= 15 * SECOND_NS + REKEY_TIMEOUT_JITTER_NS
    assert len(datagram) == INITIATION_BYTES


def test_a_peer_with_a_keepalive_is_connected_to_and_kept_warm() -> None:
    pair = Pair()
    pair.a.sessions.add_peer(pair.b.key, keepalive_s=25)
    assert pair.a.sessions.deadline_ns == 0
    pair.tick(0, pair.a)
    pair.exchange()
    assert pair.established() == (True, True)
    sent = pair.follow_deadlines(90 * SECOND_NS, pair.a)
    assert [at_ns // SECOND_NS for at_ns, _ in sent] == [25, 50, 75]
    pair.sealed(pair.a)
    pair.a.sessions.add_peer(pair.b.key, keepalive_s=25)  # No change: the timer goes on.
    assert [at_ns // SECOND_NS for at_ns, _ in pair.follow_deadlines(104 * SECOND_NS, pair.a)] == []
    pair.a.sessions.add_peer(pair.b.key)
    pair.follow_deadlines(106 * SECOND_NS, pair.a)
    assert all(len(datagram) != 32 for _, datagram in pair.follow_deadlines(1000 * SECOND_NS, pair.a))


def test_a_tick_before_the_deadline_does_nothing() -> None:
    pair = Pair()
    pair.connect(pair.a)
    pair.a.take()
    deadline_ns = pair.a.sessions.deadline_ns
    assert deadline_ns is not None
    pair.tick(deadline_ns - 1)
    assert (pair.a.take(), pair.a.sessions.deadline_ns) == ([], deadline_ns)


# Keypairs.


def session_of(node: Node, pair: Pair) -> Session:
    """Look inside: the far ends of counters cannot be reached from outside."""
    return node.sessions._peers[pair.other(node).key]  # pyright: ignore[reportPrivateUsage] - the only way in.


def indices_of(node: Node) -> int:
    """Return how many keypairs the node's table holds."""
    return len(node.sessions._local.table.keypairs)  # pyright: ignore[reportPrivateUsage] - the only way in.


def test_after_2_to_the_60_packets_either_end_renews() -> None:
    for name in ("a", "b"):
        pair = Pair().connected()
        node: Node = getattr(pair, name)
        pair.now_ns = 6 * SECOND_NS
        current = session_of(node, pair).current
        assert current is not None
        current.sent = REKEY_AFTER_MESSAGES - 1
        pair.sealed(node)
        assert node.take() == []
        pair.sealed(node)
        assert [len(datagram) for datagram in node.take()] == [INITIATION_BYTES]


def test_the_last_counters_are_never_used() -> None:
    pair = Pair().connected()
    pair.now_ns = 6 * SECOND_NS
    current = session_of(pair.a, pair).current
    assert current is not None
    current.sent = REJECT_AFTER_MESSAGES - 1
    assert isinstance(pair.give(pair.b, pair.sealed(pair.a)), Data)
    assert pair.seal(pair.a) is None
    pair.exchange()
    assert isinstance(pair.give(pair.b, pair.sealed(pair.a)), Data)


def test_superseded_keypairs_are_bounded_and_end_with_the_reject_time() -> None:
    pair = Pair().connected()
    datagrams = [pair.sealed(pair.b)]
    for round_number in range(1, 5):
        pair.tick(round_number * 6 * SECOND_NS)
        session_of(pair.a, pair).demand(pair.now_ns, WALL_NS + pair.now_ns)
        pair.exchange()
        datagrams.append(pair.sealed(pair.b))
    held = 1 + PREVIOUS_MAX
    assert len(session_of(pair.a, pair).previous) == PREVIOUS_MAX
    opened = [pair.give(pair.a, datagram) is not None for datagram in datagrams]
    assert opened == [False] * (len(datagrams) - held) + [True] * held
    for age_rounds in range(held):
        assert indices_of(pair.a) == held - age_rounds
        pair.tick((2 + age_rounds) * 6 * SECOND_NS + REJECT_AFTER_TIME_NS, pair.a)  # They began at 12, 18 and 24 s.
        pair.a.take()
    assert indices_of(pair.a) == 0
    assert pair.a.sessions.expired == [pair.b.key]


def test_an_answer_replaces_the_unconfirmed_one_before_it() -> None:
    pair = Pair()
    for round_number in range(3):
        pair.tick(round_number * 6 * SECOND_NS)
        pair.connect(pair.a)
        for datagram in pair.a.take():
            pair.give(pair.b, datagram)
        pair.b.take()
    assert indices_of(pair.b) == 1


def test_a_peer_that_expires_twice_unread_is_listed_once() -> None:
    pair = Pair().connected()
    pair.tick(REJECT_AFTER_TIME_NS, pair.a)
    pair.a.take()
    pair.now_ns += 10 * SECOND_NS
    pair.connect(pair.a)
    pair.exchange()
    assert pair.a.sessions.established(pair.b.key)
    pair.tick(10 * REJECT_AFTER_TIME_NS, pair.a)
    assert pair.a.sessions.expired == [pair.b.key]


def test_local_bounds_its_outbox_and_its_jitter() -> None:
    local = Local(
        static=PrivateKey(bytes([1] * 32)),
        rng=Random(1),
        timestamps=Timestamps(0),
        counters=Counters(),
        prefers_aes=False,
        calls=True,
        compiled=False,
    )
    for _ in range(OUTBOX_MAX + 1):
        local.send(None, b"")
    assert len(local.outbox) == OUTBOX_MAX
    assert local.counters.dropped["outbox-full"] == 1
    assert all(0 <= local.jitter_ns() <= REKEY_TIMEOUT_JITTER_NS for _ in range(100))
    assert (local.wake_by(NEVER_NS), local.wake_ns) == (NEVER_NS, NEVER_NS)
    assert (local.wake_by(5), local.wake_by(7), local.wake_ns) == (5, 7, 5)


# Handshakes.


def test_different_psks_never_meet() -> None:
    pair = Pair(psk=bytes(range(32)))
    pair.b.sessions.add_peer(pair.a.key, psk=bytes(32))
    pair.connect(pair.a)
    assert pair.exchange() == []
    assert pair.a.dropped() == {"response-wrong": 1}
    pair.b.sessions.add_peer(pair.a.key, psk=bytes(range(32)))  # Told again, with the right one.
    pair.follow_deadlines(6 * SECOND_NS, pair.b)
    pair.tick(6 * SECOND_NS)
    pair.exchange()
    assert pair.established() == (True, True)


def test_an_initiation_is_answered_once_and_only_the_newest_counts() -> None:
    pair = Pair()
    pair.connect(pair.a)
    (old,) = pair.a.take()
    pair.tick(6 * SECOND_NS)
    (new,) = pair.a.take()
    pair.give(pair.b, new)
    pair.now_ns += SECOND_NS
    pair.give(pair.b, new)
    assert len(pair.b.take()) == 1
    pair.give(pair.b, old)  # The next test has what becomes of it.
    assert pair.b.dropped() == {"initiation-replayed": 2}


def test_who_calls_with_an_old_timestamp_is_called_back() -> None:
    """A clock that was set back, or a second process with the peer's key that used a later timestamp."""
    pair = Pair().connected()
    pair.now_ns += 10 * SECOND_NS
    behind = Sessions(private_key=bytes([1] * 32), rng=Random(9), now_ns=pair.now_ns)
    behind.add_peer(pair.b.key)
    behind.connect(pair.b.key, pair.now_ns, WALL_NS // 2)
    (call,) = behind.outbox
    for _ in range(3):  # However often it is replayed, one handshake in the usual time.
        pair.give(pair.b, call.datagram)
    (initiation,) = pair.b.take()
    assert initiation[0] == 1
    behind.outbox.clear()
    under_load = False
    assert behind.receive(initiation, b"", pair.now_ns, WALL_NS // 2, under_load) is None
    pair.give(pair.b, behind.outbox[0].datagram)
    (confirming,) = pair.b.take()
    got = behind.receive(confirming, b"", pair.now_ns, WALL_NS // 2, under_load)
    assert got == Established(pair.b.key, initiator=False)


def test_who_stays_with_keys_of_an_earlier_handshake_is_called_and_proves_no_place() -> None:
    pair = Pair().connected()
    pair.now_ns += 10 * SECOND_NS
    second = Sessions(private_key=bytes([1] * 32), rng=Random(9), now_ns=pair.now_ns)  # It has the key of a, too.
    second.add_peer(pair.b.key)
    second.connect(pair.b.key, pair.now_ns, WALL_NS + pair.now_ns)
    pair.give(pair.b, second.outbox[0].datagram)
    second.outbox.clear()
    under_load = False
    second.receive(pair.b.take()[0], b"", pair.now_ns, WALL_NS + pair.now_ns, under_load)
    assert pair.give(pair.b, second.outbox[0].datagram) == Established(pair.a.key, initiator=False)
    got = pair.give(pair.b, pair.sealed(pair.a))
    assert isinstance(got, Data)
    assert got.gap_delta == -1
    assert pair.b.take() == [], "it may have been on its way"
    pair.now_ns += 5 * SECOND_NS
    assert pair.give(pair.b, pair.sealed(pair.a)) is not None
    (initiation,) = pair.b.take()
    assert initiation[0] == 1
    pair.give(pair.a, initiation)
    pair.exchange()
    got = pair.give(pair.b, pair.sealed(pair.a))
    assert isinstance(got, Data)
    assert got.gap_delta == 0


def test_initiations_of_one_peer_are_answered_at_most_50_times_a_second() -> None:
    pair = Pair()
    initiations: list[bytes] = []
    for _ in range(3):
        pair.connect(pair.a)
        initiations += pair.a.take()
        pair.now_ns += 6 * SECOND_NS
        pair.tick(pair.now_ns)
    first, second, *_ = initiations
    pair.give(pair.b, first)
    pair.now_ns += 19 * MILLISECOND_NS
    pair.give(pair.b, second)
    assert pair.b.dropped() == {"initiation-rate": 1}
    pair.now_ns += 1 * MILLISECOND_NS
    pair.give(pair.b, second)
    assert len(pair.b.take()) == 2


def test_an_answer_can_meet_load_too() -> None:
    pair = Pair()
    pair.connect(pair.a)
    pair.give(pair.b, pair.a.take()[0])
    pair.give(pair.a, pair.b.take()[0], under_load=True)
    (cookie,) = pair.a.take()
    pair.give(pair.b, cookie)
    assert pair.b.dropped() == {}
    pair.tick(6 * SECOND_NS)
    pair.give(pair.b, pair.a.take()[0])
    assert pair.give(pair.a, pair.b.take()[0], under_load=True) == Established(pair.b.key, initiator=True)


def test_a_peer_removed_during_its_handshake_leaves_nothing_behind() -> None:
    pair = Pair()
    pair.connect(pair.a)
    (initiation,) = pair.a.take()
    pair.give(pair.b, initiation)
    pair.a.sessions.remove_peer(pair.b.key)
    assert pair.give(pair.a, pair.b.take()[0]) is None
    assert pair.a.dropped() == {"index-unknown": 1}


def test_a_removed_peer_is_a_stranger() -> None:
    pair = Pair().connected()
    datagram = pair.sealed(pair.b)
    pair.connect(pair.b)
    pair.a.sessions.remove_peer(pair.b.key)
    pair.a.sessions.remove_peer(pair.b.key)
    assert pair.give(pair.a, datagram) is None
    assert pair.a.dropped() == {"index-unknown": 1}
    assert pair.seal(pair.a) is None
    pair.connect(pair.a)
    assert pair.a.take() == []
    assert pair.established() == (False, True)
    pair.tick(10_000 * SECOND_NS, pair.a)
    assert pair.a.sessions.expired == []
    assert pair.a.sessions.deadline_ns is None


def test_a_peer_whose_key_is_a_low_order_point_gets_no_session() -> None:
    pair = Pair()
    pair.a.sessions.add_peer(LOW_ORDER)
    pair.a.sessions.connect(LOW_ORDER, 0, WALL_NS)
    assert pair.a.sessions.seal(LOW_ORDER, b"", 0, WALL_NS) is None
    assert pair.a.take() == []
    assert pair.a.sessions.deadline_ns is None
    assert pair.a.dropped() == {"peer-weak": 2}


def test_loss_counts_go_on_over_sessions() -> None:
    pair = Pair().connected()
    counts = [(0, 0)]
    for round_number in range(1, 6):
        pair.give(pair.b, pair.sealed(pair.a))
        pair.sealed(pair.a)  # Lost, and known to be lost when the next one comes.
        pair.give(pair.b, pair.sealed(pair.a))
        counts.append(pair.b.sessions.loss_counts(pair.a.key))
        pair.tick(round_number * 121 * SECOND_NS)
        pair.connect(pair.a)
        pair.exchange()
    pair.tick(10_000 * SECOND_NS)
    counts.append(pair.b.sessions.loss_counts(pair.a.key))
    assert counts == sorted(counts)
    highest, received = counts[-1]
    assert highest - received == 5
