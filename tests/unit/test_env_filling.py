# SPDX-License-Identifier: Apache-2.0
"""In which order what waits for an environment is applied, and what its block says of it."""

from typing import Final

import pytest

from atoll.base.units import SECOND_NS
from atoll.env.facts import Facts, Suspect
from atoll.env.filling import Filling
from atoll.env.history import decode_body
from atoll.env.limits import BLOCK_BYTES, BLOCK_EVENTS_MAX, CONFIRM_NS, TOLD_MAX
from atoll.env.messages import Carried
from atoll.env.orders import Moment
from atoll.env.places import HandlerFailedError
from atoll.env.records import Arrived, Began, Confirmed, Failed, Fired, Forgotten, Found, Held, Record, Stopped
from atoll.env.runner import Runner
from atoll.env.slew import SlewedClock
from atoll.env.tuples import Tuple
from tests.unit.env_world import said
from tests.unit.steward_world import (
    ANN,
    BOB,
    PROGRAM,
    WALL_NS,
    Add,
    Boom,
    Elsewhere,
    Later,
    Notes,
    Quit,
    encode,
    items,
)

ME, CODE = b"me".ljust(16), bytes(32)
HOLDERS: Final = (b"n" * 10, b"o" * 10)
NEWS: Final = Found(1)  # What nobody waits for.


class Here:
    """One environment that runs, and what waits for it."""

    def __init__(self, at: Elsewhere | None = None) -> None:
        self.walls = Notes()
        self.filling = Filling(Facts(ME, "count", "Counter", CODE), "one", SlewedClock())
        self.runner = Runner(PROGRAM if at is None else at, CODE, walls=self.walls)
        self.runner.take(Began(ME, bytes(32), "count", CODE, encode({})), WALL_NS)
        assert self.block() == [Began]

    def put(self, first: int, *values: int, party: bytes = ANN) -> None:
        self.give(first, *map(Add, values), party=party)

    def give(self, first: int, *events: Tuple, party: bytes = ANN, ask: int = 0) -> None:
        message = Carried(party, ME, first, items(*events, ask=ask))
        assert self.filling.inbox.put(message, self.runner.environment, 0, is_disk_full=False) is None

    def fill(self, after_ns: int = 0) -> None:
        self.filling.fill(self.runner, Moment(after_ns, WALL_NS + after_ns))

    def turn(self, number: int) -> None:
        """Let it do what one turn has time for, and finish what it has begun in that."""
        self.fill(number)
        while self.runner.is_busy:
            self.runner.go_on()

    def block(self) -> list[type[Record]]:
        ahead = self.filling.block(self.runner)
        return [] if ahead is None else [type(entry.record) for entry in decode_body(ahead.made.body).entries]

    def sealed(self) -> tuple[list[type[Record]], dict[bytes, int]]:
        """Return what is in the next block, and what it says of parties."""
        ahead = self.filling.block(self.runner)
        assert ahead is not None
        return [type(entry.record) for entry in decode_body(ahead.made.body).entries], ahead.receipts

    def said(self) -> list[str]:
        """Return what a client hears of all that was sealed."""
        return [one["is"] for one in said(self.runner.release(self.runner.number), ANN)]


@pytest.fixture
def here() -> Here:
    return Here()


def test_nothing_that_waits_makes_no_block(here: Here) -> None:
    here.fill()
    assert here.filling.block(here.runner) is None


def test_holders_come_first_then_what_is_told_then_what_was_sent_then_timers(here: Here) -> None:
    message = Carried(ANN, ME, 1, items(Later(1)))
    assert here.filling.inbox.put(message, here.runner.environment, 0, is_disk_full=False) is None
    here.fill()
    here.block()
    here.put(2, 5)
    here.filling.tell(Stopped())
    here.filling.change(HOLDERS)
    here.fill(2 * SECOND_NS)
    assert here.block() == [Held, Stopped], "it is over then"
    other = Here()
    other.put(1, 5)
    other.filling.tell(NEWS)
    other.filling.change(HOLDERS)
    other.fill()
    assert other.block() == [Held, Found, Arrived]


def test_a_timer_waits_for_what_was_sent(here: Here) -> None:
    message = Carried(ANN, ME, 1, items(Later(1)))
    assert here.filling.inbox.put(message, here.runner.environment, 0, is_disk_full=False) is None
    here.fill()
    here.put(2, 5)
    here.fill(2 * SECOND_NS)
    assert here.block() == [Arrived, Arrived, Fired]
    assert here.walls.notes[-2:] == [(ANN, 2, 1), (b"", 1, 1)]


