# SPDX-License-Identifier: Apache-2.0
"""Link state: what is believed, for how long, and what is said when."""

from itertools import pairwise

import msgspec

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.core.entropy import Draws
from atoll.overlay.linkstate import (
    AGE_NS_MAX,
    FULL_INTERVAL_NS,
    LINKS_MAX,
    METRIC_GAP_NS,
    ORIGINS_MAX,
    URGENT_GAP_NS,
    LinkReporter,
    LinkTable,
)
from atoll.overlay.messages import CONTROL_BYTES_MAX, Link, LinkState, decode, encode


def node(number: int) -> bytes:
    return number.to_bytes(10, "big")


A, B, C = node(1), node(2), node(3)


def link(target: bytes, rtt_us: int = 20_000, loss: int = 0, state: int = 0, deviation_us: int = 0) -> Link:
    return Link(target, rtt_us, deviation_us, loss, 0, state)


def said(
    sequence: int, *links: Link, boot: int = 1, full: bool = False, part: int = 0, parts: int = 1, load: int = 0
) -> LinkState:
    return LinkState(boot, sequence, full=full, part=part, parts=parts, load=load, will=2, links=links)


def test_nothing_said_is_nothing_known() -> None:
    table = LinkTable()
    assert table.link(A, B, 0) is None
    assert (table.load(A), table.will(A), table.boot(A)) == (0, 0, 0)


def test_a_full_state_replaces_and_a_delta_adds() -> None:
    table = LinkTable()
    assert table.apply(A, said(1, link(B), link(C), full=True, load=7), 0)
    assert (table.load(A), table.will(A), table.boot(A)) == (7, 2, 1)
    assert table.apply(A, said(2, link(B, 50_000), load=7), 1)
    assert table.link(A, B, 2) == link(B, 50_000)
    assert table.link(A, C, 2) == link(C)
    assert table.apply(A, said(3, link(B, 50_000), full=True, load=7), 2)
    assert table.link(A, C, 3) is None
    assert not table.apply(A, said(4, link(B, 50_000), full=True, load=7), 3), "nothing changed"
    assert table.apply(A, said(5, link(B, 50_000), full=True, load=8), 3), "the load changed"


def test_a_link_too_old_is_unknown_until_it_is_said_again() -> None:
    table = LinkTable()
    table.apply(A, said(1, link(B), full=True), 0)
    assert table.link(A, B, AGE_NS_MAX) is not None
    assert table.link(A, B, AGE_NS_MAX + 1) is None
    table.apply(A, said(2, link(B), full=True), AGE_NS_MAX + 1)
    assert table.link(A, B, AGE_NS_MAX + 1) == link(B)


def test_late_and_repeated_messages_change_nothing() -> None:
    table = LinkTable()
    table.apply(A, said(5, link(B, 50_000)), 0)
    assert not table.apply(A, said(5, link(B, 60_000)), 1)
    assert not table.apply(A, said(4, link(B, 60_000)), 1)
    assert table.link(A, B, 1) == link(B, 50_000)
    assert table.ignored == 2


def test_a_full_state_in_two_parts_counts_when_the_last_has_come() -> None:
    table = LinkTable()
    first, last = said(1, link(B), full=True, parts=2), said(1, link(C), full=True, part=1, parts=2)
    assert not table.apply(A, first, 0)
    assert table.link(A, B, 0) is None
    assert table.apply(A, last, 0)
    assert table.link(A, B, 0) is not None
    assert table.link(A, C, 0) is not None


def test_a_broken_series_of_parts_is_dropped_and_the_next_counts() -> None:
    table = LinkTable()
    assert not table.apply(A, said(1, link(C), full=True, part=1, parts=2), 0)
    table.apply(A, said(2, link(B), full=True, parts=2), 0)
    assert not table.apply(A, said(3, link(C), full=True, part=1, parts=2), 0), "another series"
    assert not table.apply(A, said(1, link(B), full=True, parts=2), 0), "an older series"
    assert table.apply(A, said(2, link(C), full=True, part=1, parts=2), 0)
    assert not table.apply(A, said(2, link(B, 1), full=True, parts=1), 0), "a finished series"
    assert table.link(A, B, 0) == link(B)


