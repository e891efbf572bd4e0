# SPDX-License-Identifier: Apache-2.0
"""What a node tells people and programs about itself: the versioned answers of the local API and of ``--json``.

Changes within a version are additive only. Unknown numbers are None and shown as ``-``; 0 always means zero.
"""

from typing import Final

import msgspec

from atoll.base.errors import UserError

__all__ = [
    "ENDED_NAME",
    "AilmentView",
    "CanView",
    "CandidateView",
    "ClientConfigView",
    "ClientView",
    "ComponentView",
    "DiagnosisView",
    "FindingView",
    "ForwardView",
    "HealthView",
    "InviteView",
    "MetricsView",
    "PeerView",
    "PingView",
    "Problem",
    "Ready",
    "RelayView",
    "ServiceView",
    "StatusView",
    "SwitchView",
    "WhyView",
]

STATUS_SCHEMA: Final = "atoll.status/1"
WHY_SCHEMA: Final = "atoll.why/1"
PING_SCHEMA: Final = "atoll.ping/1"
INVITE_SCHEMA: Final = "atoll.invite/1"
FORWARD_SCHEMA: Final = "atoll.forward/1"
READY_SCHEMA: Final = "atoll.ready/1"
DOOR_SCHEMA: Final = "atoll.private/1"
ATTACHED_SCHEMA: Final = "atoll.attached/1"
EVENT_SCHEMA: Final = "atoll.event/1"
CAN_SCHEMA: Final = "atoll.can/1"
CLIENT_SCHEMA: Final = "atoll.client/1"
CLIENT_CONFIG_SCHEMA: Final = "atoll.client-config/1"
HEALTH_SCHEMA: Final = "atoll.health/1"
METRICS_SCHEMA: Final = "atoll.metrics/1"


ENDED_NAME: Final = "ended.json"  # File of the state directory: the ``Problem`` with which the node ended by itself.


class Problem(msgspec.Struct, frozen=True):
    """A ``UserError`` on its way between processes."""

    code: str
    sentence: str
    where: str = ""
    fix: str = ""

    def error(self) -> UserError:
        """Return the exception that this describes."""
        return UserError(self.code, self.sentence, where=self.where, fix=self.fix)


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """What ``atoll up`` prints once the node runs. Times in seconds."""

    schema: str = READY_SCHEMA
    version: str
    name: str
    group: str
    mode: str
    address: str
    listen: str
    invite: str | None
    invite_valid_s: int | None
    ready_s: float
    joined: bool


class DoorView(msgspec.Struct, frozen=True, kw_only=True):
    """How to enter the node's private network; ``pid`` 0: there is none, because the whole machine has the overlay.

    ``mark`` goes into the environment of a program that asked for a tag, see ``host/owners.py``.
    """

    schema: str = DOOR_SCHEMA
    pid: int
    user: int
    net: int
    resolver: str
    search: str
    mark: str = ""


