# SPDX-License-Identifier: Apache-2.0
"""What goes into the membership machine and what comes out of it. All are journalled, so none may hold a secret."""

from atoll.base.member import Member
from atoll.core.machine import Tick, Tuple

__all__ = [
    "DuplicateIdentity",
    "GroupEffect",
    "GroupInput",
    "GroupNotice",
    "GroupReceived",
    "GuestAsked",
    "GuestRemoveAsked",
    "GuestsDecided",
    "InviteIssued",
    "InvitePeer",
    "MembersDecided",
    "PeerLinked",
    "PeerUnlinked",
    "ProfileChanged",
    "RemoveAsked",
    "Removed",
    "SendGroup",
    "Sign",
    "Signed",
    "StoreRoster",
    "Stored",
    "UninvitePeer",
    "WallClock",
]


class PeerLinked(Tuple, frozen=True):
    """Input: a session with a member is up (for the first time, or again)."""

    node: bytes


class PeerUnlinked(Tuple, frozen=True):
    """Input: no session with this member any more."""

    node: bytes


class GroupReceived(Tuple, frozen=True):
    """Input: an authenticated group message came from a member, or from the bearer of an invitation.

    ``node`` is the id that follows from the session's key; for a bearer that is the invitation's own key.
    """

    node: bytes
    payload: bytes


class InviteIssued(Tuple, frozen=True):
    """Input: a person asked for an invitation; the shell made it and keeps its secret.

    Attributes:
        invite_public_key: X25519 key, 32 bytes, that follows from the secret.
        expires_wall_s: As written in the invitation, seconds since 1970.
    """

    invite_public_key: bytes
    expires_wall_s: int


class RemoveAsked(Tuple, frozen=True):
    """Input: a person wants a member out; ``node`` may be our own: to leave.

    ``disown`` voids all that it ever stated, so that all whom it admitted (and nobody else admitted) go with it, and
    all whom it removed (and nobody else removed) are back.
    """

    node: bytes
    disown: bool = False


class GuestAsked(Tuple, frozen=True):
    """Input: a person wants a guest; the shell made its key and keeps no secret of it.

    Attributes:
        public_key: X25519 key of the guest, 32 bytes.
        gateway: The key that it knows as its one peer.
        name: The name that it asks for.
        shares: (node id, the gateway's private key sealed for that member), for those that have none yet.
    """

    public_key: bytes
    gateway: bytes
    name: str
    shares: tuple[tuple[bytes, bytes], ...]


class GuestRemoveAsked(Tuple, frozen=True):
    """Input: a person wants this guest out, for good."""

    public_key: bytes


class ProfileChanged(Tuple, frozen=True):
    """Input: our own name, endpoints or will to relay are these now; the keys must be our own."""

    member: Member


class Signed(Tuple, frozen=True):
    """Input: the answer to ``Sign``."""

    request_id: int
    signature: bytes


class Stored(Tuple, frozen=True):
    """Input: this version of the roster, and so all before it, would survive a power cut."""

    version: int


class WallClock(Tuple, frozen=True):
    """Input: the wall clock says so many seconds since 1970. At start, and after each step; once a minute will do."""

    wall_s: int


class SendGroup(Tuple, frozen=True):
    """Effect: send this in the session with this member or bearer of an invitation. It may get lost."""

    node: bytes
    payload: bytes


class MembersDecided(Tuple, frozen=True):
    """Effect: the other members, by node id, are these now; sessions with anybody else end.

    Attributes:
        members: Named uniquely.
        version: Of the roster, for people.
    """

    members: tuple[Member, ...]
    version: str


class GuestsDecided(Tuple, frozen=True):
    """Effect: the guests, and the gateways that we may serve them by, are these now.

    Attributes:
        guests: (public key, gateway), in order of admission.
        boxes: (gateway, its private key sealed for us).
    """

    guests: tuple[tuple[bytes, bytes], ...]
    boxes: tuple[tuple[bytes, bytes], ...]


class InvitePeer(Tuple, frozen=True):
    """Effect: answer handshakes of this key, for control messages alone."""

    public_key: bytes


class UninvitePeer(Tuple, frozen=True):
    """Effect: no longer answer this key."""

    public_key: bytes


class StoreRoster(Tuple, frozen=True):
    """Effect: write this to disk in place of the version before; then give ``Stored``."""

    version: int
    roster: bytes


class Sign(Tuple, frozen=True):
    """Effect: sign these bytes with the node's Ed25519 key; then give ``Signed``."""

    request_id: int
    payload: bytes


class Removed(Tuple, frozen=True):
    """Effect, the last one: we are a member no more; the node stops and says so (A206).

    Attributes:
        by: Node id of the remover; empty: nobody removed us, but the one who admitted us was disowned.
        name: The remover's name; empty as above.
    """

    by: bytes
    name: str


class DuplicateIdentity(Tuple, frozen=True):
    """Effect, the last one: another process with our key started before us and goes on; this one must stop (A207).

    Attributes:
        reporter: Node id of the member that heard both.
        name: Its name.
    """

    reporter: bytes
    name: str


class GroupNotice(Tuple, frozen=True):
    """Effect: for people and logs.

    Attributes:
        kind: One of ``joined``, ``equivocation``, ``version``, ``twin``, ``refused``, ``full``.
        code: Catalogue code; empty: no error.
        node: Whom it is about.
        sentence: What happened.
        where: The evidence.
        fix: What mends it.
    """

    kind: str
    code: str
    node: bytes
    sentence: str
    where: str
    fix: str


GroupInput = (
    Tick
    | PeerLinked
    | PeerUnlinked
    | GroupReceived
    | InviteIssued
    | RemoveAsked
    | GuestAsked
    | GuestRemoveAsked
    | ProfileChanged
    | Signed
    | Stored
    | WallClock
)
GroupEffect = (
    SendGroup
    | MembersDecided
    | GuestsDecided
    | InvitePeer
    | UninvitePeer
    | StoreRoster
    | Sign
    | Removed
    | DuplicateIdentity
    | GroupNotice
)
