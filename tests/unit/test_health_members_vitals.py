# SPDX-License-Identifier: Apache-2.0
"""What a node measures becomes what it finds: of itself without self-doubt, of the others with it."""

from random import Random

import pytest

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.health.members.bulletin import Found
from atoll.health.members.programs import Call
from atoll.health.members.reading import Reading
from atoll.health.members.vitals import (
    CALM_NS,
    DISK_FLOOR_NS,
    EARLY_NS,
    EARLY_TRIALS,
    LINK_FLOOR_NS,
    QUIET_NS,
    REFRESH_NS,
    SLOW_NS,
    WORK_LEARNT,
    Vitals,
)
from atoll.health.model import State

PEER, OTHER = b"p" * 10, b"q" * 10


class Node:
    """A node whose sensors the test turns; one second a step."""

    def __init__(self) -> None:
        self.vitals = Vitals()
        self.now_ns = 1000 * SECOND_NS
        self.late_ms = 1.0
        self.disk_ms, self.rtt_ms, self.work_us = 1.0, 20.0, 100.0
        self.reading = Reading(stolen_share=0, throttled_share=0, memory_share=0)
        self.trials: list[int] = []
        self._rng = Random(3)

    def run(self, seconds: int) -> list[Found]:
        """Let so many seconds pass; return what was found."""
        found: list[Found] = []
        for _ in range(seconds):
            for _ in range(4):
                self.now_ns += SECOND_NS // 4
                self.vitals.turned(int(self._about(self.late_ms) * MILLISECOND_NS), self.now_ns)
                if self.now_ns >= self.vitals.trial_due_ns():
                    self.trials.append(self.now_ns)
                    self.vitals.trial_began(self.now_ns)
                    self.vitals.wrote(int(self._about(self.disk_ms) * MILLISECOND_NS), self.now_ns)
            self.vitals.read(self.reading, self.now_ns)
            self.vitals.worked(int(self._about(self.work_us) * 1000), self.now_ns)
            for node in (PEER, OTHER):
                self.vitals.linked(node, int(self._about(self.rtt_ms if node == PEER else 20.0) * 1000), self.now_ns)
            found += self.vitals.found(self.now_ns)
        return found

    def _about(self, value: float) -> float:
        return value * self._rng.lognormvariate(0, 0.1)


def names(found: list[Found]) -> set[tuple[bytes, str, State]]:
    return {(one.of, one.what, one.state) for one in found}


def test_a_quiet_node_finds_nothing() -> None:
    assert Node().run(300) == []


