# SPDX-License-Identifier: Apache-2.0
"""Which program a flow of this machine belongs to: the packet device asks, the system is looked through, it is told.

The looking takes milliseconds, so a thread does it, for all flows that wait, and then rests for longer than it took.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from atoll.base.errors import UserError
from atoll.device.nic.messages import FlowOpened, FlowOwned
from atoll.host.owners import Lived, Owner, Owners
from atoll.node.limits import FLOWS_ASKED_MAX, LOOK_RESTS, TAGGED_KEPT_S, TAGGED_MAX

__all__ = ["Programs", "Tagged", "judged"]

MARK_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class Tagged:
    """A program that was started with a tag.

    Attributes:
        root: Its process.
        tag: Number of the tag that its packets get, and those of the processes below it.
    """

    root: Lived
    tag: int


def judged(owner: Owner, wanted: Sequence[str], tagged: Mapping[str, Tagged]) -> tuple[tuple[int, ...], int]:
    """Return whose a flow is: numbers of the programs, from 1, and the tag that was given to it by hand, -1 for none.

    A mark says most: it stays on whoever leaves its parents, as daemons do. Without one, which a program may wipe off,
    the nearest ancestor counts.

    Args:
        owner: The process that has the socket.
        wanted: Programs that rules name.
        tagged: Programs that were started with a tag, by their marks.
    """
    programs = tuple(number for number, name in enumerate(wanted, start=1) if owner.is_called(name))
    marked = tagged.get(owner.mark)
    if marked is not None:
        return programs, marked.tag
    by_root = {one.root: one.tag for one in tagged.values()}
    return programs, next((by_root[lived] for lived in owner.line if lived in by_root), -1)


@final
class Programs:
    """The programs of this machine, as far as somebody wants to know.

    Args:
        network: Returns where to look; None: no program of this machine has a network by us.
        order: Gives an order to the packet device.
        spawn: Starts work that ends with the node.
    """

    def __init__(
        self,
        network: Callable[[], Owners | None],
        order: Callable[[FlowOwned], None],
        spawn: Callable[[Coroutine[None, None, None]], None],
    ) -> None:
        self._network, self._order, self._spawn = network, order, spawn
        self._wanted: Sequence[str] = ()
        self._tagged: Final[dict[str, Tagged]] = {}
        self._asked: Final[dict[FlowOpened, None]] = {}
        self._is_looking = False
        self._counted_s = 0.0

    @property
    def is_tagging(self) -> bool:
        """Whether a program that was started with a tag may still run."""
        return bool(self._tagged)

    def want(self, names: Sequence[str]) -> None:
        """Look for these programs from now on; to be called with each ``SetTraffic`` that numbers them."""
        self._wanted = names

    def give_tag(self, root: Lived, tag: int) -> str:
        """Give a tag to a process and all below it; return the mark that it must put into its environment.

        Raises:
            UserError: A499, there are TAGGED_MAX.
        """
        if len(self._tagged) >= TAGGED_MAX:
            raise UserError("A499", f"{TAGGED_MAX} programs with a tag run already", fix="end one, or leave out --tag")
        mark = secrets.token_hex(MARK_BYTES)
        self._tagged[mark] = Tagged(root, tag)
        return mark

    def ask(self, flow: FlowOpened) -> None:
        """Find out whose a flow is, and tell the packet device. Too many: it asks again."""
        if len(self._asked) < FLOWS_ASKED_MAX:
            self._asked[flow] = None
            self._look_soon()

    def keep(self, now_s: float) -> None:
        """Now and then forget programs of which no process is left; to be called each second."""
        if self._tagged and now_s - self._counted_s >= TAGGED_KEPT_S and not self._is_looking:
            self._counted_s = now_s
            self._is_looking = True
            self._spawn(self._count())

    def _look_soon(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            self._spawn(self._look())

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._asked:
                asked = [(flow.protocol, flow.flow) for flow in self._asked]
                self._asked.clear()
                began = loop.time()
                owners = self._network()
                found = {} if owners is None else await asyncio.to_thread(owners.find, asked)
                self._tell(asked, found)
                await asyncio.sleep(LOOK_RESTS * (loop.time() - began))
        finally:
            self._is_looking = False

    def _tell(self, asked: Iterable[tuple[int, bytes]], found: Mapping[tuple[int, bytes], Owner]) -> None:
        for flow in asked:
            owner = found.get(flow)
            programs, tag = ((), -1) if owner is None else judged(owner, self._wanted, self._tagged)
            self._order(FlowOwned(*flow, programs, tag))

    async def _count(self) -> None:
        before = dict(self._tagged)  # One that comes meanwhile is not looked for.
        try:
            owners = self._network()
            if owners is not None:
                living, marks = await asyncio.to_thread(owners.living, [one.root for one in before.values()])
                for mark, one in before.items():
                    if one.root not in living and mark not in marks:
                        del self._tagged[mark]
        finally:
            self._is_looking = False
        if self._asked:
            self._look_soon()
