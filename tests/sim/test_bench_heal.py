# SPDX-License-Identifier: Apache-2.0
"""The healing benchmark: the same seed has the same times, and real series stand at their place in the day."""

from random import Random

import numpy as np
import pytest
from heal_idle import DATA, DATA_SETS, DAY_NS, GROUPS, NODES, SETTLED_NS, DataSet, series_of
from heal_sim import NEVER, SHARED, STRIKES, trial

from atoll.base.units import MINUTE_NS
from atoll.lab.calm import filled


def test_a_seed_is_one_trial_and_every_destination_heals() -> None:
    first = trial(1)
    assert first == trial(1)
    assert first != trial(2)
    shared = sum(kind == "shared cut" for kind, _ in first) // SHARED
    assert shared, "this seed has a shared cut; with another simulator take another seed"
    assert len(first) == STRIKES + shared * (SHARED - 1)
    # A loss may show nowhere: what it took before the doubt came again.
    assert all((kind == "loss" or seconds > 0) and 0 <= seconds < NEVER for kind, seconds in first)


@pytest.mark.parametrize("data", DATA_SETS, ids=lambda data: data.name)
def test_each_group_plays_its_hours_of_the_one_day(data: DataSet) -> None:
    with np.load(DATA / data.path) as archive:
        rtt_ms = archive["rtt_ms"].astype(np.float64)
    slice_ns = DAY_NS // len(rtt_ms)
    for group in range(GROUPS):
        hosts = sorted(Random(group).sample(range(rtt_ms.shape[1]), NODES))
        rtt_us = np.nan_to_num(rtt_ms[:, hosts][:, :, hosts] * 1000).round().astype(np.int64).tolist()
        series, whole = series_of(data, group), filled(rtt_us)
        for minutes in (0, 7, 90, 179):
            index = (group * (DAY_NS // GROUPS) + minutes * MINUTE_NS) // slice_ns
            at_ns = SETTLED_NS + minutes * MINUTE_NS
            for i, j in ((0, 1), (3, 17), (19, 4)):
                jitter_us = 2 * data.rest.jitter_ns // 1000
                measured = (whole[index][i][j] + whole[index][j][i]) // 2 + jitter_us
                assert series.mean_us((i, j), (at_ns, at_ns + 1)) == measured
                spec = series.topology().specs[i][j] if minutes == 90 else None
                if spec is not None:
                    delay_ns = [delay_ns for since_ns, delay_ns in spec.series if since_ns <= at_ns][-1]
                    assert delay_ns == whole[index][i][j] * 1000 // 2
