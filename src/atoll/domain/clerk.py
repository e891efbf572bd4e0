# SPDX-License-Identifier: Apache-2.0
"""Between the holdings of a node and its recorder: hands orders over in their order, and answers back.

What travels between nodes as ``sealed`` is made and read here: a block, its seal, and who sealed it. A block is kept
only if its sealer is a member of the group, by its signing key; the recorder checks the rest.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, final

import msgspec

from atoll.base.errors import CorruptError, LimitError, LinkError
from atoll.domain.parcels import Answered, Parcels, Part, Recorder, ask_safely, open_state
from atoll.domain.recorder import messages as to
from atoll.env.chain import Block, Link, Seal, Sealed, Sealer, link_of, pack_body
from atoll.env.holding import Block as Parcel
from atoll.env.holding import events as on
from atoll.env.limits import NUMBER_MAX, STORE_BLOCKS_MAX
from atoll.env.orders import RecorderOrder

__all__ = ["RECORDED_NUMBER_MAX", "Clerk"]

RECORDED_NUMBER_MAX: Final = (1 << 63) - 1  # Of the recorder's format, docs/spec/environment-journal.md.

Feed = Callable[[bytes, on.HoldingInput], None]


class Holding(Protocol):
    """What is needed of ``env.holding.Holding``."""

    @property
    def committed(self) -> int:
        """Blocks up to this number are kept by a majority."""
        ...

    def holders_since(self, number: int) -> tuple[bytes, ...]:
        """Return who holds from exactly this block on; empty: no change."""
        ...


class _Wire(msgspec.Struct, frozen=True, array_like=True):
    """A block on its way between nodes."""

    sealer: Sealer
    sealed: Sealed


_encode: Final = msgspec.msgpack.Encoder().encode
_wire: Final = msgspec.msgpack.Decoder(_Wire)


class _Own(NamedTuple):
    """A block that was sealed here, and what its head is made of besides."""

    block: Block
    seal: Seal
    before: bytes


@final
class _Asked:
    """One order that has an answer, which waits for the answers of the orders before it."""

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event: on.HoldingInput | None = None


@final
class Clerk:
    """Hands the orders of all holdings of a node to its recorder.

    Args:
        recorder: The recorder.
        sealer: What it seals as.
        knows: Says whether a sealer is a member's.
        feed: Takes answers, as inputs of the holding of an environment.
        holding: Returns the holding of an environment; None: there is none now.

    Attributes:
        parcels: Gives snapshots away.
    """

    def __init__(
        self,
        recorder: Recorder,
        sealer: Sealer,
        knows: Callable[[Sealer], bool],
        feed: Feed,
        holding: Callable[[bytes], Holding | None],
    ) -> None:
        self._recorder, self._sealer = recorder, sealer
        self._knows, self._feed, self._holding = knows, feed, holding
        self.parcels: Final = Parcels(recorder)
        self._sealed: dict[bytes, deque[_Own]] = {}  # Own blocks, from the newest committed one on.
        self._asked: dict[bytes, deque[_Asked]] = {}  # Of whom nothing is being asked, there is none.
        self._owed: dict[bytes, list[on.CutFrom | on.Left]] = {}  # Had no room on their way; nothing overtakes them.

    def obey(self, environment: bytes, order: RecorderOrder) -> None:
        """Hand an order over; its answer is fed, after those of the orders before it; but reads have no such place."""
        match order:
            case on.Seal():
                self._seal(environment, order)
            case on.Keep():
                self._keep(environment, order)
            case on.CutFrom() | on.Left():
                self._owe(environment, order)
            case on.KeepPromise():
                self._promise(environment, order)
            case on.KeepSnapshot():
                self._keep_snapshot(environment, order)
            case on.ReadBlocks():
                self._read(environment, order)
            case _:
                self._read_snapshot(environment, order)

    def news(self) -> dict[bytes, tuple[Link, Seal]]:
        """Take the newest committed seal of each journal of which there is one since the last time."""
        news: dict[bytes, tuple[Link, Seal]] = {}
        for environment, sealed in tuple(self._sealed.items()):
            holding = self._holding(environment)
            if holding is None:
                del self._sealed[environment]
                continue
            told: _Own | None = None
            while sealed and sealed[0].block.number <= holding.committed:
                told = sealed.popleft()
            if told is not None:
                news[environment] = link_of(told.before, told.block), told.seal
        return news

    def _note(self, environment: bytes, own: _Own) -> None:
        """Remember a block until it may be told. There are as many as a holding has on their way, and one."""
        sealed = self._sealed.setdefault(environment, deque())
        self._drop(environment, own.block.number)
        sealed.append(own)
        holding = self._holding(environment)
        while holding is not None and len(sealed) > 1 and sealed[1].block.number <= holding.committed:
            sealed.popleft()

    def _drop(self, environment: bytes, number: int) -> None:
        """Forget blocks that are not in the journal any more, where another one has this number now."""
        sealed = self._sealed.get(environment)
        while sealed and sealed[-1].block.number >= number:
            sealed.pop()

    def _seal(self, environment: bytes, order: on.Seal) -> None:
        body = pack_body(order.body)
        block = Block(order.number, order.epoch, order.first_event, order.events, body)
        answer = self._in_order(environment)
        if not _fits(block):  # A state that another node made said so of itself, and only its environment suffers.
            answer(on.SealFailed(order.number, order.epoch, str(to.Code.NUMBER)))
            return

        def told(said: to.Answer | LinkError) -> None:
            if isinstance(said, to.Appended):
                self._note(environment, _Own(block, said.seal, said.before))
                sealed = _encode(_Wire(self._sealer, Sealed(block, said.seal)))
                answer(on.Sealed(order.number, order.epoch, sealed))
            else:
                answer(on.SealFailed(order.number, order.epoch, _code(said)))

        self._ask(environment, lambda request: to.Append(request, environment, block), told)

    def _keep(self, environment: bytes, order: on.Keep) -> None:
        answer = self._in_order(environment)
        try:
            wire = _wire.decode(order.sealed)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            wire = None
        if wire is None or not _is_ordered(wire.sealed.block, order) or not self._knows(wire.sealer):
            answer(on.KeepFailed(order.number, order.epoch, "sealer"))
            return
        sealer, sealed = wire.sealer, wire.sealed

        def told(said: to.Answer | LinkError) -> None:
            if isinstance(said, to.Kept):
                self._drop(environment, order.number)
                answer(on.Kept(order.number, order.epoch))
            else:
                answer(on.KeepFailed(order.number, order.epoch, _code(said)))

        self._ask(environment, lambda request: to.Keep(request, environment, sealer, sealed.block, sealed.seal), told)

    def _promise(self, environment: bytes, order: on.KeepPromise) -> None:
        answer = self._in_order(environment)
        if order.epoch > RECORDED_NUMBER_MAX:
            answer(on.PromiseFailed(order.epoch, order.node, str(to.Code.EPOCH)))
            return

        def told(said: to.Answer | LinkError) -> None:
            if isinstance(said, to.Done):
                answer(on.PromiseKept(order.epoch, order.node))
            else:
                answer(on.PromiseFailed(order.epoch, order.node, _code(said)))

        self._ask(environment, lambda request: to.Promise(request, environment, order.epoch, order.node), told)

    def _keep_snapshot(self, environment: bytes, order: on.KeepSnapshot) -> None:
        answer = self._in_order(environment)
        try:
            state, snapshot = open_state(order.payload, environment)
            if (state.at.number, state.at.epoch) != (order.number, order.epoch):
                raise CorruptError("the state after another block")
            if state.at.events > NUMBER_MAX:
                raise CorruptError("the state after more events than there are")
            if (snapshot.epoch, snapshot.holders) != (order.epoch, order.holders) or not self._knows(state.sealer):
                raise CorruptError("the state of somebody else")
        except CorruptError:
            answer(on.SnapshotFailed(order.number, order.epoch, "content"))
            return
        taken = to.Taken(state.content, state.sealer, state.signature)

        def told(said: to.Answer | LinkError) -> None:
            if isinstance(said, to.Done):
                self._sealed.pop(environment, None)
                answer(on.SnapshotKept(order.number, order.epoch))
            else:
                answer(on.SnapshotFailed(order.number, order.epoch, _code(said)))

        self._ask(environment, lambda request: to.Restart(request, environment, state.at, snapshot=taken), told)

    def _read(self, environment: bytes, order: on.ReadBlocks) -> None:
        def told(answer: to.Answer | LinkError) -> None:
            blocks: list[Parcel] = []
            sealer, holding = self._sealer, self._holding(environment)
            for item in answer.items if isinstance(answer, to.Blocks) else ():
                if isinstance(item, Sealer):
                    sealer = item
                    continue
                number = item.block.number
                holders = () if holding is None else holding.holders_since(number)
                blocks.append(Parcel(number, item.block.epoch, holders, _encode(_Wire(sealer, item))))
            self._feed(environment, on.BlocksRead(order.node, order.first, tuple(blocks)))

        def make(request: int) -> to.Request:  # No more than travel at a time: reading is what a laggard costs.
            return to.Read(request, environment, order.first, order.bytes_max, STORE_BLOCKS_MAX)

        self._ask(environment, make, told)

    def _read_snapshot(self, environment: bytes, order: on.ReadSnapshot) -> None:
        def told(part: Part | None) -> None:
            found = part or Part(0, 0, (), 0, 0, b"")
            answer = on.SnapshotRead(
                order.node, found.number, found.epoch, found.holders, found.offset, found.total, found.payload
            )
            self._feed(environment, answer)

        self.parcels.read(environment, order, told)

    # In their order.

    def _in_order(self, environment: bytes) -> Callable[[on.HoldingInput], None]:
        """Return what takes the answer to an order that is about to be handed over."""
        one = _Asked()
        asked = self._asked.setdefault(environment, deque())
        asked.append(one)

        def answer(event: on.HoldingInput) -> None:
            one.event = event
            while asked and (first := asked[0].event) is not None:
                asked.popleft()
                self._feed(environment, first)
            if not asked and self._asked.get(environment) is asked:  # What was fed may have asked for more.
                del self._asked[environment]

        return answer

    def _owe(self, environment: bytes, order: on.CutFrom | on.Left) -> None:
        """Hand over what has no answer. The recorder does it, or does it before the next block."""
        owed = self._owed.setdefault(environment, [])
        if isinstance(order, on.Left):
            self._sealed.pop(environment, None)
            owed[:] = [order]  # With it goes whatever was to be cut.
        elif owed and isinstance(owed[-1], on.CutFrom):
            owed[-1] = on.CutFrom(min(owed[-1].number, order.number))
        else:
            owed.append(order)
        self._ask(environment, None, _ignored)

    def _ask(self, environment: bytes, make: Callable[[int], to.Request] | None, told: Answered) -> None:
        """Ask, after what is owed."""
        owed = self._owed.get(environment, [])
        try:
            while owed:
                self._recorder.ask(_request_of(environment, owed[0]), _ignored)
                del owed[0]
        except (LimitError, LinkError) as error:
            told(LinkError(str(error)))
            return
        self._owed.pop(environment, None)
        if make is not None:
            ask_safely(self._recorder, make, told)


def _request_of(environment: bytes, order: on.CutFrom | on.Left) -> Callable[[int], to.Request]:
    if isinstance(order, on.CutFrom):
        return lambda request: to.Cut(request, environment, order.number)
    return lambda request: to.Restart(request, environment, floor=(order.epoch, order.number))


def _fits(block: Block) -> bool:
    """Return whether the recorder takes the numbers of a block: what it cannot read ends its whole connection."""
    return max(block.number, block.epoch, block.first_event + block.events) <= RECORDED_NUMBER_MAX


def _is_ordered(block: Block, order: on.Keep) -> bool:
    """Return whether a sealed block is what the letter around it said, by which the holding has decided."""
    return (block.number, block.epoch) == (order.number, order.epoch) and block.first_event <= NUMBER_MAX


def _ignored(answer: to.Answer | LinkError) -> None:
    """Whatever it says, what follows says it better."""


def _code(answer: to.Answer | LinkError) -> str:
    return str(answer.code) if isinstance(answer, to.Refused) else "link"
