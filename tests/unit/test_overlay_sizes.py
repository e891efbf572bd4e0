# SPDX-License-Identifier: Apache-2.0
"""How large packets may be on a way: found, kept, given up when it narrows, raised when it widens."""

import pytest

from atoll.base.ids import DIRECT
from atoll.base.units import SECOND_NS
from atoll.overlay.orders import ProbeSize, SetSize
from atoll.overlay.sizes import (
    BASE_BYTES,
    CONFIRM_NS,
    LARGEST_BYTES,
    NEVER_NS,
    RAISE_NS,
    SIZES,
    TRIES,
    TRY_NS,
    WAYS_MAX,
    Sizes,
    SizesEffect,
)

NODE, RELAY = b"n" * 10, b"r" * 10


class Link:
    """One way that carries so much; each probe that fits is answered at once, but for those that are lost."""

    def __init__(self, width: int) -> None:
        self.sizes, self.width, self.now_ns, self.set, self.sent = Sizes(), width, 0, list[int](), list[int]()
        self.lost = 0
        self.sizes.use(NODE, (DIRECT,), 0)

    def perform(self, effects: list[SizesEffect]) -> None:
        for effect in effects:
            match effect:
                case SetSize(_, _, size):
                    self.set.append(size)
                case ProbeSize(node, _, size, token):
                    self.sent.append(size)
                    if self.lost:
                        self.lost -= 1
                    elif size <= self.width:
                        self.perform(self.sizes.passed(node, token))

    def run(self, duration_ns: int) -> None:
        end_ns = self.now_ns + duration_ns
        while (due_ns := self.sizes.deadline_ns) <= end_ns:
            self.now_ns = max(self.now_ns, due_ns)
            self.perform(self.sizes.tick(self.now_ns))
        self.now_ns = end_ns


@pytest.mark.parametrize(
    ("width", "found"), [(9000, 1408), (1408, 1408), (1400, 1376), (1343, 1312), (1300, BASE_BYTES)]
)
def test_the_largest_size_that_passes_is_found_within_a_second_or_two(width: int, found: int) -> None:
    link = Link(width)
    link.run(2 * SECOND_NS)
    assert max(link.set, default=BASE_BYTES) == found
    assert link.set[-1:] == ([found] if found > BASE_BYTES else [])


def test_loss_does_not_look_like_a_narrow_way() -> None:
    link = Link(9000)
    link.lost = (len(SIZES) + 1) * (TRIES - 1)
    link.run(2 * SECOND_NS)
    assert link.set == [LARGEST_BYTES]


def test_a_size_is_confirmed_while_it_is_used_and_costs_one_probe() -> None:
    link = Link(9000)
    link.run(2 * SECOND_NS)
    link.sent.clear()
    link.run(10 * CONFIRM_NS)
    assert set(link.sent) == {LARGEST_BYTES}
    assert 9 <= len(link.sent) <= 10
    assert link.set == [LARGEST_BYTES]


def test_a_way_that_narrows_in_silence_is_given_up_soon() -> None:
    link = Link(9000)
    link.run(2 * SECOND_NS)
    link.width = 1350
    link.run(CONFIRM_NS + (TRIES + 1) * TRY_NS)
    assert link.set[1:] == [BASE_BYTES, 1344]


def test_a_way_that_widens_is_found_after_a_while() -> None:
    link = Link(1320)
    link.run(2 * SECOND_NS)
    link.width = 9000
    link.run(RAISE_NS + CONFIRM_NS)
    assert link.set == [1312, LARGEST_BYTES]


def test_a_narrow_way_is_asked_seldom() -> None:
    link = Link(1290)
    link.run(RAISE_NS - SECOND_NS)
    assert len(link.sent) == TRIES * len(SIZES) + 1, "the base passes at once"
    assert link.sizes.known(NODE, DIRECT) == (BASE_BYTES, False, False)


