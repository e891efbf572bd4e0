# SPDX-License-Identifier: Apache-2.0
"""One path between two ends: probes, round trips, silence, loss, recovery, answers, stalls."""

import heapq
from itertools import pairwise
from random import Random

import pytest

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.overlay.choice import PathState
from atoll.overlay.limits import ANSWERS_BURST, PROBE_INTERVAL_NS_MIN
from atoll.overlay.messages import Probe
from atoll.overlay.path import ANSWER, ASK, NEVER_NS, UNHEARD_NS, WANT, Path, Reason

FAST_NS = 50 * MILLISECOND_NS
START_NS = 7_000 * SECOND_NS
ALL_SEEN = (1 << 32) - 1


class Ends:
    """Two ends of one path and the wire between them; ``loss`` in per cent, by sending end."""

    def __init__(self, pace_ns: int = SECOND_NS, delay_ms: int = 40, seed: int = 1) -> None:
        self.now_ns = START_NS
        self.delay_ns = delay_ms * MILLISECOND_NS
        self.jitter_ns = MILLISECOND_NS
        self.random = Random(seed)
        self.loss = [0, 0]
        self.ends = [Path(START_NS), Path(START_NS)]
        self.wire: list[tuple[int, int, int, Probe]] = []
        self.count = 0
        self.sent: list[tuple[int, int, Probe]] = []
        self.states: list[tuple[int, int, int, str]] = []
        self.asleep_ns = [0, 0]
        self.slow_dropped = [True, True]  # False: the next probe of that end that announces a slow pace is lost.
        for end in self.ends:
            end.want(pace_ns, PROBE_INTERVAL_NS_MIN, self.now_ns)

    def send(self, i: int, *, answer: bool = False) -> None:
        probe = self.ends[i].probe(self.now_ns, self.random.randrange(256), answer=answer)
        self.sent.append((self.now_ns, i, probe))
        if probe.interval_ms >= 1_000 and not self.slow_dropped[i]:
            self.slow_dropped[i] = True
        elif self.random.randrange(100) >= self.loss[i]:
            self.count += 1
            jitter_ns = self.random.randrange(self.jitter_ns)
            heapq.heappush(self.wire, (self.now_ns + self.delay_ns + jitter_ns, self.count, 1 - i, probe))

    def note(self, i: int, *, changed: bool) -> None:
        if changed:
            self.states.append((self.now_ns, i, self.ends[i].state, self.ends[i].reason))

    def run(self, seconds: float) -> None:
        end_ns = self.now_ns + int(seconds * SECOND_NS)
        while True:
            due_ns, i = min((max(one.deadline_ns, self.asleep_ns[j]), j) for j, one in enumerate(self.ends))
            if self.wire:
                arrival_ns = max(self.wire[0][0], self.asleep_ns[self.wire[0][2]])
                if arrival_ns <= due_ns:
                    if arrival_ns > end_ns:
                        break
                    _, _, to, probe = heapq.heappop(self.wire)
                    self.now_ns = max(self.now_ns, arrival_ns)
                    answer = self.ends[to].receive(probe, self.now_ns)
                    if answer:
                        self.send(to, answer=True)
                    self.note(to, changed=self.ends[to].judge(self.now_ns))
                    continue
            if due_ns > end_ns:
                break
            self.now_ns = max(self.now_ns, due_ns)
            path = self.ends[i]
            if self.now_ns >= path.check_ns:
                self.note(i, changed=path.judge(self.now_ns))
            if self.now_ns >= path.due_ns:
                self.send(i)
        self.now_ns = end_ns

    def found_s(self, since_ns: int, i: int, state: PathState) -> float | None:
        return next(
            (
                (at - since_ns) / SECOND_NS
                for at, end, found, _ in self.states
                if end == i and found == state and at > since_ns
            ),
            None,
        )


def test_both_ends_measure_the_round_trip_without_a_common_clock() -> None:
    ends = Ends(delay_ms=40)
    ends.run(20)
    for path in ends.ends:
        assert path.state == PathState.OK
        assert 80_000 <= path.predicted_us <= 82_000
        assert path.loss_out() == path.loss_in() == 0


