# SPDX-License-Identifier: Apache-2.0
"""Questions between members: "why do your packets to that member go the way they go?", "how are you?", and answers.

One stream carries one question and one answer (docs/spec/streams.md). Who may ask what, and why: ADR 0013. The asker
believes nothing that the answer could lie about: who was asked, and about whom, it fills in from what it asked.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, final

import msgspec

from atoll.base.errors import LinkError, UserError, WireError
from atoll.base.ids import NODE_ID_BYTES, NodeId
from atoll.conduit.opening import INNER_KEY_BYTES
from atoll.conduit.stream import BrokenStreamError, Kind, Reason, Service, Stream
from atoll.conduit.streams import StreamHost
from atoll.group.limits import MEMBERS_MAX
from atoll.node.views import CAN_SCHEMA, HEALTH_SCHEMA, WHY_SCHEMA, CanView, HealthView, WhyView

__all__ = [
    "ASK_TIMEOUT_S",
    "Answer",
    "Answerer",
    "Asked",
    "Doors",
    "Failure",
    "KeyTold",
    "Offer",
    "Permission",
    "Question",
    "Tell",
    "ask_can",
    "ask_health",
    "ask_key",
    "ask_why",
    "decode_answer",
    "decode_question",
    "pathless",
]

ASK_TIMEOUT_S: Final = 5.0  # Limit. Connecting, asking, answering; the command line waits for 10 s.
QUESTION_TIMEOUT_S: Final = 5.0  # Limit. From the header of a stream to the end of its question.
QUESTION_BYTES_MAX: Final = 1024  # Limit. A question of today has 70.
ANSWER_BYTES_MAX: Final = 128 * 1024  # Limit. 64 members with full histories are below 32 KiB.
QUESTIONS_MAX: Final = 4  # Limit. Of one member within QUESTIONS_S: a person asks one, and an answer costs about 1 ms.
QUESTIONS_S: Final = 1.0
PORT_MAX: Final = 0xFFFF
TEXT_CHARS_MAX: Final = 1000  # Limit. Of one text in an answer; the longest evidence of today has 150.
WAYS_MAX: Final = MEMBERS_MAX + 1  # Limit. The direct path and each member.
CHANGES_MAX: Final = 64  # Limit. Nodes of today keep 16.
TEXTS_MAX: Final = 256  # Limit. Of a diagnosis; those of today have 30.
AILMENTS_MAX: Final = 64  # Limit. Of one machine.
WALL_MS_MAX: Final = 1 << 53
NUMBER_MAX: Final = 1e12  # Limit. In any unit of an answer; a number is shown with all its digits.


@final
class Question(msgspec.Struct, frozen=True):
    """What one member asks another.

    "why": its path to ``target``, a node id in hex, for ``tag``, a policy tag's name. "can": whether ``target`` may
    reach its ``port`` by ``tag``, which is "tcp" or "udp". "tcp": the key by which the asker may open connections over
    kernel TCP; ``target`` is the asked member itself, as it is for "health": how its machine is, and its ``port``
    unless 0.
    """

    ask: str
    target: str
    tag: str
    port: int = 0


class Failure(msgspec.Struct, frozen=True):
    """An answer that is none: ``failure`` is "question", "target", "path" or "tcp"."""

    failure: str


@final
class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """On the wire; exactly one is set."""

    why: WhyView | None = None
    failure: str | None = None
    can: CanView | None = None
    tcp: str | None = None  # A key, in hex.
    health: HealthView | None = None


class KeyTold(msgspec.Struct, frozen=True):
    """An answer to "tcp": INNER_KEY_BYTES bytes."""

    key: bytes


Offer = Callable[[NodeId], Awaitable[bytes | None]]
"""Accept connections over kernel TCP from now on; return the key for a member, or None: it cannot be done here."""

Explain = Callable[[NodeId, str], Awaitable[WhyView | Failure]]
"""Explain this node's path to a member (id, name of the tag)."""

Tell = Callable[[NodeId, int], Awaitable[HealthView]]
"""Say how this machine is, and a port of it unless 0, to a member (id, port)."""

