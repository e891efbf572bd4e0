# SPDX-License-Identifier: Apache-2.0
"""What is read from a TUN device and written to one, by the compiled way and by Python's; here it is a socket."""

import socket
from collections.abc import Iterator
from struct import pack

import pytest

from atoll.base.errors import LinkError, WireError
from atoll.device.nic.counters import Counters
from atoll.device.nic.segments import Bulk, Joint, is_right
from atoll.device.nic.tun_port import TunPort

pytestmark = pytest.mark.process

PACKET = bytes((0x60, 0, 0, 0, 0, 28, 6, 64)) + bytes(32) + bytes(12) + b"\x50" + bytes(7) + b"payload!"


def header(flags: int = 0, kind: int = 0, start: int = 0, offset: int = 0) -> bytes:
    return pack("<BBHHHH", flags, kind, 60, 4, start, offset)


@pytest.fixture(params=["Python", "compiled"])
def port(request: pytest.FixtureRequest) -> Iterator[tuple[TunPort, socket.socket, Counters]]:
    if request.param == "compiled":
        request.getfixturevalue("compiled")
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    counters = Counters()
    made = TunPort(ours.detach(), counters, compiled=request.param == "compiled")
    yield made, kernel, counters
    made.close()
    kernel.close()


def test_packets_are_read_one_by_one(port: tuple[TunPort, socket.socket, Counters]) -> None:
    tun, kernel, _ = port
    assert tun.read() is None
    kernel.send(header() + PACKET)
    kernel.send(header(flags=1, start=40, offset=16) + PACKET)
    kernel.send(header(flags=1, kind=4, start=40, offset=16) + PACKET)
    assert tun.read() == (PACKET, False)
    assert tun.read() == (PACKET, True)
    bulk = tun.read()
    assert isinstance(bulk, Bulk)
    assert (bulk.end - bulk.start, bulk.head_bytes, bulk.size) == (len(PACKET), 60, 4)
    for payload in (1900, 9000):  # A short packet takes a way of its own.
        kernel.send(header() + PACKET + bytes(payload))
        assert tun.read() == (PACKET + bytes(payload), False)
    assert tun.read() is None


@pytest.mark.parametrize(
    "wrong", [b"", header(), header() + bytes(39), header(1, 0, 40, 6) + PACKET, header(1, 9, 40, 16) + PACKET]
)
def test_what_is_malformed_is_told_and_the_next_is_read(
    port: tuple[TunPort, socket.socket, Counters], wrong: bytes
) -> None:
    tun, kernel, _ = port
    kernel.send(wrong)
    kernel.send(header() + PACKET)
    with pytest.raises(WireError):
        tun.read()
    assert tun.read() == (PACKET, False)


def test_packets_are_written_behind_a_header(port: tuple[TunPort, socket.socket, Counters]) -> None:
    tun, kernel, _ = port
    tun.write([PACKET, [header(1), PACKET[:50], memoryview(PACKET)[50:]]])
    assert kernel.recv(2000) == bytes(10) + PACKET
    assert kernel.recv(2000) == header(1) + PACKET


def test_a_kernel_that_is_to_get_whole_packets_gets_them() -> None:
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    counters, joint = Counters(), Joint()
    tun = TunPort(ours.detach(), counters, whole=True)
    for at in range(0, 12, 4):
        sequence = pack(">I", at)
        assert joint.add(memoryview(PACKET[:44] + sequence + PACKET[48:60] + PACKET[60:64]))
    tun.write([PACKET, joint.take(), [header(1), b"\x60" + bytes(5) + b"\x06" + bytes(60)]])
    assert kernel.recv(2000) == bytes(10) + PACKET
    for at in range(0, 12, 4):
        found = kernel.recv(2000)
        assert found[:10] == bytes(10)
        assert found[54:58] == pack(">I", at)
        assert found[70:] == b"payl"
        assert is_right(found[10:])
    assert counters.dropped["tun-malformed"] == 1, "it says that it has no payload"
    tun.close()
    kernel.close()


def test_what_the_kernel_does_not_take_is_counted(port: tuple[TunPort, socket.socket, Counters]) -> None:
    tun, kernel, counters = port
    kernel.setblocking(False)
    while not counters.dropped.get("tun-full"):
        tun.write([PACKET])
    kernel.close()
    tun.write([PACKET, [header(1), PACKET]])
    assert counters.dropped["tun-malformed"] == 2


def test_a_device_that_is_gone_is_told(port: tuple[TunPort, socket.socket, Counters]) -> None:
    tun, _, _ = port
    tun.close()
    with pytest.raises(LinkError, match="EBADF"):
        tun.read()
    with pytest.raises(LinkError, match="EBADF"):
        tun.write([PACKET])
