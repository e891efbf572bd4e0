# SPDX-License-Identifier: Apache-2.0
"""Real packet devices: processes on loopback, driven by their clients."""

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import SystemRandom

import pytest

import atoll
from atoll.base.errors import LinkError, UsageError
from atoll.base.ids import DIRECT, Endpoint, NodeId, PublicKey, node_id_of
from atoll.device.nic.client import LAST_WORDS_BYTES_MAX, NicClient
from atoll.device.nic.engine import Engine
from atoll.device.nic.limits import IPC_BYTES_MAX, PACKETS_QUEUED_MAX, URGENT_QUEUED_MAX
from atoll.device.nic.messages import (
    AdmitPeer,
    Configure,
    Listening,
    PacketReceived,
    Report,
    SendPacket,
    Stop,
    Timestamp,
    decode_reports,
    encode_item,
    join_items,
)
from atoll.host.compiled_tree import PACKAGE, compiled_tree, digest_of
from atoll.host.udp import Sent, UdpSocket
from atoll.overlay.orders import SendControl, SetArrivalLabel, SetForwardLabel, SetRoute, SetTransmitLabel
from atoll.overlay.reports import ControlReceived, FlowSeen, RelayMetered, SessionUp
from atoll.overlay.session import PrivateKey
from tests.unit.nic_world import GROUP, ipv6, key, node_of

pytestmark = pytest.mark.process

WAIT_S = 20.0
MESSAGE = b"\x91\x05"


class Node:
    """One device and everything that it reported."""

    def __init__(self, number: int) -> None:
        self.private_key = key(number)
        self.public_key = PrivateKey(self.private_key).public
        self.node: NodeId = node_id_of(PublicKey(self.public_key))
        self.reports: list[Report] = []
        self.lost: list[str] = []
        self.changed = asyncio.Event()
        self.client = NicClient(self._on_reports, self._on_lost)
        self.at = ("", 0)

    def _on_reports(self, reports: Sequence[Report]) -> None:
        assert reports
        self.reports += reports
        self.changed.set()

    def _on_lost(self, reason: str) -> None:
        self.lost.append(reason)
        self.changed.set()

    async def start(self, listen: tuple[str, int] = ("127.0.0.1", 0), *, run_as_uid: int = 0) -> str:
        listening = await self.client.start(Configure(GROUP, self.private_key, (listen,), run_as_uid=run_as_uid))
        if listening.endpoints:
            self.at = listening.endpoints[0]
        return listening.error

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def linked(self, other: "Node") -> None:
        await self.until(lambda: any(isinstance(r, SessionUp) and r.node == other.node for r in self.reports))

    def packets(self) -> list[bytes]:
        return [report.packet[40:] for report in self.reports if isinstance(report, PacketReceived)]

    def heard(self) -> list[ControlReceived]:
        return [report for report in self.reports if isinstance(report, ControlReceived)]

    def send(self, other: "Node", payload: bytes) -> None:
        self.client.order(SendPacket(other.node, 0, ipv6(self.node, other.node, payload)))


class Crowd:
    """Many peers of one device, in this process and on one socket."""

    def __init__(self, udp: UdpSocket, target: bytes, at: Endpoint) -> None:
        self.udp, self.target, self.at = udp, node_of(1), at
        self.engines = [
            Engine(private_key=key(number), group=GROUP, rng=SystemRandom(), now_ns=0, wall_ns=time.time_ns())
            for number in range(50, 74)
        ]
        self.target_key = target

    def send(self, engine: Engine) -> None:
        for endpoint, datagram in engine.outbox:
            self.udp.send(endpoint, datagram)
        engine.outbox.clear()

    def connect(self) -> None:
        for engine in self.engines:
            engine.order(AdmitPeer(self.target_key, (self.at,)), 0, time.time_ns())
            self.send(engine)
            while not any(isinstance(report, SessionUp) for report in engine.reports):
                assert select.select([self.udp], [], [], WAIT_S)[0]
                received = self.udp.receive()
                assert received is not None
                engine.receive(*received, 0, time.time_ns())
            self.send(engine)

    def say(self, payload: bytes, times: int) -> None:
        for _ in range(times):
            for engine in self.engines:
                engine.order(SendControl(self.target, DIRECT, payload), 0, 0)
                self.send(engine)


