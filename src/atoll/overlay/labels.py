# SPDX-License-Identifier: Apache-2.0
"""Decides which relay labels this node holds and grants.

A label is a lease, never a right: it ends by itself unless it is renewed, so whatever crashes or is removed, nothing
has to be taken back (ADR 0008). One machine plays three roles:

* **asker**: wants a few relays for a target, asks each, renews at half the lease, pauses after some vain attempts;
* **target**: a relay's notice gives it the mirror of the asker's lease, so that answers can take the same way;
* **relay**: grants a pair of members four labels (in and out, both ways) and forgets them when nobody renews.

Rules of this file:

* One pair of members has at most one lease at one relay, whoever asked: a second request renews it and is answered
  with the same labels. So a lost grant is repaired by asking again, both ends may ask at once, and the tables are
  bounded by the square of the group's size.
* The relay keeps a lease a little longer than it says, so that the clocks' start (sent, received) does not matter.
* Only members ask, only for members, and a relay answers only for those to whom it has a working direct link.
"""

from collections.abc import Callable, Sequence
from typing import Final, final

import msgspec

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.core.entropy import Draws
from atoll.core.machine import Tuple
from atoll.overlay.limits import MEMBERS_MAX, RELAYED_LABELS_MAX
from atoll.overlay.messages import LabelGrant, LabelNotice, LabelRefusal, LabelRequest
from atoll.overlay.orders import (
    DropArrivalLabel,
    DropForwardLabel,
    DropTransmitLabel,
    SetArrivalLabel,
    SetForwardLabel,
    SetTransmitLabel,
)

__all__ = [
    "ATTEMPTS_MAX",
    "GRACE_NS",
    "LEASES_MAX",
    "LEASE_S",
    "REST_NS",
    "LabelEffect",
    "LabelMessage",
    "Labels",
    "LabelsConfig",
    "Say",
]

LEASE_S: Final = 120  # A crashed asker's labels are gone after this; renewals cost two messages a minute and pair.
LEASE_S_MIN: Final = 10  # Limit. A relay that grants less cannot make us renew more often than each 5 s.
LEASE_S_MAX: Final = 600  # Limit. One that grants more is asked again after 5 minutes all the same.
GRACE_NS: Final = 10 * SECOND_NS  # A relay honours labels this much longer than it told: longer than any transit.
LEASES_MAX: Final = 1_024  # Limit. Leases that we hold as asker or target: 63 targets by 16 relays.
RELAYS_PER_TARGET_MAX: Final = 8  # Limit. Relays wanted for one target; three are usual.
RETRY_NS: Final = 500 * MILLISECOND_NS  # First wait for an answer, doubled each time.
ATTEMPTS_MAX: Final = 6  # Limit. Requests in a row without an answer, 16 s in all; then a rest.
REST_NS: Final = 60 * SECOND_NS  # After vain attempts, or a refusal that time alone may mend.
LIVE_REST_NS_MIN: Final = 4 * SECOND_NS  # The shortest such rest while a lease is live.
UNLINKED_NS: Final = 10 * SECOND_NS  # After "not linked to the target": that can change soon.
SUSPECT_GAP_NS: Final = SECOND_NS  # Limit. Between requests that suspicion causes.
ANSWER_GAP_NS: Final = 200 * MILLISECOND_NS  # Limit. Between answers for one pair; a request costs us two messages.
ACTIVE_NS: Final = 5 * SECOND_NS  # A pair that moved bytes within this shares the budget with the others.
LOAD_FULL: Final = 255  # Spec.
WINDOW_NS: Final = SECOND_NS  # The load is averaged over some of these.

REFUSED_WILL: Final = 1  # Spec, as all four.
REFUSED_BUDGET: Final = 2
REFUSED_UNLINKED: Final = 3
REFUSED_FULL: Final = 4

LabelMessage = LabelRequest | LabelGrant | LabelNotice | LabelRefusal


