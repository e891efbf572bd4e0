# SPDX-License-Identifier: Apache-2.0
"""The overlay machine and where members are: what others are told of those behind NATs, and moves of our own."""

import msgspec
import pytest

from atoll.base.ids import DIRECT
from atoll.base.units import SECOND_NS
from atoll.overlay.mesh import ASLEEP_NS, INTRODUCED_NS, MOVED_ASKS, PLACES_NS_MAX, PLACES_NS_MIN, PUNCHES
from atoll.overlay.messages import LinkState, Place, Probe, decode, encode
from atoll.overlay.orders import ProbeSize, SendControl, SetSize, SuggestEndpoint
from atoll.overlay.path import ASK
from atoll.overlay.reports import (
    ControlReceived,
    EndpointSeen,
    FlowSeen,
    MembersChanged,
    NetworkChanged,
    SessionUp,
    SizePassed,
)
from atoll.overlay.sizes import BASE_BYTES
from tests.unit.mesh_world import World, member, square


def world(count: int) -> World:
    return World(square(count, 1, 25, 60), 1)


def places(made: World, number: int) -> list[tuple[bytes, Place]]:
    """Return whom a node told where another one is."""
    sent = [one for _, by, one in made.trace or () if by == number and isinstance(one, SendControl)]
    return [(one.node, said) for one in sent if isinstance(said := decode(one.payload), Place)]


