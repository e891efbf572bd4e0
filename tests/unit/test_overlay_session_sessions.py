# SPDX-License-Identifier: Apache-2.0
"""A node's sessions from outside: handshakes, timers, drops and limits, between two nodes on a virtual clock."""

from random import Random

import pytest

from atoll.base.errors import LimitError, UsageError
from atoll.base.units import SECOND_NS
from atoll.overlay.session import (
    DROP_REASONS,
    KEEPALIVE_S_MAX,
    PEERS_MAX,
    PLAINTEXT_BYTES_MAX,
    Data,
    Established,
    PrivateKey,
    Sessions,
)
from atoll.overlay.session.limits import (
    COOKIE_REPLY_BURST,
    HANDSHAKES_PER_S_MAX,
    HANDSHAKES_PER_SOURCE_BURST,
    OUTBOX_MAX,
)
from atoll.overlay.session.protocol import (
    DATA_HEADER,
    INITIATION,
    INITIATION_BYTES,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME_NS,
    REKEY_AFTER_TIME_NS,
    RESPONSE,
    RESPONSE_BYTES,
)
from tests.unit.session_world import LOW_ORDER, SOURCE, STRANGER, WALL_NS, Pair

# The handshake.


def test_one_round_trip_and_a_keepalive_make_a_session_at_both_ends() -> None:
    pair = Pair(psk=bytes(range(32)))
    pair.connect(pair.a)
    (initiation,) = pair.a.take()
    assert (initiation[:4], len(initiation)) == (b"\1\0\0\0", INITIATION_BYTES)
    assert pair.give(pair.b, initiation) is None
    assert pair.established() == (False, False)
    (response,) = pair.b.take()
    assert (response[:4], len(response)) == (b"\2\0\0\0", RESPONSE_BYTES)
    assert pair.give(pair.a, response) == Established(pair.b.key, initiator=True)
    assert pair.established() == (True, False)
    (keepalive,) = pair.a.take()
    assert (keepalive[:4], len(keepalive)) == (b"\4\0\0\0", 32)
    assert pair.give(pair.b, keepalive) == Established(pair.a.key, initiator=False)
    assert pair.established() == (True, True)
    assert (pair.a.dropped(), pair.b.dropped()) == ({}, {})


def test_data_goes_both_ways_padded() -> None:
    pair = Pair().connected()
    for size in (1, 15, 16, 17, 1400, PLAINTEXT_BYTES_MAX):
        for node in (pair.a, pair.b):
            event = pair.give(pair.other(node), pair.sealed(node, b"x" * size))
            assert isinstance(event, Data)
            assert event.public_key == node.key
            assert event.plaintext == b"x" * size + bytes(-size % 16)
    with pytest.raises(UsageError):
        pair.seal(pair.a, bytes(PLAINTEXT_BYTES_MAX + 1))


def test_the_first_data_packet_confirms_a_session_when_the_keepalive_is_lost() -> None:
    pair = Pair()
    pair.connect(pair.a)
    pair.give(pair.b, pair.a.take()[0])
    pair.give(pair.a, pair.b.take()[0])
    pair.a.take()
    assert pair.give(pair.b, pair.sealed(pair.a)) == Data(pair.a.key, b"hello" + bytes(11), 1, 1, confirms=True)
    assert pair.established() == (True, True)


def test_both_start_at_once_and_both_have_a_session_after_one_round_trip() -> None:
    pair = Pair()
    pair.connect(pair.a)
    pair.connect(pair.b)
    events = pair.exchange()
    assert pair.established() == (True, True)
    assert (pair.a, Established(pair.b.key, initiator=True)) in events
    for node in (pair.a, pair.b):
        assert isinstance(pair.give(pair.other(node), pair.sealed(node)), Data)


def test_crossing_handshakes_lose_nothing_that_is_under_way() -> None:
    pair = Pair().connected()
    pair.tick(REKEY_AFTER_TIME_NS)
    under_way = pair.sealed(pair.b), pair.sealed(pair.a)
    pair.connect(pair.a)
    pair.connect(pair.b)
    pair.exchange()
    assert isinstance(pair.give(pair.a, under_way[0]), Data)
    assert isinstance(pair.give(pair.b, under_way[1]), Data)


