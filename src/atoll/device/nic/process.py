# SPDX-License-Identifier: Apache-2.0
"""The packet device as a live process: one loop between a control socket, UDP sockets and the engine.

Order of each turn: orders first, so that bulk never starves control; then a bounded number of datagrams from each
socket, or just one if nothing waited there: then the whole turn is what its packet waits for; then time; then reports.
Of the kernel's large packets one is sent in a turn, for an answer to another may have come meanwhile.

Control ends it by ``Stop``. When control is gone without a word, nobody admits, expels or routes any more; then it goes
on with the last tables for the time that ``Configure`` said, if there are sessions, and ends (``orphan.py``, ADR 0029).
It is started by ``NicClient``; the first order is ``Configure``.

Signals that end a node are for control alone. A service manager or a terminal sends them to every process of the node
at once, and control still has to say goodbye over this one; so they are held back here, as ``NicClient`` does until
then, and let through when control is gone: one that came meanwhile ends it at once. SIGKILL always works.
"""

import os
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from random import SystemRandom
from typing import Final, final

from atoll.base.compiled import is_compiled
from atoll.base.errors import LinkError, UsageError, WireError
from atoll.base.ids import TCP_PREFIX, Endpoint, is_tcp
from atoll.base.units import SECOND_NS
from atoll.device.nic.backlog import Backlog
from atoll.device.nic.carriers import Carriers
from atoll.device.nic.codel import CoDel
from atoll.device.nic.config import EngineConfig
from atoll.device.nic.confine import confine
from atoll.device.nic.engine import Engine
from atoll.device.nic.evidence import NEVER_NS
from atoll.device.nic.held import Held, Lone, size_of
from atoll.device.nic.limits import (
    BATCHES_PER_TURN_MAX,
    BYTES_PER_TURN,
    DATAGRAMS_HELD_MAX,
    DATAGRAMS_PER_TURN_MAX,
    IPC_BYTES_MAX,
    IPC_SOCKET_BYTES,
    PORT_PACKETS_PER_TURN_MAX,
    QUEUE_NS,
    SMALL_BYTES_MAX,
    START_S_MAX,
    TUN_READS_PER_TURN_MAX,
    WAIT_NS,
)
from atoll.device.nic.messages import (
    AttachPort,
    AttachTun,
    Configure,
    Listening,
    Order,
    PacketReceived,
    Report,
    Stop,
    TunLost,
    decode_orders,
    encode_item,
    join_items,
)
from atoll.device.nic.orphan import listen
from atoll.device.nic.outlet import gathered
from atoll.device.nic.segments import Bulk
from atoll.device.nic.side_port import SidePort
from atoll.device.nic.tun_port import TunPort
from atoll.host.clock import SystemClock
from atoll.host.compiled_tree import COMPILED_VARIABLE, is_compiled_module
from atoll.host.cpu import ask_for_short_slices, prefers_aes
from atoll.host.heap import freeze_heap
from atoll.host.poller import READ, WRITE, Poller
from atoll.host.tcp import TcpListener
from atoll.host.udp import RECEIVE_BYTES, Sent, UdpSocket, bursts_work

__all__ = ["NicProcess", "main"]

EXIT_OK: Final = 0
EXIT_NOT_LISTENING: Final = 3
EXIT_NOT_CONFIGURED: Final = 4

ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)  # What terminals and service managers send.

BUSY_NS: Final = 20_000  # Who waits for less than this found something there: then there is more, and worth a loop.
WALL_NS: Final = SECOND_NS  # So old the difference of the two clocks may be; the device dates handshakes by it.
ORPHAN_CHECK_NS: Final = SECOND_NS  # Only where the control socket cannot tell that its other end is gone.
_OK: Final = Sent.OK
_DROPS: Final = {Sent.FULL: "send-full", Sent.TOO_LONG: "send-too-long", Sent.REFUSED: "send-refused"}


