# SPDX-License-Identifier: Apache-2.0
"""A node and its disk: the journal of a live node replayed elsewhere, and a disk that is full."""

import ctypes
import ctypes.util
import json
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.process.node_world import Box, Nodes, nodes, until

pytestmark = pytest.mark.process

MOUNT_BYTES = 1 << 20
MNT_DETACH = 2


@pytest.fixture
def world() -> Generator[Nodes]:
    with nodes() as world:
        yield world


@pytest.fixture(scope="module")
def journal() -> Generator[Path]:
    """The journal of a node that lived twice among others, taken away from it."""
    with nodes() as world:
        one, two = world.group("one", "two")
        until(lambda: one.answered("two"), "an echo")
        one.down()
        until(lambda: one.pid == 0, "the end of the process")
        one.again()
        until(lambda: one.sees("two"), "both see each other")
        until((one.state / "journal" / "00000002.atj").exists, "the journal of the second life")
        one.kill()  # As a crash leaves it: the last record may be torn.
        assert two.is_running()
        away = world.directory / "away"
        shutil.copytree(one.state / "journal", away)
        yield away


def replay(box: Box, path: Path, *arguments: str) -> tuple[int, str, str]:
    said = box.run_bare("replay", str(path), *arguments)
    return said.status, said.out, said.code


def test_a_live_journal_replays_elsewhere_without_its_node(journal: Path) -> None:
    box = Box(journal, "nobody")
    status, out, _ = replay(box, journal, "--json")
    assert status == 0
    summary = json.loads(out)
    assert (summary["schema"], summary["machine"]) == ("atoll.replay/1", "control")
    assert summary["inputs"] > 20
    assert summary["runs"] == 2
    assert summary["raised"] == 0
    status, out, _ = replay(box, journal, "--until", "5", "--show")
    assert status == 0
    assert "InviteIssued" in out, "the line that ``atoll up`` prints"


def test_a_journal_holds_no_key_of_its_node(world: Nodes) -> None:
    one, two = world.group("one", "two")
    one.down()
    until(lambda: one.pid == 0, "the end of the process")
    kept = b"".join(path.read_bytes() for path in sorted((one.state / "journal").iterdir()))
    secret = one.identity()
    assert kept
    assert two.identity()[:32] not in kept
    assert secret[:32] not in kept
    assert secret[32:] not in kept


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])
def test_a_changed_byte_in_a_journal_does_not_pass(journal: Path, tmp_path: Path, share: float) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(journal, copy)
    segment = min(copy.iterdir())
    content = bytearray(segment.read_bytes())
    content[int(len(content) * share)] ^= 0x10
    segment.write_bytes(content)
    status, _, code = replay(Box(copy, "nobody"), copy)
    assert status != 0
    assert code in {"A302", "A303"}


def test_what_is_no_journal_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello\n", encoding="utf-8")
    box = Box(tmp_path, "nobody")
    for name, codes in (("empty", {"A304"}), ("missing", {"A304"}), ("text", {"A301", "A302", "A304"})):
        status, _, code = replay(box, tmp_path / name)
        assert status != 0
        assert code in codes, name


