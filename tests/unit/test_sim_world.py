# SPDX-License-Identifier: Apache-2.0
"""The world, driven by a small program that writes down what happens to it."""

from collections.abc import Callable
from typing import Any

import pytest

from atoll.base.errors import UsageError
from atoll.base.ids import Endpoint
from atoll.base.ports import Disk, Entropy
from atoll.base.units import HOUR_NS, MILLISECOND_NS, SECOND_NS
from atoll.core.entropy import Draws
from atoll.sim.clock import EPOCH_NS
from atoll.sim.failure import SimulationFailure
from atoll.sim.limits import BACKLOG_BYTES_MAX, DATAGRAM_BYTES_MAX, OUTBOX_MAX, STUCK_TICKS_MAX
from atoll.sim.link import WHOLE, LinkSpec
from atoll.sim.program import endpoint_of
from atoll.sim.topology import full_mesh
from atoll.sim.trace import Kind
from atoll.sim.world import World

MS = MILLISECOND_NS


class Diary:
    """Writes down what it is called with, on its disk too; answers b"ping"; ticks as often as it is told."""

    def __init__(self, index: int, disk: Disk, seed: bytes, every_ns: int = 0) -> None:
        self.outbox: list[tuple[Endpoint, bytes]] = []
        self.deadline_ns: int | None = None
        self.index, self.disk, self.seed, self.every_ns = index, disk, seed, every_ns
        self.started: tuple[int, int] | None = None
        self.received: list[tuple[bytes, Endpoint, int]] = []
        self.ticked: list[int] = []

    def start(self, now_ns: int, wall_ns: int) -> None:
        self.started = (now_ns, wall_ns)
        if self.every_ns:
            self.deadline_ns = now_ns + self.every_ns

    def receive(self, datagram: bytes, source: Endpoint, now_ns: int, wall_ns: int) -> None:
        del wall_ns
        self.received.append((datagram, source, now_ns))
        if datagram == b"ping":
            self.outbox.append((source, b"pong"))
        if datagram == b"raise":
            raise RuntimeError("no")
        if datagram == b"write":
            self.disk.append("log", b"x")
            self.disk.sync("log")
            self.outbox.append((source, b"written"))

    def tick(self, now_ns: int, wall_ns: int) -> None:
        del wall_ns
        self.ticked.append(now_ns)
        assert self.deadline_ns is not None
        self.deadline_ns += self.every_ns


def diaries(every_ns: int = 0) -> Callable[[int, Disk, bytes], Diary]:
    return lambda index, disk, seed: Diary(index, disk, seed, every_ns)


def world_of(count: int = 2, every_ns: int = 0, *, start: bool = True, keep: int = 0) -> World[Diary]:
    world = World(full_mesh(count, LinkSpec(delay_ns=10 * MS)), diaries(every_ns), seed=7, keep=keep)
    if start:
        world.start_all()
    return world


def diary(world: World[Diary], index: int) -> Diary:
    program = world.program(index)
    assert program is not None
    return program


def send(world: World[Diary], source: int, target: int, *datagrams: bytes) -> bool:
    def call(program: Diary, _now_ns: int, _wall_ns: int) -> None:
        program.outbox.extend((endpoint_of(target), datagram) for datagram in datagrams)

    return world.act(source, "send", call)


def heard(world: World[Diary], index: int) -> list[bytes]:
    return [datagram for datagram, _, _ in diary(world, index).received]


def test_a_datagram_takes_its_link_s_delay_and_is_answered() -> None:
    world = world_of()
    send(world, 0, 1, b"ping")
    world.run(10 * MS - 1)
    assert heard(world, 1) == []
    world.run(10 * MS)
    assert heard(world, 1) == [b"ping"]
    world.run(SECOND_NS)
    pong, source, at_ns = diary(world, 0).received[0]
    assert (pong, source) == (b"pong", endpoint_of(1))
    assert at_ns == world.clock(0).monotonic_at(20 * MS)
    assert (world.stats.sent, world.stats.delivered, world.stats.lost) == (2, 2, 0)
    assert world.now_ns == SECOND_NS


