# SPDX-License-Identifier: Apache-2.0
"""``atoll socks`` with real nodes and programs that know nothing of atoll: curl, OpenBSD's netcat, a UDP client."""

import http.server
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from atoll.lab.live import free_port
from atoll.node.views import ForwardView
from tests.process.node_world import WAIT_S, Box, Nodes, greeter, nodes, until

pytestmark = pytest.mark.process

CURL = shutil.which("curl")
NETCAT = shutil.which("nc.openbsd")
PARALLEL = 100
COULD_NOT_CONNECT, RECEIVE_ERROR, COULD_NOT_CONNECT_BY_PROXY = 7, 56, 97  # Exit statuses of curl.


@dataclass(frozen=True, slots=True)
class Group:
    boxes: Mapping[str, Box]
    proxy: ForwardView

    @property
    def local(self) -> str:
        return self.proxy.local

    @property
    def local_port(self) -> int:
        return int(self.proxy.local.rpartition(":")[2])

    def connection(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.local_port), timeout=WAIT_S)


def start(box: Box, *arguments: str) -> ForwardView:
    said = box.run("socks", "--listen", "0", "--json", *arguments)
    assert said.status == 0, said.err
    return msgspec.json.decode(said.out, type=ForwardView)


@pytest.fixture(scope="module")
def group() -> Generator[Group]:
    with nodes() as world:
        one, two = world.group("one", "two")
        yield Group({"one": one, "two": two}, start(one))


@dataclass(frozen=True, slots=True)
class Fetched:
    status: int
    out: str
    err: str


def program(command: list[str], **environment: str) -> Fetched:
    """Run a program to its end, with the settings of the test alone."""
    bare = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=2 * WAIT_S, check=False, env=bare | environment
    )
    return Fetched(done.returncode, done.stdout, done.stderr)


def curl(*arguments: str, **environment: str) -> Fetched:
    assert CURL is not None, "curl is needed: apt-get install curl"
    limits = ["--silent", "--show-error", "--max-time", str(WAIT_S), "--disable"]
    return program([CURL, *limits, *arguments], **environment)


def addresses(group: Group) -> list[str]:
    one, two = group.boxes["one"], group.boxes["two"]
    name = one.status().group
    overlay = [f"[{box.status().address}]" for box in (one, two)]
    return ["two", "TWO.atoll", f"two.{name}.atoll.", "one", f"one.{name}.atoll", *overlay]


def test_curl_reaches_members_and_this_node_by_every_name_and_address(group: Group) -> None:
    with greeter() as port:
        for host in addresses(group):
            by_socks = curl("--socks5-hostname", group.local, f"http://{host}:{port}/a")
            assert (by_socks.status, by_socks.out) == (0, "you asked for /a\n"), (host, by_socks.err)
            by_http = curl("--proxytunnel", "-x", f"http://{group.local}", f"http://{host}:{port}/b")
            assert (by_http.status, by_http.out) == (0, "you asked for /b\n"), (host, by_http.err)


def test_the_pasted_line_is_enough(group: Group) -> None:
    said = group.boxes["one"].run("socks", "--listen", "0")
    name, _, url = said.out.strip().removeprefix("export ").partition("=")
    assert said.out.count("\n") == 1
    with greeter() as port:
        got = curl(f"http://two:{port}/pasted", **{name: url})
        assert (got.status, got.out) == (0, "you asked for /pasted\n"), got.err
    number = said.err.rpartition(" ")[2].strip()
    assert group.boxes["one"].run("forward", "rm", number).status == 0
    assert curl(f"http://two:{port}/", **{name: url}).status == COULD_NOT_CONNECT


