# SPDX-License-Identifier: Apache-2.0
"""Killing either process of a node whose machine is in the overlay: what programs notice of it."""

import os
import signal

import pytest

from tests.netns.lan import Host, hosts
from tests.netns.talk import talking
from tests.process.node_world import children_of, gone, kill, until

pytestmark = pytest.mark.netns

FLOWS_S = 1.0  # A hundredth on an idle machine: nothing stands in the way of a packet.
PAUSE_S = 5.0  # A second or so on an idle machine: a device must start and handshake, and TCP try again.


def interfaces(host: Host) -> list[str]:
    return [line.split(":")[1].strip() for line in host.inside("ip", "-o", "link").splitlines()]


def test_packets_flow_while_control_is_gone_and_when_another_one_takes_over() -> None:
    with hosts(3) as (first, second, third):
        invite = first.up("--tun").invite
        assert invite is not None
        second.up("--tun", invite)
        third.up(first.atoll("invite").stdout.split()[-1])
        until(lambda: [peer.state for peer in first.status().peers] == ["ok", "ok"], "all paths")
        name = second.device
        with talking(second, first) as talk:
            talk.goes_on()
            control, device = second.processes()
            kill(control)
            without_s = talk.goes_on()
            until(lambda: "away" in [peer.state for peer in first.status().peers], "its silence is noticed")
            until(lambda: "away" in [peer.state for peer in third.status().peers], "by all")
            without_s = max(without_s, talk.goes_on())
            assert not gone(device)
            talk.begin(300)
            second.up()
            assert gone(device), "it ended before its successor began"
            over_s = talk.end()
            assert second.device == name, "rules of a firewall may name it"
            assert without_s < FLOWS_S, "the device does not need it"
            assert over_s < PAUSE_S
            control, device = second.processes()
            kill(control)
            talk.goes_on()
            assert second.atoll("down").returncode == 0
            assert gone(device)
            assert name not in interfaces(second)


def test_a_killed_packet_device_costs_a_connection_a_second() -> None:
    with hosts(2) as (first, second):
        invite = first.up("--tun").invite
        assert invite is not None
        second.up("--tun", invite)
        until(lambda: all(peer.state == "ok" for peer in first.status().peers), "the path")
        with talking(second, first) as talk:
            talk.goes_on()
            control, device = second.processes()
            os.kill(device, signal.SIGKILL)
            assert talk.goes_on() < PAUSE_S
            assert [pid for pid in children_of(control) if pid != device]
