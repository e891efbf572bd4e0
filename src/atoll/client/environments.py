# SPDX-License-Identifier: Apache-2.0
"""Environments as a program outside sees them: find one by name, send to it, call it.

A ``Desk`` is one party. It keeps what it has sent until it is confirmed, and sends it again when it comes back to its
node or when the environment has moved; so a call gives one outcome whatever happens between. Not for use by two
processes at a time: each has a desk of its own. Programs reach it by ``Group.environment``.
"""

import asyncio
import secrets
import weakref
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar, final, overload

import msgspec

from atoll.base.errors import LimitError, UsageError, UserError, WireError
from atoll.domain.frames import FrameConnection
from atoll.domain.messages import DOOR_NAME, ClientMessage, Find, Found, Hello, Welcome, client_codec, server_codec
from atoll.env.changes import Failure
from atoll.env.correspondent import Came, Correspondent, GivenUp, Lost, News, Responded
from atoll.env.limits import CALL_TIMEOUT_S
from atoll.env.messages import Carried, Receipt, Refusal
from atoll.env.nesting import TOO_DEEP, TOO_DEEP_TEXT, TOO_LARGE, misfit
from atoll.env.parties import PARTY_BYTES
from atoll.env.plain_data import decode_fields
from atoll.env.tuples import TYPE_FIELD, Tuple
from atoll.host.clock import SystemClock
from atoll.node.api import call, open_call
from atoll.node.state import SOCKET_NAME

__all__ = ["CallError", "Desk", "RemoteEnvironment"]

AnswerT = TypeVar("AnswerT", bound=Tuple)
EventT = TypeVar("EventT", bound=Tuple)

ATTACH_S: Final = 5.0  # Limit. A node starts what runs environments anew within a second or two.
FIND_S: Final = 2.0  # Limit. A node that has just started hears of what others run, and takes up its own, in this time.
AGAIN_S: Final = 0.1  # Between two attempts to attach or to find.
RETRY_S: Final = 0.5  # How often a desk says that it waits, and tries to come back to its node.
LEAVE_S: Final = 5.0  # Limit. How long a desk that is closed waits until what it has sent is confirmed.
TOLD_MAX: Final = (
    4_096  # Limit. Tuples that came unasked and were not taken; at it the oldest goes, and LimitError says so.
)

_encode: Final = msgspec.msgpack.Encoder().encode
_failure: Final = msgspec.msgpack.Decoder(Failure)