Permission = Callable[[NodeId, str, int], CanView | Failure]
"""Say whether a machine (id) may reach a port of this one (protocol, port)."""

_ASKED: Final = frozenset({"why", "can", "tcp", "health"})
_question_decoder: Final = msgspec.json.Decoder(Question)
_answer_decoder: Final = msgspec.json.Decoder(Answer)


def decode_question(data: bytes) -> tuple[Question, NodeId]:
    """Return a question and the id in it.

    Raises:
        WireError: It is none that we know.
    """
    try:
        question = _question_decoder.decode(data)
        target = bytes.fromhex(question.target)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise WireError("question") from error
    if question.ask not in _ASKED or len(target) != NODE_ID_BYTES or not 0 <= question.port <= PORT_MAX:
        raise WireError("question")
    return question, NodeId(target)


def decode_answer(data: bytes) -> WhyView | CanView | KeyTold | HealthView | Failure:
    """Return an answer that is fit to be shown: bounded, and all of its text prints.

    Raises:
        WireError: It is no answer of this version.
    """
    try:
        answer = _answer_decoder.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise WireError("answer") from error
    if [answer.why, answer.failure, answer.can, answer.tcp, answer.health].count(None) != 4:
        raise WireError("answer")
    if answer.failure is not None:
        return Failure(answer.failure)
    if answer.can is not None:
        return _sound(answer.can)
    if answer.tcp is not None:
        return _key(answer.tcp)
    if answer.health is not None:
        return _sound_health(answer.health)
    why = answer.why
    if why is None or why.schema != WHY_SCHEMA:
        raise WireError("answer")
    if (
        len(why.path) > MEMBERS_MAX
        or len(why.candidates) > WAYS_MAX
        or len(why.history) > CHANGES_MAX
        or len(why.hearsay) > TEXTS_MAX
    ):
        raise WireError("answer size")
    parts: tuple[msgspec.Struct, ...] = (why, *why.candidates, *why.history)
    texts = (*why.path, *why.hearsay)
    if (found := why.diagnosis) is not None:
        texts = (*texts, *found.not_it, *found.unknown)
        parts = (*parts, found, *found.findings)
        if len(texts) + len(found.findings) > TEXTS_MAX:
            raise WireError("answer size")
    values = (value for part in parts for value in msgspec.structs.astuple(part))
    if not all(_is_fit(value) for value in (*texts, *values)):
        raise WireError("answer text")
    return why


def _sound(can: CanView) -> CanView:
    if can.schema != CAN_SCHEMA or not all(_is_fit(value) for value in msgspec.structs.astuple(can)):
        raise WireError("answer text")
    return can


def _sound_health(health: HealthView) -> HealthView:
    if health.schema != HEALTH_SCHEMA or len(health.ailments) > AILMENTS_MAX:
        raise WireError("answer")
    parts = (health, *health.ailments, *(() if health.service is None else (health.service,)))
    values = (value for part in parts for value in msgspec.structs.astuple(part))
    if not all(_is_fit(value, NUMBER_MAX if value is not health.wall_ms else WALL_MS_MAX) for value in values):
        raise WireError("answer text")
    return health


def _key(text: str) -> KeyTold:
    try:
        key = bytes.fromhex(text)
    except ValueError as error:
        raise WireError("answer key") from error
    if len(key) != INNER_KEY_BYTES:
        raise WireError("answer key")
    return KeyTold(key)


def _is_fit(value: object, most: float = NUMBER_MAX) -> bool:
    match value:
        case str():  # Control characters would move a terminal's cursor, and write there what they like.
            return len(value) <= TEXT_CHARS_MAX and value.isprintable()
        case float() | int():
            return abs(value) <= most
        case _:
            return True


@dataclass(frozen=True, slots=True)
class Asked:
    """What this node wants to know of another member.

    Attributes:
        source: Name of the member that is asked.
        target: The member at the other end of the path.
        target_name: Its name.
        tag: Name of the policy tag.
        standing: How the asked member stands with us, for people.
    """

    source: str
    target: NodeId
    target_name: str
    tag: str
    standing: str