@asynccontextmanager
async def started(count: int) -> AsyncGenerator[list[Node]]:
    nodes = [Node(number) for number in range(1, count + 1)]
    try:
        for node in nodes:
            assert await node.start() == ""
        for node in nodes:
            for other in nodes:
                if other is not node:
                    node.client.order(AdmitPeer(other.public_key, (other.at,)))
        for node in nodes:
            for other in nodes:
                if other is not node:
                    await node.linked(other)
        yield nodes
    finally:
        for node in nodes:
            await node.client.stop()


def run(test: Coroutine[None, None, None]) -> None:
    asyncio.run(test)


def test_two_devices_exchange_packets_and_control() -> None:
    async def scenario() -> None:
        async with started(2) as (one, two):
            one.send(two, b"there")
            two.send(one, b"and back")
            one.client.order(SendControl(two.node, DIRECT, MESSAGE))
            await two.until(lambda: two.packets() == [b"there"] and two.heard() != [])
            await one.until(lambda: one.packets() == [b"and back"])
            assert two.heard() == [ControlReceived(one.node, DIRECT, MESSAGE)]
            await two.until(lambda: sum(r.received for r in two.reports if isinstance(r, FlowSeen)) == 1)
            await one.client.stop()
            assert one.client.pid is None
            assert one.lost == []

    run(scenario())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_device_of_root_gives_up_its_user_and_all_privileges_for_good() -> None:
    async def scenario() -> None:
        one, two = Node(1), Node(2)
        try:
            assert await one.start(run_as_uid=65_534) == ""
            assert await two.start() == ""
            for node, other in ((one, two), (two, one)):
                node.client.order(AdmitPeer(other.public_key, (other.at,)))
            await one.linked(two)
            two.send(one, b"it works on")
            await one.until(lambda: one.packets() == [b"it works on"])
            status = Path(f"/proc/{one.client.pid}/status").read_text("ascii")
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            assert fields["Uid"].split() == fields["Gid"].split() == ["65534"] * 4
            assert fields["Groups"].split() == []
            assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
            assert fields["NoNewPrivs"] == "1"
        finally:
            await one.client.stop()
            await two.client.stop()

    run(scenario())


def test_a_relay_carries_what_it_cannot_read() -> None:
    async def scenario() -> None:
        async with started(3) as (one, relay, two):
            away, onward = key(101), key(102)
            relay.client.order(SetForwardLabel(7, away, one.node, two.node, 8, onward, 1 << 30))
            two.client.order(SetArrivalLabel(8, onward, relay.node, one.node))
            relay.send(two, b"ready")  # Obeyed in order: who sent this knows its label.
            two.send(relay, b"ready")
            await two.until(lambda: two.packets() == [b"ready"])
            await relay.until(lambda: relay.packets() == [b"ready"])
            one.client.order(SetTransmitLabel(two.node, relay.node, 7, away))
            one.client.order(SetRoute(two.node, 0, relay.node))
            one.client.order(SendControl(two.node, relay.node, MESSAGE))
            one.send(two, b"over the relay")
            await relay.until(lambda: any(isinstance(r, RelayMetered) and r.label == 7 for r in relay.reports))
            await two.until(lambda: two.packets() == [b"ready", b"over the relay"])
            assert two.heard() == [ControlReceived(one.node, relay.node, MESSAGE)]
            assert relay.packets() == [b"ready"]

    run(scenario())


