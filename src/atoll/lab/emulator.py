# SPDX-License-Identifier: Apache-2.0
"""A wide-area network on loopback sockets: real nodes, real datagrams, modelled links. No root, no kernel module.

Theory of operation. Node j is known to the others by its *face*: a socket F_j of the emulator on 127.0.0.1. A datagram
that node i sends to F_j crosses the link model i->j and, if it survives, leaves from F_i to node j's real port. So
every node sees every other at one steady address, and neither notices who carries the packets. Nodes are told apart
by the port that they send from.

``Fabric`` is pure: datagrams and times in, deliveries out. ``Emulator`` is its shell on sockets; ``serve`` takes
commands as JSON lines; ``EmulatorClient`` starts all that in a process of its own, because five busy nodes in one
interpreter with the emulator would measure Python's scheduler instead of the network.
"""

import asyncio
import heapq
import selectors
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2s
from random import Random
from time import monotonic_ns
from typing import Annotated, Final, final

import msgspec

from atoll.base.errors import LimitError, LinkError, UsageError
from atoll.base.units import MIB, SECOND_NS
from atoll.sim.link import CLEAR, Jitter, Link, LinkSpec

__all__ = [
    "AddNode",
    "Answer",
    "Command",
    "Count",
    "Delivery",
    "Emulator",
    "EmulatorClient",
    "Fabric",
    "Impair",
    "LinkCount",
    "Mend",
    "SetLink",
    "serve",
]

NODES_MAX: Final = 64  # Limit. Twice what one machine can run as real processes.
IN_FLIGHT_MAX: Final = 1 << 16  # Limit. Datagrams on their way: 16 seconds of the busiest demo; then they are lost.
SOCKET_BUFFER_BYTES: Final = 4 * MIB  # What the kernel holds while Python is busy elsewhere.
BATCH_MAX: Final = 64  # Limit. Datagrams read from one face before the others and the timers have their turn.
COMMAND_BYTES_MAX: Final = 64 * 1024  # Limit. One command, a line of JSON; all are below 1 KiB.
ANSWER_BYTES_MAX: Final = MIB  # Limit. One answer; the counters of 64 nodes with the longest names are half of it.
NAME_BYTES_MAX: Final = 63  # Limit. Of a node, and of the key of a fault; a DNS label.
IMPAIRMENTS_MAX: Final = 64  # Limit. Faults on one directed link: more keys than any script has.
ANSWER_TIMEOUT_S: Final = 10.0  # The emulator's process starts in well under one second.
OVERHEAD_BYTES: Final = 28  # IPv4 and UDP headers, which a rate limit counts.
DATAGRAM_BYTES_MAX: Final = 65_535

WRONG: Final = "A501"  # Codes of ``base.problems``.
REFUSED: Final = "A499"
_LOOPBACK: Final = "127.0.0.1"
# SO_SNDBUFFORCE and SO_RCVBUFFORCE: beyond the system's bound, because what the kernel drops here no link model lost.
_FORCING_OPTIONS: Final = (32, 33) if sys.platform == "linux" else ()


Name = Annotated[str, msgspec.Meta(max_length=NAME_BYTES_MAX)]


class _Impairment(msgspec.Struct, frozen=True, kw_only=True):
    """Behaviour of one direction, in the units of the wire: integers, microseconds, 1/10000."""

    source: Name
    target: Name
    delay_us: int = 0
    jitter_us: int = 0
    loss: int = 0
    rate_bytes_s: int = 0
    blackhole: bool = False

    def spec(self, jitter: Jitter) -> LinkSpec:
        """Return it as the link model wants it."""
        return LinkSpec(
            delay_ns=self.delay_us * 1000,
            jitter_ns=self.jitter_us * 1000,
            jitter=jitter if self.jitter_us else Jitter.NONE,
            loss=self.loss,
            rate_bytes_s=self.rate_bytes_s,
            blackhole=self.blackhole,
        )


class AddNode(msgspec.Struct, frozen=True, tag=True):
    """A node that will send from 127.0.0.1:``port``; the answer names its face. Again with another port: it moved."""

    name: Name
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class SetLink(_Impairment, frozen=True, tag=True):
    """The lasting behaviour of one direction; jitter is log-normal, as measured on real paths."""


class Impair(_Impairment, frozen=True, tag=True, kw_only=True):
    """Lay a fault on one direction, under a key; the same key replaces it. Jitter is uniform."""

    key: Name


