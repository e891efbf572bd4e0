# SPDX-License-Identifier: Apache-2.0
"""An environment in a guest: what it says is doubted, and what it does not say does not stop the server."""

from typing import Any

import msgspec
import pytest

from atoll.base.errors import CorruptError, LinkError, UsageError, UserError
from atoll.domain.guest.launch import GuestGoneError
from atoll.domain.guest.machine import EVENTS_MAX, GuestEnvironment, GuestPlace
from atoll.domain.guest.messages import Content, Done, Fault, Status
from atoll.domain.limits import GUEST_ASK_S_MAX, GUEST_PATIENCE_S, SILENT_S_MAX
from atoll.env.history import decode_body, decode_snapshot
from atoll.env.pieces import take_all
from atoll.env.places import HandlerFailedError, UnansweredError
from atoll.env.plain_data import MapKey
from atoll.env.records import Arrived, Confirmed, Failed, Fired, Held, Note, Post
from atoll.env.runner import Runner
from tests.unit.guest_world import ANN, SOURCE, NearGuest, Nursery, began, bundle, done, encode

CODE = b"c" * 32


class _World:
    """One environment in a near guest, without a runner."""

    def __init__(self, handler_s_max: float = 4.0) -> None:
        self.nursery = Nursery()
        self.place = GuestPlace(self.nursery.fork, bundle(), "Busy", handler_s_max)
        self.environment: GuestEnvironment = self.place.blank()
        self.environment.handle(began(), 5)

    @property
    def guest(self) -> NearGuest:
        return self.nursery.made[-1]


def test_records_go_in_and_effects_come_out() -> None:
    world = _World()
    effects = world.environment.handle(done(1, "one", "two"), 7)
    assert [effect.count for effect in effects if isinstance(effect, Post)] == [2]
    environment = world.environment
    assert (environment.events, environment.received(ANN), environment.owes(ANN)) == (2, 2, 2)
    assert environment.taken() == {ANN: 2}
    assert environment.fields() == {"n": 2, "who": ["one", "two"]}
    environment.handle(Confirmed(ANN, 1), 8)
    assert (environment.confirmed(ANN), environment.owes(ANN), len(environment.owed())) == (0, 2, 1)
    environment.handle(Confirmed(ANN, 2), 8)
    assert (environment.confirmed(ANN), environment.owed()) == (2, ())


def test_a_timer_is_known_to_the_server() -> None:
    world = _World()
    world.environment.handle(done(1, "timer"), 10**9)
    assert (world.environment.deadline_ns, world.environment.first_timer) == (2 * 10**9, 1)
    world.environment.handle(Fired(), 2 * 10**9)
    assert (world.environment.deadline_ns, world.environment.events) == (None, 2)


def test_a_failure_is_named_with_its_item() -> None:
    world = _World()
    with pytest.raises(HandlerFailedError) as raised:
        world.environment.handle(done(1, "one", "raise", "three"), 7)
    assert (raised.value.code, raised.value.text, raised.value.is_known) == ("raised", "ValueError: no", True)
    assert world.environment.received(ANN) == 1
    with pytest.raises(HandlerFailedError) as raised:
        world.environment.handle(done(2, "grow"), 7)
    assert raised.value.code == "grown"
    with pytest.raises(HandlerFailedError) as raised:
        world.environment.handle(done(2, "one", "flood"), 7)
    assert (raised.value.is_known, world.environment.received(ANN)) == (False, 1)
    world.guest.script.append(Fault("usage", "what?", 1))
    with pytest.raises(HandlerFailedError) as raised:
        world.environment.handle(Confirmed(ANN, 1), 7)
    assert raised.value.code == "raised"


def test_a_failed_event_counts_as_taken() -> None:
    world = _World()
    item = encode([msgspec.Raw(encode({"is": "Do", "what": "x"})), 1])
    world.environment.handle(Failed(ANN, 1, "killed", "long", item), 7)
    assert world.environment.received(ANN) == 1
    world.environment.handle(Failed(b"", 0, "killed", "long"), 7)
    assert world.environment.events == 2


def test_a_guest_that_takes_long_is_asked_again_later() -> None:
    world = _World()
    world.guest.script += (None, None)
    with pytest.raises(UnansweredError):
        world.environment.handle(done(1, "one"), 7)
    assert world.environment.fields() == {}
    with pytest.raises(UsageError, match="a handler runs"):
        world.environment.snapshot()
    with pytest.raises(UnansweredError):
        world.place.answered()
    assert 0 < world.place.left_s <= 4
    assert [type(effect) for effect in world.place.answered()] == [Post]
    assert world.environment.fields()["n"] == 1


