# SPDX-License-Identifier: Apache-2.0
"""What people can ask of the server of environments. Each verb checks its own parameters, which are JSON.

Normative text: docs/reference/api.md, under ``env``.
"""

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, Final, Protocol, TypeVar, final

import msgspec

from atoll.base.errors import CorruptError, LimitError, LinkError, UsageError, UserError
from atoll.base.ids import NodeId
from atoll.domain.guest.guests import Guests
from atoll.domain.limits import (
    COMMAND_S_MAX,
    COPIED_BYTES_MAX,
    DURABLE_S_MAX,
    GUEST_TURN_S,
    LOG_BYTES_MAX,
    LOG_LINES_MAX,
    LOGS_MAX,
)
from atoll.domain.loading import Bundle, decode_bundle, level_of, load
from atoll.domain.messages import MemberSeen
from atoll.domain.recorder.client import RecorderClient
from atoll.domain.recorder.messages import RefusedError
from atoll.domain.reviving import Archive
from atoll.domain.showing import shown
from atoll.domain.views import ENVIRONMENTS_SCHEMA, EnvironmentsView, EnvironmentView, LogView, RunView
from atoll.env.beginning import Stuck, Wanted
from atoll.env.graves import Barred
from atoll.env.hosted import Hosted
from atoll.env.limits import COPIES, HOLDERS_MAX, NAME_CHARS_MAX, NESTING_MAX
from atoll.env.messages import Notice
from atoll.env.nesting import is_shallow
from atoll.env.orders import Moment, Told
from atoll.env.places import Inline, Place, Running
from atoll.env.records import INLINE, PROCESS, Level
from atoll.env.steward import Steward

__all__ = ["VERBS", "Commands"]

VERBS: Final = ("run", "list", "show", "logs", "stop", "move", "copy", "checkpoint", "upgrade")
NAMED_VERBS: Final = frozenset({"show", "logs", "stop", "move", "copy", "checkpoint", "upgrade"})  # About one.
_LOOK: Final = "it may be, all the same: atoll env show {}"
_AGAIN: Final = "try again; what is not recorded may be undone, so nobody sees it"
_MIGRATE: Final = "mend the migration, or add one, or change the code; it runs as before"
_NO_DATA: Final = "try again when no coroutine waits; or mend the field that is named"
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")

T = TypeVar("T")


