# SPDX-License-Identifier: Apache-2.0
"""Signals as terminals and service managers send them: to one process or to all, early or late; and the foreground."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from functools import partial

import msgspec
import pytest

from atoll.base.errors import UserError
from atoll.base.units import SECOND_NS
from atoll.cli.api import Api
from atoll.group.invite import decode_invitation, encode_invitation
from atoll.group.limits import JOIN_NS_MAX
from atoll.node import launch as launching
from atoll.node.launch import launch
from atoll.node.start import LaunchOptions
from atoll.node.views import ForwardView
from tests.process.node_world import WAIT_S, Box, Daemon, Nodes, alive, children_of, gone, nodes, until

pytestmark = pytest.mark.process


@pytest.fixture
def world() -> Generator[Nodes]:
    with nodes() as world:
        yield world


@pytest.fixture(scope="module")
def astray() -> Generator[str]:
    """An invitation whose inviter nobody reaches: who follows it is busy for a while."""
    with nodes() as world:
        invite = world.box("elder").up().invite
        assert invite is not None
        nowhere = (("127.0.0.1", world.box("nobody").port),)
        yield encode_invitation(msgspec.structs.replace(decode_invitation(invite), endpoints=nowhere))


@contextmanager
def command(box: Box, *arguments: str) -> "Generator[subprocess.Popen[str]]":
    """Run a command of a node in a process group of its own, as a terminal does."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ATOLL_")}
    line = [sys.executable, "-m", "atoll.cli", *arguments, "--name", box.name, "--listen", f"127.0.0.1:{box.port}"]
    with subprocess.Popen(
        [*line, "--state", str(box.state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tempfile.gettempdir(),
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=WAIT_S)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def joining(pid: int) -> bool:
    """Tell whether a node has come so far that its packet device runs."""
    return bool(children_of(pid))


def test_a_node_whose_whole_group_is_told_to_end_says_goodbye(world: Nodes) -> None:
    """Else the far end of every stream would wait for two minutes."""
    one, two = world.group("one", "two")
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(WAIT_S)
        params = {"protocol": "tcp", "local": "127.0.0.1:0", "node": "two", "port": server.getsockname()[1]}
        local = msgspec.json.decode(Api(one.state).call("forward.add", params), type=ForwardView).local
        host, _, port = local.rpartition(":")
        with closing(socket.create_connection((host, int(port)), WAIT_S)) as near:
            near.sendall(b"x")
            far, _ = server.accept()
            with closing(far):
                far.settimeout(WAIT_S)
                assert far.recv(1) == b"x"
                pid = one.pid
                devices = children_of(pid)
                os.killpg(pid, signal.SIGTERM)
                with suppress(ConnectionResetError):  # As good: it knows.
                    assert far.recv(1) == b""
    until(partial(gone, pid), "the end of the node")
    until(partial(gone, devices[0]), "the end of its device")
    assert "packet device is lost" not in one.log()
    assert not (one.state / "control.sock").exists()
    assert two.is_running()


def test_a_control_killed_while_its_device_starts_leaves_no_device_behind(world: Nodes) -> None:
    one = world.box("one")
    daemon = Daemon(one)
    until(lambda: children_of(one.pid), "a packet device")
    (device,) = children_of(one.pid)
    os.kill(one.pid, signal.SIGKILL)
    until(partial(gone, device), "the end of its device, which has no sessions yet")
    daemon.kill()
    one.up()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_foreground_logs_to_standard_error_and_ends_in_order(world: Nodes, number: signal.Signals) -> None:
    one = world.box("one")
    with command(one, "up", "--foreground", "--json") as process:
        until(one.is_running, "the node")
        device = children_of(process.pid)[0]
        os.kill(device, signal.SIGKILL)
        until(lambda: [pid for pid in children_of(process.pid) if pid != device], "another device")
        until(lambda: one.status().listen, "it listens")
        os.killpg(process.pid, number)
        status, out, err = ended(process)
    assert status == 0
    assert '"atoll.up/' in out or '"invite"' in out
    assert "WARNING atoll.node: the packet device is lost" in err
    assert not (one.state / "node.log").exists()
    assert not (one.state / "control.sock").exists()


def test_ctrl_c_in_the_foreground_before_the_node_has_started_is_an_interruption(world: Nodes, astray: str) -> None:
    one = world.box("one")
    with command(one, "up", astray, "--foreground") as process:
        until(partial(joining, process.pid), "it joins")
        device = children_of(process.pid)[0]
        os.killpg(process.pid, signal.SIGINT)
        status, out, _ = ended(process)
    assert (status, out) == (130, "")
    until(partial(gone, device), "the end of its device")
    one.up()


def test_a_service_that_is_stopped_before_it_has_started_says_so(world: Nodes, astray: str) -> None:
    one = world.box("one")
    with command(one, "up", astray, "--foreground") as process:
        until(partial(joining, process.pid), "it joins")
        os.killpg(process.pid, signal.SIGTERM)
        status, out, err = ended(process)
    assert (status, out) == (1, "")
    assert "error A403: the node was told to end before it had started" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_in_the_background_that_is_ended_before_it_has_started_ends_in_order(
    world: Nodes, astray: str, number: signal.Signals
) -> None:
    one = world.box("one")
    daemon = Daemon(one, astray)
    pid = until(lambda: joining(one.pid) and one.pid, "it joins")
    device = children_of(pid)[0]
    os.kill(pid, number)
    assert not daemon.ran_for(WAIT_S)
    until(partial(gone, device), "the end of its device")
    assert "before" in one.log()
    assert not (one.state / "roster").exists()
    daemon.kill()
    one.up()


def test_ctrl_c_during_up_leaves_nothing_running_and_the_directory_free(world: Nodes, astray: str) -> None:
    one = world.box("one")
    with command(one, "up", astray) as process:
        pid = until(lambda: joining(one.pid) and one.pid, "it joins")
        device = children_of(pid)[0]
        os.killpg(process.pid, signal.SIGINT)
        status, out, err = ended(process)
    assert (status, out, err.strip()) == (130, "", "")
    assert not alive(pid), "the command waits for it"
    until(partial(gone, device), "the end of its device")
    one.up()


def options(box: Box, invite: str | None = None) -> LaunchOptions:
    return LaunchOptions(state=str(box.state), name=box.name, listen=f"127.0.0.1:{box.port}", invite=invite)


def test_a_start_waits_longer_than_any_join_so_that_the_join_itself_says_why_it_failed() -> None:
    assert launching.READY_TIMEOUT_S > JOIN_NS_MAX / SECOND_NS


def test_a_node_that_is_not_ready_in_time_is_ended_and_told(
    world: Nodes, astray: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = world.box("one")
    monkeypatch.setattr(launching, "READY_TIMEOUT_S", 2.0)
    with pytest.raises(UserError, match="A403: the node was not ready in time, and was ended") as told:
        launch(options(one, astray))
    assert "node.log" in told.value.fix
    assert one.pid == 0
    one.up()


def test_a_node_that_dies_while_it_starts_is_told_at_once(world: Nodes, astray: str) -> None:
    one = world.box("one")
    with command(one, "up", astray) as process:
        pid = until(lambda: joining(one.pid) and one.pid, "it joins")
        os.kill(pid, signal.SIGKILL)
        status, out, err = ended(process)
    assert (status, out) == (1, "")
    assert "error A403: the node ended before it was ready" in err
    assert "node.log" in err
