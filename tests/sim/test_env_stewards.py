# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""Nodes that run environments, under faults: nothing is lost, doubled, or seen of a false owner; then all is well."""

from collections.abc import Callable

import pytest

from atoll.base.units import SECOND_NS
from atoll.domain.recorder.messages import Recorded
from atoll.domain.reviving import Archive
from atoll.env import asking
from atoll.env import channel as channel_module
from atoll.env import environment as environment_module
from atoll.env import inbox as inbox_module
from atoll.env.changes import Failure
from atoll.env.channel import Channel, Parcel
from atoll.env.correspondent import Correspondent, Lost, News
from atoll.env.directory import Directory
from atoll.env.doubts import Doubts
from atoll.env.environment import Environment
from atoll.env.hosted import Hosted
from atoll.env.inbox import Inbox
from atoll.env.limits import NUMBER_MAX
from atoll.env.messages import Carried, Notice, Receipt, Refusal
from atoll.env.orders import Moment
from atoll.env.records import Post
from atoll.env.runner import Runner
from atoll.env.slew import SlewedClock
from atoll.env.walls import OPEN, Walls
from atoll.lab.environments import Story, tell
from atoll.lab.sim import main
from atoll.sim import SimulationFailure

SEEDS = 20
CHUNK = 5
HASTY = 77  # A seed of the forgetful world in which a party is forgotten by what is undone, and asks meanwhile.


@pytest.mark.parametrize("first", range(1, SEEDS + 1, CHUNK))
def test_all_holds_under_faults_and_is_well_afterwards(first: int) -> None:
    for seed in range(first, first + CHUNK):
        tell(seed)


def test_all_holds_where_nobody_can_remember_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    forgetful(monkeypatch)
    forgot = sum(truth.forgets for seed in range(1, CHUNK + 1) for truth in tell(seed).world.checks.truths.values())
    assert forgot


def test_nobody_gives_up_what_is_in_doubt_by_what_was_never_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    forgetful(monkeypatch)
    tell(HASTY)


