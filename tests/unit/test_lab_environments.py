# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""How a story of simulated environments is judged: each rule is seen to hold, and to notice what breaks it."""

from collections.abc import Callable
from typing import Any

import pytest

from atoll.base.errors import UserError
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.env.changes import Put, Take
from atoll.env.environment import Environment
from atoll.env.parties import Ref
from atoll.env.query import where
from atoll.env.runner import Runner
from atoll.env.tuples import Tuple
from atoll.lab import environments as environments_module
from atoll.lab.environments import DEFINITE, FAULTS, MONEY, Story, tell
from atoll.lab.stewards import apps
from atoll.lab.stewards.blueprint import Planted, loaded
from atoll.lab.stewards.checks import Truth
from atoll.lab.stewards.clients import Operation
from atoll.lab.stewards.node import GIVEN_UP
from atoll.sim import SimulationFailure
from tests.unit.env_world import BOB, began
from tests.unit.quiet_world import arrived

ANN = b"a" * 16


class Told:
    """A story of which only its end is told: what environments came to, and what clients heard."""

    def __init__(self) -> None:
        self.story = Story(1)
        self.client = self.story.world.clients[0]
        self._sent: dict[tuple[str, bytes], int] = {}

    def runs(self, name: str, app: str, *events: Tuple, party: bytes = ANN) -> None:
        """Let an environment take these events of a party."""
        identity = self.story.ids.setdefault(name, name.encode().ljust(16, b"."))
        truths, found = self.story.world.checks.truths, loaded(app)
        if identity not in truths:
            truths[identity] = Truth(identity, name)
            truths[identity].runner = Runner(found.program, found.code)
            self._take(identity).take(began(), 5)
        first = self._sent.get((name, party), 0) + 1
        self._sent[name, party] = first + len(events) - 1
        if events:
            self._take(identity).take(arrived(party, first, *events), 5)

    def _take(self, identity: bytes) -> Runner:
        runner = self.story.world.checks.truths[identity].runner
        assert runner is not None
        return runner

    def heard(self, name: str, what: str, number: int, outcome: str = "ok") -> Operation:
        """Let a client have heard of an operation."""
        operation = Operation(1, number, self.story.ids[name], what, 1, outcome)
        self.client.operations.append(operation)
        return operation

    def put(self, number: int, outcome: str = "ok") -> None:
        self.heard("board", "atoll.Put", number, outcome)

    def took(self, *numbers: int, outcome: str = "ok") -> None:
        operation = self.heard("board", "atoll.Take", 0, outcome)
        operation.answer = {"tuples": [{"who": 1, "number": number} for number in numbers]}

    def broken(self) -> str:
        """Return which rule does not hold; empty: all do."""
        try:
            self.story._judge()
        except SimulationFailure as failure:
            return failure.invariant
        return ""


@pytest.fixture
def told() -> Told:
    return Told()


# Operations.


def test_operations_that_were_applied_as_clients_heard_are_in_order(told: Told) -> None:
    told.runs("counter", "Counter", apps.Add(1, 1), apps.Add(1, 4), apps.Add(2, 2))
    for number, outcome in ((1, "ok"), (2, "raised"), (3, "timeout"), (4, "timeout")):
        told.heard("counter", "Add", number, outcome)
    assert told.broken() == ""
    assert told.story.world.counts == {"outcome ok": 1, "outcome raised": 1, "outcome timeout": 2}


def test_an_operation_that_was_acknowledged_and_is_not_there_is_noticed(told: Told) -> None:
    told.runs("counter", "Counter", apps.Add(1, 1))
    told.heard("counter", "Add", 2)
    assert told.broken() == "what was acknowledged is applied once"


def test_an_operation_that_was_applied_twice_is_noticed_whether_acknowledged_or_not(told: Told) -> None:
    told.runs("counter", "Counter", apps.Add(1, 1), apps.Add(1, 1))
    assert told.broken() == "each operation is applied once"
    told.heard("counter", "Add", 1)
    assert told.broken() == "what was acknowledged is applied once"


@pytest.mark.parametrize("outcome", DEFINITE)
def test_an_operation_that_was_refused_for_good_and_applied_is_noticed(told: Told, outcome: str) -> None:
    told.runs("counter", "Counter", apps.Add(1, 1))
    told.heard("counter", "Add", 1, outcome)
    assert told.broken() == "what was refused is not applied"