def test_a_delta_that_overtakes_a_full_state_is_newer() -> None:
    table = LinkTable()
    table.apply(A, said(1, link(B), full=True, parts=2), 0)
    table.apply(A, said(2, link(B, 90_000)), 0)
    table.apply(A, said(1, link(C), full=True, part=1, parts=2), 0)
    assert table.link(A, B, 0) == link(B, 90_000)
    assert table.link(A, C, 0) == link(C)


def test_a_new_life_replaces_the_old_one_and_not_the_other_way_round() -> None:
    table = LinkTable()
    table.apply(A, said(900, link(B), boot=5), 0)
    assert table.apply(A, said(1, link(C), boot=6), 1)
    assert table.link(A, B, 1) is None
    assert not table.apply(A, said(901, link(B), boot=5), 2)
    assert table.boot(A) == 6
    assert table.apply(A, said(1, link(B), boot=5), 3 + AGE_NS_MAX), "a boot from a clock that was set back"


def test_tables_are_bounded() -> None:
    table = LinkTable()
    for number in range(ORIGINS_MAX + 5):
        table.apply(node(100 + number), said(1, link(A)), 0)
    assert len(table.rows) == ORIGINS_MAX
    for number in range(LINKS_MAX + 5):
        table.apply(node(100), said(2 + number, link(node(500 + number))), 0)
    assert len(table.rows[node(100)].links) == LINKS_MAX
    parts = [
        said(900, *(link(node(at)) for at in range(s, s + 40)), full=True, part=p, parts=2)
        for p, s in ((0, 1), (1, 41))
    ]
    for part in parts:
        table.apply(node(100), part, 0)
    assert len(table.rows[node(100)].links) == LINKS_MAX
    assert not table.apply(node(100), said(950, full=True, part=0, parts=3), 0), "more parts than a group needs"
    assert not table.apply(node(100), said(951, full=True, part=1, parts=1), 0), "a part that is not"


def test_a_link_to_oneself_is_ignored() -> None:
    table = LinkTable()
    table.apply(A, said(1, link(A)), 0)
    table.apply(A, said(2, link(A), full=True), 0)
    assert table.link(A, A, 0) is None


def test_a_removed_member_is_forgotten_as_origin_and_as_far_end() -> None:
    table = LinkTable()
    table.apply(A, said(1, link(B)), 0)
    table.apply(B, said(1, link(A)), 0)
    table.forget(A)
    assert table.link(A, B, 0) is None
    assert table.link(B, A, 0) is None
    table.forget(A)


def reporter() -> LinkReporter:
    return LinkReporter(boot=3, draws=Draws(b"seed"))


def test_the_first_report_is_full_and_fits_the_wire() -> None:
    links = [Link(node(at), 0xFFFF_FFFF, 0xFFFF_FFFF, 10_000, 10_000, 3) for at in range(1, LINKS_MAX + 1)]
    one = reporter()
    messages = one.messages(links, 255, 2, 0)
    assert [(m.full, m.part, m.parts, m.sequence) for m in messages] == [(True, 0, 2, 1), (True, 1, 2, 1)]
    table = LinkTable()
    for message in messages:
        payload = encode(message)
        assert len(payload) <= CONTROL_BYTES_MAX
        assert decode(payload) == message
        table.apply(A, message, 0)
    assert all(table.link(A, one.node, 0) == one for one in links if one.node != A)