@final
class NicProcess:
    """The loop.

    Args:
        control: Socket to control: SOCK_SEQPACKET, or SOCK_DGRAM where that does not exist.
        sockets: Open UDP sockets. The first of each family sends.
        listeners: For connections over TCP; closed with them.
        engine: Fresh.
        outlives_ns: How long it goes on without control.
        compiled: Whether packets take the compiled way to the kernel, if there is one.
    """

    def __init__(
        self,
        control: socket.socket,
        sockets: Sequence[UdpSocket],
        listeners: Sequence[TcpListener],
        engine: Engine,
        outlives_ns: int = 0,
        *,
        compiled: bool = False,
    ) -> None:
        self._is_compiled: Final = compiled
        self._outlives_ns, self._ends_ns = outlives_ns, NEVER_NS
        self._control, self._sockets, self._engine = control, sockets, engine
        self._clock: Final = SystemClock()
        self._backlog: Final = Backlog()
        self._ipv4 = next((udp for udp in sockets if not udp.is_ipv6), None)
        self._ipv6 = next((udp for udp in sockets if udp.is_ipv6), None)
        self._poller: Final = Poller(compiled=compiled)
        self._carriers: Final = Carriers(listeners, self._poller, engine, self._clock)
        self._buffer: Final = memoryview(bytearray(RECEIVE_BYTES))
        self._held: Final = Held()
        self._codel: Final = CoDel()
        self._tun: TunPort | None = None
        self._side: SidePort | None = None
        self._reading = self._blocked = self._is_busy = self._is_releasing = False
        self._now_ns, self._wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()  # Of this turn.
        self._wall_due_ns = self._wall_ahead_ns = 0
        self._running = True
        self._tells_end = control.type != socket.SOCK_DGRAM
        self._parent = os.getppid()

    def run(self) -> None:
        """Work until control says ``Stop``, or has been gone long enough."""
        control, engine, carriers, clock = self._control, self._engine, self._carriers, self._clock
        poller, first = self._poller, control.fileno()
        control.settimeout(0)
        self._poller.register(control.fileno(), self._take_orders)
        self._report()
        while self._running:
            due_ns = min(min(engine.deadline_ns, carriers.deadline_ns), self._ends_ns)  # noqa: PLW3301 - two at a time are fast.
            before_ns = clock.monotonic_ns()
            wait_ns = due_ns - before_ns
            if self._held:
                wait_ns = 0 if self._is_releasing else min(wait_ns, WAIT_NS)
            ready = poller.wait(wait_ns if self._tells_end else min(wait_ns, ORPHAN_CHECK_NS))
            now_ns = self._now_ns = clock.monotonic_ns()
            if now_ns >= self._wall_due_ns:
                self._wall_due_ns, self._wall_ahead_ns = now_ns + WALL_NS, clock.wall_ns() - now_ns
            self._wall_ns = now_ns + self._wall_ahead_ns
            self._is_busy = now_ns - before_ns < BUSY_NS
            if len(ready) > 1:
                ready.sort(key=lambda one: one[0] != first)  # Orders first.
            for fd, found in ready:
                poller.serve(fd, found)
                self._send()
            if self._held:
                self._release()
            if now_ns >= due_ns:
                carriers.tick(now_ns)
                engine.tick(now_ns, self._wall_ns)
                self._send()
                self._running = self._running and now_ns < self._ends_ns
            if engine.reports or self._blocked:
                self._report()
            if not self._tells_end and os.getppid() != self._parent:
                self._running = False
        carriers.close()
        self._detach_port()
        self._poller.close()
        if self._tun is not None:
            self._tun.close()

    def _read_network(self, *, wanted: bool) -> None:
        """Listen to the network, or not while control is too slow; see ``backlog.py``."""
        if wanted == self._reading:
            return
        self._reading = wanted
        for udp in self._sockets:
            if wanted:
                self._poller.register(udp.fileno(), partial(self._take_datagrams, udp))
            else:
                self._poller.unregister(udp.fileno())
        self._carriers.read(wanted=wanted)

    def _take_orders(self, _: int) -> None:
        for _ in range(BATCHES_PER_TURN_MAX):
            files: list[int] = []
            try:
                received = socket.recv_fds(self._control, IPC_BYTES_MAX, 1)
                batch, files = received[0], received[1]
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionResetError:  # It left reports unread; what it had still ordered comes after this.
                continue
            except OSError:
                batch = b""
            if not batch:  # The other end is gone.
                self._orphaned()
                return
            try:
                orders = decode_orders(batch)
            except WireError:
                orders = []
                self._engine.counters.drop("order-refused")
            if len(orders) == 1 and isinstance(orders[0], AttachTun) and files:
                self._attach(files.pop(), orders[0])
            elif len(orders) == 1 and isinstance(orders[0], AttachPort) and files:
                self._attach_port(files.pop(), orders[0])
            else:
                self._obey(orders)
            for unasked in files:
                os.close(unasked)
            self._send()

    def _orphaned(self) -> None:
        """Control is gone without a word: go on without it for a while, if there is anybody to go on with."""
        self._running = bool(self._outlives_ns) and self._engine.is_linked
        self._ends_ns = self._now_ns + self._outlives_ns
        self._poller.unregister(self._control.fileno())
        self._backlog.clear()
        self._blocked = False
        self._read_network(wanted=True)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)

    def _obey(self, orders: Sequence[Order]) -> None:
        now_ns, wall_ns = self._now_ns, self._wall_ns
        for order in orders:
            match order:
                case Stop():
                    self._running = False
                case Configure() | AttachTun() | AttachPort():  # Only the first counts; nothing without a file.
                    self._engine.counters.drop("order-refused")
                case _:
                    self._engine.order(order, now_ns, wall_ns)

    def _attach(self, fd: int, order: AttachTun) -> None:
        """Serve another TUN device from now on."""
        self._detach()
        self._tun = TunPort(fd, self._engine.counters, compiled=self._is_compiled, whole=order.whole)
        self._poller.register(self._tun.fileno(), partial(self._take_tun, self._tun))
        inlet = self._engine.inlet
        inlet.is_open, inlet.ports, inlet.echo = True, frozenset(order.ports), order.echo

    def _detach(self) -> None:
        if self._tun is not None:
            self._poller.unregister(self._tun.fileno())
            self._tun.close()
            self._tun = None
        self._held.clear()
        self._engine.inlet.is_open = False

    def _attach_port(self, fd: int, order: AttachPort) -> None:
        """Serve another process that speaks with members by itself from now on."""
        self._detach_port()
        self._side = SidePort(fd, self._engine.counters)
        self._poller.register(self._side.fileno(), partial(self._take_port, self._side))
        self._engine.inlet.port = order.port

    def _detach_port(self) -> None:
        if self._side is not None:
            self._poller.unregister(self._side.fileno())
            self._side.close()
            self._side = None
        self._engine.inlet.port = -1

    def _take_port(self, side: SidePort, _: int = 0) -> None:
        if side is not self._side:  # Another one took its place in this turn.
            return
        for _ in range(PORT_PACKETS_PER_TURN_MAX):
            try:
                packet = side.read()
            except LinkError:
                self._detach_port()
                return
            if packet is None:
                return
            self._engine.take_ported(packet, self._now_ns, self._wall_ns)
            self._send_what_cannot_wait()

    def _take_tun(self, tun: TunPort, _: int = 0) -> None:
        if tun is not self._tun:  # Another one took its place in this turn.
            return
        counters = self._engine.counters
        reads, room = TUN_READS_PER_TURN_MAX if self._is_busy else 1, BYTES_PER_TURN
        while reads and room > 0:
            reads -= 1
            try:
                item = tun.read()
            except WireError:
                counters.drop("tun-malformed")
                continue
            except LinkError as error:
                self._lose(error)
                return
            if item is None:
                return
            if not self._waits(item):
                self._pass(item)
                room -= size_of(item)
            elif not self._held.add(item, self._now_ns):
                counters.drop("tun-queue")

    def _pass(self, item: Bulk | Lone) -> None:
        """Give a packet of the kernel to the engine."""
        if isinstance(item, Bulk):
            self._engine.take_bulk(item, self._now_ns, self._wall_ns)
        else:
            self._engine.take_tun(item[0], self._now_ns, self._wall_ns, unfinished=item[1])
        self._send_what_cannot_wait()

    def _waits(self, item: Bulk | Lone) -> bool:
        """Return whether a packet of the kernel has to wait, because the queue of the way out stands."""
        held = self._held
        if not isinstance(item, Bulk) and len(item[0]) <= SMALL_BYTES_MAX:
            return len(held) > 0 and not held.is_passing(item[0])
        return len(held) > 0 or self._queue_ns() >= QUEUE_NS

    def _queue_ns(self) -> int:
        return max([udp.queue.wait_ns(self._now_ns) for udp in self._sockets], default=0)

    def _release(self) -> None:
        """Pass what waited, as far as the queue of the way out has room; tell its sender of a wait that is too long."""
        room = BYTES_PER_TURN
        self._is_releasing = False
        while self._held and self._queue_ns() < QUEUE_NS:
            if room <= 0:
                self._is_releasing = True
                return
            item, since_ns = self._held.take()
            room -= size_of(item)
            if self._codel.drops(self._now_ns - since_ns, self._now_ns) and not _is_marked(item):
                self._engine.counters.drop("tun-queue")
                if not isinstance(item, Bulk) or not item.drop_last():
                    continue
            self._pass(item)
            self._send()

    def _lose(self, error: LinkError) -> None:
        """The TUN device is gone; control opens another one, or says so."""
        self._detach()
        self._engine.reports.append(TunLost(str(error)))

    def _take_datagrams(self, udp: UdpSocket, _: int) -> None:
        engine, now_ns, wall_ns = self._engine, self._now_ns, self._wall_ns
        try:
            if not self._is_busy:
                self._take_first(udp)
                return
            for start, end, size, source in udp.receive_bursts(self._buffer, DATAGRAMS_PER_TURN_MAX):
                engine.receive_burst(self._buffer[start:end], size, source, now_ns, wall_ns)
                self._send_what_cannot_wait()
        except LinkError:
            engine.counters.drop("receive-failed")

    def _take_first(self, udp: UdpSocket) -> None:
        """Take what came after a pause, mostly one datagram that somebody waits for, and nothing behind it."""
        received = udp.receive_first(self._buffer)
        if received is None:
            return
        found, size, source = received
        if isinstance(found, bytes):
            self._engine.receive(found, source, self._now_ns, self._wall_ns)
        else:
            self._engine.receive_burst(self._buffer[:found], size, source, self._now_ns, self._wall_ns)
        if self._send_what_cannot_wait() and self._tun is not None:
            self._take_tun(self._tun)  # The kernel's answer is often there already.

    def _send_what_cannot_wait(self) -> bool:
        """Send what the engine's next call may overwrite, and all that came before it; True: some to the kernel.

        Other datagrams wait for the end of the turn: then those of one length to one peer, such as the acknowledgements
        of a stream, leave in one call.
        """
        engine = self._engine
        if engine.bursts or engine.inlet.outbox or engine.inlet.port_outbox or len(engine.outbox) >= DATAGRAMS_HELD_MAX:
            return self._send()
        return False

    def _send(self) -> bool:
        """Send all that came of the calls of the engine; True: some to the kernel."""
        engine = self._engine
        outbox, packets, ported = engine.outbox, engine.inlet.outbox, engine.inlet.port_outbox
        if ported:
            if self._side is not None:
                self._side.write(ported)
            ported.clear()
        if outbox:
            if len(outbox) == 1:
                endpoint, datagram = outbox[0]
                self._emit(endpoint, datagram, len(datagram))
            else:
                for endpoint, data, size in gathered(outbox):
                    self._emit(endpoint, data, size)
            outbox.clear()
        if engine.bursts:
            for endpoint, burst, size in engine.bursts:
                self._emit(endpoint, burst, size)
            engine.bursts.clear()
        if not packets:
            return False
        if self._tun is not None:
            try:
                self._tun.write(packets)
            except LinkError as error:
                self._lose(error)
        packets.clear()
        return True

    def _emit(self, endpoint: Endpoint, data: bytes | memoryview, size: int) -> None:
        """Send one datagram, or several of this size back to back of which the last may be shorter."""
        if endpoint[0].startswith(TCP_PREFIX):  # ``is_tcp``, which is not translated.
            sent = self._carriers.send(endpoint, data, size, self._now_ns)
        else:
            udp = self._ipv6 if ":" in endpoint[0] else self._ipv4
            if udp is None:
                sent = Sent.REFUSED
            elif len(data) > size:
                sent = udp.send_burst(endpoint, data, size)
                udp.queue.note(self._now_ns)
            else:
                sent = udp.send(endpoint, data)
                if udp.queue.is_standing:
                    udp.queue.note(self._now_ns)
        if sent is not _OK:
            self._engine.counters.drop(_DROPS[sent], -(-len(data) // size))

    def _report(self) -> None:
        """Hand reports over, as far as control takes them now."""
        reports, backlog = self._engine.reports, self._backlog
        if self._ends_ns != NEVER_NS:  # Nobody hears them.
            reports.clear()
            return
        for report in reports:
            if type(report) is not PacketReceived:
                backlog.put_urgent(encode_item(report))
            elif backlog.put_packet(encode_item(report)):
                self._engine.counters.drop("report-overflow")
        reports.clear()
        self._read_network(wanted=backlog.is_relieved if not self._reading else not backlog.is_full)
        blocked = False
        while (batch := backlog.batch()) is not None:
            try:
                self._control.send(batch)
            except (BlockingIOError, InterruptedError):
                blocked = True
                break
            except ConnectionError:
                backlog.clear()
                if not self._tells_end:
                    self._orphaned()
                    return
                break  # What it had ordered is read first, and then its end.
            except OSError:
                self._running = False
                return
            backlog.sent()
        if blocked != self._blocked:
            self._blocked = blocked
            self._poller.modify(self._control.fileno(), READ | WRITE if blocked else READ)


def _is_marked(item: Bulk | Lone) -> bool:
    """Mark a packet with "congestion experienced"; False: its sender does not understand that."""
    return isinstance(item, Bulk) and item.mark_congestion()


def main(arguments: Sequence[str]) -> int:
    """Run the process; return its exit status.

    Args:
        arguments: As in ``sys.argv``; the second is the number of the control socket's file descriptor, the third, if
            there is one, that of the door's.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    with ExitStack() as opened:
        control = opened.enter_context(socket.socket(fileno=int(arguments[1])))
        for door in arguments[2:]:
            listen(opened.enter_context(socket.socket(fileno=int(door))))
        control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, IPC_SOCKET_BYTES)
        configure = _first_order(control)
        if configure is None:
            return EXIT_NOT_CONFIGURED
        sockets: list[UdpSocket] = []
        listeners: list[TcpListener] = []
        try:
            bursts, limits = bursts_work(), _limits(configure)
            sockets.extend(
                UdpSocket(endpoint, bursts=bursts, compiled=limits.compiled)
                for endpoint in configure.listen
                if not is_tcp(endpoint)
            )
            missing = _listen_tcp(configure, listeners)
            for udp in sockets:
                udp.sends_bursts = udp.sends_bursts and bursts
            engine = _engine(configure, limits)  # It loads what it needs, which another user may not be able to read.
            confine(configure.run_as_uid)
        except (LinkError, OSError, UsageError) as error:
            _say(control, Listening((), str(error) or "EIO"))
            return EXIT_NOT_LISTENING
        listening = Listening(
            (*(udp.endpoint for udp in sockets), *(listener.endpoint for listener in listeners)),
            bursts=bursts,
            aes=limits.prefers_aes,
            compiled=limits.compiled and is_compiled(),
            translated=is_compiled_module(__name__),
            missing=missing,
        )
        _say(control, listening, *engine.reports)  # Reserved before it is used.
        engine.reports.clear()
        freeze_heap()
        ask_for_short_slices()
        process = NicProcess(control, sockets, listeners, engine, configure.outlives_ns, compiled=limits.compiled)
        process.run()
        for udp in sockets:
            udp.close()
    return EXIT_OK


def _first_order(control: socket.socket) -> Configure | None:
    """Wait for ``Configure``; None: something else came, or nothing."""
    control.settimeout(START_S_MAX)
    try:
        orders = decode_orders(control.recv(IPC_BYTES_MAX))
    except (OSError, WireError):
        return None
    return orders[0] if len(orders) == 1 and isinstance(orders[0], Configure) else None


def _listen_tcp(configure: Configure, listeners: list[TcpListener]) -> tuple[Endpoint, ...]:
    """Open what can be had of the wanted TCP endpoints; return the others: a node without them is one all the same."""
    missing: list[Endpoint] = []
    for endpoint in configure.listen:
        if is_tcp(endpoint):
            try:
                listeners.append(TcpListener(endpoint))
            except LinkError:
                missing.append(endpoint)
    return tuple(missing)


def _limits(configure: Configure) -> EngineConfig:
    return EngineConfig(
        relay_bytes_s=configure.relay_bytes_s,
        prefers_aes=prefers_aes(),
        compiled=os.environ.get(COMPILED_VARIABLE) != "no",
    )


def _engine(configure: Configure, limits: EngineConfig) -> Engine:
    clock = SystemClock()
    return Engine(
        private_key=configure.private_key,
        group=configure.group,
        rng=SystemRandom(),
        now_ns=clock.monotonic_ns(),
        wall_ns=clock.wall_ns(),
        wall_floor_ns=configure.wall_floor_ns,
        limits=limits,
    )


def _say(control: socket.socket, *reports: Report) -> None:
    with suppress(OSError):  # Control is gone; the next read says so, and there is nobody to tell.
        control.send(join_items([encode_item(report) for report in reports]))
