# SPDX-License-Identifier: Apache-2.0
"""Which member serves which guest now: the guests machine. Every member comes to the same answer.

A guest is a stock WireGuard client: it shakes hands with whichever member it can reach, moves to another whenever it
likes, and tells nobody. Each member says whom it serves and by which handshake (its timestamp, which the guest makes
and which only grows); the newest handshake has the guest, and whoever served it before lets go.

A member is believed about whom it serves, as it is about its links: it could read a guest's packets by serving it, so
lying gains it no more than that (docs/explanation/threats.md). It cannot claim a guest that another serves by an older
timestamp, and a false one from the future ends with the false member's removal.
"""

from collections.abc import Sequence
from typing import Annotated, Final, final

import msgspec

from atoll.base.errors import CorruptError, UsageError, WireError
from atoll.base.ids import NODE_ID_BYTES
from atoll.base.units import SECOND_NS
from atoll.core.codec import Codec
from atoll.core.machine import Tick, Tuple
from atoll.overlay.messages import CONTROL_BYTES_MAX
from atoll.overlay.orders import DropGuest, SetGuest, YieldGuest
from atoll.overlay.reports import (
    ControlReceived,
    GuestDown,
    GuestUp,
    MembersChanged,
    NicRestarted,
    SessionDown,
    SessionUp,
)

__all__ = [
    "GUESTS_MAX",
    "GUEST_TAGS",
    "Guests",
    "GuestsChanged",
    "GuestsEffect",
    "GuestsInput",
    "Serving",
    "TellMember",
    "decode_serving",
    "encode_serving",
]

GUEST_TAGS: Final = range(24, 32)
GUESTS_MAX: Final = 32  # Spec. Of one group (group/limits.py has the same); their list fits one message.
REPEAT_NS: Final = 30 * SECOND_NS  # What got lost is said again so much later; nothing is said while we serve nobody.
STAMP_BYTES: Final = 12  # TAI64N; sorts as the times do.

Id = Annotated[bytes, msgspec.Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]
Stamp = Annotated[bytes, msgspec.Meta(min_length=STAMP_BYTES, max_length=STAMP_BYTES)]


class Serving(Tuple, frozen=True, tag=24):
    """Message: whom the sender serves now, all of them: (guest, timestamp of the handshake)."""

    served: Annotated[tuple[tuple[Id, Stamp], ...], msgspec.Meta(max_length=GUESTS_MAX)]


_codec: Final = Codec[Serving](Serving, bytes_max=CONTROL_BYTES_MAX, name="guests message")


def encode_serving(message: Serving) -> bytes:
    """Return the message's bytes."""
    return _codec.encode(message)


def decode_serving(payload: bytes) -> Serving:
    """Return the message in these bytes.

    Raises:
        WireError: It does not decode. Nothing else.
    """
    return _codec.decode(payload)


class GuestsChanged(Tuple, frozen=True):
    """Input: the group's guests, by id, are these now."""

    guests: tuple[bytes, ...]


class TellMember(Tuple, frozen=True):
    """Effect: send this to a member by its best path. It may get lost."""

    node: bytes
    payload: bytes


GuestsInput = (
    Tick
    | GuestsChanged
    | GuestUp
    | GuestDown
    | MembersChanged
    | SessionUp
    | SessionDown
    | ControlReceived
    | NicRestarted
)
GuestsEffect = TellMember | SetGuest | DropGuest | YieldGuest


class GuestsState(msgspec.Struct):
    """All that a snapshot holds."""

    own: bytes
    now_ns: int = 0
    guests: tuple[bytes, ...] = ()
    linked: dict[bytes, bool] = {}
    ours: dict[bytes, bytes] = {}  # Guest to timestamp.
    claims: dict[bytes, dict[bytes, bytes]] = {}  # The same by member.
    ordered: dict[bytes, bytes] = {}  # Guest to member, as the packet device was told.
    due_ns: int | None = None
    dropped: int = 0


