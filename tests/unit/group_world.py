# SPDX-License-Identifier: Apache-2.0
"""A world of membership machines without packets: sessions as a table, disks, one clock, losses on request."""

from collections import deque
from collections.abc import Callable, Sequence

from atoll.base.ids import PublicKey, node_id_of
from atoll.base.member import Member
from atoll.base.units import SECOND_NS
from atoll.core.machine import Tick
from atoll.group import (
    Group,
    GroupEffect,
    GroupInput,
    GroupNotice,
    GroupOptions,
    GroupReceived,
    Identity,
    InviteIssued,
    Joined,
    Joining,
    JoiningEffect,
    JoinOptions,
    MembersDecided,
    PeerLinked,
    Roster,
    SendGroup,
    Sign,
    Signed,
    Stored,
    StoreRoster,
    founding_roster,
    invite_public_key,
    join_proof,
)

WALL_S = 1_800_000_000
SECRET = bytes(range(16))


def identity(seed: int) -> Identity:
    return Identity(seed.to_bytes(2, "big") * 32)


def record(seed: int, name: str = "") -> Member:
    who = identity(seed)
    return Member(who.public_key, who.signing_key, name or f"m{seed}")


class Process:
    """One running node, or one machine that joins."""

    def __init__(self, name: str, seed: int, machine: Group | Joining, node: bytes) -> None:
        self.name = name
        self.seed = seed
        self.machine = machine
        self.node = node
        self.sessions: dict[bytes, Process] = {}
        self.log: list[GroupEffect | JoiningEffect] = []
        self.disk = b""
        self.disk_works = True
        self.writes_left = 1_000_000  # Then the disk refuses.
        self.decided: tuple[Member, ...] = ()

    @property
    def group(self) -> Group:
        assert isinstance(self.machine, Group)
        return self.machine

    def said(self, kind: type) -> list[GroupEffect | JoiningEffect]:
        return [effect for effect in self.log if isinstance(effect, kind)]

    def notices(self, kind: str) -> list[GroupNotice]:
        return [effect for effect in self.log if isinstance(effect, GroupNotice) and effect.kind == kind]

    def names(self) -> list[str]:
        return sorted(member.name for member in self.decided)


