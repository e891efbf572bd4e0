# SPDX-License-Identifier: Apache-2.0
"""Parties that an environment had no room for: whoever comes back goes on; nothing counts twice or is lost unsaid."""

from collections.abc import Iterator
from random import Random
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.env import asking, channel
from atoll.env import inbox as inbox_module
from atoll.env.correspondent import Correspondent, Lost, Responded
from atoll.env.messages import FORGOTTEN, Carried, Receipt, Refusal
from atoll.env.orders import Say
from atoll.env.tuples import Tuple
from tests.unit.steward_world import Add, Place, Seek, encode

STEP_NS: Final = 120 * MILLISECOND_NS
KEPT_NS: Final = 2 * SECOND_NS  # Instead of a minute; so half of it is what is old.
CLIENTS: Final = 4
ROOM: Final = 2  # Parties that an environment remembers; each has four clients, and the other one.
STEPS_MAX: Final = 400
ACTIONS_MAX: Final = 60
CALLS_MAX: Final = 30  # Each has two bits of a number of 60.


class World:
    """One node with two counters, and clients whose messages may be lost, or come twice."""

    def __init__(self, seed: int) -> None:
        self.random, self.loss_percent = Random(seed), 0
        self.place = Place()
        self.shops = [self.place.run(name) for name in ("one", "two")]
        self.clients = [Correspondent(bytes([number]) * 16) for number in range(1, CLIENTS + 1)]
        self.outcomes: dict[tuple[int, int], list[Responded | Lost]] = {}
        self._attach()

    def _attach(self) -> None:
        self._heard = [0] * CLIENTS
        for number, client in enumerate(self.clients, 1):
            self.place.attach(client.party, number)

    def restart(self) -> None:
        """Let the process end, and another one take up its journals."""
        before, self.place = self.place, Place()
        self.place.now_ns = before.now_ns
        self.place.again(before)
        self._attach()

    def call(self, who: int, shop: int, event: Tuple) -> tuple[int, int]:
        client = self.clients[who]
        number = client.call(self.shops[shop])
        client.post(self.shops[shop], encode(event), number)
        client.flush(self.place.now_ns)
        self.outcomes[who, number] = []
        return who, number

    def step(self) -> None:
        """Let everything go round once, and time pass."""
        self.place.tick(STEP_NS)
        for number, client in enumerate(self.clients, 1):
            client.remind(self.place.now_ns)
            for out in client.taken():
                for _ in range(self._copies()):
                    self.place.hear(number, out)
        for who, client in enumerate(self.clients):
            said = self.place.said(who + 1)
            for message in said[self._heard[who] :]:
                for _ in range(self._copies()):
                    assert isinstance(message, Carried | Receipt | Refusal)
                    for news in client.heard(message, self.place.now_ns):
                        assert isinstance(news, Responded | Lost), news
                        self.outcomes[who, news.call].append(news)
            self._heard[who] = len(said)

    def _copies(self) -> int:
        lost = self.random.randrange(100) < self.loss_percent
        return 0 if lost else 1 + (self.random.randrange(100) < self.loss_percent)

    def counts(self) -> int:
        """Return how often each call had its effect, in two bits each."""
        return sum(int(self.place.counter(shop)["n"]) for shop in self.shops)

    @property
    def is_quiet(self) -> bool:
        """Whether nobody waits, and nobody is owed anything."""
        owed = [self.place.hosted(shop).runner for shop in self.shops]
        return all(self.outcomes.values()) and not any(runner and runner.environment.owed() for runner in owed)


def actions(random: Random) -> Iterator[tuple[str, int, int]]:
    """Give what happens: calls, and waits that are often longer than a party is remembered."""
    for _ in range(random.randrange(20, ACTIONS_MAX)):
        who, shop = random.randrange(CLIENTS), random.randrange(2)
        match random.randrange(8):
            case 0 | 1 | 2:
                yield "add", who, shop
            case 3:
                yield "pass on", who, shop
            case 4 | 5 | 6:
                yield "wait", random.choice((1, 3, 9, 18, 30)), random.choice((0, 0, 40, 90, 100))
            case _:
                yield "restart", 0, 0


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32))
def test_every_call_has_its_effect_once_or_it_is_said_that_it_is_not_known(seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "PARTIES_MAX", ROOM)
        patch.setattr(channel, "PARTY_KEPT_NS", KEPT_NS)
        patch.setattr(inbox_module, "DOUBT_NS", KEPT_NS // 2)
        world = World(seed)
        calls: list[tuple[int, int]] = []
        passed: set[tuple[int, int]] = set()
        notes = 0
        for what, one, other in actions(Random(seed)):
            if what == "wait":
                world.loss_percent = other
                for _ in range(one):
                    world.step()
            elif what == "restart":
                notes += _notes(world)
                world.restart()
            elif len(calls) < CALLS_MAX:
                n = 1 << 2 * len(calls)
                calls.append(world.call(one, other, Add(n) if what == "add" else Seek(("two", "one")[other], n)))
                if what == "pass on":
                    passed.add(calls[-1])
        world.loss_percent = 0
        for _ in range(STEPS_MAX):
            world.step()
            if world.is_quiet:
                break
        else:
            pytest.fail(f"somebody waits: {world.outcomes}")
        notes += _notes(world)
        counts = world.counts()
        unsaid = 0
        for at, call in enumerate(calls):
            [outcome] = world.outcomes[call]
            count = counts >> 2 * at & 3
            assert count <= 1, "it counted twice"
            if isinstance(outcome, Lost):
                assert outcome.failure.code == FORGOTTEN
            elif call in passed:
                unsaid += 1 - count
            else:
                assert count == 1, "it was said to be done"
        assert unsaid <= notes, "what one counter sent to the other is lost, and its log does not say so"


def _notes(world: World) -> int:
    """Return how many tuples are given up, as logs say."""
    return sum(int(say.text.split()[4]) for say in world.place.got(Say) if say.text.startswith("not known"))
