# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""Who owns an environment, under faults: nothing that was committed is lost, and afterwards one owner goes on."""

from collections.abc import Callable

import msgspec
import pytest

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.env.holding.events import MoveAsked
from atoll.env.holding.keeping import Keeping
from atoll.env.holding.messages import Canvass, Promised
from atoll.env.holding.serving import Serving
from atoll.env.holding.voting import Voting
from atoll.sim.failure import SimulationFailure
from tests.sim.holding_world import HoldingWorld

SEEDS = 300
CHUNK = 30


@pytest.mark.parametrize("first", range(1, SEEDS + 1, CHUNK))
def test_nothing_committed_is_lost_and_one_owner_goes_on(first: int) -> None:
    for seed in range(first, first + CHUNK):
        HoldingWorld(seed).story()


def test_a_seed_is_the_whole_cause() -> None:
    one, two = HoldingWorld(7), HoldingWorld(7)
    one.story()
    two.story()
    assert one.committed == two.committed
    assert (one.now_ns, one.stats) == (two.now_ns, two.stats)


@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("far_ms", [1, 140, 300])
def test_a_busy_environment_moves_to_who_held_nothing_however_far_away_it_is(far_ms: int, seed: int) -> None:
    world = HoldingWorld(seed, nodes=4, holders=3)
    world.faulty, world.loss_percent, world.delay_ns = False, 0, 5 * MILLISECOND_NS
    world.far_ns[3] = far_ms * MILLISECOND_NS
    world.begin()
    for node in world.nodes * 3:
        world.client(node)
    world.run(20 * SECOND_NS, lambda: len(world.committed) >= 100)
    owner = next(node for node in world.nodes if node.running)
    world.put(owner, MoveAsked(world.nodes[3].id))
    assert world.run(world.now_ns + 10 * SECOND_NS, lambda: bool(world.nodes[3].running)), world.stats


# Would the simulation notice? Each of these breaks one rule of the machine.


def broken(monkeypatch: pytest.MonkeyPatch, place: type, name: str, replacement: object) -> None:
    monkeypatch.setattr(place, name, replacement)


def invariants(seeds: range) -> set[str]:
    """What does not hold in these seeds."""
    found: set[str] = set()
    for seed in seeds:
        try:
            HoldingWorld(seed).story()
        except SimulationFailure as failure:
            found.add(failure.invariant)
    return found


def test_it_notices_an_owner_that_counts_its_own_disk_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(self: Serving) -> None:
        ledger = self._desk.state.ledger
        if ledger.last_epoch == self._desk.state.promise.epoch:
            self._desk.commit(ledger.durable)

    broken(monkeypatch, Serving, "count_majority", count)
    assert "a majority has what is committed" in invariants(range(1, 6))


def test_it_notices_an_owner_that_counts_blocks_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(self: Serving) -> None:
        state, peers = self._desk.state, self._reign.peers
        kept = [state.ledger.durable if node == state.own else peers[node].match for node in state.ledger.holders]
        self._desk.commit(sorted(kept, reverse=True)[len(kept) // 2])

    broken(monkeypatch, Serving, "count_majority", count)
    assert "an owner counts blocks of its own epoch" in invariants(range(1, 21))


def test_it_notices_votes_for_who_has_less(monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[[Voting, bytes, Canvass], None] = Voting.canvassed

    def blind(self: Voting, node: bytes, message: Canvass) -> None:
        honest(self, node, msgspec.structs.replace(message, last_epoch=1 << 62))

    broken(monkeypatch, Voting, "canvassed", blind)
    assert "what was committed is there" in invariants(range(1, 41))


def test_it_notices_a_node_that_votes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[[Voting, bytes, Canvass], None] = Voting.canvassed

    def twice(self: Voting, node: bytes, message: Canvass) -> None:
        honest(self, node, message)
        if not message.trial and message.epoch == self._desk.state.promise.epoch:
            self._desk.tell(node, Promised(message.epoch, message.epoch, trial=False, granted=True))

    broken(monkeypatch, Voting, "canvassed", twice)
    assert "one owner in an epoch" in invariants(range(1, 41))


def test_it_notices_blocks_that_are_confirmed_before_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[[Keeping], None] = Keeping._confirm

    def early(self: Keeping) -> None:
        ledger = self._desk.state.ledger
        durable, ledger.durable = ledger.durable, ledger.last
        honest(self)
        ledger.durable = durable

    broken(monkeypatch, Keeping, "_confirm", early)
    assert "a majority has what is committed" in invariants(range(1, 11))
