# SPDX-License-Identifier: Apache-2.0
"""Our sessions against another implementation of the same protocol, and the kernel's network stack behind it.

::

      this process                                   namespace atoll-wg-PID
    +-----------------------------+                +----------------------------------+
    | Sessions                    |   veth pair    | wireguard-go, UDP 51820          |
    | UDP socket  198.18.x.1  <---+----------------+--->  198.18.x.2                  |
    |                             |                |      |                           |
    | inner fd00:a011::1          |  (type 1 to 4) |  wgPID  fd00:a011::2/64          |
    | (ICMPv6 made by hand)       |                |  (ICMPv6 answered by the kernel) |
    +-----------------------------+                +----------------------------------+

Our clock is ``monotonic + offset``, so that minutes can pass at once; wireguard-go lives in real time. All waits are
``select`` with a bound. Needs root, ``ip``, ``wg`` and ``wireguard-go``; skipped without them, but never in CI.
"""

import contextlib
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from random import SystemRandom
from typing import NoReturn

import pytest

from atoll.base.units import SECOND_NS
from atoll.overlay.session import Data, Established, PrivateKey, Received, Sessions

pytestmark = pytest.mark.netns

TOOLS = ("ip", "wg", "wireguard-go")
THEIR_PORT = 51820
OURS_INNER, THEIRS_INNER = "fd00:a011::1", "fd00:a011::2"
ICMPV6, ECHO_REQUEST, ECHO_REPLY = 58, 128, 129
WAIT_S = 20.0
THEIR_INITIATION_INTERVAL_S = 0.1  # They ignore initiations that follow each other faster than 50 ms.
PSKS = [pytest.param(bytes(32), id="no-psk"), pytest.param(bytes(range(32)), id="psk")]

PING = f"""
import socket, struct, sys
ping = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
ping.settimeout({WAIT_S})
ping.sendto(struct.pack("!BBHHH", {ECHO_REQUEST}, 0, 0, 77, 1) + b"from the namespace", ({OURS_INNER!r}, 0))
while (reply := ping.recv(2048))[0] != {ECHO_REPLY}:
    pass
sys.exit(reply[4:] != struct.pack("!HH", 77, 1) + b"from the namespace")
"""


