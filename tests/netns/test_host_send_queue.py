# SPDX-License-Identifier: Apache-2.0
"""How long datagrams wait in the kernel, on a link that is held to a rate.

::

    n0 [ee0, 1 Mbit/s]---[bridge]---[ee0] n1
"""

from tests.netns.lan import hosts

SEND = """
import sys, time
from atoll.host.udp import UdpSocket
sock, there = UdpSocket(("0.0.0.0", 0)), (sys.argv[1], 9)
queue, now_ns, until = sock.queue, time.monotonic_ns, time.monotonic() + 30
assert queue.wait_ns(now_ns()) == 0
for _ in range(50):  # Half a second of the link.
    sock.send(there, bytes(1200))
    queue.note(now_ns())
waits = []
while time.monotonic() < until and queue.wait_ns(now_ns()):
    waits.append(queue.wait_ns(now_ns()))
print(max(waits) > 200_000_000)
while time.monotonic() < until and queue.is_standing:
    queue.wait_ns(now_ns())
sock.send(there, bytes(1200))
queue.note(now_ns())
print(queue.wait_ns(now_ns()))  # One alone is no queue.
"""


def test_the_oldest_of_what_is_held_has_waited_as_long_as_the_queue_is() -> None:
    with hosts(2) as (one, other):
        one.inside("ping", "-n", "-c", "1", "-W", "5", other.ip)  # So that no datagram waits for its neighbour.
        shape = ["rate", "1mbit", "burst", "2000", "limit", "200000"]
        one.inside("tc", "qdisc", "add", "dev", "ee0", "root", "tbf", *shape)
        with one.python(SEND, other.ip) as program:
            assert program.communicate(timeout=60)[0].split() == ["True", "0"]
