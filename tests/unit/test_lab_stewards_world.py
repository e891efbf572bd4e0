# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""What lies between simulated nodes: time, loss, copies, delay, cuts of one direction, and what the overlay says."""

from functools import partial

import pytest

from atoll.base.ids import NodeId
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.env.holding.events import CutFrom, KeepPromise
from atoll.env.keepers import Peer
from atoll.env.messages import Carried, CodeWanted, Receipt, encode_message
from atoll.lab.stewards import apps
from atoll.lab.stewards import world as world_module
from atoll.lab.stewards.node import Computer, Process
from atoll.lab.stewards.world import LOST_AFTER_NS, OVERLAY_NS, StewardWorld
from atoll.sim import SimulationFailure
from tests.unit.quiet_world import Alone

SEED = 3
PING = encode_message(CodeWanted(bytes(32)))


class Wire:
    """A world whose computers note what arrives, and when."""

    def __init__(self, seed: int = SEED) -> None:
        self.world = StewardWorld(seed)
        self.world.faulty = False
        self.one, self.two, *_ = self.world.computers
        self.got: list[tuple[int, NodeId, bytes]] = []

    def note(self, source: NodeId, payload: bytes) -> None:
        self.got.append((self.world.now_ns, source, payload))

    def send(self, payload: bytes = PING, count: int = 1) -> int:
        """Send; return how many arrive within two seconds."""
        before = len(self.got)
        for _ in range(count):
            self.world.send(self.one, self.two.id, payload)
        self.world.run(self.world.now_ns + 2 * SECOND_NS)
        return len(self.got) - before


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    """Return a wire at whose end every message is noted instead of taken."""
    made = Wire()

    def note(_: Process, source: NodeId, payload: bytes) -> None:
        made.note(source, payload)

    monkeypatch.setattr(Process, "from_node", note)
    for computer in (made.one, made.two):
        computer.boot()
    return made


# Time and chance.


def test_what_is_due_at_one_moment_happens_in_the_order_in_which_it_was_asked_for() -> None:
    world, did = StewardWorld(SEED), list[tuple[int, str]]()

    def act(name: str) -> None:
        did.append((world.now_ns, name))

    world.after(5, partial(act, "late"))
    world.after(1, partial(act, "one"))
    world.after(1, partial(act, "two"))
    world.after(-9, partial(act, "at once"))
    world.after(6, partial(act, "never"))
    assert not world.run(5)
    assert did == [(0, "at once"), (1, "one"), (1, "two"), (5, "late")]
    assert world.now_ns == 5


def test_a_run_ends_when_it_is_done_and_looks_now_and_then() -> None:
    world, looks = StewardWorld(SEED), list[int]()

    def tick() -> None:
        world.after(MILLISECOND_NS, tick)

    def is_done() -> bool:
        looks.append(world.now_ns)
        return world.now_ns >= 120 * MILLISECOND_NS

    tick()
    assert world.run(SECOND_NS, is_done)
    assert looks == [at_ms * MILLISECOND_NS for at_ms in (1, 51, 101, 151)]


def test_a_storm_of_events_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_module, "EVENTS_MAX", 100)
    world = StewardWorld(SEED)

    def again() -> None:
        world.after(1, again)

    again()
    with pytest.raises(SimulationFailure, match="what happens is bounded"):
        world.run(SECOND_NS)


def test_the_seed_is_the_whole_cause() -> None:
    def drawn(seed: int) -> tuple[object, ...]:
        world = StewardWorld(seed)
        draws = [world.below(1000) for _ in range(9)]
        return len(world.computers), [one.party for one in world.clients], draws, world.computers[0].recorder.sealer

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)


def test_what_is_drawn_is_within_its_bounds() -> None:
    world = StewardWorld(SEED)
    assert {world.below(3) for _ in range(99)} == {0, 1, 2}
    spans = [world.span_ns(2, 4) for _ in range(99)]
    assert 2 * MILLISECOND_NS <= min(spans) < max(spans) <= 4 * MILLISECOND_NS
    assert (world.chance(0), world.chance(100), world.span_ns(3, 3)) == (False, True, 3 * MILLISECOND_NS)


def test_a_failure_says_seed_time_schedule_and_how_to_repeat_it() -> None:
    world = StewardWorld(SEED)
    world.run(SECOND_NS)
    world.note("the sky falls")
    world.tally("falls")
    world.tally("falls")
    failure = world.failed("it stays up", "the sky")
    assert (failure.seed, failure.invariant) == (SEED, "it stays up")
    assert "make sim SEED=3 SIM_ARGS='--only environments'" in str(failure)
    assert failure.__notes__ == ["schedule:\n  1.000000 s the sky falls"]
    assert world.counts == {"falls": 2}


# Disks.


def test_a_disk_that_hangs_takes_until_it_goes_on_and_one_that_is_full_refuses_mostly() -> None:
    world = StewardWorld(SEED)
    world.slow_percent = 0
    computer = world.computers[0]
    assert world.disk_ns(computer) <= 4 * MILLISECOND_NS
    computer.stalled_ns = SECOND_NS
    assert SECOND_NS <= world.disk_ns(computer) <= SECOND_NS + 4 * MILLISECOND_NS
    world.slow_percent = 100
    assert world.disk_ns(world.computers[1]) >= 20 * MILLISECOND_NS
    world.faulty = False
    assert world.disk_ns(world.computers[1]) <= 4 * MILLISECOND_NS
    assert not any(world.refuses(computer) for _ in range(99))
    computer.full = True
    assert {world.refuses(computer) for _ in range(99)} == {True, False}
    assert computer.refuses() in {True, False}
    assert computer.disk_ns() >= SECOND_NS


