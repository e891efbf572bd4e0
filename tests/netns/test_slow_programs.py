# SPDX-License-Identifier: Apache-2.0
"""A forward to several machines that serve the same port: to whom connections go when a program refuses, or is slow."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager

import msgspec
import pytest

from atoll.node.views import ForwardView, InviteView
from tests.netns.lan import Host, hosts
from tests.process.node_world import until

pytestmark = pytest.mark.netns

# Answers each connection with its name, so late as the last line of its input says; an "l" after two seconds.
SERVE = """
import socket, sys, threading
delay_s = 0.0
def steer():
    global delay_s
    for line in sys.stdin:
        delay_s = float(line)
def serve(connection):
    try:
        while asked := connection.recv(1):
            threading.Event().wait(2.0 if asked == b"l" else delay_s)
            connection.sendall(sys.argv[1].encode())
    except ConnectionError:
        pass
    connection.close()
threading.Thread(target=steer, daemon=True).start()
listener = socket.create_server(("127.0.0.1", 8000))
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

# Connects and asks once for each line of its input, and says who answered ("-": nobody within four seconds); for "old",
# on the connection kept so far.
ASK = """
import socket, sys
def connect():
    return socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20)
def ask(connection):
    connection.settimeout(4)
    try:
        connection.sendall(b"x")
        return connection.recv(2).decode()
    except TimeoutError:
        return "-"
old = connect()
print(ask(old), flush=True)
for line in sys.stdin:
    if line == "old\\n":
        print(ask(old), flush=True)
    else:
        with connect() as new:
            print(ask(new), flush=True)
"""

# Makes a program answer late that is quick, for ever: asks for what takes two seconds, four times at once.
LINGER = """
import socket, sys
while True:
    asking = [socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) for _ in range(4)]
    for connection in asking:
        connection.sendall(b"l")
    for connection in asking:
        connection.recv(2)
        connection.close()
    print("late", flush=True)
"""


@contextmanager
def serving(host: Host) -> Generator["subprocess.Popen[str]"]:
    with host.python(SERVE, host.name) as program:
        try:
            assert said(program) == "ready"
            yield program
        finally:
            program.kill()


def said(program: "subprocess.Popen[str]") -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()


def tell(program: "subprocess.Popen[str]", line: str) -> None:
    assert program.stdin is not None
    program.stdin.write(f"{line}\n")
    program.stdin.flush()


def asked(client: "subprocess.Popen[str]", whom: str = "new") -> str:
    tell(client, whom)
    return said(client)


def state_of(host: Host, name: str) -> str:
    return next((peer.state for peer in host.status().peers if peer.name == name), "")


@contextmanager
def forwarding(*machines: Host) -> Generator["subprocess.Popen[str]"]:
    """Make a group; return a client of a forward on the first machine that leads to all others."""
    home, *others = machines
    home.up()
    for host in others:
        host.up(str(msgspec.json.decode(home.atoll("invite", "--json").stdout, type=InviteView).invite))
    until(lambda: all(state_of(home, host.name) == "ok" for host in others), "the group")
    done = home.atoll("forward", "tcp", "0", f"{','.join(host.name for host in others)}:8000", "--json")
    assert done.returncode == 0, done.stderr
    local = msgspec.json.decode(done.stdout, type=ForwardView).local.rpartition(":")[2]
    with home.python(ASK, local) as client:
        try:
            yield client
        finally:
            client.kill()


def test_new_connections_leave_a_slow_program_and_what_stands_stays() -> None:
    with (
        hosts(3) as (home, one, two),
        serving(one) as first,
        serving(two),
        forwarding(home, one, two) as client,
    ):
        assert said(client) == "n1"
        assert {asked(client) for _ in range(100)} == {"n1"}, "what is usual is learnt from some answers"
        tell(first, "0.4")
        until(lambda: asked(client) == "n2", "new connections go to the other one", 60)
        assert state_of(home, "n1") == "slow"
        assert {asked(client) for _ in range(20)} == {"n2"}
        assert asked(client, "old") == "n1"


def test_from_a_program_that_is_gone_connections_go_to_the_next_machine() -> None:
    with (
        hosts(3) as (home, one, two),
        serving(one) as first,
        serving(two),
        forwarding(home, one, two) as client,
    ):
        assert said(client) == "n1"
        assert {asked(client) for _ in range(100)} == {"n1"}
        first.kill()
        first.wait()
        assert {asked(client) for _ in range(5)} == {"n2"}
        until(lambda: asked(client) == "n2" and state_of(home, "n1") == "slow", "it is not even tried any more", 60)


def test_new_connections_leave_a_program_that_takes_them_and_never_answers() -> None:
    with (
        hosts(3) as (home, one, two),
        serving(one) as first,
        serving(two),
        forwarding(home, one, two) as client,
    ):
        assert said(client) == "n1"
        assert {asked(client) for _ in range(100)} == {"n1"}
        tell(first, "9999")
        assert asked(client) == "-"
        until(lambda: asked(client) == "n2", "new connections go to the other one", 60)
        assert state_of(home, "n1") == "slow"


def test_one_member_cannot_make_a_program_slow_for_another() -> None:
    with (
        hosts(3) as (home, one, hostile),
        serving(one),
        serving(hostile),
        forwarding(home, one, hostile) as client,
    ):
        assert said(client) == "n1"
        done = hostile.atoll("forward", "tcp", "0", "n1:8000", "--json")
        assert done.returncode == 0, done.stderr
        local = msgspec.json.decode(done.stdout, type=ForwardView).local.rpartition(":")[2]
        assert {asked(client) for _ in range(100)} == {"n1"}
        with hostile.python(LINGER, local) as lingering:
            try:
                for _ in range(12):
                    assert said(lingering) == "late"
                    assert asked(client) == "n1"
                assert state_of(home, "n1") == "ok"
            finally:
                lingering.kill()
