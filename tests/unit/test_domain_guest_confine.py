# SPDX-License-Identifier: Apache-2.0
"""What is made ready to confine guests; that it confines them is for tests with processes."""

import os
import platform
import sys
import sysconfig

import pytest

from atoll.domain.guest.confine import Confinement, is_possible, readable


def test_it_is_possible_where_the_numbers_of_calls_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_possible() == (sys.platform == "linux" and platform.machine() in {"x86_64", "aarch64"})
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    assert not is_possible()


def test_libraries_are_readable_and_homes_are_not() -> None:
    places = readable()
    assert sysconfig.get_paths()["stdlib"] in places
    assert all(os.path.exists(place) for place in places)  # noqa: PTH110
    assert not {"/", "/etc", "/proc", "/home", "/root", "/tmp"} & set(places)


def test_what_is_made_ready_is_let_go_of() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    confinement = Confinement(readable())
    confinement.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
