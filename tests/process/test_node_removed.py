# SPDX-License-Identifier: Apache-2.0
"""What a removal ends at once: traffic with the removed member, and forwards to it."""

import http.client
import socket
from collections.abc import Generator
from contextlib import closing

import msgspec
import pytest

from atoll.node.views import ForwardView
from tests.process.node_world import Box, Nodes, greeter, nodes, until

pytestmark = pytest.mark.process

END_S = 5.0


@pytest.fixture
def world() -> Generator[Nodes]:
    with nodes() as world:
        yield world


def forward(box: Box, protocol: str, target: str) -> tuple[int, tuple[str, int]]:
    made = box.run("forward", protocol, "0", target, "--json")
    assert made.status == 0, made.err
    view = msgspec.json.decode(made.out, type=ForwardView)
    host, _, port = view.local.rpartition(":")
    return view.id, (host, int(port))


def ended(connection: socket.socket) -> bool:
    """Tell whether the other side ends this connection in time."""
    connection.settimeout(END_S)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def test_forwards_to_a_removed_member_end_and_say_so(world: Nodes) -> None:
    one, two, _ = world.group("one", "two", "three")
    with greeter() as port:
        tcp, address = forward(one, "tcp", f"three:{port}")
        udp, udp_address = forward(one, "udp", f"three:{port}")
        kept, kept_address = forward(one, "tcp", f"two:{port}")
        with closing(http.client.HTTPConnection(*address, timeout=10)) as connection:
            connection.request("GET", "/a")
            assert connection.getresponse().read()
            assert two.run("remove", "three").status == 0
            assert ended(connection.sock), "what is open is reset"
        until(lambda: set(one.peers()) == {"two"}, "the removal has spread")
        with pytest.raises(ConnectionRefusedError), socket.create_connection(address, timeout=END_S):
            pass
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(END_S)
            client.connect(udp_address)
            client.send(b"question")
            with pytest.raises(ConnectionRefusedError):
                client.recv(1)
        listed = msgspec.json.decode(one.run("forward", "list", "--json").out, type=ForwardView)
        assert listed.id == kept
        with closing(http.client.HTTPConnection(*kept_address, timeout=10)) as connection:
            connection.request("GET", "/b")
            assert connection.getresponse().status == 200, "others are as they were"
    for number in (tcp, udp):
        assert f"A210: forward {number} has ended" in one.log()
        assert one.run("forward", "rm", str(number)).code == "A407"
    assert one.run("forward", "tcp", "0", "three:80").code == "A210"
