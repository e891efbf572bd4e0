# SPDX-License-Identifier: Apache-2.0
"""Decides which way packets go: the composite machine of the overlay.

It composes one ``Pair`` for each other member (probes, suspicion, routes), the table of what members say of their
links, the reporter of our own links, and the label leases. It adds membership, the places for fast probing, the
detection of our own stalls, and the one deadline. Everything a member sends is bounded and counted; nothing raises.

Inputs: ``overlay/reports.py``. Effects: ``overlay/orders.py``. Messages: docs/spec/control.md.
"""

from typing import Final, final

import msgspec

from atoll.base.errors import CorruptError, UsageError, WireError
from atoll.base.ids import DIRECT, is_tcp
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.core.entropy import Draws
from atoll.core.machine import MachineKind, Tick
from atoll.overlay.choice import Candidate, PathState, through
from atoll.overlay.config import Config, will_number
from atoll.overlay.evidence import Explanation, PeerReport
from atoll.overlay.explain import explain, peer_report
from atoll.overlay.labels import LabelEffect, LabelMessage, Labels, LabelsConfig, Say
from atoll.overlay.limits import FAST_PAIRS_MAX, MEMBERS_MAX, REJECT_REASONS_MAX
from atoll.overlay.linkstate import LinkReporter, LinkTable
from atoll.overlay.messages import (
    LabelNotice,
    Link,
    LinkState,
    OverlayMessage,
    Place,
    Probe,
    decode,
    encode,
)
from atoll.overlay.orders import DropTransmitLabel, OverlayEffect, SendControl, SuggestEndpoint
from atoll.overlay.pair import Pair
from atoll.overlay.path import NEVER_NS, TOGETHER_NS, Path, Reason
from atoll.overlay.policy import Policy
from atoll.overlay.reports import (
    ControlReceived,
    EndpointSeen,
    FlowSeen,
    MembersChanged,
    NetworkChanged,
    NicRestarted,
    OverlayInput,
    PolicyChanged,
    RelayMetered,
    RelaysShunned,
    SessionDown,
    SessionUp,
    SizePassed,
    SizesAsked,
)
from atoll.overlay.sizes import Sizes

__all__ = ["KIND", "Mesh"]

STALL_NS: Final = 60 * MILLISECOND_NS  # A Tick later than this means that we were not running.
ASLEEP_NS: Final = 5 * SECOND_NS  # Later still: the machine slept, and may have woken elsewhere.
MOVED_ASKS: Final = 10  # Questions to each member after we may have moved: three prove the new place (relay.md, 5).
MOVED_GAP_NS: Final = 50 * MILLISECOND_NS
REPORT_NS: Final = 5 * SECOND_NS  # How often numbers of our links are compared with what was told.
HEARSAY_NS: Final = SECOND_NS  # What a relay says of its links is looked at after this; our own probes are faster.
DEVIATION_US_MAX: Final = 0xFFFF  # Told at most: a link then has 28 bytes at most, and 40 of them fit a message.
JITTERS: Final = 32  # Jitters drawn at a time.
# Where members behind NATs are is said again after the first of these, because who has just been told may not know that
# member yet, or have no session with it; then after twice as long each time, up to the second.
PLACES_NS_MIN: Final = 2 * SECOND_NS
PLACES_NS_MAX: Final = 30 * SECOND_NS
INTRODUCED_NS: Final = SECOND_NS  # Limit. A life takes longer to begin; who claims to begin more often is not answered.
PUNCHES: Final = 16  # Questions to a suggested place, so that both NATs open while both ends knock ...
PUNCH_GAP_NS: Final = 250 * MILLISECOND_NS


@final
class _State(msgspec.Struct):
    """All that a snapshot holds."""

    config: Config
    draws: Draws
    table: LinkTable
    reporter: LinkReporter
    labels: Labels
    now_ns: int
    report_ns: int
    pairs: dict[bytes, Pair] = {}
    rejects: dict[str, int] = {}
    jitters: bytes = b""
    listed: dict[bytes, tuple[tuple[str, int], ...]] = {}  # Where members say that they are.
    places: dict[bytes, tuple[str, int]] = {}  # Where we see those that are elsewhere.
    over_tcp: set[bytes] = set()  # Members that the packet device reaches over TCP now.
    introduced_ns: dict[bytes, int] = {}  # Until then we say nothing to a member that says again that it began anew.
    places_ns: int = NEVER_NS
    places_gap_ns: int = PLACES_NS_MIN
    sizes: Sizes = msgspec.field(default_factory=Sizes)
    shunned: tuple[bytes, ...] = ()  # Slow machines.


