# SPDX-License-Identifier: Apache-2.0
"""A packet device whose control is killed: what it goes on with, for how long, and who ends it."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom

import pytest

from atoll.base.ids import DIRECT
from atoll.base.units import SECOND_NS
from atoll.device.nic.engine import Engine
from atoll.device.nic.frame import FRAME_KIND
from atoll.device.nic.limits import IPC_BYTES_MAX
from atoll.device.nic.messages import (
    AdmitPeer,
    Configure,
    Listening,
    Order,
    Stop,
    decode_reports,
    encode_item,
    join_items,
)
from atoll.device.nic.orphan import DOOR_NAME, end_orphan, made_door
from atoll.host.files import StateLock
from atoll.host.udp import UdpSocket
from atoll.node.launch import end_orphaned
from atoll.node.state import LOCK_NAME
from atoll.overlay.orders import SendControl, SetForwardLabel, SetTransmitLabel
from atoll.overlay.reports import SessionUp
from atoll.overlay.session import PrivateKey
from tests.unit.nic_world import GROUP, key, node_of

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="needs SO_PEERCRED and pidfd")]

WAIT_S = 20.0
AGAIN_S = 0.2
LONG_NS = 60 * SECOND_NS  # More than any of these tests takes.


class Device:
    """A device as control starts it, and control's end of the socket."""

    def __init__(self, door: Path) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(WAIT_S)
        self.door = door
        self.peers: list[Far] = []
        listener = made_door(door)
        assert listener is not None
        with theirs, listener:
            files = (theirs.fileno(), listener.fileno())
            command = (sys.executable, "-P", "-m", "atoll.device.nic", *map(str, files))
            self.process = subprocess.Popen(command, pass_fds=files)

    def order(self, *orders: Order) -> None:
        self.control.send(join_items([encode_item(order) for order in orders]))

    def listens(self, outlives_ns: int) -> tuple[str, int]:
        self.order(Configure(GROUP, key(1), (("127.0.0.1", 0),), outlives_ns=outlives_ns))
        told = decode_reports(self.control.recv(IPC_BYTES_MAX))[0]
        assert isinstance(told, Listening)
        host, port = told.endpoints[0]
        return str(host), int(port)

    def has_sessions(self, wanted: int) -> None:
        """Wait for sessions that it knows to be confirmed."""
        while wanted > 0:
            reports = decode_reports(self.control.recv(IPC_BYTES_MAX))
            wanted -= sum(isinstance(report, SessionUp) for report in reports)


class Far:
    """A peer in this process."""

    def __init__(self, number: int, device: tuple[str, int]) -> None:
        self.udp = UdpSocket(("127.0.0.1", 0))
        self.engine = Engine(private_key=key(number), group=GROUP, rng=SystemRandom(), now_ns=0, wall_ns=time.time_ns())
        self.engine.order(AdmitPeer(PrivateKey(key(1)).public, (device,)), 0, time.time_ns())
        self.send()

    def send(self) -> None:
        for endpoint, datagram in self.engine.outbox:
            self.udp.send(endpoint, datagram)
        self.engine.outbox.clear()

    def receive(self) -> bytes:
        assert select.select([self.udp], [], [], WAIT_S)[0]
        received = self.udp.receive()
        assert received is not None
        self.engine.receive(*received, 0, time.time_ns())
        self.send()
        return received[0]

    def links(self) -> None:
        while not any(isinstance(report, SessionUp) for report in self.engine.reports):
            self.receive()


@contextmanager
def device(tmp_path: Path) -> Generator[Device]:
    made = Device(tmp_path / DOOR_NAME)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait(WAIT_S)
        made.control.close()
        for far in made.peers:
            far.udp.close()


