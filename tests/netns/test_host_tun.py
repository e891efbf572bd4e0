# SPDX-License-Identifier: Apache-2.0
"""A TUN device of the real kernel."""

from tests.netns.lan import hosts

BIND = """
import socket
from atoll.host.tun import TunDevice
for number in range(100):
    device = TunDevice(f"tried{number}")
    address = f"fd00::{number + 1:x}"
    device.bring_up(socket.inet_pton(socket.AF_INET6, address), 64, 1280)
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).bind((address, 53))
    device.close()
print("bound")
"""


def test_an_address_can_be_bound_at_once() -> None:
    with hosts(1) as (one,), one.python(BIND) as program:
        assert program.communicate(timeout=60)[0] == "bound\n"


LARGE = """
import json, socket, subprocess
from atoll.host.tun import LARGE_BYTES_MAX, TunDevice
device = TunDevice("tried0")
device.bring_up(socket.inet_pton(socket.AF_INET6, "fd00::1"), 64, 1408)
(told,) = json.loads(subprocess.run(("ip", "-j", "-d", "link", "show", "tried0"), capture_output=True).stdout)
print(told["gso_max_size"] == LARGE_BYTES_MAX)
"""


def test_the_kernel_hands_over_no_more_than_one_burst_takes() -> None:
    with hosts(1) as (one,), one.python(LARGE) as program:
        assert program.communicate(timeout=60)[0] == "True\n"
