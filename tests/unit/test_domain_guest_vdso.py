# SPDX-License-Identifier: Apache-2.0
"""The functions of the kernel's library are found in it, and nowhere in rubbish."""

import ctypes
import platform
from pathlib import Path
from random import Random

import pytest

from atoll.domain.guest.vdso import STUBS, functions_of, stop_clock


def _image() -> bytes:
    for line in Path("/proc/self/maps").read_text("utf-8").splitlines():
        if line.endswith("[vdso]"):
            start, end = (int(part, 16) for part in line.partition(" ")[0].split("-"))
            return ctypes.string_at(start, end - start)
    return b""


on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the stubs are x86_64's")


@on_x86
def test_functions_are_found_inside_the_image() -> None:
    image = _image()
    found = functions_of(image)
    assert {"__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time"} <= found.keys()
    assert all(0 < found[name] < len(image) - len(stub) for name, stub in STUBS.items() if name in found)


def test_elsewhere_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not stop_clock()


@pytest.mark.parametrize("image", [b"", b"\x7fELF\x02\x01", b"\x7fELF\x01\x01" + bytes(200), bytes(4096)])
def test_what_is_no_library_has_no_functions(image: bytes) -> None:
    assert functions_of(image) == {}


@on_x86
def test_a_library_that_is_broken_raises_nothing() -> None:
    image, rng = _image(), Random(5)
    for _ in range(300):
        changed = bytearray(image)
        for _ in range(3):
            changed[rng.randrange(64) if rng.random() < 0.5 else rng.randrange(len(image))] = rng.randrange(256)
        functions_of(bytes(changed[: rng.randrange(len(image))] if rng.random() < 0.3 else changed))
