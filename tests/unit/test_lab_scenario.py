# SPDX-License-Identifier: Apache-2.0
"""The demo's script: it follows from the seed, fits its half minute, and plays on measured latencies."""

import pytest

from atoll.base.units import MILLISECOND_NS
from atoll.health.members.vitals import CALM_NS, TERMS
from atoll.lab.scenario import (
    AFFLICTABLE,
    SITES,
    Affliction,
    Trouble,
    demo_topology,
    packaged_regions,
    phases,
    sites_of,
    slow_phases,
)

SCRIPT_MS_MAX = 25_000  # With the start of five nodes, about half a minute.
SEEDS = range(0, 3000, 7)


@pytest.mark.parametrize("seed", [0, 1, 7, 2**40])
def test_a_script_follows_from_its_seed(seed: int) -> None:
    assert phases(seed) == phases(seed)


def test_scripts_differ() -> None:
    assert len({phases(seed) for seed in SEEDS}) > len(SEEDS) * 0.99


def test_every_script_keeps_the_order_and_the_bounds() -> None:
    for seed in SEEDS:
        script = phases(seed)
        assert [phase.trouble for phase in script] == [
            Trouble.LOSS,
            Trouble.ONE_WAY_LOSS,
            Trouble.BLACKHOLE,
            Trouble.RELAY_KILLED,
        ]
        assert [phase.begin_ms for phase in script] == sorted(phase.begin_ms for phase in script)
        for phase in script:
            assert phase.source in SITES
            assert phase.target in SITES
            assert phase.source != phase.target
            assert phase.begin_ms + 2 * phase.silence_max_ms < phase.end_ms <= SCRIPT_MS_MAX
            assert phase.begin_ms >= 2000, "a client needs time to learn what is usual"
            assert 0 <= phase.loss <= 10_000
            lossy = phase.trouble in {Trouble.LOSS, Trouble.ONE_WAY_LOSS}
            assert (phase.loss >= 2500) == lossy
            assert phase.title


def test_a_relay_is_killed_while_the_direct_path_is_dead() -> None:
    for seed in SEEDS:
        *_, hole, killed = phases(seed)
        assert (hole.source, hole.target) == (killed.source, killed.target)
        assert hole.begin_ms + 2000 < killed.begin_ms < hole.end_ms


def test_machines_become_slow_after_all_that_happens_to_paths() -> None:
    for seed in SEEDS:
        script, slow = phases(seed), slow_phases(seed)
        assert slow == slow_phases(seed)
        assert [phase.affliction for phase in slow] == [Affliction.STOLEN_CPU, Affliction.SLOW_DISK]
        assert [phase.begin_ms for phase in slow] == sorted(phase.begin_ms for phase in slow)
        assert slow[0].begin_ms > max(phase.end_ms for phase in script)
        for phase in slow:
            assert {phase.source, phase.target} < set(SITES)
            assert phase.title


def test_what_is_promised_is_what_the_gauges_need() -> None:
    cpu, disk = slow_phases(1)
    assert cpu.found_max_ms * MILLISECOND_NS > TERMS.persist_ns
    assert disk.found_max_ms * MILLISECOND_NS > TERMS.persist_ns + CALM_NS
    assert cpu.begin_ms + cpu.found_max_ms + disk.found_max_ms < 60_000, "a demo of a minute"


def test_one_machine_is_left_whose_disk_can_be_slow() -> None:
    """One is killed as a relay, and one has its CPU stolen as the next; neither is an end of that pair."""
    killed = phases(1)[-1]
    assert len(AFFLICTABLE) >= 3
    assert not {killed.source, killed.target} & set(AFFLICTABLE)
    assert set(AFFLICTABLE) <= set(SITES)


def test_the_network_is_the_measured_one() -> None:
    topology = demo_topology()
    assert len(topology.specs) == len(SITES)
    delays_ms = {
        (SITES[i], SITES[j]): topology.specs[i][j].delay_ns / MILLISECOND_NS
        for i in range(len(SITES))
        for j in range(len(SITES))
        if i != j
    }
    assert all(1 < delay < 200 for delay in delays_ms.values())
    assert delays_ms["fra", "home"] < delays_ms["fra", "ash"] < delays_ms["fra", "sin"]


def test_regions_are_packaged_and_can_be_chosen() -> None:
    regions = packaged_regions()
    assert len(regions.names) == 20
    few = sites_of(regions.names[:3])
    assert few.names == regions.names[:3]
    assert set(few.pings) == {pair for pair in regions.pings if set(pair) <= set(few.names)}
