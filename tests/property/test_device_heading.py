# SPDX-License-Identifier: Apache-2.0
"""The compiled loop over relay frames and Python's write the same headers, and stop at the same frame."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.device.nic.frame import FRAME_HEADER_BYTES, LABEL_END, Heading

KINDS = (b"\x04\0\0\0", b"\x06\0\0\0")
KEYS = st.binary(min_size=32, max_size=32)
LABELS = st.integers(0, LABEL_END - 1)

pytestmark = pytest.mark.usefixtures("compiled")


def frames_of(datagrams: list[bytes], size: int) -> bytearray:
    """Stand datagrams back to back, each but the last filled up to ``size`` with its frame's header."""
    room = bytes(FRAME_HEADER_BYTES)
    *most, last = datagrams
    return bytearray(b"".join(room + one.ljust(size - FRAME_HEADER_BYTES, b"\x5a") for one in most) + room + last)


DATAGRAMS = st.lists(st.binary(min_size=28, max_size=60), min_size=1, max_size=20)


@given(label=LABELS, key=KEYS, datagrams=DATAGRAMS, size=st.integers(84, 100))
def test_the_same_headers_are_written(label: int, key: bytes, datagrams: list[bytes], size: int) -> None:
    ours = frames_of([KINDS[0] + one for one in datagrams], size)
    theirs = bytearray(ours)
    Heading(label, key).head_all(memoryview(ours), size)
    Heading(label, key, compiled=False).head_all(memoryview(theirs), size)
    assert ours == theirs
    assert Heading(label, key, compiled=False).run(memoryview(ours), size) == len(ours)


@given(
    label=LABELS,
    key=KEYS,
    other=st.tuples(LABELS, KEYS),
    datagrams=DATAGRAMS,
    kinds=st.lists(st.sampled_from(KINDS + (KINDS[0],) * 6), min_size=20, max_size=20),
    size=st.integers(84, 100),
    broken=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 35)), max_size=2),
    cut=st.integers(0, 60),
    passes=st.booleans(),
)
def test_the_same_frames_are_taken_and_get_the_same_headers(
    label: int,
    key: bytes,
    other: tuple[int, bytes],
    datagrams: list[bytes],
    kinds: list[bytes],
    size: int,
    broken: list[tuple[int, int]],
    cut: int,
    passes: bool,
) -> None:
    ours = frames_of([kind + one for kind, one in zip(kinds, datagrams, strict=False)], size)
    Heading(label, key).head_all(memoryview(ours), size)
    for number, byte in broken:
        if number * size + byte < len(ours):
            ours[number * size + byte] ^= 0x40
    del ours[max(len(ours) - cut, FRAME_HEADER_BYTES + 16) :]
    theirs = bytearray(ours)
    ends = [
        Heading(label, key, compiled=compiled).run(
            memoryview(buffer), size, Heading(*other, compiled=compiled) if passes else None
        )
        for compiled, buffer in ((True, ours), (False, theirs))
    ]
    assert ends[0] == ends[1]
    assert ours == theirs


@pytest.mark.parametrize("step", [0, -1, 35])
def test_frames_that_cannot_stand_so_are_refused_before_a_byte_is_touched(step: int) -> None:
    buffer = bytearray(100)
    heading = Heading(1, bytes(32))
    with pytest.raises(ValueError, match="cannot stand so"):
        heading.head_all(memoryview(buffer), step)
    assert not any(buffer)


def test_the_two_forms_are_really_two() -> None:
    assert Heading(1, bytes(32)).compiled is not None
    assert Heading(1, bytes(32), compiled=False).compiled is None
