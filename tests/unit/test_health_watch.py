# SPDX-License-Identifier: Apache-2.0
"""Slow, busy, everybody slow, and an observer who is slow: the same latencies, told apart."""

from collections.abc import Callable
from random import Random

import pytest

from atoll.base.errors import LimitError, UsageError
from atoll.base.units import MILLISECOND_NS, MINUTE_NS, SECOND_NS
from atoll.health import watch as module
from atoll.health.model import State, Terms
from atoll.health.spec import Bound, Curve, Line, Quantiles, Specification
from atoll.health.watch import COUNTED_MAX, LATENCY_NS_MAX, Change, Watch

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


def test_a_component_that_is_asked_rarely_is_not_busy_by_being_asked_less_rarely() -> None:
    watch, rng, now_ns = Watch(TERMS), Random(3), 0
    for number in range(600):
        now_ns += SECOND_NS if number < 400 else 100 * MILLISECOND_NS
        watch.observe("disk:a", int(USUAL_NS * rng.lognormvariate(0, 0.1) * (3 if number >= 400 else 1)), now_ns)
    assert [change.after for change in watch.changes if change.told] == [State.SLOW]  # A third of one at a time.


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


@pytest.mark.parametrize(
    "spec",
    [
        Line(5 * MILLISECOND_NS, 1_000_000_000),
        Curve(((1, 6 * MILLISECOND_NS), (100, 105 * MILLISECOND_NS))),
    ],
)
def test_latency_is_specified_against_the_amount(spec: Specification) -> None:
    watch, rng = Watch(TERMS), Random(5)
    watch.specify("disk:a", spec)

    def write(number: int, slower: float) -> None:
        amount = rng.randrange(1, 100)
        watch.observe("disk:a", int((4 + amount) * MILLISECOND_NS * slower), number * 20 * MILLISECOND_NS, amount)

    for number in range(500):
        write(number, 1.0)
    assert [change.after for change in watch.changes] == [State.OK]
    for number in range(500, 700):
        write(number, 1.5)
    told = [change for change in watch.changes if change.told]
    assert [(change.after, change.cause.by) for change in told] == [(State.SLOW, "specification")]
    assert told[0].cause.usual_ns == pytest.approx(6 * MILLISECOND_NS, rel=0.01)
    assert told[0].cause.newest_ns == pytest.approx(9 * MILLISECOND_NS, rel=0.1)


def test_a_tail_is_specified_over_a_window_and_one_late_answer_is_no_stutter() -> None:
    watch = Watch(TERMS)
    watch.specify("db:main", Quantiles(((5000, 15 * MILLISECOND_NS), (9500, 50 * MILLISECOND_NS)), window=100))
    for number in range(1000):
        tail = 20 if number < 500 else 10
        watch.observe("db:main", (80 if number % tail == 0 else 10) * MILLISECOND_NS, number * 50 * MILLISECOND_NS)
    assert [change.after for change in watch.changes] == [State.OK, State.STUTTER, State.SLOW]
    told = watch.changes[-1]
    assert told.cause.evidence == ("specification",)
    assert told.cause.usual_ns == pytest.approx(50 * MILLISECOND_NS, rel=0.01)


def test_the_specification_is_what_was_declared_or_else_what_was_learnt() -> None:
    watch, rng = Watch(TERMS), Random(9)
    assert watch.specification("disk:a") is None
    watch.specify("disk:a", 20 * MILLISECOND_NS)
    assert watch.specification("disk:a") == Bound(20 * MILLISECOND_NS)
    watch.specify("disk:a", None)
    assert watch.specification("disk:a") is None
    for number in range(600):
        watch.observe("disk:a", int(USUAL_NS * rng.lognormvariate(0, 0.05)), number * SECOND_NS)
    learnt = watch.specification("disk:a")
    assert isinstance(learnt, Bound)
    assert 1.4 * USUAL_NS < learnt.latency_ns < 2 * USUAL_NS
    for number in range(600, 9000):
        amount = rng.choice((1, 8, 9, 1 << 60))
        factor = amount if amount < 10 else 20
        watch.observe("disk:a", int(USUAL_NS * factor * rng.lognormvariate(0, 0.05)), number * SECOND_NS, amount)
    learnt = watch.specification("disk:a")
    assert isinstance(learnt, Curve)
    assert [amount for amount, _ in learnt.points] == [1, 8, 1 << 48]
    assert learnt.points[1][1] == pytest.approx(8.5 * learnt.points[0][1], rel=0.3)
    watch.specify("disk:a", learnt)
    assert watch.specification("disk:a") == learnt


def test_how_sure_it_is_grows_with_what_speaks_and_is_nothing_where_nothing_does() -> None:
    def usual(name: str) -> float:
        return 4.0 if name == "disk:c" else 1.0

    group = Group(Watch(TERMS, alike=["disk"]), usual)
    group.run(60)
    by_peers = group.watch.standing("disk:c")
    assert by_peers is not None
    assert (by_peers.evidence, by_peers.confidence) == (("peers",), 79)  # 99 of 100, of four peers.
    well = group.watch.standing("disk:a")
    assert well is not None
    assert (well.evidence, well.confidence) == ((), 0)
    group.run(2, lambda name: 3.0 if name == "disk:c" else 1.0)
    by_both = group.watch.standing("disk:c")
    assert by_both is not None
    assert by_both.evidence == ("history", "peers", "load")
    assert 90 < by_both.confidence < 100
    group.watch.specify("disk:c", USUAL_NS)
    group.run(2, lambda name: 3.0 if name == "disk:c" else 1.0)
    by_all = group.watch.standing("disk:c")
    assert by_all is not None
    assert by_all.evidence == ("specification", "history", "peers", "load")
    assert by_all.confidence >= by_both.confidence