def test_bulk_loses_no_control_message_and_keeps_order() -> None:
    async def scenario() -> None:
        async with started(2) as (one, two):
            messages = [bytes((0x91, number)) for number in range(100)]
            for message in messages:
                for _ in range(PACKETS_QUEUED_MAX // 20):
                    one.send(two, bytes(1_200))
                one.client.order(SendControl(two.node, DIRECT, message))
            await two.until(lambda: len(two.heard()) == len(messages))
            assert [heard.payload for heard in two.heard()] == messages
            await two.until(lambda: len(two.packets()) > 0)
            assert one.client.dropped > 0  # All in one turn of the loop: more than may wait.

    run(scenario())


def test_what_was_to_be_sent_is_sent_before_the_end() -> None:
    async def scenario() -> None:
        async with started(2) as (one, two):
            for _ in range(PACKETS_QUEUED_MAX // 2):  # Several times what the socket to the device takes at once.
                one.send(two, bytes(1_200))
            one.send(two, b"the end of a stream")
            await one.client.stop()
            await two.until(lambda: b"the end of a stream" in two.packets())

    run(scenario())


def test_a_compiled_device_that_fails_gives_way_to_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = tmp_path / PACKAGE / "atoll" / "device" / "nic" / "__main__.py"
    main.parent.mkdir(parents=True)
    for package in (main.parent, main.parent.parent, main.parent.parent.parent):
        (package / "__init__.py").touch()
    main.write_text("raise TypeError('int object expected')", encoding="ascii")
    digest = digest_of(Path(atoll.__file__).parent)
    (tmp_path / PACKAGE / "__init__.py").write_text(f"SOURCES = {digest!r}", encoding="ascii")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)

    async def scenario() -> None:
        async with started(2) as (one, two):
            one.send(two, b"hello")
            await two.until(lambda: len(two.packets()) == 1)

    try:
        assert compiled_tree() == tmp_path / PACKAGE
        run(scenario())
    finally:
        sys.modules.pop(PACKAGE, None)


def test_a_killed_device_is_noticed_and_can_be_started_again() -> None:
    async def scenario() -> None:
        async with started(2) as (one, two):
            pid = one.client.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await one.until(lambda: one.lost != [])
            assert one.lost == ["signal 9"]
            one.client.order(AdmitPeer(two.public_key, (two.at,)))  # Lost, like all orders before.
            one.reports.clear()
            assert await one.start() == ""
            one.client.order(AdmitPeer(two.public_key, (two.at,)))
            await one.linked(two)
            one.send(two, b"again")
            await two.until(lambda: two.packets() == [b"again"])

    run(scenario())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_leaves_the_device_to_its_control(number: signal.Signals) -> None:
    """Control must still be able to say goodbye over it; what then ends it is the end of the control socket."""

    async def scenario() -> None:
        async with started(2) as (one, two):
            pid = one.client.pid
            assert pid is not None
            os.kill(pid, number)
            one.send(two, b"goodbye")
            await two.until(lambda: two.packets() == [b"goodbye"])
            assert one.lost == []
            await one.client.stop()
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    run(scenario())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_device_is_deaf_to_signals_from_its_first_instruction(number: signal.Signals) -> None:
    async def scenario() -> None:
        node = Node(1)
        starting = asyncio.create_task(node.start())
        async with asyncio.timeout(WAIT_S):
            while node.client.pid is None:  # noqa: ASYNC110 - what it waits for cannot signal it.
                await asyncio.sleep(0)
        os.kill(node.client.pid, number)  # It has not even begun to load its modules.
        assert await starting == ""
        assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, ()), "ours are let through again"
        await node.client.stop()

    run(scenario())


