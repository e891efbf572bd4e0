# SPDX-License-Identifier: Apache-2.0
"""How a new machine gets from an invitation to a roster with itself in it: a machine that lives until then.

It waits for the session with the inviter (opened as the invitation's key), asks, gathers the roster in parts however
they are lost or reordered, and believes it only when every signature is good, the inviter and itself are members, and
the group is the one that the invitation names. Normative text: docs/spec/membership.md, section 7.
"""

from dataclasses import dataclass
from typing import Final, final

import msgspec

from atoll.base.errors import CorruptError, UsageError, WireError
from atoll.base.ids import GroupId, PublicKey, node_id_of
from atoll.base.member import Member
from atoll.core.machine import MachineKind, Tick, Tuple
from atoll.group.events import GroupReceived, PeerLinked, PeerUnlinked, SendGroup
from atoll.group.invite import GROUP_PREFIX_BYTES
from atoll.group.limits import (
    JOIN_ASK_INTERVAL_NS,
    JOIN_CONNECT_NS,
    JOIN_NS_MAX,
    JOIN_RESUME_NS,
    JOIN_STALL_NS,
    MEMBERS_MAX,
    REMOVES_RESERVE,
    STATEMENTS_MAX,
)
from atoll.group.messages import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    REFUSED_CLASH,
    REFUSED_EXPIRED,
    REFUSED_FULL,
    REFUSED_PROOF,
    REFUSED_REMOVED,
    REFUSED_USED,
    REFUSED_VERSION,
    JoinAccept,
    JoinRefused,
    JoinRequest,
    decode,
    encode,
)
from atoll.group.roster import Roster
from atoll.group.statement import Statement, member_is_sound

__all__ = ["KIND", "JoinFailed", "JoinOptions", "Joined", "Joining", "JoiningEffect", "JoiningInput"]

TOTAL_MAX: Final = STATEMENTS_MAX + REMOVES_RESERVE + MEMBERS_MAX  # What an honest roster can hold, profiles included.

_CODES: Final = {
    REFUSED_EXPIRED: ("A203", "the inviter says that it has expired"),
    REFUSED_USED: ("A204", "the inviter says that another machine joined with it"),
    REFUSED_REMOVED: ("A206", "the inviter says that this identity was removed from the group"),
    REFUSED_FULL: ("A209", f"the group has {MEMBERS_MAX} members, or its list of statements is full"),
    REFUSED_PROOF: ("A208", "the inviter does not accept the form of our request"),
    REFUSED_CLASH: ("A207", "a member of the group uses one of the keys of this identity with another"),
}


class Joined(Tuple, frozen=True):
    """Effect, the last one: store this roster, then run as a member.

    Attributes:
        group: The group's id.
        roster: Durable form, every signature checked.
    """

    group: bytes
    roster: bytes


class JoinFailed(Tuple, frozen=True):
    """Effect, the last one: not joined.

    Attributes:
        code: Catalogue code: A202 to A209.
        where: The evidence, for people.
    """

    code: str
    where: str


JoiningInput = Tick | PeerLinked | PeerUnlinked | GroupReceived
JoiningEffect = SendGroup | Joined | JoinFailed


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """What a joiner starts from.

    Attributes:
        member: Our record, with our own keys.
        proof: ``identity.join_proof`` of it, 64 bytes.
        inviter: X25519 key of the inviter, from the invitation.
        group_prefix: From the invitation, 8 bytes.
        place: Where the inviter should be, for people: its addresses.
    """

    member: Member
    proof: bytes
    inviter: bytes
    group_prefix: bytes
    place: str


class JoiningState(msgspec.Struct):
    """All that a snapshot holds."""

    member: Member
    proof: bytes
    inviter: bytes  # Node id.
    group_prefix: bytes
    place: str
    now_ns: int
    ends_ns: int  # Whatever happens, it ends then.
    stalls_ns: int  # Without progress it ends then.
    ask_ns: int = 0
    linked: bool = False
    ever_linked: bool = False
    done: bool = False
    group: bytes = b""
    digest: bytes = b""
    total: int = 0
    parts: dict[int, Statement] = {}