def test_a_way_that_swallows_even_the_base_is_told_and_tried_again_seldom() -> None:
    link = Link(1200)
    link.run(RAISE_NS - SECOND_NS)
    assert link.sizes.known(NODE, DIRECT) == (BASE_BYTES, True, False)
    assert len(link.sent) == TRIES * (len(SIZES) + 1)
    link.width = 9000
    link.run(5 * SECOND_NS)
    assert link.sizes.known(NODE, DIRECT) == (LARGEST_BYTES, False, False)


def test_who_asks_gets_one_whole_round_on_a_way_without_traffic() -> None:
    link = Link(1200)
    link.sizes.use(NODE, (), 0)
    link.run(SECOND_NS)
    assert link.sizes.known(NODE, DIRECT) == (BASE_BYTES, None, False)
    link.sizes.ask(NODE, DIRECT, link.now_ns)
    link.run(TRY_NS)
    assert link.sizes.known(NODE, DIRECT)[2]
    sent = len(link.sent)
    link.sizes.ask(NODE, DIRECT, link.now_ns)
    assert len(link.sent) == sent, "one is under way"
    link.run(RAISE_NS)
    assert link.sizes.known(NODE, DIRECT) == (BASE_BYTES, True, False)
    assert len(link.sent) == TRIES * (len(SIZES) + 1)
    link.width = 9000
    link.sizes.ask(NODE, DIRECT, link.now_ns)
    link.run(RAISE_NS)
    assert link.sizes.known(NODE, DIRECT) == (LARGEST_BYTES, False, False)
    assert link.sizes.deadline_ns == NEVER_NS


def test_a_way_that_nobody_used_can_be_asked_and_is_bounded_as_well() -> None:
    sizes = Sizes()
    assert sizes.known(NODE, RELAY) == (BASE_BYTES, None, False)
    for number in range(WAYS_MAX + 1):
        sizes.ask(number.to_bytes(10, "big"), DIRECT, 0)
    assert len(sizes.ways) == WAYS_MAX


def nodes(count: int) -> list[bytes]:
    return [number.to_bytes(10, "big") for number in range(count)]


def test_questions_never_take_the_room_of_ways_with_traffic() -> None:
    sizes, members = Sizes(), nodes(WAYS_MAX + 1)
    for node in members[:-1]:
        sizes.ask(node, DIRECT, 0)
    assert sizes.use(NODE, (DIRECT,), 0) == []
    assert len(sizes.ways) == WAYS_MAX
    probes = [one for one in sizes.tick(0) if isinstance(one, ProbeSize) and one.node == NODE]
    assert sizes.passed(NODE, probes[0].token) == [SetSize(NODE, DIRECT, LARGEST_BYTES)]
    for node in members:
        sizes.ask(node, RELAY, SECOND_NS)
    assert sizes.known(NODE, DIRECT)[0] == LARGEST_BYTES, "questions drive out only each other"
    assert len(sizes.ways) == WAYS_MAX


def test_what_was_found_longest_ago_gives_way_first_and_nothing_that_is_under_way() -> None:
    sizes, (first, second, *rest) = Sizes(), nodes(WAYS_MAX)
    for at_ns, node in ((0, first), (1, second)):
        sizes.ask(node, DIRECT, at_ns)
        probe = next(one for one in sizes.tick(at_ns) if isinstance(one, ProbeSize) and one.node == node)
        sizes.passed(node, probe.token)
    for number in range(1, TRIES + 1):
        sizes.tick(1 + number * TRY_NS)
    for node in rest:
        sizes.ask(node, DIRECT, 9 * SECOND_NS)
    assert (sizes.known(first, DIRECT), sizes.known(second, DIRECT)) == ((LARGEST_BYTES, False, False),) * 2
    assert sizes.use(NODE, (DIRECT,), 9 * SECOND_NS) == [SetSize(first, DIRECT, BASE_BYTES)], "the device knows it"
    assert sizes.known(first, DIRECT) == (BASE_BYTES, None, False)
    assert sizes.ask(NODE, RELAY, 9 * SECOND_NS) == [SetSize(second, DIRECT, BASE_BYTES)]
    assert {node + DIRECT for node in rest} <= sizes.ways.keys(), "somebody waits for these"


