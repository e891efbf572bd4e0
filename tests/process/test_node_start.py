# SPDX-License-Identifier: Apache-2.0
"""``atoll up``: founding, joining, starting again, and everything that may be wrong at a start."""

import json
import re
import shutil
import socket
import stat
import time
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import msgspec
import pytest

from atoll.base.units import SECOND_NS
from atoll.group.invite import decode_invitation, encode_invitation
from tests.process.node_world import COMMAND_S, Nodes, Said, alive, nodes, until

pytestmark = pytest.mark.process

JOIN_S_MAX = 60.0  # The promise: installed, pasted, joined within a minute.


@pytest.fixture
def world() -> Generator[Nodes]:
    with nodes() as world:
        yield world


@pytest.fixture(scope="module")
def founder() -> Generator[Nodes]:
    """A group that nobody breaks, for those who do not get in."""
    with nodes() as world:
        world.box("elder").up()
        yield world


def refused(said: Said, code: str, status: int) -> None:
    assert (said.code, said.status, said.out) == (code, status, ""), said.err
    assert said.field("fix")
    assert said.field("more") == f"atoll help {code}"


def test_up_founds_a_group_and_the_next_machine_joins_with_the_printed_line(world: Nodes) -> None:
    one, two = world.box("one"), world.box("two")
    began_s = time.monotonic()
    said = one.run("up", "--name", "one", "--listen", f"127.0.0.1:{one.port}", "--group-name", "our-group")
    assert said.status == 0, said.err
    assert "our-group" in said.out
    invite = re.findall(r"^ +atoll up (atoll1-\S+)$", said.out, re.MULTILINE)
    assert len(invite) == 1
    assert stat.S_IMODE((one.state / "identity").stat().st_mode) == 0o600
    ready = two.up(invite[0])
    assert (ready.joined, ready.name, ready.listen) == (True, "two", f"udp/127.0.0.1:{two.port}")
    until(lambda: one.sees("two") and two.sees("one"), "both see each other")
    assert time.monotonic() - began_s < JOIN_S_MAX
    assert one.status().roster_version == two.status().roster_version


def test_down_leaves_no_socket_and_up_brings_back_the_same_machine(world: Nodes) -> None:
    one, two = world.group("one", "two")
    before, key, settings = two.status(), two.identity(), (two.state / "settings.json").read_bytes()
    assert two.down().status == 0
    assert not (two.state / "control.sock").exists()
    until(lambda: two.pid == 0, "the end of the process")
    refused(two.run("status"), "A401", 3)
    refused(two.down(), "A401", 3)
    until(lambda: one.peers()["two"].state == "away", "the other notices")
    ready = two.again()
    assert (ready.joined, ready.name, ready.group) == (False, "two", before.group)
    assert (ready.listen, ready.address) == (before.listen, before.address)
    until(lambda: one.sees("two") and two.sees("one"), "both see each other again")
    assert two.identity() == key
    assert (two.state / "settings.json").read_bytes() == settings
    assert two.status().roster_version == before.roster_version


def test_a_member_that_lost_its_roster_founds_no_other_group_and_joins_again_as_itself(world: Nodes) -> None:
    one, two = world.group("one", "two")
    key = two.identity()
    two.down()
    until(lambda: two.pid == 0, "the end of the process")
    (two.state / "roster").unlink()
    refused(two.run("up", "--json"), "A108", 1)
    assert two.up(one.invite()).joined
    assert two.identity() == key
    until(lambda: one.sees("two"), "both see each other again")


def test_starting_again_with_other_options_changes_them_and_nothing_else(world: Nodes) -> None:
    one, two = world.group("one", "two")
    two.down()
    until(lambda: two.pid == 0, "the end of the process")
    assert two.run("up", "--name", "renamed", "--relay", "never").status == 0
    until(lambda: one.sees("renamed"), "the new name has spread")
    assert one.peers()["renamed"].relay == "never"
    assert one.peers()["renamed"].node == two.status().node


