# SPDX-License-Identifier: Apache-2.0
"""The stage on which authors test their applications."""

import random
from typing import Any

import msgspec
import pytest

import atoll
from atoll.base.errors import CorruptError, DivergenceError, LimitError, UsageError, UserError
from atoll.env.limits import NESTING_MAX
from atoll.env.stage import Stage, UnexpectedAnswerError


class Add(atoll.Tuple):
    amount: int


class Sum(atoll.Tuple):
    value: int


class Later(atoll.Tuple):
    seconds: float


class Beat(atoll.Tuple):
    pass


class Stop(atoll.Tuple):
    pass


class Ask(atoll.Tuple):
    whom: str


class Child(atoll.App):
    value: int = 0

    @atoll.on(Add)
    def add(self, add: Add, _: atoll.Context) -> Sum:
        self.value += add.amount
        return Sum(self.value)


class Counter(atoll.App):
    value: int = 0
    beats: int = 0
    fans: list[atoll.Ref] = msgspec.field(default_factory=list[atoll.Ref])
    seen: list[str] = msgspec.field(default_factory=list[str])
    waiting: list[atoll.Asker] = msgspec.field(default_factory=list[atoll.Asker])

    @atoll.on(atoll.Started)
    def started(self, _started: atoll.Started, ctx: atoll.Context) -> None:
        ctx.spawn(Child, "child")

    @atoll.on(Add)
    def add(self, add: Add, ctx: atoll.Context) -> Sum:
        if add.amount < 0:
            raise ValueError("less than nothing")
        self.value += add.amount
        ctx.log(f"now {self.value}")
        if ctx.sender is not None and ctx.sender not in self.fans:
            self.fans.append(ctx.sender)
        for fan in self.fans:
            ctx.send(fan, Sum(self.value))
        return Sum(self.value)

    @atoll.on(Later)
    def later(self, later: Later, ctx: atoll.Context) -> None:
        asker = ctx.defer()
        if asker is not None:
            self.waiting.append(asker)
        ctx.after(later.seconds, Beat())

    @atoll.on(Beat)
    def beat(self, _beat: Beat, ctx: atoll.Context) -> None:
        self.beats += 1
        while self.waiting:
            ctx.reply(Sum(self.beats), to=self.waiting.pop())

    @atoll.on(Ask)
    async def ask(self, ask: Ask, ctx: atoll.Context) -> atoll.Tuple:
        answer: atoll.Tuple = await ctx.call(ask.whom, Add(1), timeout_s=5)
        return answer

    @atoll.on(Stop)
    def stop(self, _stop: Stop, ctx: atoll.Context) -> None:
        ctx.end()

    @atoll.on(atoll.Moved, atoll.Restored, atoll.PeerSlow)
    def changed(self, change: Any, _: atoll.Context) -> None:
        self.seen.append(f"{type(change).__name__} {change.node}")


class Ticker(atoll.App):
    beats: int = 0

    @atoll.on(atoll.Started, Beat)
    def beat(self, _: atoll.Tuple, ctx: atoll.Context) -> None:
        self.beats += 1
        ctx.after(0.001, Beat())


class Gambler(atoll.App):
    fortune: float = 0.0

    @atoll.on(Add)
    def add(self, _add: Add, _: atoll.Context) -> Sum:
        return Sum(random.getrandbits(60))


def test_it_calls_and_looks_at_the_state() -> None:
    with Stage() as stage:
        counter, client = stage.run(Counter, value=5), stage.client()
        assert client.call(counter, Add(2), Sum) == Sum(7)
        assert counter.state.value == 7
        assert counter.log == ("now 7",)
        assert counter.failures == 0


def test_a_field_that_is_not_there_is_refused_as_by_a_node() -> None:
    with Stage() as stage, pytest.raises(UserError, match="A602: counter cannot begin: it has no field volume"):
        stage.run(Counter, volume=3)


def test_what_a_client_sends_too_deep_fails_as_it_does_outside() -> None:
    class Deep(atoll.Tuple):
        within: Any

    inner: Any = None
    for _ in range(NESTING_MAX):
        inner = [inner]
    with Stage() as stage:
        counter, client = stage.run(Counter), stage.client()
        with pytest.raises(UsageError, match="nests deeper than 64"):
            client.send(counter, Deep(inner))
        assert client.call(counter, Add(2), Sum) == Sum(2)


