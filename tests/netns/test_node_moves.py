# SPDX-License-Identifier: Apache-2.0
"""A machine that moves to another network keeps its connections: one of its addresses goes, another one comes."""

import os
import signal

import pytest

from tests.netns.lan import PORT, WAIT_S, Host, hosts
from tests.netns.talk import talking
from tests.process.node_world import until

pytestmark = pytest.mark.netns

# Ends at the second notice.
WATCH = """
import asyncio
from atoll.host.network import NetworkWatch
async def main():
    changes = asyncio.Queue()
    watch = NetworkWatch(lambda: changes.put_nowait(None))
    print("ready", flush=True)
    for _ in range(2):
        await changes.get()
        print("changed", flush=True)
    watch.close()
    watch.close()
    print("closed")
asyncio.run(main())
"""

NEW = "10.77.0.200"


def move(host: Host, old: str) -> None:
    """As a laptop does that is carried to another network."""
    host.inside("ip", "address", "del", f"{old}/24", "dev", "ee0")
    host.inside("ip", "address", "add", f"{NEW}/24", "dev", "ee0")
    host.inside("ip", "route", "replace", "default", "dev", "ee0")


def lists(host: Host, name: str) -> str | None:
    return next((peer.endpoint for peer in host.status().peers if peer.name == name), None)


def test_a_machine_that_moves_is_found_at_once_and_keeps_its_connections() -> None:
    with hosts(3) as (first, second, third):
        for host in (first, second, third):
            host.inside("ip", "route", "add", "default", "dev", "ee0")
        invite = first.up("--tun").invite
        assert invite is not None
        second.up("--tun", invite, listen=f"0.0.0.0:{PORT}")
        third.up("--tun", first.atoll("invite").stdout.split()[-1])
        until(lambda: all(peer.state == "ok" for peer in first.status().peers), "all paths")
        with talking(first, second) as talk:
            talk.goes_on()
            old = second.ip
            second.ip = NEW
            move(second, old)
            worst_s = talk.goes_on()
            until(lambda: lists(first, "n1") == lists(third, "n1") == f"{NEW}:{PORT}", "the new place")
            worst_s = max(worst_s, talk.goes_on())
        assert worst_s < 5
        # Its own word: it is called there by who begins later, too.
        until(lambda: NEW.encode() in (third.state / "roster").read_bytes(), "the new place in the rosters")


@pytest.mark.parametrize("is_moved", [False, True], ids=["stays", "moves"])
def test_a_machine_that_was_stopped_is_found_again_and_keeps_its_connections(*, is_moved: bool) -> None:
    """As after a sleep, as far as that can be had here: nothing of the node runs, its peers give it up, and it learns
    only afterwards that it is elsewhere. The monotonic clock goes on meanwhile, and the kernel answers; a machine that
    really sleeps stops both (what is decided then is shown by ``tests/unit/test_overlay_places.py``)."""
    with hosts(3) as (first, second, third):
        for host in (first, second, third):
            host.inside("ip", "route", "add", "default", "dev", "ee0")
        invite = first.up("--tun").invite
        assert invite is not None
        second.up("--tun", invite, listen=f"0.0.0.0:{PORT}")
        third.up("--tun", first.atoll("invite").stdout.split()[-1])
        until(lambda: all(peer.state == "ok" for peer in first.status().peers), "all paths")
        with talking(second, first) as talk:
            talk.goes_on()
            processes = second.processes()
            for process in processes:
                os.kill(process, signal.SIGSTOP)
            try:
                until(lambda: state(first, "n1") == state(third, "n1") == "away", "it is given up", wait_s=40)
                if is_moved:
                    move(second, second.ip)
                    second.ip = NEW
            finally:
                for process in processes:
                    os.kill(process, signal.SIGCONT)
            until(lambda: state(first, "n1") == state(third, "n1") == "ok", "it is back")
            assert lists(first, "n1") == lists(third, "n1") == f"{second.ip}:{PORT}"
            assert second.processes() == processes
            talk.goes_on()


def state(host: Host, name: str) -> str:
    return next((peer.state for peer in host.status().peers if peer.name == name), "")


def test_changes_of_addresses_are_noticed_and_told_once() -> None:
    with hosts(1) as (host,), host.python(WATCH) as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline() == "ready\n"
        move(host, host.ip)
        assert watch.stdout.readline() == "changed\n"
        host.inside("ip", "route", "del", "default", "dev", "ee0")
        assert watch.communicate(timeout=WAIT_S)[0] == "changed\nclosed\n"
