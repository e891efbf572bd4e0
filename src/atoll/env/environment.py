# SPDX-License-Identifier: Apache-2.0
"""One environment: an application with its state, channels, timers and calls, and the environments nested in it.

How it works. A record comes in; the handlers that it concerns run to completion, one after the other; what they send
is encoded on the spot, collected by party, and leaves as one ``Post`` a party. What nested environments say to each
other is handled before the record is done, so an item and all that follows from it inside count together or not at all.

Rules of this file:

* The machine may raise only where a handler did. Then its state is worth nothing: whoever drives it restores the last
  snapshot, applies the records since, and gives it a ``Failed`` in place of the item (``env.runner``).
* No pointer crosses: what is sent is encoded at once, and what comes is decoded for each receiver.
* Coroutines are not state. While one waits there is no snapshot; it comes back by applying the records again.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, final

import msgspec

from atoll.base.errors import CorruptError, LimitError, UsageError
from atoll.base.units import SECOND_NS
from atoll.env.app import App, Handler, Program
from atoll.env.asking import Asked, Pending, encoded
from atoll.env.changes import CHANGES, Copied, Done, Failure, LeaseLost, Moved, Resolved, Restored, Started
from atoll.env.channel import Channel, Parcel
from atoll.env.context import Context, Operation, QueueFull
from atoll.env.limits import (
    AWAIT_S_MAX,
    DRAIN_AWAITS_MAX,
    DRAIN_BYTES,
    DRAIN_EVENTS,
    ITEMS_MAX,
    LIVED_STEP_NS,
    LOCAL_EVENTS_MAX,
    PARCEL_BYTES_MAX,
    PUT_OFF_MAX,
)
from atoll.env.parties import Ref
from atoll.env.plain_data import decode_fields
from atoll.env.records import (
    Arrived,
    Began,
    Checkpointed,
    Confirmed,
    Effect,
    Failed,
    Fired,
    Forgotten,
    Found,
    Item,
    Opened,
    Post,
    Record,
    Resolve,
    Stopped,
    Told,
)
from atoll.env.shelf import HOLDERS, REQUESTS, Shelf, typed_inside
from atoll.env.shelf import Told as ToldOfTuple
from atoll.env.space import Space
from atoll.env.state import STATE_FORMAT, PutOff, State, Timer, Wanted
from atoll.env.tree import Live, Task, begun, written
from atoll.env.tuples import Tuple

__all__ = ["Environment"]

_encode: Final = msgspec.msgpack.Encoder().encode
_raw_items: Final = msgspec.msgpack.Decoder(list[Item])
_raw_item: Final = msgspec.msgpack.Decoder(Item)
_state_decoder: Final = msgspec.msgpack.Decoder(State)
_fields_decoder: Final = msgspec.msgpack.Decoder(dict[str, Any])


@final
class Environment(Asked):
    """The machine. Make one with ``restore``, or ``blank`` and then a ``Began``. Attributes are those of ``Asked``."""

    @classmethod
    def blank(cls, program: Program) -> "Environment":
        """Return an environment before its first record, which must be a ``Began``."""
        return cls(program, State())

    @classmethod
    def restore(cls, program: Program, snapshot: bytes) -> "Environment":
        """Return an environment as it was; older versions of its state are migrated.

        Raises:
            CorruptError: The bytes are no snapshot, or one of a class or version that the code does not know.
        """
        return cls(program, _decoded(snapshot))

    # The machine.

    @property
    def deadline_ns(self) -> int | None:
        """When the first timer or lease ends and a ``Fired`` is owed; None: there is none."""
        first, lease_ns = self._timers.first(), self._lease_ns()
        if first is None or lease_ns is None:
            return lease_ns if first is None else first[1].at_ns
        return min(first[1].at_ns, lease_ns)

    def _lease_ns(self) -> int | None:
        if not self._spaces:  # Asked with each event.
            return None
        ends = [at_ns for space in self._spaces.values() if (at_ns := space.deadline_ns) is not None]
        return min(ends) if ends else None

    @property
    def first_timer(self) -> int:
        """Number of the timer that is due first; 0: none is set. The end of a lease is no timer, and fails never."""
        first = self._timers.first()
        return 0 if first is None else first[0]

    @property
    def is_quiescent(self) -> bool:
        """Whether no coroutine waits, so that a snapshot can be taken."""
        return not self._waiting

    @property
    def is_draining(self) -> bool:
        """Whether no coroutine may begin: there was no rest for so long that a checkpoint is needed first."""
        return self.events - self._rested >= DRAIN_EVENTS or self._bytes >= DRAIN_BYTES

    @property
    def parties(self) -> int:
        """How many parties are known."""
        return len(self._channels)

    def received(self, party: bytes) -> int:
        """Return the number of the last item that was taken of a party."""
        channel = self._channels.get(party)
        return 0 if channel is None else channel.received

    def confirmed(self, party: bytes) -> int:
        """Return the number of our last item that a party has confirmed."""
        channel = self._channels.get(party)
        return 0 if channel is None else channel.settled

    def owes(self, party: bytes) -> int:
        """Return how many items a party has not confirmed."""
        channel = self._channels.get(party)
        return 0 if channel is None else channel.unconfirmed

    def knows(self, party: bytes) -> bool:
        """Return whether a party is known."""
        return party in self._channels

    def taken(self) -> dict[bytes, int]:
        """Return the number of the last item that was taken, of every party."""
        return {party: channel.received for party, channel in self._channels.items()}

    def fields(self, path: str = "") -> dict[str, Any]:
        """Return the declared state of one environment of the tree, for people; empty: there is none."""
        live = self._live.get(path)
        return {} if live is None else decode_fields(written(live).fields)

    def owed(self) -> tuple[tuple[bytes, Parcel], ...]:
        """Return everything that parties have not confirmed, to be sent again; oldest first for each party."""
        return tuple((party, parcel) for party, channel in self._channels.items() for parcel in channel.outbox)

    # What whoever applies it again may see between two handlers (``stepping``). It is what lives: to be read only.

    @property
    def coming(self) -> Sequence[Effect]:
        """What the record at hand has brought about so far, in order, but for what is sent; empty between records."""
        return self._effects

    @property
    def outgoing(self) -> Mapping[bytes, Pending]:
        """What handlers have sent in the record at hand so far, by party; empty between records."""
        return self._pending

    def sent(self, party: bytes) -> int:
        """Return the number of the last item that has left for a party in earlier records; 0: none."""
        channel = self._channels.get(party)
        return 0 if channel is None else channel.sent

    @property
    def timers_set(self) -> int:
        """How many timers were set so far."""
        return self._timers.set_count

    def apps(self) -> dict[str, App]:
        """Return the applications by path, that of the environment itself under the empty one."""
        return {path: live.app for path, live in self._live.items()}

    # What is written.

    def snapshot(self) -> bytes:
        """Return the whole state.

        Raises:
            UsageError: A coroutine waits, or a field holds what is no data; it is named.
        """
        if self._waiting:
            raise UsageError("a snapshot while a coroutine waits")
        state = State(
            id=self.id,
            seed=self.seed,
            name=self.name,
            events=self.events,
            now_ns=self.now_ns,
            branches={path: written(live) for path, live in self._live.items()},
            channels=self._channels,
            timers=self._timers,
            calls=self._calls,
            called=self._called,
            wanted=self._wanted,
            put_off=self._put_off,
            lived_ns=self.lived_ns,
            forgot_ns=self.forgot_ns,
            floor=self._floor,
        )
        try:
            return _encode(state)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise UsageError(f"what it knows cannot be written: {error}") from error

    def checkpoint(self) -> bytes:
        """Go on from what was written: return the snapshot, and live on as a restore of it would.

        Raises:
            UsageError: As ``snapshot``, or a field holds what its type does not allow; nothing has changed.
        """
        data = self.snapshot()
        try:
            state = _decoded(data)
            tree = self._tree(state)
        except CorruptError as error:
            raise UsageError(str(error)) from error
        given_up = self._given_up
        self._load(state, tree)
        Task.close(given_up)
        return data

    def discard(self) -> None:
        """Let go of coroutines: this environment is thrown away, and another one takes its place."""
        tasks = (*self._waiting.values(), *self._given_up)
        self._waiting, self._given_up = {}, []
        Task.close(tasks)

    def handle(self, event: Record, now_ns: int) -> Sequence[Effect]:
        """Apply one record; return the effects, in order.

        Raises:
            Exception: Whatever a handler raises. The environment is to be thrown away then.
        """
        if now_ns > self.now_ns:
            self.lived_ns += min(now_ns - self.now_ns, LIVED_STEP_NS)
            self.now_ns = now_ns
        if self.forgotten:
            self.forgotten = []
        if isinstance(event, Arrived):  # What nearly all are; a pattern takes 0.3 us.
            if self._is_over:
                self._arrived_late(event.party, event.first, _raw_items.decode(event.items))
            else:
                self._arrived(event.party, event.first, event.items)
            return self._done()
        match event:
            case Confirmed(party, upto):
                channel = self._channels.get(party)
                if channel is not None:
                    channel.heard_ns = self.lived_ns
                    channel.confirm(min(upto, channel.sent))
            case Fired():
                self._fired()
            case Told(raw):
                self._told(raw)
            case Failed():
                self._failed(event)
                self._owe_local()
            case Checkpointed():
                self.checkpoint()
            case Began():
                self._began(event)
            case Found(number, parties):
                self._found(number, parties)
            case Opened(_, name, _, before, silent):
                self._effects += [Resolve(number, wanted.name) for number, wanted in self._wanted.items()]
                if not silent:
                    self._announce(Moved(before, name) if before else Restored(name))
            case Stopped():
                self.end("")
            case Forgotten(party, upto):
                if (channel := self._channels.get(party)) is not None and (count := channel.give_up(upto)):
                    self.note("", f"not known whether they came: {count} tuples to {party.hex()}, who forgot this one")
            case _:  # Held, and Upgraded: whoever drives the machine makes a new one from its snapshot.
                pass
        return self._done()

    # Records.

    def _began(self, record: Began) -> None:
        if record.state:
            state = _copied(record, self.now_ns)
            self._load(state, self._tree(state))
            self._announce(Copied(record.source))
            return
        self.id, self.seed, self.name = record.id, record.seed, record.name
        self._live[""] = begun(self, self._program.main, "", _fields_decoder.decode(record.arguments))
        self._announce(Started())

    def _arrived(self, party: bytes, first: int, raw: msgspec.Raw) -> None:
        channel = self._channel(party)
        channel.heard_ns = self.lived_ns
        self._bytes += len(memoryview(raw))
        try:
            items: list[Any] | None = self._program.items.decode(raw)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - a program's type may raise anything when it is made.
            items = None
        if items is None:
            self._arrived_singly(party, channel, first, _raw_items.decode(raw))
            return
        skip = channel.news(first, len(items))
        live, sender = self._live[""], Ref(party)
        handlers, apart, app, context = live.handlers, live.kind.apart, live.app, live.context
        for item in items[skip:] if skip else items:
            event: Tuple = item.event
            handler = handlers.get(type(event))
            if handler is None or item.re or item.to or item.by or (apart and type(event) in apart):
                self._deliver(party, item)
            else:  # What nearly all items are, kept short: 0.2 us against 0.5 by the general way.
                self.events += 1
                context.sender, context.ask, context.replied = sender, item.ask, False
                answer = handler(app, event, context)
                if answer is not None or item.ask:
                    self._answer(context, answer)
            if self._local:
                self._settle()
            channel.received += 1
            if self._is_over:
                break
        if self._is_over:
            self._refuse_rest(party, channel, items[channel.received + 1 - first :])

    def _arrived_late(self, party: bytes, first: int, items: list[Item]) -> None:
        """Refuse what is given after the end: it came with the item at which that was, and they go in pieces."""
        channel = self._channel(party)
        channel.heard_ns = self.lived_ns
        self._refuse_rest(party, channel, items[channel.news(first, len(items)) :])

    def _refuse_rest(self, party: bytes, channel: Channel, items: Sequence[Any]) -> None:
        """Refuse what came with the item at which the environment has ended."""
        for item in items:
            self._refuse(party, item, Failure("ended", f"{self.name} has ended"))
            channel.received += 1

    def _arrived_singly(self, party: bytes, channel: Channel, first: int, items: list[Item]) -> None:
        """Take items of which some do not decode as what this code knows."""
        skip = channel.news(first, len(items))
        for item in items[skip:]:
            if self._is_over:
                self._refuse_rest(party, channel, (item,))
                continue
            try:
                known = self._program.items.decode(_encode((item,)))[0]
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - as above.
                if item.re:
                    self._responded(party, item.re, Failure("unexpected", self._misfit(item.event, error)))
                    self._settle()
                else:
                    self._refuse(party, item, Failure("unhandled", self._misfit(item.event, error)))
            else:
                self._deliver(party, known)
                self._settle()
            channel.received += 1

    def _deliver(self, party: bytes, item: Any) -> None:
        if item.re:
            self._responded(party, item.re, item.event)
            return
        live = self._live.get(item.to)
        if live is None:
            self._refuse(party, item, Failure("unknown", f"no environment {item.to!r} in {self.name}"))
            return
        self._run(live, item.event, Ref(party, item.by), item.ask)

    def _responded(self, party: bytes, number: int, outcome: Tuple) -> None:
        call = self._calls.get(number)
        if call is not None and call.party == party:
            self._timers.cancel(call.timer)
            self._outcome(number, outcome)

    def _fired(self) -> None:
        """Do the one thing that is due first. Of a timer and a lease of one moment the timer is first: it may renew."""
        first, lease_ns = self._timers.first(), self._lease_ns()
        if lease_ns is not None and lease_ns <= self.now_ns and (first is None or lease_ns < first[1].at_ns):
            self._expire(lease_ns)
        elif first is not None and first[1].at_ns <= self.now_ns:
            self._ring()

    def _ring(self) -> None:
        _, timer = self._timers.fire(self.now_ns)
        if timer.call:
            call = self._calls[timer.call]
            late = Failure("timeout", "no response in time") if call.party or call.name else Done()
            self._outcome(timer.call, self._program.event.decode(timer.event) if timer.event else late)
        else:
            self._run(self._live[timer.path], self._program.event.decode(timer.event), timer.sender, timer.ask)
        self._settle()

    def _expire(self, at_ns: int) -> None:
        """End the leases of one moment. Who hears of it hears by a timer that is due now: no handler runs here."""
        for path, live in self._live.items():
            if live.shelf is not None and live.shelf.space.deadline_ns == at_ns:
                for lost in live.shelf.expire(at_ns):
                    if LeaseLost in live.handlers:
                        self._timers.owe(Timer(at_ns, path, _encode(lost)))

    def _found(self, number: int, parties: tuple[bytes, ...]) -> None:
        """Send what waited for this answer."""
        wanted = self._wanted.get(number)
        if wanted is None:
            return
        refs = tuple(Ref(party, wanted.to) for party in parties)
        if not wanted.everyone:  # In turn: a search has the next number each time.
            refs = refs[number % len(refs) :][:1] if refs and wanted.event else refs
        if not refs or not wanted.event:
            nobody = Failure("unknown", f"nobody is called {wanted.name}")
            self._search_ends(number, wanted, Resolved(refs) if refs else nobody)
        else:
            for to in refs:
                self._post_found(number, wanted, to)
        self._wanted.pop(number, None)
        self._settle()

    def _post_found(self, number: int, wanted: Wanted, to: Ref) -> None:
        if wanted.ask:
            self._calls[number] = msgspec.structs.replace(self._calls[number], party=to.party)
        try:
            self._post_raw(wanted.path, to, wanted.event, number if wanted.ask else 0, 0)
        except QueueFull as error:
            self._search_ends(number, wanted, Failure("queue-full", str(error)))

    def _search_ends(self, number: int, wanted: Wanted, outcome: Tuple) -> None:
        if wanted.ask:
            self._timers.cancel(self._calls[number].timer)
            self._outcome(number, outcome)
        else:
            assert isinstance(outcome, Failure), "who only asks who is meant waits for it"
            self.note(wanted.path, f"not sent: {outcome.text}")

    def _told(self, raw: msgspec.Raw) -> None:
        self._announce(self._program.event.decode(raw))

    def _announce(self, event: Tuple) -> None:
        """Give a change to every environment of the tree that wants to hear of it."""
        for live in tuple(self._live.values()):
            if type(event) in live.handlers:
                self._run(live, event, None, 0)
        self._settle()

    def _failed(self, record: Failed) -> None:
        """Count an event as taken whose handler failed; who waits for its response hears so."""
        failure = Failure(record.code, record.text)
        self.events += 1
        if not record.party:
            if record.number and (first := self._timers.first()) is not None and first[0] == record.number:
                _, timer = self._timers.fire(self.now_ns)
                if timer.call:
                    self._abandon(timer.call, failure)
                elif timer.sender is not None and timer.ask:
                    self._respond(timer.path, timer.sender, failure, timer.ask)
            if record.search and (wanted := self._wanted.pop(record.search, None)) is not None and wanted.ask:
                self._timers.cancel(self._calls[record.search].timer)
                self._abandon(record.search, failure)
            return
        item = _raw_item.decode(record.item)
        if item.re:
            call = self._calls.get(item.re)
            if call is not None and call.party == record.party:
                self._timers.cancel(call.timer)
                self._abandon(item.re, failure)
        else:
            self._refuse(record.party, item, failure)
        channel = self._channel(record.party)
        channel.heard_ns, channel.received = self.lived_ns, record.number

    def _owe_local(self) -> None:
        """Let callers in the tree have what a failure told them by timers that are due now: no handler runs here."""
        while self._local:
            *_, raw, _, re = self._local.popleft()
            if (call := self._calls.get(re)) is not None:
                self._timers.cancel(call.timer)
                timer = self._timers.owe(Timer(self.now_ns, call.path, raw, call=re))
                self._calls[re] = msgspec.structs.replace(call, timer=timer)

    # Running.

    def _run(self, live: Live, event: Tuple, sender: Ref | None, ask: int) -> None:
        self.events += 1
        kind = type(event)
        handler = live.handlers.get(kind)
        path = live.context.path
        if handler is None or (kind in CHANGES and sender is not None and sender.party != self.id):
            self._unhandled(live, event, sender, ask)
            return
        if kind in HOLDERS:
            event = typed_inside(event, self._program.types)
        if kind in live.kind.tasks:
            if self.is_draining:
                self._put_away(path, event, sender, ask)
                return
            context = Context(self, path, sender, ask)
            self._step(Task(handler(live.app, event, context), context))  # type: ignore[arg-type]
        else:
            context = live.context
            context.sender, context.ask, context.replied = sender, ask, False
            self._answer(context, handler(live.app, event, context))

    def _unhandled(self, live: Live, event: Tuple, sender: Ref | None, ask: int) -> None:
        """Answer for an application that has no handler."""
        answer: Tuple
        told: list[ToldOfTuple] = []
        if sender is None:
            return
        if type(event) in REQUESTS:
            request: Any = event
            shelf = self.shelf(live.context.path) if live.kind.shared else Shelf(live.kind, {}, Space(), {})
            answer, told = shelf.serve(request, sender, self.now_ns)
            if ask:  # What a space gives away is seen by those around it, as everything is.
                self._post_raw(live.context.path, sender, self._written(answer), 0, ask)
            ask = 0
        elif type(event) in CHANGES:
            answer = Failure("forbidden", f"{type(event).__name__} is not for others to say")
        else:
            answer = Failure("unhandled", f"{live.kind.name} has no handler for {type(event).__name__}")
        if ask:
            self._respond(live.context.path, sender, answer, ask)
        self._tell(live, told)

    def _put_away(self, path: str, event: Tuple, sender: Ref | None, ask: int) -> None:
        """Keep an event until its coroutine may begin."""
        if len(self._put_off) >= PUT_OFF_MAX:
            raise QueueFull(f"{PUT_OFF_MAX} events of coroutines wait for a checkpoint")
        self._put_off.append(PutOff(path, encoded(event), sender, ask))

    def _answer(self, context: Context, answer: Any) -> None:
        """Respond with what a handler returned, unless it has responded, or will."""
        if answer is not None:
            if not isinstance(answer, Tuple):
                raise UsageError(f"a handler returned {type(answer).__name__}; it may return an atoll.Tuple or None")
            context.reply(answer)
        elif context.ask and not context.replied:
            context.reply(Done())

    def _step(self, task: Task) -> None:
        """Let a coroutine go on until it waits for a call, or ends."""
        try:
            operation: Any = task.coroutine.send(None)  # A handler may await anything.
        except StopIteration as stop:
            self._answer(task.context, stop.value)
            return
        if not isinstance(operation, Operation) or operation.number not in self._calls:
            raise UsageError("a handler can await ctx.call(...) and ctx.sleep(...), and nothing else")
        if operation.number in self._waiting:
            raise UsageError("two coroutines await one call")
        timer = self._timers.live[self._calls[operation.number].timer]
        if timer.at_ns - self.now_ns > AWAIT_S_MAX * SECOND_NS:
            raise UsageError(f"a coroutine can wait {AWAIT_S_MAX:.0f} s; use then= or a timer for longer")
        if self.is_draining:
            task.awaits += 1
            if task.awaits > DRAIN_AWAITS_MAX:
                raise LimitError("drain_awaits_max", DRAIN_AWAITS_MAX)
        self._waiting[operation.number] = task

    def _outcome(self, number: int, outcome: Tuple) -> None:
        """End a call: give its outcome to whoever waits for it."""
        call = self._calls.pop(number)
        self._wanted.pop(number, None)
        if type(outcome) in HOLDERS:
            outcome = typed_inside(outcome, self._program.types)
        operation = self._operations.pop(number, None)
        if operation is not None:
            operation.outcome = outcome
        task = self._waiting.pop(number, None)
        if task is not None:
            self.events += 1
            self._step(task)
        elif call.then and (live := self._live.get(call.path)) is not None:
            self.events += 1
            context = live.context
            context.sender, context.ask, context.replied = None, 0, False
            method: Handler = getattr(type(live.app), call.then)
            method(live.app, outcome, context)

    def _settle(self) -> None:
        """Handle what the environments of the tree said to each other."""
        count = 0
        while self._local:
            count += 1
            if count > LOCAL_EVENTS_MAX:
                raise LimitError("local_events_max", LOCAL_EVENTS_MAX)
            source, to, raw, ask, re = self._local.popleft()
            try:
                event = self._program.event.decode(raw)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - as above.
                event = Failure("unexpected" if re else "unhandled", self._misfit(raw, error))
                if not re:
                    if ask:
                        self._respond(to.path, Ref(self.id, source), event, ask)
                    continue
            if re:
                if (call := self._calls.get(re)) is not None:
                    self._timers.cancel(call.timer)
                    self._outcome(re, event)
            elif (live := self._live.get(to.path)) is not None:
                self._run(live, event, Ref(self.id, source), ask)
            elif ask:
                failure = Failure("unknown", f"no environment {to.path!r} in {self.name}")
                self._respond(to.path, Ref(self.id, source), failure, ask)

    def _refuse(self, party: bytes, item: Item, failure: Failure) -> None:
        if item.ask:
            self._respond("", Ref(party, item.by), failure, item.ask)

    def _done(self) -> Sequence[Effect]:
        if not self._pending and not self._effects:
            return ()
        effects, self._effects = self._effects, []
        for party, items in self._pending.items():
            for count, payload in _parcels(items):
                parcel = self._channels[party].send(count, payload, self.now_ns)
                effects.append(Post(party, parcel.first, parcel.count, parcel.payload))
        self._pending.clear()
        return effects


def _decoded(snapshot: bytes) -> State:
    try:
        state = _state_decoder.decode(snapshot)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError(f"a snapshot that does not decode: {error}") from error
    if state.format != STATE_FORMAT:
        raise CorruptError(f"a snapshot of format {state.format}")
    return state


def _copied(record: Began, now_ns: int) -> State:
    """Return the state of another environment as that of a new one: what was between that and others is left out.

    Raises:
        CorruptError: It is no state.
    """
    state = _decoded(record.state)
    for number in [number for number, timer in state.timers.live.items() if timer.call or timer.sender is not None]:
        state.timers.cancel(number)
    for branch in state.branches.values():
        for number in () if branch.space is None else branch.space.copied(state.id, record.id):
            branch.watchers.pop(number, None)
    return msgspec.structs.replace(
        state,
        id=record.id,
        seed=record.seed,
        name=record.name,
        now_ns=max(now_ns, state.now_ns),
        channels={},
        calls={},
        wanted={},
        put_off=[],
        lived_ns=0,
        forgot_ns=-1,
        floor=0,
    )


def _parcels(items: Pending) -> Iterator[tuple[int, bytes]]:
    """Give items in as few encoded lists as may travel, with how many there are in each."""
    waiting = [items]
    while waiting:
        some = waiting.pop()
        if len(some) <= ITEMS_MAX:
            payload = _encode(some)
            if len(payload) <= PARCEL_BYTES_MAX or len(some) == 1:
                yield len(some), payload
                continue
        half = len(some) // 2
        waiting += (some[half:], some[:half])
