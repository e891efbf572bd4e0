# SPDX-License-Identifier: Apache-2.0
"""What strangers, eavesdroppers and careless owners send to a running node: it goes on, answers little, stays small."""

import select
import socket
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from random import Random
from typing import Self

import pytest

from atoll.base.errors import UserError
from atoll.base.units import SECOND_NS
from atoll.device.nic.frame import FRAME_KIND
from atoll.group.roster import Roster
from atoll.overlay.session import Sessions
from tests.process.node_world import WAIT_S, Box, children_of, nodes, until

pytestmark = pytest.mark.process

LOOPBACK = "127.0.0.1"
CAPTURED_MIN = 150  # Datagrams between the two nodes before the attack begins: handshakes, probes, echoes.
CAPTURED_MAX = 4_000
GROWTH_KIB_MAX = 20 * 1024
STATUS_S_MAX = 5.0  # It takes a few milliseconds; the machine that tests may be busy.
BATCH = 100  # Datagrams that surely fit the socket's buffer.
RANDOM_COUNT = 20_000
HANDSHAKE_COUNT = 2_000
DATAGRAM_BYTES_MAX = 65_535
COOKIE_REPLY, COOKIE_REPLY_BYTES = b"\x03\0\0\0", 64
API_CLIENTS = 100
LINE_BYTES = 10 * 1024 * 1024


class Wire(threading.Thread):
    """The network between two nodes: each knows the other by a face, a socket here; everything is copied.

    Use it as a context: it begins and ends with that.
    """

    def __init__(self, *ports: int) -> None:
        super().__init__(daemon=True)
        self._faces = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in ports]
        for face in self._faces:
            face.bind((LOOPBACK, 0))
        self._ports = ports
        self._ended = threading.Event()
        self.captured: list[tuple[int, bytes]] = []  # (index of the receiver, datagram), oldest first.

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join(WAIT_S)
        for face in self._faces:
            face.close()

    def advertised(self, index: int) -> str:
        host, port = self._faces[index].getsockname()
        return f"{host}:{port}"

    def run(self) -> None:
        while not self._ended.is_set():
            ready, _, _ = select.select(self._faces, [], [], 0.05)
            for face in ready:
                index = self._faces.index(face)
                datagram, (_, port) = face.recvfrom(DATAGRAM_BYTES_MAX)
                if port != self._ports[1 - index]:
                    continue
                if len(self.captured) < CAPTURED_MAX:
                    self.captured.append((index, datagram))
                self.inject(index, datagram)

    def inject(self, index: int, datagram: bytes) -> None:
        """Send to a node as if the other had: from where it hears the other."""
        with suppress(OSError):
            self._faces[1 - index].sendto(datagram, (LOOPBACK, self._ports[index]))

    def to(self, index: int) -> list[bytes]:
        return [datagram for receiver, datagram in self.captured if receiver == index]


