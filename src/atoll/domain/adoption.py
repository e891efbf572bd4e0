# SPDX-License-Identifier: Apache-2.0
"""Takes up what the recorder keeps when a server of environments starts, one journal after the other.

All blocks since the newest snapshot are read of each, so it takes as long as there is to read: minutes where there is
much. Meanwhile the loop turns, what is taken up already runs, and who asks for something is told how far it is.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol, final

from atoll.base.errors import LinkError, ProjectError, UserError
from atoll.base.ids import NODE_ID_BYTES
from atoll.domain.limits import STARTING_S_MAX
from atoll.domain.recorder.client import RecorderClient
from atoll.domain.recorder.messages import Recorded
from atoll.domain.reviving import Archive
from atoll.env.chain import Sealer
from atoll.env.facts import Suspect
from atoll.env.graves import Barred
from atoll.env.orders import Moment
from atoll.env.steward import Steward

__all__ = ["Adoption", "Victim"]

log: Final = logging.getLogger("atoll.envs")

Victim = tuple[bytes, bytes, int, int]
"""What a process did not survive: environment, party, first, count."""


class Around(Protocol):
    """What is needed of the server."""

    @property
    def recorder(self) -> RecorderClient:
        """The recorder."""
        ...

    @property
    def archive(self) -> Archive:
        """What it keeps."""
        ...

    @property
    def sealer(self) -> Sealer:
        """What it seals as."""
        ...

    @property
    def steward(self) -> Steward:
        """What decides."""
        ...

    def let_go(self, identity: bytes) -> None:
        """Have a journal deleted in which nothing is."""
        ...

    def stir(self) -> None:
        """Have the steward's orders obeyed soon."""
        ...


@final
class Adoption:
    """The start of one server. ``list`` comes first, then ``run``.

    Args:
        server: Whose environments they are.
        seed: 32 bytes of entropy.
        now: The time.

    Attributes:
        is_listed: It is known which journals there are; before that nothing can be said about any environment.
        is_done: All that can be are taken up.
    """

    def __init__(self, server: Around, seed: bytes, now: Callable[[], Moment]) -> None:
        self._server, self._seed, self._now = server, seed, now
        self._found: list[Recorded] = []
        self._count = 0
        self.is_listed = False
        self._done: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()

    @property
    def is_done(self) -> bool:
        """Whether all that can be are taken up."""
        return self._done.done()

    async def list(self) -> None:
        """Find out which journals there are.

        Raises:
            LinkError: The recorder is lost.
        """
        server, steward = self._server, self._server.steward
        listed = await server.recorder.listed()
        for identity in listed.ended:
            steward.graves.bury(identity)
        for recorded in listed.environments:
            if recorded.is_blank and recorded.promised_to in {b"", bytes(NODE_ID_BYTES), server.sealer.node}:
                # It was begun, and nobody was told that it runs; or it was to be learnt, and is learnt anew.
                server.let_go(recorded.environment)
            elif recorded.damage:
                self._bar(recorded, recorded.damage)
            else:
                steward.expected.expect(recorded.environment, recorded.name if recorded.at.number else "")
                self._found.append(recorded)
        self._found.sort(key=_unread)  # What is soon read need not wait for what is not.
        self._count, self.is_listed = len(self._found), True

    async def run(self, before: Victim | None = None) -> None:
        """Take up every environment that was found.

        Args:
            before: What the process before this one did not survive; None: nothing.

        Raises:
            LinkError: The recorder is lost.
        """
        server = self._server
        for recorded in self._found:
            try:
                options, facts = await server.archive.options(recorded, server.sealer.node, self._seed)
                hosted = server.steward.adopt(facts, options, self._now())
                if before is not None and before[0] == facts.id:
                    hosted.filling.suspect = Suspect(*before[1:])
            except LinkError:
                raise
            except (ProjectError, ValueError) as error:
                self._bar(recorded, str(error))
            server.stir()
        self._found.clear()
        server.steward.all_here(self._now())
        self._done.set_result(None)
        server.stir()

    async def wait(self) -> None:
        """Return when all are taken up.

        Raises:
            UserError: A611, with how many are, when that takes longer than STARTING_S_MAX.
        """
        if not self.is_done:
            await asyncio.wait([self._done], timeout=STARTING_S_MAX)
        if self.is_done:
            return
        left = len(self._server.steward.expected)
        where = (
            f"{self._count - left} of {self._count} so far" if self.is_listed else "the recorder has not answered yet"
        )
        raise UserError(
            "A611", "environments are still being taken up on this node", where=where, fix="try again in some seconds"
        )

    def _bar(self, recorded: Recorded, why: str) -> None:
        """Run nothing of a journal that cannot be used, and say so whenever somebody looks."""
        name, steward = recorded.name or recorded.environment.hex(), self._server.steward
        log.error("the environment %s is not run: %s", name, why)
        steward.expected.take(recorded.environment)
        steward.graves.bar(Barred(recorded.environment, name, why))


def _unread(recorded: Recorded) -> int:
    """Return how many blocks are to be read of a journal."""
    return recorded.at.number - (recorded.snapshots[-1] if recorded.snapshots else recorded.first - 1)
