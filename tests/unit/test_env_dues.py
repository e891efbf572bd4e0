# SPDX-License-Identifier: Apache-2.0
"""The first of many that is due is known, and only those that had an input are asked again."""

from dataclasses import dataclass

from atoll.env.dues import Dues
from atoll.env.limits import DUES_SPARE

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


@dataclass
class One:
    deadline_ns: int | None
    wall_deadline_ns: int | None


def test_the_first_is_due_by_either_clock_and_what_is_gone_is_not() -> None:
    hosted = {A: One(7, 100), B: One(5, None)}
    dues = Dues(hosted)
    assert (dues.first_ns, dues.first_wall_ns) == (None, None), "nothing had an input"
    for identity in (A, B):
        dues.changed(identity)
    assert (dues.first_ns, dues.first_wall_ns) == (5, 100)
    hosted[A].deadline_ns, hosted[A].wall_deadline_ns = 3, None
    assert (dues.first_ns, dues.first_wall_ns) == (5, 100), "it had no input"
    dues.changed(A)
    assert (dues.first_ns, dues.first_wall_ns) == (3, None)
    del hosted[A], hosted[B]
    dues.changed(A)
    dues.changed(B)
    dues.changed(B)
    assert (dues.first_wall_ns, dues.first_ns) == (None, None)


def test_only_what_is_due_is_taken_the_first_first_and_once() -> None:
    hosted = {A: One(7, 100), B: One(5, None), C: One(None, 90), b"d": One(8, 200)}
    dues = Dues(hosted)
    for identity in hosted:
        dues.changed(identity)
    assert dues.take(4, 89) == ()
    assert dues.take(7, 100) == (B, A, C), "by either clock, and each once"
    assert (dues.first_ns, dues.first_wall_ns) == (5, 90), "nothing was done about them"
    hosted[B].deadline_ns, hosted[A].deadline_ns, hosted[A].wall_deadline_ns = 50, None, None
    hosted[C].wall_deadline_ns = None
    for identity in (A, B, C):
        dues.changed(identity)
    assert dues.take(7, 100) == ()
    assert (dues.first_ns, dues.first_wall_ns) == (8, 200)
    assert dues.take(50, 0) == (b"d", B)


def test_a_time_that_changed_and_changed_back_is_one_time_and_many_that_changed_are_let_go_of() -> None:
    hosted = {A: One(5, None), B: One(1_000, None)}
    dues = Dues(hosted)
    dues.changed(B)
    for at_ns in (5, 9, 5):
        hosted[A].deadline_ns = at_ns
        dues.changed(A)
        assert dues.first_ns == at_ns
    assert dues.take(5, 0) == (A,)
    for at_ns in range(2_000, 2_000 + 10 * DUES_SPARE):
        hosted[A].deadline_ns = at_ns
        dues.changed(A)
        assert dues.first_ns == 1_000
        heap = dues._times._heap  # pyright: ignore[reportPrivateUsage]
        assert len(heap) <= 2 * len(hosted) + DUES_SPARE
    assert dues.take(2_000 + 10 * DUES_SPARE, 0) == (B, A)