def test_who_sees_a_member_elsewhere_than_it_says_tells_the_others_and_says_it_again() -> None:
    made = world(4)
    made.run(4)
    made.trace = []
    made.feed(0, EndpointSeen(made.ids[1], "192.0.2.9", 4_242))
    place = Place(made.ids[1], "192.0.2.9", 4_242)
    assert sorted(places(made, 0)) == sorted((made.ids[other], place) for other in (2, 3))
    made.feed(0, EndpointSeen(made.ids[1], "192.0.2.9", 4_242))  # No news.
    assert len(places(made, 0)) == 2
    made.run(PLACES_NS_MIN / SECOND_NS)
    assert len(places(made, 0)) == 4
    made.run(2 * PLACES_NS_MIN / SECOND_NS)
    assert len(places(made, 0)) == 6
    made.run(4 * PLACES_NS_MAX // SECOND_NS)  # Then ever later, up to once in PLACES_NS_MAX.
    told = len(places(made, 0))
    assert told in {16, 18}
    made.run(PLACES_NS_MAX // SECOND_NS)
    assert len(places(made, 0)) == told + 2
    made.trace.clear()
    made.feed(0, SessionUp(made.ids[2], 9))
    assert places(made, 0) == [(made.ids[2], place)]
    made.run(PLACES_NS_MIN / SECOND_NS)
    assert len(places(made, 0)) == 3, "who has a session with us may have none with that member yet"


def test_a_new_member_is_told_soon_where_the_others_are() -> None:
    """It may know them before us, or after: who is told of a member that it does not know forgets it."""
    made = world(4)
    made.run(4)
    made.feed(0, EndpointSeen(made.ids[1], "192.0.2.9", 4_242))
    made.run(8 * PLACES_NS_MAX // SECOND_NS)
    made.trace = []
    made.feed(0, MembersChanged(tuple(member(number) for number in (1, 2))))
    made.feed(0, MembersChanged(tuple(sorted(map(member, (1, 2, 3)), key=lambda one: one.node))))
    made.run(PLACES_NS_MIN / SECOND_NS)
    assert made.ids[2] in [told for told, _ in places(made, 0)]


def test_of_a_member_that_is_where_it_says_nothing_is_told() -> None:
    made = world(3)
    made.run(4)
    made.trace = []
    there = msgspec.structs.replace(member(1), endpoints=(("192.0.2.9", 7_747),))
    made.feed(0, EndpointSeen(made.ids[1], "192.0.2.9", 4_242))
    made.feed(0, MembersChanged(tuple(sorted((there, member(2)), key=lambda one: one.node))))
    made.feed(0, EndpointSeen(made.ids[1], "192.0.2.9", 7_747))
    made.trace.clear()
    made.run(PLACES_NS_MAX // SECOND_NS + 5)
    assert places(made, 0) == []


def test_a_place_is_knocked_at_only_while_there_is_no_direct_way() -> None:
    made = world(3)
    made.run(4)
    told = ControlReceived(made.ids[2], DIRECT, encode(Place(made.ids[1], "192.0.2.9", 4_242)))
    made.trace = []
    made.feed(0, told)
    assert not [one for _, _, one in made.trace if isinstance(one, SuggestEndpoint)]
    made.change(0, 1, cut=True)
    made.run(8)
    made.trace.clear()
    made.feed(0, told)
    assert [one for _, _, one in made.trace if isinstance(one, SuggestEndpoint)] == [
        SuggestEndpoint(made.ids[1], "192.0.2.9", 4_242)
    ]
    made.run(4)
    asked = [
        said
        for _, by, one in made.trace
        if by == 0 and isinstance(one, SendControl) and (one.node, one.via) == (made.ids[1], DIRECT)
        if isinstance(said := decode(one.payload), Probe) and said.flags & ASK
    ]
    assert PUNCHES <= len(asked) <= PUNCHES + 4


def introductions(made: World, number: int) -> list[bytes]:
    """Return to whom a node told all its links."""
    sent = [one for _, by, one in made.trace or () if by == number and isinstance(one, SendControl)]
    return [one.node for one in sent if isinstance(said := decode(one.payload), LinkState) and said.full]


def test_a_member_that_began_anew_in_an_old_session_is_told_everything_again() -> None:
    """Else it would not know of any relay for half a minute."""
    made = world(4)
    made.run(4)
    made.feed(0, EndpointSeen(made.ids[1], "192.0.2.9", 4_242))
    for boot, told in ((1 << 40, 1), ((1 << 40) + 1, 0)):  # Claimed twice in a second: once is believed.
        anew = LinkState(boot, 1, full=True, part=0, parts=1, load=0, will=2, links=())
        made.trace = []
        made.feed(0, ControlReceived(made.ids[2], DIRECT, encode(anew)))
        assert introductions(made, 0) == [made.ids[2]] * told
        assert places(made, 0) == [(made.ids[2], Place(made.ids[1], "192.0.2.9", 4_242))] * told
    made.run(INTRODUCED_NS / SECOND_NS)
    anew = LinkState((1 << 40) + 2, 1, full=True, part=0, parts=1, load=0, will=2, links=())
    made.trace = []
    made.feed(0, ControlReceived(made.ids[2], DIRECT, encode(anew)))
    assert introductions(made, 0) == [made.ids[2]]


def asked(made: World, number: int) -> list[bytes]:
    """Return whom a node asked directly since the trace began."""
    return [
        one.node
        for _, by, one in made.trace or ()
        if by == number and isinstance(one, SendControl) and one.via == DIRECT
        if isinstance(said := decode(one.payload), Probe) and said.flags & ASK
    ]


def test_after_a_change_of_the_network_everybody_is_asked_at_once() -> None:
    made = world(4)
    made.run(10)
    made.trace = []
    made.feed(0, NetworkChanged())
    made.run(0.9)
    assert sorted(asked(made, 0)) == sorted(made.ids[1:] * MOVED_ASKS)


@pytest.mark.parametrize(("slept_ns", "asks"), [(ASLEEP_NS + 2 * SECOND_NS, MOVED_ASKS), (ASLEEP_NS // 2, 0)])
def test_after_a_sleep_everybody_is_asked_at_once(slept_ns: int, asks: int) -> None:
    made = world(4)
    made.run(10)
    made.pause(0, slept_ns)
    made.trace = []
    made.run(slept_ns / SECOND_NS + 0.9)
    assert min(asked(made, 0).count(node) for node in made.ids[1:]) >= asks
    assert asks or not asked(made, 0)


def test_a_connection_over_tcp_is_no_place_for_others() -> None:
    made = world(3)
    made.run(4)
    made.trace = []
    made.feed(0, EndpointSeen(made.ids[1], "tcp/192.0.2.9", 50_000))
    made.run(PLACES_NS_MAX // SECOND_NS + 5)
    assert places(made, 0) == []


def test_what_passed_over_tcp_is_found_again_when_datagrams_take_over() -> None:
    made = world(2)
    made.run(4)
    made.feed(0, EndpointSeen(made.ids[1], "tcp/192.0.2.9", 443))
    made.trace = []
    made.feed(0, FlowSeen(made.ids[1], 10, 10))
    made.run(1)
    probe = next(effect for _, _, effect in made.trace if isinstance(effect, ProbeSize))
    made.feed(0, SizePassed(made.ids[1], probe.token))
    made.trace.clear()
    made.feed(0, EndpointSeen(made.ids[1], "192.0.2.9", 7_747))
    said = [effect for _, _, effect in made.trace if isinstance(effect, SetSize)]
    assert said == [SetSize(made.ids[1], DIRECT, BASE_BYTES)]
