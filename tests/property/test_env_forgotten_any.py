# SPDX-License-Identifier: Apache-2.0
"""Parties that an environment had no room for: whoever comes back goes on, and everything has its effect once."""

from random import Random
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.base.units import MILLISECOND_NS
from atoll.env import asking
from atoll.env.correspondent import Correspondent, Responded
from atoll.env.messages import Carried, Receipt, Refusal
from atoll.env.tuples import Tuple
from tests.unit.steward_world import Add, Place, Seek, encode

STEP_NS: Final = 120 * MILLISECOND_NS
CLIENTS: Final = 4
ROOM: Final = 2  # Parties that an environment remembers.
STEPS_MAX: Final = 400


class World:
    """One node with two counters, and clients whose messages may be lost."""

    def __init__(self, seed: int, loss_percent: int) -> None:
        self.random, self.loss_percent = Random(seed), loss_percent
        self.place = Place()
        self.shops = [self.place.run(name) for name in ("one", "two")]
        self.clients = [Correspondent(bytes([number]) * 16) for number in range(1, CLIENTS + 1)]
        for number, client in enumerate(self.clients, 1):
            self.place.steward.attach(client.party, number, self.place.now)
        self.waiting: dict[tuple[int, int], int] = {}  # Times that a call was responded to, by client and call.
        self._heard = [0] * CLIENTS

    def call(self, who: int, shop: int, event: Tuple) -> None:
        client = self.clients[who]
        number = client.call(self.shops[shop])
        self.waiting[who, number] = 0
        client.post(self.shops[shop], encode(event), number)
        client.flush()

    def step(self) -> None:
        """Let everything go round once, and time pass."""
        self.place.now_ns += STEP_NS
        self.place.steward.tick(self.place.now)
        for number, client in enumerate(self.clients, 1):
            client.remind()
            for message in client.taken():
                for _ in range(self._copies()):
                    self.place.steward.heard(number, message, self.place.now)
                    self.place.settle()
        self._deliver()

    def _copies(self) -> int:
        lost = self.random.randrange(100) < self.loss_percent
        return 0 if lost else 1 + (self.random.randrange(100) < self.loss_percent)

    def _deliver(self) -> None:
        self.place.settle()
        for who, client in enumerate(self.clients):
            said = self.place.said(who + 1)
            for message in said[self._heard[who] :]:
                for _ in range(self._copies()):
                    assert isinstance(message, Carried | Receipt | Refusal)
                    for news in client.heard(message):
                        assert isinstance(news, Responded), news
                        self.waiting[who, news.call] += 1
            self._heard[who] = len(said)

    def count(self, shop: int) -> int:
        hosted = self.place.steward.hosted[self.shops[shop]]
        assert hosted.runner is not None
        return int(hosted.runner.environment.fields()["n"])


@settings(max_examples=60)
@given(
    st.integers(0, 1 << 32),
    st.sampled_from([0, 10, 40]),
    st.lists(st.tuples(st.integers(0, CLIENTS - 1), st.integers(0, 1), st.booleans(), st.integers(0, 6)), max_size=30),
)
def test_every_call_has_its_effect_once_whoever_was_forgotten(
    seed: int, loss_percent: int, calls: list[tuple[int, int, bool, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "PARTIES_MAX", ROOM)
        world = World(seed, loss_percent)
        expected = [0, 0]
        for who, shop, is_passed_on, pause in calls:
            world.call(who, shop, Seek(("two", "one")[shop]) if is_passed_on else Add(1))
            expected[1 - shop if is_passed_on else shop] += 1
            for _ in range(pause):
                world.step()
        world.loss_percent = 0
        for _ in range(STEPS_MAX):
            world.step()
            if [world.count(0), world.count(1)] == expected and all(world.waiting.values()):
                break
        for _ in range(20):
            world.step()
        assert [world.count(0), world.count(1)] == expected
        assert set(world.waiting.values()) <= {1}
