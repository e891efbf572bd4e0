# SPDX-License-Identifier: Apache-2.0
"""The latency estimate: calm under jitter, quick after a shift, deaf to single outliers."""

from itertools import pairwise
from random import Random

import msgspec

from atoll.base.units import MINUTE_NS, SECOND_NS
from atoll.overlay.estimate import FLOOR_NS, RTT_US_MAX, Latency


def fed(values: list[int], estimate: Latency | None = None) -> Latency:
    estimate = Latency() if estimate is None else estimate
    for at, value in enumerate(values):
        estimate.add(value, at * SECOND_NS)
    return estimate


def jittered(rng: Random, base_us: int, jitter_us: int, count: int) -> list[int]:
    return [round(rng.gauss(base_us, jitter_us)) for _ in range(count)]


def test_nothing_measured_is_zero() -> None:
    estimate = Latency()
    assert (estimate.predicted_us, estimate.deviation_us, estimate.floor_us, estimate.samples) == (0, 0, 0, 0)


def test_one_sample_is_the_prediction() -> None:
    estimate = fed([31_415])
    assert (estimate.predicted_us, estimate.deviation_us, estimate.floor_us, estimate.samples) == (31_415, 0, 31_415, 1)


def test_values_are_clipped_to_what_the_wire_carries() -> None:
    assert fed([0]).predicted_us == 1
    assert fed([1 << 60] * 3).predicted_us == RTT_US_MAX


def test_jitter_is_averaged_away_and_measured() -> None:
    rng = Random(1)
    estimate = fed(jittered(rng, 50_000, 5_000, 400))
    predictions = [fed([value], estimate).predicted_us for value in jittered(rng, 50_000, 5_000, 400)]
    assert max(abs(one - 50_000) for one in predictions) < 1_000  # 0.2 of one sample's deviation.
    assert 4_000 < estimate.deviation_us < 6_500


def test_a_shift_is_followed_within_eight_samples() -> None:
    rng = Random(2)
    estimate = fed(jittered(rng, 30_000, 1_000, 600))
    for base_us in (80_000, 30_000, 45_000):
        fed(jittered(rng, base_us, 1_000, 8), estimate)
        assert abs(estimate.predicted_us - base_us) < 4_000


def test_a_single_outlier_moves_nothing() -> None:
    rng = Random(3)
    estimate = fed(jittered(rng, 30_000, 1_000, 300))
    for value in [500_000, *jittered(rng, 30_000, 1_000, 5)]:
        fed([value], estimate)
        assert abs(estimate.predicted_us - 30_000) < 4_000


def test_rare_spikes_hardly_move_a_long_average() -> None:
    rng = Random(6)
    estimate = fed(jittered(rng, 50_000, 1_000, 1_000))
    spiky = [value * (1 + 3 * (rng.random() < 0.03)) for value in jittered(rng, 50_000, 1_000, 2_000)]
    predictions = [fed([value], estimate).predicted_us for value in spiky]
    assert max(abs(one - 50_000) for one in predictions) < 2_500  # A plain average would be 4,500 off.


def test_after_few_samples_the_average_speaks_unless_the_lead_is_large() -> None:
    assert fed([100_000, 110_000, 112_000]).predicted_us in range(107_000, 108_000)
    assert fed([100_000, 900_000, 900_000, 900_000, 900_000, 900_000]).predicted_us > 850_000


def test_on_a_series_that_jumps_and_stays_the_newest_sample_speaks() -> None:
    rng = Random(4)
    series = [value for _ in range(60) for value in [rng.randrange(100_000, 9_000_000)] * 5]
    estimate, right = Latency(), 0
    for value, following in pairwise(series):
        fed([value], estimate)
        right += estimate.predicted_us == following
    assert right > len(series) * 3 // 4  # Four of five steps stay; the fifth is not predictable.


def test_the_floor_is_forgotten_after_ten_minutes() -> None:
    estimate = Latency()
    estimate.add(10_000, 0)
    for second in range(1, 2 * FLOOR_NS // SECOND_NS + 1):
        estimate.add(20_000, second * SECOND_NS)
        assert second * SECOND_NS >= FLOOR_NS or estimate.floor_us == 10_000
    assert estimate.floor_us == 20_000
    estimate.add(15_000, 11 * MINUTE_NS)
    assert estimate.floor_us == 15_000


def test_a_restored_estimate_goes_on_alike() -> None:
    rng = Random(5)
    estimate = fed(jittered(rng, 50_000, 5_000, 40))
    twin = msgspec.msgpack.decode(msgspec.msgpack.encode(estimate), type=Latency)
    more = jittered(rng, 90_000, 9_000, 40)
    assert fed(more, estimate) == fed(more, twin)
