# SPDX-License-Identifier: Apache-2.0
"""The loss window: bitmap, settling, reordering, wraparound, onset."""

from random import Random

import pytest

from atoll.overlay.loss import ALARM, CALM, PEAK, STRANGE, STRANGERS_MAX, WINDOW, Window, newer_by

TOP = (1 << 32) - 1


def fed(pattern: str, first: int = 1) -> Window:
    """Feed a pattern, oldest first: ``.`` arrived, ``x`` lost."""
    window = Window()
    for offset, mark in enumerate(pattern):
        if mark == ".":
            window.arrived((first + offset) % (1 << 32))
    return window


@pytest.mark.parametrize(
    ("sequence", "than", "by"), [(5, 3, 2), (3, 5, -2), (0, TOP, 1), (TOP, 0, -1), (1 << 31, 0, -(1 << 31)), (7, 7, 0)]
)
def test_newer_by_counts_modulo_two_to_the_32(sequence: int, than: int, by: int) -> None:
    assert newer_by(sequence, than) == by


def test_a_clean_series_has_no_loss_and_no_score() -> None:
    window = fed("." * 100)
    assert (window.holes, window.share(), window.score(), window.width) == (0, 0, 0, WINDOW)
    assert window.slow == 100 - WINDOW
    assert window.slow_lost == 0
    assert window.clean == WINDOW


def test_each_lost_probe_is_counted_once_whether_settled_or_not() -> None:
    window = fed(".x" * 50 + ".")
    assert window.slow + window.width == 101
    assert window.slow_lost + window.holes == 50
    assert window.share() == 50 * 10_000 // 101


def test_reordering_heals_itself() -> None:
    window = Window()
    for sequence in (1, 3, 2, 6, 5, 4):
        window.arrived(sequence)
    assert window.holes == 0
    assert window.last == 6


def test_only_the_newest_counts_as_news() -> None:
    window = fed("..")
    assert window.arrived(3)
    assert not window.arrived(2)
    assert not window.arrived(3)


def test_a_probe_later_than_the_window_stays_lost() -> None:
    window = fed(".x" + "." * WINDOW)
    assert not window.arrived(2)
    assert window.slow_lost == 1


def test_sequence_numbers_wrap() -> None:
    window = fed("." * 10 + "x" + "." * 10, first=TOP - 12)
    assert window.last == 7
    assert window.holes == 1


def test_a_long_gap_is_an_outage_and_not_a_lasting_loss_rate() -> None:
    window = fed("." * 64)
    window.arrived(100_000)
    assert window.holes == WINDOW - 1
    assert window.slow + window.width <= 64 + WINDOW


def test_a_peer_that_began_anew_is_followed_after_three_strange_probes() -> None:
    window = fed("." * 5_000)
    news = [window.arrived(sequence) for sequence in range(1, STRANGERS_MAX + 2)]
    assert news == [False] * (STRANGERS_MAX - 1) + [True, True]
    assert window.last == STRANGERS_MAX + 1
    assert window.holes == 0


@pytest.mark.parametrize("ahead", [STRANGE, 1 << 30])
def test_a_peer_that_began_anew_far_ahead_is_no_outage(ahead: int) -> None:
    window = fed("." * 100)
    news = [window.arrived(100 + ahead + step) for step in range(STRANGERS_MAX)]
    assert news == [False] * (STRANGERS_MAX - 1) + [True]
    assert (window.holes, window.width) == (0, 1)


def test_one_strange_probe_among_good_ones_changes_nothing() -> None:
    window = fed("." * 100)
    window.arrived(10)
    window.arrived(11)
    window.arrived(101)
    window.arrived(12)
    assert window.last == 101
    assert window.strangers == 1


def test_the_slow_share_ages() -> None:
    window = fed(".x" * 300 + ".")
    assert 4_500 < window.share() < 5_100
    for sequence in range(602, 602 + 2_000):
        window.arrived(sequence)
    assert window.share() < 300
    assert window.slow < 512