def linked(relay: Device, outlives_ns: int) -> tuple[Far, Far]:
    """Two peers with sessions, and a label for what the first sends to the second."""
    at = relay.listens(outlives_ns)
    relay.order(AdmitPeer(PrivateKey(key(2)).public), AdmitPeer(PrivateKey(key(3)).public))
    relay.peers = [one, two] = [Far(2, at), Far(3, at)]
    for far in (one, two):
        far.links()
    for far in (one, two):  # From now on the relay knows where it is.
        far.engine.order(SendControl(node_of(1), DIRECT, b"\x91\x05"), 0, 0)
        far.send()
    relay.has_sessions(2)
    relay.order(SetForwardLabel(7, key(101), node_of(2), node_of(3), 8, key(102), 1 << 30))
    one.engine.order(AdmitPeer(PrivateKey(key(3)).public), 0, time.time_ns())
    one.engine.order(SetTransmitLabel(node_of(3), node_of(1), 7, key(101)), 0, time.time_ns())
    return one, two


def passes(one: Far, two: Far) -> None:
    """Show that what one calls through the relay comes to the other; again and again, as it may come too early."""
    frames = list(one.engine.outbox)
    assert frames
    give_up_s = time.monotonic() + WAIT_S
    while time.monotonic() < give_up_s:
        for endpoint, frame in frames:
            one.udp.send(endpoint, frame)
        if select.select([two.udp], [], [], AGAIN_S)[0] and two.receive().startswith(FRAME_KIND):
            return
    pytest.fail("nothing came through the relay")


def test_packets_flow_on_the_last_tables_until_somebody_else_takes_over(tmp_path: Path) -> None:
    with device(tmp_path) as orphan:
        one, two = linked(orphan, LONG_NS)
        orphan.control.close()
        passes(one, two)
        assert orphan.process.poll() is None
        assert end_orphan(orphan.door)
        assert orphan.process.wait(WAIT_S) == -signal.SIGKILL
        assert not end_orphan(orphan.door), "there is nobody behind it"


def test_what_a_running_node_uses_is_not_taken_for_left_over(tmp_path: Path) -> None:
    with device(tmp_path) as kept:
        kept.listens(LONG_NS)
        with StateLock(tmp_path / LOCK_NAME):
            assert not end_orphaned(tmp_path)
        assert kept.process.poll() is None
        assert end_orphaned(tmp_path)
    assert not end_orphaned(tmp_path / "nowhere")


def test_it_ends_by_itself(tmp_path: Path) -> None:
    with device(tmp_path) as orphan:
        linked(orphan, SECOND_NS // 4)
        orphan.control.close()
        assert orphan.process.wait(WAIT_S) == 0


def test_without_a_session_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    with device(tmp_path) as orphan:
        orphan.listens(LONG_NS)
        orphan.control.close()
        assert orphan.process.wait(WAIT_S) == 0


def test_one_that_is_told_to_end_ends_at_once(tmp_path: Path) -> None:
    with device(tmp_path) as kept:
        linked(kept, LONG_NS)
        kept.order(Stop())
        assert kept.process.wait(WAIT_S) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])
def test_a_signal_that_was_held_back_ends_it_once_control_is_gone(
    tmp_path: Path, number: signal.Signals, is_first: bool
) -> None:
    """A service manager whose main process died tells the rest to end, and waits for that before it starts anew."""
    with device(tmp_path) as orphan:
        one, two = linked(orphan, LONG_NS)
        if is_first:
            os.kill(orphan.process.pid, number)
            passes(one, two)
        orphan.control.close()
        if not is_first:
            os.kill(orphan.process.pid, number)
        assert orphan.process.wait(WAIT_S) == -number


def test_a_door_that_cannot_be_had_is_none(tmp_path: Path) -> None:
    assert made_door(tmp_path / "nowhere" / DOOR_NAME) is None
    assert not end_orphan(tmp_path / "nowhere" / DOOR_NAME)
    with made_door(tmp_path / DOOR_NAME) or pytest.fail("no door") as door:
        assert not end_orphan(tmp_path / DOOR_NAME), "nobody listens yet"
        door.listen()
