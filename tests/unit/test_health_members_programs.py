# SPDX-License-Identifier: Apache-2.0
"""Programs that members reach: each is judged by its own past; one that nobody tries any more gets another chance."""

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.health.members.bulletin import Found
from atoll.health.members.programs import PROGRAM, PROGRAM_FLOOR_NS, PROGRAMS_MAX, QUIET_NS, Programs
from atoll.health.model import State, Terms
from atoll.health.watch import Watch

PORT = 8080
SLOW_MS = 900


class Machine:
    """A machine whose programs answer as a test says, four times a second."""

    def __init__(self) -> None:
        self.watch = Watch(Terms(), floors_ns={PROGRAM: PROGRAM_FLOOR_NS})
        self.programs = Programs(self.watch)
        self.now_ns = 1000 * SECOND_NS

    def answers(self, latency_ms: int, seconds: int, port: int = PORT) -> list[Found]:
        found: list[Found] = []
        for _ in range(4 * seconds):
            self.now_ns += SECOND_NS // 4
            self.programs.served(port, latency_ms * MILLISECOND_NS, self.now_ns)
            found += self.programs.found(self.now_ns)
        return found

    def rests(self, seconds: int) -> list[Found]:
        """Let time pass in which nobody connects."""
        found: list[Found] = []
        for _ in range(seconds):
            self.now_ns += SECOND_NS
            found += self.programs.found(self.now_ns)
        return found

    def state(self) -> State | None:
        standing = self.programs.standing(PORT)
        return None if standing is None else standing.state


def slow_machine() -> Machine:
    """Return one whose program was quick for long, and is slow now."""
    machine = Machine()
    assert machine.answers(30, 60) == []
    assert machine.answers(SLOW_MS, 20) == []
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


def test_a_slow_program_that_nobody_tries_is_told_to_be_well_once() -> None:
    machine = slow_machine()
    assert machine.rests(QUIET_NS // SECOND_NS - 1) == []
    (found,) = machine.rests(100)
    assert (found.of, found.what, found.state) == (b"", f"program:{PORT}", State.OK)
    assert machine.programs.is_excused(f"program:{PORT}")
    assert machine.state() is State.SLOW, "what was measured last has not changed"


def test_one_late_answer_of_it_is_enough_to_be_slow_again_with_the_old_onset() -> None:
    machine = slow_machine()
    standing = machine.programs.standing(PORT)
    assert standing is not None
    machine.rests(2 * QUIET_NS // SECOND_NS)
    (found,) = machine.answers(SLOW_MS, 1)
    assert (found.what, found.state, found.since_ns) == (f"program:{PORT}", State.SLOW, standing.since_ns)
    assert not machine.programs.is_excused(f"program:{PORT}")
    (found,) = machine.rests(2 * QUIET_NS // SECOND_NS)
    assert found.state is State.OK, "and so on, as long as it lasts"


def test_answers_in_time_keep_it_excused_until_it_is_well() -> None:
    machine = slow_machine()
    machine.rests(2 * QUIET_NS // SECOND_NS)
    assert machine.answers(30, 40) == []
    assert machine.state() is State.SLOW
    assert machine.programs.is_excused(f"program:{PORT}")
    assert machine.answers(30, 40) == []
    assert machine.state() is State.OK
    assert not machine.programs.is_excused(f"program:{PORT}")


def test_a_port_too_many_is_not_watched() -> None:
    machine = Machine()
    for port in range(1, PROGRAMS_MAX + 2):
        machine.programs.served(port, SECOND_NS, machine.now_ns)
    assert machine.programs.standing(PROGRAMS_MAX) is not None
    assert machine.programs.standing(PROGRAMS_MAX + 1) is None
    assert machine.rests(1) == []