def test_a_guest_that_dies_while_nobody_waits_is_noticed() -> None:
    world = _World()
    world.guest.script += (None, GuestGoneError("its process ended with status 1"))
    with pytest.raises(UnansweredError):
        world.environment.handle(done(1, "one"), 7)
    with pytest.raises(HandlerFailedError, match="ended with status 1"):
        world.place.answered()


def test_a_guest_that_takes_too_long_is_killed() -> None:
    world = _World(handler_s_max=0.0)
    world.guest.script += (None, None)
    with pytest.raises(UnansweredError):
        world.environment.handle(done(1, "one"), 7)
    with pytest.raises(HandlerFailedError) as raised:
        world.place.answered()
    assert (raised.value.code, raised.value.is_known) == ("killed", False)
    assert "ran for more than 0 s" in raised.value.text
    assert (world.guest.closed, world.place.bells, world.place.left_s) == (1, (-1, -1), 0.0)
    with pytest.raises(HandlerFailedError, match="gone"):
        world.environment.handle(done(1, "one"), 7)


@pytest.mark.parametrize(("is_untouched", "code"), [(True, "gone"), (False, "killed")])
def test_a_guest_that_dies_is_to_blame_only_for_what_it_has_read(is_untouched: bool, code: str) -> None:
    world = _World()
    world.guest.is_untouched = is_untouched
    world.guest.script.append(GuestGoneError("its process was ended by SIGSEGV"))
    with pytest.raises(HandlerFailedError) as raised:
        world.environment.handle(done(1, "one"), 7)
    assert (raised.value.code, raised.value.text) == (code, "its process was ended by SIGSEGV")


def test_a_guest_that_is_gone_before_it_is_asked_is_not_to_blame() -> None:
    world = _World()
    world.guest.closed, world.guest.is_untouched = 1, True
    with pytest.raises(HandlerFailedError) as raised:
        world.environment.handle(done(1, "one"), 7)
    assert raised.value.code == "gone"


_LIES: list[Any] = [
    b"",
    b"\xc1",
    b"\x91" * 5000,
    Content(b"", Status()),
    Done(Status(events=EVENTS_MAX * 10**9)),
    Done(Status(events=0), received=1 << 62),
    Done(Status(events=1), (Post(ANN, 9, 1, encode([[1]])),), 1),
    Done(Status(events=1), received=0),
    Done(Status(events=1), received=2),
    Done(Status(events=1), (Post(ANN, 1, 2, encode([[1]])),), 1),
    Done(Status(events=1), (Post(ANN, 1, 1, b"\xc1"),), 1),
    Done(Status(events=1), (Post(b"short", 1, 1, encode([[1]])),), 1),
    Done(Status(events=1), (Note("x" * 1001),), 1),
    Fault("raised", "no", 1 << 62),
    Fault("raised", "no", 1),
]


@pytest.mark.parametrize("lie", _LIES)
def test_a_lie_ends_the_guest(lie: Any) -> None:
    world = _World()
    world.guest.script.append(lie)
    with pytest.raises(HandlerFailedError) as raised:
        world.environment.handle(done(1, "one"), 7)
    assert (raised.value.code, world.guest.closed) == ("killed", 1)


@pytest.mark.parametrize(
    ("whats", "expected"), [(("one",), [(1, "killed")]), (("one", "raise", "three"), [(2, "raised")])]
)
def test_a_lie_about_what_was_sent_fails_as_one_event(whats: tuple[str, ...], expected: list[tuple[int, str]]) -> None:
    nursery = Nursery()
    runner = Runner(GuestPlace(nursery.fork, bundle(), "Busy"), CODE)
    runner.take(began(), 5)
    nursery.made[0].script.append(Done(Status(events=1), (Post(ANN, 9, 1, encode([[1]])),), len(whats)))
    take_all(runner, done(1, *whats), 7)
    made = runner.block()
    assert made is not None
    failed = [entry.record for entry in decode_body(made.body).entries if isinstance(entry.record, Failed)]
    assert [(one.number, one.code) for one in failed] == expected
    runner.close()


