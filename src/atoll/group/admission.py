# SPDX-License-Identifier: Apache-2.0
"""Which invitations are open, and what the bearer of one is told. State, no effects.

An invitation belongs to the first record that asks properly under it. It is remembered for an hour after its end, so
that a late comer hears "expired" or "used" and need not guess from silence.

Invitations outlive the process in the roster's file: public keys, never secrets. One file, so that one atomic write
says both whose an invitation is and that this one is admitted. Nothing of the roster is handed to a bearer before the
binding is on disk. A crash before that write leaves the invitation open, and nobody was given anything; a crash after
it leaves the invitation with the one who asked first, admitted or not, who may ask again. So a crash can cost that one
a second attempt, and can never serve two.
"""

import msgspec

from atoll.base.ids import PublicKey, node_id_of
from atoll.base.member import Member
from atoll.base.units import SECOND_NS
from atoll.group.form import KeptInvite, KeptInvites
from atoll.group.limits import (
    INVITE_BACK_NS,
    INVITE_FORGET_NS,
    INVITE_KEEP_NS,
    INVITE_VALID_NS,
    INVITES_MAX,
    MEMBERS_MAX,
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
        bound_in: The first stored version of the roster that says whose it is; None: none does yet.
        waiting: Its owner asked before it could be answered, and gets the roster as soon as it can.
    """

    public_key: bytes
    expires_wall_s: int
    ends_ns: int
    forget_ns: int
    joiner: Member | None = None
    refused: int = 0
    bound_in: int | None = None
    waiting: bool = False


class Invites(msgspec.Struct):
    """Invitations open or remembered, by the node id that follows from their key; at most INVITES_MAX.

    Attributes:
        entries: They.
        kept_ns: When they were last given to the disk.
    """

    entries: dict[bytes, Invite] = {}
    kept_ns: int = 0

    @classmethod
    def restored(cls, kept: KeptInvites | None, wall_s: int, now_ns: int) -> "Invites":
        """Make them from their durable form, for a process that starts now.

        The wall clock says how much time went by. Where it was set back it says nothing: then all are over, because
        to make another invitation is cheap, and one that lives on is not.
        """
        entries: dict[bytes, Invite] = {}
        away_ns = 0 if kept is None else (wall_s - kept.wall_s) * SECOND_NS
        for invite in () if kept is None else kept.invites:
            valid_ns = min(INVITE_VALID_NS, invite.valid_ns) if away_ns > -INVITE_BACK_NS else 0
            valid_ns, remembered_ns = (span_ns - max(0, away_ns) for span_ns in (valid_ns, invite.remembered_ns))
            if remembered_ns > 0:
                entries[node_id_of(PublicKey(invite.public_key))] = Invite(
                    invite.public_key,
                    invite.expires_wall_s,
                    now_ns + max(0, valid_ns),
                    now_ns + remembered_ns,
                    invite.joiner,
                    invite.refused,
                    bound_in=None if invite.joiner is None else 0,
                )
        return cls(entries, now_ns)

    def keep(self, version: int, wall_s: int, now_ns: int) -> KeptInvites | None:
        """Return the durable form, which goes to disk with the roster of this version; None: there are none."""
        self.kept_ns = now_ns
        for invite in self.entries.values():
            if invite.joiner is not None and invite.bound_in is None:
                invite.bound_in = version
        if not self.entries:
            return None
        return KeptInvites(
            max(0, wall_s),
            tuple(
                KeptInvite(
                    invite.public_key,
                    max(0, invite.expires_wall_s),
                    max(0, invite.ends_ns - now_ns),
                    max(0, invite.forget_ns - now_ns),
                    invite.joiner,
                    invite.refused,
                )
                for invite in self.entries.values()
            ),
        )

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
    def keep_ns(self) -> int | None:
        """When the disk is to be told how much time is left; None: none was open when it last was."""
        is_open = any(invite.joiner is None and invite.ends_ns > self.kept_ns for invite in self.entries.values())
        return self.kept_ns + INVITE_KEEP_NS if is_open else None

    @property
    def deadline_ns(self) -> int | None:
        """When ``forget_old`` has something to do, or something is to be kept; None: never."""
        dues = [invite.forget_ns for invite in self.entries.values()]
        return min(dues if self.keep_ns is None else [*dues, self.keep_ns], default=None)


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
    joiner, ends_now = invite.joiner, now_ns >= invite.ends_ns or wall_s >= invite.expires_wall_s
    if joiner is not None:
        if (joiner.public_key, joiner.signing_key) != (member.public_key, member.signing_key):
            return REFUSED_USED
        if invite.refused:
            return invite.refused
        # Who came in time, and is a member or about to be, may repeat itself when it is over.
        ends_now = ends_now and not invite.waiting and roster.find(member.node) is None
    if ends_now:
        return REFUSED_EXPIRED
    if roster.is_removed(member):
        return REFUSED_REMOVED
    known = [m for m in roster.members() if m.public_key == member.public_key or m.signing_key == member.signing_key]
    if any((m.public_key, m.signing_key) != (member.public_key, member.signing_key) for m in known):
        return REFUSED_CLASH
    return REFUSED_FULL if not known and len(roster.members()) >= MEMBERS_MAX else 0