def test_a_relay_says_what_it_was_told_and_has_run_all_the_same(told: Told) -> None:
    told.runs("relay", "Relay", apps.Relayed(1, 1, Ref(BOB), 100))
    told.heard("relay", "Relayed", 1, "raised")
    assert told.broken() == ""


def test_operations_out_of_order_are_noticed_but_where_timers_decide(told: Told) -> None:
    told.runs("counter", "Counter", apps.Add(1, 2), apps.Add(1, 1))
    assert told.broken() == "operations are applied in order"
    later = Told()
    later.runs("pulse", "Pulse", apps.Due(1, 2, 5, None), apps.Due(1, 1, 5, None))
    assert later.broken() == ""


# States.


def deposits(told: Told, *serials: int, amount: int = 0) -> None:
    told.runs("bank-a", "Bank")
    told.runs("bank-b", "Bank", *(apps.Deposit(serial, amount) for serial in serials), party=BOB)


def test_money_is_neither_made_nor_lost_but_where_something_was_given_up(told: Told) -> None:
    deposits(told, 1, 2)
    assert told.broken() == ""
    told.runs("bank-b", "Bank", apps.Deposit(3, 5), party=BOB)
    assert told.broken() == "money is neither lost nor made"
    told.runs("bank-a", "Bank", apps.Transfer(1, 2, 6, Ref(BOB)))
    assert told.broken() == "money is neither lost nor made"
    told.story.world.counts[GIVEN_UP] = 1
    assert told.broken() == ""
    told.runs("bank-b", "Bank", apps.Deposit(4, 2 * MONEY), party=BOB)
    assert told.broken() == "money is neither lost nor made"


@pytest.mark.parametrize("serials", [(1, 1), (2,), (1, 3), (2, 1)])
def test_a_deposit_that_comes_twice_or_out_of_order_or_not_at_all_is_noticed(
    told: Told, serials: tuple[int, ...]
) -> None:
    deposits(told, *serials)
    assert told.broken() == "each deposit comes once, in order"
    told.story.world.counts[GIVEN_UP] = 1
    assert told.broken() == ""


def test_a_timer_that_is_early_is_noticed(told: Told) -> None:
    told.runs("pulse", "Pulse", apps.Due(1, 1, 6, None))
    assert told.broken() == "no timer is early"


@pytest.mark.parametrize("is_there", [True, False])
def test_what_a_counter_answered_a_relay_and_does_not_have_is_noticed(told: Told, *, is_there: bool) -> None:
    told.runs("counter", "Counter", *([apps.Add(1001, 1)] if is_there else []))
    told.runs("relay", "Relay")
    environment = told._take(told.story.ids["relay"]).environment
    assert isinstance(environment, Environment)
    relay: Any = environment.apps()[""]
    relay.answered = {1001: [1]}
    assert told.broken() == ("" if is_there else "what was answered is applied")


# The board.


def test_what_is_put_is_taken_once(told: Told) -> None:
    told.runs("board", "Board", Put(apps.Job(1, 1), 60.0), Take(where(apps.Job)))
    told.put(1)
    told.put(2)
    told.put(3, "timeout")  # It may have come.
    told.took(1, 3)
    told.took(2)
    assert told.broken() == ""
    told.took(2)
    assert told.broken() == "what is put is taken once"


@pytest.mark.parametrize(
    ("outcome", "broken"), [("raised", "what was refused is not applied"), ("timeout", ""), ("ok", "")]
)
def test_what_was_refused_and_is_taken_all_the_same_is_noticed(told: Told, outcome: str, broken: str) -> None:
    told.runs("board", "Board")
    told.put(1, outcome)
    told.took(1)
    assert told.broken() == broken


def test_what_was_put_and_never_taken_is_noticed_where_it_cannot_have_ended(told: Told) -> None:
    told.runs("board", "Board")
    told.put(1)
    assert told.broken() == "what is put is taken once"
    told.took(outcome="timeout")  # Whoever took it may not have heard.
    assert told.broken() == ""