def test_a_guest_cannot_take_back_events_or_forget_debts() -> None:
    world = _World()
    world.environment.handle(done(1, "one"), 7)
    world.guest.script.append(Done(Status(events=0), (), 1))
    with pytest.raises(HandlerFailedError):
        world.environment.handle(done(2, "two"), 7)
    world = _World()
    world.environment.handle(done(1, "one"), 7)
    world.guest.script.append(Done(Status(events=2), (), 2, (ANN,)))
    with pytest.raises(HandlerFailedError, match="forgotten"):
        world.environment.handle(done(2, "two"), 7)


def test_a_guest_cannot_fill_the_server_with_what_it_owes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.domain.guest.mirror.GUEST_OWED_PARCELS_MAX", 2)
    nursery = Nursery()
    runner = Runner(GuestPlace(nursery.fork, bundle(), "Busy"), CODE)
    runner.take(began(), 5)
    for first in (1, 2, 3):
        runner.take(done(first, "one"), 7)
    made = runner.block()
    assert made is not None
    failed = decode_body(made.body).entries[-1].record
    assert isinstance(failed, Failed)
    assert (failed.code, failed.text) == ("killed", "its process gave out more than can be owed to its parties")
    assert (len(nursery.made), runner.environment.owes(ANN), runner.failures) == (2, 3, 1)  # One of them says so.
    runner.take(Confirmed(ANN, 2), 8)
    runner.take(done(4, "two"), 8)
    assert runner.environment.fields() == {"n": 3, "who": ["one", "one", "two"]}
    runner.close()


def test_timers_that_nobody_set_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.domain.guest.machine.GUEST_FIRED_MAX", 3)
    world = _World()
    endless = encode(Done(Status(deadline_ns=1, first_timer=1)))
    world.guest.script.extend([endless] * 4)
    for _ in range(3):
        world.environment.handle(Fired(), 7)
    with pytest.raises(HandlerFailedError, match="timers"):
        world.environment.handle(Fired(), 7)


def test_it_goes_on_from_a_checkpoint_in_another_guest() -> None:
    world = _World()
    world.environment.handle(done(1, "one"), 7)
    assert world.environment.checkpoint() == world.environment.snapshot()
    state = world.environment.checkpoint()
    world.environment.handle(Confirmed(ANN, 0), 3)
    assert world.environment.now_ns == 7
    world.place.close()
    environment = world.place.restore(state)
    assert (len(world.nursery.made), environment.now_ns) == (2, 7)
    assert (environment.events, environment.received(ANN), environment.owes(ANN)) == (1, 1, 1)
    environment.discard()
    world.place.close()
    world.place.close()


def test_the_same_guest_goes_back_while_it_lives() -> None:
    world = _World()
    state = world.environment.checkpoint()
    world.place.restore(state)
    world.place.blank()
    assert len(world.nursery.made) == 1
    world.guest.script.append(GuestGoneError("gone"))
    with pytest.raises(CorruptError, match="no guest: gone"):
        world.place.blank()
    assert len(world.nursery.made) == 1, "it has loaded this code just now: another one would not survive that either"


def test_a_guest_goes_back_to_what_was_while_others_run() -> None:
    world = _World()
    world.environment.handle(done(1, "one"), 7)
    state = world.environment.checkpoint()
    environment = world.place.remake(state)
    assert (len(world.nursery.made), environment.events) == (1, 1)
    world.guest.script += (None, None)
    for _ in range(2):
        with pytest.raises(UnansweredError):
            world.place.remake(state)
        assert 0 < world.place.left_s <= GUEST_ASK_S_MAX
        assert world.place.is_remaking
        asked = len(world.guest.asked)
        assert environment.fields() == {}
        with pytest.raises(UsageError, match="a handler runs"):
            environment.snapshot()
        assert len(world.guest.asked) == asked
    assert world.place.remake(state).fields() == {"n": 1, "who": ["one"]}
    assert (len(world.nursery.made), world.place.is_remaking) == (1, False)


