# SPDX-License-Identifier: Apache-2.0
"""A running group of three, through the commands that a person types: nothing here breaks it."""

import http.client
import json
import re
import socket
import stat
from collections.abc import Generator, Mapping
from contextlib import closing

import msgspec
import pytest

from atoll.cli.api import Api
from atoll.node.views import ForwardView, PingView, StatusView, WhyView
from tests.process.node_world import Box, greeter, nodes

pytestmark = pytest.mark.process

REQUEST_BYTES_MAX = 64 * 1024


@pytest.fixture(scope="module")
def group() -> Generator[Mapping[str, Box]]:
    with nodes() as world:
        yield {box.name: box for box in world.group("one", "two", "three")}


def test_every_member_sees_every_other_and_calls_the_group_alike(group: Mapping[str, Box]) -> None:
    views = {name: box.status() for name, box in group.items()}
    for name, view in views.items():
        assert view.name == name
        assert {peer.name for peer in view.peers} == set(group) - {name}
        assert not view.degraded
        assert view.listen == f"udp/127.0.0.1:{group[name].port}"
    assert len({view.group for view in views.values()}) == 1
    assert len({view.roster_version for view in views.values()}) == 1
    assert len({view.address for view in views.values()}) == 3


def test_all_members_show_the_name_that_the_founder_gave_to_the_group() -> None:
    with nodes() as world:
        one, two, three, hasty = (world.box(name) for name in ("one", "two", "three", "hasty"))
        one.up("--group-name", "lab-7")
        assert two.up(one.invite()).group == "lab-7"
        assert three.up(two.invite(), "--group-name", "mine").group == "lab-7", "who joins names nothing"
        assert {box.status().group for box in (one, two, three)} == {"lab-7"}
        three.kill()
        assert three.again().group == "lab-7"
        hasty.up("--group-name", "oops")
        hasty.kill()
        assert hasty.up(one.invite()).group == "lab-7", "a group that nobody joined is given up, named or not"


def test_status_reads_the_same_for_people_programs_and_scripts(group: Mapping[str, Box]) -> None:
    one = group["one"]
    assert re.search(r"^two +ok +direct", one.run("status").out, re.MULTILINE)
    assert [line.split("\t")[0] for line in one.run("status", "--plain").out.splitlines()][-2:] == ["three", "two"]
    view = msgspec.json.decode(one.run("status", "--json").out, type=StatusView)
    assert [peer.name for peer in view.peers] == ["three", "two"]
    assert view.schema == "atoll.status/1"
    assert one.run("status", "--check").status == 0


def test_why_names_the_path_its_rivals_and_its_numbers(group: Mapping[str, Box]) -> None:
    said = group["one"].run("why", "two", "--json")
    view = msgspec.json.decode(said.out, type=WhyView)
    assert (view.source, view.target, view.path, view.tag) == ("one", "two", ("one", "two"), "latency")
    assert {candidate.via for candidate in view.candidates} == {None, "three"}
    chosen = next(candidate for candidate in view.candidates if candidate.chosen)
    assert chosen.via is None
    assert chosen.rtt_ms is not None
    assert 0 < chosen.rtt_ms < 1000
    assert "two" in group["one"].run("why", "one", "two").out


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (("why", "nobody"), "A210", 1),
        (("why", "one"), "A212", 2),
        (("ping", "one"), "A212", 2),
        (("ping", "nobody"), "A210", 1),
        (("remove", "nobody"), "A210", 1),
        (("forward", "tcp", "0", "nobody:80"), "A210", 1),
        (("forward", "udp", "0", "[2001:db8::1]:80"), "A210", 1),
        (("forward", "rm", "4711"), "A407", 1),
        (("forward", "tcp", "no port", "two:80"), "A501", 2),
        (("forward", "tcp", "192.0.2.1:0", "two:80"), "A404", 7),
    ],
)
def test_what_cannot_be_done_is_a_coded_error_with_a_fix(
    group: Mapping[str, Box], arguments: tuple[str, ...], code: str, status: int
) -> None:
    said = group["one"].run(*arguments)
    assert (said.code, said.status, said.out) == (code, status, "")
    assert said.field("fix")


def test_ping_answers_with_round_trips(group: Mapping[str, Box]) -> None:
    said = group["two"].run("ping", "three", "-c", "2", "--json")
    assert said.status == 0
    pings = [msgspec.json.decode(line, type=PingView) for line in said.out.splitlines()]
    assert [one.sequence for one in pings] == [1, 2]
    assert all(one.rtt_ms is not None and one.rtt_ms < 2000 for one in pings)


def test_a_forward_leads_to_members_and_to_this_one_by_each_name_and_address(group: Mapping[str, Box]) -> None:
    one, view = group["one"], group["one"].status()
    addresses = {name: box.status().address for name, box in group.items()}
    for target in ("one", f"one.{view.group}.atoll", f"[{addresses['one']}]", "two.atoll", f"[{addresses['two']}]"):
        with greeter() as port:
            made = msgspec.json.decode(
                one.run("forward", "tcp", "0", f"{target}:{port}", "--json").out, type=ForwardView
            )
            host, _, local = made.local.rpartition(":")
            with closing(http.client.HTTPConnection(host, int(local), timeout=10)) as connection:
                connection.request("GET", "/x")
                assert connection.getresponse().read() == b"you asked for /x\n"
        with pytest.raises(ConnectionResetError), socket.create_connection((host, int(local)), timeout=10) as refused:
            refused.recv(1)  # Nobody listens there now.
        assert one.run("forward", "rm", str(made.id)).status == 0