def test_an_idle_path_is_probed_about_once_a_second_and_never_later_than_promised() -> None:
    ends = Ends()
    ends.run(100)
    for i in (0, 1):
        sent = [(at, probe) for at, end, probe in ends.sent if end == i]
        assert 100 <= len(sent) <= 135
        for (at, probe), (then, _) in pairwise(sent):
            assert then - at <= probe.interval_ms * MILLISECOND_NS


def test_a_cut_under_traffic_is_doubted_in_80_ms_and_certain_in_200() -> None:
    ends = Ends(FAST_NS)
    ends.run(5)
    cut_ns = ends.now_ns
    ends.loss = [100, 100]
    ends.run(2)
    for i in (0, 1):
        doubt, failed = (ends.found_s(cut_ns, i, state) for state in (PathState.SUSPECT, PathState.FAILED))
        assert doubt is not None
        assert doubt <= 0.040 + 0.080
        assert failed is not None
        assert failed <= 0.040 + 0.200
        assert ends.ends[i].reason == Reason.SILENT
        assert "nothing heard for" in ends.ends[i].lost_words(ends.now_ns)


def test_questions_find_a_cut_on_an_idle_path_long_before_three_probes_are_missing() -> None:
    ends = Ends()
    ends.run(10)
    cut_ns = ends.now_ns
    ends.loss = [100, 100]
    for _ in range(400):
        ends.run(0.01)
        for path in ends.ends:
            if path.state == PathState.SUSPECT:
                path.ask(10, FAST_NS, ends.now_ns)
    for i in (0, 1):
        failed = ends.found_s(cut_ns, i, PathState.FAILED)
        assert failed is not None
        assert failed <= 2.0


def test_a_one_way_cut_is_found_by_both_ends() -> None:
    ends = Ends(FAST_NS)
    ends.run(5)
    cut_ns = ends.now_ns
    ends.loss = [100, 0]  # From end 0 to end 1 nothing gets through.
    ends.run(2)
    assert ends.ends[0].reason == Reason.ONE_WAY
    assert ends.ends[1].reason == Reason.SILENT
    found = ends.found_s(cut_ns, 0, PathState.FAILED)
    assert found is not None
    assert found <= 0.5


def test_thirty_percent_loss_is_lossy_in_its_direction() -> None:
    for seed in range(10):
        ends = Ends(FAST_NS, seed=seed)
        ends.run(5)
        start_ns = ends.now_ns
        ends.loss = [30, 0]
        ends.run(3)
        assert Reason.LOSSY_OUT in {reason for at, i, _, reason in ends.states if i == 0 and at > start_ns}
        assert Reason.LOSSY_IN in {reason for at, i, _, reason in ends.states if i == 1 and at > start_ns}
        assert ends.ends[0].loss_out() > 1_000
        assert ends.ends[0].loss_in() == 0


def test_one_lost_probe_is_a_doubt_and_no_more() -> None:
    ends = Ends(FAST_NS)
    ends.run(5)
    ends.loss = [100, 0]
    ends.run(0.05)
    ends.loss = [0, 0]
    ends.run(3)
    assert {reason for _, _, state, reason in ends.states if state == PathState.SUSPECT} == {Reason.MISSING}
    assert all(path.state == PathState.OK for path in ends.ends)
    assert all(path.working for path in ends.ends)


def test_a_failed_path_is_ok_again_after_eight_clean_probes_and_good_from_then_on() -> None:
    ends = Ends(FAST_NS)
    ends.run(5)
    ends.loss = [100, 100]
    ends.run(5)
    assert all(path.bad and path.good_ns < 0 for path in ends.ends)
    ends.loss = [0, 0]
    healed_ns = ends.now_ns
    ends.run(0.3)
    assert all(path.bad for path in ends.ends)
    ends.run(5)
    for path in ends.ends:
        assert path.state == PathState.OK
        assert healed_ns < path.good_ns < healed_ns + 3 * SECOND_NS
    ends.run(20)
    assert all(path.loss_out() == 0 for path in ends.ends)


