# SPDX-License-Identifier: Apache-2.0
"""Who belongs to the group, decided together with the other members and without a leader: the membership machine.

It keeps the roster, has its own statements signed and stored before anybody hears of them, tells news at once, and
repairs what got lost by comparing digests with one neighbour at a time. It admits bearers of its invitations, and it
notices peers of another protocol and processes that share a key.

Rules of the file: everything from a member or a bearer is counted and dropped when wrong, never raised; a roster is
handed out (``JoinAccept``, own news) only when it is on disk; once stopped it says nothing more.
Normative text: docs/spec/membership.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import msgspec

from atoll.base.errors import CorruptError, LimitError, UsageError, WireError
from atoll.base.ids import GroupId
from atoll.base.member import Member
from atoll.core.entropy import Draws
from atoll.core.machine import MachineKind, Tick
from atoll.group import notices
from atoll.group.admission import Invite, Invites, refusal_of
from atoll.group.events import (
    DuplicateIdentity,
    GroupEffect,
    GroupInput,
    GroupReceived,
    GuestAsked,
    GuestRemoveAsked,
    GuestsDecided,
    InviteIssued,
    InvitePeer,
    MembersDecided,
    PeerLinked,
    PeerUnlinked,
    ProfileChanged,
    RemoveAsked,
    Removed,
    SendGroup,
    Sign,
    Signed,
    Stored,
    StoreRoster,
    UninvitePeer,
    WallClock,
)
from atoll.group.exchange import Exchange, Letters, Peer
from atoll.group.form import decode_form
from atoll.group.limits import JOIN_MESSAGES_MAX, PENDING_MAX, RESTATE_NS, RESTATE_NS_MAX, SHARES_MAX, TWIN_TELL_NS
from atoll.group.messages import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    REFUSED_DUPLICATE,
    REFUSED_FULL,
    REFUSED_VERSION,
    Digest,
    GroupMessage,
    Hello,
    JoinAccept,
    JoinRefused,
    JoinRequest,
    Push,
    Refused,
    Summary,
    decode,
    encode,
    packed,
)
from atoll.group.roster import Outcome, Roster
from atoll.group.statement import (
    Admit,
    AdmitGuest,
    Body,
    Draft,
    Gateway,
    Profile,
    Remove,
    RemoveGuest,
    Statement,
    member_is_sound,
    verify,
)
from atoll.group.twins import Twins

__all__ = ["KIND", "Group", "GroupOptions"]


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """What a membership machine starts from.

    Attributes:
        roster: Durable form (``form.py``), as last stored: the roster, and the invitations that are not over.
        own: Our own record as configured now; the keys are those of the identity.
        boot: Random number of this process, 63 bits.
        started_s: Wall clock at the start of this process, seconds since 1970.
        product: Version of the product, for people; at most 32 characters.
        seed: 32 random bytes, for jitter and the choice of neighbours.
    """

    roster: bytes
    own: Member
    boot: int
    started_s: int
    product: str
    seed: bytes


class Storing(msgspec.Struct):
    """An own statement on its way to the disk, in the stored roster of this version and all after it."""

    version: int
    statement: Statement


class GroupState(msgspec.Struct):
    """All that a snapshot holds."""

    own: Member
    boot: int
    started_s: int
    product: str
    exchange: Exchange
    roster: bytes = b""  # Only in a snapshot.
    now_ns: int = 0
    wall_s: int = 0
    wall_ns: int = 0  # When the wall clock said so.
    stopped: bool = False
    version: int = 0  # Of the stored roster; counts StoreRoster effects.
    stored: int = 0  # The last version that is on disk.
    signing_id: int = 0
    drafting: Draft | None = None
    pending: list[Body] = []
    storing: Storing | None = None
    decided: tuple[Member, ...] | None = None
    guests: GuestsDecided = GuestsDecided((), ())  # As last told.
    invites: Invites = msgspec.field(default_factory=Invites)
    twins: Twins = msgspec.field(default_factory=Twins)
    twins_told: dict[bytes, int] = {}
    copied_ns: int | None = None  # When a member last told us that a copy of this machine must end.
    forks_told: dict[bytes, bool] = {}
    full_told: bool = False
    restate_ns: int | None = None  # When to say again who and where we are, because the group was told otherwise.
    restate_wait_ns: int = RESTATE_NS
    counts: dict[str, int] = {}


@final
class Group:
    """The membership machine of one node.

    Make it with ``create`` or ``restore``, then call ``start`` once, then ``handle`` for each input.
    """

    def __init__(self, state: GroupState, roster: Roster) -> None:
        self._state: Final = state
        self.roster: Final = roster
        self._effects: list[GroupEffect] = []

    @classmethod
    def create(cls, options: GroupOptions, now_ns: int) -> "Group":
        """Make the machine of a process that starts now.

        Raises:
            CorruptError: The roster is not what was stored.
            UsageError: The own record is not sound.
        """
        if not member_is_sound(options.own):
            raise UsageError(f"an own record that is not sound: {options.own.name!r} at {options.own.endpoints!r}")
        state = GroupState(
            options.own,
            options.boot,
            options.started_s,
            options.product,
            Exchange(options.boot, Draws(options.seed)),
            now_ns=now_ns,
            wall_s=options.started_s,
            wall_ns=now_ns,
            invites=Invites.restored(decode_form(options.roster).kept, options.started_s, now_ns),
        )
        return cls(state, Roster.decode(options.roster))

    # What a driver and other machines may read.

    @property
    def deadline_ns(self) -> int | None:
        """When a ``Tick`` is owed; None: never (alone without invitations, or stopped)."""
        state = self._state
        if state.stopped:
            return None
        dues = (state.invites.deadline_ns, state.exchange.deadline_ns, state.twins.deadline_ns, state.restate_ns)
        return min((due for due in dues if due is not None), default=None)

    @property
    def group(self) -> GroupId:
        """The group's id."""
        return self.roster.group

    @property
    def own(self) -> Member:
        """Our own record, with the name that the group shows."""
        return self.roster.find(self._state.own.node) or self._state.own

    @property
    def counts(self) -> dict[str, int]:
        """What was dropped or refused so far, by reason."""
        return dict(self._state.counts)

    @property
    def skewed(self) -> tuple[bytes, ...]:
        """Members on a link that have no protocol in common with us (A208)."""
        return tuple(node for node, peer in self._state.exchange.peers.items() if peer.skewed)

    def twinned(self, now_ns: int) -> tuple[bytes, ...]:
        """Return the members, we among them, of whom two processes were alive within TWIN_TELL_NS (A207)."""
        state = self._state
        copied = state.copied_ns is not None and now_ns - state.copied_ns < TWIN_TELL_NS
        return (*((state.own.node,) if copied else ()), *state.twins.accused)

    def snapshot(self) -> bytes:
        """Return the whole state as MessagePack bytes."""
        return msgspec.msgpack.encode(msgspec.structs.replace(self._state, roster=self.roster.encode()))

    @classmethod
    def restore(cls, snapshot: bytes) -> "Group":
        """Make the machine from ``snapshot()`` bytes.

        Raises:
            CorruptError: The bytes do not decode.
        """
        try:
            state = msgspec.msgpack.decode(snapshot, type=GroupState)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise CorruptError("a group snapshot that does not decode") from error
        roster = Roster.trusted(state.roster)
        state.roster = b""
        return cls(state, roster)

    # Inputs.

    def start(self, now_ns: int) -> list[GroupEffect]:
        """Return the first effects: the members and bearers that the disk names, and a new profile if ours changed."""
        self._state.now_ns = now_ns
        self._decide()
        if not self._state.stopped:
            self._effects += [InvitePeer(invite.public_key) for invite in self._state.invites.entries.values()]
            self._profile_changed(self._state.own)
        return self._taken()

    def handle(self, event: GroupInput, now_ns: int) -> Sequence[GroupEffect]:
        """Apply one input; return what to do, in order.

        Raises:
            UsageError: Time went back. Nothing that a peer sends can raise.
        """
        state = self._state
        if now_ns < state.now_ns:
            raise UsageError(f"{type(event).__name__} at {now_ns} ns, after {state.now_ns} ns")
        state.now_ns = now_ns
        if state.stopped:
            return ()
        match event:
            case Tick():
                self._tick()
            case PeerLinked(node):
                self._linked(node)
            case PeerUnlinked(node):
                state.exchange.peers.pop(node, None)
            case GroupReceived(node, payload):
                self._received(node, payload)
            case InviteIssued(public_key, expires_wall_s):
                self._invite(public_key, expires_wall_s)
            case RemoveAsked(node, disown):
                self._remove(node, disown=disown)
            case GuestAsked():
                self._guest_asked(event)
            case GuestRemoveAsked(public_key):
                self._issue_or_tell(RemoveGuest(public_key))
            case ProfileChanged(member):
                self._profile_changed(member)
            case Signed(request_id, signature):
                self._signed(request_id, signature)
            case Stored(version):
                self._stored(version)
            case WallClock(wall_s):
                state.wall_s, state.wall_ns = wall_s, now_ns
        return self._taken()

    def _taken(self) -> list[GroupEffect]:
        effects, self._effects = self._effects, []
        return effects

    def _count(self, reason: str) -> None:
        self._state.counts[reason] = self._state.counts.get(reason, 0) + 1

    def _send(self, node: bytes, message: GroupMessage) -> None:
        self._effects.append(SendGroup(node, encode(message)))

    def _post(self, letters: Letters) -> None:
        self._effects += [SendGroup(node, payload) for node, payload in letters]

    def _name(self, node: bytes) -> str:
        member = self.roster.find(node)
        return node.hex() if member is None else member.name

    def _wall_s(self) -> int:
        return self._state.wall_s + (self._state.now_ns - self._state.wall_ns) // 1_000_000_000

    # Links and time.

    def _linked(self, node: bytes) -> None:
        state = self._state
        if self.roster.find(node) is None:
            self._count("link with a stranger")
            return
        state.exchange.peers.pop(node, None)  # What was owed on the link before is owed no more.
        state.exchange.peer(node, state.now_ns)
        self._send(node, Hello(PROTOCOL_MIN, PROTOCOL_MAX, state.boot, state.started_s, state.product))
        self._post(state.exchange.digest(node, self.roster))

    def _tick(self) -> None:
        state = self._state
        self._effects += [UninvitePeer(public_key) for public_key in state.invites.forget_old(state.now_ns)]
        for node, boot in state.twins.due(state.now_ns):
            self._refuse_twin(node, boot)
        if state.restate_ns is not None and state.now_ns >= state.restate_ns:
            state.restate_ns, state.restate_wait_ns = None, min(2 * state.restate_wait_ns, RESTATE_NS_MAX)
            self._issue(Profile(state.own))
        keep_ns = state.invites.keep_ns
        if keep_ns is not None and state.now_ns >= keep_ns:
            self._store()
        self._post(state.exchange.tick(self.roster, state.now_ns))

    # Messages.

    def _received(self, node: bytes, payload: bytes) -> None:
        try:
            message = decode(payload)
        except WireError as error:
            self._count(error.reason)
            return
        invite = self._state.invites.entries.get(node)
        if invite is not None:
            if isinstance(message, JoinRequest):
                self._join_asked(node, invite, message)
            else:
                self._count("bearer out of place")
            return
        if self.roster.find(node) is None:
            self._count("stranger")
            return
        state = self._state
        peer = state.exchange.peer(node, state.now_ns)
        match message:
            case Hello():
                self._hello(node, peer, message)
            case Refused():
                self._refused(node, peer, message)
            case _ if peer.skewed:
                self._count("other protocol")
            case Digest(boot, digest):
                self._twin(node, state.twins.heard(node, boot, state.now_ns))
                if digest != self.roster.digest():
                    self._post(state.exchange.ask(node, self.roster, state.now_ns))
            case Summary():
                self._post(state.exchange.answer(node, message, self.roster, state.now_ns))
            case Push(statements):
                self._absorb(node, statements)
            case JoinRequest() | JoinAccept() | JoinRefused():
                self._count("member out of place")

    def _hello(self, node: bytes, peer: Peer, hello: Hello) -> None:
        state = self._state
        self._twin(node, state.twins.introduced(node, hello.boot, hello.started_s, state.now_ns))
        skewed = hello.protocol_max < PROTOCOL_MIN or hello.protocol_min > PROTOCOL_MAX
        if skewed:
            self._send(node, Refused(REFUSED_VERSION, hello.boot, PROTOCOL_MIN, PROTOCOL_MAX, state.product))
            if not peer.skewed:
                self._effects.append(notices.skewed(node, self._name(node), state.product, hello))
        peer.skewed = skewed

    def _refused(self, node: bytes, peer: Peer, refused: Refused) -> None:
        state = self._state
        if refused.code == REFUSED_DUPLICATE and refused.boot == state.boot:
            self._effects.append(DuplicateIdentity(node, self._name(node)))
            state.stopped = True
        elif refused.code == REFUSED_DUPLICATE:
            state.copied_ns = state.now_ns
            self._tell_twins(state.own.node, refused.boot, f"{self._name(node)} heard both")
        elif refused.code == REFUSED_VERSION and refused.boot == state.boot and not peer.skewed:
            peer.skewed = True
            self._effects.append(notices.skewed(node, self._name(node), state.product, refused))

    def _twin(self, node: bytes, boot: int | None) -> None:
        if boot is not None:
            self._refuse_twin(node, boot)
            self._tell_twins(node, boot, "both spoke to this node")

    def _refuse_twin(self, node: bytes, boot: int) -> None:
        self._send(node, Refused(REFUSED_DUPLICATE, boot, PROTOCOL_MIN, PROTOCOL_MAX, self._state.product))

    def _tell_twins(self, node: bytes, boot: int, where: str) -> None:
        if self._state.twins_told.get(node) != boot:
            self._state.twins_told[node] = boot
            self._effects.append(notices.twins(node, self._name(node), where))

    def _absorb(self, node: bytes, statements: Sequence[Statement]) -> None:
        state = self._state
        fresh: list[Statement] = []
        early = False
        for statement in statements:
            outcome = self.roster.add(statement)
            self._count(f"statement {outcome.value}")
            if outcome is Outcome.NEW:
                fresh.append(statement)
            elif outcome is Outcome.FULL:
                self._tell_full(node, f"a statement that {self._name(node)} passed on found no room")
            early = early or outcome is Outcome.EARLY
        if fresh:
            self._store()
            self._post(state.exchange.pass_on(fresh, node))
            self._warn_of_forks()
            self._decide()
        if early and not state.stopped and node in state.exchange.peers:
            self._post(state.exchange.ask(node, self.roster, state.now_ns))

    def _tell_full(self, node: bytes, where: str) -> None:
        if not self._state.full_told:  # Once a process: a member that floods us must not flood the log.
            self._state.full_told = True
            self._effects.append(notices.full(node, where))

    def _warn_of_forks(self) -> None:
        for issuer in self.roster.equivocators():
            if issuer not in self._state.forks_told:
                self._state.forks_told[issuer] = True
                node = self.roster.node_of(issuer) or b""
                self._effects.append(notices.forked(node, self.roster.issuer_name(issuer), issuer))

    # Deciding.

    def _store(self) -> None:
        state = self._state
        state.version += 1
        waiting = [] if state.storing is None else [state.storing.statement]
        kept = state.invites.keep(state.version, self._wall_s(), state.now_ns)
        self._effects.append(StoreRoster(state.version, self.roster.encode(*waiting, kept=kept)))

    def _decide(self) -> None:
        """Tell what the roster comes to, if that changed; after the news went out, so that the removed know why."""
        state = self._state
        members = self.roster.members()
        others = tuple(sorted((m for m in members if m.node != state.own.node), key=lambda m: m.node))
        if not any(m.node == state.own.node for m in members):
            self._stop_removed()
            return
        if self.roster.record(state.own.signing_key) == state.own:
            state.restate_ns = None
        elif state.restate_ns is None:
            state.restate_ns = state.now_ns + state.restate_wait_ns
        if others != state.decided:
            self._decide_members(others)
        guests = self.roster.guests()
        held = ((gateway, boxes.get(state.own.node)) for gateway, boxes in guests.shares.items())
        decided = GuestsDecided(
            tuple((guest.public_key, guest.gateway) for guest in guests.guests),
            tuple((gateway, box) for gateway, box in held if box is not None),
        )
        if decided != state.guests:
            state.guests = decided
            self._effects.append(decided)

    def _decide_members(self, others: tuple[Member, ...]) -> None:
        state = self._state
        staying = {m.node: True for m in others}
        for node in [node for node in state.exchange.peers if node not in staying]:
            del state.exchange.peers[node]
            state.twins.forget(node)
        state.decided = others
        self._effects.append(MembersDecided(others, self.roster.version_text()))

    def _stop_removed(self) -> None:
        own = self._state.own
        by, name = b"", ""
        for entry in self.roster.removals():
            body = entry.statement.body
            if isinstance(body, Remove) and own.node == body.node:
                by = self.roster.node_of(entry.statement.issuer) or b""
                name = self.roster.issuer_name(entry.statement.issuer)
        self._effects.append(Removed(by, name))
        self._state.stopped = True

    # Own statements.

    def _issue(self, body: Body) -> bool:
        """Put a statement on its way to signature, disk and members; return False when there is no room."""
        pending = self._state.pending
        if isinstance(body, Profile):  # Only the newest profile is worth a signature.
            pending[:] = [waiting for waiting in pending if not isinstance(waiting, Profile)]
        if len(pending) >= PENDING_MAX:
            return False
        pending.append(body)
        return self._sign_next()

    def _sign_next(self) -> bool:
        state = self._state
        while state.drafting is None and state.storing is None and state.pending:
            body = state.pending.pop(0)
            if isinstance(body, Admit):
                name = self.roster.free_name(body.member.name)
                body = Admit(msgspec.structs.replace(body.member, name=name))
            elif isinstance(body, AdmitGuest):
                body = msgspec.structs.replace(body, name=self.roster.free_name(body.name))
            try:
                state.drafting = self.roster.draft(state.own.signing_key, body)
            except LimitError as error:
                self._tell_full(state.own.node, str(error))
                if isinstance(body, Admit):
                    self._refuse_bound(body.member.public_key)
                continue
            state.signing_id += 1
            self._effects.append(Sign(state.signing_id, state.drafting.payload(self.group)))
        return True

    def _signed(self, request_id: int, signature: bytes) -> None:
        state = self._state
        draft = state.drafting
        if draft is None or request_id != state.signing_id:
            self._count("signature out of place")
            return
        state.drafting = None
        if verify(draft.issuer, draft.payload(self.group), signature):
            # It counts when it is on disk, also for us: who forgets its own statement signs another in its place.
            state.storing = Storing(state.version + 1, draft.with_signature(signature))
            self._store()
        else:
            self._count("own statement forged")
            self._sign_next()

    def _stored(self, version: int) -> None:
        state = self._state
        state.stored = max(state.stored, version)
        if state.storing is not None and version >= state.storing.version:
            self._stated(state.storing.statement)
        if not state.stopped:
            self._serve_waiting()

    def _stated(self, statement: Statement) -> None:
        state = self._state
        state.storing = None
        outcome = self.roster.add(statement)
        if outcome is not Outcome.NEW:
            self._count(f"own statement {outcome.value}")
            if isinstance(statement.body, Admit) and self.roster.find(statement.body.member.node) is None:
                self._refuse_bound(statement.body.member.public_key)
        else:
            self._post(state.exchange.tell_all([statement]))
            self._warn_of_forks()
            self._decide()
            if isinstance(statement.body, Admit) and not state.stopped:
                member = statement.body.member
                self._effects.append(notices.joined(member.node, member.name))
        if not state.stopped:
            self._sign_next()

    def _profile_changed(self, member: Member) -> None:
        state = self._state
        if (member.public_key, member.signing_key) != (state.own.public_key, state.own.signing_key):
            raise UsageError("a profile with the keys of another")
        if not member_is_sound(member):
            raise UsageError(f"a profile that is not sound: {member.name!r} at {member.endpoints!r}")
        state.own = member
        if self.roster.record(member.signing_key) != member:
            self._issue(Profile(member))

    def _remove(self, node: bytes, *, disown: bool) -> None:
        member = self.roster.find(node)
        if member is None:
            self._count("removal of no member")
            return
        if disown and not self.roster.stands_without(self._state.own.signing_key, member.signing_key):
            self._effects.append(notices.own_inviter(node, member.name))
            return
        heads = () if disown else self.roster.heads(member.signing_key)
        self._issue_or_tell(Remove(node, member.signing_key, heads))

    def _issue_or_tell(self, body: Body) -> None:
        if not self._issue(body):
            self._tell_full(self._state.own.node, "too many own statements wait for a signature")

    def _guest_asked(self, asked: GuestAsked) -> None:
        shares = asked.shares
        for start in range(0, len(shares), SHARES_MAX):
            self._issue_or_tell(Gateway(asked.gateway, shares[start : start + SHARES_MAX]))
        self._issue_or_tell(AdmitGuest(asked.public_key, asked.gateway, asked.name))

    # Invitations.

    def _invite(self, public_key: bytes, expires_wall_s: int) -> None:
        forgotten = self._state.invites.issue(public_key, expires_wall_s, self._wall_s(), self._state.now_ns)
        self._effects += [UninvitePeer(key) for key in forgotten]
        self._effects.append(InvitePeer(public_key))
        self._store()

    def _join_asked(self, node: bytes, invite: Invite, request: JoinRequest) -> None:
        code = refusal_of(invite, request, self.roster, wall_s=self._wall_s(), now_ns=self._state.now_ns)
        if code:
            self._count("join refused")
            self._send(node, JoinRefused(code, PROTOCOL_MIN, PROTOCOL_MAX))
            return
        is_new, invite.joiner = invite.joiner is None, request.member
        if self.roster.find(request.member.node) is not None:
            if is_new:
                self._store()  # Whose the invitation is; with an admission the two are one write.
        elif not self._is_admitting(request.member) and not self._issue(Admit(request.member)):
            self._refuse_bound(request.member.public_key)
            return
        if not self._accept(node, invite, request.have):
            invite.waiting = True

    def _is_admitting(self, member: Member) -> bool:
        state = self._state
        drafting = [] if state.drafting is None else [state.drafting.body]
        storing = [] if state.storing is None else [state.storing.statement.body]
        bodies = (*state.pending, *drafting, *storing)
        return any(isinstance(body, Admit) and body.member.public_key == member.public_key for body in bodies)

    def _refuse_bound(self, public_key: bytes) -> None:
        for node, invite in self._state.invites.entries.items():
            if invite.joiner is not None and invite.joiner.public_key == public_key:
                invite.refused, invite.waiting = REFUSED_FULL, False
                self._send(node, JoinRefused(REFUSED_FULL, PROTOCOL_MIN, PROTOCOL_MAX))

    def _accept(self, node: bytes, invite: Invite, have: int) -> bool:
        """Hand the roster to the owner of an invitation, if its admission and its ownership are on disk."""
        if invite.bound_in is None or invite.bound_in > self._state.stored:
            return False
        if invite.joiner is None or self.roster.find(invite.joiner.node) is None:
            return False
        statements = self.roster.statements()
        have = have if have < len(statements) else 0
        digest, total = self.roster.digest(), len(statements)

        def part(start: int, run: tuple[Statement, ...]) -> JoinAccept:
            return JoinAccept(self.group, digest, total, min(have + start, 0xFFFF), run)

        for payload in packed(statements[have:], part)[:JOIN_MESSAGES_MAX]:
            self._effects.append(SendGroup(node, payload))
        return True

    def _serve_waiting(self) -> None:
        for node, invite in self._state.invites.entries.items():
            if invite.waiting and self._accept(node, invite, 0):
                invite.waiting = False


KIND: Final[MachineKind[GroupInput, GroupEffect]] = MachineKind(
    name="group", version=4, inputs=GroupInput, effects=GroupEffect, restore=Group.restore
)
