# SPDX-License-Identifier: Apache-2.0
"""Decides for one member which paths are probed, when one is suspected, and which way its packets go.

Theory of operation. The pair probes the direct path, the paths in use and up to three relays that are kept ready. When
a path in use misses a probe, that proves nothing, but waiting would cost the application; so packets are *copied* to
the best other path while a burst of questions over all of them finds out (ADR 0006). Then either the doubt ends, or
the path is found silent, one-way or lossy, and the route moves to a path that has answered since the suspicion began.
A peer that pauses answers on no path, and nothing moves. Copies have a budget, so a path that is a little lossy for
ever costs at most a fifth more traffic.

What members say of their links proposes relays; only our own probes through a relay, answered by the far end, make it
eligible. A relay that lies gains three probes a second.
"""

from collections.abc import Sequence
from typing import Final, Protocol, final

import msgspec

from atoll.base.ids import DIRECT
from atoll.base.units import MILLISECOND_NS, MINUTE_NS, SECOND_NS
from atoll.overlay.choice import CLEAN_NS, HOLD_NS, Candidate, Decision, Incumbent, PathState, decide
from atoll.overlay.config import Config
from atoll.overlay.delivery import Delivery
from atoll.overlay.evidence import Switch
from atoll.overlay.limits import (
    CANDIDATES_MAX,
    COPY_BUDGET_NS,
    COPY_NS_MAX,
    COPY_REFILL_SHARE,
    EVIDENCE_CHARS_MAX,
    HISTORY_MAX,
    MEMBERS_MAX,
    PATHS_PER_PAIR_MAX,
)
from atoll.overlay.loss import STRANGERS_MAX
from atoll.overlay.messages import Probe, encode
from atoll.overlay.orders import OverlayEffect, RouteNotice, SendControl, SetRoute
from atoll.overlay.path import NEVER_NS, Path, Reason
from atoll.overlay.policy import Rule
from atoll.overlay.reports import ControlReceived

__all__ = ["Pair", "Route", "Surroundings"]

SETTLE_NS: Final = 10 * SECOND_NS  # A new member's first improvement needs not wait for the whole hold-down.
BURST_PAUSE_NS: Final = 2 * SECOND_NS  # Between two bursts on one pair.
FRESH_NS: Final = 5 * SECOND_NS  # A standby path that was heard so lately is ready.
HEAVY_PACKETS: Final = 16  # In one report (50 ms): from 4 Mbit/s on; calls and games send a fifth of it.
HEAVY_NS: Final = 5 * SECOND_NS  # So long after the last such report.
PROVED_NS: Final = 10 * SECOND_NS  # A relay is taken for its gain only after so long on our own probes.
WORTH_NS: Final = 500 * MILLISECOND_NS  # When the way in use has failed, a way that saves so much is waited for ...
PATIENCE_NS: Final = 5 * SECOND_NS  # ... for as long as it saves, and no longer than this.
HURRY_NS: Final = 2 * SECOND_NS  # So long a suspicion is reviewed at the fast pace ...
HURRY_REVIEW_NS: Final = 50 * MILLISECOND_NS  # ... which is this.
SHUN_NS: Final = 60 * SECOND_NS  # A relay that failed end to end is not proposed again for so long.
YOUNG_NS: Final = MINUTE_NS  # So long a pair is young.
CONNECT_NS: Final = 3 * SECOND_NS  # A member without a session for so long gets relays, so that it can be reached.
PROVE: Final = 8  # Questions that a new standby path begins with ...
GREET: Final = STRANGERS_MAX  # ... and a direct one: after a round trip it is known, also to who knew an earlier life.
PROVE_GAP_NS: Final = 50 * MILLISECOND_NS
UNUSED_NS: Final = 10 * SECOND_NS  # A path that nobody wants is forgotten after this.
MISSING_DATA_MIN: Final = 2  # Data packets missing between two probes ...
MISSING_DATA_PARTS: Final = 20  # ... and a twentieth of those that were sent: as good as a missing probe.
SWITCH_CALM_NS: Final = SECOND_NS  # After a switch the old path's last losses are no news.
SETTLE_DATA_NS: Final = 250 * MILLISECOND_NS  # Suspicion from missing data lasts at least this.
STICKY: Final = 2  # A relay kept ready stays so while it ranks this much below the first three.