def test_a_path_that_never_worked_is_unknown_and_then_failed() -> None:
    ends = Ends()
    ends.loss = [100, 100]
    ends.run(1)
    assert all(path.state == PathState.UNKNOWN for path in ends.ends)
    ends.run(UNHEARD_NS / SECOND_NS)
    assert all(path.state == PathState.FAILED for path in ends.ends)


def test_a_path_that_never_worked_one_way_is_failed_too() -> None:
    ends = Ends()
    ends.loss = [100, 0]
    ends.run(5)
    assert ends.ends[0].reason == Reason.ONE_WAY
    assert ends.ends[1].reason == Reason.SILENT


def test_jitter_up_to_the_measured_one_makes_no_doubt() -> None:
    ends = Ends(FAST_NS)
    ends.jitter_ns = 20 * MILLISECOND_NS
    ends.run(60)
    doubts = [one for one in ends.states if one[2] in (PathState.SUSPECT, PathState.FAILED)]
    assert len(doubts) <= 2


def test_the_pace_that_one_end_wants_is_followed_and_given_up_with_it() -> None:
    ends = Ends()
    ends.run(5)
    ends.ends[0].want(FAST_NS, PROBE_INTERVAL_NS_MIN, ends.now_ns)
    ends.run(5)
    followed = [probe for at, i, probe in ends.sent if i == 1 and at > ends.now_ns - SECOND_NS]
    assert 18 <= len(followed) <= 22
    assert not any(probe.flags & WANT for probe in followed)
    ends.ends[0].want(SECOND_NS, PROBE_INTERVAL_NS_MIN, ends.now_ns)
    ends.run(10)
    assert sum(at > ends.now_ns - 5 * SECOND_NS for at, i, _ in ends.sent if i == 1) <= 8


def test_losing_the_probe_that_announces_a_slower_pace_is_no_cut() -> None:
    ends = Ends(FAST_NS)
    ends.run(5)
    for path in ends.ends:
        path.want(SECOND_NS, PROBE_INTERVAL_NS_MIN, ends.now_ns)
    ends.slow_dropped = [False, False]
    ends.run(10)
    assert ends.slow_dropped == [True, True]
    assert PathState.FAILED not in {state for _, _, state, _ in ends.states}


def test_a_path_that_nobody_wants_falls_silent_without_being_failed() -> None:
    ends = Ends()
    ends.run(10)
    for path in ends.ends:
        path.want(0, PROBE_INTERVAL_NS_MIN, ends.now_ns)
    ends.run(20)
    sent = len(ends.sent)
    ends.run(20)
    assert len(ends.sent) == sent
    assert all(path.idle and path.state == PathState.OK for path in ends.ends)
    assert all(path.expect_ns == NEVER_NS for path in ends.ends)


def test_a_peer_cannot_make_us_probe_faster_than_the_floor() -> None:
    ends = Ends()
    ends.run(3)
    path = ends.ends[0]
    path.want(SECOND_NS, 250 * MILLISECOND_NS, ends.now_ns)
    path.receive(Probe(500, 1, 1, 0, 0, 0, 1, WANT), ends.now_ns)
    path.probe(ends.now_ns, 0)
    assert path.due_ns == ends.now_ns + 250 * MILLISECOND_NS


def test_questions_are_answered_at_once_but_answers_never_and_not_without_end() -> None:
    path = Path(START_NS)
    asked = Probe(1, 1, 50, 0, 0, 0, 1, ASK)
    assert path.receive(asked, START_NS)
    assert not path.receive(Probe(2, 1, 50, 0, 0, 0, 1, ASK | ANSWER), START_NS)
    assert not path.receive(Probe(3, 1, 50, 0, 0, 0, 1, ANSWER), START_NS)
    assert path.probe(START_NS, 0, answer=True).flags & (ASK | ANSWER) == ANSWER
    answered = sum(
        path.receive(Probe(sequence, 1, 50, 0, 0, 0, 1, ASK), START_NS + SECOND_NS) for sequence in range(4, 1_000)
    )
    assert 40 <= answered <= ANSWERS_BURST + 1
    assert path.receive(Probe(2_000, 1, 50, 0, 0, 0, 1, ASK), START_NS + 2 * SECOND_NS)