@final
class Guests:
    """The guests machine of one node.

    Args:
        state: Of ``GuestsState(own)``, or restored.
    """

    def __init__(self, state: GuestsState) -> None:
        self._state: Final = state
        self._effects: list[GuestsEffect] = []

    @classmethod
    def create(cls, own: bytes) -> "Guests":
        """Make the machine of a node that starts now."""
        return cls(GuestsState(own))

    @property
    def deadline_ns(self) -> int | None:
        """When a ``Tick`` is owed; None: never."""
        return self._state.due_ns

    def server(self, guest: bytes) -> bytes | None:
        """Return who serves a guest as far as we know; None: nobody, or it is no guest."""
        state = self._state
        if guest not in state.guests:
            return None
        claims = [(claim[guest], node) for node, claim in state.claims.items() if guest in claim]
        if guest in state.ours:
            claims.append((state.ours[guest], state.own))
        return max(claims)[1] if claims else None

    def snapshot(self) -> bytes:
        """Return the whole state as MessagePack bytes."""
        return msgspec.msgpack.encode(self._state)

    @classmethod
    def restore(cls, snapshot: bytes) -> "Guests":
        """Make the machine from ``snapshot()`` bytes.

        Raises:
            CorruptError: The bytes do not decode.
        """
        try:
            return cls(msgspec.msgpack.decode(snapshot, type=GuestsState))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise CorruptError("a guests snapshot that does not decode") from error

    def handle(self, event: GuestsInput, now_ns: int) -> Sequence[GuestsEffect]:
        """Apply one input; return what to do, in order.

        Raises:
            UsageError: Time went back. Nothing that a member sends can raise.
        """
        state = self._state
        if now_ns < state.now_ns:
            raise UsageError(f"{type(event).__name__} at {now_ns} ns, after {state.now_ns} ns")
        state.now_ns = now_ns
        match event:
            case Tick():
                self._tick()
            case GuestsChanged(guests):
                state.guests = guests[:GUESTS_MAX]
                self._forget()
            case GuestUp(node, stamp):
                if node in state.guests:
                    state.ours[node] = stamp
                    self._tell_all()
            case GuestDown(node):
                if state.ours.pop(node, None) is not None:
                    self._tell_all()
            case MembersChanged(members):
                present = {member.node: True for member in members}
                state.claims = {node: claim for node, claim in state.claims.items() if node in present}
                state.linked = {node: True for node in state.linked if node in present}
            case SessionUp(node):
                state.linked[node] = True
                if state.ours:
                    self._tell(node)
            case SessionDown(node):
                state.linked.pop(node, None)
            case ControlReceived(node, _, payload):
                self._heard(node, payload)
            case NicRestarted():
                state.ordered.clear()
                if state.ours:
                    state.ours.clear()
                    self._tell_all()
        self._decide()
        effects, self._effects = self._effects, []
        return effects

    def _heard(self, node: bytes, payload: bytes) -> None:
        state = self._state
        try:
            message = decode_serving(payload)
        except WireError:
            state.dropped += 1
            return
        state.claims[node] = dict(message.served)

    def _forget(self) -> None:
        state = self._state
        gone = [node for node in state.ours if node not in state.guests]
        for node in gone:
            del state.ours[node]
        if gone:
            self._tell_all()

    def _tick(self) -> None:
        state = self._state
        if state.due_ns is not None and state.now_ns >= state.due_ns:
            self._tell_all()

    def _tell_all(self) -> None:
        state = self._state
        for node in state.linked:
            self._tell(node)
        state.due_ns = state.now_ns + REPEAT_NS if state.ours else None

    def _tell(self, node: bytes) -> None:
        self._effects.append(TellMember(node, encode_serving(Serving(tuple(self._state.ours.items())))))

    def _decide(self) -> None:
        """Order what follows for the packet device, as far as it was told otherwise."""
        state = self._state
        for guest in [guest for guest in state.ordered if guest not in state.guests]:
            del state.ordered[guest]
            self._effects.append(DropGuest(guest))
        yielded = False
        for guest in state.guests:
            server = self.server(guest)
            if server not in {None, state.own} and state.ours.pop(guest, None) is not None:
                self._effects.append(YieldGuest(guest))
                yielded = True
            if server in {None, state.own}:
                if state.ordered.pop(guest, None) is not None:
                    self._effects.append(DropGuest(guest))
            elif server is not None and state.ordered.get(guest) != server:
                state.ordered[guest] = server
                self._effects.append(SetGuest(guest, server))
        if yielded:
            self._tell_all()
