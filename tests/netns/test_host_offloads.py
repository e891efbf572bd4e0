# SPDX-License-Identifier: Apache-2.0
"""A kernel that says that it cuts and joins datagrams, and swallows them: found at the start, and done without."""

import sys

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
