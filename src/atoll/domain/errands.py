# SPDX-License-Identifier: Apache-2.0
"""Commands about environments between nodes: asked of where one runs until it answers, and done there once.

Either message may be lost, so both are said again: a question until it is answered, an answer whenever it is asked for
again. Whatever becomes of a command, it is answered: what nobody expected has a code as well.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Coroutine
from typing import Final, Protocol, final

from atoll.base.errors import ProjectError, UserError
from atoll.base.ids import NodeId
from atoll.domain.limits import (
    ANSWERS_MAX,
    ASK_AGAIN_S,
    COMMAND_BYTES_MAX,
    COMMAND_S_MAX,
    ERRANDS_MAX,
    KEPT_ANSWERS_BYTES_MAX,
)
from atoll.domain.recorder.messages import Code, RefusedError
from atoll.env.messages import Answered, Asked, encode_message

__all__ = ["Errands", "answer_of", "explain"]

log: Final = logging.getLogger("atoll.envs")

WORDS_CHARS_MAX: Final = 500  # Limit. A sentence with a path in it; what is beyond is in the log.
_ASKED_BITS: Final = 48


class Does(Protocol):
    """What is needed of the commands."""

    def check_asker(self, node: NodeId, verb: str, params: bytes) -> None:
        """Return if another node may ask for this."""
        ...

    async def obey(self, verb: str, params: bytes) -> bytes:
        """Do it; return what came of it as JSON."""
        ...


class Around(Protocol):
    """What is needed of the server."""

    @property
    def commands(self) -> Does:
        """What is done."""
        ...

    def name_of(self, node: NodeId) -> str:
        """Return a node's name."""
        ...

    def tell_node(self, node: NodeId, payload: bytes) -> None:
        """Send a message to another node; it may be lost."""
        ...

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Do this beside everything else."""
        ...

    def stir(self) -> None:
        """Have the steward's orders obeyed soon."""
        ...


def explain(error: Exception) -> UserError:
    """Return what to tell a person whom this failure of a command stops."""
    match error:
        case UserError():
            return error
        case RefusedError(code=Code.FULL):
            fix = "free some space on the disk of the state directory"
            return UserError("A102", "the disk is full", where=error.words, fix=fix)
        case RefusedError(code=Code.IO):
            return UserError("A102", "the disk cannot be written", where=error.words, fix="see: atoll logs")
        case ProjectError():
            return UserError("A499", str(error)[:WORDS_CHARS_MAX], fix="see the node's log: atoll logs")
        case _:
            log.error("a command met what nobody expected", exc_info=error)
            where = f"{type(error).__name__}: {error}"[:WORDS_CHARS_MAX]
            return UserError("A499", "nobody expected this failure", where=where, fix="see the node's log: atoll logs")


async def answer_of(work: Awaitable[bytes]) -> bytes:
    """Return what came of a command as JSON.

    Raises:
        UserError: Its own, or what became of any other failure. Nothing else but that it was called off.
    """
    try:
        ok = await work
    except Exception as error:  # A supervisor: who has asked waits for an answer, whatever went wrong.
        raise explain(error) from error
    if len(ok) > COMMAND_BYTES_MAX:
        where = f"it has {len(ok)} bytes, and at most {COMMAND_BYTES_MAX} are told"
        fix = "ask for less of it: atoll replay NAME, where its journal is"
        raise UserError("A499", "what came of it is too long to tell", where=where, fix=fix)
    return ok


@final
class Errands:
    """The commands that one node has others do, and does for others.

    Args:
        server: Whose they are.
    """

    def __init__(self, server: Around) -> None:
        self._server: Final = server
        self._asked: Final[dict[int, tuple[NodeId, asyncio.Future[Answered]]]] = {}
        self._last = secrets.randbits(_ASKED_BITS)  # No number of the process before this one.
        self._doing: Final[dict[NodeId, dict[int, None]]] = {}
        self._answers: Final[OrderedDict[tuple[NodeId, int], bytes]] = OrderedDict()  # Encoded, the oldest first.
        self._answers_bytes = 0

    # For others.

    def asked(self, node: NodeId, asked: Asked) -> None:
        """Do what another node asks, or say again what came of it; if it has too much done here it asks again."""
        known = self._answers.get((node, asked.number))
        if known is not None:
            self._server.tell_node(node, known)
            return
        doing = self._doing.setdefault(node, {})
        if asked.number not in doing and len(doing) < ERRANDS_MAX:
            doing[asked.number] = None
            self._server.spawn(self._do(node, asked))

    async def _do(self, node: NodeId, asked: Asked) -> None:
        try:
            answered = Answered(asked.number, await answer_of(self._checked(node, asked)))
        except UserError as error:
            answered = Answered(asked.number, b"", error.code, error.sentence, error.where, error.fix)
        finally:  # Nobody waits for it for ever: what was called off may be asked for once more.
            del self._doing[node][asked.number]
            if not self._doing[node]:
                del self._doing[node]
        answer = encode_message(answered)
        self._keep((node, asked.number), answer)
        self._server.tell_node(node, answer)
        self._server.stir()

    def _keep(self, asked: tuple[NodeId, int], answer: bytes) -> None:
        """Keep an answer, and let go of the oldest ones for which there is no room any more."""
        self._answers[asked] = answer
        self._answers_bytes += len(answer)
        while len(self._answers) > ANSWERS_MAX or (
            len(self._answers) > 1 and self._answers_bytes > KEPT_ANSWERS_BYTES_MAX
        ):
            self._answers_bytes -= len(self._answers.popitem(last=False)[1])

    async def _checked(self, node: NodeId, asked: Asked) -> bytes:
        commands = self._server.commands
        commands.check_asker(node, asked.verb, asked.params)
        return await commands.obey(asked.verb, asked.params)

    # By others.

    async def ask(self, node: NodeId, verb: str, params: bytes) -> bytes:
        """Have another node do something to an environment that runs there; return what came of it as JSON.

        Raises:
            UserError: Its own; A406, it did not answer.
        """
        self._last += 1
        number = self._last
        waiting: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._asked[number] = (node, waiting)
        try:
            async with asyncio.timeout(COMMAND_S_MAX):
                while not waiting.done():  # Either message may be lost; the other node does it once.
                    self._server.tell_node(node, encode_message(Asked(number, verb, params)))
                    await asyncio.wait([waiting], timeout=ASK_AGAIN_S)
                answered = waiting.result()
        except TimeoutError as error:
            raise UserError("A406", f"{self._server.name_of(node)} did not answer", fix="see: atoll status") from error
        finally:
            del self._asked[number]
        if not answered.ok:
            raise UserError(answered.code, answered.sentence, where=answered.where, fix=answered.fix)
        return answered.ok

    def answered(self, node: NodeId, answered: Answered) -> None:
        """Take an answer, if it is of who was asked."""
        asked, waiting = self._asked.get(answered.number, (None, None))
        if waiting is not None and asked == node and not waiting.done():
            waiting.set_result(answered)
