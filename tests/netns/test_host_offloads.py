# SPDX-License-Identifier: Apache-2.0
"""A kernel that says that it cuts and joins, and swallows or spoils: found at the start, and done without."""

import sys
from hashlib import shake_128

import pytest

from tests.netns.lan import cannot, hosts
from tests.process.node_world import until

pytestmark = pytest.mark.netns

ASK = "from atoll.host.udp import bursts_work; print(bursts_work())"
SWALLOW = """
table inet lie {
    chain out { type filter hook output priority 0; meta l4proto udp meta length > 600 meta length < 2000 drop; }
}
"""


def test_an_offload_that_lies_is_found_out_and_the_node_goes_without() -> None:
    with hosts(2) as (one, two):
        if one.inside(sys.executable, "-c", ASK) != "True\n":
            cannot("this kernel has no such offload")
        two.inside("nft", SWALLOW)
        assert two.inside(sys.executable, "-c", ASK) == "False\n"
        invite = one.up().invite
        assert invite is not None
        two.up(invite)
        until(lambda: all(peer.state == "ok" for peer in two.status().peers), "the two linked")
        assert ", bursts," in one.status().device
        assert ", one datagram at a time," in two.status().device


# A TUN device of the kernel behind a go-between that does something to what passes: "hand over" is what the kernel has
# cut by others, "take" is what it is to cut. The first ten bytes are the virtio header, the second its kind.
TRIAL = """
import os, resource, select, socket, sys, threading
from contextlib import suppress
from pathlib import Path
from atoll.device.nic.tun_trial import large_packets_pass
from atoll.host.tun import TunDevice, renounce_offloads

resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
held = [os.dup(0) for _ in range(1100)]  # A node has many files: numbers beyond what select() takes.

LIES = {
    "none": (lambda found: found, lambda found: found),
    "hands over nothing large": (lambda found: found if not found[1] else b"", lambda found: found),
    "hands over what is spoilt": (lambda found: found if not found[1] else found[:-1] + b"?", lambda found: found),
    "hands over half": (lambda found: found if not found[1] else found[:len(found) // 2], lambda found: found),
    "says that sums are done": (lambda found: bytes(1) + found[1:], lambda found: found),
    "takes nothing large": (lambda found: found, lambda found: found if not found[1] else b""),
    "takes what it spoils": (lambda found: found, lambda found: found if not found[1] else found[:-1] + b"?"),
    "takes half": (lambda found: found, lambda found: found if not found[1] else found[:len(found) // 2]),
}

def go_between(tun, theirs, handed, taken):
    waiting = select.poll()
    waiting.register(tun, select.POLLIN)
    waiting.register(theirs, select.POLLIN)
    with suppress(ConnectionResetError):  # Not everything was read.
        pass_on(waiting, tun, theirs, handed, taken)

def pass_on(waiting, tun, theirs, handed, taken):
    while True:
        for ready, _ in waiting.poll():
            if ready == theirs.fileno():
                if not (found := theirs.recv(70_000)):
                    return
                if found := taken(found):
                    os.write(tun, found)
            elif found := handed(os.read(tun, 70_000)):
                theirs.send(found)

def program():
    return socket.socket(socket.AF_INET6, socket.SOCK_STREAM)

address = socket.inet_pton(socket.AF_INET6, "fd00::1")
kinds = set()
LIES["renounced"] = (lambda found: kinds.add(found[:2]) or found, lambda found: found)
for number, (lie, ways) in enumerate(LIES.items()):
    device = TunDevice(f"tried{number}")
    device.bring_up(address, 64, 1408)
    if lie == "renounced":
        renounce_offloads(device.fd)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    liar = threading.Thread(target=go_between, args=(device.fd, theirs, *ways))
    liar.start()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:  # Programs may send as soon as it is up.
        for _ in range(700):  # More than its queue holds.
            other.sendto(b"something else", ("fd00::99", 5000))
    passed = large_packets_pass(ours.fileno(), program, address)
    ours.close()
    liar.join()
    device.close()
    print(f"{lie}: {passed}")
print("kinds when renounced:", kinds)
print("left behind:", len(Path("/proc/net/tcp6").read_text().splitlines()) - 1)
"""


def test_a_tun_device_is_tried_before_it_is_used() -> None:
    with hosts(1) as (one,), one.python(TRIAL) as program:
        told = dict(line.split(": ") for line in program.communicate(timeout=60)[0].splitlines())
    assert told.pop("kinds when renounced") == str({bytes(2)}), "nothing is left undone"
    assert told.pop("left behind") == "0"
    assert [lie for lie, passed in told.items() if passed == "True"] == ["none", "renounced"]
    assert len(told) == 9


NO_TRIAL = "table inet wall { chain out { type filter hook output priority 0; tcp dport 9 drop; }; }"
NOTHING_LARGE = """
table inet lie {
    chain in { type filter hook prerouting priority 0; iifname "atoll*" meta length > 2000 drop; }
}
"""
SERVE = """
import hashlib, socket, sys
listener = socket.create_server((sys.argv[1], 8000), family=socket.AF_INET6)
print("ready", flush=True)
connection, _ = listener.accept()
connection.settimeout(20)
told = hashlib.shake_128()
while data := connection.recv(65536):
    told.update(data)
print(told.hexdigest(8))
"""
SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], 8000), timeout=20) as connection:
    connection.sendall(bytes(3_000_000))
"""


def test_a_node_goes_without_what_the_kernel_swallows() -> None:
    with hosts(2) as (one, two):
        invite = one.up("--tun").invite
        assert invite is not None
        two.inside("nft", NOTHING_LARGE)
        two.up("--tun", invite)
        until(lambda: all(peer.state == "ok" for peer in two.status().peers), "the two linked")
        assert "no offloads: they failed a self-test" in two.status().device
        assert "offloads" in one.status().device
        assert "self-test" not in one.status().device
        for host, said in ((one, "on"), (two, "off")):
            assert f"tcp-segmentation-offload: {said}\n" in host.inside("ethtool", "-k", host.device)
        with two.python(SERVE, two.address) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            one.inside(sys.executable, "-c", SEND, two.address)
            assert server.stdout.readline().strip() == shake_128(bytes(3_000_000)).hexdigest(8)


def test_a_wall_that_forbids_the_trial_costs_no_offloads() -> None:
    with hosts(1) as (one,):
        one.inside("nft", NO_TRIAL)
        one.up("--tun")
        assert "(tcp" in one.status().device