class CanView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one machine may reach a port of another. ``rule`` is empty when the default decides.

    ``line`` is the rule's place in the file of the machine that is reached; ``told_by`` that machine, if it was asked.
    """

    schema: str = CAN_SCHEMA
    source: str
    target: str
    protocol: str
    port: int
    allowed: bool
    rule: str = ""
    line: str = ""
    told_by: str | None = None


class ClientView(msgspec.Struct, frozen=True, kw_only=True):
    """A client with stock WireGuard software. ``served_by`` is the member that it is connected to; None: to none.

    ``endpoint`` is where the client is, as the member that is asked knows it; None: it is connected elsewhere.
    """

    schema: str = CLIENT_SCHEMA
    name: str
    address: str
    public_key: str
    served_by: str | None = None
    endpoint: str | None = None


class ClientConfigView(msgspec.Struct, frozen=True, kw_only=True):
    """A new client, and the configuration file of its WireGuard software, with the only copy of its private key."""

    schema: str = CLIENT_CONFIG_SCHEMA
    name: str
    address: str
    public_key: str
    config: str


class AttachedView(msgspec.Struct, frozen=True, kw_only=True):
    """A program is attached: ``node`` is the machine that a connection leads to, empty for datagrams."""

    schema: str = ATTACHED_SCHEMA
    node: str = ""


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """News of one other member; before and after as ``PeerView`` has them.

    ``what`` is joined, left, state or path; alive: there are none. A path is the relay's name, empty for direct.
    """

    schema: str = EVENT_SCHEMA
    peer: str
    what: str
    before: str = ""
    after: str = ""
    why: str = ""


class PeerView(msgspec.Struct, frozen=True, kw_only=True):
    """One other member. ``state`` is ok, degraded, away or connecting; ``via`` is None for the direct path.

    Loss is a share, 0 to 1, the worse of both directions on the path in use. Ages in seconds. ``dropped`` counts what
    came out of its session and was dropped, by reason, since the packet device started; at most some seconds old.
    """

    name: str
    node: str
    address: str
    state: str
    via: str | None
    rtt_ms: float | None
    deviation_ms: float | None
    loss: float | None
    why: str
    last_heard_s: float | None
    session: bool
    relay: str
    endpoint: str | None
    dropped: dict[str, int] = {}


class RelayView(msgspec.Struct, frozen=True, kw_only=True):
    """What this node forwards for others."""

    will: str
    bytes_s: int
    budget_bytes_s: int
    pairs: int
    forwarded_bytes: int


class ComponentView(msgspec.Struct, frozen=True, kw_only=True):
    """How fast one component is. ``state`` is unknown, ok, stutter, slow or failed; ``usual_ms`` its own past.

    ``by`` is empty where this node finds it, ``others`` where only they do. ``text`` says it in words. ``confidence``
    is how sure it is that it is slower than it should be, 0 to 100; ``evidence`` which tests say so.
    """

    name: str
    state: str
    since_s: float | None
    usual_ms: float | None
    newest_ms: float | None
    samples: int
    by: str = ""
    confidence: int | None = None
    text: str = ""
    evidence: tuple[str, ...] = ()


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``status``. ``degraded`` decides ``--check``'s exit status 4: a peer that is not ok, or a warning.

    ``warnings`` are sentences; one that begins with a code has an entry in the catalogue. ``dropped`` counts what the
    packet device dropped since it started, by reason (``device/nic/counters.py``); at most some seconds old.
    ``environments`` run on this node; ``datagrams`` are small messages that their server has sent to those of others
    since it started, by fate (``sent``, ``resent``, ``lost``, ``dropped``); at most a second old.
    """

    schema: str = STATUS_SCHEMA
    version: str
    name: str
    node: str
    address: str
    group: str
    roster_version: str
    uptime_s: float
    listen: str
    peers: tuple[PeerView, ...]
    relaying: RelayView
    degraded: bool
    warnings: tuple[str, ...] = ()
    device: str = ""
    dropped: dict[str, int] = {}
    components: tuple[ComponentView, ...] = ()
    environments: int = 0
    datagrams: dict[str, int] = {}


class CandidateView(msgspec.Struct, frozen=True, kw_only=True):
    """One way that was considered; ``score_ms`` is its cost under the tag's metric, ``tcp_mbit_s`` the TCP model's."""

    via: str | None
    chosen: bool
    state: str
    rtt_ms: float | None
    loss_out: float | None
    loss_in: float | None
    score_ms: float | None
    tcp_mbit_s: float | None
    verdict: str


class SwitchView(msgspec.Struct, frozen=True, kw_only=True):
    """One change of path. ``ago_s`` is its age, ``took_s`` the time from first suspicion."""

    ago_s: float
    before: str | None
    after: str | None
    cause: str
    evidence: str
    took_s: float


class AilmentView(msgspec.Struct, frozen=True, kw_only=True):
    """A performance fault that a machine finds of itself. ``slower_percent``: 250 is 2.5 times as slow as usual."""

    component: str
    state: str
    since_s: int
    slower_percent: int