def test_a_block_says_what_is_received_with_it(here: Here) -> None:
    here.put(1, 5, 6)
    here.put(1, 7, party=BOB)
    here.fill()
    ahead = here.filling.block(here.runner)
    assert ahead is not None
    assert ahead.receipts == {ANN: 2, BOB: 1}
    here.put(3, 8)
    here.fill()
    ahead = here.filling.block(here.runner)
    assert ahead is not None
    assert ahead.receipts == {ANN: 3}


def test_a_full_block_leaves_the_rest_for_the_next_one(here: Here) -> None:
    here.put(1, *range(BLOCK_EVENTS_MAX))
    here.put(BLOCK_EVENTS_MAX + 1, 1)
    here.filling.tell(NEWS)
    here.fill()
    assert here.block() == [Found, Arrived]
    here.fill()
    assert here.block() == [Arrived]


def test_holders_change_with_the_block_that_says_so(here: Here) -> None:
    here.put(1, 5)
    here.fill()
    here.filling.change(HOLDERS)
    ahead = here.filling.block(here.runner)
    assert ahead is not None
    assert ahead.holders == ()
    here.fill()
    ahead = here.filling.block(here.runner)
    assert ahead is not None
    assert ahead.holders == HOLDERS
    assert here.filling.holders == ()


def test_while_a_handler_runs_elsewhere_nothing_is_applied() -> None:
    far = Elsewhere()
    here = Here(far)
    far.is_slow = True
    here.put(1, 5)
    here.fill()
    assert here.runner.is_busy
    here.put(2, 6)
    here.filling.tell(NEWS)
    here.fill()
    far.is_slow = False
    here.runner.go_on()
    assert here.block() == [Arrived]
    here.fill()
    assert here.block() == [Found, Arrived]


def test_confirmations_are_told_when_they_are_due(here: Here) -> None:
    here.filling.confirms.heard(ANN, 3, 0, 0)
    here.fill(CONFIRM_NS - 1)
    assert here.block() == []
    here.fill(CONFIRM_NS)
    assert here.block() == [Confirmed]


def test_what_is_given_up_is_noted_with_its_block(here: Here) -> None:
    assert not here.filling.gives_up(ANN)
    here.filling.tell(Forgotten(ANN, 3))
    assert here.filling.gives_up(ANN)
    assert not here.filling.gives_up(BOB)
    assert here.filling.giving_up == 0
    here.fill()
    assert here.filling.giving_up == 2
    assert not here.filling.gives_up(ANN)


def test_a_block_takes_no_more_news_than_fits(here: Here) -> None:
    count = BLOCK_BYTES // 32
    for _ in range(count):
        here.filling.tell(NEWS)
    here.fill()
    first = len(here.block())
    assert 0 < first < count
    here.fill()
    assert first + len(here.block()) == count


def test_news_that_can_be_dropped_has_its_bound(here: Here) -> None:
    for _ in range(TOLD_MAX - 1):
        here.filling.tell(NEWS)
    assert here.filling.has_room
    here.filling.tell(NEWS)
    assert not here.filling.has_room


def test_what_waits_goes_to_whoever_runs_it_next_and_a_suspicion_stays(here: Here) -> None:
    here.filling.tell(Forgotten(BOB, 3))
    here.put(1, 5)
    here.fill()
    here.put(2, 6)
    here.filling.tell(NEWS)
    here.filling.confirms.heard(ANN, 3, 0, 0)
    here.filling.change(HOLDERS)
    here.filling.suspect = Suspect(ANN, 1, 1)
    assert [(one.source, one.first) for one in here.filling.clear()] == [(ANN, 2)]
    assert here.filling.giving_up == 0
    ahead = here.filling.block(here.runner)
    assert ahead is not None
    assert ahead.receipts == {}
    here.fill(CONFIRM_NS)
    assert here.block() == []
    assert here.filling.holders == ()
    assert here.filling.suspect == Suspect(ANN, 1, 1)


def test_after_its_end_an_environment_hears_of_its_holders_only(here: Here) -> None:
    here.filling.tell(Stopped())
    here.fill()
    here.filling.tell(NEWS)
    here.put(1, 5)
    here.filling.change(HOLDERS)
    here.fill()
    assert here.block() == [Stopped, Held]