def test_a_lease_may_end_early_where_a_clock_was_set(told: Told) -> None:
    told.runs("board", "Board")
    told.put(1)
    told.story.world.counts["clock"] = 1
    assert told.broken() == ""


# Stories.


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_changes_something_and_heals(kind: str) -> None:
    story = Story(1)
    world = story.world
    for computer in world.computers:
        computer.boot()
    world.tell_members()
    world.run(1)
    computer = world.computers[0]
    getattr(story, f"_fault_{kind}")(computer)
    assert world.schedule or kind in {"move", "upgrade", "checkpoint"}, "those need an owner"
    story._heal()
    assert not world.faulty
    assert (world.loss_percent, world.cut_off, world.wrong) == (0, {}, {})
    for one in world.computers:
        assert one.process is not None
        assert (one.paused, one.full, one.stalled_ns, one.wall_ns) == (False, False, 0, 0)


def test_partitions_that_overlap_end_one_after_the_other() -> None:
    story = Story(1)
    cut_off = story.world.cut_off
    cut_off.update({(0, 1): 2, (1, 0): 1})
    story._join([(0, 1), (1, 0), (2, 0)])
    assert cut_off == {(0, 1): 1}
    story._join([(0, 1)])
    assert cut_off == {}


def test_an_error_that_a_person_would_read_ends_a_story_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Story) -> None:
        raise UserError("A501", "no", fix="say yes")

    monkeypatch.setattr(Story, "tell", fail)
    with pytest.raises(SimulationFailure, match="nothing raises"):
        tell(1)


def small(monkeypatch: pytest.MonkeyPatch) -> Story:
    """Return a story of one counter, which is there, and of clients that are attached; nothing goes wrong."""
    monkeypatch.setattr(environments_module, "PLANTED", ())
    story = Story(1)
    world = story.world
    world.faulty = False
    for computer in world.computers:
        computer.boot()
    for client in world.clients:
        client.keep()
    world.tell_members()
    world.run(MILLISECOND_NS)
    story._plant(Planted("counter", "Counter"))
    assert world.run(SECOND_NS, lambda: story._is_there("counter"))
    return story


def nothing(_: Story) -> None:
    """Leave all as it is."""


def want_more(story: Story) -> None:
    story.copies["counter"] = 0


def kill_all(story: Story) -> None:
    for computer in story.world.computers:
        computer.kill(power=False)


def stop(story: Story) -> None:
    story.stopped["counter"] = 5


def leave_waiting(story: Story) -> None:
    story.ids.clear()
    story.world.clients[0].ask(b"e" * 16, apps.Add, SECOND_NS)


@pytest.mark.parametrize(
    ("change", "lack"),
    [
        (nothing, "counter does not answer"),
        (want_more, "holders of 0"),
        (kill_all, "counter runs on []"),
        (stop, "counter was stopped, and has not ended"),
        (leave_waiting, "clients [0] wait"),
    ],
)
def test_what_is_not_well_yet_is_named(
    change: Callable[[Story], object], lack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = small(monkeypatch)
    change(story)
    assert lack in story._lacks()


def test_what_is_not_well_in_the_end_ends_a_story(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments_module, "FAULTS_NS", MILLISECOND_NS)
    monkeypatch.setattr(environments_module, "HEALED_NS", MILLISECOND_NS)

    def lacks(_: Story) -> str:
        return "something is lacking"

    monkeypatch.setattr(Story, "_lacks", lacks)
    with pytest.raises(SimulationFailure, match="after healing all is well: something is lacking"):
        tell(1)


def is_well_in_time(story: Story) -> bool:
    """Look now and then whether nothing is lacking, and never in the moment in which clients say all again."""
    for _ in range(100):
        if story._lacks() == "":
            return True
        story.world.run(story.world.now_ns + 97 * MILLISECOND_NS)
    return False


def test_in_the_end_nothing_is_lacking_also_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    story = small(monkeypatch)
    assert is_well_in_time(story)
    assert story._probes["counter"].outcome == "ok"
    story._stop("counter")
    assert "counter" in story.stopped
    assert is_well_in_time(story), "it is asked again, though it has answered before its end"
    assert story._probes["counter"].outcome == "unknown"
    story.world.checks.journals()
    story._judge()