class CallError(Exception):
    """A call has failed; exactly one of this and the response comes.

    Args:
        failure: As the environment, or whatever was in the way, said it.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure: Final = failure

    def __str__(self) -> str:
        return f"{self.failure.code}: {self.failure.text}" if self.failure.text else self.failure.code


@final
class Desk:
    """One client of the environments of a group. Use it with ``async with``.

    Args:
        state: State directory of the node on this machine.

    Attributes:
        node: Name of that node.
    """

    def __init__(self, state: Path) -> None:
        self._node: Final = state / SOCKET_NAME
        self._path: Final = state / DOOR_NAME
        self._mine: Final = Correspondent(secrets.token_bytes(PARTY_BYTES))
        self.node = ""
        self._connection: FrameConnection | None = None
        self._welcome: asyncio.Event = asyncio.Event()
        self._news: dict[bytes, asyncio.Event] = {}  # Set when something came of a party.
        self._calls: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._finds: dict[int, asyncio.Future[Found]] = {}
        self._last = 0
        self._listening: weakref.WeakSet[RemoteEnvironment] = weakref.WeakSet()
        self._keeper: asyncio.Task[None] | None = None
        self._given_up: dict[bytes, Failure] = {}
        self._clock: Final = SystemClock()
        self._is_due = False

    async def __aenter__(self) -> "Desk":
        """Attach; waits up to ATTACH_S while the node starts what runs environments: here for the first time, or again.

        Raises:
            UserError: A401, no node runs here; A611, it does not run environments.
        """
        give_up_s = asyncio.get_running_loop().time() + ATTACH_S
        is_asked = False
        while not await self._attach():
            if not is_asked:
                await self._wake()
                is_asked = True
                continue
            (await open_call(self._node, "status"))[1].close()  # It says A401 when there is no node at all.
            if asyncio.get_running_loop().time() >= give_up_s:
                raise self._away()
            await asyncio.sleep(AGAIN_S)
        self._keeper = asyncio.get_running_loop().create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Detach, once what was sent is confirmed or LEAVE_S are over; at once after an error. Calls that wait fail."""
        if kind is None:
            try:
                async with asyncio.timeout(LEAVE_S):
                    for party in tuple(self._news):
                        await self.flush(party)
            except (TimeoutError, CallError):
                pass  # Who must know calls ``flush``.
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._connection is not None:
            self._connection.close()
        for waiting in self._calls.values():
            if not waiting.done():
                waiting.set_exception(CallError(Failure("ended", "this program has detached")))

    async def environment(self, name: str) -> "RemoteEnvironment":
        """Return the environment of a name.

        Raises:
            UserError: A609, there is none as far as this node knows; A611, the node did not answer.
        """
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + FIND_S
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                while not (found := await self._find(name)).party:
                    if loop.time() >= give_up_s:
                        fix = "see: atoll env list; of one that began a moment ago, try again in some seconds"
                        raise UserError("A609", f"there is no environment {name!r}", fix=fix)
                    await asyncio.sleep(AGAIN_S)
        except TimeoutError as error:
            raise self._away() from error
        return RemoteEnvironment(self, name, found.party)

    async def _find(self, name: str) -> Found:
        self._last += 1
        number = self._last
        waiting: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._finds[number] = waiting
        try:
            while not waiting.done():
                await self._welcome.wait()
                self._say(Find(number, name))
                await asyncio.wait((waiting,), timeout=RETRY_S)
        finally:
            del self._finds[number]
        return waiting.result()

    # What environments of ours do.

    async def post(self, party: bytes, event: Tuple | dict[str, Any], ask: int, to: str = "") -> None:
        """Send a tuple; waits while too much is on its way.

        Raises:
            CallError: It is too large, or nests too deep: nobody would take it, and it was not sent.
        """
        raw = _encoded(event)
        while not self._mine.has_room(party):
            await self._news_of(party)
        self._news.setdefault(party, asyncio.Event())
        try:
            self._mine.post(party, raw, ask, to)
        except UsageError as error:
            raise CallError(Failure(TOO_LARGE, str(error))) from error
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def ask(self, party: bytes, event: Tuple | dict[str, Any], timeout_s: float, to: str = "") -> msgspec.Raw:
        """Send a tuple and return the response as it came.

        Raises:
            CallError: There is none.
        """
        number = self._mine.call(party)
        waiting: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._calls[number] = waiting
        try:
            async with asyncio.timeout(timeout_s):
                await self.post(party, event, number, to)
                return await waiting
        except TimeoutError as error:
            raise CallError(Failure("timeout", f"no response within {timeout_s:g} s")) from error
        finally:
            self._calls.pop(number, None)
            self._mine.forget(number)

    async def flush(self, party: bytes) -> None:
        """Wait until a party has durably taken everything that was sent to it.

        Raises:
            CallError: Of something it is not known, or it was refused.
        """
        while not self._mine.is_settled(party):
            await self._news_of(party)
        if (failure := self._given_up.pop(party, None)) is not None:
            raise CallError(failure)

    async def _news_of(self, party: bytes) -> None:
        """Wait until something comes of a party."""
        news = self._news.setdefault(party, asyncio.Event())
        news.clear()
        await news.wait()

    def listen(self, environment: "RemoteEnvironment") -> None:
        """Let an environment of ours hear what comes unasked, for as long as somebody holds it."""
        self._listening.add(environment)

    # The connection.

    def _away(self) -> UserError:
        fix = "try again in a second; if it stays so, atoll logs says why"
        return UserError("A611", "environments do not run on this node now", where=str(self._path), fix=fix)

    async def _wake(self) -> None:
        """Have the node start what runs environments: on a node that has none, and has heard of none, nothing does.

        Raises:
            UserError: A401, no node runs here.
        """
        try:
            async with asyncio.timeout(ATTACH_S):
                await call(self._node, "env.list")
        except TimeoutError:
            pass
        except UserError as error:
            if error.code != "A611":
                raise

    async def _attach(self) -> bool:
        try:
            await asyncio.get_running_loop().create_unix_connection(
                lambda: FrameConnection(self._take, self._made, self._lost), str(self._path)
            )
        except OSError:
            return False
        return True

    def _made(self, connection: FrameConnection) -> None:
        self._connection = connection
        self._say(Hello(self._mine.party))

    def _lost(self, connection: FrameConnection) -> None:
        if self._connection is connection:
            self._connection = None
            self._welcome.clear()

    async def _keep(self) -> None:
        """Come back when the node was away, and say again and again what is waited for."""
        while True:
            await asyncio.sleep(RETRY_S)
            if self._connection is None:
                await self._attach()
            else:
                self._remind()

    def _remind(self) -> None:
        self._mine.remind(self._clock.monotonic_ns())
        self._tell()

    def _take(self, connection: FrameConnection, frame: bytes) -> None:
        del connection
        message = server_codec.decode(frame)
        match message:
            case Welcome(node):
                self.node = node
                self._welcome.set()
                self._remind()
            case Found():
                finding = self._finds.get(message.number)
                if finding is not None and not finding.done():
                    finding.set_result(message)
            case Carried() | Receipt() | Refusal():
                for news in self._mine.heard(message, self._clock.monotonic_ns()):
                    self._came(news)
                self._news.setdefault(message.source, asyncio.Event()).set()
                self._tell()
            case _:
                raise WireError("message for a client")

    def _came(self, news: News) -> None:
        match news:
            case Responded(call, event):
                if (waiting := self._calls.get(call)) is not None and not waiting.done():
                    waiting.set_result(event)
            case Lost(call, failure):
                if (waiting := self._calls.get(call)) is not None and not waiting.done():
                    waiting.set_exception(CallError(failure))
            case GivenUp(party, failure):
                self._given_up[party] = failure
            case Came(party, path, event):
                for environment in tuple(self._listening):
                    if environment.party == party and environment.path == path:
                        environment.tell(event)

    def _flush(self) -> None:
        self._is_due = False
        self._mine.flush(self._clock.monotonic_ns())
        self._tell()

    def _tell(self) -> None:
        for message in self._mine.taken():
            self._say(message)

    def _say(self, message: ClientMessage) -> None:
        if self._connection is not None:
            self._connection.send(client_codec.encode(message))