def test_a_way_takes_the_room_of_the_one_that_it_follows() -> None:
    sizes = Sizes()
    for node in nodes(WAYS_MAX):
        sizes.use(node, (DIRECT,), 0)
    assert sizes.use(NODE, (DIRECT,), 0) == [], "all are in use"
    assert NODE + DIRECT not in sizes.ways
    sizes.use(nodes(1)[0], (RELAY,), 0)
    assert nodes(1)[0] + RELAY in sizes.ways
    assert len(sizes.ways) == WAYS_MAX


def test_a_way_without_traffic_is_not_asked_and_what_was_found_stays() -> None:
    link = Link(9000)
    link.run(2 * SECOND_NS)
    link.sizes.use(NODE, (), link.now_ns)
    assert link.sizes.deadline_ns == NEVER_NS
    assert link.sizes.restate() == [SetSize(NODE, DIRECT, LARGEST_BYTES)]
    link.sizes.use(NODE, (DIRECT,), link.now_ns)
    link.sent.clear()
    link.run(SECOND_NS)
    assert link.sent == [LARGEST_BYTES]
    due_ns = link.sizes.deadline_ns
    link.sizes.use(NODE, (DIRECT,), link.now_ns)
    assert link.sizes.deadline_ns == due_ns, "it is in use already"


def test_each_way_has_a_size_of_its_own() -> None:
    sizes = Sizes()
    sizes.use(NODE, (DIRECT, RELAY), 0)
    probes = [effect for effect in sizes.tick(0) if isinstance(effect, ProbeSize)]
    by_relay = next(probe for probe in probes if probe.via == RELAY and probe.size == 1376)
    assert sizes.passed(NODE, by_relay.token) == [SetSize(NODE, RELAY, 1376)]
    assert sizes.passed(RELAY, by_relay.token) == []  # Another member's word.
    assert sizes.passed(NODE, 60_000) == []


def test_members_that_go_are_forgotten_and_ways_are_bounded() -> None:
    sizes = Sizes()
    sizes.use(NODE, (DIRECT,), 0)
    sizes.forget(NODE)
    assert sizes.deadline_ns == NEVER_NS
    for number in range(WAYS_MAX + 1):
        sizes.use(number.to_bytes(10, "big"), (DIRECT,), 0)
    assert len(sizes.ways) == WAYS_MAX


def test_a_way_that_began_anew_carries_the_base_until_more_is_found() -> None:
    link = Link(9000)
    link.run(2 * SECOND_NS)
    link.width = 1400
    link.set.clear()
    link.perform(link.sizes.began_anew(NODE, DIRECT, link.now_ns))
    assert link.set == [BASE_BYTES]
    link.run(2 * SECOND_NS)
    assert link.set[-1] == 1376
    assert link.sizes.began_anew(NODE, RELAY, link.now_ns) == []
    link.sizes.use(NODE, (), link.now_ns)
    link.perform(link.sizes.began_anew(NODE, DIRECT, link.now_ns))
    link.sent.clear()
    link.run(RAISE_NS)
    assert link.sent == [], "nobody uses it"


def test_a_way_that_begins_anew_while_somebody_asks_is_not_used_for_that() -> None:
    link = Link(9000)
    link.sizes.use(NODE, (), 0)
    link.sizes.ask(NODE, DIRECT, link.now_ns)
    link.perform(link.sizes.tick(link.now_ns))
    link.perform(link.sizes.began_anew(NODE, DIRECT, link.now_ns))
    link.run(2 * SECOND_NS)
    assert link.sizes.known(NODE, DIRECT) == (LARGEST_BYTES, False, False), "who asked is answered all the same"
    assert link.sizes.deadline_ns == NEVER_NS
