# SPDX-License-Identifier: Apache-2.0
"""Topologies: from one behaviour, a matrix, slices and the packaged table; and what links share."""

from pathlib import Path

import pytest

import atoll.lab
from atoll.base.errors import CorruptError, UsageError
from atoll.base.units import SECOND_NS
from atoll.sim.link import CLEAR, Jitter, LinkSpec
from atoll.sim.topology import (
    LOOPBACK,
    Fate,
    Topology,
    full_mesh,
    mesh_of_matrix,
    mesh_of_regions,
    mesh_of_slices,
    parse_regions,
)

HEADER = "source,destination,min_ms,avg_ms,max_ms,mdev_ms"
TABLE = f"""{HEADER}
north,north,0.1,0.2,1,0.01
north,south,100.25,101.25,150,2
south,north,100.5,100.5,150,2
south,south,0.1,0.1,1,0.01
"""


def packaged_table() -> str:
    folder = Path(atoll.lab.__file__).parent / "data" / "latency-cloud-regions"
    return (folder / "gcp_20_regions.csv").read_text()


def test_a_full_mesh_has_one_behaviour_and_a_loopback() -> None:
    spec = LinkSpec(delay_ns=7)
    mesh = full_mesh(3, spec)
    assert mesh.count == 3
    assert mesh.specs[0] == (LOOPBACK, spec, spec)
    assert mesh.specs[2][2] == LOOPBACK


def test_a_matrix_gives_half_its_round_trip_to_each_direction() -> None:
    mesh = mesh_of_matrix([[0, 10], [14, 0]], rest=LinkSpec(loss=5))
    assert mesh.specs[0][1] == LinkSpec(delay_ns=5000, loss=5)
    assert mesh.specs[1][0] == LinkSpec(delay_ns=7000, loss=5)


def test_slices_become_series_and_gaps_keep_the_last_known_value() -> None:
    slices = [[[0, 0], [10, 0]], [[0, 20], [0, 0]], [[0, 30], [12, 0]]]
    mesh = mesh_of_slices(slices, slice_ns=SECOND_NS, start_ns=5 * SECOND_NS)
    assert mesh.specs[0][1].series == ((0, 10_000), (7 * SECOND_NS, 15_000))
    assert mesh.specs[1][0].series == ((0, 5000), (7 * SECOND_NS, 6000))
    assert mesh.specs[0][1].delay_ns == 10_000
    with pytest.raises(UsageError, match="never measured"):
        mesh_of_slices([[[0, 0], [1, 0]]], slice_ns=1)
    with pytest.raises(UsageError, match="no slices"):
        mesh_of_slices([], slice_ns=1)


def test_a_region_table_gives_delay_and_jitter_each_way() -> None:
    mesh = mesh_of_regions(parse_regions(TABLE), count=3, rest=LinkSpec(loss=7))
    assert mesh.names == ("north", "south", "north-2")
    assert mesh.specs[0][1] == LinkSpec(delay_ns=50_125_000, jitter_ns=500_000, jitter=Jitter.HEAVY, loss=7)
    assert mesh.specs[1][0] == LinkSpec(delay_ns=50_250_000, loss=7)
    assert mesh.specs[0][2].delay_ns == 50_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "source,destination\n",
        TABLE + "north,south\n",
        TABLE.replace("100.25", "soon"),
        TABLE.replace("100.25", "-1.0"),
        TABLE.replace("100.25", "1e3"),
        TABLE.replace("100.25", ""),
        TABLE.replace("100.25", "1.234x"),
        TABLE.replace("south,north,100.5,100.5,150,2\n", ""),
    ],
)
def test_a_broken_table_is_refused(text: str) -> None:
    with pytest.raises(CorruptError):
        parse_regions(text)


def test_the_packaged_table_makes_a_mesh_of_twenty_regions_and_more() -> None:
    regions = parse_regions(packaged_table())
    assert len(regions.names) == 20
    mesh = mesh_of_regions(regions, count=25)
    assert len(set(mesh.names)) == 25
    ping = regions.pings["asia-east1", "asia-east2"]
    assert (ping.rtt_min_us, ping.rtt_mean_us, ping.rtt_max_us, ping.deviation_us) == (12766, 18908, 66849, 873)
    assert all(mesh.specs[i][j].delay_ns > 0 for i in range(25) for j in range(25))


def test_fates_are_last_hops_and_providers() -> None:
    mesh = full_mesh(4).with_providers({"cable": [2, 1]})
    assert [fate.name for fate in mesh.fates] == [f"last hop of {node}" for node in range(4)] + ["provider cable"]
    assert mesh.fates[0].links(3) == ((0, 1), (0, 2), (1, 0), (2, 0))
    cable = mesh.fates[-1]
    assert cable.members == (1, 2)
    assert (1, 2) not in cable.links(4)  # Within the provider nothing crosses the shared part.
    assert len(cable.links(4)) == 8


@pytest.mark.parametrize(
    "build",
    [
        lambda: full_mesh(0),
        lambda: full_mesh(1001),
        lambda: Topology(("a", "b"), ((CLEAR, CLEAR),)),
        lambda: Topology(("a",), ((CLEAR,),), (Fate("x", (1,)),)),
    ],
)
def test_impossible_topologies_are_refused(build: object) -> None:
    assert callable(build)
    with pytest.raises(UsageError):
        build()
