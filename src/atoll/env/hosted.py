# SPDX-License-Identifier: Apache-2.0
"""One environment on one node: what waits for it, what runs, what is sealed, and what may leave.

A node that owns the environment has a runner; one that only keeps its journal has none. What comes in waits in a
bounded queue, is applied as soon as a block has room, and is confirmed to its sender when that block is committed:
everything that leaves an environment, receipts included, waits for that.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, final

from atoll.base.errors import CorruptError, UsageError
from atoll.base.ids import NodeId
from atoll.core.machine import Tick
from atoll.env.app import Program
from atoll.env.channel import Parcel
from atoll.env.doubts import Doubts
from atoll.env.facts import OPENING, Ahead, Facts
from atoll.env.filling import Filling
from atoll.env.holding import Holding
from atoll.env.holding import events as on
from atoll.env.holding.messages import SnapshotPart, Store
from atoll.env.holding.messages import encode as encode_letter
from atoll.env.keepers import Kept, Peer, fit_of, wanted_holders
from atoll.env.limits import (
    BLOCKS_AHEAD_MAX,
    COPIES,
    FLEE_NS,
    RESTORE_RETRY_NS,
    STAY_NS,
)
from atoll.env.messages import (
    FORGOTTEN,
    Carried,
    Letter,
    Notice,
    Receipt,
    Refusal,
    Routed,
    parcels_of,
)
from atoll.env.orders import (
    AskRecorder,
    Await,
    Moment,
    Order,
    Prepare,
    Rest,
    Restore,
    Say,
    Spare,
    StoreSnapshot,
    TellNode,
    Told,
)
from atoll.env.places import Place
from atoll.env.records import (
    Began,
    Ended,
    Forgotten,
    Found,
    Held,
    Note,
    Opened,
    Post,
    Record,
    Resolve,
    Stopped,
)
from atoll.env.resends import Resends, doubtful_upto
from atoll.env.runner import Runner
from atoll.env.slew import SlewedClock

__all__ = ["Hosted"]

NOBODY: Final = -1  # Instead of a command: nobody waits for the answer.


@final
class Hosted:
    """One environment here.

    Args:
        facts: What it is.
        own: This node, and its name.
        holding: Who owns it, as this node knows; not started.
        first: A new environment: what runs it, and its first record.
        copies: How many nodes shall keep a new one.

    Attributes:
        facts: As above.
        holding: Read only.
        runner: What runs; None: not here.
        epoch: In which it runs here; 0: it does not.
        failed: Why it cannot run here; empty: nothing.
        is_ended: It has ended itself, or was stopped, and that is committed; or another holder says so.
        ran: It ran here, and nobody was told yet who runs it now.
        since_ns: When it was opened, monotonic.
        filling: What waits for it.
    """

    def __init__(
        self,
        facts: Facts,
        own: tuple[NodeId, str],
        holding: Holding,
        first: tuple[Runner, Began] | None = None,
        copies: int = COPIES,
    ) -> None:
        self.facts: Final = facts
        self.holding: Final = holding
        self._own, self._own_name = own
        self._first, self._copies = first, copies
        self.runner: Runner | None = None
        self.epoch = 0
        self.failed = ""
        self.is_ended = self.ran = False
        self.since_ns = 0
        self._orders: list[Order] = []
        self._routed: list[Routed] = []
        self._searches: list[Resolve] = []
        self._hold = ""
        self._clock = SlewedClock()
        self.filling: Final = Filling(facts, own[1], self._clock)
        self._ahead: deque[Ahead] = deque()  # Proposed and not committed.
        self._events: deque[on.HoldingInput] = deque()  # Came while another one was being obeyed.
        self._is_feeding = self._is_pumping = self._is_pump_due = False
        self._refused = 0  # This many of ``_ahead``, from the end, were refused and are proposed again.
        self._inherited: dict[bytes, int] = {}  # The same, of what was restored; it counts when the opening does.
        self._is_open = False
        self._opening = 0  # The block with which it opens; what it inherited counts when that is committed.
        self._restore_at_ns: int | None = None
        self._resends, self._doubts = Resends(), Doubts()
        self._mover = self._flee_at_ns = 0
        self._target: NodeId | None = None
        self._is_changing = self._is_preparing = False
        self._prepared: Restore | None = None  # To be ordered when that is done.
        self._before = ("", 0)
        self._is_awaited = self._is_resting = False

    @property
    def is_blank(self) -> bool:
        """Whether nothing of it is here: it was only heard of, or was given up."""
        return not self.holding.last and not self.holding.holders

    @property
    def is_new(self) -> bool:
        """Whether it was begun here and has not run yet: the disk has not taken its first vote."""
        return self._first is not None

    def notice(self) -> Notice:
        """Return what others are told when it runs here."""
        facts, holders = self.facts, tuple(self.holding.holders)
        return Notice(facts.id, self.epoch, self._own, facts.name, facts.app, facts.code, holders, self.is_ended)

    def believed(self) -> Notice:
        """Return what the journal here says of who runs it."""
        facts, holding = self.facts, self.holding
        holders = tuple(holding.holders)
        return Notice(facts.id, holding.epoch, holding.owner, facts.name, facts.app, facts.code, holders)

    def taken(self) -> tuple[list[Order], list[Routed]]:
        """Take what is to be done, and what is to be delivered to parties."""
        orders, routed = self._orders, self._routed
        self._orders, self._routed = [], []
        return orders, routed

    def searches(self) -> list[Resolve]:
        """Take the names that are to be looked up; each is answered with ``found``."""
        searches, self._searches = self._searches, []
        return searches

    @property
    def deadline_ns(self) -> int | None:
        """When ``tick`` is owed, monotonic; the time of the environment's own timers is ``wall_deadline_ns``."""
        first_ns = self.holding.deadline_ns
        confirm_at_ns = self.filling.confirms.deadline_ns if self._can_apply else None
        for at_ns in (confirm_at_ns, self._resends.deadline_ns, self._restore_at_ns):
            if at_ns is not None and (first_ns is None or at_ns < first_ns):
                first_ns = at_ns
        if (due_ns := self.wall_deadline_ns) is not None:
            at_ns = self._clock.when(due_ns)
            first_ns = at_ns if first_ns is None else min(at_ns, first_ns)
        return first_ns

    @property
    def wall_deadline_ns(self) -> int | None:
        """When the next timer of the environment is due, ns since 1970; None: none is, or it cannot be applied now."""
        runner = self.runner
        return None if runner is None or runner.is_over or not self._can_apply else runner.environment.deadline_ns

    @property
    def _can_apply(self) -> bool:
        """Whether a record could be applied now."""
        runner = self.runner
        if runner is None or runner.is_busy or self._is_resting or self._hold:
            return False
        return len(self._ahead) < BLOCKS_AHEAD_MAX

    @property
    def heir(self) -> NodeId | None:
        """Who is about to run it, as it changes hands: perhaps this node. None: nobody was told to."""
        if self.holding.is_heir:
            return self._own
        return NodeId(self.holding.heir) if self.holding.heir else None

    @property
    def is_open(self) -> bool:
        """Whether it runs here, and with what it began in this epoch is committed."""
        return self._is_open

    # Inputs.

    def open(self, now: Moment) -> None:
        """Begin: a holder that is alone owns the environment at once."""
        self.since_ns = now.ns
        self._perform_all(self.holding.start(now.ns), now)

    def feed(self, event: on.HoldingInput, now: Moment) -> None:
        """Give the holding an input, and do what it says; what that brings about comes after it, in order."""
        if self._is_feeding:
            self._events.append(event)
        else:
            self._perform_all(self.holding.handle(event, now.ns), now)

    def _perform_all(self, effects: Sequence[on.HoldingEffect], now: Moment) -> None:
        self._is_feeding = True
        try:
            self._perform(effects, now)
            while self._events:
                self._perform(self.holding.handle(self._events.popleft(), now.ns), now)
        finally:
            self._is_feeding = False

    def _perform(self, effects: Sequence[on.HoldingEffect], now: Moment) -> None:
        for effect in effects:
            match effect:
                case (
                    on.Seal()
                    | on.Keep()
                    | on.CutFrom()
                    | on.KeepPromise()
                    | on.KeepSnapshot()
                    | on.Left()
                    | on.ReadBlocks()
                    | on.ReadSnapshot()
                ):
                    self._orders.append(AskRecorder(self.facts.id, effect))
                case on.Tell(_, Store() | SnapshotPart()) if self.failed:
                    pass  # An owner that cannot run it is silent, so that another holder takes over.
                case on.Tell(node, message):
                    self._orders.append(TellNode(NodeId(node), Letter(encode_letter(self.facts.id, message))))
                case on.Run(epoch, number):
                    self._drop()
                    self.epoch = epoch
                    if self._first is not None and number == 0:
                        self._begin(*self._first, now)
                    elif self._is_preparing:
                        self._prepared = Restore(self.facts.id, epoch, number)
                    else:
                        self._orders.append(Restore(self.facts.id, epoch, number))
                case on.GetReady():
                    if not self._is_preparing:
                        self._is_preparing = True
                        self._orders.append(Prepare(self.facts.id))
                case on.Stop():
                    if self.runner is not None and self.runner.withdraw():
                        self._orders.append(Spare(self.facts.id, self.runner))
                        self.runner = None
                    self._drop()
                case on.Committed(number):
                    self._committed(number, now)
                case on.Hold(_, reason):
                    self._hold = reason
                case on.Resume():
                    self._hold = ""
                    self._again(now)
                case on.Refused():
                    self._refused = min(self._refused + 1, len(self._ahead))
                case on.Change(_, holders):
                    self.filling.change(holders)
                case on.Moved():
                    self._answer(None)
                case on.MoveFailed(reason):
                    self._answer(reason)
                case on.HoldersChanged() | on.HoldersFailed():
                    self._is_changing = False
                    self._move_now(now)
                case _:
                    raise AssertionError(f"an effect that nobody knows: {effect}")
        if not self._is_pumping:  # Else what goes round there sees it, and need not go round once more.
            self.pump(now)

    def _begin(self, runner: Runner, began: Began, now: Moment) -> None:
        """Run a new environment; that its first handler does not fail was tried."""
        self._first = None
        if not runner.has_news:
            runner.take(began, self._clock.read(now))
        self.filling.tell(Held((self._own,), self._copies))
        runner.epoch = self.epoch
        self._start(runner, now)

    def prepared(self, failed: str, now: Moment) -> None:
        """Take the answer to ``Prepare``: say so, and go on with what was waiting for it."""
        self._is_preparing = False
        if self._prepared is not None:
            self._orders.append(self._prepared)
            self._prepared = None
        self.feed(on.Ready(failed), now)

    def restored(self, epoch: int, runner: Runner | None, failed: str, now: Moment) -> None:
        """Go on with what was restored for ``Restore``, unless that is long over."""
        if epoch != self.epoch or self.runner is not None:
            if runner is not None:
                runner.close()
            return
        if runner is None:
            self._fail(failed, now)
            return
        before = self._before[0] if epoch == self._before[1] + 1 else ""
        if before:  # It was sent here, perhaps by somebody who knows that this node is slow.
            self._flee_at_ns = now.ns + STAY_NS
        is_silent = runner.is_over or self.filling.suspect == OPENING
        if self.filling.suspect == OPENING:
            self.filling.suspect = None
        self.failed, self._restore_at_ns, self._inherited = "", None, runner.environment.taken()
        self._clock.set(runner.environment.now_ns, now)
        self.facts.code, self.facts.app, self.facts.origin = runner.code, runner.place.name, runner.origin
        runner.walls.about(self.facts.id, OPENING.party, OPENING.first, OPENING.count)
        try:
            runner.take(Opened(self._own, self._own_name, epoch, before, is_silent), self._clock.read(now), now.ns)
        except CorruptError as error:
            runner.close()
            self._fail(str(error), now)
        else:
            self._start(runner, now)

    def _start(self, runner: Runner, now: Moment) -> None:
        self.runner, self._opening, self.ran = runner, runner.number + 1, True
        self.pump(now)

    def _fail(self, failed: str, now: Moment) -> None:
        """Throw away what runs, because it cannot go on, and restore it in a while unless another node has taken it."""
        epoch, holders = self.epoch, self.filling.holders
        for ahead in list(self._ahead)[len(self._ahead) - self._refused :]:
            holders = ahead.holders or holders
        self._drop()
        if holders:  # The holding waits for it.
            self.filling.change(holders)
        self.epoch, self.failed, self._restore_at_ns = epoch, failed, now.ns + RESTORE_RETRY_NS
        self._orders.append(Say(self.facts.id, f"it cannot go on: {failed}"))

    def resume(self, now: Moment) -> None:
        """Go on with what was not done: the answer to ``Await`` and ``Rest``."""
        runner, self._is_awaited, self._is_resting = self.runner, False, False
        try:
            if runner is not None and runner.is_busy:
                runner.go_on(now.ns)
                self._seal_at_once(runner, now)
        except CorruptError as error:
            self._fail(str(error), now)
        self.pump(now)

    def _seal_at_once(self, runner: Runner, now: Moment) -> None:
        """Propose what took long before anything more is applied, which may take as long."""
        if not (runner.is_busy or self._ahead or self._hold or self.filling.holders):
            self._block(now)

    def stop(self, now: Moment) -> None:
        """Come to an end: by a record, so that whoever runs it next knows. It has ended when that is committed.

        One that cannot run here, and so cannot have a record, or that never began, has ended at once.
        """
        if self.runner is None or (not self._is_open and self._opening <= 1):
            self.is_ended = True
        else:
            self.filling.tell(Stopped())
            self.pump(now)

    def end(self) -> None:
        """Be over, for good."""
        self.is_ended = True
        if self._first is not None:
            self._first[0].close()
        self._answer("it has ended")
        self._drop()

    def move(self, target: NodeId, command: int, now: Moment) -> None:
        """Let another node run it."""
        if self._mover:
            self._orders.append(Told(command, "another move is under way"))
            return
        if self.runner is not None and self.runner.is_over:
            self._orders.append(Told(command, "it has ended"))
            return
        self._mover, self._target = command, target
        self._move_now(now)

    def _move_now(self, now: Moment) -> None:
        """Begin the move that was asked for, unless a change of holders must end first."""
        if not self._is_changing and (target := self._target) is not None:
            self._target = None
            self.feed(on.MoveAsked(target), now)

    def maintain(self, peers: Mapping[NodeId, Peer], gone: set[NodeId], now: Moment) -> bool:
        """See that as many nodes keep the journal as should; return whether they do not yet."""
        runner = self.runner
        if runner is None or not self._is_open or self._mover or self._is_changing or runner.is_over:
            return False
        holders = self.holding.holders
        kept = Kept(self.facts.id, self._own, holders, runner.copies)
        wanted = wanted_holders(kept, peers, gone)
        if set(wanted) == set(holders):
            return False
        self._is_changing = True
        self.feed(on.HoldersAsked(wanted), now)
        return True

    def flee(self, peers: Mapping[NodeId, Peer], now: Moment) -> bool:
        """Move away from this node, which is slow, to a holder that is not; not again before FLEE_NS are over.

        Returns:
            Whether it begins to.
        """
        better = fit_of(self.holding.holders, peers)
        if not better or self.runner is None or self._mover or now.ns < self._flee_at_ns:
            return False
        self._flee_at_ns = now.ns + FLEE_NS
        self.move(better[0], NOBODY, now)
        return True

    def comes_from(self, name: str, epoch: int) -> None:
        """Remember who gives it away in this epoch: if the next one is ours, it is a move and no recovery."""
        self._before = name, epoch

    def carried(self, message: Carried, now: Moment) -> None:
        """Take items of a party into the queue, if they are the next ones; else say what is.

        Raises:
            WireError: They are no items.
        """
        if self.runner is None:
            return  # The sender sends again, and by then it is known who runs it.
        runner, is_disk_full = self.runner, self._hold == "disk"
        answer = self.filling.inbox.put(message, runner.environment, now.ns, is_disk_full=is_disk_full)
        if answer is None:
            self.pump(now)
        elif isinstance(answer, Refusal) and answer.code == FORGOTTEN:
            if runner.is_busy:  # It is about to go back, and may not know again yet of whom it has taken something.
                return
            self._doubts.note(answer, runner.number + runner.has_news, now.ns)
            self._routed += self._doubts.due(self.holding.committed, now.ns)
        else:
            self._routed.append(answer)

    def receipt(self, message: Receipt, now: Moment) -> None:
        """Note that a party has our items up to a number, and send again what it says is missing."""
        runner, party = self.runner, message.source
        if runner is None:
            return
        confirmed = runner.environment.confirmed(party)
        upto = min(message.upto, confirmed + runner.environment.owes(party))  # What was never sent confirms nothing.
        self.filling.confirms.heard(party, upto, confirmed, now.ns)
        if message.again and self._resends.may_ask(party, now.ns):
            self._resend(party, now)

    def attached(self, party: bytes, now: Moment) -> None:
        """Note that a party can be reached now: it is sent what it has missed."""
        self._resend(party, now)

    def forgotten(self, message: Refusal, now: Moment) -> None:
        """Note that a party has forgotten the environment; what it may have taken before is not sent again."""
        if self.runner is None or self.filling.gives_up(message.source):
            return
        upto = doubtful_upto(self.runner.environment.owed(), message, lambda at_ns: self._clock.age(at_ns, now))
        if upto:
            self.tell(Forgotten(message.source, upto), now)

    def tell(self, record: Record, now: Moment) -> None:
        """Let the environment hear of a change."""
        if self.runner is not None and self.filling.has_room:
            self.filling.tell(record)
            self.pump(now)

    def found(self, record: Found, now: Moment) -> None:
        """Answer a search. It is no news that could be dropped: the environment bounds its searches itself."""
        if self.runner is not None:
            self.filling.tell(record)
            self.pump(now)

    def checkpoint(self, now: Moment) -> None:
        """Take a checkpoint now.

        Raises:
            UsageError: It does not run here, a coroutine waits, or a field holds what is no data.
        """
        if self.runner is None:
            raise UsageError("it does not run here")
        self._check_rest()
        self.runner.checkpoint(self._clock.read(now))
        self._block(now)  # The snapshot is of the state after this block, so nothing more goes into it.
        self.pump(now)

    def _check_rest(self) -> None:
        if self.runner is not None and self.runner.is_busy:
            raise UsageError("a handler runs; try again when it is done")
        if self.runner is not None and self.runner.is_over:
            raise UsageError("it has ended")

    def upgrade(self, program: Program | Place, code: bytes, now: Moment) -> None:
        """Run other code from now on.

        Raises:
            UsageError: As ``checkpoint``.
            CorruptError: The state does not fit that code. Nothing has changed.
        """
        if self.runner is None:
            raise UsageError("it does not run here")
        self._check_rest()
        self._block(now)  # What the old code did is in a block of its own.
        self.runner.upgrade(program, code, self._clock.read(now))
        self.facts.code, self.facts.app = code, self.runner.place.name
        self._block(now)
        self.pump(now)

    def tick(self, now: Moment) -> None:
        """Do what is due."""
        if self._resends.is_due(now.ns):
            self._resend(b"", now)
        if self._restore_at_ns is not None and now.ns >= self._restore_at_ns:
            self._restore_at_ns = None  # Set again by its answer: it may take long, and two would slow each other.
            self._orders.append(Restore(self.facts.id, self.epoch, self.holding.last))
        deadline_ns = self.holding.deadline_ns
        if deadline_ns is not None and now.ns >= deadline_ns:
            self.feed(Tick(), now)
        else:
            self.pump(now)

    # Running.

    def pump(self, now: Moment) -> None:
        """Apply what waits, as far as blocks have room, and propose a block when one may go."""
        self._is_pump_due = True
        if self._is_pumping:
            return  # It goes round once more.
        self._is_pumping = True
        try:
            while self._is_pump_due:
                self._is_pump_due = False
                self._pump(now)
        except CorruptError as error:  # A handler that is not deterministic: what was applied cannot be undone.
            self._fail(str(error), now)
        finally:
            self._is_pumping = False

    def _pump(self, now: Moment) -> None:
        runner = self.runner
        while runner is not None and self.runner is runner and not self._hold and len(self._ahead) < BLOCKS_AHEAD_MAX:
            if not self._is_resting:
                self.filling.fill(runner, now)
                self._is_resting = self.filling.is_late or (runner.is_busy and not runner.is_elsewhere)
            if runner.is_busy:
                break
            if runner.wants_checkpoint:
                try:
                    runner.checkpoint(self._clock.read(now))
                except UsageError as error:  # It goes on, and a restart takes longer each time: its author is told.
                    self._orders.append(Say(self.facts.id, f"no checkpoint can be taken: {error}"))
                else:
                    self._block(now)  # A snapshot is of the state after its block, so nothing more comes into that.
                    continue
            if not self.filling.holders and (not runner.has_news or (self._ahead and not runner.is_block_full)):
                break  # While a block is on its way to the disk, what comes shares the next one.
            self._block(now)
        if runner is not None and self.runner is runner and not self._is_awaited:
            self._is_awaited = runner.is_busy or self._is_resting
            if self._is_resting:
                self._orders.append(Rest(self.facts.id, now.ns))
            elif runner.is_busy:
                self._orders.append(Await(self.facts.id))

    def _block(self, now: Moment) -> None:
        assert self.runner is not None
        ahead = self.filling.block(self.runner)
        if ahead is not None:
            self._ahead.append(ahead)
            self._propose(ahead, now)

    def _propose(self, ahead: Ahead, now: Moment) -> None:
        made = ahead.made
        self.feed(on.Proposed(self.epoch, made.first_event, made.events, made.body, ahead.holders), now)

    def _again(self, now: Moment) -> None:
        """Propose again what was refused."""
        count, self._refused = self._refused, 0
        for ahead in list(self._ahead)[len(self._ahead) - count :]:
            self._propose(ahead, now)

    def _committed(self, number: int, now: Moment) -> None:
        runner = self.runner
        if runner is None:
            return
        if not self._is_open and number >= self._opening:
            self._is_open = True
            self.filling.inbox.committed(self._inherited, runner.environment)
            for party, upto in self._inherited.items():  # What was on its way to the owner before is wanted now.
                self._routed.append(Receipt(self.facts.id, party, upto, again=True))
            self._resend(b"", now)  # What the owner before did not send any more, somebody waits for.
        while self._ahead and self._ahead[0].made.number <= number:
            ahead = self._ahead.popleft()
            made = ahead.made
            self.filling.inbox.committed(ahead.receipts, runner.environment)
            for party, upto in ahead.receipts.items():
                self._routed.append(Receipt(self.facts.id, party, upto))
            if made.snapshot is not None:
                self._orders.append(StoreSnapshot(self.facts.id, made.number, made.snapshot))
        self._routed += self._doubts.due(number, now.ns)
        for effect in runner.release(number):
            match effect:
                case Post(party, first, count, items):
                    self._send(party, Parcel(first, count, items), 0)
                case Note(text):
                    self._orders.append(Say(self.facts.id, text))
                case Ended():
                    pass  # See below; what else left with it is on its way first.
                case _:  # A ``Resolve``.
                    self._searches.append(effect)
        if runner.is_over and self._is_open and not self._ahead and not runner.has_news:
            self.is_ended = True
        self._resends.sent(now.ns)

    def _resend(self, party: bytes, now: Moment) -> None:
        """Send again what one party, or any, has not confirmed and what was sent long enough ago to be lost."""
        if self.runner is None or not self._is_open:
            return
        owed, held = self.runner.environment.owed(), self.runner.first_held()
        for to, parcel in self._resends.chosen(owed, held, self.filling.confirms.upto, party):
            self._send(to, parcel, self._clock.age(parcel.made_ns, now))

    def _send(self, party: bytes, parcel: Parcel, age_ns: int) -> None:
        assert self.runner is not None
        # What is given up is not settled before that is durable: it would be sent again if it were undone.
        settled = self.runner.environment.confirmed(party) if self.holding.committed >= self.filling.giving_up else 0
        for first, _, items in parcels_of(parcel.first, parcel.count, parcel.payload):
            self._routed.append(Carried(self.facts.id, party, first, items, 0, settled, age_ns))

    def _answer(self, failure: str | None) -> None:
        if self._mover:
            self._orders.append(Told(self._mover, failure))
            self._mover = 0

    def _drop(self) -> None:
        """Throw away what runs and all that waits for it; who sent it sends it again."""
        if self.runner is not None:
            self.runner.close()
        self.runner, self.epoch, self._hold = None, 0, ""
        self._routed += self.filling.clear()
        self._ahead.clear()
        self._searches.clear()
        self._refused = 0
        self._resends.clear()
        self._doubts.clear()
        self._restore_at_ns = None
        self.failed = ""
        self._is_open = self._is_awaited = self._is_resting = False
        self._prepared = None
        if self._target is not None:  # The holding was not asked yet, and will not answer.
            self._answer("it does not run here any more")
        self._is_changing, self._target = False, None
