# SPDX-License-Identifier: Apache-2.0
"""Open files are served when they are ready, with epoll and without."""

import os
import select
from collections.abc import Iterator

import pytest

from atoll.host.poller import READ, WRITE, Poller

pytestmark = pytest.mark.process

SOON_S = 5.0


@pytest.fixture(params=["epoll", "selectors"])
def poller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Poller]:
    if request.param == "selectors":
        monkeypatch.delattr(select, "epoll")
    made = Poller()
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


def served(poller: Poller, timeout_s: float = SOON_S) -> int:
    ready = poller.wait(timeout_s)
    for fd, found in ready:
        poller.serve(fd, found)
    return len(ready)


def test_a_file_is_served_when_it_is_ready(poller: Poller, pipe: tuple[int, int]) -> None:
    told: list[int] = []
    poller.register(pipe[0], told.append)
    assert served(poller, 0.0) == 0
    os.write(pipe[1], b"x")
    assert served(poller) == 1
    assert told == [READ]


def test_what_is_watched_for_can_be_changed(poller: Poller, pipe: tuple[int, int]) -> None:
    told: list[int] = []
    poller.register(pipe[1], told.append)
    assert served(poller, 0.0) == 0
    poller.modify(pipe[1], READ | WRITE)
    assert served(poller) == 1
    assert told == [WRITE]


def test_a_file_in_trouble_is_ready(poller: Poller, pipe: tuple[int, int]) -> None:
    told: list[int] = []
    poller.register(pipe[0], told.append)
    os.close(pipe[1])
    assert served(poller) == 1
    assert told[0] & READ, "the read will say that it ended"


def test_who_is_watched_no_longer_is_not_served_in_the_same_turn(poller: Poller, pipe: tuple[int, int]) -> None:
    told: list[int] = []
    poller.register(pipe[0], told.append)
    os.write(pipe[1], b"x")
    ready = poller.wait(SOON_S)
    poller.unregister(pipe[0])
    for fd, found in ready:
        poller.serve(fd, found)
    assert (len(ready), told) == (1, [])
    assert served(poller, 0.0) == 0