def test_a_lost_answer_is_made_good_by_the_next_try() -> None:
    pair = Pair()
    pair.connect(pair.a)
    pair.give(pair.b, pair.a.take()[0])
    (late,) = pair.b.take()
    pair.tick(6 * SECOND_NS)
    pair.exchange()
    assert pair.established() == (True, True)
    assert pair.give(pair.a, late) is None
    assert pair.a.dropped() == {"index-unknown": 1}


def test_a_restart_with_the_clock_set_back_needs_the_floor() -> None:
    pair = Pair().connected()
    floor_ns = pair.a.sessions.timestamp_ns
    assert floor_ns > WALL_NS - SECOND_NS
    for wall_floor_ns, works in ((0, False), (floor_ns, True)):
        again = Sessions(private_key=bytes([1] * 32), rng=Random(9), now_ns=0, wall_floor_ns=wall_floor_ns)
        again.add_peer(pair.b.key)
        again.connect(pair.b.key, 0, WALL_NS // 2)
        pair.now_ns += SECOND_NS
        pair.give(pair.b, again.outbox[0].datagram)
        assert pair.b.take()[0][0] == (RESPONSE if works else INITIATION), "refused, it is called back"
    assert pair.b.dropped() == {"initiation-replayed": 1}


# Data.


def test_a_copy_is_dropped_and_gaps_are_counted() -> None:
    pair = Pair().connected()
    datagrams = [pair.sealed(pair.a) for _ in range(5)]
    events = [pair.give(pair.b, datagrams[place]) for place in (0, 0, 3, 1, 1, 4)]
    deltas = [event.gap_delta for event in events if isinstance(event, Data)]
    assert deltas == [0, 2, -1, 0]
    assert pair.b.dropped() == {"replayed": 2}
    assert pair.b.sessions.loss_counts(pair.a.key) == (6, 5)  # With the keepalive of the handshake; one is missing.


@pytest.mark.parametrize("place", [4, 8, 15, 16, 31, 32, -1])
def test_a_forged_packet_changes_nothing(place: int) -> None:
    pair = Pair().connected()
    datagram = bytearray(pair.sealed(pair.a))
    datagram[place] ^= 0x40
    before = pair.b.sessions.loss_counts(pair.a.key)
    assert pair.give(pair.b, bytes(datagram)) is None
    assert sum(pair.b.dropped().values()) == 1
    assert pair.b.sessions.loss_counts(pair.a.key) == before
    assert pair.b.sessions.deadline_ns == REJECT_AFTER_TIME_NS


def test_a_counter_beyond_the_limit_is_refused_unopened() -> None:
    pair = Pair().connected()
    datagram = pair.sealed(pair.a)
    _, index, _ = DATA_HEADER.unpack_from(datagram)
    pair.give(pair.b, DATA_HEADER.pack(4, index, REJECT_AFTER_MESSAGES) + datagram[16:])
    assert pair.b.dropped() == {"expired": 1}


# Strangers.


def test_malformed_datagrams_are_counted() -> None:
    pair = Pair()
    for datagram in (b"", bytes(31), bytes(32), b"\5" + bytes(200), b"\1\0\0\1" + bytes(144), b"\1\0\0\0" + bytes(145)):
        assert pair.give(pair.b, datagram) is None
    assert pair.b.dropped() == {"malformed": 6}


def test_a_stranger_gets_no_answer() -> None:
    pair = Pair()
    stranger = Sessions(private_key=bytes([77] * 32), rng=Random(3), now_ns=0)
    stranger.add_peer(pair.b.key)
    stranger.add_peer(STRANGER[:-1] + b"\0")
    stranger.connect(pair.b.key, 0, WALL_NS)
    stranger.connect(STRANGER[:-1] + b"\0", 0, WALL_NS)
    for outgoing in stranger.outbox:
        pair.give(pair.b, outgoing.datagram)
    assert pair.b.dropped() == {"peer-unknown": 1, "mac1-wrong": 1}
    assert pair.b.sessions.outbox == []


def resigned(pair: Pair, datagram: bytes) -> bytes:
    """Put the right ``mac1`` for b on a changed handshake message: anybody who knows b's public key can."""
    from atoll.overlay.session.cookie import CookieJar  # noqa: PLC0415 - only this attacker needs it.

    return CookieJar(pair.b.key).finish(datagram[:-32], 0)


def test_wrong_handshakes_with_a_right_mac1_are_dropped() -> None:
    pair = Pair()
    pair.connect(pair.a)
    (initiation,) = pair.a.take()
    assert resigned(pair, initiation) == initiation
    for place in (8, 40, 88, 100):
        changed = bytearray(initiation)
        changed[place] ^= 1
        pair.give(pair.b, resigned(pair, bytes(changed)))
    pair.give(pair.b, resigned(pair, initiation[:8] + LOW_ORDER + initiation[40:]))
    assert pair.b.dropped() == {"initiation-wrong": 5}
    pair.connect(pair.b)
    (theirs,) = pair.b.take()
    index = theirs[4:8]
    pair.give(pair.b, resigned(pair, b"\2\0\0\0" + bytes(4) + index + bytes(80)))
    pair.give(pair.b, resigned(pair, b"\2\0\0\0" + bytes(4) + index + b"\x09" * 80))
    pair.give(pair.b, resigned(pair, b"\2\0\0\0" + bytes(88)))
    assert pair.b.dropped() == {"initiation-wrong": 5, "response-wrong": 2, "index-unknown": 1}
    assert pair.b.sessions.outbox == []
    pair.give(pair.a, theirs)
    pair.exchange()
    assert pair.established() == (True, True)  # None of it hurt the handshake under way.


def test_an_initiation_in_the_name_of_a_low_order_peer_is_dropped() -> None:
    pair = Pair()
    pair.b.sessions.add_peer(LOW_ORDER)
    from atoll.overlay.session.noise import SymmetricState  # noqa: PLC0415 - only this attacker needs it.
    from atoll.overlay.session.protocol import CONSTRUCTION, IDENTIFIER  # noqa: PLC0415

    state, ephemeral = SymmetricState(CONSTRUCTION), PrivateKey(bytes([5] * 32))
    for known in (IDENTIFIER, pair.b.key, ephemeral.public):
        state.mix_hash(known)
    state.mix_key(ephemeral.public)
    secret = ephemeral.agree(pair.b.key)
    assert secret is not None
    state.mix_key(secret)
    message = ephemeral.public + state.seal(LOW_ORDER)
    state.mix_key(bytes(32))  # What anybody can compute for that key.
    message += state.seal(b"\xff" * 12)
    pair.give(pair.b, resigned(pair, b"\1\0\0\0\1\2\3\4" + message + bytes(32)))
    assert pair.b.dropped() == {"peer-weak": 1}


# Load.


def test_under_load_a_handshake_needs_a_cookie_and_gets_through_with_it() -> None:
    pair = Pair()
    pair.connect(pair.a)
    pair.give(pair.b, pair.a.take()[0], under_load=True)
    (outgoing,) = pair.b.sessions.outbox
    assert outgoing.public_key is None
    (reply,) = pair.b.take()
    assert pair.give(pair.a, reply) is None
    assert pair.a.take() == []  # Not at once.
    pair.tick(6 * SECOND_NS)
    (retry,) = pair.a.take()
    pair.give(pair.b, retry, under_load=True, source=SOURCE[:-1] + b"\0")  # From elsewhere the cookie is worth nothing.
    assert pair.b.dropped() == {"cookie-owed": 2}
    pair.b.take()
    pair.give(pair.b, retry, under_load=True)
    (response,) = pair.b.take()
    assert len(response) == RESPONSE_BYTES
    assert pair.give(pair.a, response) is not None
    assert pair.a.dropped() == {}


def test_only_who_knows_our_key_can_put_us_under_load() -> None:
    pair = Pair()
    pair.connect(pair.a)
    (initiation,) = pair.a.take()
    noise = initiation[:-32] + bytes(32)
    for _ in range(2 * HANDSHAKES_PER_S_MAX):
        pair.give(pair.b, noise)
    pair.give(pair.b, initiation)
    assert pair.b.dropped() == {"mac1-wrong": 2 * HANDSHAKES_PER_S_MAX}
    assert len(pair.b.take()[0]) == RESPONSE_BYTES
    for _ in range(HANDSHAKES_PER_S_MAX):
        pair.give(pair.b, initiation)
    assert pair.b.dropped()["cookie-owed"] == 1


def test_cookies_that_nobody_asked_for_are_dropped() -> None:
    pair = Pair()
    pair.connect(pair.a)
    (initiation,) = pair.a.take()
    pair.give(pair.a, b"\3\0\0\0" + initiation[4:8] + bytes(56))
    pair.give(pair.a, b"\3\0\0\0" + bytes(60))
    assert pair.a.dropped() == {"cookie-wrong": 1, "index-unknown": 1}


def test_under_load_cookie_replies_and_sources_are_rated() -> None:
    pair = Pair()
    pair.connect(pair.a)
    (initiation,) = pair.a.take()
    for _ in range(COOKIE_REPLY_BURST + 5):
        pair.give(pair.b, initiation, under_load=True)
    replies = pair.b.take()
    assert len(replies) == COOKIE_REPLY_BURST
    assert pair.b.dropped() == {"cookie-owed": COOKIE_REPLY_BURST, "cookie-rate": 5}
    pair.give(pair.a, replies[0])
    pair.tick(6 * SECOND_NS)
    (retry,) = pair.a.take()
    for _ in range(HANDSHAKES_PER_SOURCE_BURST + 5):
        pair.give(pair.b, retry, under_load=True)
    assert pair.b.dropped()["source-rate"] == 5


# Peers and limits.


def test_peers_are_bounded_and_adding_one_twice_changes_nothing() -> None:
    sessions = Sessions(private_key=bytes([1] * 32), rng=Random(1), now_ns=0)
    keys = [number.to_bytes(32, "big") for number in range(2, PEERS_MAX + 2)]
    for key in keys * 2:
        sessions.add_peer(key)
    with pytest.raises(LimitError):
        sessions.add_peer(bytes([9] * 32))
    sessions.remove_peer(keys[0])
    sessions.add_peer(bytes([9] * 32))


def test_a_wrong_peer_is_the_callers_bug() -> None:
    sessions = Pair().a.sessions
    with pytest.raises(UsageError):
        sessions.add_peer(bytes(31))
    with pytest.raises(UsageError):
        sessions.add_peer(bytes(32), psk=b"")
    with pytest.raises(UsageError):
        sessions.add_peer(sessions.public_key)
    for keepalive_s in (-1, KEEPALIVE_S_MAX + 1):
        with pytest.raises(UsageError):
            sessions.add_peer(bytes(32), keepalive_s=keepalive_s)


def test_an_outbox_that_nobody_drains_is_bounded() -> None:
    pair = Pair()
    for step in range(OUTBOX_MAX + 10):
        pair.tick(step * 6 * SECOND_NS, pair.a)
        pair.seal(pair.a)
    assert len(pair.a.sessions.outbox) == OUTBOX_MAX
    assert pair.a.dropped()["outbox-full"] >= 9


def test_counters_have_fixed_keys() -> None:
    pair = Pair()
    assert tuple(pair.a.sessions.counters.dropped) == DROP_REASONS
    with pytest.raises(KeyError):
        pair.a.sessions.counters.drop("something else")


def test_the_same_seed_gives_the_same_bytes() -> None:
    def trace() -> list[bytes]:
        pair, seen = Pair(), list[bytes]()
        pair.connect(pair.a)
        for _ in range(3):
            for node in (pair.a, pair.b):
                for datagram in node.take():
                    seen.append(datagram)
                    pair.give(pair.other(node), datagram)
        return seen

    assert trace() == trace()


def test_an_unknown_peer_counts_as_one_without_a_session() -> None:
    pair = Pair()
    sessions = pair.a.sessions
    sessions.remove_peer(STRANGER)
    sessions.connect(STRANGER, 0, WALL_NS)
    assert sessions.seal(STRANGER, b"", 0, WALL_NS) is None
    assert not sessions.established(STRANGER)
    assert sessions.loss_counts(STRANGER) == (0, 0)
    assert pair.a.take() == []


def test_a_starter_that_only_receives_renews_before_the_end() -> None:
    pair = Pair().connected()
    pair.now_ns = 165 * SECOND_NS
    pair.give(pair.a, pair.sealed(pair.b))
    assert [len(datagram) for datagram in pair.a.take()] == [INITIATION_BYTES]
