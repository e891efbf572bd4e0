# SPDX-License-Identifier: Apache-2.0
"""The disk's port: the simulated one and the operating system's pass the same suite."""

from pathlib import Path
from random import Random

import pytest

from atoll.base.errors import StorageError
from atoll.base.ports import Disk
from atoll.host.files import FileDisk
from atoll.sim.disk import SimDisk

FILE_BYTES_MAX = 1 << 20


@pytest.fixture(params=["simulated", "real"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    if request.param == "simulated":
        return SimDisk(Random(1))
    return FileDisk(tmp_path, file_bytes_max=FILE_BYTES_MAX)


def test_an_empty_disk_has_no_names(disk: Disk) -> None:
    assert disk.names() == ()


def test_what_was_written_is_read_synced_or_not(disk: Disk) -> None:
    disk.write("f", b"one")
    assert disk.read("f") == b"one"
    disk.sync("f")
    assert disk.read("f") == b"one"


def test_a_write_is_the_whole_content(disk: Disk) -> None:
    disk.write("f", b"long before")
    disk.write("f", b"new")
    assert disk.read("f") == b"new"


def test_an_empty_file_is_a_file(disk: Disk) -> None:
    disk.write("f", b"")
    disk.sync("f")
    assert (disk.read("f"), disk.names()) == (b"", ("f",))


def test_an_append_makes_or_extends(disk: Disk) -> None:
    disk.append("f", b"a")
    disk.append("f", b"")
    disk.append("f", b"bc")
    assert disk.read("f") == b"abc"
    disk.write("f", b"x")
    disk.append("f", b"y")
    assert disk.read("f") == b"xy"


def test_names_are_sorted(disk: Disk) -> None:
    for name in ("b", "a.new", "a", "10", "9"):
        disk.write(name, b"")
    assert disk.names() == ("10", "9", "a", "a.new", "b")


def test_a_rename_moves_and_replaces_in_one_step(disk: Disk) -> None:
    disk.write("f", b"old")
    disk.write("f.new", b"new")
    disk.sync("f.new")
    disk.rename("f.new", "f")
    assert (disk.read("f"), disk.names()) == (b"new", ("f",))
    with pytest.raises(StorageError):
        disk.read("f.new")


def test_a_removed_file_is_gone_and_may_come_again(disk: Disk) -> None:
    disk.write("f", b"one")
    disk.remove("f")
    assert disk.names() == ()
    disk.append("f", b"two")
    assert disk.read("f") == b"two"


@pytest.mark.parametrize("call", ["read", "sync", "remove"])
def test_what_is_not_there_is_a_storage_error(disk: Disk, call: str) -> None:
    with pytest.raises(StorageError):
        getattr(disk, call)("nothing")
    assert disk.names() == ()


def test_renaming_what_is_not_there_changes_nothing(disk: Disk) -> None:
    disk.write("f", b"kept")
    with pytest.raises(StorageError):
        disk.rename("nothing", "f")
    assert disk.read("f") == b"kept"


def test_every_byte_comes_back(disk: Disk) -> None:
    content = bytes(range(256)) * 64
    disk.write("f", content)
    disk.append("f", content)
    disk.sync("f")
    assert disk.read("f") == content * 2


def test_two_files_do_not_mix(disk: Disk) -> None:
    disk.write("a", b"1")
    disk.write("b", b"2")
    disk.append("a", b"3")
    disk.remove("b")
    assert (disk.read("a"), disk.names()) == (b"13", ("a",))
