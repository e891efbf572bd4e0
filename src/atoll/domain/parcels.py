# SPDX-License-Identifier: Apache-2.0
"""Snapshots on their way between nodes: read from the recorder once, given away in parts.

What travels is the state with the place in the chain and the signature of the recorder that made it, so that whoever
gets it can hold that one to it. It is one payload, the same bytes however often it is read.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, final

import msgspec

from atoll.base.errors import CorruptError, LimitError, LinkError, UsageError
from atoll.domain.limits import PARCELS_BYTES_MAX
from atoll.domain.recorder import messages as to
from atoll.domain.recorder.snapshots import Signed, checks
from atoll.env.chain import Position, Sealer, Signature
from atoll.env.history import Snapshot, decode_snapshot
from atoll.env.holding.events import ReadSnapshot

__all__ = ["Answered", "Parcels", "Part", "Recorder", "State", "ask_safely", "open_state"]

NUMBER_MAX: Final = (1 << 63) - 1
Answered = Callable[[to.Answer | LinkError], None]


class Recorder(Protocol):
    """What is asked: ``RecorderClient``, or what stands for it in a simulation."""

    def ask(self, make: Callable[[int], to.Request], told: Answered) -> None:
        """Ask for what ``make`` gives for a number, and have ``told`` called with the answer."""
        ...


def ask_safely(recorder: Recorder, make: Callable[[int], to.Request], told: Answered) -> None:
    """Ask; what cannot be asked now, or at all, is answered as what was lost on its way."""
    try:
        recorder.ask(make, told)
    except (LimitError, LinkError, UsageError) as error:
        told(LinkError(str(error)))


class State(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot on its way between nodes.

    Attributes:
        at: Where the journal stands after it.
        content: The snapshot.
        sealer: Whose recorder signed it.
        signature: By which.
    """

    at: Position
    content: bytes
    sealer: Sealer
    signature: Signature


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of a snapshot; fields as in ``SnapshotRead``."""

    number: int
    epoch: int
    holders: tuple[bytes, ...]
    offset: int
    total: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Whole:
    number: int
    epoch: int
    holders: tuple[bytes, ...]
    payload: bytes

    def part(self, offset: int, bytes_max: int) -> Part:
        """Return bytes from an offset on; none where there are none."""
        payload = self.payload[offset : offset + bytes_max]
        return Part(self.number, self.epoch, self.holders, offset, len(self.payload), payload)


_encode: Final = msgspec.msgpack.Encoder().encode
_states: Final = msgspec.msgpack.Decoder(State)


def open_state(payload: bytes, environment: bytes) -> tuple[State, Snapshot]:
    """Return what another node sent, and the snapshot in it; total. Whose the signing key is, a roster says.

    Raises:
        CorruptError: It is none, or not what its recorder signed for this environment.
    """
    try:
        state = _states.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError(f"a state does not decode: {error}") from error
    if not checks(environment, state.at.number, Signed(state.at.head, state.content, state.sealer, state.signature)):
        raise CorruptError(f"the state after block {state.at.number}: its signature does not check")
    return state, decode_snapshot(state.content)


@final
class Parcels:
    """Gives parts of snapshots; those that are being read are kept until their end was given, or others need the room.

    Args:
        recorder: What has them.
        bytes_max: All that are kept, together.
    """

    def __init__(self, recorder: Recorder, bytes_max: int = PARCELS_BYTES_MAX) -> None:
        self._recorder, self._bytes_max = recorder, bytes_max
        self._wholes: OrderedDict[bytes, _Whole] = OrderedDict()  # By environment, the one used last at the end.

    @property
    def kept_bytes(self) -> int:
        """What is kept now."""
        return sum(len(whole.payload) for whole in self._wholes.values())

    def read(self, environment: bytes, wanted: ReadSnapshot, told: Callable[[Part | None], None]) -> None:
        """Have ``told`` called with a part, perhaps at once; None: there is no snapshot that can be read.

        Args:
            environment: Whose.
            wanted: Which part; where that snapshot is gone, the beginning of the newest one is given.
            told: Called once.
        """
        whole = self._wholes.get(environment)
        if whole is not None and whole.number == wanted.number:
            told(self._part(environment, whole, wanted.offset, wanted.bytes_max))
            return

        def found(answer: to.Answer | LinkError) -> None:
            whole = _whole_of(answer)
            if whole is not None:
                offset = wanted.offset if whole.number == wanted.number else 0
                told(self._part(environment, whole, offset, wanted.bytes_max))
            elif wanted.number and isinstance(answer, to.Refused):
                newest = ReadSnapshot(wanted.node, 0, 0, wanted.bytes_max)
                self.read(environment, newest, told)
            else:
                told(None)

        number, upto = wanted.number or NUMBER_MAX, not wanted.number
        ask_safely(self._recorder, lambda request: to.ReadSnapshot(request, environment, number, upto), found)

    def _part(self, environment: bytes, whole: _Whole, offset: int, bytes_max: int) -> Part:
        self._wholes.pop(environment, None)
        part = whole.part(offset, bytes_max)
        if part.payload and offset + len(part.payload) < part.total:
            self._wholes[environment] = whole
            while self.kept_bytes > self._bytes_max:
                self._wholes.popitem(last=False)
        return part


def _whole_of(answer: to.Answer | LinkError) -> _Whole | None:
    if not isinstance(answer, to.Snapshot) or answer.sealer is None:
        return None
    try:
        holders = decode_snapshot(answer.content).holders
    except CorruptError:
        return None
    payload = _encode(State(answer.at, answer.content, answer.sealer, answer.signature))
    return _Whole(answer.number, answer.epoch, holders, payload)
