# SPDX-License-Identifier: Apache-2.0
"""Whatever a program sends and whoever is forgotten: a server knows the channels of a guest as the guest does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.domain.guest.mirror import Mirror
from atoll.env.context import Context
from atoll.env.limits import PARTY_KEPT_NS, PARTY_SILENT_NS
from atoll.env.parties import Ref
from atoll.env.records import Arrived, Confirmed, Forgotten, Record
from tests.unit.env_world import Actor, Word, World, arrived, go, item

PARTIES = [bytes([65 + number]) * 16 for number in range(7)]

some = st.integers(0, len(PARTIES) - 1)
steps = st.one_of(
    st.tuples(st.just("says"), some, st.lists(some, max_size=5)),
    st.tuples(st.just("has"), some, st.integers(0, 8)),
    st.tuples(st.just("forgot"), some, st.integers(0, 8)),
    st.tuples(st.just("waits"), st.sampled_from((1, PARTY_KEPT_NS, PARTY_KEPT_NS, PARTY_SILENT_NS)), st.none()),
    st.tuples(st.just("restored"), st.none(), st.none()),
)


class Both:
    """An environment that has room for three parties, and the mirror of its channels."""

    def __init__(self) -> None:
        self.world = World(Actor)
        self.mirror = Mirror()
        self.now_ns = self.world.now_ns

    def put(self, record: Record) -> None:
        """As a guest's environment does it."""
        effects = self.world.put(record)
        environment, now_ns = self.world.environment, self.world.now_ns
        lived_ns = environment.lived_ns
        match record:
            case Arrived(party, first):
                self.mirror.took(party, environment.received(party), first, lived_ns)
            case Confirmed(party, upto):
                self.mirror.confirm(party, upto, lived_ns)
            case Forgotten(party, upto):
                self.mirror.given_up(party, upto)
            case _:
                raise AssertionError(record)
        self.mirror.forget(environment.forgotten, lived_ns)
        self.mirror.sent(effects, now_ns, lived_ns)

    def says(self, party: bytes, to: list[bytes]) -> None:
        """Let a party have tuples sent to others."""

        def send(_: Actor, ctx: Context) -> None:
            for one in to:
                ctx.send(Ref(one), Word())

        first = self.world.environment.received(party) + 1
        self.put(arrived(first, item(go(send)), party=party))

    def compare(self, mirror: Mirror) -> None:
        """Fail unless a mirror is what the environment is."""
        environment = self.world.environment
        assert mirror.taken() == environment.taken()
        assert set(mirror.owed()) == set(environment.owed())
        assert mirror.forgot_ns == environment.forgot_ns
        assert mirror.parties == environment.parties
        for party in PARTIES:
            assert mirror.knows(party) == environment.knows(party)
            if environment.owes(party):
                assert mirror.confirmed(party) == environment.confirmed(party)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=40))
def test_it_has_what_the_environment_has(program: list[tuple[str, int | None, int | list[int] | None]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("atoll.env.asking.PARTIES_MAX", 3)
        patch.setattr("atoll.env.environment.LIVED_STEP_NS", PARTY_SILENT_NS)
        both = Both()
        for what, who, more in program:
            if what == "waits":
                assert who is not None
                both.world.now_ns += who
            elif what == "restored":
                both.world.environment = both.world.restored()
                both.mirror = Mirror.of(both.world.environment.snapshot())
            elif isinstance(more, list):
                assert who is not None
                both.says(PARTIES[who], [PARTIES[one] for one in more])
            else:
                assert who is not None
                assert more is not None
                both.put((Confirmed if what == "has" else Forgotten)(PARTIES[who], more))
            both.compare(both.mirror)
        both.compare(Mirror.of(both.world.environment.snapshot()))