def test_two_machines_of_one_name_are_told_apart_and_keep_their_names(world: Nodes) -> None:
    one, two = world.box("twin"), world.box("twin", world.directory / "other")
    one.up()
    assert two.up(one.invite()).name == "twin-2"
    until(lambda: one.sees("twin-2") and two.sees("twin"), "both see each other")
    version = one.status().roster_version
    two.down()
    until(lambda: two.pid == 0, "the end of the process")
    assert two.again().name == "twin-2"
    until(lambda: one.sees("twin-2") and two.sees("twin"), "both see each other again")
    assert one.status().roster_version == version, "a restart is no news"


def test_an_invitation_works_once(world: Nodes) -> None:
    one, late = world.box("one"), world.box("late")
    invite = one.up().invite
    assert invite is not None
    world.box("two").up(invite)
    refused(late.try_up(invite), "A204", 6)
    assert (late.state / "identity").exists()
    assert late.up(one.invite()).joined, "the same machine comes in with a fresh one"
    assert set(one.peers()) == {"two", "late"}


def test_the_same_machine_may_use_its_invitation_again(world: Nodes) -> None:
    one, two = world.box("one"), world.box("two")
    invite = one.up().invite
    assert invite is not None
    two.up(invite)
    two.down()
    until(lambda: two.pid == 0, "the end of the process")
    assert two.up(invite).joined, "as after a crash between the answer and the disk"
    until(lambda: one.sees("two"), "it is back")


def test_an_expired_invitation_is_refused_before_any_packet(founder: Nodes) -> None:
    invitation = decode_invitation(founder.boxes[0].invite())
    old = msgspec.structs.replace(invitation, expires_s=time.time_ns() // SECOND_NS - 3600)
    refused(founder.box("old").try_up(encode_invitation(old)), "A203", 6)


@pytest.fixture(scope="module", autouse=True)
def strays(founder: Nodes) -> Generator[Mapping[str, Future[Said]]]:
    """Two joins that must give up by themselves: begun first, for they wait, and asked for last."""
    invitation = decode_invitation(founder.boxes[0].invite())
    invites = {
        "astray": msgspec.structs.replace(invitation, endpoints=(("127.0.0.1", founder.box("nobody").port),)),
        "guess": msgspec.structs.replace(invitation, secret=bytes(16)),
    }
    with ThreadPoolExecutor(len(invites)) as pool:
        yield {
            name: pool.submit(founder.box(name).try_up, encode_invitation(invite)) for name, invite in invites.items()
        }


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "other"])
def test_what_is_no_whole_invitation_is_told_at_once(founder: Nodes, damage: str) -> None:
    text = founder.boxes[0].invite()
    swapped = "A" if text[20] != "A" else "B"
    broken = {
        "cut": text[:-5],
        "changed": text[:20] + swapped + text[21:],
        "empty": "atoll1-",
        "other": "hello",
    }[damage]
    said = founder.box(damage).try_up(broken)
    refused(said, "A201", 6)
    assert text[30:60] not in said.err, "an invitation is a secret"


def test_a_member_of_one_group_is_not_drawn_into_another(founder: Nodes, world: Nodes) -> None:
    settled, _ = world.group("settled", "guest")
    settled.down()
    until(lambda: settled.pid == 0, "the end of the process")
    roster = (settled.state / "roster").read_bytes()
    refused(settled.try_up(founder.boxes[0].invite()), "A202", 6)
    assert (settled.state / "roster").read_bytes() == roster