class World:
    """All processes, and the messages between them."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.wall_off_s = 0  # By how much wall clocks are wrong.
        self.processes: dict[str, Process] = {}
        self.wire: deque[tuple[Process, Process, bytes]] = deque()
        self.lost: Callable[[Process, Process, bytes], bool] = lambda _from, _to, _payload: False
        self.sent_bytes = 0
        self.sent_count = 0

    def start(
        self, name: str, seed: int, roster: Roster | bytes, *, boot: int = 0, member: Member | None = None
    ) -> Process:
        stored = roster if isinstance(roster, bytes) else roster.encode()
        started_s = WALL_S + self.now_ns // SECOND_NS + self.wall_off_s
        options = GroupOptions(
            stored, member or record(seed), boot or 1000 + seed, started_s, "0.1.0", bytes([seed]) * 32
        )
        group = Group.create(options, self.now_ns)
        process = Process(name, seed, group, identity(seed).node)
        process.disk = stored
        self.processes[name] = process
        self.perform(process, group.start(self.now_ns))
        return process

    def restart(self, process: Process) -> Process:
        """Start again from the disk, as after a crash: whatever was not written is lost, sessions too."""
        self.wire = deque(item for item in self.wire if process not in item[:2])
        for other in self.processes.values():
            other.sessions = {node: p for node, p in other.sessions.items() if p is not process}
        return self.start(process.name, process.seed, process.disk, boot=process.seed + 5000 + self.now_ns)

    def found(self, *seeds: int) -> list[Process]:
        """Start a group of the founder (seed 0) and these, all linked and in agreement."""
        roster = founding_roster(identity(0), record(0))
        processes = [self.start("m0", 0, roster)]
        for seed in seeds:
            self.join(processes[0], seed)
        processes += [self.start(f"m{seed}", seed, processes[0].disk) for seed in seeds]
        for index, left in enumerate(processes):
            for right in processes[index + 1 :]:
                self.link(left, right)
        return processes

    def join(self, inviter: Process, seed: int, *, secret: bytes = b"", member: Member | None = None) -> Process:
        secret = secret or seed.to_bytes(16, "big")
        self.invite(inviter, secret)
        joining = self.joiner(inviter, seed, secret, member=member)
        self.link(joining, inviter)
        self.run()
        return joining

    def invite(self, inviter: Process, secret: bytes, valid_s: int = 600) -> None:
        expires_s = WALL_S + self.now_ns // SECOND_NS + valid_s
        self.give(inviter, InviteIssued(invite_public_key(secret), expires_s))

    def joiner(self, inviter: Process, seed: int, secret: bytes, *, member: Member | None = None) -> Process:
        key = invite_public_key(secret)
        own = member or record(seed)
        options = JoinOptions(
            own, join_proof(identity(seed), key, own), identity(inviter.seed).public_key, inviter.group.group[:8], "x"
        )
        machine = Joining.create(options, self.now_ns)
        process = Process(f"j{seed}", seed, machine, node_id_of(PublicKey(key)))
        self.processes[process.name] = process
        return process

    def link(self, left: Process, right: Process) -> None:
        """Bring up a session; at each end it takes the place of an older one with the same key."""
        left.sessions[right.node], right.sessions[left.node] = right, left
        for process, other in ((left, right), (right, left)):
            self.give(process, PeerLinked(other.node))

    def give(self, process: Process, event: GroupInput) -> None:
        self.perform(process, process.machine.handle(event, self.now_ns))  # type: ignore[arg-type]  # A driver's bug shows.

    def perform(self, process: Process, effects: Sequence[GroupEffect | JoiningEffect]) -> None:
        for effect in effects:
            process.log.append(effect)
            match effect:
                case SendGroup(node, payload):
                    assert len(payload) <= 1200
                    self.sent_bytes += len(payload)
                    self.sent_count += 1
                    other = process.sessions.get(node)
                    if other is not None:
                        self.wire.append((process, other, payload))
                case Sign(request_id, payload):
                    self.give(process, Signed(request_id, identity(process.seed).sign(payload)))
                case StoreRoster(version, roster) if process.disk_works and process.writes_left > 0:
                    process.writes_left -= 1
                    process.disk = roster
                    self.give(process, Stored(version))
                case MembersDecided(members):
                    process.decided = members
                    nodes = [member.node for member in members]
                    bearers = [p.node for p in self.processes.values() if isinstance(p.machine, Joining)]
                    process.sessions = {n: p for n, p in process.sessions.items() if n in nodes or n in bearers}
                case Joined(_, roster):
                    process.disk = roster
                case _:
                    pass

    def run(self) -> None:
        """Deliver all that is on the wire, and what follows from it."""
        for _ in range(100_000):
            if not self.wire:
                return
            sender, receiver, payload = self.wire.popleft()
            if sender.node in receiver.sessions and not self.lost(sender, receiver, payload):
                self.give(receiver, GroupReceived(sender.node, payload))
        raise AssertionError("the machines do not come to rest")

    def advance(self, span_ns: int) -> None:
        """Let time pass, with a Tick to each machine whenever it wants one."""
        end_ns = self.now_ns + span_ns
        self.run()
        while True:
            dues = [(p.machine.deadline_ns, p) for p in self.processes.values() if p.machine.deadline_ns is not None]
            due_ns, process = min(dues, key=lambda item: item[0], default=(end_ns + 1, None))
            if process is None or due_ns > end_ns:
                break
            self.now_ns = max(self.now_ns, due_ns)
            self.give(process, Tick())
            self.run()
        self.now_ns = end_ns
