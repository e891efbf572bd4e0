# SPDX-License-Identifier: Apache-2.0
"""Killing any process of a node at any moment: identity and membership stay, and the group goes on."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Generator
from functools import partial

import pytest

from atoll.base.errors import UserError
from atoll.cli.api import Api
from atoll.group.identity import IDENTITY_BYTES
from atoll.group.roster import Roster
from tests.process.node_world import Box, Daemon, Nodes, alive, children_of, gone, kill, nodes, until

pytestmark = pytest.mark.process

NIC_BACK_S = 5.0  # A second or so on an idle machine: the process must start and handshake again.
TWINS_S = 60.0  # Mostly half a minute: the two take the one session from each other by turns.


@pytest.fixture
def world() -> Generator[Nodes]:
    with nodes() as world:
        yield world


def file(name: str) -> Callable[[Box], bool]:
    return lambda box: (box.state / name).exists()


def replaced(box: Box, inode: int) -> bool:
    return (box.state / "roster").stat().st_ino != inode


def members(box: Box) -> bytes:
    """Return what its list of members comes to; beside it in the file are its invitations."""
    return Roster.decode((box.state / "roster").read_bytes()).digest()


def linked(box: Box, name: str) -> bool:
    peers = box.peers()
    return name in peers and peers[name].session


MOMENTS: dict[str, Callable[[Box], bool]] = {
    "before anything": lambda _: True,
    "lock": file("lock"),
    "identity": file("identity"),
    "settings": file("settings.json"),
    "roster": file("roster"),
    "socket": file("control.sock"),
    "journal": file("journal"),
    "first segment": file("journal/00000001.atj"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_founder_killed_at_its_first_start_is_who_it_was(world: Nodes, moment: str) -> None:
    one = world.box("one")
    daemon = Daemon(one)
    until(partial(MOMENTS[moment], one), moment)
    daemon.kill()
    key = one.identity() if (one.state / "identity").exists() else None
    assert key is None or len(key) == IDENTITY_BYTES, "whole, or not there at all"
    roster = members(one) if (one.state / "roster").exists() else None
    one.up()
    assert one.peers() == {}
    assert key in {None, one.identity()}
    assert roster in {None, members(one)}


@pytest.mark.parametrize("moment", ["identity", "settings", "roster", "socket"])
def test_a_joiner_killed_while_it_joins_gets_in_with_the_same_line(world: Nodes, moment: str) -> None:
    elder, joiner = world.box("elder"), world.box("joiner")
    invite = elder.up().invite
    assert invite is not None
    daemon = Daemon(joiner, invite)
    until(partial(MOMENTS[moment], joiner), moment)
    daemon.kill()
    key = joiner.identity()
    was_member = (joiner.state / "roster").exists()
    if was_member:
        joiner.again()  # No invitation is needed any more, and the name is not asked for again.
    else:
        joiner.up(invite)
    assert joiner.identity() == key
    assert joiner.status().name == "joiner"
    until(lambda: elder.sees("joiner") and joiner.sees("elder"), "both see each other")


def test_an_inviter_killed_right_after_a_join_still_knows_the_new_member(world: Nodes) -> None:
    elder, joiner = world.box("elder"), world.box("joiner")
    joiner.up(elder.up().invite or "")
    elder.kill()  # At once: whatever it had told the joiner must be on its disk.
    assert joiner.is_running()
    elder.again()
    assert set(elder.peers()) == {"joiner"}
    until(lambda: elder.sees("joiner") and joiner.sees("elder"), "both see each other")


def test_an_inviter_killed_while_it_admits_has_told_nobody_what_it_forgot(world: Nodes) -> None:
    """Either the joiner is a member on both sides, or on none: then it may ask again."""
    elder = world.box("elder")
    elder.up()
    for name in ("first", "second"):
        joiner = world.box(name)
        before = (elder.state / "roster").stat().st_ino
        daemon = Daemon(joiner, elder.invite())
        until(partial(replaced, elder, before), "the roster on disk")
        elder.kill()
        daemon.kill()
        elder.again()
        if (joiner.state / "roster").exists():
            assert name in elder.peers()
            joiner.again()
        else:
            joiner.up(elder.invite())
        until(partial(linked, joiner, "elder"), "the joiner is in")
        until(partial(linked, elder, name), "both see each other")


def test_a_member_killed_again_and_again_while_it_starts_stays_a_member(world: Nodes) -> None:
    one, two = world.group("one", "two")
    key = two.identity()
    two.kill()
    for wait_s in (0.1, 0.25, 0.4, 0.6, 0.9):
        daemon = Daemon(two)
        assert daemon.ran_for(wait_s)
        daemon.kill()
        assert two.identity() == key
    two.again()
    until(lambda: one.sees("two") and two.sees("one"), "both see each other")


def test_a_killed_control_leaves_its_device_until_the_next_one_takes_over_at_the_same_port(world: Nodes) -> None:
    one, two = world.group("one", "two")
    control = two.pid
    devices = children_of(control)
    assert len(devices) == 1
    kill(control)
    ready = two.again()
    assert ready.listen == f"udp/127.0.0.1:{two.port}"
    assert gone(devices[0])
    assert "had ended without a word; its packet device, which had gone on, is replaced" in two.log()
    until(lambda: one.sees("two") and two.sees("one"), "both see each other")


def test_down_ends_what_a_killed_control_has_left(world: Nodes) -> None:
    _, two = world.group("one", "two")
    control = two.pid
    devices = children_of(control)
    kill(control)
    assert alive(devices[0])
    said = two.down()
    assert (said.status, said.err) == (
        0,
        "the node had ended without a word; its packet device, which had gone on, has ended now\n",
    )
    assert gone(devices[0])
    assert (two.down().code, two.down().status) == ("A401", 3)


def test_a_device_that_was_alone_ends_with_its_control(world: Nodes) -> None:
    one = world.box("one")
    one.up()
    control = one.pid
    devices = children_of(control)
    kill(control)
    until(partial(gone, devices[0]), "its end: nobody is there to send to")


def test_a_killed_packet_device_is_started_again_and_traffic_goes_on(world: Nodes) -> None:
    one, two = world.group("one", "two")
    control = one.pid
    device = children_of(control)[0]
    began_s = time.monotonic()
    kill(device)
    until(lambda: [pid for pid in children_of(control) if pid != device], "another device")
    until(lambda: one.answered("two"), "an echo")
    assert time.monotonic() - began_s < NIC_BACK_S
    assert one.pid == control
    assert "the packet device is lost" in one.log()
    until(lambda: one.sees("two") and two.sees("one"), "both see each other")


def test_a_packet_device_that_keeps_dying_ends_the_node_with_a_code(world: Nodes) -> None:
    one = world.box("one")
    one.up()
    control, killed = one.pid, set[int]()
    while one.pid:
        fresh = until(lambda: [p for p in children_of(control) if p not in killed] or not one.pid, "another device")
        if isinstance(fresh, list):
            killed.add(fresh[0])
            kill(fresh[0])
        assert len(killed) < 20
    assert "A403" in one.log()
    assert not (one.state / "control.sock").exists()


def test_sigterm_ends_a_node_in_order(world: Nodes) -> None:
    one = world.box("one")
    one.up()
    pid = one.pid
    devices = children_of(pid)
    os.kill(pid, signal.SIGTERM)
    until(partial(gone, pid), "the end of the process")
    until(partial(gone, devices[0]), "the end of its device")
    assert not (one.state / "control.sock").exists()


def test_a_removed_member_stops_by_itself_and_all_others_hear_of_it(world: Nodes) -> None:
    one, two, three = world.group("one", "two", "three")
    pid = three.pid
    assert one.run("remove", "three").status == 0
    until(lambda: set(one.peers()) == {"two"} and set(two.peers()) == {"one"}, "the removal has spread")
    until(partial(gone, pid), "the removed node stops")
    assert "A206" in three.log()
    assert "removed from the group by one" in three.log()
    assert not (three.state / "control.sock").exists()
    said = three.run("up")
    assert (said.code, said.status) == ("A206", 6), "a removed machine does not start as if nothing were"
    assert said.field("fix")
    said = three.try_up(one.invite())
    assert (said.code, said.status) == ("A206", 6), "nor does a fresh invitation bring back a removed key"
    until(lambda: one.sees("two") and two.sees("one"), "the others go on")


def test_a_member_removed_while_away_learns_it_when_it_comes_back(world: Nodes) -> None:
    one, two = world.group("one", "two")
    two.kill()
    assert one.run("remove", "two").status == 0
    until(lambda: one.peers() == {}, "it is out")
    two.run("up")
    # Nobody answers its handshakes: it cannot be told, and nobody may serve it.
    assert one.peers() == {}
    assert two.pid == 0 or not two.peers()["one"].session


def test_a_node_may_leave(world: Nodes) -> None:
    one, two = world.group("one", "two")
    pid = two.pid
    assert two.run("remove", "two").status == 0
    until(partial(gone, pid), "the one that left stops")
    until(lambda: one.peers() == {}, "the other hears of it")


def ports_of(box: Box, name: str) -> set[int]:
    """The ports at which a node's stored roster says that a member is."""
    members = Roster.decode((box.state / "roster").read_bytes()).members()
    return {port for member in members if member.name == name for _, port in member.endpoints}


