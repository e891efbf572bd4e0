# SPDX-License-Identifier: Apache-2.0
"""Programs that members reach: each is judged by its own past, by what waits as by what came, and by all its callers.

One that nobody tries any more gets another chance.
"""

import pytest

from atoll.base.units import HOUR_NS, MILLISECOND_NS, MINUTE_NS, SECOND_NS
from atoll.health.members import programs as programs_module
from atoll.health.members.bulletin import Found
from atoll.health.members.programs import (
    FORGOTTEN_NS,
    OVERDUE_NS,
    PROGRAM,
    PROGRAM_FLOOR_NS,
    PROGRAMS_MAX,
    QUIET_NS,
    REFUSED_NS,
    WITNESS_NS,
    Call,
    Programs,
)
from atoll.health.model import State, Terms
from atoll.health.spec import LATENCY_NS_MAX
from atoll.health.watch import Watch

PORT = 8080
SLOW_MS = 900
A, B, C = b"A" * 10, b"B" * 10, b"C" * 10
NAME = f"program:{PORT}"


class Machine:
    """A machine whose programs answer as a test says, four times a second."""

    def __init__(self) -> None:
        self.watch = Watch(Terms(), floors_ns={PROGRAM: PROGRAM_FLOOR_NS})
        self.programs = Programs(self.watch)
        self.now_ns = 1000 * SECOND_NS
        self.number = 0

    def call(self, caller: bytes = A, *, is_asked: bool = True) -> Call:
        self.number += 1
        return Call(caller, self.number, is_asked=is_asked)

    def answer(self, latency_ms: int, caller: bytes = A, port: int = PORT, *, is_asked: bool = True) -> None:
        self.programs.served(port, latency_ms * MILLISECOND_NS, self.call(caller, is_asked=is_asked), self.now_ns)

    def answers(self, latency_ms: int, seconds: int, port: int = PORT, caller: bytes = A) -> list[Found]:
        found: list[Found] = []
        for _ in range(4 * seconds):
            self.now_ns += SECOND_NS // 4
            self.answer(latency_ms, caller, port)
            found += self.programs.found(self.now_ns)
        return found

    def answers_each(self, seconds: int, **latencies_ms: int) -> list[Found]:
        """Answer several callers, by their letters, in turn, once a second."""
        found: list[Found] = []
        for _ in range(seconds):
            self.now_ns += SECOND_NS
            for letter, latency_ms in latencies_ms.items():
                self.answer(latency_ms, letter.encode() * 10)
            found += self.programs.found(self.now_ns)
        return found

    def connect(self, caller: bytes = A, *, is_asked: bool = True) -> Call:
        """Return a connection that waits from now on."""
        call = self.call(caller, is_asked=is_asked)
        self.programs.waits(PORT, Call(call.caller, call.number, is_asked=False), self.now_ns)
        if is_asked:
            self.programs.waits(PORT, call, self.now_ns)
        return call

    def connects(self, seconds: int, gap_s: int = 1, caller: bytes = A, patience_s: int = 0) -> list[Found]:
        """Connect, ask and get no answer; give up after some seconds (0: never)."""
        found: list[Found] = []
        open_: list[tuple[int, Call]] = []
        for second in range(seconds):
            if second % gap_s == 0:
                open_.append((second, self.connect(caller)))
            if patience_s and open_ and second - open_[0][0] >= patience_s:
                self.programs.ended(open_.pop(0)[1], self.now_ns)
            found += self.rests(1)
        return found

    def rests(self, seconds: int) -> list[Found]:
        """Let time pass in which nobody connects."""
        found: list[Found] = []
        for _ in range(seconds):
            self.now_ns += SECOND_NS
            found += self.programs.found(self.now_ns)
        return found

    def refuses(self, seconds: int, gap_s: int = 1, caller: bytes = A) -> list[Found]:
        found: list[Found] = []
        for _ in range(0, seconds, gap_s):
            self.programs.refused(PORT, self.call(caller), self.now_ns)
            found += self.rests(gap_s)
        return found

    def samples(self) -> int:
        standing = self.programs.standing(PORT)
        return 0 if standing is None else standing.samples

    def state(self) -> State | None:
        standing = self.programs.standing(PORT)
        return None if standing is None else standing.state