def test_what_a_dying_device_says_goes_to_the_log_and_only_the_end_of_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONVERBOSE", "1")  # The interpreter tells of each import: far more than is kept.
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")

    async def scenario() -> None:
        async with started(1) as (node,):
            pid = node.client.pid
            assert pid is not None
            os.kill(pid, signal.SIGABRT)
            await node.until(lambda: node.lost != [])

    run(scenario())
    said = [record.getMessage() for record in caplog.records if record.name == "atoll.nic"]
    assert len(said) == 1
    assert "Fatal Python error: Aborted" in said[0]
    assert LAST_WORDS_BYTES_MAX - 200 < len(said[0]) < LAST_WORDS_BYTES_MAX + 200


def test_a_device_ends_with_its_control() -> None:
    async def scenario() -> None:
        async with started(1) as (node,):
            pid = node.client.pid
            assert pid is not None
            await node.client.stop()
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
            with pytest.raises(UsageError):
                node.client.order(Stop())

    run(scenario())


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"", 4),  # The other end is gone before it said anything.
        (b"nonsense", 4),
        (join_items((encode_item(Stop()),)), 4),
        (join_items((encode_item(Configure(GROUP, key(1), (("127.0.0.1", 0),))),)), 0),
        (join_items((encode_item(Configure(GROUP, key(1), (("name.example", 0),))),)), 3),
    ],
)
def test_how_the_process_ends(kind: socket.SocketKind, first: bytes, status: int) -> None:
    async def scenario() -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "atoll.device.nic", str(theirs.fileno()), pass_fds=(theirs.fileno(),)
        )
        theirs.close()
        with ours:
            if first or kind == socket.SOCK_DGRAM:
                ours.send(first)
            if status == 0:
                ours.send(b"nonsense is refused later on")
                ours.send(join_items((encode_item(Stop()),)))
                with_reports = await asyncio.to_thread(ours.recv, IPC_BYTES_MAX)
                assert isinstance(decode_reports(with_reports)[0], Listening)
            elif first:
                async with asyncio.timeout(WAIT_S):
                    await process.wait()
        async with asyncio.timeout(WAIT_S):
            return await process.wait()

    assert asyncio.run(scenario()) == status


def test_a_working_device_ends_when_control_is_gone_without_a_word() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = (sys.executable, "-P", "-m", "atoll.device.nic", str(theirs.fileno()))
    with subprocess.Popen(command, pass_fds=(theirs.fileno(),)) as process:
        theirs.close()
        with ours:
            ours.settimeout(WAIT_S)
            ours.send(join_items((encode_item(Configure(GROUP, key(1), (("127.0.0.1", 0),))),)))
            said = decode_reports(ours.recv(IPC_BYTES_MAX))
            # In one: no timestamp is used before control knows of it. It has nothing more to say, so only the end of
            # the socket ends it.
            assert [type(report) for report in said] == [Listening, Timestamp]
        try:
            assert process.wait(WAIT_S) == 0
        finally:
            process.kill()


def test_orders_wait_for_a_device_that_was_paused() -> None:
    async def scenario() -> None:
        async with started(2) as (one, two):
            pid = one.client.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            messages = [b"\x91" + number.to_bytes(2, "big") + bytes(1_000) for number in range(400)]
            for message in messages:
                one.client.order(SendControl(two.node, DIRECT, message))
                await asyncio.sleep(0)  # A turn of the loop, so that the socket's buffer fills.
            os.kill(pid, signal.SIGCONT)
            await two.until(lambda: len(two.heard()) == len(messages))
            assert [heard.payload for heard in two.heard()] == messages

    run(scenario())


def test_a_device_that_takes_no_orders_is_killed() -> None:
    async def scenario() -> None:
        async with started(2) as (one, two):
            pid = one.client.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            async with asyncio.timeout(WAIT_S):
                while not one.lost:
                    for _ in range(100):
                        one.client.order(SendControl(two.node, DIRECT, b"\x91" + bytes(1_000)))
                    await asyncio.sleep(0)
            assert one.lost == ["signal 9, more than 8192 orders not taken"]

    run(scenario())