# Turns.


def test_a_turn_ends_when_others_have_waited_long_enough(here: Here) -> None:
    here.put(1, 1)
    here.put(2, 2)
    here.put(3, 3)
    here.walls.patience = 2
    here.fill()
    assert bool(here.filling.is_late)
    assert here.block() == [Arrived, Arrived]
    here.fill(1)
    assert not here.filling.is_late
    assert here.block() == [Arrived]


def test_what_is_told_and_timers_wait_for_a_later_turn_too(here: Here) -> None:
    message = Carried(ANN, ME, 1, items(Later(1)))
    assert here.filling.inbox.put(message, here.runner.environment, 0, is_disk_full=False) is None
    here.fill()
    here.block()
    here.walls.patience = 1
    here.filling.tell(NEWS)
    here.filling.tell(NEWS)
    for turn, expected in enumerate((Found, Found, Fired), 2 * SECOND_NS):
        here.fill(turn)
        assert here.block() == [expected]
    assert not here.filling.is_late


def test_items_that_fail_are_undone_in_as_many_turns_as_that_takes_and_each_turn_is_kept(here: Here) -> None:
    here.give(1, Boom(), Add(1), Boom(), Add(2))
    here.walls.patience = 1
    blocks: list[tuple[list[type[Record]], dict[bytes, int]]] = []
    while here.runner.environment.received(ANN) < 4:
        here.turn(len(blocks))
        blocks.append(here.sealed())
    assert blocks == [([Failed], {ANN: 1}), ([Arrived, Failed], {ANN: 3}), ([Arrived], {ANN: 4})]
    assert here.runner.environment.fields()["n"] == 3
    assert [note for note in here.walls.notes if note[0] == ANN] == [(ANN, 1, 4), (ANN, 2, 3), (ANN, 4, 1)]


def test_what_comes_while_some_items_are_left_is_the_next_one(here: Here) -> None:
    here.give(1, Boom(), Add(1))
    here.walls.patience = 1
    here.turn(0)
    assert here.sealed() == ([Failed], {ANN: 1})
    here.put(3, 5)
    here.walls.patience = 9
    here.fill(9)
    assert here.sealed() == ([Arrived, Arrived], {ANN: 3})
    assert here.runner.environment.fields()["n"] == 6


def test_items_are_left_for_the_next_block_where_one_is_full_of_those_before(here: Here) -> None:
    count = BLOCK_EVENTS_MAX - 2
    here.put(1, *range(count))
    here.give(count + 1, Add(1), Boom(), Add(1))
    here.fill()
    assert here.sealed() == ([Arrived, Arrived, Failed], {ANN: count + 2})
    here.fill()
    assert here.sealed() == ([Arrived], {ANN: count + 3})


def test_where_it_is_not_known_which_failed_each_is_noted_alone() -> None:
    far = Elsewhere()
    here = Here(far)
    far.is_slow, far.failure = True, HandlerFailedError("killed", "it is dead", is_known=False)
    here.give(1, Add(1), Add(2))
    here.fill()
    assert here.walls.notes[-1] == (ANN, 1, 2)
    far.is_slow = False
    here.runner.go_on()
    assert here.filling.block(here.runner) is None, "nothing was taken"
    here.fill()
    assert here.walls.notes[-2:] == [(ANN, 1, 1), (ANN, 2, 1)]
    assert here.sealed() == ([Arrived, Arrived], {ANN: 2})


def test_what_is_left_when_it_ends_is_refused_at_once(here: Here) -> None:
    here.give(1, Boom(), Quit(), Add(1), Add(2), ask=1)
    here.walls.patience = 1
    here.turn(0)
    assert here.sealed() == ([Failed], {ANN: 1})
    here.fill(9)
    assert here.sealed() == ([Arrived], {ANN: 4})
    other = Here()
    other.filling.suspect = Suspect(ANN, 1, 3)
    other.give(1, Quit(), Add(1), Add(2), ask=1)
    other.walls.patience = 1
    other.fill()
    assert not other.filling.is_late
    assert other.sealed() == ([Arrived, Arrived, Arrived], {ANN: 3})
    assert other.runner.environment.fields()["n"] == 0
    assert other.said() == ["Done", "Failure", "Failure"]