def test_who_founded_a_group_by_mistake_can_still_join_the_right_one(world: Nodes) -> None:
    """The first ``up`` on the second machine came without the invitation."""
    founder, hasty = world.box("founder"), world.box("hasty")
    ours = founder.up()
    wrong = hasty.up()
    assert wrong.group != ours.group
    refused(hasty.try_up(founder.invite()), "A103", 7)
    hasty.down()
    until(lambda: hasty.pid == 0, "the end of the process")
    key, roster = hasty.identity(), (hasty.state / "roster").read_bytes()
    used = founder.invite()
    world.box("other").up(used)
    refused(hasty.try_up(used), "A204", 6)
    assert (hasty.state / "roster").read_bytes() == roster, "a join that failed changes nothing"
    ready = hasty.up(founder.invite())
    assert (ready.joined, ready.group) == (True, ours.group)
    assert hasty.identity() == key
    until(lambda: founder.sees("hasty", "other") and hasty.sees("founder", "other"), "all see each other")


def test_a_taken_port_is_named_and_another_one_mends_it(world: Nodes) -> None:
    one = world.box("one")
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
        taken.bind(("127.0.0.1", one.port))
        said = one.try_up()
        refused(said, "A105", 7)
        assert f"127.0.0.1:{one.port}" in said.err
        assert "--listen" in said.field("fix")
        key = one.identity()
        assert one.run("up", "--listen", "127.0.0.1:0").status == 0
    assert one.identity() == key


def test_port_0_becomes_a_port_that_is_kept(world: Nodes) -> None:
    one = world.box("one")
    assert one.run("up", "--listen", "127.0.0.1:0").status == 0
    listen = one.status().listen
    assert not listen.endswith(":0")
    one.kill()
    assert one.again().listen == listen


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (("--listen", "127.0.0.1"), "A501", 2),
        (("--listen", "127.0.0.1:99999"), "A501", 2),
        (("--listen", "localhost:0"), "A501", 2),
        (("--listen", ","), "A501", 2),
        (("--listen", "192.0.2.1:0"), "A105", 7),
        (("--name", "Not A Name"), "A211", 6),
        (("--name", "x" * 33), "A211", 6),
        (("--relay", "perhaps"), "A501", 2),
    ],
)
def test_a_wrong_option_is_told_and_changes_nothing(
    world: Nodes, arguments: tuple[str, ...], code: str, status: int
) -> None:
    said = world.box("one").run("up", *arguments)
    refused(said, code, status)
    assert world.boxes[0].pid == 0


def test_a_running_node_is_not_started_twice(founder: Nodes) -> None:
    elder = founder.boxes[0]
    pid = elder.pid
    said = elder.run("up")
    refused(said, "A103", 7)
    assert str(pid) in said.err
    assert elder.pid == pid
    assert elder.is_running()


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660])
def test_a_key_that_others_may_read_is_refused_and_mended_as_the_fix_says(world: Nodes, mode: int) -> None:
    one = world.box("one")
    one.up()
    one.kill()
    (one.state / "identity").chmod(mode)
    said = one.run("up")
    refused(said, "A104", 6)
    assert f"chmod 600 {one.state / 'identity'}" in said.field("fix")
    (one.state / "identity").chmod(0o600)
    one.again()


def test_a_key_of_another_length_is_never_replaced(world: Nodes) -> None:
    one = world.box("one")
    one.state.mkdir(mode=0o700)
    (one.state / "identity").write_bytes(b"short")
    (one.state / "identity").chmod(0o600)
    refused(one.run("up"), "A101", 1)
    assert one.identity() == b"short"


@pytest.mark.parametrize(
    ("name", "content", "code", "status"),
    [
        ("settings.json", b"{", "A108", 1),
        ("settings.json", b"\xff" * 100, "A108", 1),
        ("settings.json", b"[" * 60_000, "A108", 1),
        ("settings.json", b" " * 100_000, "A108", 1),
        ("settings.json", b'{"format":99,"name":"one","group_name":"g","listen":"127.0.0.1:0"}', "A106", 7),
        ("settings.json", b'{"format":99,"name":5}', "A106", 7),
        ("settings.json", b'{"name":"one"}', "A108", 1),
        ("roster", b"nonsense", "A108", 1),
        ("roster", b"", "A108", 1),
    ],
)
def test_damaged_or_newer_state_is_told_and_left_alone(
    world: Nodes, name: str, content: bytes, code: str, status: int
) -> None:
    one = world.box("one")
    one.up()
    one.kill()
    key = one.identity()
    (one.state / name).write_bytes(content)
    refused(one.run("up"), code, status)
    assert (one.state / name).read_bytes() == content
    assert one.identity() == key