class ServiceView(msgspec.Struct, frozen=True, kw_only=True):
    """A port of the machine that is asked, as it reaches it itself; times in us, None: unknown."""

    port: int
    allowed: bool
    rule: str = ""
    line: str = ""
    listening: bool | None = None
    connect_us: int | None = None
    first_byte_us: int | None = None
    first_byte_usual_us: int | None = None


class HealthView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a member says of its own machine, to another one that asks. None: it does not know.

    Shares are of the last seconds, in 1/10000; times in us. ``wall_ms`` is its wall clock, ms since 1970. Of ``links``
    direct paths to others, ``slow_links`` take clearly longer than usual.
    """

    schema: str = HEALTH_SCHEMA
    busy_share: int | None = None
    stolen_share: int | None = None
    own_share: int | None = None
    waiting_share: int | None = None
    memory_share: int | None = None
    io_share: int | None = None
    late_us: int | None = None
    late_usual_us: int | None = None
    work_us: int | None = None
    work_usual_us: int | None = None
    disk_us: int | None = None
    disk_usual_us: int | None = None
    clock_stepped_s: int | None = None
    ailments: tuple[AilmentView, ...] = ()
    wall_ms: int | None = None
    slow_links: int = 0
    links: int = 0
    service: ServiceView | None = None


class FindingView(msgspec.Struct, frozen=True, kw_only=True):
    """One cause: path hop, loss, detour, mtu, nat, cpu, memory, disk, clock, rule, program; or nothing, unknown.

    ``confidence`` is 0 to 100, ``costs_ms`` what it costs, as far as known.
    """

    cause: str
    where: str
    because: str
    confidence: int
    costs_ms: float | None
    next: str


class DiagnosisView(msgspec.Struct, frozen=True, kw_only=True):
    """Why it is slow: causes, the weightiest first and never none; what was checked and is well; what could not be."""

    symptom: str
    findings: tuple[FindingView, ...]
    not_it: tuple[str, ...]
    unknown: tuple[str, ...]


class WhyView(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``why A B``: chosen, rejected, numbers, since when; and, if anything is slow, what makes it so.

    ``told_by`` is None when this node knows it itself, else the member whose own word it is, unchecked. ``hearsay`` is
    what third members say of the target, which moves nothing.
    """

    schema: str = WHY_SCHEMA
    source: str
    target: str
    tag: str
    path: tuple[str, ...]
    since_s: float | None
    because: str
    candidates: tuple[CandidateView, ...]
    history: tuple[SwitchView, ...]
    next: str
    told_by: str | None = None
    diagnosis: DiagnosisView | None = None
    hearsay: tuple[str, ...] = ()


class PingView(msgspec.Struct, frozen=True, kw_only=True):
    """One echo through the overlay; ``rtt_ms`` None: no answer in time."""

    schema: str = PING_SCHEMA
    name: str
    sequence: int
    via: str | None
    rtt_ms: float | None


class InviteView(msgspec.Struct, frozen=True, kw_only=True):
    """A fresh invitation: single use."""

    schema: str = INVITE_SCHEMA
    invite: str
    valid_s: int


class MetricsView(msgspec.Struct, frozen=True, kw_only=True):
    """What the node tells Prometheus, in the text format 0.0.4."""

    schema: str = METRICS_SCHEMA
    text: str


class ForwardView(msgspec.Struct, frozen=True, kw_only=True):
    """One port forward. ``protocol`` is tcp, udp or socks; ``tag`` the policy tag's name.

    A socks forward leads to every member: its ``node`` is empty and its ``port`` 0. A TCP forward to several has all of
    them in ``node``, the preferred first, with commas between, and loses those that are members no more. ``carrier`` is
    that of a TCP forward's newest connection: ``tcp``, the kernel's, or ``quic``; empty before the first, and for other
    protocols.
    """

    schema: str = FORWARD_SCHEMA
    id: int
    protocol: str
    local: str
    node: str
    port: int
    tag: str
    connections: int
    carrier: str = ""