def test_a_disk_a_hundred_times_slower_is_found_although_it_is_looked_at_seldom() -> None:
    node = Node()
    node.run(60)
    calm = len(node.trials)
    node.run(60)
    assert len(node.trials) - calm == 60 * SECOND_NS // CALM_NS
    onset_ns = node.now_ns
    node.disk_ms = 100.0
    (found,) = node.run((CALM_NS + 8 * SECOND_NS) // SECOND_NS)
    assert (found.of, found.what, found.state) == (b"", "disk", State.SLOW)
    assert onset_ns <= found.since_ns <= onset_ns + CALM_NS + SECOND_NS
    assert found.newest_ns == pytest.approx(100 * MILLISECOND_NS, rel=0.3)
    assert found.usual_ns <= DISK_FLOOR_NS
    node.disk_ms = 1.0
    assert names(node.run(200)) >= {(b"", "disk", State.OK)}


def test_how_often_the_disk_is_tried_follows_the_doubt() -> None:
    node = Node()
    node.run(EARLY_TRIALS)
    gaps = [after - before for before, after in zip(node.trials, node.trials[1:], strict=False)]
    assert set(gaps[: EARLY_TRIALS - 1]) == {EARLY_NS}
    assert set(gaps[EARLY_TRIALS:]) == {CALM_NS}
    node.disk_ms = 100.0
    node.run(60)
    gaps = [after - before for before, after in zip(node.trials, node.trials[1:], strict=False)]
    assert gaps[-1] == SLOW_NS
    assert EARLY_NS in gaps[EARLY_TRIALS + 1 :]


def test_what_nobody_would_notice_is_no_fault() -> None:
    node = Node()
    node.rtt_ms, node.disk_ms, node.late_ms = 0.1, 0.05, 0.1
    node.run(120)
    node.rtt_ms, node.disk_ms, node.late_ms = 0.8, 4.0, 8.0
    assert node.run(60) == []
    assert LINK_FLOOR_NS == MILLISECOND_NS


def test_a_path_that_takes_three_times_as_long_is_found_and_no_other() -> None:
    node = Node()
    node.run(60)
    node.rtt_ms = 60.0
    (found,) = node.run(15)
    assert (found.of, found.what, found.state) == (PEER, "link", State.SLOW)
    standing = node.vitals.link(PEER)
    assert standing is not None
    assert standing.usual_ns == pytest.approx(20 * MILLISECOND_NS, rel=0.1)


def test_stolen_time_is_found_by_what_the_system_says() -> None:
    node = Node()
    node.run(60)
    node.reading = Reading(stolen_share=3_000, throttled_share=1_000)
    (found,) = node.run(12)
    assert (found.what, found.state) == ("cpu", State.SLOW)
    assert found.newest_ns == pytest.approx(MILLISECOND_NS / 0.6, rel=0.02)


def test_a_system_that_says_nothing_and_one_that_says_too_much_are_lived_with() -> None:
    node = Node()
    node.reading = Reading()
    assert node.run(60) == []
    node.reading = Reading(stolen_share=10_000, throttled_share=10_000, memory_share=10_000)
    assert names(node.run(12)) == {(b"", "cpu", State.SLOW), (b"", "memory", State.SLOW)}


def test_a_loop_that_is_held_up_is_found_and_accuses_nobody_else() -> None:
    node = Node()
    node.run(60)
    node.late_ms, node.rtt_ms = 80.0, 120.0
    found = node.run(20)
    assert names(found) == {(b"", "loop", State.SLOW)}


def test_work_that_takes_thrice_as_long_as_it_did_at_first_is_found() -> None:
    node = Node()
    node.run(WORK_LEARNT + 5)
    node.work_us = 160.0
    assert node.run(60) == [], "a machine's clock goes up and down"
    node.work_us = 300.0
    assert names(node.run(12)) == {(b"", "work", State.SLOW)}


def test_what_lasts_is_told_again_with_new_numbers() -> None:
    node = Node()
    node.run(60)
    node.rtt_ms = 60.0
    node.run(15)
    node.rtt_ms = 200.0
    again = node.run(REFRESH_NS // SECOND_NS)
    assert [(one.of, one.state) for one in again] == [(PEER, State.SLOW)]
    assert again[0].newest_ns > 150 * MILLISECOND_NS


def test_a_former_member_is_forgotten() -> None:
    node = Node()
    node.run(40)
    node.vitals.answered(PEER, SECOND_NS, node.now_ns)
    node.vitals.forget(PEER)
    assert node.vitals.link(PEER) is None
    assert {one.component for one in node.vitals.standings()} == {"cpu", "memory", "work", "loop", "disk"}


def test_a_program_that_takes_thirty_times_as_long_is_found_under_its_port() -> None:
    node = Node()
    node.run(60)
    found: list[Found] = []
    for seconds, latency_ms in ((60, 30), (15, 900)):
        for _ in range(seconds):
            node.vitals.served(8080, 0, latency_ms * MILLISECOND_NS, node.now_ns)
            found += node.run(1)
    assert names(found) == {(b"", "program:8080", State.SLOW)}
    standing = node.vitals.program(8080)
    assert standing is not None
    assert standing.state is State.SLOW
    assert standing.newest_ns == pytest.approx(900 * MILLISECOND_NS, rel=0.1)
    found = node.run(100)
    assert found[-1].state is State.OK, "nobody knows: it is told to be well, and not told to be slow any more"


def test_what_came_to_no_answer_and_what_a_late_loop_measured_says_nothing_of_a_program() -> None:
    node = Node()
    node.run(10)
    node.vitals.served(80, None, None, node.now_ns)
    node.vitals.served(80, 1000, None, node.now_ns)
    assert node.vitals.program(80) is None
    node.late_ms = 300.0
    node.run(2)
    node.vitals.served(80, 0, SECOND_NS // 2, node.now_ns)
    assert node.vitals.program(80) is None
    node.vitals.served(80, SECOND_NS, SECOND_NS, node.now_ns)
    assert node.vitals.program(80) is not None, "it took longer than that explains"


def test_a_network_card_that_drops_packets_is_found_and_one_that_drops_a_few_is_not() -> None:
    node = Node()
    node.reading = Reading(nic_errors=3)
    node.run(60)
    node.reading = Reading(nic_errors=80)
    assert node.run(30) == []
    node.reading = Reading(nic_errors=900)
    found = node.run(12)
    assert names(found) == {(b"", "net", State.SLOW)}
    assert found[0].newest_ns == pytest.approx(900 * MILLISECOND_NS, rel=0.01)


def test_a_path_that_was_slow_and_is_measured_no_more_is_not_slow_for_ever() -> None:
    node = Node()
    node.run(60)
    node.rtt_ms = 60.0
    node.run(15)
    assert [of for of, _ in node.vitals.faults_of_others()] == [PEER]
    later_ns = node.now_ns + QUIET_NS
    found = node.vitals.found(later_ns)
    assert (PEER, "link", State.OK) in names(found)
    assert node.vitals.link(PEER) is None
    assert node.vitals.faults_of_others() == []
    assert all(one.of != PEER for one in node.vitals.found(later_ns + 10 * REFRESH_NS))


def test_answers_that_were_slow_and_are_asked_for_no_more_are_forgotten() -> None:
    node = Node()
    for number in range(60):
        node.now_ns += SECOND_NS
        node.vitals.answered(PEER, (30 if number < 40 else 900) * MILLISECOND_NS, node.now_ns)
    assert (PEER, "answers", State.SLOW) in names(node.vitals.found(node.now_ns))
    assert (PEER, "answers", State.OK) in names(node.vitals.found(node.now_ns + QUIET_NS))
    assert node.vitals.found(node.now_ns + 10 * QUIET_NS) == []


def test_a_disk_that_was_not_measured_lately_has_no_numbers() -> None:
    node = Node()
    node.run(60)
    assert node.vitals.disk(node.now_ns) is not None
    assert node.vitals.disk(node.now_ns + QUIET_NS) is None


def test_a_program_that_hangs_is_found_while_it_hangs_and_not_while_the_node_itself_is_held_up() -> None:
    def hanging(late_ms: float) -> set[tuple[bytes, str, State]]:
        node = Node()
        node.run(30)
        for number in range(200):
            node.now_ns += SECOND_NS // 4
            call = Call(PEER, number)
            node.vitals.served(80, 1000, None, node.now_ns, call)
            node.vitals.served(80, 1000, 30 * MILLISECOND_NS, node.now_ns, call)
            node.vitals.found(node.now_ns)
        node.late_ms = late_ms
        node.run(5)
        for number in range(1000, 1008):
            node.vitals.served(80, 1000, None, node.now_ns, Call(PEER, number))
        return names(node.run(60))

    assert (b"", "program:80", State.SLOW) in hanging(1.0)
    assert (b"", "program:80", State.SLOW) not in hanging(60_000.0)


def test_a_refusal_while_the_node_is_held_up_and_a_client_that_goes_away_accuse_no_program() -> None:
    node = Node()
    node.run(30)
    for number in range(200):
        node.now_ns += SECOND_NS // 4
        node.vitals.served(80, 1000, 30 * MILLISECOND_NS, node.now_ns, Call(PEER, number))
    node.late_ms = 200.0
    node.run(5)
    for number in range(500):
        node.now_ns += SECOND_NS // 4
        node.vitals.turned(200 * MILLISECOND_NS, node.now_ns)
        node.vitals.served(80, None, None, node.now_ns, Call(PEER, 1000 + number))
        call = Call(PEER, 5000 + number)
        node.vitals.served(80, 1000, None, node.now_ns, call)
        node.vitals.served(80, 1000, None, node.now_ns, Call(PEER, 5000 + number, is_over=True))
    assert not any(one.what == "program:80" for one in node.vitals.found(node.now_ns))
