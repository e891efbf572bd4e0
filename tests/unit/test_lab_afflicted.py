# SPDX-License-Identifier: Apache-2.0
"""A call of the operating system takes as many times as long as the switch says at that moment."""

from pathlib import Path

import pytest

from atoll.base.units import SECOND_NS
from atoll.lab import afflicted
from atoll.lab.afflicted import LEAST_NS, SWITCH_NAME, TOOK_NS_MAX, set_factor, slowed


class Disk:
    """A clock and a disk on it: each call takes ``took_ns``, and a sleep what it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns, self.took_ns = 0, LEAST_NS // 10
        self.synced: list[int] = []
        monkeypatch.setattr(afflicted, "monotonic_ns", lambda: self.now_ns)
        monkeypatch.setattr(afflicted, "sleep", self.sleep)

    def sleep(self, for_s: float) -> None:
        self.now_ns += round(for_s * SECOND_NS)

    def sync(self, descriptor: int) -> None:
        self.synced.append(descriptor)
        self.now_ns += self.took_ns


def times(disk: Disk, switch: Path) -> int:
    before_ns = disk.now_ns
    slowed(disk.sync, switch)(7)
    return disk.now_ns - before_ns


def test_the_switch_is_looked_at_on_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, switch = Disk(monkeypatch), tmp_path / SWITCH_NAME
    assert times(disk, switch) == disk.took_ns
    set_factor(tmp_path, 3)
    assert times(disk, switch) == 3 * LEAST_NS, "what is quicker than the least counts as that"
    disk.took_ns = 4 * LEAST_NS
    assert times(disk, switch) == 3 * disk.took_ns
    set_factor(tmp_path, 0)
    assert times(disk, switch) == disk.took_ns
    set_factor(tmp_path, 0)
    assert disk.synced == [7] * 4
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("said", ["", "many", "-5", "0"])
def test_a_switch_that_says_nothing_changes_nothing(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, switch = Disk(monkeypatch), tmp_path / SWITCH_NAME
    switch.write_text(said, encoding="ascii")
    assert times(disk, switch) == disk.took_ns


def test_no_call_takes_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    set_factor(tmp_path, 10**9)
    assert times(disk, tmp_path / SWITCH_NAME) == disk.took_ns + TOOK_NS_MAX