def test_nodes_have_their_own_clocks_seeds_and_endpoints() -> None:
    world = world_of(count=3)
    world.start_all()  # All are up: nothing happens.
    assert [world.boots(index) for index in range(3)] == [1, 1, 1]
    programs = world.programs()
    assert len({program.seed for program in programs}) == 3
    assert len({program.started for program in programs}) == 3
    assert all(program.started is not None and program.started[1] == EPOCH_NS for program in programs)
    assert len({endpoint_of(index) for index in range(70_000)}) == 70_000
    entropy: Entropy = Draws(programs[0].seed)
    assert len(entropy.token(16)) == 16


def test_datagrams_to_oneself_and_to_nowhere() -> None:
    world = world_of()
    send(world, 0, 0, b"me")
    send(world, 0, 77, b"nobody")
    world.run(SECOND_NS)
    assert heard(world, 0) == [b"me"]
    assert world.stats.unroutable == 1


def test_deadlines_are_served_on_time_and_may_move_both_ways() -> None:
    world = world_of(every_ns=100 * MS)
    world.run(SECOND_NS)
    clock = world.clock(0)
    assert diary(world, 0).ticked == [clock.monotonic_at(step * 100 * MS) for step in range(1, 11)]
    base_ns = clock.monotonic_ns()

    def move(to_ns: int | None) -> None:
        def call(program: Diary, now_ns: int, _wall_ns: int) -> None:
            program.deadline_ns = None if to_ns is None else now_ns + to_ns

        world.act(0, "move", call)

    diary(world, 0).ticked.clear()
    move(30 * MS)  # Nearer.
    world.run(SECOND_NS + 20 * MS)
    assert diary(world, 0).ticked == []
    move(200 * MS)  # Farther: the armed timer comes too early, and is armed again.
    world.run(SECOND_NS + 240 * MS)
    assert diary(world, 0).ticked == [base_ns + 220 * MS]
    move(None)
    world.run(3 * SECOND_NS)
    assert len(diary(world, 0).ticked) == 1
    move(-5 * SECOND_NS)  # Overdue: now.
    world.run(3 * SECOND_NS)
    assert diary(world, 0).ticked[1] == clock.monotonic_ns()


@pytest.mark.parametrize("drift_ppm", [10_000, -10_000])
def test_a_drifting_node_ticks_by_its_own_clock(drift_ppm: int) -> None:
    world = world_of(every_ns=SECOND_NS)
    world.run(500 * MS)
    world.set_drift(0, drift_ppm)
    world.run(300 * SECOND_NS)
    fast, true = diary(world, 0), diary(world, 1)
    expected = (world.clock(0).monotonic_ns() - world.clock(0).monotonic_at(0)) // SECOND_NS
    assert abs(len(fast.ticked) - expected) <= 1
    assert (len(fast.ticked) > len(true.ticked)) == (drift_ppm > 0)
    assert [late - early for early, late in zip(fast.ticked, fast.ticked[1:], strict=False)] == pytest.approx(
        [SECOND_NS] * (len(fast.ticked) - 1), abs=2
    )


def test_a_crash_loses_memory_timers_and_unsynced_writes_and_a_restart_begins_anew() -> None:
    world = world_of(every_ns=100 * MS)
    world.disk(1).write("kept", b"1")
    world.disk(1).sync("kept")
    send(world, 1, 0, b"from the dead")
    before = diary(world, 1)
    world.crash(1)
    assert world.program(1) is None
    assert world.programs() == [diary(world, 0)]
    assert not send(world, 1, 0, b"x")
    send(world, 0, 1, b"lost")
    world.run(SECOND_NS)
    assert heard(world, 0) == [b"from the dead"]  # It had left.
    assert before.ticked == []
    assert world.stats.deaf == 1
    world.start(1)
    assert diary(world, 1) is not before
    assert diary(world, 1).seed != before.seed
    assert world.disk(1).read("kept") == b"1"
    assert (world.boots(1), world.stats.crashes) == (2, 1)
    with pytest.raises(UsageError):
        world.start(1)
    world.run(1050 * MS)
    assert diary(world, 1).ticked == []
    world.run(1100 * MS)
    assert len(diary(world, 1).ticked) == 1


def test_a_killed_process_leaves_the_page_cache_and_a_reboot_does_not() -> None:
    world = world_of()
    for _ in range(20):
        world.disk(0).write("f", b"content")
        world.restart(0, reboot=False)
        assert world.disk(0).read("f") == b"content"
    kept = 0
    for _ in range(20):
        world.disk(1).write("f", b"content")
        world.restart(1, reboot=True)
        kept += "f" in world.disk(1).names() and world.disk(1).read("f") == b"content"
    assert kept < 20


