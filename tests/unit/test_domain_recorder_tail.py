# SPDX-License-Identifier: Apache-2.0
"""The open end of a segment: what is laid down ahead is written over, and never more than a crash may leave."""

import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from atoll.domain.limits import AHEAD_BYTES_MAX, AHEAD_BYTES_MIN
from atoll.domain.recorder.journal import BlockJournal
from atoll.domain.recorder.messages import Code, RefusedError
from atoll.domain.recorder.tail import Tail
from atoll.env.chain import HOLED_BYTES_MAX, SECTOR_BYTES, position_after
from tests.unit.recorder_world import ENVIRONMENT, block_after, journal_in

LARGE = b"x" * (HOLED_BYTES_MAX + 1)


@contextmanager
def file_limit(size: int) -> Generator[None]:
    """Let no file be larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "segment"
    path.write_bytes(b"begin")
    return path


def test_little_is_written_into_zeros_that_are_there(path: Path) -> None:
    tail = Tail(path, 5)
    tail.write(b"one")
    assert path.read_bytes() == b"beginone" + bytes(AHEAD_BYTES_MIN)
    tail.write(b"two")
    assert path.read_bytes() == b"beginonetwo" + bytes(AHEAD_BYTES_MIN - 3), "the file has not grown"
    tail.close()


def test_more_is_laid_down_each_time_up_to_a_limit(path: Path) -> None:
    tail, size, sizes = Tail(path, 5), 5, [0]
    while len(sizes) < 8:
        tail.write(b"y" * 4000)
        size += 4000
        if path.stat().st_size > sizes[-1]:
            sizes.append(path.stat().st_size)
            assert sizes[-1] - size == min(AHEAD_BYTES_MIN << len(sizes) - 2, AHEAD_BYTES_MAX)
    assert path.read_bytes().rstrip(b"\0") == b"begin" + b"y" * (size - 5)
    tail.close()


def test_much_is_written_as_to_any_file(path: Path) -> None:
    tail = Tail(path, 5)
    tail.write(b"one")
    tail.write(LARGE)
    assert path.read_bytes() == b"beginone" + LARGE
    tail.write(LARGE)
    assert path.read_bytes() == b"beginone" + 2 * LARGE
    tail.write(b"two")
    assert path.read_bytes() == b"beginone" + 2 * LARGE + b"two" + bytes(AHEAD_BYTES_MIN), "it begins with little again"
    tail.close()


def test_who_opens_it_again_goes_on_in_the_zeros(path: Path) -> None:
    first = Tail(path, 5)
    first.write(b"one")
    first.close()
    length = path.stat().st_size
    second = Tail(path, 8)
    second.write(b"two")
    assert path.stat().st_size == length
    second.cut()
    second.cut()
    second.close()
    assert path.read_bytes() == b"beginonetwo"


def test_a_disk_without_room_for_zeros_still_takes_blocks(path: Path) -> None:
    with file_limit(300):
        tail = Tail(path, 5)
        for number in range(29):
            tail.write(b"%10d" % number)
        with pytest.raises(OSError, match="too large"):
            tail.write(b"0123456789")
        tail.close()
    assert path.read_bytes()[5:295] == b"".join(b"%10d" % number for number in range(29))


# A journal on it.


def segment(tmp_path: Path) -> Path:
    return tmp_path / ENVIRONMENT.hex() / "00000001.atb"


def wrote(tmp_path: Path, *records: bytes) -> BlockJournal:
    """Return a journal that was not closed, each block written by itself."""
    journal = journal_in(tmp_path)
    for body in records:
        journal.append(block_after(journal.position, body))
        journal.commit()
    return journal


def test_zeros_at_the_end_are_left_where_they_are_by_the_next_start(tmp_path: Path) -> None:
    before = wrote(tmp_path, b"one", b"two")
    content = segment(tmp_path).read_bytes()
    assert content.endswith(bytes(1000))
    after = journal_in(tmp_path)
    assert (after.damage, after.position) == ("", before.position)
    assert segment(tmp_path).read_bytes() == content
    after.append(block_after(after.position, b"three"))
    after.commit()
    assert segment(tmp_path).stat().st_size == len(content)
    assert journal_in(tmp_path).position == after.position


@pytest.mark.parametrize("lost", range(1, 64))
def test_a_power_cut_that_lost_some_sectors_of_a_write_loses_that_write_only(tmp_path: Path, lost: int) -> None:
    journal = wrote(tmp_path, b"one")
    before, first_lost = segment(tmp_path).read_bytes(), journal.position.number + 1
    at = journal.position
    for number in range(6):
        block = block_after(at, Random(number).randbytes(400))
        journal.append(block)
        at = position_after(at, block)
    journal.commit()
    after = bytearray(segment(tmp_path).read_bytes())
    journal.release()
    first = len(before.rstrip(b"\0")) // SECTOR_BYTES
    for bit in range(6):
        if lost >> bit & 1:
            begin = (first + bit) * SECTOR_BYTES
            after[begin : begin + SECTOR_BYTES] = before[begin : begin + SECTOR_BYTES]
    segment(tmp_path).write_bytes(after)
    again = journal_in(tmp_path)
    assert again.damage == ""
    assert first_lost <= again.position.number + 1 <= journal.position.number
    assert again.read(1, 1 << 20)
    again.append(block_after(again.position, b"goes on"))
    again.commit()


def test_a_changed_byte_before_the_zeros_is_damage(tmp_path: Path) -> None:
    wrote(tmp_path, b"one", b"two")
    content = segment(tmp_path).read_bytes()
    for place in range(0, len(content.rstrip(b"\0")), 5):
        changed = bytearray(content)
        changed[place] ^= 1
        segment(tmp_path).write_bytes(changed)
        assert "00000001.atb" in journal_in(tmp_path).damage


def test_only_the_newest_segment_ends_in_zeros(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, segment_bytes_max=1)
    for _ in range(3):
        journal.append(block_after(journal.position, b"one"))
        journal.commit()
    ends = [path.read_bytes()[-100:] == bytes(100) for path in sorted(segment(tmp_path).parent.glob("*.atb"))]
    assert ends == [False] * (len(ends) - 1) + [True]


def test_a_write_that_the_disk_refuses_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    journal = wrote(tmp_path, b"one")
    journal.close()
    whole = segment(tmp_path).read_bytes()
    journal.append(block_after(journal.position, b"two"))
    with file_limit(len(whole) + 20), pytest.raises(RefusedError) as caught:
        journal.commit()
    assert caught.value.code is Code.FULL
    assert segment(tmp_path).read_bytes() == whole