def test_a_device_whose_control_does_not_listen_stops_reading_and_goes_on_later() -> None:
    """More control messages than may wait; none that was read is lost, and packets come again afterwards."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = (sys.executable, "-P", "-m", "atoll.device.nic", str(theirs.fileno()))
    udp = UdpSocket(("127.0.0.1", 0))
    with subprocess.Popen(command, pass_fds=(theirs.fileno(),)) as process, ours, closing(udp):
        theirs.close()
        ours.settimeout(WAIT_S)
        ours.send(join_items((encode_item(Configure(GROUP, key(1), (("127.0.0.1", 0),))),)))
        first = decode_reports(ours.recv(IPC_BYTES_MAX))[0]
        assert isinstance(first, Listening)
        crowd = Crowd(udp, PrivateKey(key(1)).public, first.endpoints[0])
        ours.send(join_items([encode_item(AdmitPeer(engine.public_key)) for engine in crowd.engines]))
        crowd.connect()
        crowd.say(b"\x91" + bytes(1_000), times=1_200)
        got: list[bytes] = []
        while b"\x91last" not in got:
            if len(got) > URGENT_QUEUED_MAX // 2:
                crowd.say(b"\x91last", times=1)  # Again each time: it is lost while the device does not read.
            reports = decode_reports(ours.recv(IPC_BYTES_MAX))
            got += [report.payload for report in reports if isinstance(report, ControlReceived)]
        # What waited here, and besides it what both sockets held. Had it gone on reading, it would be twice as many.
        assert URGENT_QUEUED_MAX <= len([payload for payload in got if len(payload) > 9]) <= URGENT_QUEUED_MAX + 3_000
        ours.send(join_items((encode_item(Stop()),)))
        assert process.wait(WAIT_S) == 0


def test_a_taken_port_is_said_and_not_lost() -> None:
    async def scenario() -> None:
        one, two = Node(1), Node(2)
        assert await one.start() == ""
        assert await two.start(one.at) == "EADDRINUSE"
        assert two.client.pid is None
        assert two.lost == []
        assert await two.start(("no number", 0)) == "EADDRNOTAVAIL"
        assert await two.start() == ""
        with pytest.raises(UsageError):
            await two.start()
        await one.client.stop()
        await two.client.stop()

    run(scenario())


def test_hostile_datagrams_end_nothing() -> None:
    async def scenario() -> None:
        async with started(2) as (one, two):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                for datagram in (b"", b"\x05\0\0\0", b"\x01\0\0\0" * 37, bytes(65_000), b"\x04\0\0\0" * 100):
                    for _ in range(20):
                        stranger.sendto(datagram, two.at)
            one.send(two, b"unimpressed")
            await two.until(lambda: two.packets() == [b"unimpressed"])
            assert two.lost == []

    run(scenario())


def test_sockets_say_what_became_of_a_datagram() -> None:
    one, two = UdpSocket(("127.0.0.1", 0)), UdpSocket(("::1", 0))
    with closing(one), closing(two):
        assert (one.is_ipv6, two.is_ipv6) == (False, True)
        assert one.receive() is None
        for udp in (one, two):
            assert udp.send(udp.endpoint, b"to itself") is Sent.OK
            select.select([udp], [], [], WAIT_S)
            assert udp.receive() == (b"to itself", udp.endpoint)
        assert one.send(one.endpoint, bytes(65_508)) is Sent.TOO_LONG
        assert one.send(("255.255.255.255", 9), b"x") is Sent.REFUSED
    with pytest.raises(LinkError, match="EADDRNOTAVAIL"):
        UdpSocket(("192.0.2.1", 0))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_device_gives_up_what_it_does_not_need() -> None:
    async def scenario() -> None:
        async with started(1) as (node,):
            status = Path(f"/proc/{node.client.pid}/status").read_text("ascii")
            assert "NoNewPrivs:\t1" in status
            limits = Path(f"/proc/{node.client.pid}/limits").read_text("ascii")
            core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
            assert core.split()[4:6] == ["0", "0"]

    run(scenario())
