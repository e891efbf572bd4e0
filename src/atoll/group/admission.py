# SPDX-License-Identifier: Apache-2.0
"""Which invitations are open, and what the bearer of one is told. State, no effects.

An invitation belongs to the first record that asks properly under it. It is remembered for an hour after its end, so
that a late comer hears "expired" or "used" and need not guess from silence.
"""

import msgspec

from atoll.base.ids import PublicKey, node_id_of
from atoll.base.member import Member
from atoll.base.units import SECOND_NS
from atoll.group.limits import INVITE_FORGET_NS, INVITE_VALID_NS, INVITES_MAX, MEMBERS_MAX
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
    JoinRequest,
)
from atoll.group.roster import Roster
from atoll.group.statement import join_payload, member_is_sound, verify

__all__ = ["Invite", "Invites", "refusal_of"]


class Invite(msgspec.Struct):
    """One invitation, seen from the inviter.

    Attributes:
        public_key: The key that its bearer connects with.
        expires_wall_s: End of validity as written in it, seconds since 1970.
        ends_ns: The same on the monotonic clock, so that a wall clock stepped back does not prolong it.
        forget_ns: When the bearer gets no answer any more.
        joiner: The record that it now belongs to.
        refused: The code that this record is refused with after all; 0: not refused.
    """

    public_key: bytes
    expires_wall_s: int
    ends_ns: int
    forget_ns: int
    joiner: Member | None = None
    refused: int = 0


class Invites(msgspec.Struct):
    """Invitations open or remembered, by the node id that follows from their key; at most INVITES_MAX."""

    entries: dict[bytes, Invite] = {}

    def issue(self, public_key: bytes, expires_wall_s: int, wall_s: int, now_ns: int) -> list[bytes]:
        """Open an invitation; return the public keys of those forgotten to make room (the ones that end first)."""
        valid_ns = min(INVITE_VALID_NS, max(0, expires_wall_s - wall_s) * SECOND_NS)
        invite = Invite(public_key, expires_wall_s, now_ns + valid_ns, now_ns + INVITE_FORGET_NS)
        self.entries[node_id_of(PublicKey(public_key))] = invite
        forgotten: list[bytes] = []
        while len(self.entries) > INVITES_MAX:
            node, oldest = min(self.entries.items(), key=lambda item: (item[1].ends_ns, item[0]))
            del self.entries[node]
            forgotten.append(oldest.public_key)
        return forgotten

    def forget_old(self, now_ns: int) -> list[bytes]:
        """Drop what has been remembered long enough; return the public keys."""
        old = [(node, invite) for node, invite in self.entries.items() if now_ns >= invite.forget_ns]
        for node, _ in old:
            del self.entries[node]
        return [invite.public_key for _, invite in old]

    @property
    def deadline_ns(self) -> int | None:
        """When ``forget_old`` has something to do; None: never."""
        return min((invite.forget_ns for invite in self.entries.values()), default=None)


def refusal_of(invite: Invite, request: JoinRequest, roster: Roster, *, wall_s: int, now_ns: int) -> int:
    """Return the code to refuse this request with; 0: it is good.

    The signature check comes before anything that depends on the record, so a thief of the text learns nothing of
    the roster without showing that it holds the keys that it names.
    """
    if request.protocol_max < PROTOCOL_MIN or request.protocol_min > PROTOCOL_MAX:
        return REFUSED_VERSION
    member = request.member
    if not member_is_sound(member) or not verify(
        member.signing_key, join_payload(invite.public_key, member), request.proof
    ):
        return REFUSED_PROOF
    if invite.joiner is not None:
        same = (invite.joiner.public_key, invite.joiner.signing_key) == (member.public_key, member.signing_key)
        return invite.refused if same else REFUSED_USED
    if now_ns >= invite.ends_ns or wall_s >= invite.expires_wall_s:
        return REFUSED_EXPIRED
    if roster.is_removed(member):
        return REFUSED_REMOVED
    known = [m for m in roster.members() if m.public_key == member.public_key or m.signing_key == member.signing_key]
    if any((m.public_key, m.signing_key) != (member.public_key, member.signing_key) for m in known):
        return REFUSED_CLASH
    return REFUSED_FULL if not known and len(roster.members()) >= MEMBERS_MAX else 0