def test_of_two_nodes_with_one_key_the_later_is_refused_and_named(world: Nodes) -> None:
    one, two = world.group("one", "two")
    copy = world.box("copy", world.directory / "copy")
    shutil.copytree(
        two.state, copy.state, ignore=shutil.ignore_patterns("control.sock", "nic.sock", "lock", "journal", "node.log")
    )
    second = int(time.time())
    until(lambda: int(time.time()) > second, "the next second: of two that start in the same one, either may go on")
    copy.run("up", "--listen", f"127.0.0.1:{copy.port}")
    until(lambda: copy.pid == 0, "the copy stops", TWINS_S)
    assert "A207" in copy.log()
    assert "one" in copy.log(), "it says who heard both"
    said = copy.run("status")
    assert (said.code, said.status) == ("A401", 3)
    assert "A207" in said.err, "whoever asks is told why it ended"
    assert "atoll up --state NEW_DIR INVITE" in said.field("fix")
    assert two.is_running(), "the elder goes on"
    until(lambda: two.port in ports_of(one, "two"), "the others know again where the elder is", TWINS_S)
    assert "A207" in one.log(), "and whoever heard both says so"
    assert two.status().name == "two"
    assert two.pid


def test_down_answers_while_a_stream_of_pings_runs(world: Nodes) -> None:
    _, two = world.group("one", "two")
    pings = Api(two.state).stream("ping", {"node": "one", "count": 100})
    assert next(pings)
    assert two.down().status == 0
    until(lambda: two.pid == 0, "the end of the process")
    with pytest.raises(UserError, match="A401"):  # Never taken for a stream that came to its end.
        list(pings)


def test_a_member_that_joins_anew_keeps_what_only_it_knew(world: Nodes) -> None:
    """It signed a removal that nobody heard; the roster that its inviter hands out must not make it forget that."""
    one, two, three = world.group("one", "two", "three")
    one.kill()
    three.kill()
    assert two.run("remove", "three").status == 0
    two.kill()
    one.again()
    assert set(one.peers()) == {"two", "three"}
    assert two.up(one.invite()).joined
    assert set(two.peers()) == {"one"}, "still removed for itself"
    until(lambda: set(one.peers()) == {"two"}, "and the others hear of it at last")
    two.down()
    until(lambda: two.pid == 0, "the end of the process")
    two.again()
    assert set(two.peers()) == {"one"}, "it is on its disk"
