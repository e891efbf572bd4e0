# SPDX-License-Identifier: Apache-2.0
"""Processes that share a key, told apart from restarts."""

from itertools import permutations

from atoll.base.units import SECOND_NS
from atoll.group.limits import BOOT_FORGET_NS, BOOTS_MAX, TWIN_GRACE_NS, TWIN_REPEAT_NS, TWIN_TELL_NS
from atoll.group.twins import Twins

NODE = b"n" * 10


def test_one_process_may_speak_as_often_as_it_likes() -> None:
    twins = Twins()
    for second in range(100):
        assert twins.introduced(NODE, 1, 50, second * SECOND_NS) is None
        assert twins.heard(NODE, 1, second * SECOND_NS) is None


def test_restarts_are_no_twins() -> None:
    twins = Twins()
    for boot in range(20):
        assert twins.introduced(NODE, boot, 50 + boot, boot * SECOND_NS) is None
    assert len(twins.boots[NODE]) == BOOTS_MAX


def test_the_grace_is_for_packets_that_were_under_way() -> None:
    twins = Twins()
    twins.introduced(NODE, 1, 50, 0)
    twins.introduced(NODE, 2, 60, SECOND_NS)
    assert twins.heard(NODE, 1, SECOND_NS + TWIN_GRACE_NS - 1) is None
    assert twins.heard(NODE, 2, 100 * SECOND_NS) is None
    assert twins.heard(NODE, 1, SECOND_NS + TWIN_GRACE_NS) == 2


def test_the_later_start_ends_in_whatever_order_they_are_met() -> None:
    for order in permutations([(1, 50), (2, 60), (3, 55)]):
        twins = Twins()
        for number, (boot, started_s) in enumerate(order):
            twins.introduced(NODE, boot, started_s, number)
        answers = [twins.heard(NODE, boot, 10 * SECOND_NS) for boot, _ in order]
        assert answers[-1] == 2
    twins = Twins()
    twins.introduced(NODE, 8, 50, 0)
    twins.introduced(NODE, 7, 50, 1)  # Started in the same second: any answer will do, if it is the same everywhere.
    assert twins.heard(NODE, 8, 10 * SECOND_NS) == 8


def test_who_was_never_introduced_counts_for_nothing() -> None:
    twins = Twins()
    twins.introduced(NODE, 1, 50, 0)
    assert twins.heard(NODE, 2, 10 * SECOND_NS) is None
    assert twins.heard(b"m" * 10, 2, 10 * SECOND_NS) is None
    assert twins.heard(NODE, 1, 20 * SECOND_NS) is None


def test_the_silent_are_forgotten() -> None:
    twins = Twins()
    twins.introduced(NODE, 1, 50, 0)
    twins.introduced(NODE, 2, 60, SECOND_NS)
    assert twins.heard(NODE, 1, 10 * SECOND_NS) == 2
    later = 10 * SECOND_NS + BOOT_FORGET_NS
    assert twins.introduced(NODE, 3, 70, later) is None
    assert [process.boot for process in twins.boots[NODE]] == [3]
    twins.forget(NODE)
    twins.forget(NODE)
    assert twins.boots == {}


def test_who_must_end_is_told_again_for_a_while() -> None:
    twins = Twins()
    twins.introduced(NODE, 1, 50, 0)
    twins.introduced(NODE, 2, 60, SECOND_NS)
    began_ns = 10 * SECOND_NS
    assert twins.heard(NODE, 1, began_ns) == 2
    told, now_ns = 0, began_ns
    while (due_ns := twins.deadline_ns) is not None:
        assert twins.due(due_ns - 1) == []
        now_ns = due_ns
        told += len(twins.due(now_ns))
    assert told == TWIN_TELL_NS // TWIN_REPEAT_NS - 1
    assert now_ns == began_ns + TWIN_TELL_NS
    assert twins.heard(NODE, 1, now_ns) is None, "the other ended"
    assert twins.deadline_ns is None
    twins.introduced(NODE, 2, 60, now_ns)
    assert twins.heard(NODE, 1, now_ns) == 2, "it had only lost its turn"
    twins.forget(NODE)
    assert twins.deadline_ns is None