def test_a_client_gets_what_it_did_not_ask_for() -> None:
    with Stage() as stage:
        counter, ann, bob = stage.run(Counter), stage.client(), stage.client()
        ann.send(counter, Add(1))
        bob.send(counter, Add(2))
        assert ann.events(Beat) == []
        assert ann.events(Sum) == [Sum(1), Sum(3)]
        assert ann.events() == []
        assert bob.events() == [Sum(3)]


def test_a_handler_that_raises_is_undone() -> None:
    with Stage() as stage:
        counter, client = stage.run(Counter), stage.client()
        client.send(counter, Add(1))
        assert client.call(counter, Add(-1)) == atoll.Failure("raised", "ValueError: less than nothing")
        assert (counter.failures, counter.state.value) == (1, 1)
        with pytest.raises(UnexpectedAnswerError, match="less than nothing") as caught:
            client.call(counter, Add(-1), Sum)
        assert caught.value.answer == atoll.Failure("raised", "ValueError: less than nothing")


def test_time_passes_only_when_it_is_told_to() -> None:
    with Stage() as stage:
        counter, client = stage.run(Counter), stage.client()
        client.send(counter, Later(10))
        began = stage.now()
        stage.advance(9.5)
        assert counter.state.beats == 0
        stage.advance(0.5)
        assert counter.state.beats == 1
        assert (stage.now() - began).total_seconds() == 10


def test_a_call_lets_time_pass_until_it_is_answered_or_too_late() -> None:
    with Stage() as stage:
        counter, client = stage.run(Counter), stage.client()
        began = stage.now()
        assert client.call(counter, Later(3), Sum) == Sum(1)
        assert (stage.now() - began).total_seconds() == 3
        late = client.call(counter, Later(30), timeout_s=20)
        assert late == atoll.Failure("timeout", "no response within 20 s")
        assert (stage.now() - began).total_seconds() == 23


def test_a_call_can_be_left_open() -> None:
    with Stage() as stage:
        counter, client = stage.run(Counter), stage.client()
        number = client.ask(counter, Later(3))
        assert client.answer(number) is None
        stage.advance(3)
        assert client.answer(number) == Sum(1)
        assert client.answer(number) is None


def test_nested_environments_are_reached_by_their_path() -> None:
    with Stage() as stage:
        counter, client = stage.run(Counter), stage.client()
        assert client.call(counter.nested("child"), Add(4), Sum) == Sum(4)
        assert counter.state_of("child", Child).value == 4
        assert counter.ref.path == ""


def test_environments_find_each_other_by_name() -> None:
    with Stage() as stage:
        one, two, client = stage.run(Counter, "one"), stage.run(Counter, "two"), stage.client()
        assert client.call(one, Ask("two"), Sum) == Sum(1)
        assert two.state.value == 1
        assert client.call(one, Ask("two/child"), Sum) == Sum(1)
        assert isinstance(client.call(one, Ask("three")), atoll.Failure)
        client.send(two, Stop())
        assert isinstance(client.call(one, Ask("two")), atoll.Failure)
        with pytest.raises(UsageError, match="called 'one'"):
            stage.run(Counter, "one")


def test_it_survives_a_crash_and_a_move() -> None:
    with Stage() as stage:
        counter, client = stage.run(Counter), stage.client()
        client.send(counter, Add(1))
        client.send(counter, Later(60))
        counter.crash()
        counter.checkpoint()
        client.send(counter, Add(1))
        counter.crash("fra")
        counter.move("ash")
        stage.tell(atoll.PeerSlow("fra", slow=True, reason="its disk"))
        stage.advance(60)
        assert (counter.state.value, counter.state.beats) == (2, 1)
        assert counter.state.seen == ["Restored here", "Restored fra", "Moved ash", "PeerSlow fra"]
        assert client.call(counter, Add(1), Sum) == Sum(3)


def test_many_events_make_a_checkpoint_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.runner.CHECKPOINT_EVENTS", 3)
    with Stage() as stage:
        counter, client = stage.run(Counter), stage.client()
        for _ in range(5):
            client.send(counter, Add(1))
        counter.crash()
        assert counter.state.value == 5