@pytest.mark.parametrize("end", [GuestGoneError("its process ended with status 1"), b"\xc1"])
def test_another_guest_loads_its_code_and_goes_back_while_others_run(end: Any) -> None:
    scripts: list[list[Any]] = [[], [None, None, Done(Status()), None]]
    nursery = Nursery()

    def fork() -> NearGuest:
        guest = nursery.fork()
        guest.script += scripts.pop(0)
        return guest

    place = GuestPlace(fork, bundle(), "Busy")
    place.blank().handle(began(), 5)
    nursery.made[0].script.append(end)
    for _ in range(2):
        with pytest.raises(UnansweredError):
            place.remake(None)
        assert place.left_s > GUEST_ASK_S_MAX
    nursery.made[1].script.popleft()  # It loads it in fact, and says so.
    with pytest.raises(UnansweredError):
        place.remake(None)
    assert place.remake(None).events == 0
    assert [guest.closed for guest in nursery.made] == [1, 0]
    assert max(nursery.made[1].patience_s) == GUEST_PATIENCE_S


def test_what_cannot_be_gone_back_to_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    world = _World()
    with pytest.raises(CorruptError, match="does not decode"):
        world.place.remake(b"\xc1")
    world.place.close()
    world.nursery.fault = LinkError("no memory")
    with pytest.raises(CorruptError, match="no guest: no memory"):
        world.place.remake(None)
    nursery = Nursery()
    place = GuestPlace(nursery.fork, bundle("raise ValueError"), "Busy")
    with pytest.raises(CorruptError, match="no guest: A603"):
        place.remake(None)
    assert nursery.made[0].closed
    monkeypatch.setattr("atoll.domain.guest.machine.GUEST_START_S_MAX", 0.0)

    def fork() -> NearGuest:
        guest = nursery.fork()
        guest.script.append(None)
        return guest

    with pytest.raises(CorruptError, match="does not come to its end"):
        GuestPlace(fork, bundle(), "Busy").remake(None)
    assert nursery.made[1].closed


def test_a_place_that_is_closed_goes_back_to_nothing() -> None:
    world = _World()
    world.guest.script.append(None)
    with pytest.raises(UnansweredError):
        world.place.remake(None)
    world.place.close()
    assert not world.place.is_remaking


def test_items_are_counted_as_they_are_written() -> None:
    for count in (1, 15, 16, 40, 70_000):
        world = _World()
        record = Arrived(ANN, 1, msgspec.Raw(encode([[1]] * count)))
        world.guest.script.append(Done(Status(events=1), received=count - 1))
        with pytest.raises(HandlerFailedError, match="neither taken"):
            world.environment.handle(record, 7)
        world = _World()
        world.guest.script.append(Done(Status(events=1), received=count))
        assert world.environment.handle(record, 7) == ()
        assert world.environment.received(ANN) == count


def test_a_state_that_cannot_be_written_changes_nothing() -> None:
    world = _World()
    world.environment.handle(done(1, "junk"), 7)
    with pytest.raises(UsageError, match="holds what is no data"):
        world.environment.checkpoint()
    assert world.environment.fields() == {}
    world.guest.script.append(Done(Status()))
    with pytest.raises(UsageError, match="does not write"):
        world.environment.snapshot()
    for fault in (GuestGoneError("dead"), None, b"\xc1"):
        world = _World()
        world.guest.script.append(fault)
        with pytest.raises(UsageError, match="does not answer"):
            world.environment.snapshot()
        assert world.guest.closed == 1
    with pytest.raises(UsageError, match="does not answer"):
        world.environment.snapshot()


def test_fields_may_have_keys_that_are_maps() -> None:
    world = _World()
    world.guest.script.append(Content(encode({"cells": {MapKey(x=1): 2}}), Status()))
    assert world.environment.fields() == {"cells": {MapKey(x=1): 2}}


def test_fields_that_are_no_map_are_not_shown() -> None:
    world = _World()
    world.guest.script.append(Content(b"\xc1", Status()))
    assert world.environment.fields() == {}


def test_what_cannot_be_made_is_named() -> None:
    world = _World()
    with pytest.raises(CorruptError, match="does not decode"):
        world.place.restore(b"\xc1")
    nursery = Nursery()
    nursery.fault = LinkError("no memory")
    with pytest.raises(CorruptError, match="no guest: no memory"):
        GuestPlace(nursery.fork, bundle(), "Busy").blank()
    with pytest.raises(CorruptError, match="no application"):
        GuestPlace(Nursery().fork, bundle(app="Other"), "Other").blank()
    world.guest.script.append(Fault("corrupt", "another class"))
    with pytest.raises(CorruptError, match="another class"):
        world.place.blank()