@final
class Mesh:
    """The overlay of one node.

    Args:
        config: Built once by the composition root.
        seed: 1 to 32 random bytes; all jitter, labels and label keys follow from them.
        now_ns: Monotonic time of creation, ns.
    """

    def __init__(self, config: Config, seed: bytes, now_ns: int) -> None:
        labels = Labels(
            config.node,
            Draws(seed + b"labels"),
            LabelsConfig(will=will_number(config.relay), budget_bytes_s=config.relay_bytes_s),
        )
        reporter = LinkReporter(config.boot, Draws(seed + b"reports"), full_due_ns=now_ns + SECOND_NS)
        self._state = _State(config, Draws(seed), LinkTable(), reporter, labels, now_ns, now_ns + REPORT_NS)
        self._pairs = self._state.pairs
        self._due: dict[bytes, int] = {}  # Derived: when each pair wants to run.
        self._deadline_ns: int | None = None

    @property
    def deadline_ns(self) -> int | None:
        """When a ``Tick`` is owed, ns; None: there is no other member."""
        return self._deadline_ns

    def _plan(self) -> None:
        """Derive the deadline: a plain minimum, which for 64 members is faster than a heap kept up to date."""
        state = self._state
        if not self._due:
            self._deadline_ns = None
            return
        due_ns = min(
            *self._due.values(), state.report_ns, state.reporter.due_ns, state.sizes.deadline_ns, state.places_ns
        )
        labels_ns = state.labels.deadline_ns
        self._deadline_ns = due_ns if labels_ns is None else min(due_ns, labels_ns)

    def handle(self, event: OverlayInput, now_ns: int) -> tuple[OverlayEffect, ...]:
        """Apply one input; return what to do, in order.

        Raises:
            UsageError: Time went back. Nothing that a member sends can raise.
        """
        state = self._state
        if now_ns < state.now_ns:
            raise UsageError(f"{type(event).__name__} at {now_ns} ns, after {state.now_ns} ns")
        out: list[OverlayEffect] = []
        deadline_ns = self._deadline_ns
        if deadline_ns is not None and now_ns - deadline_ns > STALL_NS:
            for node, pair in self._pairs.items():
                pair.forgive(now_ns)
                self._due[node] = pair.deadline_ns
            if now_ns - deadline_ns > ASLEEP_NS:
                self._ask_all(now_ns)
        state.now_ns = now_ns
        match event:
            case ControlReceived():
                self._received(event, now_ns, out)
            case Tick():
                self._tick(now_ns, out)
            case FlowSeen():
                self._flow(event, now_ns, out)
            case SessionUp(node, boot):
                self._session_up(node, boot, now_ns, out)
            case SessionDown(node):
                self._session_down(node, now_ns, out)
            case MembersChanged():
                self._members(event, now_ns, out)
            case EndpointSeen(node, host, port):
                self._seen(node, (host, port), now_ns, out)
            case NetworkChanged():
                self._ask_all(now_ns)
            case SizePassed(node, token):
                out += state.sizes.passed(node, token)
            case SizesAsked(node):
                if node in self._pairs:
                    out += state.sizes.ask(node, self.via(node), now_ns)
            case PolicyChanged(policy):
                self._policy(policy, now_ns, out)
            case RelaysShunned(nodes):
                self._shun(nodes, now_ns, out)
            case RelayMetered(label, forwarded_bytes):
                self._perform(state.labels.meter(label, forwarded_bytes, now_ns), out)
            case NicRestarted():
                self._perform(state.labels.restate(now_ns), out)
                out += state.sizes.restate()
                for node, pair in self._pairs.items():
                    pair.session_down(now_ns)  # They went with the device and come again; meanwhile nothing is lost.
                    pair.restate(self, out)
                    self._due[node] = pair.deadline_ns
        self._plan()
        return tuple(out)

    def snapshot(self) -> bytes:
        """Return the whole state as MessagePack bytes."""
        return msgspec.msgpack.encode(self._state)

    @staticmethod
    def restore(data: bytes) -> "Mesh":
        """Return the machine whose ``snapshot`` this is.

        Raises:
            CorruptError: The bytes do not decode.
        """
        try:
            state = msgspec.msgpack.decode(data, type=_State)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptError("a snapshot of the overlay does not decode") from error
        mesh = Mesh(state.config, state.draws.seed, state.now_ns)
        mesh._state, mesh._pairs = state, state.pairs
        mesh._due = {node: pair.deadline_ns for node, pair in state.pairs.items()}
        mesh._plan()
        return mesh

    # Reading; none of these changes anything.

    def members(self) -> tuple[bytes, ...]:
        """Return the ids of the other members."""
        return tuple(self._pairs)

    def life(self, node: bytes) -> int:
        """Return a number that a member has anew each time it starts; 0: it has said nothing yet."""
        return self._state.table.boot(node)

    def peer_report(self, node: bytes, now_ns: int) -> PeerReport | None:
        """Return how one member stands; None: not a member."""
        pair = self._pairs.get(node)
        return None if pair is None else peer_report(pair, now_ns)

    def round_trip(self, node: bytes) -> tuple[int, int] | None:
        """Return when the direct path was last heard, ns, and its newest round trip, us; None: it has none."""
        pair = self._pairs.get(node)
        path = None if pair is None else pair.paths.get(DIRECT)
        return None if path is None or path.heard_ns < 0 or not path.rtt_us else (path.heard_ns, path.rtt_us)

    def sizes(self, node: bytes) -> tuple[int, bool | None, bool]:
        """Return what the way of our own messages to a member carries, as ``Sizes.known`` says."""
        return self._state.sizes.known(node, self.via(node))

    def explain(self, node: bytes, tag: int, now_ns: int) -> Explanation | None:
        """Return why packets of a tag take the path that they take; None: not a member, or the tag has no route."""
        pair = self._pairs.get(node)
        return None if pair is None else explain(pair, self, tag, now_ns)

    def rejects(self) -> dict[str, int]:
        """Return how many inputs were dropped, by reason."""
        return {**self._state.rejects, "stale link state": self._state.table.ignored}

    def relay_load(self, now_ns: int) -> int:
        """Return our relay load as others hear it, 0 to 255."""
        return self._state.labels.load(now_ns)

    # What pairs may know (``Surroundings``).

    @property
    def config(self) -> Config:
        """What the overlay was told."""
        return self._state.config

    def relays(self, target: bytes, now_ns: int) -> list[Candidate]:
        """Return the relays that could reach a member, by what members say of their links."""
        table = self._state.table
        found: list[Candidate] = []
        for node, pair in self._pairs.items():
            if node == target or not pair.session:
                continue
            second = table.link(node, target, now_ns)
            if second is not None:
                slow = node in self._state.shunned
                found.append(through(_link(pair), second, table.load(node), table.will(node), slow=slow))
        return found

    def usable(self, target: bytes, now_ns: int) -> tuple[bytes, ...]:
        """Return the relays that hold labels for us and a member, as far as we have sessions with them."""
        return tuple(
            relay
            for relay in self._state.labels.usable(target, now_ns)
            if (pair := self._pairs.get(relay)) is not None and pair.session
        )

    def jitter(self) -> int:
        """Return a random integer, 0 to 255."""
        state = self._state
        if not state.jitters:
            state.jitters = state.draws.token(JITTERS)
        drawn = state.jitters[-1]
        state.jitters = state.jitters[:-1]
        return drawn

    # Inputs.

    def _reject(self, reason: str) -> None:
        rejects = self._state.rejects
        if reason in rejects or len(rejects) < REJECT_REASONS_MAX:
            rejects[reason] = rejects.get(reason, 0) + 1

    def _received(self, event: ControlReceived, now_ns: int, out: list[OverlayEffect]) -> None:
        pair = self._pairs.get(event.node)
        if pair is None or not pair.session:
            self._reject("control message without a session")
            return
        try:
            message: OverlayMessage = decode(event.payload)
        except WireError as error:
            self._reject(error.reason)
            return
        if isinstance(message, Probe):
            if event.via and (event.via not in self._pairs or event.via == event.node):
                self._reject("probe by an unknown way")
                return
            rejected = pair.received(event, message, self, now_ns, out)
            if rejected is not None:
                self._reject(rejected)
            self._settle(event.node, pair, now_ns, out)
        elif isinstance(message, LinkState):
            self._told_links(event.node, message, now_ns, out)
        elif isinstance(message, Place):
            self._told_place(message, now_ns, out)
        else:
            self._label(event.node, message, now_ns, out)

    def _told_links(self, node: bytes, message: LinkState, now_ns: int, out: list[OverlayEffect]) -> None:
        table, state = self._state.table, self._state
        before = table.boot(node)
        if table.apply(node, message, now_ns):
            self._hurry(node, now_ns)
        if table.boot(node) != before and now_ns >= state.introduced_ns.get(node, 0):
            # Another life of it, which knows nothing; our session with it may be one that its packet device had before.
            state.introduced_ns[node] = now_ns + INTRODUCED_NS
            self._introduce(node, out)
            for other in state.places:
                self._tell_place(other, node, out)
            self._tell_places_soon(now_ns)

    def _introduce(self, node: bytes, out: list[OverlayEffect]) -> None:
        state = self._state
        load, will = state.labels.load(state.now_ns), will_number(state.config.relay)
        introduction = state.reporter.introduction(self._own_links(), load, will)
        out.extend(SendControl(node, self.via(node), encode(message)) for message in introduction)

    def _ask_all(self, now_ns: int) -> None:
        """We may be elsewhere: let everybody hear it, and find out at once which direct paths there are."""
        for node, pair in self._pairs.items():
            path = pair.paths.get(DIRECT)
            if path is not None:
                path.ask(MOVED_ASKS, MOVED_GAP_NS, now_ns)
                self._due[node] = pair.deadline_ns

    def _seen(self, node: bytes, place: tuple[str, int], now_ns: int, out: list[OverlayEffect]) -> None:
        """Tell the others where a member is that a NAT has put elsewhere: so two behind NATs can meet."""
        state = self._state
        if node not in self._pairs:
            return
        if is_tcp(place):  # Nobody else can use our connection.
            state.over_tcp.add(node)
            return
        if node in state.over_tcp:  # What a stream carried says nothing of what datagrams may be.
            state.over_tcp.discard(node)
            out += state.sizes.began_anew(node, DIRECT, now_ns)
        if place in state.listed.get(node, ()):
            state.places.pop(node, None)
        elif state.places.get(node) != place:
            state.places[node] = place
            self._tell_places_soon(now_ns)
            for other in self._pairs:
                self._tell_place(node, other, out)

    def _tell_places_soon(self, now_ns: int) -> None:
        state = self._state
        if state.places:
            state.places_gap_ns, state.places_ns = PLACES_NS_MIN, now_ns + PLACES_NS_MIN

    def _tell_places(self, now_ns: int, out: list[OverlayEffect]) -> None:
        """Say again where members are: what was told before got lost, or came too early to be of use."""
        state = self._state
        state.places_gap_ns = min(2 * state.places_gap_ns, PLACES_NS_MAX)
        state.places_ns = now_ns + state.places_gap_ns if state.places else NEVER_NS
        for node in state.places:
            for other in self._pairs:
                self._tell_place(node, other, out)

    def _tell_place(self, node: bytes, other: bytes, out: list[OverlayEffect]) -> None:
        if other != node and self._pairs[other].session:
            said = encode(Place(node, *self._state.places[node]))
            out.append(SendControl(other, self.via(other), said))

    def _told_place(self, place: Place, now_ns: int, out: list[OverlayEffect]) -> None:
        pair = self._pairs.get(place.node)
        if pair is None or (place.host, place.port) in self._state.listed.get(place.node, ()):
            return
        path = pair.paths.get(DIRECT)
        if path is None or not path.working:
            out.append(SuggestEndpoint(place.node, place.host, place.port))
            if path is not None:
                path.ask(PUNCHES, PUNCH_GAP_NS, now_ns)
                self._due[place.node] = pair.deadline_ns

    def _hurry(self, origin: bytes, now_ns: int) -> None:
        """A member's links changed: pairs that use it as a relay, or suffer, look again soon."""
        for node, pair in self._pairs.items():
            if origin in pair.wanted or pair.suspicion_ns >= 0:
                wait_ns = 0 if pair.suspicion_ns >= 0 else HEARSAY_NS
                pair.review_ns = min(pair.review_ns, now_ns + wait_ns)
                self._due[node] = pair.deadline_ns

    def _label(self, sender: bytes, message: LabelMessage, now_ns: int, out: list[OverlayEffect]) -> None:
        labels = self._state.labels
        other = message.origin if isinstance(message, LabelNotice) else message.target
        before = labels.usable(other, now_ns)
        self._perform(labels.handle(sender, message, now_ns, self._linked), out)
        pair = self._pairs.get(other)
        if pair is not None and labels.usable(other, now_ns) != before:
            pair.review(self, now_ns, out)
            self._settle(other, pair, now_ns, out)

    def _linked(self, node: bytes) -> bool:
        pair = self._pairs.get(node)
        path = None if pair is None else pair.paths.get(DIRECT)
        return path is not None and path.state not in (PathState.FAILED, PathState.UNKNOWN)

    def _flow(self, event: FlowSeen, now_ns: int, out: list[OverlayEffect]) -> None:
        pair = self._pairs.get(event.node)
        if pair is None:
            self._reject("flow of a stranger")
            return
        fast = pair.fast and pair.active(now_ns)
        if not fast:
            fast = sum(other.fast and other.active(now_ns) for other in self._pairs.values()) < FAST_PAIRS_MAX
        if fast != pair.fast:
            pair.fast = fast
            pair.active_ns = -1  # It wakes anew, at the other pace.
        pair.flow(event.sent + event.received, self, now_ns, out)
        self._settle(event.node, pair, now_ns, out)

    def _session_up(self, node: bytes, boot: int, now_ns: int, out: list[OverlayEffect]) -> None:
        pair = self._pairs.get(node)
        if pair is None:
            self._reject("session of a stranger")
            return
        pair.session_up(boot, self, now_ns)
        self._introduce(node, out)
        pair.run(self, now_ns, out)
        for other in self._state.places:
            self._tell_place(other, node, out)
        self._tell_places_soon(now_ns)
        self._settle(node, pair, now_ns, out)

    def _session_down(self, node: bytes, now_ns: int, out: list[OverlayEffect]) -> None:
        pair = self._pairs.get(node)
        if pair is None or not pair.session:
            return
        pair.session_down(now_ns)
        self._settle(node, pair, now_ns, out)
        for other, user in self._pairs.items():
            if node in user.wanted:
                user.review(self, now_ns, out)
                self._settle(other, user, now_ns, out)

    def _members(self, event: MembersChanged, now_ns: int, out: list[OverlayEffect]) -> None:
        state = self._state
        wanted = {member.node: member for member in event.members if member.node != state.config.node}
        nodes = list(wanted)[:MEMBERS_MAX]
        state.listed = {node: wanted[node].endpoints for node in nodes}
        if len(wanted) > MEMBERS_MAX:
            self._reject("members beyond the limit")
        for node in [node for node in self._pairs if node not in nodes]:
            del self._pairs[node], self._due[node]
            state.table.forget(node)
            state.sizes.forget(node)
            state.places.pop(node, None)
            state.introduced_ns.pop(node, None)
            state.over_tcp.discard(node)
        self._perform(state.labels.set_members(nodes), out)
        for node in nodes:
            if node not in self._pairs:
                key = min(node, state.config.node) + max(node, state.config.node)
                pair = self._pairs[node] = Pair(node, key, now_ns)
                pair.begin(self, now_ns, out)
                self._due[node] = pair.deadline_ns
                self._tell_places_soon(now_ns)
        for node, pair in self._pairs.items():
            if any(via not in self._pairs for via in pair.wanted):
                pair.review(self, now_ns, out)
                self._settle(node, pair, now_ns, out)

    def _policy(self, policy: Policy, now_ns: int, out: list[OverlayEffect]) -> None:
        state = self._state
        state.config = msgspec.structs.replace(state.config, policy=policy)
        for node, pair in self._pairs.items():
            pair.obey(self, now_ns, out)
            self._settle(node, pair, now_ns, out)

    def _shun(self, nodes: tuple[bytes, ...], now_ns: int, out: list[OverlayEffect]) -> None:
        """Others are slow now: pairs that use one as a relay, or did not because it was, look again."""
        state = self._state
        changed = [node for node in self._pairs if (node in nodes) != (node in state.shunned)]
        state.shunned = nodes
        for node, pair in self._pairs.items():
            if any(relay in pair.wanted for relay in changed):
                pair.review(self, now_ns, out)
                self._settle(node, pair, now_ns, out)

    def _tick(self, now_ns: int, out: list[OverlayEffect]) -> None:
        state = self._state
        soon_ns = now_ns + TOGETHER_NS
        for node, due_ns in self._due.items():
            if now_ns >= due_ns or (soon_ns >= due_ns and not self._pairs[node].active(now_ns)):
                pair = self._pairs[node]
                pair.run(self, now_ns, out)
                self._settle(node, pair, now_ns, out)
        if now_ns >= state.sizes.deadline_ns:
            out += state.sizes.tick(now_ns)
        labels_ns = state.labels.deadline_ns
        if labels_ns is not None and now_ns >= labels_ns:
            effects = state.labels.tick(now_ns)
            self._perform(effects, out)
            for effect in effects:
                if isinstance(effect, DropTransmitLabel) and effect.node in self._pairs:  # A lease ended.
                    pair = self._pairs[effect.node]
                    pair.review(self, now_ns, out)
                    self._settle(effect.node, pair, now_ns, out)
        if now_ns >= state.places_ns:
            self._tell_places(now_ns, out)
        if self._pairs and (now_ns >= state.report_ns or now_ns >= state.reporter.due_ns):
            self._report(now_ns, out)

    # Parts.

    def _settle(self, node: bytes, pair: Pair, now_ns: int, out: list[OverlayEffect]) -> None:
        """After a pair acted: lease what it wants, publish a change of its direct path, note its deadline."""
        if pair.wanted != pair.leased:
            pair.leased = pair.wanted
            self._perform(self._state.labels.want(node, pair.leased, now_ns), out)
        if pair.lapsed:
            for relay in pair.lapsed:
                self._perform(self._state.labels.suspect(node, relay, now_ns), out)
            pair.lapsed = []
        state = _published(pair.paths.get(DIRECT))
        if state != pair.told:
            pair.told = state
            self._report(now_ns, out)
        if pair.active(now_ns) != pair.sized or (pair.sized and pair.vias != pair.sized_vias):
            pair.sized, pair.sized_vias = pair.active(now_ns), pair.vias
            out += self._state.sizes.use(node, pair.vias if pair.sized else (), now_ns)
        self._due[node] = pair.deadline_ns

    def _own_links(self) -> list[Link]:
        return [_link(pair) for pair in self._pairs.values()]

    def via(self, node: bytes) -> bytes:
        """Return the way of our own messages to a member, that of its default traffic; direct to anybody else."""
        pair = self._pairs.get(node)
        if pair is not None:
            for route in pair.routes.values():
                return route.incumbent.via
        return DIRECT

    def _report(self, now_ns: int, out: list[OverlayEffect]) -> None:
        state = self._state
        state.report_ns = now_ns + REPORT_NS
        load, will = state.labels.load(now_ns), will_number(state.config.relay)
        for message in state.reporter.messages(self._own_links(), load, will, now_ns):
            payload = encode(message)
            out.extend(SendControl(node, self.via(node), payload) for node, pair in self._pairs.items() if pair.session)

    def _perform(self, effects: tuple[LabelEffect, ...], out: list[OverlayEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Say):
                if effect.node in self._pairs:
                    out.append(SendControl(effect.node, self.via(effect.node), encode(effect.message)))
            else:
                out.append(effect)


def _published(path: Path | None) -> int:
    if path is None:
        return PathState.FAILED
    return PathState.OK if path.reason == Reason.MISSING else path.state


def _link(pair: Pair) -> Link:
    """Return our direct link to a member as we tell it."""
    path = pair.paths.get(DIRECT)
    if path is None:
        return Link(pair.node, 0, 0, 0, 0, PathState.FAILED)
    return Link(
        pair.node,
        path.predicted_us,
        min(path.deviation_us, DEVIATION_US_MAX),
        path.loss_out(),
        path.loss_in(),
        _published(path),
    )


KIND: Final[MachineKind[OverlayInput, OverlayEffect]] = MachineKind(
    name="overlay", version=1, inputs=OverlayInput, effects=OverlayEffect, restore=Mesh.restore
)