@pytest.mark.parametrize(
    ("host", "reply", "status", "code"),
    [("two", "5", "502", "A431"), ("nobody", "4", "502", "A210"), ("www.example.com", "2", "403", "A430")],
)
def test_a_refusal_is_told_to_the_program_with_its_reason(
    group: Group, host: str, reply: str, status: str, code: str
) -> None:
    target = f"http://{host}:{free_port()}/"
    by_socks = curl("--socks5-hostname", group.local, target)
    assert by_socks.status == COULD_NOT_CONNECT_BY_PROXY
    assert f"({reply})" in by_socks.err
    by_http = curl("--proxytunnel", "-x", f"http://{group.local}", target)
    assert by_http.status == RECEIVE_ERROR
    assert status in by_http.err
    with group.connection() as client:  # curl does not show the body; people with telnet and logs see it.
        client.sendall(f"CONNECT {target[7:-1]} HTTP/1.1\r\n\r\n".encode())
        body = received(client).partition(b"\r\n\r\n")[2].decode()
    assert body.startswith(f"{code}: ")
    assert target[7:-1] in body
    assert group.boxes["one"].run_bare("help", code).status == 0


def test_a_program_that_does_not_tunnel_is_told_so(group: Group) -> None:
    got = curl("--include", "-x", f"http://{group.local}", "http://two:80/")
    assert got.out.startswith("HTTP/1.1 405 ")
    assert "--proxytunnel" in got.out
    assert curl("--socks4a", group.local, "http://two:80/").status == COULD_NOT_CONNECT_BY_PROXY


def received(connection: socket.socket) -> bytes:
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data


