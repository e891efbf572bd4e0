# SPDX-License-Identifier: Apache-2.0
"""Applications whose state tells what happened to them: which operation of whom was applied when, and how often.

Environments run this file as a bundle, so it imports nothing of the simulator. ``GENERATION`` is replaced in its text
to make newer code of it (``blueprint.bundle``).
"""

from typing import ClassVar, Final

import msgspec

from atoll.env import App, Asker, Context, Failure, Moved, Ref, Restored, Started, Tuple, migration, on
from atoll.env.changes import PeerSlow

__all__ = [
    "Add",
    "Bank",
    "Board",
    "Counter",
    "Deposit",
    "Job",
    "Later",
    "Peek",
    "Pulse",
    "Relay",
    "Relayed",
    "Spoil",
    "Sum",
    "Tick",
    "Transfer",
]

GENERATION: Final = 1
GENERATIONS: Final = 4
TICK_S: Final = 0.7


class Add(Tuple):
    """Operation ``number`` of ``who``: add an amount."""

    who: int
    number: int
    amount: int = 1


class Spoil(Tuple):
    """Operation ``number`` of ``who``: do something, then fail."""

    who: int
    number: int


class Peek(Tuple):
    """What is the sum? Nothing changes."""

    number: int = 0


class Sum(Tuple):
    """The sum."""

    value: int


class Transfer(Tuple):
    """Operation ``number`` of ``who``: give an amount to another bank."""

    who: int
    number: int
    amount: int
    to: Ref


class Deposit(Tuple):
    """One bank gives to another; ``serial`` counts up between the two."""

    serial: int
    amount: int


class Later(Tuple):
    """Operation ``number`` of ``who``: answer after a time."""

    who: int
    number: int
    delay_ms: int


class Tick(Tuple):
    """A timer."""


class Due(Tuple):
    """A timer of somebody who waits."""

    who: int
    number: int
    at_ns: int
    asker: Asker | None


class Relayed(Tuple):
    """Operation ``number`` of ``who``: add something at a counter, and answer when that has answered."""

    who: int
    number: int
    to: Ref
    timeout_ms: int


class Job(Tuple):
    """Something that is put, and taken once."""

    who: int
    number: int


class Recording(App):
    """What all of them keep.

    Attributes:
        done: Numbers of the operations that were applied, in that order, by who asked.
        lives: How often it was said to have moved, to have been restored, to have begun.
        generation: Of the code that ran last.
    """

    version: ClassVar[int] = GENERATION
    done: dict[int, list[int]] = msgspec.field(default_factory=dict[int, list[int]])
    lives: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    generation: int = GENERATION

    @on(Started, Moved, Restored, PeerSlow)
    def changed(self, change: Tuple, ctx: Context) -> None:
        """Count."""
        what = type(change).__name__
        self.lives[what] = self.lives.get(what, 0) + 1
        ctx.log(what)

    def note(self, who: int, number: int) -> None:
        """Note that an operation is applied."""
        self.done.setdefault(who, []).append(number)

    @migration(1)
    @staticmethod
    def to_2(fields: dict[str, object]) -> dict[str, object]:
        """Say which code runs."""
        return {**fields, "generation": 2}

    @migration(2)
    @staticmethod
    def to_3(fields: dict[str, object]) -> dict[str, object]:
        """Say which code runs."""
        return {**fields, "generation": 3}

    @migration(3)
    @staticmethod
    def to_4(fields: dict[str, object]) -> dict[str, object]:
        """Say which code runs."""
        return {**fields, "generation": 4}


class Counter(Recording):
    """Adds up."""

    total: int = 0

    @on(Add)
    def add(self, add: Add, ctx: Context) -> Sum:
        """Add."""
        self.note(add.who, add.number)
        self.total += add.amount
        if add.number % 7 == 0:
            ctx.log(f"{add.number} of {add.who}: {ctx.random.getrandbits(16)}")
        return Sum(self.total)

    @on(Spoil)
    def spoil(self, spoil: Spoil, ctx: Context) -> Sum:
        """Fail, in the middle."""
        self.note(spoil.who, spoil.number)
        self.total += 1_000_000
        ctx.after(0.1, Tick())
        raise ValueError("this always fails")

    @on(Peek)
    def peek(self, _: Peek, __: Context) -> Sum:
        """Tell."""
        return Sum(self.total)