def test_a_node_may_be_crashed_in_the_moment_in_which_it_writes() -> None:
    world, crashed = StewardWorld(SEED), list[Computer]()
    computer = world.computers[1]
    world.asked(computer, KeepPromise(1, computer.id))
    world.crash = crashed.append
    world.hasty_permille = 0
    world.asked(computer, KeepPromise(1, computer.id))
    world.run(SECOND_NS)
    assert crashed == []
    world.hasty_permille = 200
    world.asked(computer, KeepPromise(1, computer.id))
    world.run(2 * SECOND_NS)
    assert crashed == [computer]
    world.hasty_permille = 1000
    world.asked(computer, CutFrom(1))
    world.faulty = False
    world.asked(computer, CutFrom(1))
    world.run(3 * SECOND_NS)
    assert crashed == [computer], "all had healed by then"


# The network.


def test_when_all_is_well_everything_arrives_once_in_order_after_the_delay(wire: Wire) -> None:
    payloads = [encode_message(CodeWanted(bytes([number]) * 32)) for number in range(9)]
    for payload in payloads:
        wire.world.send(wire.one, wire.two.id, payload)
    wire.world.run(SECOND_NS)
    assert wire.got == [(wire.world.delay_ns, wire.one.id, payload) for payload in payloads]


def test_what_is_lost_and_what_comes_twice_and_late_follows_the_shares(wire: Wire) -> None:
    world = wire.world
    world.faulty, world.twice_percent, world.late_percent = True, 0, 0
    world.loss_percent = 100
    assert wire.send(count=9) == 0
    world.loss_percent, world.twice_percent = 0, 100
    assert wire.send(count=9) == 18
    world.twice_percent, world.late_percent = 0, 100
    begin_ns = world.now_ns
    assert wire.send(count=9) == 9
    assert max(at_ns for at_ns, _, _ in wire.got) - begin_ns - world.delay_ns > 100 * MILLISECOND_NS


def test_what_clients_say_is_never_carried_twice(wire: Wire) -> None:
    world = wire.world
    world.faulty, world.twice_percent, world.late_percent, world.loss_percent = True, 100, 0, 0
    party = world.clients[0].party
    assert wire.send(encode_message(Carried(party, bytes(16), 1, b"\x90"))) == 1
    assert wire.send(encode_message(Receipt(party, bytes(16), 1))) == 1
    assert wire.send(encode_message(Receipt(bytes(16), party, 1))) == 2


def test_a_cut_is_of_one_direction_and_takes_what_is_on_its_way(wire: Wire) -> None:
    world = wire.world
    world.send(wire.one, wire.two.id, PING)
    world.cut_off[wire.one.index, wire.two.index] = 1
    world.run(SECOND_NS)
    assert wire.got == []
    world.send(wire.two, wire.one.id, PING)
    world.run(2 * SECOND_NS)
    assert [source for _, source, _ in wire.got] == [wire.two.id]


# The overlay.


def seen(wire: Wire, span_ns: int = 0) -> Peer:
    """Return what the first computer is told of the second after a time."""
    wire.world.run(wire.world.now_ns + span_ns)
    return wire.one.members[wire.two.id]


def test_who_cannot_be_heard_is_lost_after_a_time_and_there_again_at_once(wire: Wire) -> None:
    wire.world.tell_members()
    assert seen(wire) == Peer("node-1")
    wire.two.kill(power=False)
    assert seen(wire, LOST_AFTER_NS - OVERLAY_NS) == Peer("node-1")
    assert seen(wire, 3 * OVERLAY_NS) == Peer("node-1", lost=True)
    wire.two.boot()
    assert seen(wire, OVERLAY_NS) == Peer("node-1")


@pytest.mark.parametrize("how", ["pause", "cut to it", "cut from it"])
def test_who_stands_still_or_is_cut_off_either_way_is_lost_too(wire: Wire, how: str) -> None:
    wire.world.tell_members()
    if how == "pause":
        wire.two.paused = True
    else:
        one, two = wire.one.index, wire.two.index
        wire.world.cut_off[(one, two) if how == "cut to it" else (two, one)] = 1
    assert seen(wire, LOST_AFTER_NS + 2 * OVERLAY_NS).lost


def test_a_pause_that_is_over_in_time_is_no_loss(wire: Wire) -> None:
    wire.world.tell_members()
    for _ in range(4):
        wire.two.paused = True
        assert not seen(wire, 2 * OVERLAY_NS).lost
        wire.two.paused = False
        assert not seen(wire, OVERLAY_NS).lost


def test_wrong_news_are_believed_until_their_end(wire: Wire) -> None:
    wire.world.tell_members()
    wrong = Peer("node-1", lost=True, slow="disk")
    wire.world.wrong[wire.one.index, wire.two.index] = (2 * SECOND_NS, wrong)
    assert seen(wire, SECOND_NS) == wrong
    assert wire.two.members[wire.one.id] == Peer("node-0")
    assert seen(wire, 2 * SECOND_NS) == Peer("node-1")


# What is looked at.


def test_what_stewards_do_is_looked_at_by_the_checks() -> None:
    alone = Alone()
    counter = alone.plant()
    alone.client.ask(counter, apps.Add, SECOND_NS)
    alone.world.run(SECOND_NS)
    world = StewardWorld(SEED)
    stranger = next(message for _, message in alone.world.left if isinstance(message, Receipt))
    with pytest.raises(SimulationFailure, match="what leaves is committed"):
        world.leaves(stranger, world.computers[0])
    world.forgets(world.computers[0], counter)
    assert world.checks.truths == {}
    alone.process.seen.clear()
    with pytest.raises(SimulationFailure, match="a majority has what is committed"):
        world.looked(alone.process)