def test_an_unmodified_http_client_works_through_a_forward(group: Mapping[str, Box]) -> None:
    one = group["one"]
    with greeter() as port:
        made = one.run("forward", "tcp", "0", f"two:{port}", "--json")
        assert made.status == 0, made.err
        view = msgspec.json.decode(made.out, type=ForwardView)
        host, _, local = view.local.rpartition(":")
        with closing(http.client.HTTPConnection(host, int(local), timeout=10)) as connection:
            for path in ("/a", "/b"):  # One connection, as browsers keep theirs.
                connection.request("GET", path)
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, f"you asked for {path}\n".encode())
            listed = msgspec.json.decode(one.run("forward", "list", "--json").out, type=ForwardView)
            assert (listed.id, listed.connections) == (view.id, 1)
        assert one.run("forward", "rm", str(view.id)).status == 0
        assert one.run("forward", "list", "--json").out == ""
        with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(local)), timeout=5):
            pass


@pytest.mark.parametrize("target", ["two", "three"])
def test_a_udp_forward_carries_datagrams_and_their_answers(group: Mapping[str, Box], target: str) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        for one in (echo, client):
            one.settimeout(10)
        echo.bind(("127.0.0.1", 0))
        made = group["three"].run("forward", "udp", "0", f"{target}:{echo.getsockname()[1]}", "--json")
        view = msgspec.json.decode(made.out, type=ForwardView)
        host, _, port = view.local.rpartition(":")
        client.sendto(b"question", (host, int(port)))
        question, back = echo.recvfrom(100)
        echo.sendto(b"answer to " + question, back)
        assert client.recv(100) == b"answer to question"
    assert group["three"].run("forward", "rm", str(view.id)).status == 0


def test_the_socket_and_everything_kept_is_for_the_owner_alone(group: Mapping[str, Box]) -> None:
    state = group["one"].state
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for name in ("identity", "control.sock", "roster", "settings.json"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600, name


def _request(method: object, **params: object) -> bytes:
    return json.dumps({"method": method, "params": params}).encode()


def _forward(**changes: object) -> bytes:
    return _request("forward.add", **({"protocol": "tcp", "local": "127.0.0.1:0", "node": "two", "port": 80} | changes))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe\x00",
        b'{"method":"status"}{"method":"status"}',
        b'{"method":"status","params":{"deep":' + b"[" * 50_000,
        b'{"method":"status","params":[]}',
        b'{"method":"\\ud800"}',
        b"x" * (REQUEST_BYTES_MAX + 10),
        _request(5),
        _request("nothing"),
        _request("status", surplus=1),
        _request("why", target="two", tag="none"),
        _request("why", target=["two"]),
        _request("ping", node="two", count=2**70),
        _request("ping", node="two", count=0),
        _request("remove", node=None),
        _request("forward.remove", id=2**70),
        _forward(protocol="icmp"),
        _forward(port=0),
        _forward(port=2**40),
        _forward(local="a\0b:80"),
        _forward(local="a..b:80"),
        _forward(local="x" * 300 + ":80"),
        _forward(local="é.example:80"),
        _forward(local="127.0.0.1:" + "9" * 5000),
        _forward(protocol="udp", local="256.1.1.1:0"),
    ],
    ids=lambda line: str(line[:40]),
)
def test_a_bad_request_is_answered_and_the_node_goes_on(group: Mapping[str, Box], line: bytes) -> None:
    one = group["one"]
    pid = one.pid
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(one.state / "control.sock"))
        client.sendall(line + b"\n")
        with client.makefile("rb") as answers:
            answer = json.loads(answers.readline())
    assert re.fullmatch(r"A[245]\d\d", answer["error"]["code"])
    assert answer["error"]["sentence"]
    assert answer["error"]["fix"]
    assert (one.pid, one.status().name) == (pid, "one")


def test_idle_clients_beyond_the_limit_make_room_and_lock_nobody_out(group: Mapping[str, Box]) -> None:
    path = str(group["two"].state / "control.sock")
    clients = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    try:
        for client in clients:
            client.settimeout(10)
            client.connect(path)
        with clients[0].makefile("rb") as answers:
            assert json.loads(answers.readline())["error"]["code"] == "A499"
            assert answers.readline() == b""
        assert group["two"].is_running()
        assert group["two"].run("status").status == 0
        clients[-1].sendall(b'{"method":"status"}\n')
        assert clients[-1].recv(6) == b'{"ok":'
    finally:
        for client in clients:
            client.close()


def test_a_method_that_streams_ends_with_a_last_line(group: Mapping[str, Box]) -> None:
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as answers:
        client.settimeout(10)
        client.connect(str(group["one"].state / "control.sock"))
        client.sendall(_request("ping", node="two", count=1) + b"\n")
        assert "ok" in json.loads(answers.readline())
        assert json.loads(answers.readline()) == {"end": True}
        client.sendall(_request("status") + b"\n")  # The same connection serves the next request.
        assert json.loads(answers.readline())["ok"]["name"] == "one"


def test_the_versioned_schema_is_on_every_answer(group: Mapping[str, Box]) -> None:
    api = Api(group["one"].state)
    for method, params, schema in (
        ("status", {}, "atoll.status/1"),
        ("why", {"target": "two"}, "atoll.why/1"),
        ("ping", {"node": "two", "count": 1}, "atoll.ping/1"),
        ("invite", {}, "atoll.invite/1"),
    ):
        assert json.loads(api.call(method, params))["schema"] == schema
