# SPDX-License-Identifier: Apache-2.0
"""Draws are a function of seed and count, stay in their bounds, and refuse senseless widths."""

import msgspec
import pytest

from atoll.base.errors import UsageError
from atoll.core.entropy import SEED_BYTES, Draws

SEED = bytes(range(SEED_BYTES))


def test_the_stream_of_a_seed_is_fixed_for_ever() -> None:
    # A vector: old journals replay only while these numbers stay.
    draws = Draws(SEED)
    assert [draws.bits(32), draws.below(1000), draws.token(4).hex(), draws.count] == [626896806, 599, "733aae63", 3]


def test_a_restored_stream_goes_on_where_it_was() -> None:
    draws = Draws(SEED)
    draws.bits(64)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(draws), type=Draws)
    assert [again.bits(64) for _ in range(5)] == [draws.bits(64) for _ in range(5)]


def test_seeds_give_different_streams() -> None:
    assert Draws(SEED).bits(512) != Draws(SEED[::-1]).bits(512)


@pytest.mark.parametrize("width", [1, 7, 8, 64, 511, 512])
def test_bits_stay_below_their_width_and_use_it(width: int) -> None:
    draws = Draws(SEED)
    found = [draws.bits(width) for _ in range(64)]
    assert max(found) < 1 << width
    assert max(found) >= 1 << (width - 1)  # A top bit that is never set in 64 draws would be a shift by one.


@pytest.mark.parametrize("bound", [1, 2, 3, 1000, 1 << 64])
def test_below_stays_below(bound: int) -> None:
    draws = Draws(SEED)
    assert all(0 <= draws.below(bound) < bound for _ in range(64))


def test_below_reaches_every_value() -> None:
    draws = Draws(SEED)
    assert {draws.below(6) for _ in range(200)} == set(range(6))


@pytest.mark.parametrize("width", [0, -1, 513])
def test_a_senseless_width_is_refused(width: int) -> None:
    with pytest.raises(UsageError):
        Draws(SEED).bits(width)


@pytest.mark.parametrize("bound", [0, -1, (1 << 64) + 1])
def test_a_senseless_bound_is_refused(bound: int) -> None:
    with pytest.raises(UsageError):
        Draws(SEED).below(bound)


def test_a_refused_draw_uses_nothing_up() -> None:
    draws = Draws(SEED)
    with pytest.raises(UsageError):
        draws.bits(0)
    assert draws.count == 0