def test_questions_that_queued_up_get_one_answer() -> None:
    path = Path(START_NS)
    assert path.receive(Probe(1, 1, 50, 0, 0, 0, 1, ASK), START_NS)
    path.probe(START_NS, 0, answer=True)
    assert not path.receive(Probe(2, 1, 50, 0, 0, 0, 1, ASK), START_NS)
    assert path.receive(Probe(3, 1, 50, 0, 0, 0, 1, ASK), START_NS + 6 * MILLISECOND_NS)


def test_a_stall_of_our_own_is_not_the_peers_silence() -> None:
    ends = Ends(FAST_NS)
    ends.run(5)
    ends.wire.clear()  # What came during the stall was dropped.
    now_ns = ends.now_ns + 5 * SECOND_NS
    path = ends.ends[0]
    path.forgive(now_ns)
    assert not path.judge(now_ns)
    assert path.state == PathState.OK
    path.judge(path.check_ns)
    assert path.state == PathState.SUSPECT  # But the forgiveness is for once.


def test_without_forgiveness_the_same_stall_would_fail_the_path() -> None:
    ends = Ends(FAST_NS)
    ends.run(5)
    path = ends.ends[0]
    assert path.judge(ends.now_ns + 5 * SECOND_NS)
    assert path.state == PathState.FAILED


def test_a_stall_forgives_a_new_path_its_silence() -> None:
    path = Path(START_NS)
    path.want(SECOND_NS, PROBE_INTERVAL_NS_MIN, START_NS)
    path.probe(START_NS, 0)
    later_ns = START_NS + 10 * UNHEARD_NS
    path.forgive(later_ns)
    path.judge(later_ns)
    assert path.state == PathState.UNKNOWN


def test_echoes_that_cannot_be_true_measure_nothing() -> None:
    path = Path(START_NS)
    sent = path.probe(START_NS, 0)
    now_ns = START_NS + 80 * MILLISECOND_NS
    wrong_time = Probe(1, 1, 1000, sent.sequence, sent.sent_us ^ 1, 0, 1, 0)
    too_long = Probe(2, 1, 1000, sent.sequence, sent.sent_us, 90_000, 1, 0)
    unsent = Probe(3, 1, 1000, sent.sequence + 9, sent.sent_us, 0, 1, 0)
    for probe in (wrong_time, unsent):
        path.receive(probe, now_ns)
        assert path.predicted_us == 0
    path = Path(START_NS)
    path.probe(START_NS, 0)
    path.receive(too_long, now_ns)  # Held for longer than the probe has been away.
    assert path.predicted_us == 0


@pytest.mark.parametrize("began", [1 << 21, 1 << 31, (1 << 32) - 1_000_000])
@pytest.mark.parametrize("lived_s", [0.3, 10])
def test_a_peer_that_began_anew_is_followed(began: int, lived_s: float) -> None:
    """Also a young one, whose few numbers would all lie in the window of its successor if both counted from 1."""
    ends = Ends(FAST_NS)
    ends.run(lived_s)
    ends.ends[1] = Path(ends.now_ns, state_ns=ends.now_ns, sequence=began, began=began)
    ends.ends[1].want(FAST_NS, PROBE_INTERVAL_NS_MIN, ends.now_ns)
    ends.run(2)
    assert all(path.state == PathState.OK for path in ends.ends)
    assert all(path.loss_out() == path.loss_in() == 0 for path in ends.ends)


def test_an_echo_from_an_earlier_life_measures_nothing() -> None:
    path = Path(START_NS, sequence=1_000, began=1_000)
    path.probe(START_NS, 0)
    path.probe(START_NS + 1, 0)
    for echo, taken in ((1_000, False), (999, False), (1_003, False), (1 << 31, False), (1_001, True)):
        path.receive(Probe(1, 1, 1_000, echo, START_NS // 1000 % (1 << 32), 0, ALL_SEEN, 0), START_NS + SECOND_NS)
        assert (path.outward.width > 0) is taken, echo