class Mend(msgspec.Struct, frozen=True, tag=True):
    """Take away the fault of that key, on all links of these two; an empty key takes away all faults of all links."""

    key: str = ""


class Count(msgspec.Struct, frozen=True, tag=True):
    """Ask for the counters."""


Command = AddNode | SetLink | Impair | Mend | Count


class LinkCount(msgspec.Struct, array_like=True):
    """What crossed one directed link since the start, in datagrams, and the bytes that came through."""

    source: str
    target: str
    offered: int = 0
    delivered: int = 0
    delivered_bytes: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """To each command, in order. ``at_ns``: when it took effect, on this machine's monotonic clock.

    What could not be done has an ``error``, a sentence, and its ``code`` in the catalogue of errors: A501, the command
    is wrong; A499, a limit or the machine refused.
    """

    at_ns: int = 0
    face: tuple[str, int] | None = None
    counts: tuple[LinkCount, ...] = ()
    strangers: int = 0
    overrun: int = 0
    error: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Delivery:
    """One datagram to be handed over at ``at_ns``; ``sequence`` keeps the order of equals."""

    at_ns: int
    sequence: int
    source: str
    target: str
    datagram: bytes


@final
class Fabric:
    """The links between named nodes. Pure.

    Args:
        seed: Decides the luck of every datagram, link by link.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._links: dict[tuple[str, str], Link] = {}
        self._counts: dict[tuple[str, str], LinkCount] = {}
        self._names: list[str] = []
        self._in_flight: list[Delivery] = []
        self._sequence = 0
        self.overrun = 0  # Datagrams lost because IN_FLIGHT_MAX were on their way.

    @property
    def names(self) -> tuple[str, ...]:
        """All nodes, in the order of their coming."""
        return tuple(self._names)

    @property
    def deadline_ns(self) -> int | None:
        """When the next delivery is due; None: nothing is on its way."""
        return self._in_flight[0].at_ns if self._in_flight else None

    def add(self, name: str) -> None:
        """Add a node with clear links to all others; nothing happens when it is there.

        Raises:
            LimitError: NODES_MAX nodes are there.
        """
        if name in self._names:
            return
        if len(self._names) >= NODES_MAX:
            raise LimitError("NODES_MAX", NODES_MAX)
        for other in self._names:
            for pair in ((name, other), (other, name)):
                self._links[pair] = Link(CLEAR, self._luck(pair))
                self._counts[pair] = LinkCount(*pair)
        self._names.append(name)

    def set_link(self, source: str, target: str, spec: LinkSpec) -> None:
        """Replace the lasting behaviour of one direction; its faults stay.

        Raises:
            UsageError: There is no such link.
        """
        before = self._link(source, target)
        link = self._links[source, target] = Link(spec, self._luck((source, target)))
        for key, impairment in before.impairments.items():
            link.impair(key, impairment)

    def impair(self, source: str, target: str, key: str, spec: LinkSpec) -> None:
        """Lay a fault on one direction.

        Raises:
            UsageError: There is no such link.
            LimitError: IMPAIRMENTS_MAX faults lie on it.
        """
        link = self._link(source, target)
        if key not in link.impairments and len(link.impairments) >= IMPAIRMENTS_MAX:
            raise LimitError("IMPAIRMENTS_MAX", IMPAIRMENTS_MAX)
        link.impair(key, spec)

    def mend(self, key: str) -> None:
        """Take the fault of that key away wherever it lies; an empty key takes away all faults."""
        for link in self._links.values():
            if key:
                link.mend(key)
            else:
                link.mend_all()

    def offer(self, source: str, target: str, datagram: bytes, now_ns: int) -> None:
        """Put a datagram on its way, or lose it."""
        link = self._links.get((source, target))
        if link is None:  # A node that sends to its own face.
            return
        self._counts[source, target].offered += 1
        for at_ns in link.offer(len(datagram) + OVERHEAD_BYTES, now_ns):
            if len(self._in_flight) >= IN_FLIGHT_MAX:
                self.overrun += 1
                return
            arriving = link.corrupted(datagram) if link.corrupts else datagram
            self._sequence += 1
            heapq.heappush(self._in_flight, Delivery(at_ns, self._sequence, source, target, arriving))

    def due(self, now_ns: int) -> list[Delivery]:
        """Take out what is due by now, in order."""
        deliveries: list[Delivery] = []
        while self._in_flight and self._in_flight[0].at_ns <= now_ns:
            delivery = heapq.heappop(self._in_flight)
            count = self._counts[delivery.source, delivery.target]
            count.delivered += 1
            count.delivered_bytes += len(delivery.datagram)
            deliveries.append(delivery)
        return deliveries

    def counts(self) -> tuple[LinkCount, ...]:
        """Return the counters of all directed links that were ever used."""
        return tuple(count for count in self._counts.values() if count.offered)

    def _link(self, source: str, target: str) -> Link:
        link = self._links.get((source, target))
        if link is None:
            raise UsageError(f"no link from {source!r} to {target!r}")
        return link

    def _luck(self, pair: tuple[str, str]) -> Random:
        text = f"{self._seed}\0{pair[0]}\0{pair[1]}".encode()
        return Random(int.from_bytes(blake2s(text, digest_size=16).digest(), "little"))


@final
class Emulator:
    """A ``Fabric`` on sockets. Runs on the loop that is running when it is made; ``close`` it.

    Args:
        seed: As ``Fabric``.
    """

    def __init__(self, seed: int) -> None:
        self.fabric: Final = Fabric(seed)
        self._faces: dict[str, socket.socket] = {}
        self._ports: dict[str, int] = {}
        self._names_by_port: dict[int, str] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self.strangers = 0  # Datagrams from ports that belong to no node.

    def obey(self, command: Command) -> Answer:
        """Carry out one command; what it cannot do comes back as ``Answer.error``."""
        try:
            return self._obey(command)
        except UsageError as error:
            return Answer(at_ns=monotonic_ns(), error=str(error), code=WRONG)
        except (LimitError, OSError) as error:
            return Answer(at_ns=monotonic_ns(), error=str(error), code=REFUSED)

    def close(self) -> None:
        """Give the sockets back; what is on its way is lost."""
        for face in self._faces.values():
            self._loop.remove_reader(face)
            face.close()
        self._faces.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _obey(self, command: Command) -> Answer:
        face: tuple[str, int] | None = None
        counts: tuple[LinkCount, ...] = ()
        match command:
            case AddNode(name=name, port=port):
                face = self._add(name, port)
            case SetLink():
                self.fabric.set_link(command.source, command.target, command.spec(Jitter.HEAVY))
            case Impair():
                self.fabric.impair(command.source, command.target, command.key, command.spec(Jitter.UNIFORM))
            case Mend(key=key):
                self.fabric.mend(key)
            case Count():
                counts = self.fabric.counts()
        overrun = self.fabric.overrun
        return Answer(at_ns=monotonic_ns(), face=face, counts=counts, strangers=self.strangers, overrun=overrun)

    def _add(self, name: str, port: int) -> tuple[str, int]:
        holder = self._names_by_port.get(port, name)
        if holder != name:
            raise UsageError(f"port {port} is that of {holder!r}")
        self.fabric.add(name)
        self._names_by_port.pop(self._ports.get(name, 0), None)
        self._ports[name], self._names_by_port[port] = port, name
        if name not in self._faces:
            face = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            face.settimeout(0)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF, *_FORCING_OPTIONS):
                with suppress(PermissionError):  # Forcing needs root; the others stop at the system's own bound.
                    face.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
            face.bind((_LOOPBACK, 0))
            self._faces[name] = face
            self._loop.add_reader(face, self._readable, name, face)
        host, face_port = self._faces[name].getsockname()
        return str(host), int(face_port)

    def _readable(self, target: str, face: socket.socket) -> None:
        for _ in range(BATCH_MAX):
            try:
                datagram, address = face.recvfrom(DATAGRAM_BYTES_MAX)
            except OSError:  # Nothing more, or an ICMP error of an earlier send: a node that is not there yet.
                break
            source = self._names_by_port.get(address[1])
            if source is None:
                self.strangers += 1
                continue
            self.fabric.offer(source, target, datagram, monotonic_ns())
        self._deliver()

    def _deliver(self) -> None:
        for delivery in self.fabric.due(monotonic_ns()):
            try:
                address = (_LOOPBACK, self._ports[delivery.target])
                self._faces[delivery.source].sendto(delivery.datagram, address)
            except OSError:
                continue  # The node is down, or its socket full: the datagram is lost, as on a real network.
        self._arm()

    def _arm(self) -> None:
        deadline_ns = self.fabric.deadline_ns
        if self._timer is not None and (deadline_ns is None or deadline_ns != self._timer_ns):
            self._timer.cancel()
            self._timer = None
        if deadline_ns is not None and self._timer is None:
            self._timer_ns = deadline_ns
            # The loop's clock is the same monotonic clock, in seconds.
            self._timer = self._loop.call_at(deadline_ns / SECOND_NS, self._fired)

    def _fired(self) -> None:
        self._timer = None
        self._deliver()


async def serve(seed: int, reader: asyncio.StreamReader, answer: Callable[[bytes], None]) -> None:
    """Obey JSON lines until their end, answering each with one; then give everything back."""
    decoder, emulator = msgspec.json.Decoder(Command), Emulator(seed)
    try:
        while (line := await _next_line(reader)) != b"":
            if line is None:
                reply = Answer(error=f"a command of more than {COMMAND_BYTES_MAX} bytes", code=WRONG)
            else:
                try:
                    reply = emulator.obey(decoder.decode(line))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    reply = Answer(error=f"not a command: {error}", code=WRONG)
            answer(msgspec.json.encode(reply) + b"\n")
    finally:
        emulator.close()


async def _next_line(reader: asyncio.StreamReader) -> bytes | None:
    """Return the next line; empty: there is none. None: it was longer than the reader's limit, and is skipped whole."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError as overrun:
        consumed = overrun.consumed
    while True:  # Ends with the line: each turn takes what the reader holds, which is bounded.
        try:
            await reader.readexactly(consumed)
            await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError as overrun:
            consumed = overrun.consumed
        else:
            return None