class Attack:
    """Two nodes, the wire between them, a stranger's socket, and what the first node is like before it all."""

    def __init__(self, boxes: Sequence[Box], wire: Wire, stranger: socket.socket) -> None:
        self.victim, self.friend = boxes
        self.wire, self.stranger = wire, stranger
        self.pids = self._pids()
        self.size_kib = self._size_kib()
        self.sent = 0

    def _pids(self) -> list[int]:
        return [self.victim.pid, *children_of(self.victim.pid)]

    def _size_kib(self) -> list[int]:
        return [resident_kib(pid) for pid in self._pids()]

    def send(self, datagrams: Iterable[bytes]) -> None:
        """Send as a stranger, no faster than the node takes them: what the kernel drops would try nothing."""
        for number, datagram in enumerate(datagrams):
            if number % BATCH == 0:
                self.wait_taken()
            self.stranger.sendto(datagram, (LOOPBACK, self.victim.port))
            self.sent += 1
        self.wait_taken()

    def wait_taken(self) -> None:
        until(lambda: waiting_bytes(self.victim.port) == 0, "the node reads what it was sent")

    def answers(self) -> list[bytes]:
        """Return what the stranger was answered."""
        found: list[bytes] = []
        self.stranger.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                found.append(self.stranger.recv(DATAGRAM_BYTES_MAX))
        return found

    def survived(self) -> None:
        """Check that the node is what it was: same processes, same size, same friends, and an open ear."""
        assert status_s(self.victim) < STATUS_S_MAX
        until(lambda: self.victim.sees("friend") and self.friend.sees("victim"), "both see each other")
        assert self.victim.answered("friend")
        assert self._pids() == self.pids, "a process was started anew"
        growth = [after - before for after, before in zip(self._size_kib(), self.size_kib, strict=True)]
        assert max(growth) < GROWTH_KIB_MAX, f"grew by {growth} KiB"
        for box in (self.victim, self.friend):
            assert "Traceback" not in box.log(), box.log()
            assert "ERROR" not in box.log(), box.log()


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def waiting_bytes(port: int) -> int:
    """Return what the kernel holds for the UDP socket on this port of 127.0.0.1."""
    for line in Path("/proc/net/udp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1] == f"0100007F:{port:04X}":
            return int(fields[4].partition(":")[2], 16)
    raise AssertionError(f"nobody listens on udp port {port}")


def status_s(box: Box) -> float:
    began_s = time.monotonic()
    box.status()
    return time.monotonic() - began_s


def public_key(box: Box) -> bytes:
    members = Roster.decode((box.state / "roster").read_bytes()).members()
    return bytes(next(member.public_key for member in members if member.name == box.name))


def initiation(target: bytes, luck: Random) -> bytes:
    """Return a handshake of somebody who knows the target's public key, but is nobody."""
    sessions = Sessions(private_key=luck.randbytes(32), rng=luck, now_ns=0)
    sessions.add_peer(target)
    sessions.connect(target, 0, 1_700_000_000 * SECOND_NS)
    return sessions.outbox[0].datagram


def damaged(datagrams: Sequence[bytes], luck: Random) -> Generator[bytes]:
    """Yield each datagram cut somewhere, lengthened, and with one bit changed in four places."""
    for datagram in datagrams:
        yield datagram[: luck.randrange(len(datagram))]
        yield datagram + luck.randbytes(luck.randrange(1, 64))
        for _ in range(4):
            changed = bytearray(datagram)
            changed[luck.randrange(len(changed))] ^= 1 << luck.randrange(8)
            yield bytes(changed)


def frames(inner: Sequence[bytes], luck: Random) -> Generator[bytes]:
    """Yield relay frames with guessed labels and macs around real and made-up datagrams."""
    for number in range(2_000):
        label = luck.choice((number, luck.getrandbits(63), luck.getrandbits(64))).to_bytes(8, "little")
        made_up = luck.randrange(6).to_bytes(4, "little") + luck.randbytes(luck.randrange(200))
        yield FRAME_KIND + label + luck.randbytes(8) + (luck.choice(inner) if number % 2 else made_up)


def only_cookies(answers: Sequence[bytes]) -> bool:
    return all(len(answer) == COOKIE_REPLY_BYTES and answer.startswith(COOKIE_REPLY) for answer in answers)


@pytest.fixture(scope="module")
def attack() -> Generator[Attack]:
    with nodes() as world, ExitStack() as stack:
        boxes = [world.box("victim"), world.box("friend")]
        wire = stack.enter_context(Wire(*(box.port for box in boxes)))
        stranger = stack.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        boxes[0].up("--advertise", wire.advertised(0))
        boxes[1].up(boxes[0].invite(), "--advertise", wire.advertised(1))
        until(lambda: boxes[0].sees("friend") and boxes[1].sees("victim"), "both see each other")
        until(lambda: boxes[1].answered("victim") and len(wire.captured) >= CAPTURED_MIN, "something to replay")
        yield Attack(boxes, wire, stranger)


def test_noise_is_dropped_without_an_answer(attack: Attack) -> None:
    luck = Random(1)
    sizes = (0, 1, 3, 4, 31, 32, 60, 64, 92, 148, 1200, 1500)
    noise = (
        luck.randrange(7).to_bytes(4, "little") * (number % 2) + luck.randbytes(luck.choice(sizes))
        for number in range(RANDOM_COUNT)
    )
    attack.send(noise)
    attack.survived()
    assert attack.answers() == []


def test_damaged_and_replayed_datagrams_change_nothing(attack: Attack) -> None:
    luck = Random(2)
    real = attack.wire.to(0)
    attack.send(real)
    attack.send(attack.wire.to(1))  # Those for the other node, too.
    attack.send(damaged(real, luck))
    for datagram in real:  # And from where they came first.
        attack.wire.inject(0, datagram)
        attack.wire.inject(1, datagram)
    attack.wait_taken()
    attack.survived()
    assert only_cookies(attack.answers()), "an old handshake may be asked for a cookie under load; nothing else"


def test_frames_with_guessed_labels_go_nowhere(attack: Attack) -> None:
    attack.send(frames(attack.wire.to(0), Random(3)))
    attack.survived()
    assert attack.answers() == []


def test_a_flood_of_handshakes_gets_cookies_at_most(attack: Attack) -> None:
    """The node's public key is no secret between members, and one may leak it."""
    luck, target = Random(4), public_key(attack.victim)
    flood = [initiation(target, luck) for _ in range(HANDSHAKE_COUNT)]
    attack.send(flood)
    answers = attack.answers()
    assert only_cookies(answers)
    assert len(answers) <= len(flood)
    attack.survived()


def test_a_member_that_starts_during_a_flood_gets_in(attack: Attack) -> None:
    """Handshakes of strangers with a wrong mac keep the node under load; a cookie later the member is in."""
    ended, refused = threading.Event(), Random(5).randbytes(144)

    def flood() -> None:
        while not ended.wait(0.05):
            for _ in range(20):  # 400 a second; 100 make it ask for cookies.
                attack.stranger.sendto(b"\x01\0\0\0" + refused, (LOOPBACK, attack.victim.port))

    thread = threading.Thread(target=flood, daemon=True)
    attack.friend.down()
    until(lambda: attack.friend.pid == 0, "the end of the friend")
    thread.start()
    try:
        attack.friend.again()
        until(lambda: attack.friend.sees("victim"), "a session, in spite of the flood")
    finally:
        ended.set()
        thread.join(WAIT_S)
    attack.survived()
    assert attack.answers() == []


def spoken(box: Box, line: bytes) -> bytes:
    """Send bytes to the local API and return the first line of its answer; empty: it hung up."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as client:
        client.settimeout(WAIT_S)
        client.connect(str(box.state / "control.sock"))
        answer = b""
        with suppress(ConnectionError):
            client.sendall(line)
        with suppress(ConnectionError):
            while not answer.endswith(b"\n") and (piece := client.recv(DATAGRAM_BYTES_MAX)):
                answer += piece
        return answer.partition(b"\n")[0]


GARBAGE = [
    b"\n",
    b"\0" * 100 + b"\n",
    b"{}\n",
    b'{"method":1}\n',
    b'{"method":"nothing"}\n',
    b'{"method":"status","params":{"more":1}}\n',
    b'{"method":"ping","params":{"node":"friend","count":1' + b"0" * 200 + b"}}\n",
    b'{"method":"why","params":{"target":' + b"[" * 20_000 + b"\n",
    b'{"method":"\xed\xa0\x80"}\n',
    b'{"method":"forward.remove","params":{"id":1e400}}\n',
    b'{"method":"forward.add","params":{"protocol":"tcp","local":"\\u0000:1","node":"friend","port":1}}\n',
    bytes(range(256)) * 16 + b"\n",
]


@pytest.mark.parametrize("line", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_of_the_owner_is_a_coded_error(attack: Attack, line: bytes) -> None:
    answer = spoken(attack.victim, line)
    assert answer.startswith(b'{"error":{"code":"A'), answer
    assert status_s(attack.victim) < STATUS_S_MAX


def test_a_line_of_ten_megabytes_is_not_kept(attack: Attack) -> None:
    answer = spoken(attack.victim, b"x" * LINE_BYTES)
    assert answer == b"" or b"A501" in answer
    attack.survived()


def test_clients_that_never_read_are_bounded_and_forgotten(attack: Attack) -> None:
    """They take all places of the local API, but nothing else; when they hang up all is as before."""
    with ExitStack() as stack:
        for _ in range(API_CLIENTS):
            client = stack.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
            client.connect(str(attack.victim.state / "control.sock"))
            client.settimeout(0)
            with suppress(OSError):  # Full, or refused: both are wanted.
                while True:
                    client.send(b'{"method":"status"}\n' * 1_000)
        with suppress(UserError):
            attack.victim.status()
        assert attack.friend.answered("victim"), "the overlay does not wait for them"
    until(attack.victim.is_running, "a place for the owner")
    attack.survived()