def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let environments have room for one party only, after three seconds instead of a minute."""
    monkeypatch.setattr(asking, "PARTIES_MAX", 1)
    monkeypatch.setattr(environment_module, "LIVED_STEP_NS", 3 * SECOND_NS)
    monkeypatch.setattr(channel_module, "PARTY_KEPT_NS", 3 * SECOND_NS)
    monkeypatch.setattr(inbox_module, "DOUBT_NS", 3 * SECOND_NS // 2)


def test_a_seed_is_the_whole_cause() -> None:
    one, two = tell(7), tell(7)
    assert one.digest() == two.digest()
    assert one.world.schedule == two.world.schedule


def test_the_command_line_runs_these_worlds_alone() -> None:
    said: list[object] = []
    assert main(["--seed", "3", "--only", "environments", "--trace"], said.append) == 0
    assert str(said[0]).startswith("seed 3 ")
    assert said[-1] == "environments: 1 seeds held, 0 failed"


# Would the simulation notice? Each of these breaks one rule.


def found(seeds: range) -> SimulationFailure:
    """Return what does not hold first in these seeds."""
    for seed in seeds:
        try:
            Story(seed).tell()
        except SimulationFailure as failure:
            return failure
    raise AssertionError("nobody noticed")


def test_a_failure_says_what_happened_before_and_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    _forget_what_came(monkeypatch)
    assert main(["--seed", "1", "--only", "environments"], said.append) == 1
    assert "Repeat: make sim SEED=1 SIM_ARGS='--only environments'" in str(said[0])
    assert str(said[1]).startswith("schedule:\n")


def test_it_notices_effects_that_leave_before_they_are_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[[Hosted, Moment], None] = Hosted._block

    def early(self: Hosted, now: Moment) -> None:
        honest(self, now)
        for effect in () if self.runner is None else self.runner.release(self.runner.number):
            if isinstance(effect, Post):
                self._send(effect.party, Parcel(effect.first, effect.count, effect.items), 0)

    monkeypatch.setattr(Hosted, "_block", early)
    assert found(range(1, 4)).invariant == "what leaves is committed"


def test_it_notices_receipts_that_leave_before_their_block_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[[Hosted, Moment], None] = Hosted._block

    def early(self: Hosted, now: Moment) -> None:
        self._routed += [Receipt(self.facts.id, party, upto) for party, upto in self.filling._receipts.items()]
        honest(self, now)

    monkeypatch.setattr(Hosted, "_block", early)
    assert found(range(1, 4)).invariant == "what is confirmed is committed"


def _forget_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[[Hosted, Carried, Moment], None] = Hosted.carried
    honest_news: Callable[[Channel, int, int], int] = Channel.news

    def again(self: Hosted, message: Carried, now: Moment) -> None:
        self.filling.inbox._expected[message.source] = message.first
        honest(self, message, now)

    def news(self: Channel, first: int, count: int) -> int:
        honest_news(self, first, count)  # It passes over gaps.
        return 0

    monkeypatch.setattr(Channel, "news", news)
    monkeypatch.setattr(Hosted, "carried", again)


def test_it_notices_items_that_are_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    _forget_what_came(monkeypatch)
    assert found(range(1, 4)).invariant in {
        "what is confirmed is committed",
        "each operation is applied once",
        "what came was sent",
        "what leaves is committed",
    }


def test_it_notices_an_owner_that_forgets_what_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[[Hosted, int, Runner | None, str, Moment], None] = Hosted.restored

    def forgetful(self: Hosted, epoch: int, runner: Runner | None, failed: str, now: Moment) -> None:
        if runner is not None:
            environment = runner.environment
            assert isinstance(environment, Environment)
            for channel in environment._channels.values():
                channel.received = 0
        honest(self, epoch, runner, failed, now)

    monkeypatch.setattr(Hosted, "restored", forgetful)
    found(range(1, 6))


def test_it_notices_a_restore_that_leaves_the_last_blocks_out(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Archive.runner

    async def lazy(self: Archive, recorded: Recorded, number: int, walls: Walls = OPEN) -> Runner:
        runner = await honest(self, recorded, max(1, number - 2), walls)
        environment = runner.environment
        assert isinstance(environment, Environment)
        environment.events = max(environment.events, recorded.at.events)
        runner.number, runner._first_event = number, environment.events + 1
        return runner

    monkeypatch.setattr(Archive, "runner", lazy)
    assert found(range(1, 6)).invariant in {"journals replay", "what leaves is committed", "after healing all is well"}


def test_it_notices_a_directory_that_prefers_who_owned_before(monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[[Directory, Notice, int], bool] = Directory.note

    def note(self: Directory, notice: Notice, now_ns: int) -> bool:
        known = self.find(notice.id)
        return (known is None or notice.epoch <= known.epoch or notice.ended) and honest(self, notice, now_ns)

    monkeypatch.setattr(Directory, "note", note)
    assert found(range(1, 31)).invariant == "after healing all is well"


def test_it_notices_a_checkpoint_that_is_not_the_end_of_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    def checkpoint(self: Hosted, now: Moment) -> None:
        assert self.runner is not None
        self._check_rest()
        self.runner.checkpoint(now.wall_ns)
        self.pump(now)

    monkeypatch.setattr(Hosted, "checkpoint", checkpoint)
    found(range(1, 13))


def test_it_notices_timers_that_stand_still_because_a_clock_was_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: SlewedClock, now: Moment) -> int:
        return now.wall_ns

    monkeypatch.setattr(SlewedClock, "read", read)
    monkeypatch.setattr("atoll.lab.stewards.world.EVENTS_MAX", 40_000)
    found(range(1, 13))


def test_it_notices_an_owner_that_answers_before_its_epoch_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[[Hosted, Runner, Moment], None] = Hosted._start

    def eager(self: Hosted, runner: Runner, now: Moment) -> None:
        honest(self, runner, now)
        self._is_open = True

    monkeypatch.setattr(Hosted, "_start", eager)
    assert found(range(8, 14)).invariant in {"what leaves is committed", "after healing all is well"}


def test_it_notices_frames_behind_a_gap_that_ask_for_ever_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(self: Inbox, party: bytes, _: int) -> Receipt:
        return Receipt(self._identity, party, self.done.get(party, 0), again=True)

    monkeypatch.setattr(Inbox, "_ask_again", ask)
    monkeypatch.setattr("atoll.lab.stewards.world.EVENTS_MAX", 40_000)
    assert found(range(1, 13)).invariant == "what happens is bounded"


def test_it_notices_numbers_that_are_given_anew_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Correspondent, message: Refusal) -> list[News]:
        line = self._line(message.source)
        line.channel.sent -= line.channel.unconfirmed
        line.channel.outbox.clear()
        line.copies.clear()
        calls = [call for call, party in self._calls.items() if party == message.source]
        for call in calls:
            del self._calls[call]
        return [Lost(call, Failure(message.code, message.text)) for call in calls]

    monkeypatch.setattr(Correspondent, "_refused", refused)
    assert found(range(1, 13)).invariant == "what was refused is not applied"


def test_it_notices_an_environment_that_refuses_by_what_is_not_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[[Doubts, int, int], list[Refusal]] = Doubts.due

    def hasty(self: Doubts, _: int, now_ns: int) -> list[Refusal]:
        return honest(self, NUMBER_MAX, now_ns)

    forgetful(monkeypatch)
    monkeypatch.setattr(Doubts, "due", hasty)
    assert found(range(HASTY, HASTY + 1)).invariant == "what is settled was taken"