def precise_loop() -> asyncio.SelectorEventLoop:
    """Return a loop whose timers are exact: select() waits in microseconds, epoll in whole milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


@final
class EmulatorClient:
    """Speaks with an emulator in a process of its own. Made by ``EmulatorClient.running``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self._decoder = msgspec.json.Decoder(Answer)

    @staticmethod
    @asynccontextmanager
    async def running(seed: int = 1) -> AsyncGenerator["EmulatorClient"]:
        """Start the emulator's process; it ends with the block, or with this process."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # The current directory is no place to load modules from.
            "-m",
            "atoll.lab.emulator_process",
            str(seed),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=ANSWER_BYTES_MAX,
        )
        assert process.stdin is not None
        try:
            yield EmulatorClient(process)
        finally:
            process.stdin.close()  # The end of its commands is the end of the emulator.
            await process.wait()

    async def add_node(self, name: str, port: int) -> tuple[str, int]:
        """Announce a node that sends from 127.0.0.1:``port``; return its face: what the others are told."""
        face = (await self.command(AddNode(name, port))).face
        assert face is not None
        return face

    async def set_link(self, source: str, target: str, *, delay_us: int, jitter_us: int = 0, loss: int = 0) -> None:
        """Set the lasting behaviour of both directions between two nodes; ``delay_us`` is one way, loss in 1/10000."""
        for one, other in ((source, target), (target, source)):
            await self.command(SetLink(source=one, target=other, delay_us=delay_us, jitter_us=jitter_us, loss=loss))

    async def impair(self, source: str, target: str, key: str, *, loss: int, both: bool = True) -> int:
        """Lose this share (1/10000) between two nodes; return when it took effect, ns of the monotonic clock."""
        return await self._fault(Impair(source=source, target=target, key=key, loss=loss), both=both)

    async def blackhole(self, source: str, target: str, key: str, *, both: bool = True) -> int:
        """Lose everything between two nodes; return when it took effect, ns of the monotonic clock."""
        return await self._fault(Impair(source=source, target=target, key=key, blackhole=True), both=both)

    async def mend(self, key: str = "") -> int:
        """Take the faults of this key away (all faults, for ""); return when it took effect."""
        return (await self.command(Mend(key))).at_ns

    async def counts(self) -> Answer:
        """Return the counters."""
        return await self.command(Count())

    async def command(self, command: Command) -> Answer:
        """Send one command and return its answer.

        Raises:
            UsageError: The emulator could not do it.
            LinkError: The emulator's process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            try:
                self._process.stdin.write(msgspec.json.encode(command) + b"\n")
                await self._process.stdin.drain()
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    line = await self._process.stdout.readline()
            except (ConnectionError, TimeoutError) as error:
                raise LinkError("the emulator does not answer") from error
        if not line:
            raise LinkError("the emulator has ended")
        answer = self._decoder.decode(line)
        if answer.error:
            raise UsageError(f"{answer.code}: {answer.error}")
        return answer

    async def _fault(self, fault: Impair, *, both: bool) -> int:
        at_ns = (await self.command(fault)).at_ns
        if both:
            mirrored = msgspec.structs.replace(fault, source=fault.target, target=fault.source)
            at_ns = (await self.command(mirrored)).at_ns
        return at_ns