def test_a_reboot_begins_the_monotonic_clock_anew() -> None:
    world = world_of()
    world.run(SECOND_NS)
    before_ns, wall_ns = world.clock(0).monotonic_ns(), world.clock(0).wall_ns()
    world.restart(0, reboot=False)
    assert world.clock(0).monotonic_ns() == before_ns
    world.restart(0, reboot=True)
    assert world.clock(0).monotonic_ns() != before_ns
    assert world.clock(0).wall_ns() == wall_ns


def test_a_power_cut_inside_the_program_crashes_it_before_it_can_send() -> None:
    world = world_of()
    world.disk(1).cut_power_after(2)
    send(world, 0, 1, b"write", b"write")
    world.run(SECOND_NS)
    assert world.program(1) is None
    assert heard(world, 0) == []
    assert world.stats.deaf == 1


def test_a_pause_delivers_late_and_bounded() -> None:
    world = world_of(every_ns=100 * MS)
    world.pause(1)
    assert world.paused(1)
    assert not send(world, 1, 0, b"x")
    big = bytes(60_000)
    send(world, 0, 1, b"first", big, big, big, big, b"last")
    world.run(SECOND_NS)
    assert heard(world, 1) == []
    assert diary(world, 1).ticked == []
    world.resume(1)
    world.resume(1)
    assert heard(world, 1) == [b"first", big, big, big, b"last"]
    assert world.stats.deaf == 1
    assert BACKLOG_BYTES_MAX < 4 * 60_000
    assert diary(world, 1).received[0][2] == world.clock(1).monotonic_at(SECOND_NS)
    world.run(SECOND_NS)
    assert len(diary(world, 1).ticked) == 10  # Overdue ticks of a program that counts them all.
    world.pause(1)
    world.crash(1)
    assert not world.paused(1)
    world.pause(1)
    assert not world.paused(1)


def test_a_crash_in_the_midst_of_the_backlog_loses_the_rest_of_it() -> None:
    world = world_of()
    world.pause(1)
    send(world, 0, 1, b"write", b"more")
    world.run(SECOND_NS)
    world.disk(1).cut_power_after(1)
    world.resume(1)
    assert world.program(1) is None
    assert world.stats.deaf == 1


def test_wall_steps_reach_the_program() -> None:
    world = world_of()
    world.step_wall(0, -HOUR_NS)
    seen: list[int] = []
    world.act(0, "look", lambda _program, _now_ns, wall_ns: seen.append(wall_ns))
    assert seen == [EPOCH_NS - HOUR_NS]


def test_impairments_go_on_and_off_and_heal_ends_all_trouble() -> None:
    world = world_of(count=3)
    world.impair(0, 1, "hole", LinkSpec(blackhole=True))
    send(world, 0, 1, b"a")
    send(world, 1, 0, b"b")
    world.run(SECOND_NS)
    assert (heard(world, 1), heard(world, 0), world.stats.lost) == ([], [b"b"], 1)
    world.mend(0, 1, "hole")
    send(world, 0, 1, b"c")
    world.impair(0, 1, "hole", LinkSpec(blackhole=True))
    world.set_drift(1, 100)
    world.pause(1)
    world.crash(2)
    world.disk(0).cut_power_after(1)
    world.heal()
    assert [world.paused(1), world.clock(1).drift_ppm, world.program(2) is None] == [False, 0, False]
    send(world, 0, 1, b"d")
    world.disk(0).append("f", b"no power cut")
    world.run(2 * SECOND_NS)
    assert heard(world, 1) == [b"c", b"d"]


def test_duplicates_and_corruption_reach_the_program() -> None:
    world = world_of()
    world.impair(0, 1, "damage", LinkSpec(duplicate=WHOLE, corrupt=WHOLE))
    send(world, 0, 1, bytes(50))
    world.run(SECOND_NS)
    assert len(heard(world, 1)) == 2
    assert all(copy != bytes(50) and len(copy) == 50 for copy in heard(world, 1))


def test_strangers_send_under_any_address() -> None:
    world = world_of()
    world.socket(("203.0.113.1", 9)).send(endpoint_of(0), b"stranger")
    world.socket(endpoint_of(1)).send(endpoint_of(0), b"forged")
    world.socket(endpoint_of(1)).send(("203.0.113.1", 9), b"nobody")
    world.run(SECOND_NS)
    assert [(datagram, source) for datagram, source, _ in diary(world, 0).received] == [
        (b"stranger", ("203.0.113.1", 9)),
        (b"forged", endpoint_of(1)),
    ]
    assert (world.stats.injected, world.stats.unroutable) == (3, 1)