def states(found: list[Found]) -> list[State]:
    assert all((one.of, one.what) == (b"", NAME) for one in found)
    return [one.state for one in found]


def slow_machine() -> Machine:
    """Return one whose program was quick for long, and is slow now."""
    machine = Machine()
    assert machine.answers(30, 60) == []
    assert states(machine.answers(SLOW_MS, 20)) == [State.SLOW]
    assert machine.state() is State.SLOW
    return machine


def test_a_program_is_judged_by_its_own_past_and_the_others_are_not() -> None:
    machine = slow_machine()
    assert machine.programs.standing(PORT + 1) is None
    machine.answers(SLOW_MS, 30, PORT + 1)
    other = machine.programs.standing(PORT + 1)
    assert other is not None
    assert other.state is State.OK, "it always took so long"
    standing = machine.programs.standing(PORT)
    assert standing is not None
    assert 25 * MILLISECOND_NS < standing.usual_ns < 35 * MILLISECOND_NS


def test_what_nobody_would_notice_is_no_fault() -> None:
    machine = Machine()
    machine.answers(1, 60)
    machine.answers(18, 60)
    standing = machine.programs.standing(PORT)
    assert standing is not None
    assert standing.state is State.OK
    assert standing.newest_ns < PROGRAM_FLOOR_NS


# Excuses.


