# SPDX-License-Identifier: Apache-2.0
"""Slow, busy, everybody slow, and an observer who is slow: the same latencies, told apart."""

from collections.abc import Callable
from random import Random

import pytest

from atoll.base.errors import LimitError, UsageError
from atoll.base.units import MILLISECOND_NS, MINUTE_NS, SECOND_NS
from atoll.health import watch as module
from atoll.health.model import State, Terms
from atoll.health.watch import LATENCY_NS_MAX, Change, Watch

USUAL_NS = 10 * MILLISECOND_NS
TERMS = Terms(persist_ns=2 * SECOND_NS, recover_ns=10 * SECOND_NS)
NAMES = ("disk:a", "disk:b", "disk:c", "disk:d", "disk:e")
Factor = Callable[[str], float]


class Group:
    """Five disks that are asked in turn."""

    def __init__(self, watch: Watch | None = None, usual: Factor = lambda _: 1.0) -> None:
        self.watch = watch or Watch(TERMS)
        self._rng, self._usual, self.now_ns = Random(7), usual, 0

    def run(self, seconds: float, slower: Factor = lambda _: 1.0, per_s: float = 50.0) -> list[Change]:
        """Ask each of them so often; return what was told."""
        for _ in range(int(seconds * per_s)):
            self.now_ns += int(SECOND_NS / per_s)
            for name in NAMES:
                latency = USUAL_NS * self._rng.lognormvariate(0, 0.1) * self._usual(name) * slower(name)
                self.watch.observe(name, int(latency), self.now_ns)
            self.watch.tick(self.now_ns)
        told = [change for change in self.watch.changes if change.told]
        self.watch.changes.clear()
        return told


def test_one_slow_component_is_told_with_its_onset_and_its_numbers() -> None:
    group = Group()
    assert group.run(60) == []
    onset_ns = group.now_ns
    (change,) = group.run(5, lambda name: 3.0 if name == "disk:c" else 1.0)
    assert (change.component, change.before, change.after) == ("disk:c", State.STUTTER, State.SLOW)
    assert 0 <= change.since_ns - onset_ns <= 200 * MILLISECOND_NS
    assert 0 < change.at_ns - change.since_ns - TERMS.persist_ns <= 100 * MILLISECOND_NS
    assert change.cause.by == "history"
    assert change.cause.usual_ns == pytest.approx(USUAL_NS, rel=0.1)
    assert change.cause.newest_ns == pytest.approx(3 * USUAL_NS, rel=0.2)


def test_it_recovers_after_a_while_within() -> None:
    group = Group()
    group.run(60)
    group.run(5, lambda name: 3.0 if name == "disk:c" else 1.0)
    (change,) = group.run(15)
    assert (change.before, change.after) == (State.SLOW, State.OK)


def test_everybody_slow_accuses_nobody() -> None:
    group = Group()
    group.run(60)
    assert group.run(20, lambda _: 3.0) == []
    assert {standing.state for standing in group.watch.standings()} <= {State.OK, State.STUTTER}


def test_a_busy_component_is_not_slow() -> None:
    group = Group()
    group.run(60)
    assert group.run(20, lambda name: 3.0 if name == "disk:c" else 1.0, per_s=200) == []


def test_an_observer_that_is_late_itself_has_no_evidence() -> None:
    group = Group()
    group.run(60)
    for _ in range(3):
        group.watch.doubt.turned(SECOND_NS)
    assert group.run(20, lambda name: 3.0 if name == "disk:c" else 1.0) == []
    for _ in range(3):
        group.watch.doubt.turned(0)
    assert [change.component for change in group.run(5, lambda name: 3.0 if name == "disk:c" else 1.0)] == ["disk:c"]


def test_who_was_always_slow_is_found_among_its_peers_where_they_should_be_alike() -> None:
    def usual(name: str) -> float:
        return 4.0 if name == "disk:c" else 1.0

    assert Group(usual=usual).run(60) == []
    (change,) = Group(Watch(TERMS, alike=["disk"]), usual).run(60)
    assert (change.component, change.after, change.cause.by) == ("disk:c", State.SLOW, "peers")
    assert change.cause.usual_ns == pytest.approx(USUAL_NS, rel=0.1)


