# SPDX-License-Identifier: Apache-2.0
"""High and rarer is slow, high and more often is load, high alone is neither."""

from random import Random

from atoll.base.units import HOUR_NS, SECOND_NS
from atoll.health.detectors.frequency import SECONDS_MIN, Frequency
from atoll.health.detectors.verdict import Verdict


class Stream:
    """Values that come at a rate."""

    def __init__(self) -> None:
        self.frequency, self._rng, self.now_ns = Frequency(), Random(1), 0

    def run(self, seconds: int, per_s: int, slower: float = 1.0) -> list[Verdict]:
        """Return what was said at the end of each second."""
        said, verdict = list[Verdict](), Verdict.NOTHING
        for _ in range(seconds):
            count = per_s + self._rng.randrange(-2, 3)
            for number in range(count):
                at_ns = self.now_ns + number * SECOND_NS // count
                verdict = self.frequency.observe(int(1000 * slower * self._rng.lognormvariate(0, 0.1)), at_ns)
            said.append(verdict)
            self.now_ns += SECOND_NS
        return said


def test_slow_is_high_and_rarer() -> None:
    stream = Stream()
    assert set(stream.run(60, 50)[SECONDS_MIN + 1 :]) == {Verdict.WELL}
    assert set(stream.run(20, 20, 2.5)[1:]) == {Verdict.SLOW}
    assert set(stream.run(20, 50)[1:]) == {Verdict.WELL}


def test_more_often_is_load_and_what_was_known_is_forgotten() -> None:
    stream = Stream()
    stream.run(60, 50)
    said = stream.run(20, 200, 2.5)
    assert Verdict.BUSY in said
    assert said[-1] is Verdict.WELL
    assert Verdict.SLOW not in stream.run(20, 200, 2.5)


def test_after_the_load_has_grown_nothing_is_said_until_enough_is_known_again() -> None:
    stream = Stream()
    stream.run(60, 10)
    said = stream.run(6, 40, 2.5)
    after = said.index(Verdict.BUSY) + 1
    assert said[after : after + 2] == [Verdict.NOTHING] * 2


def test_high_at_the_usual_rate_is_not_told_apart() -> None:
    stream = Stream()
    stream.run(60, 50)
    assert Verdict.SLOW not in stream.run(20, 50, 2.5)


def test_rarer_alone_is_nothing() -> None:
    stream = Stream()
    stream.run(60, 50)
    assert set(stream.run(20, 20)[1:]) == {Verdict.WELL}


def test_nothing_is_said_without_a_past() -> None:
    assert set(Stream().run(SECONDS_MIN, 50)) == {Verdict.NOTHING}
    assert Frequency().observe(5, HOUR_NS) is Verdict.NOTHING


def test_silence_is_a_frequency_too_and_costs_no_more_than_its_window() -> None:
    stream = Stream()
    stream.run(60, 50)
    stream.now_ns += 10**6 * HOUR_NS
    assert stream.run(2, 50, 9.0)[-1] is Verdict.BUSY  # Against hours of nothing, anything is more often.


def test_times_that_go_back_and_very_many_in_one_second_are_taken() -> None:
    stream = Stream()
    stream.run(60, 50)
    for number in range(5000):
        stream.frequency.observe(1000, stream.now_ns - number)
    assert stream.run(5, 50)[-1] is Verdict.WELL