def test_a_report_replaces_the_bits_but_not_what_came_before_the_window() -> None:
    window = Window()
    assert window.reported(5, 0b1, 9)  # The peer saw 5 first; its bits before that mean nothing.
    assert window.holes == 0
    assert window.reported(7, 0b101, 9)
    assert window.holes == 1
    assert window.reported(7, 0b111, 9)  # 6 came late.
    assert window.holes == 0


def test_an_older_report_and_one_from_the_future_are_refused() -> None:
    window = Window()
    assert window.reported(7, 0xFFFF_FFFF, 9)
    assert not window.reported(6, 0, 9)
    assert not window.reported(10, 0, 9)
    assert window.last == 7
    assert window.holes == 0


def test_what_a_report_no_longer_covers_is_settled_by_the_report_before() -> None:
    window = Window()
    window.reported(1, 1, 500)
    window.reported(32, 0xFFFF_FFFF & ~(1 << 31) & ~1 | 1, 500)
    window.reported(64, 0xFFFF_FFFF, 500)
    assert (window.slow, window.slow_lost) == (32, 1)


@pytest.mark.parametrize(
    ("pattern", "score"),
    [
        ("....", 0),
        ("x.x.x.", 0),  # Three losses say nothing.
        ("xxxx.", PEAK - 2),
        ("xxxx..", PEAK - 4),
        ("x.x.x.x.", 4 * 23 - 4 * 2),
        ("x" + "." * 20 + "xxx.", 3 * 23 - 2),  # The first is worn off and does not help the others.
    ],
)
def test_the_score_sums_losses_against_arrivals(pattern: str, score: int) -> None:
    assert fed("." + pattern).score() == score


def test_four_losses_among_fifteen_alarm_and_four_among_thirty_do_not() -> None:
    assert fed("." * 20 + "x...x...x...x..").score() >= ALARM
    assert fed("." * 4 + "x......x......x......x..").score() < ALARM


def test_probes_known_to_be_missing_count_before_the_next_arrives() -> None:
    window = fed("." * 32)
    assert window.score(3) == 0
    assert window.score(4) == PEAK
    assert window.onset_share(4) == 4 * 10_000 // 16
    assert window.onset_share(100) == 10_000


def test_an_alarm_is_calm_again_once_the_losses_leave_the_window() -> None:
    assert fed("." * 32 + "xxxx" + "." * 27).score() > CALM
    assert fed("." * 32 + "xxxx" + "." * 29).score() <= CALM


def test_onset_is_not_diluted_by_a_clean_past() -> None:
    window = fed("." * 300 + "x.x.x.x.x.x.x.x.")
    assert window.share() < 400
    assert window.onset_share() == 5_000


def test_two_losses_are_no_onset() -> None:
    window = fed("." * 300 + "xx.")
    assert window.onset_share() == window.share()


def test_thirty_percent_alarm_soon_and_one_percent_hardly_ever() -> None:
    random = Random(4)
    delays: list[int] = []
    for _ in range(200):
        window, sequence = fed("." * 64), 64
        while window.score() < ALARM:
            sequence += 1
            if random.randrange(100) >= 30:
                window.arrived(sequence)
        delays.append(sequence - 64)
    assert sorted(delays)[100] <= 20
    assert sorted(delays)[190] <= 45
    window, alarms = fed("." * 64), 0
    for sequence in range(65, 100_065):
        if random.randrange(100) >= 1:
            window.arrived(sequence)
            alarms += window.score() >= ALARM
    assert alarms <= 8


def test_a_few_lost_by_chance_prove_nothing_and_many_do() -> None:
    assert fed(("." * 99 + "x") * 4 + ".").proven_share() == 0
    assert 2_000 < fed("..x" * 150 + ".").proven_share() < 3_333


def test_a_run_counts_its_own_losses_only() -> None:
    window = fed("x".join("." * 40) + "." * WINDOW)
    assert window.run_lost == 39
    window.restart_run()
    assert window.run_holes == 0
    last = window.last
    window.arrived(last + 2)
    assert (window.run_lost, window.run_holes) == (0, 1)
    for sequence in range(last + 3, last + 3 + WINDOW):
        window.arrived(sequence)
    assert (window.run_lost, window.run_holes) == (1, 1)