def test_who_is_away_gets_everything_on_return() -> None:
    with Stage() as stage:
        counter, ann, bob = stage.run(Counter), stage.client(), stage.client()
        ann.send(counter, Add(1))
        ann.leave()
        bob.send(counter, Add(1))
        assert ann.events() == [Sum(1)]
        ann.come_back()
        assert ann.events() == [Sum(2)]
        ann.come_back()
        assert ann.events() == []


def test_who_is_away_for_too_long_fills_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.channel.UNCONFIRMED_MAX", 4)
    with Stage() as stage:
        counter, ann, bob = stage.run(Counter), stage.client(), stage.client()
        ann.send(counter, Add(1))
        ann.leave()
        bob.send(counter, Add(1))
        for _ in range(3):
            bob.send(counter, Add(1))
        failed = bob.call(counter, Add(1))
        assert isinstance(failed, atoll.Failure)
        assert failed.text.startswith("QueueFull")


def test_what_was_stopped_does_nothing_more_also_after_a_crash() -> None:
    with Stage() as stage:
        counter, client = stage.run(Counter), stage.client()
        client.send(counter, Later(1))
        counter.stop()
        assert counter.is_over
        counter.crash()
        client.send(counter, Add(1))
        stage.advance(5)
        assert (counter.state.value, counter.state.beats) == (0, 0)


def test_what_has_ended_itself_does_nothing_more() -> None:
    with Stage() as stage:
        counter, client = stage.run(Counter), stage.client()
        client.send(counter, Later(1))
        client.send(counter, Stop())
        assert counter.is_over
        client.send(counter, Add(1))
        stage.advance(5)
        assert (counter.state.value, counter.state.beats) == (0, 0)


def newer(version: int) -> type[atoll.App]:
    class Counter(atoll.App):
        total: int = 0

        @staticmethod
        @atoll.migration(1)
        def from_one(fields: dict[str, Any]) -> dict[str, Any]:
            return {"total": fields["value"] * 10}

        @atoll.on(Add)
        def add(self, add: Add, _: atoll.Context) -> Sum:
            self.total += add.amount
            return Sum(self.total)

    Counter.version = version
    return Counter


def test_an_upgrade_migrates_the_state_and_is_replayed() -> None:
    with Stage() as stage:
        counter, client = stage.run(Counter), stage.client()
        client.send(counter, Add(3))
        with pytest.raises(CorruptError, match="version 1"):
            counter.upgrade(newer(3))
        upgraded = counter.upgrade(newer(2))
        assert client.call(counter, Add(1), Sum) == Sum(31)
        upgraded.crash()
        assert client.call(upgraded, Add(1), Sum) == Sum(32)


def test_what_cannot_begin_says_so() -> None:
    with pytest.raises(UserError, match="A602"):
        Stage().run(Counter, value="many")


def test_what_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.stage.STEPS_MAX", 100)
    with Stage() as stage:
        stage.run(Ticker)
        with pytest.raises(LimitError, match="steps_max"):
            stage.advance(200)


class Echo(atoll.App):
    @atoll.on(Add)
    def add(self, add: Add, ctx: atoll.Context) -> None:
        assert ctx.sender is not None
        ctx.send(ctx.sender, add)

    @atoll.on(Ask)
    def ask(self, ask: Ask, ctx: atoll.Context) -> None:
        ctx.send(ask.whom, Add(1))


def test_two_that_answer_each_other_for_ever_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.stage.STEPS_MAX", 100)
    stage = Stage()
    one, client = stage.run(Echo, "one"), stage.client()
    stage.run(Echo, "two")
    with pytest.raises(LimitError, match="steps_max"):
        client.send(one, Ask("two"))


def test_chance_that_is_not_in_the_journal_is_found() -> None:
    stage = Stage()
    gambler, client = stage.run(Gambler), stage.client()
    client.call(gambler, Add(1))
    with pytest.raises(DivergenceError):
        gambler.crash()
    with pytest.raises(DivergenceError), stage:
        pass
    with pytest.raises(KeyError), stage:  # What failed first is what is reported.
        raise KeyError


def test_the_same_seed_is_the_same_run() -> None:
    refs = [Stage(seed).run(Counter).ref for seed in (1, 1, 2)]
    assert refs[0] == refs[1] != refs[2]