async def ask_why(streams: StreamHost, member: NodeId, asked: Asked) -> WhyView:
    """Ask a member why its packets go the way they go; wait at most ASK_TIMEOUT_S.

    Raises:
        UserError: A208, it speaks another version; A210, it knows no such member; A405, it refused; A406, no answer.
        LimitError: This node has no more streams.
    """
    answer = await _answered(streams, member, Question("why", asked.target.hex(), asked.tag), asked)
    match answer:
        case WhyView():
            told = {"source": asked.source, "target": asked.target_name, "tag": asked.tag, "told_by": asked.source}
            return msgspec.structs.replace(answer, **told)
        case Failure("path"):
            raise pathless(asked.source, asked.target_name)
        case Failure("target"):
            raise UserError(
                "A210",
                f"{asked.source} knows no member {asked.target_name!r}",
                where=f"told by {asked.source}",
                fix="if one of them joined a moment ago, try again in a minute",
            )
        case _:
            raise _unanswered(asked, Reason.NO_SERVICE)


async def ask_can(streams: StreamHost, member: NodeId, asked: Asked, port: int) -> CanView:
    """Ask a member whether a machine may reach a port of its own; wait at most ASK_TIMEOUT_S.

    Args:
        streams: Of this node.
        member: Who is asked: ``asked.source``.
        asked: ``target`` is the machine that would reach it, ``tag`` the protocol.
        port: Of the member that is asked.

    Raises:
        UserError: As ``ask_why``.
        LimitError: This node has no more streams.
    """
    answer = await _answered(streams, member, Question("can", asked.target.hex(), asked.tag, port), asked)
    match answer:
        case CanView():
            told = {"source": asked.target_name, "target": asked.source, "protocol": asked.tag, "port": port}
            return msgspec.structs.replace(answer, **told, told_by=asked.source)
        case Failure("target"):
            raise UserError(
                "A210",
                f"{asked.source} knows no machine {asked.target_name!r}",
                where=f"told by {asked.source}",
                fix="if it joined a moment ago, try again in a minute",
            )
        case _:
            raise _unanswered(asked, Reason.NO_SERVICE)


async def ask_health(streams: StreamHost, member: NodeId, port: int = 0) -> HealthView | None:
    """Ask a member how its machine is, and a port of it; None: it does not say (an older version, or too often asked).

    Raises:
        LimitError: This node has no more streams.
    """
    try:
        answer = await _ask(streams, member, Question("health", member.hex(), "tcp", port))
    except (TimeoutError, BrokenStreamError, WireError):
        return None
    return answer if isinstance(answer, HealthView) else None


async def ask_key(streams: StreamHost, member: NodeId) -> bytes | None:
    """Ask a member for the key by which it takes connections over kernel TCP; None: it takes none.

    Raises:
        LinkError: It did not answer.
        LimitError: This node has no more streams, or the member was asked too often.
        WireError: Its answer is none.
    """
    try:
        answer = await _ask(streams, member, Question("tcp", member.hex(), ""))
    except TimeoutError as error:
        raise LinkError("no answer") from error
    return answer.key if isinstance(answer, KeyTold) else None


async def _answered(
    streams: StreamHost, member: NodeId, question: Question, asked: Asked
) -> WhyView | CanView | KeyTold | HealthView | Failure:
    try:
        return await _ask(streams, member, question)
    except TimeoutError as error:
        raise _unanswered(asked, Reason.UNREACHABLE) from error
    except BrokenStreamError as error:
        raise _unanswered(asked, error.reason) from error
    except WireError as error:
        raise _unanswered(asked, Reason.NO_SERVICE) from error


def pathless(source: str, target: str) -> UserError:
    """Return the error of a pair that has not measured anything yet."""
    where = "one of them joined a moment ago"
    return UserError("A406", f"{source} has no path to {target} yet", where=where, fix="try again in a second")