def test_what_has_been_slow_for_a_day_is_what_it_is() -> None:
    group = Group()
    group.run(600 * 60, per_s=1 / 60)
    (slow,) = group.run(23 * 3600, lambda name: 3.0 if name == "disk:c" else 1.0, per_s=1 / 60)
    (well,) = group.run(20 * 3600, lambda name: 3.0 if name == "disk:c" else 1.0, per_s=1 / 60)
    assert (slow.after, well.after) == (State.SLOW, State.OK)
    standing = group.watch.standing("disk:c")
    assert standing is not None
    assert standing.usual_ns == pytest.approx(3 * USUAL_NS, rel=0.1)


def test_no_more_than_the_stated_share_is_shunned_the_worst_first() -> None:
    group = Group()
    group.run(60)
    group.run(5, lambda name: {"disk:c": 3.0, "disk:e": 9.0}.get(name, 1.0))
    assert [standing.component for standing in group.watch.standings() if standing.state is State.SLOW] == [
        "disk:c",
        "disk:e",
    ]
    assert group.watch.shunned("disk") == ["disk:e"]
    assert group.watch.shunned("link") == []


def test_more_takes_longer_and_is_no_fault() -> None:
    watch, rng = Watch(TERMS), Random(3)

    def write(number: int, slower: float = 1.0) -> None:
        amount = 1 << rng.randrange(12, 22)
        latency_ns = (100_000 + 5 * amount) * rng.lognormvariate(0, 0.1) * slower
        watch.observe("disk:a", int(latency_ns), number * 20 * MILLISECOND_NS, amount=amount)

    for number in range(8000):
        write(number)
    assert [change for change in watch.changes if change.told] == []
    for number in range(8000, 8200):
        write(number, 2.0)
    assert [change.after for change in watch.changes if change.told] == [State.SLOW]


def test_a_declared_specification_counts_from_the_first_sample() -> None:
    watch = Watch(TERMS)
    watch.specify("db:main", 20 * MILLISECOND_NS)
    for number in range(100):
        watch.observe("db:main", 50 * MILLISECOND_NS, number * 100 * MILLISECOND_NS)
    told = [change for change in watch.changes if change.told]
    assert [(change.after, change.cause.by) for change in told] == [(State.SLOW, "specification")]
    watch.specify("db:main", None)
    for number in range(100, 500):
        watch.observe("db:main", 50 * MILLISECOND_NS, number * 100 * MILLISECOND_NS)
    standing = watch.standing("db:main")
    assert standing is not None
    assert standing.state is State.OK


def test_samples_that_cannot_be_are_counted_and_change_nothing() -> None:
    watch = Watch(TERMS)
    for latency_ns in (-1, LATENCY_NS_MAX + 1):
        watch.observe("disk:a", latency_ns, 5)
    watch.observe("disk:a", 5, MINUTE_NS, now_ns=5)
    assert watch.refused == {"latency": 2, "future": 1}
    assert watch.standing("disk:a") is None


def test_samples_out_of_order_are_taken_and_time_does_not_go_back() -> None:
    group = Group()
    group.run(60)
    for number in range(100):
        group.watch.observe("disk:a", 3 * USUAL_NS, number)
    standing = group.watch.standing("disk:a")
    assert standing is not None
    assert standing.state is State.STUTTER


def test_what_never_reports_is_unknown_and_what_is_forgotten_is_no_more() -> None:
    watch = Watch(TERMS)
    watch.specify("disk:a", SECOND_NS)
    standing = watch.standing("disk:a")
    assert standing is not None
    assert standing.state is State.UNKNOWN
    watch.tick(MINUTE_NS)
    watch.forget("disk:a")
    assert list(watch.standings()) == []


def test_limits_and_nonsense_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(TERMS)
    for name in ("", "x" * 201):
        with pytest.raises(UsageError):
            watch.observe(name, 1, 1)
    with pytest.raises(UsageError):
        watch.specify("disk:a", 0)
    with pytest.raises(UsageError):
        Watch(shunned_share=51)
    monkeypatch.setattr(module, "COMPONENTS_MAX", 1)
    watch.observe("disk:a", 1, 1)
    with pytest.raises(LimitError):
        watch.observe("disk:b", 1, 1)
