# SPDX-License-Identifier: Apache-2.0
"""Calls over TCP, and the way back to UDP, in the packet device: an endpoint over TCP is one like any other."""

import pytest

from atoll.base.ids import Endpoint
from atoll.base.units import SECOND_NS
from atoll.device.nic.endpoints import numeric_endpoint
from atoll.device.nic.limits import COUNTERS_NS
from atoll.device.nic.messages import AdmitPeer
from atoll.device.nic.plaintext import answer_to, place_probe, size_probe, token_of
from tests.unit.nic_world import World

OVER: Endpoint = ("tcp/10.0.0.2", 443)
CALLER: Endpoint = ("tcp/10.0.0.1", 50_000)
MESSAGE = b"\x90"


class Walled(World):
    """Two engines; a wall stops UDP between them, and a connection that 0 opens to 1 passes it."""

    def __init__(self) -> None:
        super().__init__(2)
        self.connections = {(0, OVER): (1, CALLER), (1, CALLER): (0, OVER)}
        self.lost = lambda _: True
        self.order(1, AdmitPeer(self.engines[0].public_key))
        self.order(0, AdmitPeer(self.engines[1].public_key, (self.at[1], OVER)))

    def mark(self) -> None:
        """Let each say something directly."""
        for number in (0, 1):
            self.say(number, 1 - number, MESSAGE)


def test_who_is_not_answered_calls_over_tcp_as_well() -> None:
    made = Walled()
    assert made.engines[0].places.endpoints() == {made.node(1): made.at[1]}
    made.run(6 * SECOND_NS)
    made.mark()
    assert made.engines[0].places.endpoints() == {made.node(1): OVER}
    assert made.engines[1].places.endpoints() == {made.node(0): CALLER}
    assert made.engines[0].places.uses(OVER)
    assert not made.engines[0].places.uses(CALLER)
    made.send(0, 1, b"x")
    assert made.packets(1) == [b"x"]


def test_udp_is_taken_again_when_it_passes_both_ways() -> None:
    made = Walled()
    made.run(6 * SECOND_NS)
    made.mark()
    made.run(3 * COUNTERS_NS)
    assert made.engines[0].places.endpoints() == {made.node(1): OVER}, "the wall stands"
    made.lost = lambda datagram: datagram[0] == made.at[1]
    made.run(3 * COUNTERS_NS)
    assert made.engines[0].places.endpoints() == {made.node(1): OVER}, "no answer comes back"
    made.lost = lambda _: False
    made.run(COUNTERS_NS)
    assert made.engines[0].places.endpoints() == {made.node(1): made.at[1]}
    for _ in range(3):
        made.mark()
    assert made.engines[1].places.endpoints() == {made.node(0): made.at[0]}


def test_when_the_connection_ends_udp_is_the_guess_again() -> None:
    made = Walled()
    made.run(6 * SECOND_NS)
    made.mark()
    for engine, endpoint in zip(made.engines, (OVER, CALLER), strict=True):
        engine.places.lost(endpoint)
        assert not engine.places.uses(endpoint)
    assert made.engines[0].places.endpoints() == {made.node(1): made.at[1]}
    assert made.engines[1].places.endpoints() == {}


def test_a_peer_that_lists_only_tcp_is_called_there_at_once() -> None:
    made = World(2)
    made.engines[0].order(AdmitPeer(made.engines[1].public_key, (OVER,)), made.now_ns, made.wall_ns)
    assert [to for to, _ in made.engines[0].outbox] == [OVER]


@pytest.mark.parametrize(
    ("claimed", "meant"),
    [
        (("tcp/::ffff:1.2.3.4", 443), ("tcp/1.2.3.4", 443)),
        (("tcp/2001:DB8:0::1", 443), ("tcp/2001:db8::1", 443)),
        (("tcp/224.0.0.1", 443), None),
        (("tcp/example.org", 443), None),
        (("tcp/tcp/1.2.3.4", 443), None),
        (("tcp/1.2.3.4", 0), None),
    ],
)
def test_what_is_claimed_over_tcp_is_checked_like_the_rest(claimed: Endpoint, meant: Endpoint | None) -> None:
    assert numeric_endpoint(claimed) == meant


def test_questions_and_answers_know_their_kind() -> None:
    for question, is_place in ((size_probe(1400, 7), False), (place_probe(7), True)):
        answer, of_place = answer_to(question)
        assert answer is not None
        assert (token_of(question), token_of(answer), of_place) == (7, 7, is_place)
        assert answer_to(answer) == (None, is_place)
    for nothing in (b"\x80\0", b"\x84\0\0", b"\x8f" * 9):
        assert token_of(nothing) is None