def cannot(reason: str) -> NoReturn:
    """Skip; in CI, where everything is installed, fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=WAIT_S).stdout


class Namespace:
    """A network namespace with a running wireguard-go."""

    def __init__(self, keys: Path) -> None:
        pid = os.getpid()
        self.name, self.device = f"atoll-wg-{pid}", f"wg{pid}"
        self.keys = keys
        network = f"198.18.{pid >> 6 & 255}."
        self.our_host, self.their_host = (network + str((pid & 63) * 4 + host) for host in (1, 2))
        self.daemon: subprocess.Popen[bytes] | None = None  # ``ip`` replaces itself by wireguard-go.

    def inside(self, *command: str) -> str:
        return run("ip", "netns", "exec", self.name, *command)

    def open(self) -> None:
        ours, theirs = f"va{os.getpid()}", f"vb{os.getpid()}"
        try:
            run("ip", "netns", "add", self.name)
            run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", self.name)
        except subprocess.CalledProcessError as error:
            cannot(f"no network namespaces here: {error.stderr.strip()}")
        run("ip", "address", "add", f"{self.our_host}/30", "dev", ours)
        run("ip", "link", "set", ours, "up")
        self.inside("ip", "address", "add", f"{self.their_host}/30", "dev", theirs)
        self.inside("ip", "link", "set", theirs, "up")
        self.start_daemon()
        self.inside("ip", "address", "add", f"{THEIRS_INNER}/64", "dev", self.device, "nodad")
        self.inside("ip", "link", "set", self.device, "up")

    def start_daemon(self) -> None:
        log = self.keys / "log"  # A file and no pipe: wireguard-go would block on a full one.
        with log.open("wb") as output:
            command = ["ip", "netns", "exec", self.name, "wireguard-go", "-f", self.device]
            self.daemon = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        end_s = time.monotonic() + WAIT_S
        show = ["ip", "netns", "exec", self.name, "wg", "show", self.device]
        while subprocess.run(show, capture_output=True, check=False, timeout=WAIT_S).returncode != 0:
            assert self.daemon.poll() is None, log.read_text()
            assert time.monotonic() < end_s, log.read_text()

    def configure(self, peer: bytes, psk: bytes, port: int) -> bytes:
        """Give wireguard-go a new key and one peer; return its public key."""
        private = SystemRandom().randbytes(32)
        (self.keys / "private").write_bytes(b64encode(private))
        (self.keys / "psk").write_bytes(b64encode(psk))
        interface = ("private-key", str(self.keys / "private"), "listen-port", str(THEIR_PORT))
        peer_text = b64encode(peer).decode()
        preshared = ("preshared-key", str(self.keys / "psk")) if any(psk) else ()
        where = ("endpoint", f"{self.our_host}:{port}", "allowed-ips", f"{OURS_INNER}/128")
        self.inside("wg", "set", self.device, *interface, "peer", peer_text, *preshared, *where)
        return PrivateKey(private).public

    def forget(self, peer: bytes) -> None:
        self.inside("wg", "set", self.device, "peer", b64encode(peer).decode(), "remove")

    def close(self) -> None:
        if self.daemon is not None:
            self.daemon.terminate()
            self.daemon.wait(WAIT_S)
        with contextlib.suppress(subprocess.CalledProcessError):
            run("ip", "netns", "delete", self.name)  # The veth pair goes with it.


class OurEnd:
    """A UDP socket around ``Sessions``, and one peer."""

    def __init__(self, namespace: Namespace, psk: bytes) -> None:
        self.offset_ns, self.under_load = 0, False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((namespace.our_host, 0))
        self.there = (namespace.their_host, THEIR_PORT)
        rng = SystemRandom()
        self.sessions = Sessions(private_key=rng.randbytes(32), rng=rng, now_ns=self.now_ns())
        self.peer = namespace.configure(self.sessions.public_key, psk, self.socket.getsockname()[1])
        self.sessions.add_peer(self.peer, psk=psk)
        self.events: list[Received] = []
        self.kinds: list[int] = []  # Of the datagrams received.
        self.lost_kinds: tuple[int, ...] = ()  # Received, but not given to the sessions.

    def now_ns(self) -> int:
        return time.monotonic_ns() + self.offset_ns

    def flush(self) -> None:
        for outgoing in self.sessions.outbox:
            self.socket.sendto(outgoing.datagram, self.there)
        self.sessions.outbox.clear()

    def connect(self) -> None:
        self.sessions.connect(self.peer, self.now_ns(), time.time_ns())
        self.flush()

    def send(self, packet: bytes) -> bool:
        datagram = self.sessions.seal(self.peer, packet, self.now_ns(), time.time_ns())
        self.flush()
        if datagram is not None:
            self.socket.sendto(datagram, self.there)
        return datagram is not None

    def step(self, wait_s: float) -> None:
        if not select.select([self.socket], [], [], wait_s)[0]:
            self.sessions.tick(self.now_ns(), time.time_ns())
        else:
            datagram, (host, port) = self.socket.recvfrom(65_536)
            source = socket.inet_aton(host) + struct.pack("!H", port)
            self.kinds.append(datagram[0])
            if datagram[0] in self.lost_kinds:
                return
            event = self.sessions.receive(datagram, source, self.now_ns(), time.time_ns(), self.under_load)
            if event is not None:
                self.events.append(event)
        self.flush()

    def until(self, done: Callable[[], bool]) -> None:
        """Serve the socket until the condition holds."""
        end_s = time.monotonic() + WAIT_S
        while not done():
            assert time.monotonic() < end_s, (self.events, self.kinds, self.sessions.counters.dropped)
            self.step(0.05)

    def packets(self) -> list[bytes]:
        """Return the inner packets received, cut to their own length."""
        return [
            event.plaintext[: 40 + int.from_bytes(event.plaintext[4:6], "big")]
            for event in self.events
            if isinstance(event, Data) and event.plaintext
        ]


def icmpv6(kind: int, rest: bytes) -> bytes:
    """Return an ICMPv6 message from us to them, in its IPv6 packet."""
    source, target = (socket.inet_pton(socket.AF_INET6, host) for host in (OURS_INNER, THEIRS_INNER))
    message = struct.pack("!BBH", kind, 0, 0) + rest
    summed = source + target + struct.pack("!II", len(message), ICMPV6) + message
    total = sum(struct.unpack(f"!{len(summed + bytes(len(summed) % 2)) // 2}H", summed + bytes(len(summed) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    message = struct.pack("!BBH", kind, 0, ~total & 0xFFFF) + rest
    return struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, 64) + source + target + message


def is_icmpv6(packet: bytes, kind: int) -> bool:
    return len(packet) > 40 and packet[0] >> 4 == 6 and packet[6] == ICMPV6 and packet[40] == kind


def echo(ours: OurEnd, number: int) -> None:
    """Ask their kernel for an echo, and wait for the right answer."""
    rest = struct.pack("!HH", 4321, number) + b"over the session" * 5
    assert ours.send(icmpv6(ECHO_REQUEST, rest))
    ours.until(lambda: any(is_icmpv6(packet, ECHO_REPLY) and packet[44:] == rest for packet in ours.packets()))


def renew(ours: OurEnd, number: int) -> None:
    """Let two minutes pass, and exchange packets until there is a new session."""
    resume_s = time.monotonic() + THEIR_INITIATION_INTERVAL_S
    ours.until(lambda: time.monotonic() > resume_s)
    ours.offset_ns += 121 * SECOND_NS
    sessions_before = len([event for event in ours.events if isinstance(event, Established)])
    echo(ours, number)  # Still under the old keys; sealing it starts the new handshake.
    ours.until(lambda: len([event for event in ours.events if isinstance(event, Established)]) > sessions_before)


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        cannot(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        cannot("network namespaces need root")
    made = Namespace(tmp_path_factory.mktemp("keys"))
    try:
        made.open()
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def our_end(namespace: Namespace, psk: bytes) -> Generator[OurEnd, None, None]:
    ours = OurEnd(namespace, psk)
    try:
        yield ours
    finally:
        ours.socket.close()
        namespace.forget(ours.sessions.public_key)


@pytest.mark.parametrize("psk", PSKS)
def test_we_start_and_their_kernel_answers_our_echo(namespace: Namespace, psk: bytes) -> None:
    with our_end(namespace, psk) as ours:
        ours.connect()
        ours.until(lambda: ours.sessions.established(ours.peer))
        assert ours.events == [Established(ours.peer, initiator=True)]
        for number in range(20):
            echo(ours, number)
        highest, received = ours.sessions.loss_counts(ours.peer)
        assert highest == received >= 20
        assert not any(ours.sessions.counters.dropped.values())


@pytest.mark.parametrize("psk", PSKS)
def test_they_start_and_our_echo_reply_reaches_the_program_that_pings(namespace: Namespace, psk: bytes) -> None:
    with our_end(namespace, psk) as ours:
        command = ["ip", "netns", "exec", namespace.name, sys.executable, "-c", PING]
        with subprocess.Popen(command) as pinging:
            try:
                ours.until(lambda: any(is_icmpv6(packet, ECHO_REQUEST) for packet in ours.packets()))
                request = next(packet for packet in ours.packets() if is_icmpv6(packet, ECHO_REQUEST))
                assert ours.send(icmpv6(ECHO_REPLY, request[44:]))
                assert pinging.wait(WAIT_S) == 0
            finally:
                pinging.kill()
        assert ours.kinds[0] == 1  # They began: their initiation came before anything else.
        first = ours.events[0]
        assert first == Established(ours.peer, initiator=False) or (isinstance(first, Data) and first.confirms)
        echo(ours, 1)


def test_a_session_is_renewed_without_losing_a_packet(namespace: Namespace) -> None:
    with our_end(namespace, bytes(32)) as ours:
        ours.connect()
        ours.until(lambda: ours.sessions.established(ours.peer))
        echo(ours, 0)
        for number in range(1, 4):
            renew(ours, 100 + number)
            echo(ours, number)
        assert ours.sessions.expired == []
        highest, received = ours.sessions.loss_counts(ours.peer)
        assert highest == received


def test_they_understand_our_cookie(namespace: Namespace) -> None:
    with our_end(namespace, bytes(range(32))) as ours:
        ours.under_load = True
        command = ["ip", "netns", "exec", namespace.name, sys.executable, "-c", PING]
        with subprocess.Popen(command) as pinging:
            try:
                ours.until(lambda: ours.sessions.established(ours.peer))  # After their retry, 5 s later.
            finally:
                pinging.kill()
        assert ours.sessions.counters.dropped["cookie-owed"] >= 1
        assert ours.kinds[:2] == [1, 1]


def test_we_understand_their_cookie(namespace: Namespace) -> None:
    with our_end(namespace, bytes(range(32))) as ours:
        ours.sessions.connect(ours.peer, ours.now_ns(), time.time_ns())
        initiation = ours.sessions.outbox.pop().datagram
        assert initiation.endswith(bytes(16))  # No cookie, no mac2.
        ours.lost_kinds = (2,)  # One of the copies below may be answered; the answer gets lost.

        def flooded() -> bool:  # Copies of one initiation fill their queue until they ask for a cookie.
            for _ in range(500):
                ours.socket.sendto(initiation, ours.there)
            return 3 in ours.kinds

        ours.until(flooded)
        assert ours.sessions.counters.dropped["cookie-wrong"] < ours.kinds.count(3)  # The first was right.
        ours.lost_kinds = ()
        ours.offset_ns += 6 * SECOND_NS
        ours.sessions.tick(ours.now_ns(), time.time_ns())
        (retry,) = ours.sessions.outbox
        assert not retry.datagram.endswith(bytes(16))
        ours.flush()
        ours.until(lambda: ours.sessions.established(ours.peer))
        echo(ours, 5)
