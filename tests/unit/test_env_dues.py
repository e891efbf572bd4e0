# SPDX-License-Identifier: Apache-2.0
"""The first of many that is due is known, and only those that had an input are asked again."""

from dataclasses import dataclass

from atoll.env.dues import Dues

A, B = b"a" * 16, b"b" * 16


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