def _encoded(event: Tuple | dict[str, Any]) -> bytes:
    """Return the bytes of a tuple.

    Raises:
        CallError: It would be refused wherever it came.
    """
    try:
        raw = _encode(event)
    except RecursionError as error:
        raise CallError(Failure(TOO_DEEP, TOO_DEEP_TEXT)) from error
    if (failure := misfit(raw)) is not None:
        raise CallError(failure)
    return raw


@final
class RemoteEnvironment:
    """One environment, wherever it runs. Made by ``Desk.environment``.

    What it sends unasked is kept from here on, for ``events``.

    Args:
        desk: Whose calls these are.
        name: How people call it.
        party: Its id.
        path: Which environment nested in it; empty: the outermost.
    """

    def __init__(self, desk: Desk, name: str, party: bytes, path: str = "") -> None:
        self._desk, self.name, self.party, self.path = desk, name, party, path
        self._told: deque[msgspec.Raw] = deque(maxlen=TOLD_MAX)
        self._lost = 0
        self._came: Final = asyncio.Event()
        desk.listen(self)

    def nested(self, path: str) -> "RemoteEnvironment":
        """Return an environment nested in this one."""
        return RemoteEnvironment(self._desk, self.name, self.party, path)

    async def send(self, event: Tuple | dict[str, Any]) -> None:
        """Send a tuple; it takes effect once, or never if the environment ends before. ``flush`` says when it has.

        Raises:
            CallError: It is too large, or nests too deep: it was not sent.
        """
        await self._desk.post(self.party, event, 0, self.path)

    async def flush(self) -> None:
        """Wait until everything that was sent is durable there. With a bound: ``async with asyncio.timeout(10)``.

        Raises:
            CallError: Of something it is not known, because the environment has forgotten this party meanwhile.
        """
        await self._desk.flush(self.party)

    @overload
    def events(self) -> AsyncIterator[dict[str, Any]]: ...

    @overload
    def events(self, kind: type[EventT], /, *kinds: type[EventT]) -> AsyncIterator[EventT]: ...

    async def events(self, *kinds: type[Tuple]) -> AsyncIterator[Tuple | dict[str, Any]]:
        """Give what comes unasked, oldest first, from when this object was made on.

        An environment sends to whom it knows: so first ask it for something that makes it remember you.

        Args:
            kinds: Types of tuples; what is of another type is left out. None: everything, as dicts.

        Raises:
            LimitError: This program was so slow that some are lost; a new call of ``events`` goes on with the next one.
        """
        named = {str(kind.__struct_config__.tag): kind for kind in kinds}
        while True:
            while not self._told:
                self._came.clear()
                await self._came.wait()
            if self._lost:
                self._lost = 0
                raise LimitError("told_max", TOLD_MAX)
            raw = self._told.popleft()
            plain = decode_fields(raw)
            if not kinds:
                yield plain
            elif (kind := named.get(plain.get(TYPE_FIELD, ""))) is not None:
                yield msgspec.msgpack.decode(raw, type=kind)

    def tell(self, raw: msgspec.Raw) -> None:
        """Take what came unasked."""
        self._lost += len(self._told) == TOLD_MAX
        self._told.append(raw)
        self._came.set()

    @overload
    async def call(self, event: Tuple | dict[str, Any], *, timeout_s: float = ...) -> dict[str, Any]: ...

    @overload
    async def call(
        self, event: Tuple | dict[str, Any], answer: type[AnswerT], *, timeout_s: float = ...
    ) -> AnswerT: ...

    async def call(
        self,
        event: Tuple | dict[str, Any],
        answer: type[AnswerT] | None = None,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> AnswerT | dict[str, Any]:
        """Send a tuple and return the response.

        Args:
            event: The tuple; a dict needs its type's name under ``is``.
            answer: Type of the response; None: a dict.
            timeout_s: How long to wait.

        Raises:
            CallError: There is none, and why; a response of another type than ``answer`` is one such reason.
        """
        raw = await self._desk.ask(self.party, event, timeout_s, self.path)
        plain = decode_fields(raw)
        if plain.get(TYPE_FIELD) == "Failure":
            raise CallError(_failure.decode(raw))
        if answer is None:
            return plain
        try:
            return msgspec.msgpack.decode(raw, type=answer)
        except msgspec.ValidationError as error:
            raise CallError(Failure("unexpected", f"{plain.get(TYPE_FIELD)}: {error}")) from error