def test_a_tap_sees_what_is_sent_even_if_it_is_lost() -> None:
    world = world_of()
    seen: list[tuple[Endpoint, Endpoint, bytes]] = []
    world.tap(lambda source, to, datagram: seen.append((source, to, datagram)))
    world.impair(0, 1, "hole", LinkSpec(blackhole=True))
    send(world, 0, 1, b"x")
    assert seen == [(endpoint_of(0), endpoint_of(1), b"x")]


def test_actions_happen_in_order_and_past_ones_at_once() -> None:
    world = world_of()
    order: list[str] = []
    world.at(5, lambda: order.append("b"))
    world.at(5, lambda: world.at(0, lambda: order.append(f"d at {world.now_ns}")))
    world.at(3, lambda: order.append("a"))
    world.at(5, lambda: order.append("c"))
    world.run(10)
    assert order == ["a", "b", "c", "d at 5"]
    with pytest.raises(UsageError):
        world.run(9)


class Never:
    """Does not hold from a time on."""

    name = "never after 50 ms"

    def __init__(self, every_ns: int) -> None:
        self.every_ns, self.asked = every_ns, 0

    def check(self, world: World[Any]) -> str | None:
        self.asked += 1
        return "it is" if world.now_ns >= 50 * MS else None


@pytest.mark.parametrize(("every_ns", "found_ns"), [(0, 50 * MS), (20 * MS, 60 * MS)])
def test_a_checker_that_does_not_hold_ends_the_run_and_says_how_to_repeat_it(every_ns: int, found_ns: int) -> None:
    world = world_of(every_ns=10 * MS)
    world.watch(Never(every_ns))
    with pytest.raises(SimulationFailure) as caught:
        world.run(SECOND_NS)
    assert caught.value.at_ns == found_ns
    assert str(caught.value) == (f"seed 7, 0.0{found_ns // MS}000 s: never after 50 ms: it is. Repeat: make sim SEED=7")


def test_a_program_that_raises_fails_the_run_with_its_cause() -> None:
    world = world_of()
    send(world, 0, 1, b"raise")
    with pytest.raises(SimulationFailure, match="no program raises: node 1") as caught:
        world.run(SECOND_NS)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_tick_that_never_moves_its_deadline_fails() -> None:
    world = world_of(every_ns=100 * MS)
    diary(world, 0).every_ns = 0
    with pytest.raises(SimulationFailure, match="moves the deadline"):
        world.run(SECOND_NS)
    assert len(diary(world, 0).ticked) == STUCK_TICKS_MAX + 1


def test_outboxes_and_datagrams_are_bounded() -> None:
    with pytest.raises(SimulationFailure, match="outboxes are bounded"):
        send(world_of(), 0, 1, *[b""] * (OUTBOX_MAX + 1))
    with pytest.raises(SimulationFailure, match="fit UDP"):
        send(world_of(), 0, 1, bytes(DATAGRAM_BYTES_MAX + 1))
    send(world_of(), 0, 1, bytes(DATAGRAM_BYTES_MAX))


def test_traffic_in_flight_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.sim.world.IN_FLIGHT_MAX", 100)
    with pytest.raises(SimulationFailure, match="traffic is bounded"):
        send(world_of(), 0, 1, *[b""] * 101)


def test_the_trace_holds_every_call_and_depends_on_the_seed() -> None:
    def digest(seed: int, ping: bytes = b"ping") -> str:
        world = World(full_mesh(2, LinkSpec(delay_ns=MS, loss=5000)), diaries(100 * MS), seed=seed)
        world.start_all()
        for _ in range(20):
            send(world, 0, 1, ping)
        world.run(SECOND_NS)
        return world.trace.digest()

    assert digest(1) == digest(1)
    assert len({digest(1), digest(2), digest(1, b"pong")}) == 3
    world = world_of(keep=100)
    send(world, 0, 1, b"ping")
    world.run(SECOND_NS)
    kinds = [happened.kind for happened in world.trace.kept()]
    assert kinds == [Kind.START, Kind.START, Kind.ACT, Kind.SEND, Kind.RECEIVE, Kind.SEND, Kind.RECEIVE]