def test_a_roster_with_one_changed_byte_is_not_believed(world: Nodes) -> None:
    one = world.box("one")
    one.up()
    one.kill()
    path = one.state / "roster"
    good = path.read_bytes()
    for offset in (len(good) // 2, len(good) - 2):
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 1]) + good[offset + 1 :])
        refused(one.run("up"), "A108", 1)
    path.write_bytes(good)
    one.again()


def test_a_file_in_place_of_the_directory_is_told(world: Nodes) -> None:
    (world.directory / "file").touch()
    for state in (world.directory / "file", world.directory / "file" / "below"):
        refused(world.box("one", state).run("up"), "A110", 1)


def test_a_path_too_long_for_a_socket_is_told(world: Nodes) -> None:
    said = world.box("one", world.directory / ("x" * 110)).run("up")
    refused(said, "A109", 2)
    assert "107" in said.err


def test_a_lost_timestamp_costs_nothing(world: Nodes) -> None:
    one, two = world.group("one", "two")
    two.kill()
    (two.state / "timestamp").write_bytes(b"damaged")
    two.again()
    until(lambda: one.sees("two"), "it is back")


def test_a_clock_that_was_set_back_does_not_keep_a_node_out(world: Nodes) -> None:
    """What a node finds after its clock was an hour ahead: a handshake timestamp from the future."""
    one, two = world.group("one", "two")
    two.down()
    until(lambda: two.pid == 0, "the end of the process")
    ahead_ns = time.time_ns() + 3600 * SECOND_NS
    (two.state / "timestamp").write_bytes(ahead_ns.to_bytes(8, "big"))
    two.again()
    until(lambda: one.sees("two") and two.sees("one"), "both see each other")
    assert two.answered("one")


def test_a_bad_configuration_file_is_refused_with_its_place(world: Nodes) -> None:
    file = world.directory / "atoll.toml"
    file.write_text('lissten = "127.0.0.1:0"\n', encoding="utf-8")
    said = world.box("one").run("up", "--config", str(file))
    refused(said, "A501", 2)
    assert "lissten" in said.err


def test_leftovers_of_a_crash_do_not_stop_a_start(world: Nodes) -> None:
    one = world.box("one")
    one.up()
    one.kill()
    assert (one.state / "control.sock").exists(), "a killed node cannot tidy up"
    for name in ("roster.new", "settings.json.new", "timestamp.new"):
        (one.state / name).write_bytes(b"half")
    assert one.again().name == "one"
    settings = json.loads((one.state / "settings.json").read_text(encoding="utf-8"))
    assert settings["name"] == "one"


def test_nothing_of_a_node_outlives_it(world: Nodes) -> None:
    one = world.box("one")
    one.up()
    pid = one.pid
    assert pid
    one.down()
    until(lambda: not alive(pid), "the end of the process")
    shutil.rmtree(one.state)
    assert not one.state.exists()


def test_an_invitation_to_nobody_ends_in_bounded_time(strays: Mapping[str, Future[Said]]) -> None:
    refused(strays["astray"].result(COMMAND_S), "A205", 5)


def test_an_invitation_that_was_never_issued_opens_nothing(founder: Nodes, strays: Mapping[str, Future[Said]]) -> None:
    said = strays["guess"].result(COMMAND_S)
    refused(said, "A205", 5)  # It is there, and it can be reached: what is said must be true of that as well.
    assert said.err.startswith("error A205: no valid answer came from the inviting node\n")
    assert "`atoll invite` anew there" in said.field("fix")
    assert founder.boxes[0].peers() == {}
