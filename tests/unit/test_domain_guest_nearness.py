# SPDX-License-Identifier: Apache-2.0
"""Server and guest share a processor while one waits for the other, and not a moment longer."""

import os
import threading
from collections.abc import Generator

import pytest

from atoll.domain.guest.nearness import Here, Nearness
from atoll.domain.limits import GUEST_NEAR_ASKS

ANYWHERE = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
pytestmark = pytest.mark.skipif(len(ANYWHERE) < 2, reason="there is one processor only")


@pytest.fixture
def here() -> Generator[Here]:
    made = Here()
    yield made
    made.rest()
    assert os.sched_getaffinity(0) == ANYWHERE


@pytest.fixture
def guest() -> Generator[int]:
    """Return the id of a thread that only waits: the kernel places threads as it does processes."""
    over, ready = threading.Event(), threading.Event()
    ids: list[int] = []

    def wait() -> None:
        ids.append(threading.get_native_id())
        ready.set()
        over.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    ready.wait()
    yield ids[0]
    over.set()
    thread.join()


def test_both_are_kept_on_one_processor_until_the_server_does_something_else(here: Here, guest: int) -> None:
    nearness = Nearness(guest, here)
    nearness.stay()
    both = os.sched_getaffinity(0)
    assert len(both) == 1
    assert os.sched_getaffinity(guest) == both
    here.rest()
    assert os.sched_getaffinity(0) == ANYWHERE
    assert os.sched_getaffinity(guest) == both, "it does nothing until it is asked again"


def test_a_guest_that_takes_long_may_run_anywhere(here: Here, guest: int) -> None:
    nearness = Nearness(guest, here)
    for _ in range(2):
        nearness.stay()
        nearness.let_run()
        assert os.sched_getaffinity(guest) == os.sched_getaffinity(0) == ANYWHERE
    nearness.let_run()
    assert os.sched_getaffinity(guest) == ANYWHERE


def test_a_guest_follows_the_server_after_some_asks(here: Here, guest: int) -> None:
    nearness = Nearness(guest, here)
    nearness.stay()
    (first,) = os.sched_getaffinity(guest)
    other = min(ANYWHERE - {first})
    here.rest()
    os.sched_setaffinity(0, {other})  # It was moved there.
    here.hold()
    os.sched_setaffinity(0, {other})
    for _ in range(GUEST_NEAR_ASKS):
        nearness.stay()
        assert os.sched_getaffinity(guest) == {first}
    nearness.stay()
    assert os.sched_getaffinity(guest) == {other}


def test_a_guest_that_is_gone_is_nothing_special(here: Here) -> None:
    nearness = Nearness(2**22 + 1, here)
    nearness.stay()
    nearness.let_run()


def test_where_there_is_one_processor_nothing_is_done(guest: int) -> None:
    os.sched_setaffinity(0, {min(ANYWHERE)})
    try:
        here = Here()
        assert here.hold() == -1
        before = os.sched_getaffinity(guest)
        Nearness(guest, here).stay()
        here.rest()
        assert os.sched_getaffinity(guest) == before
        assert os.sched_getaffinity(0) == {min(ANYWHERE)}
    finally:
        os.sched_setaffinity(0, ANYWHERE)