def _mount(directory: Path, size_bytes: int) -> bool:
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    options = b"size=%d,mode=0755" % size_bytes
    return bool(libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", 0, options) == 0)


def _unmount(directory: Path) -> None:
    ctypes.CDLL(ctypes.util.find_library("c")).umount2(os.fsencode(directory), MNT_DETACH)


@pytest.fixture
def small_disk() -> Generator[Nodes]:
    """Nodes on a disk of one mebibyte."""
    directory = Path(tempfile.mkdtemp(prefix="at"))
    if not _mount(directory, MOUNT_BYTES):
        directory.rmdir()
        if os.environ.get("CI"):
            pytest.fail("a small disk needs the right to mount; CI must have it")
        pytest.skip("a small disk needs the right to mount")
    world = Nodes(directory)
    try:
        yield world
    finally:
        try:
            world.end()
        finally:
            _unmount(directory)
            directory.rmdir()


def fill(directory: Path) -> Path:
    """Take every byte that is left."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        size = 4096
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    return ballast


def test_a_full_disk_at_the_first_start_is_told_and_leaves_nothing_half(small_disk: Nodes) -> None:
    one = small_disk.box("one")
    one.state.mkdir(mode=0o700)
    ballast = fill(small_disk.directory)
    said = one.try_up()
    assert (said.code, said.status) == ("A102", 1), said.err
    assert "--state" in said.field("fix")
    assert not (one.state / "identity").exists()
    ballast.unlink()
    one.up()


def test_a_disk_that_fills_up_does_not_stop_a_running_node(small_disk: Nodes) -> None:
    one, two = small_disk.group("one", "two")
    key, roster = one.identity(), (one.state / "roster").read_bytes()
    ballast = fill(small_disk.directory)
    until(lambda: one.status().warnings, "a warning")
    assert "journal suspended" in one.status().warnings[0]
    assert "warning: journal suspended" in one.run("status").err
    assert one.answered("two")
    for command in (("invite",), ("remove", "two"), ("remove", "two"), ("invite",)):
        said = one.run(*command)
        assert (said.code, said.status, said.out) == ("A102", 1, ""), said.err
        assert f"free some space for {one.state}" in said.field("fix")
    assert any("roster" in warning for warning in one.status().warnings)
    assert set(one.peers()) == {"two"}, "what is not on disk does not count"
    assert two.is_running()
    assert one.identity() == key
    assert (one.state / "roster").read_bytes() == roster
    ballast.unlink()
    until(lambda: one.peers() == {}, "it counts once it is on disk")
    until(lambda: not any("roster" in warning for warning in one.status().warnings), "no more warning about it")


def test_a_roster_that_is_refused_is_told_and_counts_once_it_can_be_written(world: Nodes) -> None:
    one, two = world.group("one", "two")
    obstacle = one.state / "roster.new" / "in the way"
    obstacle.mkdir(parents=True)
    for command, told in ((("invite",), "no invitation was made"), (("remove", "two"), "does not count yet")):
        said = one.run(*command)
        assert (said.code, said.status, said.out) == ("A110", 1, ""), said.err
        assert told in said.err
        assert str(one.state) in said.field("fix")
    assert set(one.peers()) == {"two"}
    assert two.is_running()
    obstacle.rmdir()
    obstacle.parent.rmdir()
    until(lambda: one.peers() == {}, "it counts now")
    until(lambda: two.pid == 0, "the removed one hears of it")
    assert one.status().warnings == ()
    assert one.run("invite").status == 0


def test_a_start_whose_news_are_refused_is_told_and_keeps_what_was(world: Nodes) -> None:
    one = world.box("one")
    one.up()
    one.down()
    until(lambda: one.pid == 0, "the end of the process")
    roster = (one.state / "roster").read_bytes()
    obstacle = one.state / "roster.new" / "in the way"
    obstacle.mkdir(parents=True)
    said = one.run("up", "--relay", "never")  # A new profile, which members must hear of.
    assert (said.code, said.status, said.out) == ("A110", 1, ""), said.err
    assert one.pid == 0
    assert (one.state / "roster").read_bytes() == roster
    obstacle.rmdir()
    obstacle.parent.rmdir()
    one.again()
    assert (one.state / "roster").read_bytes() != roster


def test_a_full_disk_at_a_later_start_keeps_identity_and_membership(small_disk: Nodes) -> None:
    one, two = small_disk.group("one", "two")
    two.kill()
    key = two.identity()
    ballast = fill(small_disk.directory)
    said = two.run("up")
    assert said.status == 0 or said.code == "A102", said.err
    two.kill()
    assert two.identity() == key
    ballast.unlink()
    two.again()
    until(lambda: one.sees("two"), "it is a member still")
