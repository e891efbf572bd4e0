# SPDX-License-Identifier: Apache-2.0
"""Decides nothing: what a diagnosis starts from, and what it ends with. See ``diagnosis.py``.

Every field may be missing, because parts of a group may not answer; then it is None, or empty.
"""

from enum import StrEnum

from atoll.core.machine import Tuple

__all__ = ["Cause", "Diagnosis", "Facts", "Fault", "Finding", "HostFacts", "PathFacts", "ServiceFacts"]


class Cause(StrEnum):
    """What it may be."""

    HOP = "path hop"  # The network itself is slower than usual.
    LOSS = "loss"
    DETOUR = "detour"
    MTU = "mtu"
    NAT = "nat"  # No direct way, or none but over TCP.
    CPU = "cpu"
    MEMORY = "memory"
    DISK = "disk"
    CLOCK = "clock"
    RULE = "rule"
    PROGRAM = "program"
    NOTHING = "nothing"  # Nothing is wrong that this node can see.
    UNKNOWN = "unknown"  # Something is, and what was checked does not explain it.


class Fault(Tuple, frozen=True):
    """A performance fault that somebody's watch has found.

    Attributes:
        component: cpu, work, memory, disk, loop, net, ``link:<name>`` or ``answers:<name>``.
        state: stutter, slow or failed.
        since_s: Its age.
        slower_percent: 250 is 2.5 times as slow as usual.
    """

    component: str
    state: str
    since_s: int = 0
    slower_percent: int = 0


class HostFacts(Tuple, frozen=True):
    """One machine by its own word; None: not known. Shares are of the last ten seconds or so, in 1/10000.

    Attributes:
        busy_share: Of the CPU's time in use. ``stolen_share``: taken by the hypervisor. ``own_share``: used by the
            node's own processes. ``waiting_share``: of the time in which somebody waited for a CPU (PSI).
        memory_share: Of the time in which somebody waited for memory; ``io_share``: for disks (PSI).
        late_us: How late the node's event loop turned; ``late_usual_us``: as usual.
        work_us: Wall time of a fixed small piece of work.
        disk_us: Median of the newest durable writes of 4 KiB.
        clock_ahead_ms: Its wall clock less the asker's, corrected by half the round trip; None for the asker.
        clock_stepped_s: How far its wall clock was stepped lately; 0: it was not.
    """

    name: str = ""
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
    clock_ahead_ms: int | None = None
    clock_stepped_s: int | None = None
    ailments: tuple[Fault, ...] = ()


class PathFacts(Tuple, frozen=True):
    """The way from here to there; None: not known. Losses are in 1/10000.

    Attributes:
        state: ok, degraded, away or connecting; empty: not known.
        relay: Whether the way in use goes through a relay.
        direct_state: ok, suspect, failed or unknown; ``direct_reason``: why it is not ok.
        rtt_us: Of the way in use, as ``deviation_us``, ``loss_out`` and ``loss_in`` are.
        usual_rtt_us: Median of the past minutes or hours, whichever way was in use.
        floor_us: The least direct round trip ever seen.
        best_other_rtt_us: Of the best way that is not in use; ``best_other_name``: its relay, empty for direct.
        since_s: For how long this way has been in use; ``cause``: why it was taken.
        forced: The policy that keeps packets off relays; empty: none does.
        carrier: udp or tcp.
        mtu: The largest inner packet that is proven to pass, bytes; ``mtu_most``: the largest that is tried.
        large_lost: Whether large packets vanish while small ones pass.
        slow_others: How many of the links from here to ``others`` other members are slow at the same time.
        far_slow_others: The same as the far end says, of ``far_others``.
    """

    state: str = ""
    relay: bool = False
    direct_state: str = ""
    direct_reason: str = ""
    direct_rtt_us: int | None = None
    direct_loss_out: int | None = None
    direct_loss_in: int | None = None
    rtt_us: int | None = None
    usual_rtt_us: int | None = None
    deviation_us: int | None = None
    loss_out: int | None = None
    loss_in: int | None = None
    floor_us: int | None = None
    best_other_rtt_us: int | None = None
    best_other_name: str = ""
    since_s: int | None = None
    cause: str = ""
    forced: str = ""
    carrier: str = "udp"
    mtu: int | None = None
    mtu_most: int = 1408
    large_lost: bool | None = None
    slow_others: int = 0
    others: int = 0
    far_slow_others: int = 0
    far_others: int = 0


class ServiceFacts(Tuple, frozen=True):
    """The port that was asked about; None: not known.

    Attributes:
        allowed: Whether the far machine's rules let this one in; ``rule``, ``line``: by which, and where it stands.
        listening: Whether a program waits there.
        connect_us: How long the far node's own connection to it took.
        first_byte_us: From that to the program's first byte.
    """

    port: int = 0
    protocol: str = "tcp"
    allowed: bool | None = None
    rule: str = ""
    line: str = ""
    listening: bool | None = None
    connect_us: int | None = None
    first_byte_us: int | None = None
    first_byte_usual_us: int | None = None


class Facts(Tuple, frozen=True):
    """Everything that is known when somebody asks.

    Attributes:
        there: What the far member said of itself; None: it did not answer. ``there_name`` is known all the same.
        relay: What the relay said, where ``path.relay``; None: it did not answer, or was not asked.
        service: Where the asker named a port.
    """

    here: HostFacts = HostFacts()
    there: HostFacts | None = None
    there_name: str = ""
    relay: HostFacts | None = None
    relay_name: str = ""
    path: PathFacts = PathFacts()
    service: ServiceFacts | None = None


class Finding(Tuple, frozen=True):
    """One cause.

    Attributes:
        where: A machine's name, ``path A -> B`` or ``the network of A``.
        because: A sentence with the numbers.
        confidence: 0 to 100.
        weight_us: What it costs, as far as known; for ordering.
        next: What to do.
    """

    cause: Cause
    where: str
    because: str
    confidence: int
    weight_us: int
    next: str


class Diagnosis(Tuple, frozen=True):
    """The answer.

    Attributes:
        findings: Best first, never empty.
        not_it: What was checked and is well, with its number.
        unknown: What could not be checked, and why.
        symptom: What is slow.
    """

    findings: tuple[Finding, ...]
    not_it: tuple[str, ...]
    unknown: tuple[str, ...]
    symptom: str
