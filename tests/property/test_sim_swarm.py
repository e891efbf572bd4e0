# SPDX-License-Identifier: Apache-2.0
"""The whole simulator on its worked example: it heals from any swarm, repeats itself, and finds planted bugs."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.base.ids import Endpoint
from atoll.base.ports import Disk
from atoll.base.units import SECOND_NS
from atoll.sim.faults import FaultKind, Swarm
from atoll.sim.gossip import Gossip, gossip_scenario
from atoll.sim.program import Factory
from atoll.sim.runner import run, run_seeds

SHORT = Swarm(begin_ns=SECOND_NS, end_ns=10 * SECOND_NS, length_max_ns=5 * SECOND_NS)


def test_ten_nodes_heal_from_every_swarm() -> None:
    lines: list[str] = []
    run_seeds(gossip_scenario(count=10), range(1, 31), lines.append)
    assert lines == []


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1 << 64))
def test_a_seed_repeats_to_the_byte_and_its_neighbour_differs(seed: int) -> None:
    scenario = gossip_scenario(count=4, swarm=SHORT)
    first = run(scenario, seed)
    assert run(scenario, seed, keep=10) == first
    assert run(scenario, seed + 1).trace_digest != first.trace_digest


class Forgetful(Gossip):
    """Tells before its count is durable: wrong only when the power goes in between."""

    def _raise_own(self) -> None:
        self.counts[self._index] += 1
        if self.counts[self._index] % 4 == 0:
            self._disk.write("count", self.counts[self._index].to_bytes(8, "little"))
            self._disk.sync("count")


class Trusting(Gossip):
    """Does not look at the checksum."""

    def receive(self, datagram: bytes, source: Endpoint, now_ns: int, wall_ns: int) -> None:
        del source, now_ns, wall_ns
        theirs = self._form.unpack(datagram[8:])
        self.counts = [max(pair) for pair in zip(self.counts, theirs, strict=True)]


@pytest.mark.parametrize(
    ("program", "kind", "found"),
    [
        (Forgetful, FaultKind.CRASH, "no count exceeds its owner's"),
        (Trusting, FaultKind.DAMAGE, "no count exceeds its owner's"),
        (Trusting, FaultKind.HOSTILE, "no program raises"),
    ],
)
def test_planted_bugs_are_found_within_thirty_seeds(program: type[Gossip], kind: FaultKind, found: str) -> None:
    def factory(index: int, disk: Disk, seed: bytes) -> Gossip:
        return program(index, 4, disk, seed)

    def factories(_seed: int) -> Factory[Gossip]:
        return factory

    scenario = replace(gossip_scenario(count=4, swarm=replace(SHORT, kinds=(kind,))), factory=factories)
    failures = run_seeds(scenario, range(30), lambda _: None)
    assert found in {failure.invariant for failure in failures}
    again = run_seeds(scenario, [failures[0].seed], lambda _: None)
    assert str(again[0]) == str(failures[0])
