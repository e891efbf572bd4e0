# SPDX-License-Identifier: Apache-2.0
"""A running node whose wall clock is set back: it goes on, and says so to people and monitors."""

import asyncio
import tempfile
from pathlib import Path

import pytest

from atoll.base.units import SECOND_NS
from atoll.group.identity import founding_roster
from atoll.group.roster import Roster
from atoll.host.clock import SystemClock
from atoll.node.addresses import own_member
from atoll.node.methods import Methods
from atoll.node.service import Node, Plan
from atoll.node.state import Settings, StateDirectory

pytestmark = pytest.mark.process


class SteppedClock:
    """The system's clock, with the wall clock moved by a test."""

    def __init__(self) -> None:
        self._system = SystemClock()
        self.moved_ns = 0

    def monotonic_ns(self) -> int:
        return self._system.monotonic_ns()

    def wall_ns(self) -> int:
        return self._system.wall_ns() + self.moved_ns


def plan_of(state: StateDirectory, clock: SteppedClock) -> Plan:
    identity = state.identity()
    settings = Settings(name="one", group_name="blue-heron", listen="127.0.0.1:0")
    roster = founding_roster(identity, own_member(identity, settings, ())).encode()
    return Plan(state, identity, settings, Roster.decode(roster).group, roster, clock, keeps_journal=False)


def test_a_clock_that_is_set_back_is_a_coded_warning_of_status() -> None:
    async def main(state: StateDirectory) -> None:
        clock = SteppedClock()
        node = Node(plan_of(state, clock))
        methods = Methods(node)
        await node.start()
        try:
            before = await methods.status({})
            assert (before.warnings, before.degraded) == ((), False)
            clock.moved_ns = -3600 * SECOND_NS
            after = await methods.status({})
            assert [warning.partition(":")[0] for warning in after.warnings] == ["A107"]
            assert after.degraded
        finally:
            await node.stop()

    with tempfile.TemporaryDirectory(prefix="at") as directory:
        state = StateDirectory(Path(directory) / "one")
        try:
            asyncio.run(main(state))
        finally:
            state.close()