def _unanswered(asked: Asked, reason: Reason) -> UserError:
    there = f"on {asked.source} run:  atoll why {asked.target_name}"
    match reason:
        case Reason.NO_SERVICE:
            return UserError(
                "A208",
                f"{asked.source} runs a version that cannot be asked",
                where="it does not know the question, or answers in another form",
                fix=f"upgrade atoll there; or {there}",
            )
        case Reason.FORBIDDEN | Reason.LIMIT | Reason.REFUSED:
            where = "this node asked too often" if reason is Reason.LIMIT else "it does not know this node as a member"
            return UserError("A405", f"{asked.source} refused to answer", where=where, fix=f"wait a second; or {there}")
        case Reason.UNREACHABLE | Reason.RESET:
            return UserError(
                "A406",
                f"{asked.source} did not answer",
                where=f"waited at most {ASK_TIMEOUT_S:g} s; {asked.standing}",
                fix=f"see: atoll status; or {there}",
            )


async def _ask(
    streams: StreamHost, node: NodeId, question: Question
) -> WhyView | CanView | KeyTold | HealthView | Failure:
    async with asyncio.timeout(ASK_TIMEOUT_S):
        stream = streams.open(node, 0, Service(Kind.QUESTION))
        try:
            await stream.write(msgspec.json.encode(question))
            stream.write_end()
            return decode_answer(await _read_all(stream, ANSWER_BYTES_MAX))
        finally:
            stream.close()


@dataclass(frozen=True, slots=True)
class Doors:
    """Who answers "why", "can", "tcp" and "health"."""

    explain: Explain
    permit: Permission
    offer: Offer
    tell: Tell


@final
class Answerer:
    """Answers the questions of members, and of nobody else.

    Args:
        is_member: Says whether a node is a member now: an invited machine has a session, too.
        doors: Who answers what.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        is_member: Callable[[NodeId], bool],
        doors: Doors,
        clock: Callable[[], float],
    ) -> None:
        self._is_member, self._doors, self._clock = is_member, doors, clock
        self._recent: deque[tuple[float, NodeId]] = deque()  # At most QUESTIONS_MAX of each member.

    async def serve(self, stream: Stream, _: Service) -> None:
        """Answer the question of one stream.

        Raises:
            BrokenStreamError: The asker went away.
            TimeoutError: It did not finish its question.
            WireError: Its question is too long.
        """
        if not self._is_member(stream.node):
            stream.refuse(Reason.FORBIDDEN)
            return
        if not self._takes(stream.node):
            stream.refuse(Reason.LIMIT)
            return
        async with asyncio.timeout(QUESTION_TIMEOUT_S):
            data = await _read_all(stream, QUESTION_BYTES_MAX)
        stream.accept()
        await stream.write(msgspec.json.encode(await self._answered(stream.node, data)))
        stream.write_end()

    def _takes(self, node: NodeId) -> bool:
        now = self._clock()
        while self._recent and now - self._recent[0][0] >= QUESTIONS_S:
            self._recent.popleft()
        if sum(asker == node for _, asker in self._recent) >= QUESTIONS_MAX:
            return False
        self._recent.append((now, node))
        return True

    async def _answered(self, asker: NodeId, data: bytes) -> Answer:
        try:
            question, target = decode_question(data)
        except WireError:
            return Answer(failure="question")
        if question.ask == "tcp":
            key = await self._doors.offer(asker)
            return Answer(failure="tcp") if key is None else Answer(tcp=key.hex())
        if question.ask == "health":
            return Answer(health=await self._doors.tell(asker, question.port))
        answer = (
            await self._doors.explain(target, question.tag)
            if question.ask == "why"
            else self._doors.permit(target, question.tag, question.port)
        )
        match answer:
            case Failure(failure):
                return Answer(failure=failure)
            case CanView():
                return Answer(can=answer)
            case WhyView():
                return Answer(why=answer)


async def _read_all(stream: Stream, size_max: int) -> bytes:
    data = b""
    while chunk := await stream.read(size_max + 1 - len(data)):
        data += chunk
        if len(data) > size_max:
            raise WireError("too long")
    return data