class Say(Tuple, frozen=True):
    """Effect for the composer: send this message to a member along the best path."""

    node: bytes
    message: LabelMessage


LabelEffect = (
    SetTransmitLabel | DropTransmitLabel | SetForwardLabel | DropForwardLabel | SetArrivalLabel | DropArrivalLabel | Say
)


@final
class LabelsConfig(msgspec.Struct, frozen=True):
    """How this node relays.

    Attributes:
        will: 0 never, 1 metered, 2 yes. It is the others that take a metered relay last; it grants like any other.
        budget_bytes_s: For all forwarding, bytes per second, 0 to 2^40; 0: none.
    """

    will: int = 2
    budget_bytes_s: int = 2_500_000


class _Ticket(msgspec.Struct, frozen=True, array_like=True):
    """What one end of a pair is given: its label to send under, and the one that the other's packets arrive under."""

    label: int
    key: bytes
    arrival_label: int
    arrival_key: bytes


class _Lease(msgspec.Struct, array_like=True):
    """One target through one relay, as its end sees it.

    ``ticket`` is None until it is granted; ``due_ns`` is when to ask (again), None when it is left to lapse.
    """

    target: bytes
    relay: bytes
    wanted: bool
    ticket: _Ticket | None = None
    expires_ns: int = 0
    due_ns: int | None = None
    asked_ns: int | None = None
    attempts: int = 0


class _Pair(msgspec.Struct, array_like=True):
    """One pair of members, as its relay sees it. ``low`` is the smaller id."""

    low: bytes
    high: bytes
    for_low: _Ticket
    for_high: _Ticket
    expires_ns: int
    answered_ns: int
    used_ns: int | None = None