def test_what_is_explained_is_no_evidence() -> None:
    group = Group()
    group.run(60)
    group.run(5, lambda _: 3.0)
    assert {(standing.evidence, standing.confidence) for standing in group.watch.standings()} == {((), 0)}


def test_a_change_says_how_sure_it_was_and_by_what() -> None:
    group = Group()
    group.run(60)
    (slow,) = group.run(5, lambda name: 3.0 if name == "disk:c" else 1.0)
    assert slow.cause.evidence[0] == "history"
    assert slow.cause.confidence > 90
    (well,) = group.run(15)
    assert (well.cause.evidence, well.cause.confidence) == ((), 0)


def test_of_a_kind_of_very_many_who_is_late_is_counted_now_and_then() -> None:
    watch, rng, now_ns = Watch(TERMS), Random(3), 0
    names = [f"link:{number}" for number in range(COUNTED_MAX + 1)]

    def run(rounds: int, slower: Factor) -> list[str]:
        nonlocal now_ns
        for _ in range(rounds):
            now_ns += 200 * MILLISECOND_NS
            for name in names:
                watch.observe(name, int(USUAL_NS * rng.lognormvariate(0, 0.1) * slower(name)), now_ns)
        told = [change.component for change in watch.changes if change.told]
        watch.changes.clear()
        return told

    assert run(100, lambda _: 1.0) == []
    assert run(40, lambda _: 3.0) == []
    assert run(100, lambda _: 1.0) == []
    assert run(40, lambda name: 3.0 if name == "link:7" else 1.0) == ["link:7"]


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


def test_a_clock_that_steps_back_and_forth_tells_nobody_and_makes_nobody_busy() -> None:
    group = Group()
    group.run(60)
    group.now_ns -= 30 * SECOND_NS
    assert group.run(10) == []
    group.now_ns += 3600 * SECOND_NS
    assert group.run(10) == []
    group.now_ns -= 3600 * SECOND_NS
    (slow,) = group.run(5, lambda name: 3.0 if name == "disk:c" else 1.0)
    assert (slow.component, slow.after) == ("disk:c", State.SLOW)
    group.now_ns -= 3600 * SECOND_NS
    assert group.run(1000, per_s=2) == []  # Its time stands still until it has passed again, and so does its recovery.
    group.now_ns += 3600 * SECOND_NS
    (well,) = group.run(20)
    assert (well.component, well.after) == ("disk:c", State.OK)


def test_a_clock_that_steps_back_is_no_load() -> None:
    group = Group()
    group.run(60)
    group.run(1, lambda name: 3.0 if name == "disk:c" else 1.0)
    group.now_ns -= 10 * SECOND_NS
    for _ in range(8):
        group.run(0.02, lambda name: 3.0 if name == "disk:c" else 1.0)
        standing = group.watch.standing("disk:c")
        assert standing is not None
        assert standing.evidence[:1] == ("history",)


def test_any_amount_is_taken() -> None:
    watch = Watch(TERMS)
    for number, amount in enumerate((0, -1, -(1 << 70), 1, 2, 3, 1 << 47, 1 << 48, 1 << 70, 10**400) * 20):
        watch.observe("disk:a", USUAL_NS, number * SECOND_NS, amount)
    standing = watch.standing("disk:a")
    assert standing is not None
    assert (standing.state, standing.samples) == (State.OK, 200)


def test_everybody_beyond_what_was_declared_is_a_common_cause_as_well() -> None:
    group = Group()
    for name in NAMES:
        group.watch.specify(name, 15 * MILLISECOND_NS)
    group.run(60)
    assert group.run(20, lambda _: 3.0) == []
    assert [change.component for change in group.run(5, lambda name: 3.0 if name == "disk:b" else 1.0)] == ["disk:b"]


def test_everybody_who_was_never_as_declared_is_a_common_cause_too() -> None:
    group = Group()
    for name in NAMES:
        group.watch.specify(name, 5 * MILLISECOND_NS)
    assert group.run(60) == []
    group.watch.specify("disk:a", None)
    group.watch.specify("disk:b", None)
    group.watch.specify("disk:c", None)
    assert {change.component for change in group.run(10)} == {"disk:d", "disk:e"}


def test_what_never_reports_is_unknown_and_what_is_forgotten_is_no_more() -> None:
    watch = Watch(TERMS, alike=["disk", "tape"])
    watch.specify("disk:a", SECOND_NS)
    standing = watch.standing("disk:a")
    assert standing is not None
    assert standing.state is State.UNKNOWN
    watch.tick(MINUTE_NS)
    watch.forget("disk:a")
    watch.forget("disk:a")
    watch.tick(2 * MINUTE_NS)
    watch.observe("disk:b", 1, 1)
    watch.observe("disk:c", 1, 1)
    watch.forget("disk:c")
    assert [standing.component for standing in watch.standings()] == ["disk:b"]
    watch.forget("disk:b")
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