def test_a_state_that_does_not_come_to_its_end_does_not_hold_up_the_server_until_it_is_killed() -> None:
    nursery = Nursery()

    def fork() -> NearGuest:
        guest = nursery.fork()
        guest.script += [Done(Status()), None]  # It loads its code, and then a migration loops.
        return guest

    place = GuestPlace(fork, bundle(), "Busy")
    place.begin_loading()
    assert place.is_loaded()
    with pytest.raises(CorruptError, match="does not come to its end"):
        place.blank()
    (guest,) = nursery.made
    assert max(guest.patience_s) + 1.0 < SILENT_S_MAX, "a second passes from one sign of life to the next"
    assert guest.closed


def test_code_is_loaded_while_others_run() -> None:
    nursery = Nursery()
    place = GuestPlace(nursery.fork, bundle(), "Busy")
    place.begin_loading()
    nursery.made[0].script.append(None)
    assert not place.is_loaded()
    assert place.is_loaded()
    assert place.blank().events == 0
    assert (len(nursery.made), len(nursery.made[0].asked)) == (1, 2)


@pytest.mark.parametrize(
    ("source", "code"), [("raise ValueError", "A603"), (SOURCE.replace("n: int = 0", "n: int"), "A601")]
)
def test_code_that_does_not_load_is_named(source: str, code: str) -> None:
    place = GuestPlace(Nursery().fork, bundle(source), "Busy")
    place.begin_loading()
    with pytest.raises(UserError) as raised:
        place.is_loaded()
    assert raised.value.code == code


def test_a_guest_that_does_not_survive_loading_is_a_broken_link() -> None:
    nursery = Nursery()
    place = GuestPlace(nursery.fork, bundle(), "Busy")
    place.begin_loading()
    nursery.made[0].script.append(b"\xc1")
    with pytest.raises(LinkError, match="answer"):
        place.is_loaded()
    place = GuestPlace(nursery.fork, bundle(), "Busy")
    place.begin_loading()
    nursery.made[1].script.append(Fault("X999", "strange", 0, "where", "fix"))
    with pytest.raises(UserError) as raised:
        place.is_loaded()
    assert (raised.value.code, raised.value.where) == ("A603", "where")
    place = GuestPlace(nursery.fork, bundle(), "Busy")
    place.begin_loading()
    nursery.made[2].script.append(Fault("A613", "it is not closed in", 0, "prctl: no"))
    with pytest.raises(UserError) as raised:
        place.is_loaded()
    assert (raised.value.code, raised.value.where) == ("A613", "prctl: no")


def test_a_guest_that_never_loads_cannot_be_used() -> None:
    nursery = Nursery()

    def fork() -> NearGuest:
        guest = nursery.fork()
        guest.script.append(None)
        return guest

    place = GuestPlace(fork, bundle(), "Busy")
    with pytest.raises(CorruptError, match="does not load"):
        place.blank()


def test_whoever_waits_for_a_guest_hears_before_it_is_closed() -> None:
    world = _World()
    heard: list[int] = []
    world.place.let_go = lambda: heard.append(world.guest.closed)
    world.place.close()
    assert heard == [0]


def test_a_journal_of_one_level_replays_at_the_other() -> None:
    nursery = Nursery()
    place = GuestPlace(nursery.fork, bundle(), "Busy")
    runner = Runner(place, CODE)
    runner.take(began(), 5)
    runner.take(Held((b"n" * 10,), 1), 5)
    for first, whats in ((1, ("one", "raise", "spawn")), (4, ("timer", "grow", "strange"))):
        take_all(runner, done(first, *whats), 10**9)
    runner.take(Fired(), 3 * 10**9)
    runner.checkpoint(3 * 10**9)
    made = runner.block()
    assert made is not None
    assert runner.failures == 3
    inline = Runner(_program(), CODE)
    inline.redo(made.number, decode_body(made.body))
    again = Runner(GuestPlace(nursery.fork, bundle(), "Busy"), CODE)
    again.redo(made.number, decode_body(made.body))
    assert inline.digest == runner.digest == again.digest
    assert inline.environment.snapshot() == runner.environment.snapshot() == again.environment.snapshot()
    assert inline.level == "process"
    assert made.snapshot is not None
    assert decode_snapshot(made.snapshot).level == "process"
    for one in (runner, again):
        one.close()


def _program() -> Any:
    from atoll.domain.loading import decode_bundle, load  # noqa: PLC0415 - it runs the code.

    return load(decode_bundle(bundle())).program