class Surroundings(Protocol):
    """What a pair must know of the rest of the overlay."""

    @property
    def config(self) -> Config:
        """What the overlay was told."""
        ...

    def relays(self, target: bytes, now_ns: int) -> list[Candidate]:
        """Return the relays that could reach a member, by what members say of their links."""
        ...

    def usable(self, target: bytes, now_ns: int) -> tuple[bytes, ...]:
        """Return the relays that hold labels for us and a member."""
        ...

    def jitter(self) -> int:
        """Return a random integer, 0 to 255."""
        ...


@final
class Route(msgspec.Struct):
    """The way of one policy tag.

    Attributes:
        incumbent: The way in use, and what the choice must remember.
        since_ns: Since when it is used; ``cause`` and ``evidence`` of that moment.
        fixed: The tag is for the direct path only: nothing is ever chosen, and its trouble moves nothing.
        given: What the packet device was last told: via, copy and its limit; None: nothing.
        history: The last switches, oldest first, at most HISTORY_MAX.
    """

    incumbent: Incumbent
    since_ns: int
    cause: str = "start"
    evidence: str = ""
    fixed: bool = False
    given: tuple[bytes, bytes | None, int] | None = None
    history: list[Switch] = []


@final
class Pair(msgspec.Struct):
    """We and one other member.

    Attributes:
        paths: By via; at most PATHS_PER_PAIR_MAX.
        routes: By policy tag. ``vias``: the ways that those that are free to choose use, each once.
        wanted: The relays on which labels must be held: those in use and those kept ready.
        standby: Relays that are kept ready, best first. ``order``: all ways by the last ranking, the best few.
        deliveries: What becomes of our data, by via; at most MEMBERS_MAX.
        shunned: Relays that failed end to end, and until when they are not proposed.
        active_ns: Until when the pair counts as active; ``fast``: whether it got one of the fast places.
        heavy_ns: Until when we count as loading the way in use ourselves.
        suspicion_ns: Since when a path in use is suspected; -1: none is.
        copy: The path that gets copies; None: no copies. ``copy_ns``: until when.
        copy_budget_ns: What is left of the budget at ``copy_budget_at_ns``.
        lapsed: Relays whose label seems dead, for the composer to take up and clear.
        leased: For which relays the composer last asked labels; ``told``: the direct path's state as last published.
        sized: Whether the composer sees to the sizes of our ways, ``sized_vias``.
    """

    node: bytes
    key: bytes
    since_ns: int
    session: bool = False
    boot: int = -1
    paths: dict[bytes, Path] = {}
    routes: dict[int, Route] = {}
    vias: tuple[bytes, ...] = (DIRECT,)
    wanted: tuple[bytes, ...] = ()
    standby: tuple[bytes, ...] = ()
    order: tuple[bytes, ...] = ()
    deliveries: dict[bytes, Delivery] = {}
    shunned: dict[bytes, int] = {}
    active_ns: int = -1
    heavy_ns: int = -1
    fast: bool = False
    suspicion_ns: int = -1
    burst_ns: int = -NEVER_NS
    copy: bytes | None = None
    copy_ns: int = 0
    copy_budget_ns: int = COPY_BUDGET_NS
    copy_budget_at_ns: int = 0
    review_ns: int = 0
    switched_ns: int = -NEVER_NS
    lapsed: list[bytes] = []
    leased: tuple[bytes, ...] = ()
    told: int = -1
    sized: bool = False
    sized_vias: tuple[bytes, ...] = ()

    # Inputs.

    def begin(self, around: Surroundings, now_ns: int, out: list[OverlayEffect]) -> None:
        """Set the first routes: direct, for each tag of the policy."""
        since_ns = now_ns - HOLD_NS + SETTLE_NS
        for tag, rule in around.config.policy.rules.items():
            self.routes[tag] = Route(Incumbent(DIRECT, since_ns), now_ns, fixed=rule.direct_only)
        self.review_ns = now_ns + CONNECT_NS
        self._order(around, out)

    def obey(self, around: Surroundings, now_ns: int, out: list[OverlayEffect]) -> None:
        """Take other rules: what they forbid is left at once."""
        for tag, rule in around.config.policy.rules.items():
            route = self.routes.setdefault(tag, Route(Incumbent(DIRECT, now_ns), now_ns))
            route.fixed = rule.direct_only
            if rule.direct_only and route.incumbent.via:
                route.incumbent, route.since_ns, route.cause = Incumbent(DIRECT, now_ns), now_ns, "policy"
        self.vias = tuple(dict.fromkeys(one.incumbent.via for one in self.routes.values() if not one.fixed))
        self.review(around, now_ns, out)

    def session_up(self, boot: int, around: Surroundings, now_ns: int) -> None:
        """Begin to probe: there is a session. What was measured in an earlier one is forgotten."""
        if self.session and boot == self.boot:
            return
        self.session, self.boot = True, boot
        self.paths = {}
        self.suspicion_ns, self.shunned, self.deliveries = -1, {}, {}
        for via in dict.fromkeys((DIRECT, *self.vias)):
            self._open(via, around, now_ns)
        self._pace(around, now_ns)
        self.review_ns = now_ns + SECOND_NS

    def session_down(self, now_ns: int) -> None:
        """Stop probing; relays are sought at the next review."""
        self.session = False
        self.paths = {}
        self.suspicion_ns, self.copy = -1, None
        self.since_ns = self.review_ns = now_ns

    def received(
        self, event: ControlReceived, probe: Probe, around: Surroundings, now_ns: int, out: list[OverlayEffect]
    ) -> str | None:
        """Take a probe and the event that brought it; return why it was rejected, or None."""
        via = event.via
        path = self.paths.get(via)
        if path is None:
            if len(self.paths) >= PATHS_PER_PAIR_MAX:
                return "too many paths"
            path = self._made(via, around, now_ns)
            path.want(0, self._floor_ns(around), now_ns)
        owed = path.receive(probe, now_ns)
        if path.heard_ns == now_ns:  # It is the newest of the peer's.
            carried, missing = path.count_data(event.data_sent, event.data_seen)
            if missing >= MISSING_DATA_MIN and missing * MISSING_DATA_PARTS >= carried:
                self._miss(around, now_ns, out)
            if probe.echo_sequence:
                self._deliver(via, path, probe, now_ns)
        if owed:
            out.append(self._send(via, path, around, now_ns, answer=True))
        changed = path.judge(now_ns)
        if changed or self.suspicion_ns >= 0:
            self._react(around, now_ns, out, changed=changed)
        return None

    def flow(self, packets: int, around: Surroundings, now_ns: int, out: list[OverlayEffect]) -> None:
        """Note that data flowed: so many packets since the last time."""
        if packets >= HEAVY_PACKETS:
            self.heavy_ns = now_ns + HEAVY_NS
        woke = now_ns >= self.active_ns
        self.active_ns = now_ns + around.config.paces.active_for_ns
        if woke:
            self._pace(around, now_ns)
            self.review(around, now_ns, out)

    def run(self, around: Surroundings, now_ns: int, out: list[OverlayEffect]) -> None:
        """Do what is due: probes, judgements, the end of copies, the periodic look at all candidates."""
        changed = False
        for via, path in self.paths.items():
            if now_ns >= path.check_ns:
                changed |= path.judge(now_ns)
            if path.is_due(now_ns):
                out.append(self._send(via, path, around, now_ns))
        if changed or self.suspicion_ns >= 0:
            self._react(around, now_ns, out, changed=changed)
        if self.copy is not None and now_ns >= self.copy_ns:
            self._stop_copies(around, now_ns, out)
        if now_ns >= self.review_ns:
            self.review(around, now_ns, out)

    def forgive(self, now_ns: int) -> None:
        """We were stalled: nothing that did not come meanwhile is held against any path."""
        for path in self.paths.values():
            path.forgive(now_ns)

    def restate(self, around: Surroundings, out: list[OverlayEffect]) -> None:
        """Give all orders that hold again."""
        for route in self.routes.values():
            route.given = None
        self._order(around, out)

    @property
    def deadline_ns(self) -> int:
        """When ``run`` is due."""
        due_ns = self.review_ns
        for path in self.paths.values():  # After every input of a pair: comparisons, not min.
            due_ns = min(due_ns, path.due_ns)
            due_ns = min(due_ns, path.check_ns)
        return due_ns if self.copy is None else min(due_ns, self.copy_ns)

    def active(self, now_ns: int) -> bool:
        """Whether traffic flows."""
        return now_ns < self.active_ns

    # Probing.

    def _send(self, via: bytes, path: Path, around: Surroundings, now_ns: int, *, answer: bool = False) -> SendControl:
        return SendControl(self.node, via, encode(path.probe(now_ns, around.jitter(), answer=answer)))

    def _deliver(self, via: bytes, path: Path, probe: Probe, now_ns: int) -> None:
        """Compare what we sent by a path with what the peer says came."""
        delivery = self.deliveries.get(via)
        if delivery is None:
            if not probe.data_sent or len(self.deliveries) >= MEMBERS_MAX:
                return
            delivery = self.deliveries[via] = Delivery()
        if path.judged_by_probes(delivery.anchor_ns):
            delivery.restart(probe.data_sent, probe.data_seen, now_ns)
        elif delivery.report(probe.data_sent, probe.data_seen, path.probed_out(), now_ns):
            path.condemn(delivery.until_ns, delivery.lost_share)

    def _miss(self, around: Surroundings, now_ns: int, out: list[OverlayEffect]) -> None:
        """Some of the peer's data did not come: as good as a missing probe."""
        if self.suspicion_ns < 0 and now_ns - self.switched_ns >= SWITCH_CALM_NS:
            self._suspect(around, now_ns, out)

    def _made(self, via: bytes, around: Surroundings, now_ns: int) -> Path:
        began = int.from_bytes(bytes(around.jitter() for _ in range(4)))
        path = self.paths[via] = Path(now_ns, state_ns=now_ns, sequence=began, began=began)
        delivery = self.deliveries.get(via)
        if delivery is not None:
            path.condemn(delivery.until_ns, delivery.lost_share)
        return path

    def _open(self, via: bytes, around: Surroundings, now_ns: int) -> Path:
        path = self.paths.get(via)
        if path is None:
            path = self._made(via, around, now_ns)
            path.want(around.config.paces.idle_ns, self._floor_ns(around), now_ns)
            path.ask(PROVE if via else GREET, PROVE_GAP_NS, now_ns)
        return path

    def _floor_ns(self, around: Surroundings) -> int:
        paces = around.config.paces
        return paces.active_ns if self.fast else paces.crowded_ns

    def _pace(self, around: Surroundings, now_ns: int) -> None:
        """Give each path the pace of its role; forget relay paths that nobody wants."""
        paces = around.config.paces
        floor_ns, active, vias = self._floor_ns(around), self.active(now_ns), self.vias
        for via, path in tuple(self.paths.items()):
            if via in vias:
                wish_ns = floor_ns if active else paces.idle_relay_ns if via else paces.idle_ns
            elif not via:
                wish_ns = max(paces.watch_ns, floor_ns) if active else paces.idle_ns
            else:
                wish_ns = paces.standby_ns if via in self.standby else 0
            path.want(wish_ns, floor_ns, now_ns)
            if path.idle and now_ns - max(path.heard_ns, path.created_ns) > UNUSED_NS:
                del self.paths[via]

    # Suspicion.

    def _trouble(self) -> tuple[bool, bool]:
        """Return whether a path in use is in doubt, and whether one is bad."""
        doubt = bad = False
        for via in self.vias:
            path = self.paths.get(via)
            if path is None:
                bad |= bool(via)
            elif path.state != PathState.OK:
                doubt |= path.state != PathState.UNKNOWN
                bad |= path.bad
        return doubt, bad

    def _react(self, around: Surroundings, now_ns: int, out: list[OverlayEffect], *, changed: bool) -> None:
        doubt, bad = self._trouble()
        if not doubt and not bad:
            if self.suspicion_ns >= 0 and now_ns >= self.burst_ns + SETTLE_DATA_NS:
                self.suspicion_ns = -1
                self._stop_copies(around, now_ns, out)
                self._pace(around, now_ns)
            return
        if self.suspicion_ns < 0:
            self._suspect(around, now_ns, out)
        elif changed and bad:
            self._burst(around, now_ns)
        if bad and (changed or now_ns - self.suspicion_ns < HURRY_NS):
            self.review(around, now_ns, out)
        elif self.copy is not None:
            self._choose_copy(around, now_ns, out)

    def _suspect(self, around: Surroundings, now_ns: int, out: list[OverlayEffect]) -> None:
        self.suspicion_ns = now_ns
        self._burst(around, now_ns)
        if self.active(now_ns):
            self._settle_budget(now_ns)
            self.copy_ns = now_ns + min(self.copy_budget_ns, COPY_NS_MAX)
            self._choose_copy(around, now_ns, out)

    def _burst(self, around: Surroundings, now_ns: int) -> None:
        if now_ns - self.burst_ns < BURST_PAUSE_NS:
            return
        self.burst_ns = now_ns
        paces = around.config.paces
        active = self.active(now_ns)
        count, gap_ns = (paces.burst, paces.burst_ns) if active else (paces.idle_burst, paces.idle_burst_ns)
        for via in dict.fromkeys((*self.vias, DIRECT, *self.standby)):
            path = self.paths.get(via)
            if path is not None and path.state != PathState.FAILED:
                path.ask(count, gap_ns, now_ns)

    def _choose_copy(self, around: Surroundings, now_ns: int, out: list[OverlayEffect]) -> None:
        """Copy to the best way that is not in doubt and, once it had the time, has answered."""
        chosen: bytes | None = None
        if now_ns < self.copy_ns:
            usable, vias = self.usable_with_direct(around, now_ns), self.vias
            ways = [via for via in self.order if via in usable and via not in vias]
            sound = [via for via in ways if (path := self.paths.get(via)) is not None and path.working]
            chosen = sound[0] if sound else ways[0] if ways else None
        if (chosen is None) != (self.copy is None):
            self._settle_budget(now_ns)
        self.copy = chosen
        self._order(around, out)

    def _settle_budget(self, now_ns: int) -> None:
        """Take from the budget what copies took since the last time, or add what rest brought."""
        since_ns = now_ns - self.copy_budget_at_ns
        if self.copy is None:
            self.copy_budget_ns = min(COPY_BUDGET_NS, self.copy_budget_ns + since_ns // COPY_REFILL_SHARE)
        else:
            self.copy_budget_ns = max(0, self.copy_budget_ns - since_ns)
        self.copy_budget_at_ns = now_ns

    def usable_with_direct(self, around: Surroundings, now_ns: int) -> tuple[bytes, ...]:
        """Return the ways along which the packet device could send at once."""
        return (DIRECT, *around.usable(self.node, now_ns))

    def _stop_copies(self, around: Surroundings, now_ns: int, out: list[OverlayEffect]) -> None:
        if self.copy is not None:
            self._settle_budget(now_ns)
            self.copy = None
        self._order(around, out)

    # Choosing.

    def candidates(self, around: Surroundings, now_ns: int) -> list[Candidate]:
        """Return all ways with the best numbers there are: our own probes end to end, else what members say."""
        path = self.paths.get(DIRECT)
        if path is None:
            found = [Candidate(DIRECT, PathState.FAILED, 0, 0, 0, 0)]
        else:
            own_load = now_ns < self.heavy_ns and DIRECT in self.vias
            found = [_measured(Candidate(DIRECT, path.state, 0, 0, 0, 0), path, own_load=own_load)]
        usable = around.usable(self.node, now_ns)
        vias = self.vias
        for said in around.relays(self.node, now_ns):
            path = self.paths.get(said.via)
            if said.via in vias and said.via not in usable:
                continue  # The relay took its label back: it is gone.
            if path is not None and path.state != PathState.UNKNOWN:
                own_load = now_ns < self.heavy_ns and said.via in vias
                found.append(_measured(said, path, own_load=own_load))
            elif now_ns < self.shunned.get(said.via, now_ns):
                found.append(msgspec.structs.replace(said, state=PathState.FAILED))
            else:
                found.append(said)
        return found

    def ready(self, via: bytes, usable: Sequence[bytes], now_ns: int) -> bool:
        """Whether packets may be sent by this way at once: the far end answered there lately."""
        if via and via not in usable:
            return False
        if not self.session:
            return bool(via)  # Nothing can be proved without a session; the handshake itself will.
        path = self.paths.get(via)
        if path is None or not path.working:
            return False
        return path.heard_ns >= (self.suspicion_ns if self.suspicion_ns >= 0 else now_ns - FRESH_NS)

    def review(self, around: Surroundings, now_ns: int, out: list[OverlayEffect]) -> None:
        """Look at all candidates; switch what should be switched."""
        config = around.config
        for via in [via for via, until_ns in self.shunned.items() if now_ns >= until_ns]:
            del self.shunned[via]
        candidates = self.candidates(around, now_ns)
        usable = around.usable(self.node, now_ns)
        proposed: list[bytes] = []
        ranking: Decision | None = None
        for tag, route in self.routes.items():
            if route.fixed:
                continue
            rule = config.policy.rule(tag)
            route.incumbent.watch(candidates, rule, now_ns)
            decision = decide(route.incumbent, candidates, rule, self.key, now_ns)
            ranking = ranking or decision
            if decision.via != route.incumbent.via and not self.ready(decision.via, usable, now_ns):
                if self.session or now_ns - self.since_ns >= CONNECT_NS:
                    proposed.append(decision.via)
                kept = [
                    one for one in candidates if one.via == route.incumbent.via or self.ready(one.via, usable, now_ns)
                ]
                wished, decision = decision, decide(route.incumbent, kept, rule, self.key, now_ns)
                if not any(one.via == decision.via for one in kept) or self._waits(wished, decision, now_ns):
                    continue
            if decision.via == route.incumbent.via:
                continue
            if not self._held(decision, now_ns):
                self._switch(tag, route, decision, now_ns, out)
            elif decision.via:
                proposed.append(decision.via)
        self._prepare(ranking, proposed, around, now_ns)
        self._pace(around, now_ns)
        doubt, bad = self._trouble()
        if not doubt and not bad and self.suspicion_ns >= 0 and now_ns >= self.burst_ns + SETTLE_DATA_NS:
            self.suspicion_ns = -1
            self._stop_copies(around, now_ns, out)
        elif self.copy is not None:
            self._choose_copy(around, now_ns, out)
        self._order(around, out)
        self._plan_review(around, now_ns, bad=bad or bool(proposed))

    def _plan_review(self, around: Surroundings, now_ns: int, *, bad: bool) -> None:
        paces = around.config.paces
        if bad and self.suspicion_ns >= 0 and now_ns - self.suspicion_ns < HURRY_NS:
            self.review_ns = now_ns + HURRY_REVIEW_NS
        elif bad or self.active(now_ns) or not self.session:
            self.review_ns = now_ns + paces.review_ns
        else:
            # A young pair is looked at more often: its first measurements settle within some seconds.
            review_ns = paces.young_review_ns if now_ns - self.since_ns < YOUNG_NS else paces.idle_review_ns
            self.review_ns = now_ns + review_ns - (review_ns >> 10) * around.jitter()

    def _waits(self, wished: Decision, instead: Decision, now_ns: int) -> bool:
        """Whether to wait for a way that is not ready yet rather than leave a failed one for a far slower way.

        What takes the slower way is late by what it costs more, so waiting that long loses nothing.
        """
        saves_ns = (_cost_us(instead) - _cost_us(wished)) * 1000
        if self.suspicion_ns < 0 or saves_ns < WORTH_NS:
            return False
        return now_ns - self.suspicion_ns < min(saves_ns, PATIENCE_NS)

    def _held(self, decision: Decision, now_ns: int) -> bool:
        """Whether a change that is not urgent must wait: for the end of a doubt, for proof, for direct to be clean."""
        if decision.cause not in ("better", "slow", "recovered"):
            return False
        if self.suspicion_ns >= 0:
            return True
        path = self.paths.get(decision.via)
        if decision.via:
            return path is None or now_ns - path.created_ns < PROVED_NS
        if decision.cause != "recovered" or path is None:
            return False
        return path.good_ns < 0 or (now_ns - path.good_ns < CLEAN_NS and self.switched_ns != -NEVER_NS)

    def _switch(self, tag: int, route: Route, decision: Decision, now_ns: int, out: list[OverlayEffect]) -> None:
        before = route.incumbent.via
        path = self.paths.get(before)
        evidence = decision.evidence
        if path is not None and path.bad:
            evidence = f"{path.reason}, {path.lost_words(now_ns)}; {evidence}"
            if before:
                self.shunned[before] = max(now_ns + SHUN_NS, path.condemned_ns)
                self.lapsed.append(before)
        evidence = _shortened(evidence)
        took_ns = now_ns - self.suspicion_ns if self.suspicion_ns >= 0 else 0
        route.incumbent.take(decision, now_ns)
        self.vias = tuple(dict.fromkeys(one.incumbent.via for one in self.routes.values() if not one.fixed))
        route.since_ns, route.cause, route.evidence = now_ns, decision.cause, evidence
        self.switched_ns = now_ns
        switch = Switch(now_ns, tag, before, decision.via, decision.cause, evidence, took_ns)
        route.history = [*route.history[1 - HISTORY_MAX :], switch]
        # Tags mostly move together; people want to read it once.
        said = [(one.via, one.before) for one in out if isinstance(one, RouteNotice) and one.node == self.node]
        if (decision.via, before) not in said:
            out.append(RouteNotice(self.node, tag, decision.via, before, decision.cause, evidence, took_ns))

    def _prepare(self, ranking: Decision | None, proposed: list[bytes], around: Surroundings, now_ns: int) -> None:
        """Choose the relays to keep ready, and open paths through those that granted labels."""
        ranked = (
            []
            if ranking is None
            else [one.candidate.via for one in ranking.ranked if one.candidate.state != PathState.FAILED]
        )
        self.order = tuple(ranked[: CANDIDATES_MAX + STICKY + 1])
        direct = self.paths.get(DIRECT)
        troubled = (direct.bad if direct is not None else now_ns - self.since_ns >= CONNECT_NS) or self._trouble()[1]
        wanted = [via for via in proposed if via]
        if self.active(now_ns) or troubled:
            relays = [via for via in ranked if via]
            kept = [via for via in self.standby if via in relays[: CANDIDATES_MAX + STICKY]]
            wanted += [*relays[:1], *kept, *relays[1:]]
        self.standby = tuple(dict.fromkeys(wanted))[:CANDIDATES_MAX]
        self.wanted = tuple(dict.fromkeys(via for via in (*self.vias, *self.standby) if via))
        if self.session:
            usable = around.usable(self.node, now_ns)
            for via in self.standby:
                if via in usable and via not in self.paths and len(self.paths) < PATHS_PER_PAIR_MAX:
                    self._open(via, around, now_ns)
        for via, path in self.paths.items():
            if via and path.state == PathState.FAILED and via not in self.shunned and via in self.standby:
                self.shunned[via] = now_ns + SHUN_NS
                self.lapsed.append(via)

    def _order(self, around: Surroundings, out: list[OverlayEffect]) -> None:
        """Tell the packet device what it does not know yet."""
        for tag, route in self.routes.items():
            via, also, limit, rule = route.incumbent.via, self.copy, 0, around.config.policy.rule(tag)
            if also is not None and (route.fixed or also == via or not rule.allows(also)):
                also = None
            if also is None and rule.copy_bytes:
                also, limit = self._second(via, rule), rule.copy_bytes
            if also is None:
                limit = 0
            if route.given != (via, also, limit):
                route.given = (via, also, limit)
                out.append(SetRoute(self.node, tag, via, also, limit))

    def _second(self, via: bytes, rule: Rule) -> bytes | None:
        """Return the best other way that works and that a rule allows."""
        for other in self.order:
            path = self.paths.get(other)
            if other != via and rule.allows(other) and path is not None and path.working:
                return other
        return None


def _shortened(evidence: str) -> str:
    """Return as much of a text as may be kept, whole words and numbers only."""
    if len(evidence) <= EVIDENCE_CHARS_MAX:
        return evidence
    return evidence[:EVIDENCE_CHARS_MAX].rpartition(" ")[0].rstrip(" ,;:")


def _cost_us(decision: Decision) -> int:
    """Return what the way that was decided on costs."""
    return next((one.score_us for one in decision.ranked if one.candidate.via == decision.via), 0)


def _measured(said: Candidate, path: Path, *, own_load: bool) -> Candidate:
    """Return a candidate with the numbers of our own probes in place of what is said.

    With ``own_load`` the queue that our own data make is not held against the way: they would make it on any other.
    """
    predicted_us = min(path.predicted_us, path.latency.floor_us) if own_load else path.predicted_us
    ranks = path.measured or path.bad or not said.via
    return Candidate(
        said.via,
        PathState.OK if path.reason == Reason.MISSING else path.state,
        predicted_us or said.rtt_us,
        path.deviation_us,
        path.loss_out() if ranks else said.loss_out,
        path.loss_in() if ranks else said.loss_in,
        said.load,
        said.will,
        said.slow,
    )
