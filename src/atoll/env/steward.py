# SPDX-License-Identifier: Apache-2.0
"""The steward of a node: which environments are here, who runs which elsewhere, and what goes to whom.

Sans I/O. Messages of clients and of other nodes come in, answers of the recorder and of whoever loads code, commands,
and ticks; ``orders`` gives what is to be done, in order. The same steward runs live and in the simulator.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, final

import msgspec

from atoll.base.errors import UsageError, WireError
from atoll.base.ids import NodeId
from atoll.core.entropy import Draws
from atoll.env.app import Program
from atoll.env.beginning import Begun, Stuck, Wanted, taken, unusable
from atoll.env.changes import PeerSlow
from atoll.env.directory import Directory, keepers_of
from atoll.env.dues import Dues
from atoll.env.expected import Expected
from atoll.env.facts import Facts
from atoll.env.graves import Graves
from atoll.env.holding import Holding, HoldingOptions
from atoll.env.holding.events import Cleared, Heard, HoldersAsked, HoldingInput, Suspected
from atoll.env.holding.messages import HandOver, Store, is_question
from atoll.env.holding.messages import decode as decode_letter
from atoll.env.hosted import Hosted
from atoll.env.keepers import Peer, parted
from atoll.env.limits import (
    AWAITED_NS,
    COPIES,
    HOPS_MAX,
    LOST_NS,
    MAINTAIN_NS,
    NOTICE_NS,
    NOTICES_MAX,
    SILENT_NS,
)
from atoll.env.messages import (
    FORGOTTEN,
    Answered,
    Asked,
    Carried,
    CodeGiven,
    CodeWanted,
    HeadTold,
    Letter,
    Message,
    Notice,
    Notices,
    Receipt,
    Refusal,
    Routed,
)
from atoll.env.orders import Create, FetchCode, Forget, Moment, Order, TellNode, TellSession
from atoll.env.places import Place
from atoll.env.records import CODE_BYTES, Began, Found, Record
from atoll.env.records import Told as TellAll
from atoll.env.routes import Routes
from atoll.env.runner import Runner
from atoll.env.stranded import Stranded
from atoll.env.walls import OPEN, Walls

__all__ = ["Origin", "Steward"]

Origin = int | NodeId
"""Where a message came from: the session of a client, or a node."""

_SEED_BYTES: Final = 32


@final
class Steward:
    """The environments of one node.

    Args:
        own: This node.
        name: Its name.
        seed: 32 bytes of entropy.
        walls: What stands around handlers.

    Attributes:
        directory: Who runs what, as far as is known here.
        hosted: What is here, by id.
        graves: What is never taken up again here.
        expected: What is here and not taken up yet.
        strange: Messages that were dropped because they made no sense.
    """

    def __init__(self, own: NodeId, name: str, seed: bytes, walls: Walls = OPEN) -> None:
        self._own, self._name, self._walls = own, name, walls
        self._draws: Final = Draws(seed)
        self.directory: Final = Directory()
        self.hosted: Final[dict[bytes, Hosted]] = {}
        self.strange = 0
        self._members: dict[NodeId, Peer] = {}
        self._slow = ""
        self._routes: Final = Routes()
        self.graves: Final = Graves(own)
        self.expected: Final = Expected()
        self._orders: list[Order] = []
        self._notice_at_ns: int | None = None
        self._maintain_at_ns = 0
        self._told: dict[bytes, Notice] = {}  # What was said last of each that runs here.
        self._dues: Final = Dues(self.hosted)
        self._before: Final[set[bytes]] = set()  # Taken up with a journal that was here.
        self._stranded: Final = Stranded()
        self._met_at_ns: int | None = None  # When it was first told who else is in the group.

    def orders(self) -> list[Order]:
        """Take what is to be done, in order."""
        orders, self._orders = self._orders, []
        return orders

    @property
    def deadline_ns(self) -> int | None:
        """When ``tick`` is owed, monotonic."""
        first_ns = self._dues.first_ns
        times = [] if first_ns is None else [first_ns]
        if self._notice_at_ns is not None:
            times.append(self._notice_at_ns)
        if self.hosted:
            times.append(self._maintain_at_ns)
        return min(times) if times else None

    @property
    def wall_deadline_ns(self) -> int | None:
        """When ``tick`` is owed by the wall clock, for timers of environments."""
        return self._dues.first_wall_ns

    @property
    def running(self) -> int:
        """How many environments run here."""
        return sum(hosted.runner is not None for hosted in self.hosted.values())

    def named(self, name: str) -> bytes:
        """Return the id of an environment that runs, or that is kept here and that nobody runs yet; empty: none."""
        notice, expected = self.directory.named(name), self.expected.named(name)
        kept = [one.facts.id for one in self.hosted.values() if one.facts.name == name and not one.is_blank]
        # What was kept here before this process began is meant here, whoever was heard to have its name meanwhile.
        before = [*self._before.intersection(kept), *expected]
        if before:
            return min(before)
        return min(kept, default=b"") if notice is None else notice.id

    def parties(self, name: str) -> tuple[bytes, ...]:
        """Return the ids that are meant by a name, or by ``app:`` and that of an application; at most FOUND_MAX."""
        if name.startswith("app:"):
            return self.directory.of_app(name.removeprefix("app:"))
        identity = self.named(name)
        return (identity,) if identity else ()

    def failed(self, now: Moment) -> tuple[Notice, ...]:
        """Return what is here and cannot run, or is stuck, as far as nobody else runs it: others do not tell of it."""
        unheard = [hosted for identity, hosted in self.hosted.items() if self.directory.find(identity) is None]
        stuck = [hosted.believed() for hosted in unheard if not hosted.failed and not hosted.is_blank]
        return (
            *(hosted.notice() for hosted in unheard if hosted.failed),
            *(notice for notice in stuck if self.stuck(notice, now)),
        )

    # What is here.

    def adopt(
        self,
        facts: Facts,
        options: HoldingOptions,
        now: Moment,
        first: tuple[Runner, Began] | None = None,
        copies: int = COPIES,
    ) -> Hosted:
        """Take up an environment whose journal the recorder has, or is about to begin.

        Raises:
            CorruptError: What the recorder has cannot be.
        """
        hosted = Hosted(facts, (self._own, self._name), Holding.create(options, now.ns), first, copies)
        self.hosted[facts.id] = hosted
        if hosted.holding.last:
            self._before.add(facts.id)
        hosted.open(now)
        if self.expected.take(facts.id):  # Of those who were lost before it was told nothing.
            for node in (node for node, peer in self._members.items() if peer.lost):
                hosted.feed(Suspected(node), now)
        self._after(hosted, now)
        return hosted

    def all_here(self, now: Moment) -> None:
        """Note that nothing is expected any more: what others said of that counted for nothing, and is said again."""
        self._met_at_ns = None if self._met_at_ns is None else now.ns

    def create(self, wanted: Wanted, program: Program, now: Moment) -> bytes:
        """Begin a new environment here, in this process; return its id.

        Raises:
            UserError: A602, its first handler fails; A606, the name is taken.
        """
        return self.take_up(self.begin(wanted, program, now), now)

    def begin(self, wanted: Wanted, program: Program | Place, now: Moment) -> Begun:
        """Give a new environment its first record; one that cannot begin leaves nothing behind.

        Raises:
            UserError: A602, its first handler fails, if that is known by now; A606, the name is taken.
            CorruptError: It cannot be made here.
        """
        self.check_free(wanted.name, now)
        identity, seed = self._draws.token(16), self._draws.token(_SEED_BYTES)
        began = Began(
            identity,
            seed,
            wanted.name,
            wanted.code,
            wanted.arguments,
            self._own,
            wanted.level,
            wanted.state,
            wanted.source,
        )
        runner = Runner(program, wanted.code, None, self._walls)
        runner.take(began, now.wall_ns)
        return Begun(wanted, runner, began)

    def take_up(self, begun: Begun, now: Moment) -> bytes:
        """Let it be one of this node's environments; return its id.

        Raises:
            UserError: A606, the name is taken.
        """
        name, identity, runner = begun.wanted.name, begun.began.id, begun.runner
        self.check_free(name, now)
        facts = Facts(identity, name, runner.place.name, begun.wanted.code, self._own)
        self._orders.append(Create(identity, name))
        options = HoldingOptions(self._own, self._draws.token(_SEED_BYTES), holders=(self._own,))
        self.adopt(facts, options, now, (runner, begun.began), begun.wanted.copies)
        return identity

    def check_free(self, name: str, now: Moment) -> None:
        """Return if no environment has this name, one that has begun here and is not known to anybody yet included.

        Raises:
            UserError: A606, with what frees the name where nobody can run the one that has it.
        """
        if identity := self.named(name):
            notice = self._believed(identity)
            raise taken(name, None if notice is None else self.stuck(notice, now))
        barred = next((one for one in self.graves.all_barred() if one.name == name), None)
        if barred is not None:
            raise unusable(barred)

    def _believed(self, identity: bytes) -> Notice | None:
        """Return who runs an environment, as this node has heard, or else as its journal here has it."""
        hosted = self.hosted.get(identity)
        return self.directory.find(identity) or (None if hosted is None else hosted.believed())

    def stuck(self, notice: Notice, now: Moment) -> Stuck | None:
        """Return why nobody can run an environment, and what to do; None: somebody can, or does, as far as is known."""
        is_barred = self.graves.barred(notice.id) is not None  # Then this node is of no help.
        found = parted(notice, NodeId(b"") if is_barred else self._own, self._members, self._lost(AWAITED_NS, now))
        if found is None or self._met_at_ns is None:
            return None
        lost, there = (tuple(self._name_of(node) for node in nodes) for nodes in found)
        return Stuck(notice.name, lost, there)

    def _name_of(self, node: NodeId) -> str:
        return self._name if node == self._own else self._members[node].name

    def resume(self, identity: bytes, now: Moment) -> None:
        """Take the answer to ``Await``: there may be one of the handler's, or its time is over."""
        hosted = self.hosted.get(identity)
        if hosted is not None:
            hosted.resume(now)
            self._after(hosted, now)

    def restored(self, identity: bytes, epoch: int, runner: Runner | None, failed: str, now: Moment) -> None:
        """Take the answer to ``Restore``."""
        hosted = self.hosted.get(identity)
        if hosted is not None:
            hosted.restored(epoch, runner, failed, now)
            self._after(hosted, now)

    def prepared(self, identity: bytes, failed: str, now: Moment) -> None:
        """Take the answer to ``Prepare``.

        Args:
            identity: Of the environment.
            failed: Why it cannot be; empty: it is ready.
            now: The time.
        """
        hosted = self.hosted.get(identity)
        if hosted is not None:
            hosted.prepared(failed, now)
            self._after(hosted, now)

    def recorded(self, identity: bytes, event: HoldingInput, now: Moment) -> None:
        """Take the recorder's answer to ``AskRecorder``, as an input of the holding."""
        hosted = self.hosted.get(identity)
        if hosted is not None:
            hosted.feed(event, now)
            self._after(hosted, now)

    def forget(self, identity: bytes) -> None:
        """Let go of an environment whose files were put aside."""
        hosted = self.hosted.pop(identity, None)
        self._dues.changed(identity)
        if hosted is not None and hosted.runner is not None:
            hosted.runner.close()

    # Commands.

    def move(self, identity: bytes, target: NodeId, command: int, now: Moment) -> None:
        """Let another node run an environment that runs here; answered by ``Told``."""
        hosted = self._running(identity)
        hosted.move(target, command, now)
        self._after(hosted, now)

    def hold(self, identity: bytes, holders: Iterable[NodeId], now: Moment) -> None:
        """Have these nodes keep an environment that runs here."""
        hosted = self._running(identity)
        hosted.feed(HoldersAsked(tuple(holders)), now)
        self._after(hosted, now)

    def checkpoint(self, identity: bytes, now: Moment) -> None:
        """Take a checkpoint of an environment that runs here.

        Raises:
            UsageError: A coroutine waits, or a field holds what is no data.
        """
        hosted = self._running(identity)
        hosted.checkpoint(now)
        self._after(hosted, now)

    def upgrade(self, identity: bytes, program: Program | Place, code: bytes, now: Moment) -> None:
        """Run other code from now on.

        Raises:
            UsageError: As ``checkpoint``.
            CorruptError: The state does not fit that code.
        """
        hosted = self._running(identity)
        hosted.upgrade(program, code, now)
        self._after(hosted, now)

    def stop(self, identity: bytes, now: Moment) -> None:
        """End an environment for good; when that is committed its journal is put aside on every holder.

        One that cannot run here is put aside at once: its journal cannot say so, and those who keep it are told.

        Raises:
            UsageError: It is not this node that should run it.
        """
        hosted = self.hosted.get(identity)
        if hosted is None or (hosted.runner is None and not hosted.failed and not hosted.is_new):
            raise UsageError("it does not run here")
        hosted.stop(now)
        self._after(hosted, now)

    def give_up(self, identity: bytes, now: Moment) -> None:
        """End an environment that is kept here and that nobody can run: put it aside, and tell who keeps it as well.

        Raises:
            UsageError: It is not kept here, or somebody can run it.
        """
        hosted, notice = self.hosted.get(identity), self._believed(identity)
        if hosted is None or hosted.is_blank or notice is None or self.stuck(notice, now) is None:
            raise UsageError("it is not kept here, or somebody can run it")
        hosted.is_ended = True
        self._after(hosted, now)

    def put_aside(self, identity: bytes, now: Moment) -> None:
        """End an environment whose journal here cannot be used, and tell who else keeps it.

        Raises:
            UsageError: It is none, somebody else runs it, or may, as far as is known by now.
        """
        barred = self.graves.barred(identity)
        is_early = self._met_at_ns is None or not self._knows_all(now)
        if barred is None or self.directory.find(identity) is not None or is_early:
            raise UsageError("it runs elsewhere, or may")
        self._bury(Notice(identity, 0, self._own, barred.name, "", bytes(CODE_BYTES), (), ended=True), now)

    def _bury(self, notice: Notice, now: Moment) -> None:
        """Put the journal of an environment that is over aside, and say so."""
        self.graves.release(notice.id)
        self._orders.append(Forget(notice.id))
        self.graves.end(notice)
        self._declare(notice, now)

    def tell(self, record: Record, now: Moment) -> None:
        """Let every environment here hear of a change."""
        for hosted in tuple(self.hosted.values()):
            hosted.tell(record, now)
            self._after(hosted, now)

    def _running(self, identity: bytes) -> Hosted:
        hosted = self.hosted.get(identity)
        if hosted is None or hosted.runner is None:
            raise UsageError("it does not run here")
        return hosted

    # Sessions and members.

    def attach(self, party: bytes, session: int, now: Moment) -> None:
        """A client is here; what environments owe it is sent now."""
        self._routes.attach(party, session)
        for hosted in tuple(self.hosted.values()):
            hosted.attached(party, now)
            self._after(hosted, now)

    def detach(self, party: bytes, session: int) -> None:
        """A client is gone, unless it has come back by another session."""
        self._routes.detach(party, session)

    def members(self, members: Mapping[NodeId, Peer], now: Moment, slow: str = "") -> None:
        """Learn who else is in the group, and how they are; and why this node is slow (empty: it is not)."""
        before, self._members = self._members, {}
        self._slow = slow
        self._met_at_ns = now.ns if self._met_at_ns is None else self._met_at_ns
        if before.keys() != members.keys():
            self._notice_at_ns = now.ns
            self.directory.part(before.keys() - members.keys(), {self._own, *members})
        for node, peer in members.items():
            was = before.get(node)
            since = None if not peer.lost else now.ns if was is None or was.lost_ns is None else was.lost_ns
            self._members[node] = replace(peer, lost_ns=since)
            if peer.lost != (was is not None and was.lost):
                self._suspect(node, lost=peer.lost, now=now)
            if peer.slow != ("" if was is None else was.slow):
                event = PeerSlow(peer.name, bool(peer.slow), peer.slow)
                self.tell(TellAll(msgspec.Raw(msgspec.msgpack.encode(event))), now)

    def _suspect(self, node: NodeId, *, lost: bool, now: Moment) -> None:
        for hosted in tuple(self.hosted.values()):
            hosted.feed(Suspected(node) if lost else Cleared(node), now)
            self._after(hosted, now)

    # Messages.

    def heard(self, origin: Origin, message: Message, now: Moment) -> None:
        """Take a message. Nothing that it holds raises."""
        match message:
            case Carried() | Receipt() | Refusal():
                self._passed(origin, message, now)
            case Notices(notices) if isinstance(origin, bytes):
                for notice in notices:
                    self._noticed(notice, origin, now)
            case Letter(content) if isinstance(origin, bytes):
                self._letter(origin, content, now)
            case CodeWanted() | CodeGiven() | Asked() | Answered() | HeadTold():
                pass  # Of the process around: it has the files.
            case _:
                self.strange += 1

    def _passed(self, origin: Origin, message: Routed, now: Moment) -> None:
        if isinstance(origin, bytes):
            if not self._may_say(message, origin):
                self.strange += 1
                return
            self._learn(message, origin)
            self._route(message, now, is_passed=True)
            return
        if self._routes.session(message.source) != origin:
            self.strange += 1  # A client speaks for itself only.
            return
        self._route(message, now)

    def _may_say(self, message: Routed, node: NodeId) -> bool:
        """Return whether a node may bring this: its client's, an environment's that it keeps, or for one that it keeps.

        The last is what came for an environment that is changing hands. Who keeps a journal is believed, as far as that
        environment goes; another node cannot speak in its name, nor in that of a client that is here.
        """
        own = self.hosted.get(message.target)
        if self._is_keeper(message.source, node) or self._is_keeper(message.target, node):
            return True
        if own is not None and node in own.holding.holders:
            return True
        if self._routes.session(message.source) is not None:
            return False
        return not self._is_here(message.source) and self.directory.find(message.source) is None

    def _is_here(self, identity: bytes) -> bool:
        return identity in self.hosted or identity in self.expected

    def _learn(self, message: Routed, node: NodeId) -> None:
        """Remember behind which node a client of another node is."""
        party = message.source
        if not self._is_here(party) and not self.directory.knows(party):
            self._routes.learn(party, node, is_passed_on=message.hops > 0)

    def _letter(self, node: NodeId, content: bytes, now: Moment) -> None:
        try:
            identity, message = decode_letter(content)
        except WireError:
            self.strange += 1
            return
        hosted = self.hosted.get(identity)
        if hosted is None or hosted.is_blank:
            notice = self.directory.find(identity)
            if self.graves.is_buried(identity):
                self._orders.append(TellNode(node, Notices((self.graves.tombstone(identity),))))
                return
            if self.graves.barred(identity) is not None or identity in self.expected:
                return  # A journal is here that is not read: as if there were none, it would vote against it.
            if isinstance(message, Store) and not message.counted:
                return  # It says only that this node is no holder, and it keeps nothing.
            if notice is None or node not in keepers_of(notice):
                return  # It is told again, and by then there is a notice that says what it is.
            hosted = hosted or self._learn_of(notice, now)
            if hosted.facts.code != notice.code:
                hosted.facts.code, hosted.facts.app = notice.code, notice.app
                self._orders.append(FetchCode(notice.code, node))
        elif not (hosted.holding.knows(node) or self._is_keeper(identity, node) or is_question(message)):
            self.strange += 1  # Nobody is an owner, or has a vote, because it says so.
            return
        if isinstance(message, HandOver) and node in self._members:
            hosted.comes_from(self._members[node].name, message.epoch)
        hosted.feed(Heard(node, message), now)
        self._after(hosted, now)

    def _is_keeper(self, identity: bytes, node: NodeId) -> bool:
        notice = self.directory.find(identity)
        return notice is not None and node in keepers_of(notice)

    def _learn_of(self, notice: Notice, now: Moment) -> Hosted:
        """Take up an environment that was never here."""
        self._orders.append(Create(notice.id, notice.name))
        options = HoldingOptions(self._own, self._draws.token(_SEED_BYTES))
        return self.adopt(Facts(notice.id, notice.name, notice.app, b""), options, now)

    def _noticed(self, notice: Notice, node: NodeId, now: Moment) -> None:
        hosted = self.hosted.get(notice.id)
        if notice.id in self.expected or not self._believes(hosted, notice, node, now):
            return
        if hosted is not None and not notice.ended and hosted.runner is None and notice.code != hosted.facts.code:
            hosted.facts.code, hosted.facts.app = notice.code, notice.app  # It was upgraded.
            self._orders.append(FetchCode(notice.code, node))
        self._free(notice.id, now)
        if hosted is not None and notice.ended:
            hosted.is_ended = True
            self._after(hosted, now)
        elif notice.ended and self.graves.barred(notice.id) is not None:
            self._bury(notice, now)

    def _believes(self, hosted: Hosted | None, notice: Notice, node: NodeId, now: Moment) -> bool:
        """Note what a node says, if it can know; return whether it is news."""
        if hosted is not None and hosted.holding.owner == self._own:
            self.directory.heard(notice.id, now.ns)  # Nobody tells an owner of itself.
        if hosted is None or self.directory.knows(notice.id):
            return self.directory.hear(notice, node, now.ns)
        if node in self._keepers(hosted):
            return self.directory.note(notice, now.ns)
        if notice.ended or now.ns < hosted.since_ns + SILENT_NS:
            self.strange += 1
            return False
        return self.directory.hear(notice, node, now.ns)  # All who kept it when we did may have been replaced.

    def _keepers(self, hosted: Hosted) -> tuple[bytes, ...]:
        """Return who keeps an environment; if what is here does not say, as the directory has it, or who wrote it."""
        known, holding = self.directory.find(hosted.facts.id), hosted.holding
        if not holding.holders and known is not None:
            return (known.owner, *known.holders)
        return holding.holders or (holding.owner,)

    def _route(self, message: Routed, now: Moment, *, is_passed: bool = False) -> None:
        target = message.target
        hosted = self.hosted.get(target)
        if hosted is not None and hosted.runner is not None:
            self._take(hosted, message, now)
            return
        session = self._routes.session(target)
        if session is not None:
            self._orders.append(TellSession(session, message))
            return
        notice = self.directory.find(target)
        node = self._routes.node(target) if notice is None else NodeId(notice.owner)
        if hosted is not None and hosted.heir:
            node = hosted.heir
        if node is not None:
            if node != self._own:
                if is_passed and message.hops < HOPS_MAX:
                    self._orders.append(TellNode(node, msgspec.structs.replace(message, hops=message.hops + 1)))
                elif not is_passed:
                    self._orders.append(TellNode(node, message))
            else:
                self._stranded.keep(message)  # Ours, and not running now: it goes on when somebody runs it.
            return
        is_over = self.graves.is_buried(target) or self.directory.ended(target)
        if isinstance(message, Carried) and not self._is_here(target) and (is_over or self._knows_all(now)):
            text = "it has ended" if is_over else "no such environment"
            self._route(Refusal(target, message.source, "unknown", text, message.first), now)

    def _knows_all(self, now: Moment) -> bool:
        """Return whether everybody had the time to say what it runs: before that, who is not known may be alive."""
        return not self._members or (self._met_at_ns is not None and now.ns >= self._met_at_ns + 2 * NOTICE_NS)

    def _free(self, target: bytes, now: Moment) -> None:
        """Send on what waited for somebody to run an environment."""
        for message in self._stranded.take(target) if self._stranded else ():
            self._route(message, now)

    def _take(self, hosted: Hosted, message: Routed, now: Moment) -> None:
        match message:
            case Carried():
                try:
                    hosted.carried(message, now)
                except WireError:
                    self.strange += 1
            case Receipt():
                hosted.receipt(message, now)
            case Refusal() if message.code == FORGOTTEN:
                hosted.forgotten(message, now)
            case _:  # Its calls end by their time-outs, and what it sent is sent again until the other side takes it.
                pass
        self._after(hosted, now)

    # Time.

    def tick(self, now: Moment) -> None:
        """Do what is due by either clock, and look at nothing else: most of many are idle."""
        for identity in self._dues.take(now.ns, now.wall_ns):
            hosted = self.hosted.get(identity)
            if hosted is not None:  # What was due before it may have been the end of it.
                hosted.tick(now)
                self._after(hosted, now)
        if self._notice_at_ns is not None and now.ns >= self._notice_at_ns:
            self._notice_at_ns = now.ns + NOTICE_NS
            self.directory.prune({self._own, *self._members}, now.ns)
            self._announce(self._notices())
            self._announce(self.graves.over())
        if now.ns >= self._maintain_at_ns:
            self._maintain_at_ns = now.ns + MAINTAIN_NS
            gone = self._lost(LOST_NS, now)
            for hosted in tuple(self.hosted.values()):
                is_asked = hosted.maintain(self._members, gone, now)
                if (self._slow and hosted.flee(self._members, now)) or is_asked:
                    self._after(hosted, now)

    def _lost(self, since_ns: int, now: Moment) -> set[NodeId]:
        """Return the members that have been lost for so long."""
        lost = {node: peer.lost_ns for node, peer in self._members.items() if peer.lost_ns is not None}
        return {node for node, lost_ns in lost.items() if now.ns - lost_ns >= since_ns}

    def _after(self, hosted: Hosted, now: Moment) -> None:
        """Take what an environment wants done; deliver what it sends; tell others when it changed hands."""
        self._deliver(hosted, now)
        if searches := hosted.searches():
            meant = {name: self.parties(name) for name in {search.name for search in searches}}
            for search in searches:
                hosted.found(Found(search.number, meant[search.name]), now)
            self._after(hosted, now)
        if hosted.is_ended and self.hosted.get(hosted.facts.id) is hosted:
            self._end(hosted, now)
        if hosted.heir not in {None, self._own}:  # It need not wait here until that one says that it runs it.
            self._free(hosted.facts.id, now)
        if hosted.ran and hosted.runner is None and hosted.holding.owner not in {b"", self._own}:
            hosted.ran = False
            self._declare(hosted.believed(), now)  # Others believe a keeper, and perhaps not a node unknown to them.
        self._tell_of(hosted, now)
        self._dues.changed(hosted.facts.id)

    def _tell_of(self, hosted: Hosted, now: Moment) -> None:
        """Tell others who runs an environment, if it runs here and that is news."""
        identity = hosted.facts.id
        if hosted.runner is None or self.hosted.get(identity) is not hosted:
            self._told.pop(identity, None)
            return
        notice = hosted.notice()
        if notice != self._told.get(identity):
            self._told[identity] = notice
            self._declare(notice, now)

    def _declare(self, notice: Notice, now: Moment) -> None:
        """Note what is true of an environment, tell everybody, and send on what waited for that."""
        self.directory.note(notice, now.ns)
        self._announce((notice,))
        self._free(notice.id, now)

    def _deliver(self, hosted: Hosted, now: Moment) -> None:
        orders, routed = hosted.taken()
        self._orders += orders
        for message in routed:
            self._route(message, now)

    def _end(self, hosted: Hosted, now: Moment) -> None:
        """Let go of an environment that is over; its files are put aside, here and where other holders hear of it."""
        notice = hosted.notice()
        del self.hosted[notice.id]
        self._bury(notice, now)
        hosted.end()
        self._deliver(hosted, now)

    def _notices(self) -> tuple[Notice, ...]:
        return tuple(hosted.notice() for hosted in self.hosted.values() if hosted.runner is not None)[:NOTICES_MAX]

    def _announce(self, notices: tuple[Notice, ...]) -> None:
        if notices:
            self._orders += [TellNode(node, Notices(notices)) for node in self._members]
