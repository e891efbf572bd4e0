# SPDX-License-Identifier: Apache-2.0
"""The disk: the port's contract without a crash, and what crashes and full disks may leave."""

from random import Random

import pytest

from atoll.base.errors import StorageError
from atoll.base.ports import Disk
from atoll.sim.disk import PowerCut, SimDisk


def disk_of(seed: int = 1, capacity_bytes: int = 1 << 20) -> SimDisk:
    return SimDisk(Random(seed), capacity_bytes)


def test_reads_see_every_write_before_any_sync() -> None:
    disk = disk_of()
    port: Disk = disk
    port.write("b", b"one")
    port.append("b", b"two")
    port.append("a", b"x")
    assert port.read("b") == b"onetwo"
    assert port.names() == ("a", "b")
    port.write("b", b"new")
    port.rename("b", "a")
    assert (port.names(), port.read("a"), disk.used_bytes()) == (("a",), b"new", 3)
    port.remove("a")
    assert port.names() == ()


@pytest.mark.parametrize("name", ["read", "sync", "remove"])
def test_what_is_not_there_is_a_storage_error(name: str) -> None:
    disk = disk_of()
    with pytest.raises(StorageError):
        getattr(disk, name)("nothing")
    with pytest.raises(StorageError):
        disk.rename("nothing", "else")


@pytest.mark.parametrize("seed", range(20))
def test_synced_content_survives_any_crash(seed: int) -> None:
    disk = disk_of(seed)
    disk.write("f", b"synced")
    disk.sync("f")
    disk.crash()
    assert disk.read("f") == b"synced"
    disk.append("f", b"+tail")
    disk.crash()
    assert disk.read("f").startswith(b"synced")
    assert disk.syncs == 1


def test_crashes_show_every_kind_of_loss() -> None:
    outcomes: set[bytes | None] = set()
    for seed in range(400):
        disk = disk_of(seed)
        disk.write("f", b"old")
        disk.sync("f")
        disk.write("f", b"newer")
        disk.append("f", b"!")
        disk.write("fresh", b"1")
        disk.crash()
        outcomes.add(disk.read("f"))
        outcomes.add(disk.read("fresh") if "fresh" in disk.names() else None)
    assert {b"old", b"", b"n", b"newe", b"newer", b"newer!", b"1", None} <= outcomes
    assert b"new\0\0" in outcomes  # The size outran the data.
    assert not any(outcome and outcome.startswith(b"old") and outcome != b"old" for outcome in outcomes)


def test_renaming_before_syncing_can_lose_both_and_after_it_neither() -> None:
    careless: set[bytes] = set()
    for seed in range(100):
        disk = disk_of(seed)
        disk.write("f", b"old")
        disk.sync("f")
        disk.write("f.new", b"new")
        disk.rename("f.new", "f")
        disk.crash()
        careless.add(disk.read("f"))
        disk.write("f.new", b"careful")
        disk.sync("f.new")
        disk.rename("f.new", "f")
        disk.crash()
        assert disk.read("f") == b"careful"
    assert b"" in careless
    assert b"old" not in careless


def test_a_full_disk_refuses_and_may_keep_a_prefix() -> None:
    disk = disk_of(capacity_bytes=10)
    disk.write("a", b"12345678")
    with pytest.raises(StorageError, match="no space"):
        disk.append("b", b"abcd")
    assert disk.read("b") == b"ab"
    with pytest.raises(StorageError):
        disk.append("a", b"9")
    disk.write("a", b"1234")  # A replacement may use the room of what it replaces.
    disk.append("b", b"cdef")
    assert disk.read("b") == b"abcdef"
    disk.capacity_bytes = 0
    with pytest.raises(StorageError):
        disk.write("a", b"z")
    assert disk.read("a") == b""


def test_the_power_goes_at_the_chosen_operation_just_before_or_after_it() -> None:
    seen: set[tuple[str, ...]] = set()
    for seed in range(20):
        disk = disk_of(seed)
        disk.cut_power_after(3)
        disk.write("a", b"1")
        disk.sync("a")
        with pytest.raises(PowerCut):
            disk.rename("a", "b")
        seen.add(disk.names())
        disk.crash()
        disk.write("c", b"2")  # A crash disarms it.
    assert seen == {("a",), ("b",)}
    disk = disk_of()
    disk.cut_power_after(1)
    disk.cut_power_after(None)
    disk.write("a", b"1")