class _Run(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    bundle: bytes
    arguments: dict[str, Any] = {}
    copies: Annotated[int, msgspec.Meta(ge=1, le=HOLDERS_MAX)] = COPIES
    level: Level | None = None
    node: str = ""


class _Named(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class _Stop(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    anyway: bool = False


class _Copy(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    copy: str


class _Move(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    node: str


class _Upgrade(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    bundle: bytes


class _AnyNamed(msgspec.Struct):
    name: str


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Around(Protocol):
    """What commands need of the server."""

    @property
    def steward(self) -> Steward:
        """What decides."""
        ...

    @property
    def archive(self) -> Archive:
        """What the recorder keeps."""
        ...

    @property
    def recorder(self) -> RecorderClient:
        """The recorder."""
        ...

    @property
    def guests(self) -> Guests:
        """The processes of environments that have one of their own."""
        ...

    @property
    def name(self) -> str:
        """Name of this node."""
        ...

    @property
    def members(self) -> dict[NodeId, MemberSeen]:
        """The other members."""
        ...

    def name_of(self, node: NodeId) -> str:
        """Return a node's name."""
        ...

    async def ask_node(self, node: NodeId, verb: str, params: bytes) -> bytes:
        """Have another node do it."""
        ...

    async def code_shown(self, code: bytes, nodes: Sequence[NodeId], count: int) -> bool:
        """Wait until so many of these nodes have code; return whether they have."""
        ...

    def stir(self) -> None:
        """Have the steward's orders obeyed soon."""
        ...


@final
class Commands:
    """The verbs.

    Args:
        server: Whose environments they are about.
        now: The time.
    """

    def __init__(self, server: Around, now: Callable[[], Moment]) -> None:
        self._server, self._now = server, now
        steps = (
            self._run,
            self._list,
            self._show,
            self._logs,
            self._stop,
            self._move,
            self._copy,
            self._checkpoint,
            self._upgrade,
        )
        self._verbs: Final[dict[str, Callable[[bytes], Awaitable[msgspec.Struct]]]] = dict(
            zip(VERBS, steps, strict=True)
        )
        self._waiting: dict[int, asyncio.Future[Told]] = {}
        self._last = 0
        self._logs_kept: dict[bytes, deque[str]] = {}
        self._storing: dict[asyncio.Future[Exception | None], tuple[bytes, int]] = {}  # Of what, and after which block.
        self._beginning: dict[bytes, RefusedError | None] = {}  # Why the recorder does not begin its journal.

    async def obey(self, verb: str, params: bytes) -> bytes:
        """Do it; return what came of it as JSON.

        Raises:
            UserError: It cannot be done; A501, the parameters are none.
        """
        found = self._verbs.get(verb)
        if found is None:
            raise UserError("A501", f"no verb {verb!r}", fix=f"use one of: {', '.join(self._verbs)}")
        owner = self._elsewhere(verb, params)
        if owner is not None:
            try:
                return await self._server.ask_node(owner, verb, params)
            except UserError as error:
                if error.code != "A612" or verb != "show":
                    raise  # What everybody may know is shown all the same.
        answer = await found(params)
        if isinstance(answer, EnvironmentView):
            answer = msgspec.structs.replace(answer, schema=ENVIRONMENTS_SCHEMA)
        return msgspec.json.encode(answer)

    def check_asker(self, node: NodeId, verb: str, params: bytes) -> None:
        """Return if another node may ask for this: it keeps the journal of the environment, or has begun it.

        Raises:
            UserError: A612, it may not; A501 or A609, the question makes no sense.
        """
        if verb not in NAMED_VERBS:
            raise UserError("A501", f"no verb {verb!r} for other nodes", fix="run it there")
        name = _decoded(params, _AnyNamed).name
        notice = self._named(name)
        is_stopped = verb == "stop" and self._is_failed(notice)
        hosted = self._server.steward.hosted[notice.id] if is_stopped else self._running(name)[1]
        if node not in {*hosted.holding.holders, hosted.facts.origin}:
            raise UserError(
                "A612",
                f"{self._server.name_of(node)} may not do this to {hosted.facts.name}",
                where="it does not keep its journal, and has not begun it",
                fix=f"run the command on {self._server.name}",
            )

    def _elsewhere(self, verb: str, params: bytes) -> NodeId | None:
        """Return the other node that runs the environment which a verb is about; None: it is ours to do."""
        if verb not in NAMED_VERBS:
            return None
        notice = self._named(_decoded(params, _AnyNamed).name)
        hosted = self._server.steward.hosted.get(notice.id)
        if hosted is not None and hosted.runner is not None:
            return None
        stuck = self._server.steward.stuck(notice, self._now())
        if stuck is not None and verb not in {"show", "stop"}:
            raise _cannot(stuck)
        if stuck is not None:
            return None  # Whom to ask is not there.
        return NodeId(notice.owner) if NodeId(notice.owner) in self._server.members else None

    def told(self, order: Told) -> None:
        """Take the steward's answer to a command."""
        waiting = self._waiting.pop(order.command, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(order)

    def stored(self, identity: bytes, number: int, error: Exception | None = None) -> None:
        """Hear that a snapshot is on the disk, or why it is not."""
        for waiting, (wanted, after) in self._storing.items():
            if wanted == identity and number > after and not waiting.done():
                waiting.set_result(error)

    def refused(self, identity: bytes, error: RefusedError) -> None:
        """Hear that the recorder does not begin a journal."""
        if identity in self._beginning:
            self._beginning[identity] = error

    def note(self, identity: bytes, line: str) -> None:
        """Take a line of an environment's log."""
        if identity not in self._logs_kept and len(self._logs_kept) >= LOGS_MAX:
            del self._logs_kept[next(iter(self._logs_kept))]
        at = datetime.fromtimestamp(self._now().wall_ns / 1e9, UTC).isoformat(timespec="milliseconds")
        self._logs_kept.setdefault(identity, deque(maxlen=LOG_LINES_MAX)).append(f"{at} {line}")

    # Verbs.

    async def _run(self, params: bytes) -> RunView:
        asked = _decoded(params, _Run)
        _check_name(asked.name)
        steward, bundle = self._server.steward, _code(asked.bundle)
        steward.check_free(asked.name, self._now())
        target = self._member(asked.node) if asked.node not in {"", self._server.name} else None
        level: Level = asked.level or (PROCESS if level_of(bundle) == PROCESS else INLINE)
        arguments = _arguments(asked.arguments)
        code, place = await self._place(asked.bundle, level)
        view = await self._run_in(place, Wanted(asked.name, code, arguments, asked.copies, level), asked.bundle)
        if target is not None:
            await self._move_to(target, self._named(view.id))
            view = msgspec.structs.replace(view, node=asked.node)
        return view

    async def _run_in(self, place: Place, wanted: Wanted, bundle: bytes) -> RunView:
        try:
            await self._server.recorder.keep_code(wanted.code, bundle)
            identity = await self._begin(wanted, place)
            await self._until_durable(wanted.name, identity)
        except (UsageError, CorruptError) as error:
            place.close()
            raise UserError(
                "A602", f"{wanted.name} cannot begin", where=str(error), fix="mend the arguments"
            ) from error
        except BaseException:
            place.close()
            raise
        return RunView(
            name=wanted.name,
            id=identity.hex(),
            app=place.name,
            node=self._server.name,
            code=wanted.code.hex(),
        )

    async def _copy(self, params: bytes) -> RunView:
        asked = _decoded(params, _Copy)
        _check_name(asked.copy)
        notice, hosted = self._running(asked.name)
        self._server.steward.check_free(asked.copy, self._now())
        runner = hosted.runner
        assert runner is not None, "it runs here"
        try:
            state = runner.environment.snapshot()
        except UsageError as error:
            raise UserError("A607", f"{asked.name} cannot be copied now", where=str(error), fix=_NO_DATA) from error
        if len(state) > COPIED_BYTES_MAX:
            where = f"its state has {len(state)} bytes; at most {COPIED_BYTES_MAX} can be copied"
            raise UserError("A607", f"{asked.name} cannot be copied", where=where, fix="let it keep less in its state")
        await self._until_committed(hosted, _AGAIN)
        bundle = await self._server.recorder.read_code(notice.code)
        code, place = await self._place(bundle, runner.level)
        wanted = Wanted(asked.copy, code, _arguments({}), runner.copies, runner.level, state, asked.name)
        return await self._run_in(place, wanted, bundle)

    async def _begin(self, wanted: Wanted, place: Place) -> bytes:
        begun = self._server.steward.begin(wanted, place, self._now())
        while begun.runner.is_busy:
            await asyncio.sleep(GUEST_TURN_S)
            begun.runner.go_on()
        _check_fields(wanted, begun.runner.environment)
        return self._server.steward.take_up(begun, self._now())

    async def _until_durable(self, name: str, identity: bytes) -> None:
        """Wait until a new environment is in the journal: who is told that it runs may rely on it."""
        steward = self._server.steward
        self._beginning[identity] = None
        try:
            self._server.stir()
            give_up_s = asyncio.get_running_loop().time() + DURABLE_S_MAX
            while (hosted := steward.hosted.get(identity)) is not None and not hosted.is_open:
                await asyncio.sleep(GUEST_TURN_S)
                refused = self._beginning[identity]
                if refused is None and asyncio.get_running_loop().time() <= give_up_s:
                    continue
                if hosted.runner is not None or hosted.is_new:
                    steward.stop(identity, self._now())
                self._server.stir()
                raise refused or UserError(
                    "A611", f"{name} does not run now", where="it cannot be recorded", fix="see: atoll logs"
                )
        finally:
            del self._beginning[identity]

    async def _until_committed(self, hosted: Hosted, fix: str = _LOOK) -> None:
        """Wait until everything that was applied so far is in the journals of enough nodes.

        Raises:
            UserError: A611, it is not in time, or another node goes on without it; ``fix`` says what to do.
        """
        runner, name = hosted.runner, hosted.facts.name
        number = 0 if runner is None else runner.number + runner.has_news
        fix = fix.format(name)
        give_up_s = asyncio.get_running_loop().time() + DURABLE_S_MAX
        while hosted.runner is runner and hosted.holding.committed < number:
            if asyncio.get_running_loop().time() > give_up_s:
                where = "too few of the nodes that keep it answer, or a disk refuses"
                raise UserError("A611", f"{name} could not be recorded yet", where=where, fix=fix)
            await asyncio.sleep(GUEST_TURN_S)
        if runner is None or hosted.runner is not runner:
            where = "it changed hands meanwhile"
            raise UserError("A611", f"{name} was perhaps not recorded", where=where, fix=fix)

    async def _place(self, content: bytes, level: Level) -> tuple[bytes, Place]:
        """Return the hash of code, and where it is ready to run."""
        if level == INLINE:
            loaded = load(_code(content))
            return loaded.code, Inline(loaded.program)
        return sha256(_code(content).encode()).digest(), await self._server.guests.place(content)

    async def _list(self, params: bytes) -> EnvironmentsView:
        _decoded(params, _Nothing)
        return EnvironmentsView(tuple(map(self._view, self._known())))

    async def _show(self, params: bytes) -> EnvironmentView:
        notice = self._named(_decoded(params, _Named).name)
        hosted = self._server.steward.hosted.get(notice.id)
        view = self._view(notice)
        if hosted is None or hosted.runner is None:
            return view
        environment = hosted.runner.environment
        try:
            state, is_cut = shown(environment.fields())
        except UsageError as error:
            raise UserError(
                "A607", f"the state of {notice.name} cannot be shown", where=str(error), fix=_NO_DATA
            ) from error
        seen = msgspec.structs.replace(
            view,
            events=environment.events,
            failures=hosted.runner.failures,
            state=state,
            level=hosted.runner.level,
            is_cut=is_cut,
        )
        await self._until_committed(hosted, _AGAIN)
        return seen

    async def _logs(self, params: bytes) -> LogView:
        notice = self._named(_decoded(params, _Named).name)
        lines: list[str] = []
        room = LOG_BYTES_MAX
        for line in reversed(self._logs_kept.get(notice.id, ())):
            room -= len(msgspec.json.encode(line))
            if room < 0:
                break
            lines.append(line)
        return LogView(tuple(reversed(lines)))

    async def _stop(self, params: bytes) -> EnvironmentView:
        asked = _decoded(params, _Stop)
        name, notice, steward = asked.name, self._named(asked.name), self._server.steward
        if not notice.owner and steward.graves.barred(notice.id) is not None:
            return await self._put_aside(notice)
        stuck, hosted = steward.stuck(notice, self._now()), steward.hosted.get(notice.id)
        if stuck is not None and (not asked.anyway or hosted is None or hosted.is_blank):
            raise _cannot(stuck)
        if stuck is None and not self._is_failed(notice):
            self._running(name)
        view = self._view(notice)
        if stuck is None:
            steward.stop(notice.id, self._now())
        else:
            steward.give_up(notice.id, self._now())
        self._server.stir()
        give_up_s = asyncio.get_running_loop().time() + DURABLE_S_MAX
        while notice.id in steward.hosted:
            await asyncio.sleep(GUEST_TURN_S)
            if asyncio.get_running_loop().time() > give_up_s:
                where = "too few of the nodes that keep it answer, or it changes hands"
                raise UserError("A611", f"{name} has not ended yet", where=where, fix="see: atoll env list; try again")
        await self._server.recorder.listed()  # Which does one thing after the other: the files are put aside now.
        return view

    async def _put_aside(self, notice: Notice) -> EnvironmentView:
        view = self._view(notice)
        try:
            self._server.steward.put_aside(notice.id, self._now())
        except UsageError as error:
            where = "this node has not heard yet who runs it"
            raise UserError(
                "A611", f"{notice.name} has not ended", where=where, fix="try again in some seconds"
            ) from error
        self._server.stir()
        await self._server.recorder.listed()
        return view

    async def _checkpoint(self, params: bytes) -> EnvironmentView:
        notice, hosted = self._running(_decoded(params, _Named).name)
        stored: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._storing[stored] = notice.id, 0 if hosted.runner is None else hosted.runner.number
        try:
            self._server.steward.checkpoint(notice.id, self._now())
            self._server.stir()
            await self._until_committed(hosted)
            async with asyncio.timeout(DURABLE_S_MAX):
                refused = await stored
        except UsageError as error:
            raise UserError("A607", f"{notice.name} cannot be checkpointed", where=str(error), fix=_NO_DATA) from error
        except TimeoutError as error:
            fix = "see: atoll logs"
            raise UserError("A611", f"the state of {notice.name} is not written yet", fix=fix) from error
        finally:
            del self._storing[stored]
        if refused is not None:
            raise refused
        return self._view(notice)

    async def _upgrade(self, params: bytes) -> EnvironmentView:
        asked = _decoded(params, _Upgrade)
        notice, hosted = self._running(asked.name)
        level = INLINE if hosted.runner is None else hosted.runner.level
        code, place = await self._place(asked.bundle, level)
        before = _fields_of(hosted)
        try:
            await self._server.recorder.keep_code(code, asked.bundle)
            self._server.steward.upgrade(notice.id, place, code, self._now())
        except (RefusedError, LinkError, LimitError):
            place.close()
            raise
        except (UsageError, CorruptError) as error:
            place.close()
            raise UserError("A607", f"{notice.name} cannot be upgraded", where=str(error), fix=_MIGRATE) from error
        self._server.stir()
        after = _fields_of(hosted)
        await self._until_committed(hosted)
        await self._until_spread(hosted, code)
        gone = () if before is None or after is None else tuple(name for name in before if name not in after)
        return msgspec.structs.replace(self._view(self._named(asked.name)), gone=gone)

    async def _until_spread(self, hosted: Hosted, code: bytes) -> None:
        """Wait until so many nodes have code that it can be run when this one is lost: as many as have the journal."""
        holders = hosted.holding.holders
        others = [NodeId(node) for node in holders if NodeId(node) in self._server.members]
        if not await self._server.code_shown(code, others, len(holders) // 2):
            name = hosted.facts.name
            where = f"if {self._server.name} is lost now, it goes on when that is back"
            fix = "see: atoll status; the others go on asking for it"
            raise UserError("A611", f"{name} runs the new code, which too few others have", where=where, fix=fix)

    async def _move(self, params: bytes) -> EnvironmentView:
        asked = _decoded(params, _Move)
        notice, _ = self._running(asked.name)
        if asked.node != self._server.name:
            await self._move_to(self._member(asked.node), notice)
        return self._view(self._named(asked.name))

    async def _move_to(self, target: NodeId, notice: Notice) -> None:
        self._last += 1
        waiting: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._waiting[self._last] = waiting
        self._server.steward.move(notice.id, target, self._last, self._now())
        self._server.stir()
        try:
            async with asyncio.timeout(COMMAND_S_MAX):
                told = await waiting
        except TimeoutError as error:
            fix = "it may still move; see: atoll env list"
            raise UserError("A406", f"{notice.name} did not move in time", fix=fix) from error
        if told.failure is not None:
            raise UserError("A608", f"{notice.name} did not move", where=told.failure, fix="see: atoll status")

    # Finding.

    def _member(self, name: str) -> NodeId:
        """Return another member.

        Raises:
            UserError: A210, the group has none of that name.
        """
        members = self._server.members
        found = next((node for node, member in members.items() if member.name == name), None)
        if found is None:
            names = ", ".join(sorted(member.name for member in members.values())) or "none yet"
            where, fix = f"other members: {names}", "name one of these; atoll status lists them"
            raise UserError("A210", f"the group has no other member {name!r}", where=where, fix=fix)
        return found

    def _known(self) -> list[Notice]:
        """Return all environments, by name: of which nodes tell, and what cannot run here, or be used."""
        steward = self._server.steward
        barred = [
            Notice(one.id, 0, b"", one.name, "", b"", ())
            for one in steward.graves.all_barred()
            if steward.directory.find(one.id) is None
        ]
        found = (*steward.directory.all(), *steward.failed(self._now()), *barred)
        return sorted(found, key=lambda notice: (notice.name, notice.id))

    def _named(self, name: str) -> Notice:
        """Return the environment of a name, or of an id in hexadecimal digits: two may have got one name.

        Raises:
            UserError: A609, there is none; A611, nobody is known to run it.
        """
        known, steward = self._known(), self._server.steward
        meant = steward.named(name)  # As programs and clients of this node mean it.
        notice = steward.directory.find(meant) or next((one for one in known if meant == one.id), None)
        if not meant:
            notice = next((one for one in known if name in {one.name, one.id.hex()}), None)
        if notice is None and meant:
            where = "this node keeps it, and has not heard yet who runs it"
            raise UserError("A611", f"{name} does not run now", where=where, fix="try again in some seconds")
        if notice is None:
            names = ", ".join(one.name for one in known) or "none yet"
            where, fix = f"there are: {names}", "name one of these; of others, try again in some seconds"
            raise UserError("A609", f"there is no environment {name!r}", where=where, fix=fix)
        return notice

    def _running(self, name: str) -> tuple[Notice, Hosted]:
        notice = self._named(name)
        hosted, barred = self._server.steward.hosted.get(notice.id), self._server.steward.graves.barred(notice.id)
        if barred is not None and not notice.owner:
            raise UserError("A611", f"{name} does not run now", where=barred.reason, fix=_barred_fix(barred, notice))
        if hosted is None or hosted.runner is None:
            where = self._server.name_of(NodeId(notice.owner))
            if hosted is not None and (hosted.failed or where == self._server.name):
                reason = hosted.failed or "it is being restored, or changes hands"
                raise UserError("A611", f"{name} does not run now", where=reason, fix=f"see: atoll env logs {name}")
            raise UserError("A610", f"{name} runs on {where}", fix="run the command there")
        return notice, hosted

    def _is_failed(self, notice: Notice) -> bool:
        """Return whether an environment should run here and cannot."""
        hosted = self._server.steward.hosted.get(notice.id)
        return hosted is not None and hosted.runner is None and bool(hosted.failed)

    def _view(self, notice: Notice) -> EnvironmentView:
        steward = self._server.steward
        hosted, barred = steward.hosted.get(notice.id), steward.graves.barred(notice.id)
        stuck = steward.stuck(notice, self._now()) if notice.owner else None
        fixes = ("" if stuck is None else stuck.way_out, "" if barred is None else _barred_fix(barred, notice))
        return EnvironmentView(
            name=notice.name,
            id=notice.id.hex(),
            app=notice.app,
            node=self._server.name_of(NodeId(notice.owner)),
            epoch=notice.epoch,
            code=notice.code.hex(),
            holders=tuple(self._server.name_of(NodeId(node)) for node in notice.holders),
            failed="" if hosted is None else hosted.failed,
            waits_for=() if stuck is None else stuck.awaited,
            barred="" if barred is None else barred.why,
            fix="; ".join(filter(None, fixes)),
        )


def _barred_fix(barred: Barred, notice: Notice) -> str:
    """Return what to do about a journal that cannot be used; whoever runs its environment goes on without it."""
    look = f"see what is wrong: atoll audit verify {barred.name}"
    if notice.owner:
        return f"{look}; the others go on without it, and how this node keeps one again is in docs/operate/running.md"
    return f"{look}; mend it as in docs/operate/running.md, or end it: atoll env stop {barred.name}"


def _cannot(stuck: Stuck) -> UserError:
    return UserError("A611", f"{stuck.name} does not run now", where=stuck.reason, fix=stuck.way_out)


def _fields_of(hosted: Hosted) -> tuple[str, ...] | None:
    """Return the names of the declared state; None: it cannot be shown."""
    try:
        return None if hosted.runner is None else tuple(hosted.runner.environment.fields())
    except UsageError:
        return None


def _decoded(params: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(params or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError("A501", f"the parameters do not decode: {error}", fix="see docs/reference/api.md") from error


def _check_name(name: str) -> None:
    """Return if an environment may be called so.

    Raises:
        UserError: A501, with the characters that a name has.
    """
    if len(name) > NAME_CHARS_MAX or not _NAME.fullmatch(name):
        where = f"a-z and 0-9, between them also . _ and -; at most {NAME_CHARS_MAX} characters"
        raise UserError("A501", f"{name!r} is no name of an environment", where=where, fix="choose another, as my-bot")


def _code(content: bytes) -> Bundle:
    try:
        return decode_bundle(content)
    except CorruptError as error:
        raise UserError("A603", "this is no code", where=str(error), fix="atoll run FILE") from error


def _check_fields(wanted: Wanted, environment: Running) -> None:
    """Return if the application has the fields that it was given.

    Raises:
        UserError: A602, with those that there are.
    """
    given: dict[str, Any] = msgspec.msgpack.decode(wanted.arguments)
    fields = environment.fields() if given else {}
    unknown = [name for name in given if name not in fields]
    if unknown and (fields or wanted.level == INLINE):  # Of a guest that does not say, there are none, too.
        where = f"its fields: {', '.join(fields) or 'none'}"
        fix = "name one of these: --with FIELD=VALUE"
        raise UserError("A602", f"{wanted.name} cannot begin: it has no field {unknown[0]}", where=where, fix=fix)


def _arguments(arguments: dict[str, Any]) -> bytes:
    try:
        written = msgspec.msgpack.encode(arguments)
    except (OverflowError, RecursionError) as error:
        sentence = f"a field has a value that cannot be written: {error}"
        raise UserError("A501", sentence, fix="give an integer of 64 bits, and nothing that is too deep") from error
    if not is_shallow(written):
        sentence = f"a field has a value that nests deeper than {NESTING_MAX} (NESTING_MAX)"
        raise UserError("A501", sentence, fix="give what is deep as text, or flat")
    return written