@contextmanager
def answering_at_the_end() -> Generator[int]:
    """Serve one connection: read up to the client's half-close, then answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT_S)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(WAIT_S)
                connection.sendall(b"heard %d bytes" % len(received(connection)))

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(server.getsockname()[1])
        thread.join(WAIT_S)


@pytest.mark.parametrize("node", ["two", "one"])
def test_a_half_close_goes_through(group: Group, node: str) -> None:
    with answering_at_the_end() as port, group.connection() as client:
        name = node.encode()
        client.sendall(b"\5\1\0\5\1\0\3" + bytes([len(name)]) + name + port.to_bytes(2, "big") + bytes(200_000))
        client.shutdown(socket.SHUT_WR)
        assert received(client) == b"\5\0\5\0\0\1" + bytes(6) + b"heard 200000 bytes"


@pytest.mark.skipif(NETCAT is None, reason="nc.openbsd is not installed (netcat-openbsd)")
@pytest.mark.parametrize("protocol", ["5", "connect"])
def test_netcat_as_in_a_proxy_command_of_ssh(group: Group, protocol: str, tmp_path: Path) -> None:
    assert NETCAT is not None
    said = tmp_path / "said"
    said.write_bytes(b"x" * 5000)
    with answering_at_the_end() as port, said.open("rb") as stdin:
        command = [NETCAT, "-N", "-X", protocol, "-x", group.local, "two.atoll", str(port)]
        done = subprocess.run(command, stdin=stdin, capture_output=True, timeout=WAIT_S, check=False)
    assert (done.returncode, done.stdout) == (0, b"heard 5000 bytes"), done.stderr


class _Together(http.server.BaseHTTPRequestHandler):
    """Answers nobody before all have asked, so that all connections are open at once."""

    barrier: threading.Barrier

    def do_GET(self) -> None:
        self.barrier.wait(WAIT_S)
        body = f"{self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so.
        pass


class _ManyServer(http.server.ThreadingHTTPServer):
    request_queue_size = PARALLEL
    daemon_threads = True


def test_a_hundred_connections_at_once(group: Group) -> None:
    class Handler(_Together):
        barrier = threading.Barrier(PARALLEL)

    with _ManyServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            url = f"http://two:{server.server_address[1]}/[1-{PARALLEL}]"
            many = ["--parallel", "--parallel-immediate", "--parallel-max", str(PARALLEL)]
            got = curl(*many, "--socks5-hostname", group.local, url)
        finally:
            server.shutdown()
            thread.join(WAIT_S)
    assert got.status == 0, got.err
    assert sorted(got.out.split()) == sorted(f"/{number}" for number in range(1, PARALLEL + 1))
    until(lambda: listed(group.boxes["one"])[group.proxy.id].connections == 0, "all connections have ended")


def listed(box: Box) -> dict[int, ForwardView]:
    lines = box.run("forward", "list", "--json").out.splitlines()
    return {view.id: view for view in (msgspec.json.decode(line, type=ForwardView) for line in lines)}


def wrapped(host: bytes, port: int, payload: bytes) -> bytes:
    return b"\0\0\0\3" + bytes([len(host)]) + host + port.to_bytes(2, "big") + payload


def test_udp_goes_to_members_and_back_as_long_as_the_control_connection_lives(group: Group) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        for one in (echo, client):
            one.settimeout(WAIT_S)
        echo.bind(("127.0.0.1", 0))
        port = int(echo.getsockname()[1])
        with group.connection() as control:
            control.sendall(b"\5\1\0\5\3\0\1" + bytes(6))
            answer = b""
            while len(answer) < 12:
                answer += control.recv(12 - len(answer))
            assert answer[:6] == b"\5\0\5\0\0\1"
            client.connect((socket.inet_ntoa(answer[6:10]), int.from_bytes(answer[10:], "big")))
            for node in ("two", "one"):
                client.send(wrapped(node.encode() + b".atoll", port, b"question"))
                question, back = echo.recvfrom(100)
                echo.sendto(b"answer to " + question, back)
                address = socket.inet_pton(socket.AF_INET6, group.boxes[node].status().address)
                expected = b"\0\0\0\4" + address + port.to_bytes(2, "big") + b"answer to question"
                assert client.recv(100) == expected

        def is_gone() -> bool:
            try:
                client.send(wrapped(b"two", port, b"late"))
                client.settimeout(0.05)
                client.recv(100)
            except ConnectionRefusedError:
                return True
            except TimeoutError:
                return False
            return False

        until(is_gone, "the relay ends with its control connection")


def test_a_proxy_is_listed_and_ends_as_a_forward(group: Group) -> None:
    one = group.boxes["one"]
    made = start(one, "--tag", "loss")
    assert (made.protocol, made.node, made.port, made.tag) == ("socks", "", 0, "loss")
    host, _, port = made.local.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as client:
        client.settimeout(WAIT_S)
        assert listed(one)[made.id].connections == 1
        row = next(line for line in one.run("forward", "list").out.splitlines() if line.split()[0] == str(made.id))
        assert row.split() == [str(made.id), "socks", made.local, "all", "members", "loss", "1", "-"]
        assert one.run("forward", "rm", str(made.id)).status == 0
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert made.id not in listed(one)
    with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port)), timeout=WAIT_S):
        pass


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
def test_a_proxy_is_not_opened_to_other_machines_unless_that_is_said(group: Group, listen: str) -> None:
    said = group.boxes["one"].run("socks", "--listen", listen)
    assert (said.code, said.status, said.out) == ("A434", 2, "")
    assert "--anyone" in said.field("fix")


def test_anyone_may_be_let_in_on_purpose(group: Group) -> None:
    one = group.boxes["one"]
    made = start(one, "--listen", "0.0.0.0:0", "--anyone")
    assert made.local.startswith("0.0.0.0:")
    assert one.run("forward", "rm", str(made.id)).status == 0


def test_what_is_no_proxy_is_a_coded_error(group: Group) -> None:
    one = group.boxes["one"]
    assert one.run("socks", "--listen", group.local).code == "A404"
    assert one.run("socks", "--listen", "localhost:0").code == "A501"
    assert one.run("socks", "--listen", "no port").code == "A501"


def test_a_removed_member_is_unknown_and_the_proxy_lives_on() -> None:
    with nodes() as world:
        removed(world)


def removed(world: Nodes) -> None:
    one, *_ = world.group("one", "two", "three")
    proxy = start(one)
    with greeter() as port:
        assert curl("--socks5-hostname", proxy.local, f"http://three:{port}/").status == 0
        assert one.run("remove", "three").status == 0
        until(lambda: set(one.peers()) == {"two"}, "the removal counts")
        got = curl("--socks5-hostname", proxy.local, f"http://three:{port}/")
        assert (got.status, "(4)" in got.err) == (COULD_NOT_CONNECT_BY_PROXY, True)
        assert curl("--socks5-hostname", proxy.local, f"http://two:{port}/").status == 0