@final
class Joining:
    """The joiner's side of one invitation: connecting, asking, then ``Joined`` or ``JoinFailed``."""

    def __init__(self, state: JoiningState) -> None:
        self._state: Final = state

    @classmethod
    def create(cls, options: JoinOptions, now_ns: int) -> "Joining":
        """Make the machine; the driver opens the session with the inviter at the same time.

        Raises:
            UsageError: Our record is not sound, or the invitation's prefix has another size.
        """
        if not member_is_sound(options.member) or len(options.group_prefix) != GROUP_PREFIX_BYTES:
            raise UsageError("a joiner's record that is not sound")
        return cls(
            JoiningState(
                options.member,
                options.proof,
                node_id_of(PublicKey(options.inviter)),
                options.group_prefix,
                options.place,
                now_ns,
                now_ns + JOIN_NS_MAX,
                now_ns + JOIN_CONNECT_NS,
            )
        )

    @property
    def deadline_ns(self) -> int | None:
        """When a ``Tick`` is owed; None: it has ended."""
        state = self._state
        if state.done:
            return None
        end_ns = min(state.ends_ns, state.stalls_ns)
        return min(state.ask_ns, end_ns) if state.linked else end_ns

    def snapshot(self) -> bytes:
        """Return the whole state as MessagePack bytes."""
        return msgspec.msgpack.encode(self._state)

    @classmethod
    def restore(cls, snapshot: bytes) -> "Joining":
        """Make the machine from ``snapshot()`` bytes.

        Raises:
            CorruptError: The bytes do not decode.
        """
        try:
            return cls(msgspec.msgpack.decode(snapshot, type=JoiningState))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise CorruptError("a joining snapshot that does not decode") from error

    def handle(self, event: JoiningInput, now_ns: int) -> tuple[JoiningEffect, ...]:
        """Apply one input; return what to do (0 or 1 effects).

        Raises:
            UsageError: Time went back. Nothing that a peer sends can raise.
        """
        state = self._state
        if now_ns < state.now_ns:
            raise UsageError(f"{type(event).__name__} at {now_ns} ns, after {state.now_ns} ns")
        state.now_ns = now_ns
        if state.done:
            return ()
        match event:
            case PeerLinked(node) if node == state.inviter:
                if not state.ever_linked:
                    state.stalls_ns = now_ns + JOIN_STALL_NS
                state.linked = state.ever_linked = True
                return self._ask()
            case PeerUnlinked(node) if node == state.inviter:
                state.linked = False
            case GroupReceived(node, payload) if node == state.inviter:
                return self._received(payload)
            case Tick():
                return self._tick()
            case _:
                pass
        return ()

    def _tick(self) -> tuple[JoiningEffect, ...]:
        state = self._state
        if state.now_ns >= min(state.ends_ns, state.stalls_ns):
            stage = "it answered the handshake, then no more" if state.ever_linked else "no answer to the handshake"
            return self._failed("A205", f"inviter at {state.place}: {stage}")
        return self._ask() if state.linked and state.now_ns >= state.ask_ns else ()

    def _ask(self) -> tuple[JoiningEffect, ...]:
        state = self._state
        state.ask_ns = state.now_ns + JOIN_ASK_INTERVAL_NS
        have = 0
        while have in state.parts:
            have += 1
        request = JoinRequest(PROTOCOL_MIN, PROTOCOL_MAX, state.member, state.proof, have)
        return (SendGroup(state.inviter, encode(request)),)

    def _failed(self, code: str, where: str) -> tuple[JoiningEffect, ...]:
        self._state.done = True
        return (JoinFailed(code, where),)

    def _received(self, payload: bytes) -> tuple[JoiningEffect, ...]:
        try:
            message = decode(payload)
        except WireError:
            return ()  # We will ask again; an inviter that sends nothing else is a stall.
        match message:
            case JoinRefused(code, protocol_min, protocol_max):
                return self._refused(code, protocol_min, protocol_max)
            case JoinAccept():
                return self._part(message)
            case _:
                return ()

    def _refused(self, code: int, protocol_min: int, protocol_max: int) -> tuple[JoiningEffect, ...]:
        place = self._state.place
        if code == REFUSED_VERSION:
            older = "this machine" if protocol_min > PROTOCOL_MAX else "the inviter"
            ranges = f"protocols there {protocol_min} to {protocol_max}, here {PROTOCOL_MIN} to {PROTOCOL_MAX}"
            return self._failed("A208", f"inviter at {place}: {ranges}; upgrade atoll on {older}")
        known, reason = _CODES.get(code, ("A208", f"the inviter refuses with the unknown code {code}"))
        return self._failed(known, f"inviter at {place}: {reason}")

    def _part(self, part: JoinAccept) -> tuple[JoiningEffect, ...]:
        state = self._state
        if part.group[:GROUP_PREFIX_BYTES] != state.group_prefix:
            theirs, asked = part.group[:4].hex(), state.group_prefix[:4].hex()
            return self._failed("A202", f"inviter at {state.place} is in group {theirs}, the invitation is to {asked}")
        if not 0 < part.total <= TOTAL_MAX or part.first + len(part.statements) > part.total:
            return ()
        if (part.digest, part.total, part.group) != (state.digest, state.total, state.group):
            # The roster changed meanwhile; parts of two states do not fit together.
            state.digest, state.total, state.group = part.digest, part.total, part.group
            state.parts = {}
        known = len(state.parts)
        state.parts.update(enumerate(part.statements, part.first))
        if len(state.parts) > known:
            state.stalls_ns = state.now_ns + JOIN_STALL_NS
            state.ask_ns = state.now_ns + JOIN_RESUME_NS
        return self._finished() if len(state.parts) == state.total else ()

    def _finished(self) -> tuple[JoiningEffect, ...]:
        state = self._state
        roster = Roster(GroupId(state.group))
        for index in range(state.total):
            roster.add(state.parts[index])
        if roster.digest() != state.digest:
            return self._failed("A205", f"inviter at {state.place}: its list of members does not verify")
        if roster.find(state.member.node) is None or roster.find(state.inviter) is None:
            return self._failed("A205", f"inviter at {state.place}: its list of members lacks this node or itself")
        state.done, state.parts = True, {}
        return (Joined(state.group, roster.encode()),)


KIND: Final[MachineKind[JoiningInput, JoiningEffect]] = MachineKind(
    name="joining", version=1, inputs=JoiningInput, effects=JoiningEffect, restore=Joining.restore
)