@final
class Labels(msgspec.Struct):
    """The label leases of one node, in all three roles.

    Attributes:
        me: Our id.
        draws: Labels, keys and jitter.
        config: How we relay.
        members: All other members, as keys; see ``set_members``.
        leases: As asker or target: by target, then by relay; at most LEASES_MAX in all.
        arrivals: Which lease an arrival label belongs to: (target, relay).
        pairs: As relay: by the two ids in order.
        forwards: Which pair a forward label belongs to; at most RELAYED_LABELS_MAX.
        rejected: Counters of input that was dropped, by reason.
    """

    me: bytes
    draws: Draws
    config: LabelsConfig = LabelsConfig()
    members: dict[bytes, None] = {}
    leases: dict[bytes, dict[bytes, _Lease]] = {}
    arrivals: dict[int, tuple[bytes, bytes]] = {}
    pairs: dict[bytes, _Pair] = {}
    forwards: dict[int, bytes] = {}
    rejected: dict[str, int] = {}
    _next_ns: int | None = None
    _window_ns: int = 0
    _window_bytes: int = 0
    _rate_bytes_s: int = 0
    _share_shift: int = 0

    # ------------------------------------------------------------------ the composer's side

    @property
    def deadline_ns(self) -> int | None:
        """When ``tick`` is due next, perhaps earlier than anything happens; None: never."""
        return self._next_ns

    def set_members(self, members: Sequence[bytes]) -> tuple[LabelEffect, ...]:
        """Name all other members, at most MEMBERS_MAX; drops the labels of those that are gone."""
        kept = dict.fromkeys(node for node in members[:MEMBERS_MAX] if node != self.me)
        effects: list[LabelEffect] = []
        for node in [node for node in self.members if node not in kept]:
            effects.extend(self.forget(node))
        self.members = kept
        return tuple(effects)

    def want(self, target: bytes, relays: Sequence[bytes], now_ns: int) -> tuple[LabelEffect, ...]:
        """Keep leases on these relays for this target, and let leases on others lapse.

        Args:
            target: A member.
            relays: Members, best first, at most RELAYS_PER_TARGET_MAX; () when none is needed any more.
            now_ns: Monotonic time, ns.
        """
        effects: list[LabelEffect] = []
        wanted = [relay for relay in relays[:RELAYS_PER_TARGET_MAX] if self._may_relay(relay, target)]
        held = self.leases.get(target, {})
        for unwanted in [lease for lease in held.values() if lease.wanted and lease.relay not in wanted]:
            unwanted.wanted, unwanted.due_ns, unwanted.attempts = False, None, 0
            if unwanted.ticket is None:
                self._remove(unwanted)
        for relay in wanted:
            lease = self.leases.get(target, {}).get(relay) or self._add(target, relay)
            if lease is None:
                break
            if not lease.wanted:
                lease.wanted = True
                if lease.ticket is None or lease.expires_ns - now_ns <= LEASE_S * SECOND_NS // 2:
                    effects.append(self._ask(lease, now_ns))
                else:
                    self._renew_at(lease, lease.expires_ns - LEASE_S * SECOND_NS // 2)
        return tuple(effects)

    def handle(
        self, sender: bytes, message: LabelMessage, now_ns: int, linked: Callable[[bytes], bool]
    ) -> tuple[LabelEffect, ...]:
        """Apply a message from an authenticated member.

        Args:
            sender: The member whose session it came in.
            message: What it says.
            now_ns: Monotonic time, ns.
            linked: Says whether we have a working direct link to a member.
        """
        if sender not in self.members:
            return self._reject("not a member")
        match message:
            case LabelRequest(target):
                return self._requested(sender, target, now_ns, linked)
            case LabelGrant():
                ticket = _Ticket(message.label, message.key, message.arrival_label, message.arrival_key)
                lease = self.leases.get(message.target, {}).get(sender)
                if lease is None:
                    return self._reject("grant without request")
                return self._granted(lease, ticket, message.lease_s, now_ns)
            case LabelNotice():
                ticket = _Ticket(message.label, message.key, message.arrival_label, message.arrival_key)
                return self._noticed(sender, message.origin, ticket, message.lease_s, now_ns)
            case LabelRefusal(target, reason):
                return self._refused(sender, target, reason, now_ns)

    def tick(self, now_ns: int) -> tuple[LabelEffect, ...]:
        """Do what is due: ask, renew, let lapse, average the load."""
        effects: list[LabelEffect] = []
        self._next_ns = None
        for held in list(self.leases.values()):
            for lease in list(held.values()):
                effects.extend(self._tick_lease(lease, now_ns))
        for key, pair in list(self.pairs.items()):
            if pair.expires_ns <= now_ns:
                effects.extend(self._end(key))
            else:
                self._soon(pair.expires_ns)
        effects.extend(self._roll(now_ns))
        return tuple(effects)

    def suspect(self, target: bytes, relay: bytes, now_ns: int) -> tuple[LabelEffect, ...]:
        """Ask again at once: nothing comes through this relay though both its links seem well.

        A relay that lost its table knows our label no more and cannot tell us so (an unknown label is dropped in
        silence, or it would answer strangers); only the ends can notice.
        """
        lease = self.leases.get(target, {}).get(relay)
        if lease is None or (lease.asked_ns is not None and now_ns - lease.asked_ns < SUSPECT_GAP_NS):
            return ()
        lease.attempts = 0
        return (self._ask(lease, now_ns),)

    def forget(self, node: bytes) -> tuple[LabelEffect, ...]:
        """Drop all labels of a former member, in every role."""
        self.members.pop(node, None)
        effects: list[LabelEffect] = []
        for held in list(self.leases.values()):
            for lease in list(held.values()):
                if node in {lease.target, lease.relay}:
                    effects.extend(self._lapse(lease))
                    self._remove(lease)
        for key, pair in list(self.pairs.items()):
            if node in {pair.low, pair.high}:
                effects.extend(self._end(key))
        return tuple(effects)

    def restate(self, now_ns: int) -> tuple[LabelEffect, ...]:
        """Return the orders of all live labels again: the packet device lost its tables."""
        effects: list[LabelEffect] = []
        for held in self.leases.values():
            for lease in held.values():
                if lease.ticket is not None and now_ns < lease.expires_ns:
                    effects.extend(_install(lease, lease.ticket))
        for pair in self.pairs.values():
            effects.extend(self._forward(pair))
        return tuple(effects)

    def usable(self, target: bytes, now_ns: int) -> tuple[bytes, ...]:
        """Return the relays through which the target can be reached now, oldest lease first."""
        held = self.leases.get(target, {})
        return tuple(one.relay for one in held.values() if one.ticket is not None and now_ns < one.expires_ns)

    def meter(self, label: int, forwarded_bytes: int, now_ns: int) -> tuple[LabelEffect, ...]:
        """Note what the packet device forwarded under one of our forward labels since its last report."""
        pair = self.pairs.get(self.forwards.get(label, b""))
        if pair is None or forwarded_bytes <= 0:
            return ()
        if self._window_bytes == 0 and self._rate_bytes_s == 0:
            self._window_ns = now_ns
        pair.used_ns = now_ns
        self._window_bytes += forwarded_bytes
        self._soon(self._window_ns + WINDOW_NS)
        return self._roll(now_ns)

    def load(self, now_ns: int) -> int:
        """Return our relay load for others, 0 to 255 (no budget left)."""
        if now_ns - self._window_ns > ACTIVE_NS:
            return 0  # Nothing was forwarded for long, whether or not a tick came to note it.
        return min(self._rate_bytes_s * LOAD_FULL // max(self.config.budget_bytes_s, 1), LOAD_FULL)

    # ------------------------------------------------------------------ asker and target

    def _may_relay(self, relay: bytes, target: bytes) -> bool:
        return relay in self.members and target in self.members and relay != target

    def _add(self, target: bytes, relay: bytes) -> _Lease | None:
        if sum(len(held) for held in self.leases.values()) >= LEASES_MAX:
            self._reject("leases full")
            return None
        lease = self.leases.setdefault(target, {})[relay] = _Lease(target, relay, wanted=False)
        return lease

    def _remove(self, lease: _Lease) -> None:
        held = self.leases[lease.target]
        del held[lease.relay]
        if not held:
            del self.leases[lease.target]

    def _ask(self, lease: _Lease, now_ns: int) -> LabelEffect:
        lease.attempts += 1
        lease.asked_ns = now_ns
        if lease.attempts >= ATTEMPTS_MAX:
            # What is left of a live lease is for trying on: a rest that outlasts it would lose it for nothing.
            left_ns = max(0, lease.expires_ns - now_ns) // 2 if lease.ticket is not None else REST_NS
            wait_ns, lease.attempts = min(REST_NS, max(left_ns, LIVE_REST_NS_MIN)), 0
        else:
            wait_ns = RETRY_NS << (lease.attempts - 1)
        self._renew_at(lease, now_ns + wait_ns + self.draws.below(wait_ns // 4))
        return Say(lease.relay, LabelRequest(lease.target))

    def _renew_at(self, lease: _Lease, due_ns: int) -> None:
        lease.due_ns = due_ns
        self._soon(due_ns)

    def _granted(self, lease: _Lease, ticket: _Ticket, lease_s: int, now_ns: int) -> tuple[LabelEffect, ...]:
        owner = self.arrivals.get(ticket.arrival_label)
        if owner is not None and owner != (lease.target, lease.relay):
            return self._reject("arrival label of another relay")
        lease_ns = min(max(lease_s, LEASE_S_MIN), LEASE_S_MAX) * SECOND_NS
        lease.expires_ns, lease.attempts = now_ns + lease_ns, 0
        self._soon(lease.expires_ns)
        if lease.wanted:
            # Not all at once: the pairs of a relay were granted at about the same time when it came up.
            self._renew_at(lease, now_ns + lease_ns // 2 - self.draws.below(lease_ns // 8))
        else:
            lease.due_ns = None
        if lease.ticket == ticket:
            return ()
        effects: list[LabelEffect] = []
        if lease.ticket is not None:
            del self.arrivals[lease.ticket.arrival_label]
            if lease.ticket.arrival_label != ticket.arrival_label:
                effects.append(DropArrivalLabel(lease.ticket.arrival_label))
        lease.ticket = ticket
        self.arrivals[ticket.arrival_label] = (lease.target, lease.relay)
        return (*effects, *_install(lease, ticket))

    def _noticed(
        self, relay: bytes, origin: bytes, ticket: _Ticket, lease_s: int, now_ns: int
    ) -> tuple[LabelEffect, ...]:
        if not self._may_relay(relay, origin):
            return self._reject("notice for no member")
        lease = self.leases.get(origin, {}).get(relay) or self._add(origin, relay)
        if lease is None:
            return ()
        effects = self._granted(lease, ticket, lease_s, now_ns)
        if lease.ticket is None and not lease.wanted:
            self._remove(lease)
        return effects

    def _refused(self, relay: bytes, target: bytes, reason: int, now_ns: int) -> tuple[LabelEffect, ...]:
        lease = self.leases.get(target, {}).get(relay)
        if lease is None or not lease.wanted:
            return self._reject("refusal without request")
        # What is held stays until it lapses: the relay may only be unable to renew it just now.
        lease.attempts = 0
        wait_ns = UNLINKED_NS if reason == REFUSED_UNLINKED else REST_NS
        self._renew_at(lease, now_ns + wait_ns + self.draws.below(wait_ns // 4))
        return ()

    def _tick_lease(self, lease: _Lease, now_ns: int) -> tuple[LabelEffect, ...]:
        effects: list[LabelEffect] = []
        if lease.ticket is not None and lease.expires_ns <= now_ns:
            effects.extend(self._lapse(lease))
        if lease.due_ns is not None and lease.due_ns <= now_ns:
            lease.due_ns = None
            if lease.wanted:
                effects.append(self._ask(lease, now_ns))
        if lease.ticket is None and not lease.wanted:
            self._remove(lease)
            return tuple(effects)
        if lease.ticket is not None:
            self._soon(lease.expires_ns)
        if lease.due_ns is not None:
            self._soon(lease.due_ns)
        return tuple(effects)

    def _lapse(self, lease: _Lease) -> tuple[LabelEffect, ...]:
        if lease.ticket is None:
            return ()
        label, lease.ticket = lease.ticket.arrival_label, None
        del self.arrivals[label]
        return (DropTransmitLabel(lease.target, lease.relay), DropArrivalLabel(label))

    # ------------------------------------------------------------------ relay

    def _requested(
        self, asker: bytes, target: bytes, now_ns: int, linked: Callable[[bytes], bool]
    ) -> tuple[LabelEffect, ...]:
        if target in {asker, self.me}:
            return self._reject("request for nobody else")
        key = min(asker, target) + max(asker, target)
        pair = self.pairs.get(key)
        reason = self._reason(pair, target, now_ns) or (0 if linked(asker) and linked(target) else REFUSED_UNLINKED)
        if reason:
            return (Say(asker, LabelRefusal(target, reason)),)
        effects: list[LabelEffect] = []
        if pair is None:
            pair = self._open(key, asker, target)
            effects.extend(self._forward(pair))
        elif now_ns - pair.answered_ns < ANSWER_GAP_NS:
            return self._reject("request too soon")
        pair.answered_ns, pair.expires_ns = now_ns, now_ns + LEASE_S * SECOND_NS + GRACE_NS
        self._soon(pair.expires_ns)
        mine, other = (pair.for_low, pair.for_high) if asker == pair.low else (pair.for_high, pair.for_low)
        grant = LabelGrant(target, mine.label, mine.key, mine.arrival_label, mine.arrival_key, LEASE_S)
        notice = LabelNotice(asker, other.label, other.key, other.arrival_label, other.arrival_key, LEASE_S)
        return (*effects, Say(target, notice), Say(asker, grant))

    def _reason(self, pair: _Pair | None, target: bytes, now_ns: int) -> int:
        """Return why a request between linked members is refused; 0: it is not. A live pair is never cut short."""
        if not self.config.will:
            return REFUSED_WILL
        if not self.config.budget_bytes_s or (pair is None and self.load(now_ns) >= LOAD_FULL):
            return REFUSED_BUDGET
        if target not in self.members:
            return REFUSED_UNLINKED
        return REFUSED_FULL if pair is None and len(self.forwards) + 2 > RELAYED_LABELS_MAX else 0

    def _open(self, key: bytes, one: bytes, other: bytes) -> _Pair:
        low, high = min(one, other), max(one, other)
        pair = self.pairs[key] = _Pair(low, high, self._ticket(), self._ticket(), 0, 0)
        self.forwards[pair.for_low.label] = self.forwards[pair.for_high.label] = key
        return pair

    def _ticket(self) -> _Ticket:
        label = self.draws.bits(63)
        while label in self.forwards:  # Ends: at most 4096 of 2^63 are taken.
            label = self.draws.bits(63)
        return _Ticket(label, self.draws.token(32), self.draws.bits(63), self.draws.token(32))

    def _forward(self, pair: _Pair) -> tuple[LabelEffect, ...]:
        # Each pair may use the whole budget until others are active; then a share, halved as their number doubles.
        rate = max(self.config.budget_bytes_s >> self._share_shift, 1)
        low, high = pair.for_low, pair.for_high
        return (
            SetForwardLabel(low.label, low.key, pair.low, pair.high, high.arrival_label, high.arrival_key, rate),
            SetForwardLabel(high.label, high.key, pair.high, pair.low, low.arrival_label, low.arrival_key, rate),
        )

    def _end(self, key: bytes) -> tuple[LabelEffect, ...]:
        pair = self.pairs.pop(key)
        labels = (pair.for_low.label, pair.for_high.label)
        for label in labels:
            del self.forwards[label]
        return tuple(DropForwardLabel(label) for label in labels)

    def _roll(self, now_ns: int) -> tuple[LabelEffect, ...]:
        """Average the load once a window, and share the budget among the pairs that use it."""
        elapsed_ns = now_ns - self._window_ns
        if not self._window_bytes and not self._rate_bytes_s and not self._share_shift:
            return ()
        if elapsed_ns < WINDOW_NS:
            self._soon(self._window_ns + WINDOW_NS)
            return ()
        rate_bytes_s = self._window_bytes * SECOND_NS // elapsed_ns
        # Rounded down, so that it reaches 0 and the machine falls asleep.
        self._rate_bytes_s = (3 * self._rate_bytes_s + rate_bytes_s) // 4
        self._window_bytes, self._window_ns = 0, now_ns
        active = sum(pair.used_ns is not None and now_ns - pair.used_ns <= ACTIVE_NS for pair in self.pairs.values())
        shift = max(active - 1, 0).bit_length()
        if self._rate_bytes_s or shift:
            self._soon(now_ns + WINDOW_NS)
        if shift == self._share_shift:
            return ()
        self._share_shift = shift
        return tuple(effect for pair in self.pairs.values() for effect in self._forward(pair))

    # ------------------------------------------------------------------ both

    def _soon(self, at_ns: int) -> None:
        self._next_ns = at_ns if self._next_ns is None else min(self._next_ns, at_ns)

    def _reject(self, reason: str) -> tuple[LabelEffect, ...]:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        return ()


def _install(lease: _Lease, ticket: _Ticket) -> tuple[LabelEffect, LabelEffect]:
    return (
        SetTransmitLabel(lease.target, lease.relay, ticket.label, ticket.key),
        SetArrivalLabel(ticket.arrival_label, ticket.arrival_key, lease.relay, lease.target),
    )
