# SPDX-License-Identifier: Apache-2.0
"""The replay window at its edges; against a model in tests/property/test_session_window.py."""

from atoll.overlay.session.window import USABLE_BITS, Window


def test_each_counter_is_new_once() -> None:
    window = Window()
    assert (window.highest, window.received) == (-1, 0)
    for counter in (0, 1, 5, 3):
        assert not window.seen(counter)
        window.mark(counter)
        assert window.seen(counter)
    assert not window.seen(2)
    assert (window.highest, window.received) == (5, 4)


def test_gaps_sum_to_what_is_missing() -> None:
    window = Window()
    deltas = [window.mark(counter) for counter in (0, 1, 5, 3, 4, 9)]
    assert deltas == [0, 0, 3, -1, -1, 3]
    assert sum(deltas) == window.highest + 1 - window.received


def test_a_first_counter_above_0_is_a_gap() -> None:
    assert Window().mark(7) == 7


def test_the_edge_of_the_window() -> None:
    window = Window()
    window.mark(USABLE_BITS + 10)
    assert window.seen(10)
    assert not window.seen(11)


def test_a_jump_of_any_size_forgets_only_what_is_out_of_the_window() -> None:
    for jump in (1, 63, 64, 65, 8127, 8128, 8191, 8192, 8193, 1 << 40, (1 << 64) - 101):
        window = Window()
        window.mark(100)
        assert window.mark(100 + jump) == jump - 1
        assert window.seen(100)  # As a replay or as too old, but never as new.
        assert window.seen(100 + jump)
        for behind in (1, 64, 4096, USABLE_BITS - 1):
            counter = 100 + jump - behind
            assert counter <= 100 or not window.seen(counter)
