# SPDX-License-Identifier: Apache-2.0
"""How often 20 nodes change a route although nothing was broken: part ``idle`` of bench/heal.py.

The links follow the round trips that real hosts measured (bench/data), each series laid over 24 simulated hours once.
The hours are played by GROUPS groups, each of 20 other hosts, drawn from all by the group's number: group g plays from
hour 24 g / GROUPS on. So parts can run at the same time and be kept one by one.

What the data do not say, and what is done instead:

* *How long a slice was.* Laid over a day, a slice lasts 4.2 minutes (Seattle, 344 slices) or 2 h 40 min (PlanetLab,
  9). The figures go with it: the faster the slices, the more there is to follow.
* *Between two samples* nothing changes: a slice holds until the next. In Seattle a host's row is new only in each
  fourth or fifth slice, and two such rows in a row hardly resemble each other (correlation 0.07); holding one makes a
  lasting shift of what may have been a moment's noise.
* *Within a sample* a packet takes on top: in Seattle 0 to 5 ms each way, evenly, which is what the rounding of the
  source to 10 ms of round trip hid; in PlanetLab heavy-tailed jitter of mean 0.18 ms each way, half the median of
  what the mean of a ping exceeds its least by between the cloud regions that atoll ships.
* A *gap* (Seattle, 0.5 %) holds the last value. No packet is lost: the data have no loss.
* Links keep order, so after a slice of seconds its packets hold up those of the next one, as a full queue would.

All switches are counted, whatever their cause, but those of a group's first five minutes, which are not among its
hours. A switch is *false* if over the minute for which it binds the pair, packets by the way taken had no better
round trip than by the way left; back to direct an equal one will do (``atoll.lab.calm``). On PlanetLab, where paths are
steady, what is asked is compared with all switches. On Seattle all cannot be meant, because bench/choose.py asks on
the same series for three quarters of what an oracle gains that may switch in each slice: there it is compared with the
false ones, and all are shown. So are the *regretted* ones, which did not pay over the whole time for which the pair
then stayed: they count the jumps of later slices, too.
"""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
from figures import Figure
from units import Plan, Result, run_units

from atoll.base.units import HOUR_NS, MILLISECOND_NS, MINUTE_NS
from atoll.lab.calm import Series, filled, switches
from atoll.lab.groups import blueprints, factory_of
from atoll.sim import Jitter, LinkSpec, World

NODES: Final = 20
GROUPS: Final = 8
DAY_NS: Final = 24 * HOUR_NS
SETTLED_NS: Final = 5 * MINUTE_NS
DATA: Final = Path(__file__).resolve().parent / "data"
PAIRS: Final = NODES * (NODES - 1)


@dataclass(frozen=True)
class DataSet:
    """One data set; ``steady``: all switches are compared with what is asked; ``rest``: what links have besides."""

    name: str
    path: str
    steady: bool
    rest: LinkSpec


DATA_SETS: Final = (
    DataSet(
        name="Seattle",
        path="latency-seattle/seattle_rtt.npz",
        steady=False,
        rest=LinkSpec(jitter=Jitter.UNIFORM, jitter_ns=5 * MILLISECOND_NS // 2),
    ),
    DataSet(
        name="PlanetLab",
        path="latency-planetlab/planetlab_rtt.npz",
        steady=True,
        rest=LinkSpec(jitter=Jitter.HEAVY, jitter_ns=184_000),
    ),
)


def series_of(data: DataSet, group: int) -> Series:
    """Return what the links of one group follow: the series of its hosts, so that its hours begin at SETTLED_NS."""
    with np.load(DATA / data.path) as archive:
        rtt_ms = archive["rtt_ms"]
        hosts = sorted(Random(group).sample(range(rtt_ms.shape[1]), NODES))
        picked = rtt_ms[:, hosts][:, :, hosts].astype(np.float64)
    rtt_us = np.nan_to_num(picked * 1000, nan=0.0).round().astype(np.int64).tolist()
    whole = filled(rtt_us)
    slice_ns = DAY_NS // len(whole)
    first, past_ns = divmod(group * (DAY_NS // GROUPS), slice_ns)
    start_ns = SETTLED_NS - past_ns
    return Series(whole[first:], slice_ns, start_ns=start_ns, rest=data.rest)


def run_group(hours: float, unit: int) -> Result:
    """Run one group; return its switches: cause, gains us, world ns, source, target, left, taken, false, regretted."""
    data, group = DATA_SETS[unit // GROUPS], unit % GROUPS
    length_ns = SETTLED_NS + int(hours * HOUR_NS) // GROUPS
    series, plans = series_of(data, group), blueprints(NODES, 1)
    world = World(series.topology(), factory_of(plans), seed=group)
    world.start_all()
    world.run(length_ns)
    found = switches(world, plans, series, SETTLED_NS)
    return [
        [
            one.cause,
            one.gain_us,
            one.held_gain_us,
            one.at_ns,
            one.source,
            one.target,
            one.before,
            one.via,
            one.false,
            one.regretted,
        ]
        for one in found
    ]


def idle(hours: float) -> tuple[list[Figure], dict[str, object]]:
    """Count the switches of healthy, idle groups on both data sets."""
    units = range(len(DATA_SETS) * GROUPS)
    done = run_units(Plan("idle", partial(run_group, hours), units, {"hours": hours}))
    figures: list[Figure] = []
    extra: dict[str, object] = {}
    for number, data in enumerate(DATA_SETS):
        rows = [row for unit in units[number * GROUPS : (number + 1) * GROUPS] for row in done[unit]]
        causes, false = Counter(row[0] for row in rows), Counter(row[0] for row in rows if row[8])
        regretted = sum(row[9] for row in rows)
        days = PAIRS * hours / 24
        what = f"20 idle nodes on {data.name}, {hours:g} simulated hours"
        figures += [
            Figure(f"{what}, all switches", "per pair, day", 1.0 if data.steady else None, causes.total() / days),
            Figure(f"{what}, false switches", "per pair, day", 1.0, false.total() / days),
            Figure(f"{what}, regretted switches", "per pair, day", None, regretted / days),
        ]
        gains = sorted(row[1] for row in rows)
        extra[data.name] = {
            "all, by cause": {cause: count / days for cause, count in causes.most_common()},
            "false, by cause": {cause: count / days for cause, count in false.most_common()},
            "gain of all, mean ms": sum(gains) / len(gains) / 1000 if gains else None,
            "gain of all, ms at 10, 50, 90 %": [gains[len(gains) * tenth // 10] / 1000 for tenth in (1, 5, 9) if gains],
        }
    return figures, extra