class Bank(Recording):
    """Money that moves between banks, and is neither lost nor made.

    Attributes:
        money: What is here.
        given: Serial number of the last deposit, by who got it.
        got: Serial numbers that came, by who gave it.
        asked: Calls to the other banks.
        outcomes: Their outcomes.
        codes: Those by what they were.
    """

    money: int = 1000
    given: dict[bytes, int] = msgspec.field(default_factory=dict[bytes, int])
    got: dict[bytes, list[int]] = msgspec.field(default_factory=dict[bytes, list[int]])
    asked: int = 0
    outcomes: int = 0
    codes: dict[str, int] = msgspec.field(default_factory=dict[str, int])

    @on(Transfer)
    def transfer(self, transfer: Transfer, ctx: Context) -> Sum:
        """Give."""
        self.note(transfer.who, transfer.number)
        party = transfer.to.party
        serial = self.given[party] = self.given.get(party, 0) + 1
        self.money -= transfer.amount
        ctx.send(transfer.to, Deposit(serial, transfer.amount))
        if transfer.number % 3 == 0:
            self.asked += 1
            ctx.call(transfer.to, Peek(), timeout_s=5, then=self.told)
        elif transfer.number % 3 == 1:
            self.asked += 1
            ctx.call("app:Bank", Peek(), timeout_s=5, then=self.told)
        return Sum(self.money)

    def told(self, outcome: Sum | Failure, _: Context) -> None:
        """Note the outcome of a call."""
        self.outcomes += 1
        code = outcome.code if isinstance(outcome, Failure) else "ok"
        self.codes[code] = self.codes.get(code, 0) + 1

    @on(Deposit)
    def deposit(self, deposit: Deposit, ctx: Context) -> None:
        """Take."""
        assert ctx.sender is not None
        self.got.setdefault(ctx.sender.party, []).append(deposit.serial)
        self.money += deposit.amount

    @on(Peek)
    def peek(self, _: Peek, __: Context) -> Sum:
        """Tell."""
        return Sum(self.money)


class Pulse(Recording):
    """Timers.

    Attributes:
        beats: Ticks so far.
        early: Timers that fired before their time.
        last_ns: When the last tick was.
    """

    beats: int = 0
    early: int = 0
    last_ns: int = 0

    @on(Started)
    def started(self, _: Started, ctx: Context) -> None:
        """Begin to tick."""
        ctx.every(TICK_S, Tick())

    @on(Moved, Restored, PeerSlow)
    def changed(self, change: Tuple, ctx: Context) -> None:  # noqa: ARG002 - the name is that of the other one.
        """Count."""
        what = type(change).__name__
        self.lives[what] = self.lives.get(what, 0) + 1

    @on(Tick)
    def tick(self, _: Tick, ctx: Context) -> None:
        """Count."""
        self.early += ctx.now_ns < self.last_ns
        self.beats, self.last_ns = self.beats + 1, ctx.now_ns

    @on(Later)
    def later(self, later: Later, ctx: Context) -> None:
        """Set a timer for who asks."""
        at_ns = ctx.now_ns + later.delay_ms * 1_000_000
        ctx.after(later.delay_ms / 1000, Due(later.who, later.number, at_ns, ctx.defer()))

    @on(Due)
    def due(self, due: Due, ctx: Context) -> None:
        """Answer."""
        self.note(due.who, due.number)
        self.early += ctx.now_ns < due.at_ns
        if due.asker is not None:
            ctx.reply(Sum(self.beats), to=due.asker)


class Relay(Recording):
    """Coroutines that ask others.

    Attributes:
        begun: How many began.
        ended: How many came to their end.
        answered: Numbers of operations that the other one answered, by who asked.
    """

    begun: int = 0
    ended: int = 0
    answered: dict[int, list[int]] = msgspec.field(default_factory=dict[int, list[int]])

    @on(Relayed)
    async def relayed(self, relayed: Relayed, ctx: Context) -> Sum | Failure:
        """Ask, wait, answer."""
        self.begun += 1
        self.note(relayed.who, relayed.number)
        outcome: Sum | Failure = await ctx.call(
            relayed.to, Add(relayed.who + 1000, relayed.number), timeout_s=relayed.timeout_ms / 1000
        )
        if isinstance(outcome, Sum):
            self.answered.setdefault(relayed.who + 1000, []).append(relayed.number)
            await ctx.sleep(0.02)
        self.ended += 1
        return outcome

    @on(Sum)
    def known(self, _: Sum, __: Context) -> None:
        """Know the type."""


class Board(Recording):
    """A space for others."""

    shared: ClassVar[tuple[type[Tuple], ...]] = (Job,)