def test_full_states_come_about_every_30_s_not_in_step() -> None:
    one, at = reporter(), [0]
    for _ in range(20):
        assert [m.full for m in one.messages([link(B)], 0, 2, at[-1])] == [True]
        assert one.messages([link(B)], 0, 2, at[-1] + 1) == ()
        at.append(one.due_ns)
    gaps = [later - sooner for sooner, later in pairwise(at)]
    assert all(FULL_INTERVAL_NS * 3 // 4 < gap <= FULL_INTERVAL_NS for gap in gaps)
    assert len(dict.fromkeys(gaps)) == len(gaps)


def test_a_state_change_is_said_at_once_but_not_too_often() -> None:
    one, now_ns = reporter(), SECOND_NS
    one.messages([link(B), link(C)], 0, 2, 0)
    (delta,) = one.messages([link(B, state=2), link(C)], 0, 2, now_ns)
    assert not delta.full
    assert delta.links == (link(B, state=2),)
    sent = 0
    for step in range(1, 101):  # A link that flaps each 10 ms for a second.
        sent += len(one.messages([link(B, state=step % 2), link(C)], 0, 2, now_ns + step * 10 * MILLISECOND_NS))
    assert 2 <= sent <= SECOND_NS // URGENT_GAP_NS


def test_an_onset_of_loss_is_as_urgent() -> None:
    one = reporter()
    one.messages([link(B)], 0, 2, 0)
    assert one.messages([link(B, loss=3_000)], 0, 2, SECOND_NS)


def test_numbers_are_said_when_they_moved_and_no_more_often_than_the_budget_allows() -> None:
    one = reporter()
    one.messages([link(B, 100_000)], 0, 2, 0)
    assert one.messages([link(B, 109_000)], 0, 2, 20 * SECOND_NS) == (), "less than a tenth"
    assert one.due_ns == one.full_due_ns
    assert one.messages([link(B, 112_000)], 0, 2, SECOND_NS) == (), "too soon"
    assert one.due_ns == METRIC_GAP_NS
    (delta,) = one.messages([link(B, 112_000)], 0, 2, METRIC_GAP_NS)
    assert delta.links == (link(B, 112_000),)
    assert one.messages([link(B, 100_100)], 0, 2, 2 * METRIC_GAP_NS), "a tenth of what was said last"
    assert one.messages([link(B, 100_100, loss=100)], 0, 2, 3 * METRIC_GAP_NS) == ()
    assert one.messages([link(B, 100_100, loss=101)], 0, 2, 3 * METRIC_GAP_NS)


def test_small_and_jittery_links_stay_silent() -> None:
    one = reporter()
    one.messages([link(B, 1_000), link(C, 100_000, deviation_us=30_000)], 0, 2, 0)
    assert one.messages([link(B, 2_900), link(C, 125_000)], 0, 2, 20 * SECOND_NS) == ()


def test_a_change_that_went_back_is_not_said() -> None:
    one = reporter()
    one.messages([link(B)], 0, 2, 0)
    assert one.messages([link(B, 90_000)], 0, 2, SECOND_NS) == ()
    assert one.messages([link(B)], 0, 2, 2 * SECOND_NS) == ()
    assert one.due_ns == one.full_due_ns


def test_load_and_will_are_said() -> None:
    one = reporter()
    one.messages([link(B)], 0, 2, 0)
    assert one.messages([link(B)], 31, 2, 6 * SECOND_NS) == ()
    (delta,) = one.messages([link(B)], 32, 2, 6 * SECOND_NS)
    assert (delta.links, delta.load) == ((), 32)
    assert one.messages([link(B)], 255, 2, 7 * SECOND_NS), "no budget left is urgent"
    assert one.messages([link(B)], 255, 0, 8 * SECOND_NS), "so is a change of will"


def test_a_delta_larger_than_a_message_goes_on_soon() -> None:
    one = reporter()
    one.messages([link(node(at)) for at in range(50)], 0, 2, 0)
    failed = [link(node(at), state=2) for at in range(50)]
    (first,) = one.messages(failed, 0, 2, SECOND_NS)
    assert one.due_ns == SECOND_NS + URGENT_GAP_NS
    (second,) = one.messages(failed, 0, 2, one.due_ns)
    assert [*first.links, *second.links] == failed


def test_an_introduction_is_full_and_empty_lists_are_told_too() -> None:
    one = reporter()
    (message,) = one.introduction([], 0, 1)
    assert (message.full, message.parts, message.links, message.will) == (True, 1, (), 1)
    table = LinkTable()
    table.apply(A, said(1, link(B), boot=3), 0)
    table.apply(A, LinkState(3, 2, full=True, part=0, parts=1, load=0, will=1, links=()), 0)
    assert table.link(A, B, 0) is None


def test_both_survive_a_snapshot() -> None:
    table, one = LinkTable(), reporter()
    for message in one.messages([link(B), link(C)], 3, 2, 0):
        table.apply(A, message, 0)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(table), type=LinkTable) == table
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=LinkReporter) == one
