# SPDX-License-Identifier: Apache-2.0
"""Open files are served when they are ready, with epoll and without."""

import os
import select
import signal
from collections.abc import Iterator
from functools import partial
from types import FrameType

import pytest

from atoll.base.units import SECOND_NS
from atoll.host.poller import READ, WRITE, Poller

pytestmark = pytest.mark.process

SOON_NS = 5 * SECOND_NS


@pytest.fixture(params=["epoll", "selectors", "compiled"])
def poller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Poller]:
    if request.param == "selectors":
        monkeypatch.delattr(select, "epoll")
    if request.param == "compiled":
        request.getfixturevalue("compiled")
    made = Poller(compiled=request.param == "compiled")
    yield made
    made.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue  # The test closed it.


def served(poller: Poller, timeout_ns: int = SOON_NS) -> int:
    ready = poller.wait(timeout_ns)
    for fd, found in ready:
        poller.serve(fd, found)
    return len(ready)


def read_one(fd: int, told: list[int], _: int) -> None:
    told.append(os.read(fd, 1)[0])


def test_a_file_is_served_when_it_is_ready(poller: Poller, pipe: tuple[int, int]) -> None:
    told: list[int] = []
    poller.register(pipe[0], told.append)
    assert served(poller, 0) == 0
    os.write(pipe[1], b"x")
    assert served(poller) == 1
    assert told == [READ]


def test_what_is_watched_for_can_be_changed(poller: Poller, pipe: tuple[int, int]) -> None:
    told: list[int] = []
    poller.register(pipe[1], told.append)
    assert served(poller, 0) == 0
    poller.modify(pipe[1], READ | WRITE)
    assert served(poller) == 1
    assert told == [WRITE]


def test_a_file_in_trouble_is_ready(poller: Poller, pipe: tuple[int, int]) -> None:
    told: list[int] = []
    poller.register(pipe[0], told.append)
    os.close(pipe[1])
    assert served(poller) == 1
    assert told[0] & READ, "the read will say that it ended"


def test_a_signal_is_handled_while_it_waits(poller: Poller, pipe: tuple[int, int]) -> None:
    told: list[int] = []
    poller.register(pipe[0], told.append)

    def write(number: int, frame: FrameType | None) -> None:
        os.write(pipe[1], b"x")

    before = signal.signal(signal.SIGALRM, write)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        served(poller)
        served(poller)  # The compiled way comes back with what is ready, which may be nothing yet.
    finally:
        signal.signal(signal.SIGALRM, before)
    assert told[0] == READ


def test_many_are_served_in_turn(poller: Poller) -> None:
    told: list[int] = []
    pairs = [os.pipe() for _ in range(40)]
    for read_end, write_end in pairs:
        poller.register(read_end, partial(read_one, read_end, told))
        os.write(write_end, b"x")
    for _ in pairs:
        served(poller, 0)
    assert len(told) == len(pairs)
    for fd in (fd for both in pairs for fd in both):
        os.close(fd)


def test_who_is_watched_no_longer_is_not_served_in_the_same_turn(poller: Poller, pipe: tuple[int, int]) -> None:
    told: list[int] = []
    poller.register(pipe[0], told.append)
    os.write(pipe[1], b"x")
    ready = poller.wait(SOON_NS)
    poller.unregister(pipe[0])
    for fd, found in ready:
        poller.serve(fd, found)
    assert (len(ready), told) == (1, [])
    assert served(poller, 0) == 0