def test_a_slow_program_that_nobody_tries_is_told_to_be_well_once() -> None:
    machine = slow_machine()
    assert not machine.programs.is_withheld(NAME)
    assert machine.rests(QUIET_NS // SECOND_NS - 1) == []
    (found,) = machine.rests(100)
    assert (found.of, found.what, found.state) == (b"", NAME, State.OK)
    assert machine.programs.is_withheld(NAME)
    assert machine.state() is State.SLOW, "what was measured last has not changed"


def test_one_late_answer_of_it_is_enough_to_be_slow_again_with_the_old_onset() -> None:
    machine = slow_machine()
    standing = machine.programs.standing(PORT)
    assert standing is not None
    machine.rests(2 * QUIET_NS // SECOND_NS)
    (found,) = machine.answers(SLOW_MS, 1)
    assert (found.what, found.state, found.since_ns) == (NAME, State.SLOW, standing.since_ns)
    assert not machine.programs.is_withheld(NAME)
    (found,) = machine.rests(2 * QUIET_NS // SECOND_NS)
    assert found.state is State.OK, "and so on, as long as it lasts"


def test_answers_in_time_keep_it_excused_until_it_is_well() -> None:
    machine = slow_machine()
    machine.rests(2 * QUIET_NS // SECOND_NS)
    assert machine.answers(30, 40) == []
    assert machine.state() is State.SLOW
    assert machine.programs.is_withheld(NAME)
    assert machine.answers(30, 40) == []
    assert machine.state() is State.OK


def test_a_program_that_gets_well_is_told_to_be() -> None:
    machine = slow_machine()
    assert states(machine.answers(30, 80)) == [State.OK]
    assert machine.state() is State.OK


# What waits.


@pytest.mark.parametrize(("gap_s", "patience_s"), [(1, 0), (1, 5), (5, 5), (30, 0), (30, 20)])
def test_a_program_that_hangs_is_slow_although_no_answer_comes(gap_s: int, patience_s: int) -> None:
    machine = Machine()
    assert machine.answers(5, 60) == []
    found = machine.connects(120, gap_s, patience_s=patience_s)
    assert states(found)[0] is State.SLOW
    assert states(found).count(State.SLOW) <= 2


@pytest.mark.parametrize("gap_s", [5, 60])
def test_a_program_that_is_seldom_asked_hangs_as_well(gap_s: int) -> None:
    machine = Machine()
    for _ in range(60):
        machine.answer(5)
        machine.rests(20)
    assert states(machine.connects(60, gap_s)) == [State.SLOW], "and the load does not explain it"


def test_of_many_that_wait_for_a_hung_program_it_is_slow_as_long_as_they_do() -> None:
    machine = Machine()
    machine.answers(5, 60)
    calls = [machine.connect() for _ in range(10)]
    assert states(machine.rests(30)) == [State.SLOW]
    assert machine.rests(600) == [], "nobody has to try it"
    for call in calls:
        machine.programs.ended(call, machine.now_ns)
    assert states(machine.rests(70)) == [State.OK]


def test_connections_over_which_nothing_was_sent_are_owed_nothing() -> None:
    machine = Machine()
    machine.answers(5, 60)
    for _ in range(100):
        machine.connect(is_asked=False)
    assert machine.rests(300) == []
    assert machine.state() is State.OK


def test_a_program_that_speaks_first_hangs_when_it_does_not() -> None:
    machine = Machine()
    for _ in range(100):
        machine.answer(5, is_asked=False)
        machine.rests(1)
    for _ in range(10):
        machine.connect(is_asked=False)
    assert states(machine.rests(30)) == [State.SLOW]


def test_a_program_whose_usual_answer_takes_minutes_is_not_late() -> None:
    machine = Machine()
    for _ in range(50):
        call = machine.connect()
        assert machine.rests(180) == []
        machine.programs.served(PORT, 180 * SECOND_NS, call, machine.now_ns)
    assert machine.state() is State.OK
    standing = machine.programs.standing(PORT)
    assert standing is not None
    assert standing.usual_ns == pytest.approx(180 * SECOND_NS, rel=0.1), "no wait was taken for an answer"


def test_long_polls_among_quick_answers_are_usual_once_known() -> None:
    machine = Machine()
    for _ in range(20):
        poll = machine.connect()
        assert machine.answers(5, 30) == []
        machine.programs.served(PORT, 30 * SECOND_NS, poll, machine.now_ns)
    machine.connect()
    assert machine.rests(30) == []


def test_one_request_that_hangs_while_others_are_answered_counts_once() -> None:
    machine = Machine()
    machine.answers(5, 60)
    machine.connect()
    assert machine.answers(5, 300) == []
    assert machine.samples() == 4 * 360 + 1


def test_who_gives_up_soon_or_while_others_are_answered_accuses_nobody() -> None:
    machine = Machine()
    machine.answers(5, 60)
    now_ns = machine.now_ns
    for _ in range(10):
        machine.programs.ended(machine.connect(), now_ns + OVERDUE_NS - 1)
        machine.programs.ended(machine.connect(), now_ns + 10 * SECOND_NS, 11 * SECOND_NS)  # This node itself is late.
        machine.programs.ended(machine.connect(is_asked=False), now_ns + MINUTE_NS)
    for _ in range(10):
        call = machine.connect()
        machine.answers(5, 2)
        machine.programs.ended(call, machine.now_ns + MINUTE_NS)
    assert machine.samples() == 4 * 80
    call = machine.connect()
    machine.programs.ended(call, machine.now_ns + OVERDUE_NS)
    assert machine.samples() == 4 * 80 + 1
    machine.programs.ended(call, machine.now_ns + OVERDUE_NS)
    assert machine.samples() == 4 * 80 + 1, "it ends once"


def test_while_this_node_is_late_itself_a_wait_shows_nothing() -> None:
    machine = Machine()
    machine.answers(5, 60)
    machine.connect()
    for _ in range(60):
        machine.now_ns += SECOND_NS
        assert machine.programs.found(machine.now_ns, HOUR_NS) == []
    assert machine.state() is State.OK


def test_an_answer_that_nobody_timed_ends_its_wait_all_the_same() -> None:
    machine = Machine()
    machine.programs.unmeasured(PORT, machine.connect(), machine.now_ns)
    assert machine.programs.standing(PORT) is None
    machine.answers(5, 60)
    machine.programs.unmeasured(PORT, machine.connect(), machine.now_ns)
    assert machine.rests(50) == []
    assert machine.state() is State.OK


def test_of_a_program_that_never_answered_nothing_is_known() -> None:
    machine = Machine()
    call = machine.connect()
    machine.rests(100)
    machine.programs.ended(call, machine.now_ns)
    assert machine.refuses(100) == []
    assert machine.programs.standing(PORT) is None


# Refusals.


@pytest.mark.parametrize("gap_s", [1, 5, 10])
@pytest.mark.parametrize("usual_s", [1, 20])
def test_a_program_that_is_down_is_slow_and_is_tried_again(gap_s: int, usual_s: int) -> None:
    machine = Machine()
    for _ in range(60):
        machine.answer(5)
        machine.rests(usual_s)
    assert states(machine.refuses(60, gap_s)) == [State.SLOW]
    assert states(machine.rests(70)) == [State.OK]
    assert states(machine.refuses(1)) == [State.SLOW]


def test_a_single_refusal_shows_nothing() -> None:
    machine = Machine()
    machine.answers(5, 60)
    machine.refuses(1)
    assert machine.answers(5, 20) == []
    assert machine.state() is State.OK


def test_refusals_in_a_row_are_one_in_five_seconds() -> None:
    machine = Machine()
    machine.answers(5, 60)
    for _ in range(100):
        machine.programs.refused(PORT, machine.call(), machine.now_ns)
    assert machine.samples() == 4 * 60 + 1
    machine.now_ns += REFUSED_NS
    machine.programs.refused(PORT, machine.call(), machine.now_ns)
    assert machine.samples() == 4 * 60 + 2


# Callers.


def accused_machine() -> Machine:
    """Return one to which one member sends half requests, which end after a minute; another is served well."""
    machine = Machine()
    for latency_ms in (5, 60_000):
        for _ in range(100):
            assert machine.answers(latency_ms, 1, caller=A) == []
            machine.answer(5, B)
    return machine


def test_one_caller_cannot_accuse_a_program_that_another_finds_quick() -> None:
    machine = accused_machine()
    standing = machine.watch.standing(NAME)
    assert standing is not None
    assert standing.state is State.SLOW, "most of its answers are late"
    assert machine.state() is State.STUTTER, "nor does it look slow on its own machine"
    assert machine.programs.is_withheld(NAME)
    assert states(machine.answers_each(20, A=60_000, B=60_000)) == [State.SLOW]


def test_one_caller_alone_cannot_by_waits_refusals_or_what_takes_long_by_its_nature() -> None:
    machine = Machine()
    machine.answers_each(60, A=5, B=5)
    assert machine.refuses(60) == []
    machine.answers_each(2, B=5)
    assert machine.connects(120) == []
    machine.answers_each(2, B=5)
    assert machine.answers_each(120, A=800, B=5) == []


def test_what_two_callers_find_late_is_slow() -> None:
    machine = Machine()
    machine.answers_each(60, A=5, B=5, C=5)
    assert states(machine.answers_each(20, A=900, B=700)) == [State.SLOW]
    assert machine.answers_each(30, A=900, B=700, C=5) == []


def test_it_is_well_again_when_one_of_two_only_goes_on() -> None:
    machine = Machine()
    machine.answers_each(60, A=5, B=5)
    assert states(machine.answers_each(20, A=900, B=900)) == [State.SLOW]
    assert machine.answers_each(4, A=900, B=5) == [], "a fault may come and go"
    assert states(machine.answers_each(30, A=900, B=5)) == [State.OK]


def test_two_that_recover_are_told_once() -> None:
    machine = Machine()
    machine.answers_each(60, A=5, B=5)
    machine.answers_each(20, A=900, B=900)
    assert machine.answers_each(100, A=100, B=60) == [], "better, and still late"
    assert machine.answers_each(25, A=5, B=5) == []
    assert states(machine.answers_each(100, A=5, B=5)) == [State.OK]
    assert machine.state() is State.OK


def test_an_accusation_that_ended_is_not_borne_out_by_chance() -> None:
    machine = accused_machine()
    assert machine.answers(5, 10, caller=C) == []
    for _ in range(3):
        machine.answer(60_000, B)
    assert machine.answers(5, 10, caller=C) == []
    standing = machine.watch.standing(NAME)
    assert standing is not None
    assert standing.state is State.SLOW, "what it found is late no more, and not over yet"
    assert machine.answers(5, 80, caller=C) == []
    assert machine.state() is State.OK


def test_a_hang_is_told_when_the_second_caller_meets_it() -> None:
    machine = Machine()
    machine.answers_each(60, A=5, B=5)
    assert machine.connects(30) == [], "the other was answered a moment ago"
    for _ in range(3):
        machine.connect(B)
    assert states(machine.rests(20)) == [State.SLOW]


def test_who_has_not_called_for_long_is_no_witness() -> None:
    machine = Machine()
    machine.answers_each(60, A=5, B=5)
    assert machine.connects(WITNESS_NS // SECOND_NS - 1) == []
    assert states(machine.connects(10)) == [State.SLOW], "whoever is left has the word"


def test_of_callers_too_many_the_one_heard_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    for most, told in ((2, []), (1, [State.SLOW])):
        monkeypatch.setattr(programs_module, "CALLERS_MAX", most)
        machine = Machine()
        machine.answers_each(60, A=5, B=5)
        machine.answer(900, A)
        assert states(machine.answers_each(20, A=900)) == told, "B's word is gone with its place"


def test_after_a_stall_the_next_hang_is_found_again_once_some_answers_came_in_time() -> None:
    machine = Machine()
    machine.answers(5, 60)
    machine.answer(60_000)
    machine.answers(5, 60)
    for _ in range(3):
        machine.connect()
    assert states(machine.rests(20)) == [State.SLOW], "and not after two minutes only"


# Limits.


def test_a_port_too_many_is_not_watched_until_one_is_forgotten() -> None:
    machine = Machine()
    for port in range(1, PROGRAMS_MAX + 2):
        machine.answer(1000, port=port)
    assert machine.programs.standing(PROGRAMS_MAX) is not None
    assert machine.programs.standing(PROGRAMS_MAX + 1) is None
    assert machine.rests(1) == []
    machine.now_ns += FORGOTTEN_NS
    assert machine.programs.found(machine.now_ns) == []
    assert list(machine.watch.standings()) == []
    machine.answer(1000, port=PROGRAMS_MAX + 1)
    assert machine.programs.standing(PROGRAMS_MAX + 1) is not None


def test_a_slow_port_that_is_forgotten_is_told_to_be_well_first() -> None:
    machine = slow_machine()
    machine.now_ns += FORGOTTEN_NS  # As after a machine's sleep: nobody was told before.
    assert states(machine.programs.found(machine.now_ns)) == [State.OK]
    assert machine.state() is None
    assert machine.answers(SLOW_MS, 60) == [], "it has no past any more"


def test_a_port_that_somebody_waits_for_is_not_forgotten() -> None:
    machine = Machine()
    machine.answers(5, 60)
    call = machine.connect(is_asked=False)
    machine.now_ns += 2 * FORGOTTEN_NS
    assert machine.programs.found(machine.now_ns) == []
    assert machine.state() is State.OK
    machine.programs.ended(call, machine.now_ns)
    machine.programs.found(machine.now_ns)
    assert machine.state() is None


def test_what_cannot_be_measured_is_forgotten_as_well() -> None:
    machine = Machine()
    machine.programs.served(PORT, LATENCY_NS_MAX + 1, machine.call(), machine.now_ns)
    assert machine.rests(1) == []
    machine.now_ns += FORGOTTEN_NS
    assert machine.programs.found(machine.now_ns) == []
    machine.answer(5)
    assert machine.state() is not None


def test_of_a_wait_too_many_only_the_answer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs_module, "WAITS_MAX", 1)
    machine = Machine()
    machine.answers(5, 60)
    first, second = machine.connect(), machine.connect()
    machine.programs.ended(second, machine.now_ns + MINUTE_NS)
    machine.programs.served(PORT, SECOND_NS, first, machine.now_ns)
    third = machine.connect()
    machine.programs.ended(third, machine.now_ns + MINUTE_NS)
    assert machine.samples() == 4 * 60 + 2


def test_components_of_other_kinds_stand_as_the_watch_says() -> None:
    machine = slow_machine()
    machine.watch.observe("disk", SECOND_NS, machine.now_ns)
    machine.watch.observe("program:1", SECOND_NS, machine.now_ns)
    for name in ("disk", "program:1"):
        standing = machine.watch.standing(name)
        assert standing is not None
        assert machine.programs.shown(standing) == standing
        assert not machine.programs.is_withheld(name)
