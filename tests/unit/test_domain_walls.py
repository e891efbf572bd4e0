# SPDX-License-Identifier: Apache-2.0
"""Walls around handlers: what runs too long is ended in its own frame, and what was handled outlives the process."""

import signal
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from atoll.base.units import SECOND_NS
from atoll.domain import guard
from atoll.domain.guard import AmbientError
from atoll.domain.limits import HANDLER_S_MAX, SILENT_S_MAX, TURN_S_MAX
from atoll.domain.walls import AGAIN_PERIODS, OUTSIDE, InlineWalls, deadly
from atoll.env.walls import HandlerKilled

ENVIRONMENT, PARTY = b"e" * 16, b"p" * 16


@pytest.fixture
def note(tmp_path: Path) -> Path:
    return tmp_path / "envs.running"


@pytest.fixture
def slow_walls(note: Path) -> Generator[InlineWalls]:
    """Return walls that end nothing while a test runs."""
    yield from raised(InlineWalls(note, 600))


@pytest.fixture
def walls(note: Path) -> Generator[InlineWalls]:
    yield from raised(InlineWalls(note, 0.02))


def raised(made: InlineWalls) -> Generator[InlineWalls]:
    made.raise_up()
    try:
        yield made
    finally:
        made.leave()
        made.take_down()


def loop_for_ever() -> None:
    count = 0
    while True:
        count += 1


def counted(walls: InlineWalls) -> list[int]:
    """Return a list whose only item counts the alarms from here on."""
    alarms = [0]

    def alarm(number: int, _: object) -> None:
        alarms[0] += 1
        walls._alarm(number, None)  # pyright: ignore[reportPrivateUsage]

    signal.signal(signal.SIGALRM, alarm)
    return alarms


def test_what_was_handled_is_known_to_the_next_process_and_only_if_it_was(note: Path, slow_walls: InlineWalls) -> None:
    walls = slow_walls
    assert deadly(note) is None
    walls.about(ENVIRONMENT, PARTY, 7, 3)
    assert deadly(note) is None
    walls.enter()
    guard.end(0)  # This test reads a file meanwhile.
    assert deadly(note) == (ENVIRONMENT, PARTY, 7, 3)
    walls.about(ENVIRONMENT, b"", 2, 1)
    assert deadly(note) == (ENVIRONMENT, b"", 2, 1)
    walls.leave()
    assert deadly(note) is None
    walls.enter()
    guard.end(0)
    InlineWalls(note)
    assert deadly(note) is None, "a new process begins with nothing"


def test_a_note_that_is_missing_or_short_says_nothing(note: Path) -> None:
    assert deadly(note) is None
    note.write_bytes(b"\1" + bytes(10))
    assert deadly(note) is None
    note.write_bytes(b"")
    assert deadly(note) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="nothing here is as full")
def test_walls_stand_on_a_full_disk_and_it_is_said(note: Path, caplog: pytest.LogCaptureFixture) -> None:
    note.symlink_to("/dev/full")
    walls = InlineWalls(note, 600)
    assert "No space left on device" in caplog.text
    walls.about(ENVIRONMENT, PARTY, 7, 3)
    walls.enter()
    guard.end(0)
    assert deadly(note) is None
    walls.leave()


def test_walls_stand_where_nothing_can_be_noted(note: Path, caplog: pytest.LogCaptureFixture) -> None:
    note.mkdir()
    InlineWalls(note, 600)
    assert "Is a directory" in caplog.text
    InlineWalls(note.parent / "nowhere" / "envs.running", 600)
    assert "No such file" in caplog.text


def test_the_note_of_the_process_before_is_written_over_where_it_is(note: Path) -> None:
    note.write_bytes(b"\1" * 10_000)
    before = note.stat()
    InlineWalls(note, 600)
    assert deadly(note) is None
    assert (note.stat().st_ino, note.stat().st_size) == (before.st_ino, before.st_size)  # It needs no room.


def test_a_handler_that_runs_too_long_is_ended_and_the_next_one_too(walls: InlineWalls) -> None:
    for _ in range(2):
        walls.enter()
        with pytest.raises(HandlerKilled, match=r"more than 0.01 s"):
            loop_for_ever()
        walls.leave()


def test_what_came_to_its_end_before_has_more_time_and_is_not_to_blame(note: Path, walls: InlineWalls) -> None:
    walls.enter(is_again=True)
    alarms = counted(walls)
    with pytest.raises(HandlerKilled, match=r"more than 0.03 s"):
        loop_for_ever()
    assert alarms[0] >= AGAIN_PERIODS
    guard.end(0)
    assert deadly(note) is None
    walls.leave()


def test_clean_up_that_does_not_end_is_ended_again(walls: InlineWalls) -> None:
    walls.enter(is_again=True)
    for _ in range(2):
        with pytest.raises(HandlerKilled):
            loop_for_ever()
    walls.leave()


def test_all_that_a_program_may_take_is_less_than_what_a_server_may_be_silent() -> None:
    assert (AGAIN_PERIODS + 1) * HANDLER_S_MAX / 2 < SILENT_S_MAX


def test_what_clears_up_after_a_handler_that_was_ended_is_not_ended_as_well(walls: InlineWalls) -> None:
    walls.enter()
    with pytest.raises(HandlerKilled):
        loop_for_ever()
    alarms = counted(walls)
    while alarms[0] < 4:
        pass
    walls.leave()


def test_many_short_handlers_are_never_ended(walls: InlineWalls) -> None:
    alarms = counted(walls)
    while alarms[0] < 5:
        walls.enter()
        walls.leave()


def test_a_handler_cannot_look_at_the_world_and_nobody_else_notices(slow_walls: InlineWalls) -> None:
    walls = slow_walls
    walls.enter()
    with pytest.raises(AmbientError):
        time.time()
    walls.leave()
    walls.leave()
    assert time.time() > 0


def test_walls_that_are_taken_down_see_nothing(note: Path) -> None:
    made = InlineWalls(note, 0.02)
    made.raise_up()
    made.take_down()
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with guard.watching():
        assert time.time() > 0


def test_a_turn_is_over_after_a_while_whoever_runs_the_handlers(slow_walls: InlineWalls) -> None:
    for walls in (slow_walls, OUTSIDE):
        assert not walls.is_late(time.monotonic_ns() + 1_000 * SECOND_NS), "it has just begun, and the computer is slow"
        assert walls.is_late(time.monotonic_ns() - round(TURN_S_MAX * SECOND_NS))


def test_around_a_place_with_walls_of_its_own_nothing_else_stands(note: Path) -> None:
    OUTSIDE.enter(is_again=True)
    OUTSIDE.about(ENVIRONMENT, PARTY, 1, 1)
    OUTSIDE.leave()
    assert not note.exists()
