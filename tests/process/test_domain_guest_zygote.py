# SPDX-License-Identifier: Apache-2.0
"""The process that guests are forked from dies, stops or comes late, and nobody is told of another guest than his."""

import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from atoll.base.errors import LinkError, UserError
from atoll.domain.guest.confine import is_possible
from atoll.domain.guest.guests import Guests
from atoll.domain.guest.launch import GuestProcess, Zygote
from atoll.domain.loading import Bundle

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not is_possible(), reason="guests need Linux on x86_64 or aarch64"),
]

WAIT_S = 30.0
SHORT_S = 1.0  # So long the server waits for a zygote that is stopped.
GOOD = Bundle(1, "m", "App", {"m": "import atoll\nclass App(atoll.App):\n    n: int = 0\n"}).encode()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Generator[Zygote]:
    """Return a zygote that is ready, and whose answers are waited for a short time only."""
    monkeypatch.setattr("atoll.domain.guest.launch.GUEST_START_S_MAX", SHORT_S)
    made, until = Zygote(), time.monotonic() + WAIT_S
    while not made.is_ready():
        assert time.monotonic() < until, "it never starts"
        os.sched_yield()
    yield made
    made.close()


def children(zygote: Zygote) -> list[int]:
    return [int(one) for one in Path(f"/proc/{zygote.pid}/task/{zygote.pid}/children").read_text("utf-8").split()]


def alive(guest: GuestProcess) -> bool:
    """Tell whether a guest's descriptor is that of its process, which runs."""
    pid = Path(f"/proc/self/fdinfo/{guest.pidfd}").read_text("utf-8").partition("Pid:")[2].split()[0]
    return int(pid) == guest.pid


def test_a_guest_whose_fork_was_given_up_is_ended_and_taken_for_no_other(hasty: Zygote) -> None:
    first = hasty.fork()
    os.kill(hasty.pid, signal.SIGSTOP)
    for _ in range(2):
        with pytest.raises(LinkError, match="does not answer"):
            hasty.fork()
    os.kill(hasty.pid, signal.SIGCONT)
    second = hasty.fork()
    assert alive(first)
    assert alive(second)
    assert sorted(children(hasty)) == sorted((first.pid, second.pid))
    assert first.close() == second.close() == signal.SIGKILL
    assert children(hasty) == []


def test_a_late_word_of_a_guest_that_was_buried_is_taken_for_no_other(hasty: Zygote) -> None:
    first, second = hasty.fork(), hasty.fork()
    os.kill(hasty.pid, signal.SIGSTOP)
    assert first.close() == signal.SIGKILL
    os.kill(hasty.pid, signal.SIGCONT)
    third = hasty.fork()
    assert alive(third)
    assert sorted(children(hasty)) == sorted((second.pid, third.pid))
    for guest in (second, third):
        assert guest.close() == signal.SIGKILL


def test_a_guest_that_the_server_has_no_descriptor_for_is_ended(zygote: Zygote) -> None:
    zygote.fork().close()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = [os.dup(0) for _ in range(3)]  # Memory, what maps it, and the bell.
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(room) + 1, limits[1]))
    for file in room:
        os.close(file)
    try:
        with pytest.raises(LinkError, match="no descriptor"):
            zygote.fork()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert children(zygote) == []
    guest = zygote.fork()
    assert alive(guest)
    guest.close()


def test_guests_of_a_zygote_that_died_are_not_looked_for_in_the_next_one(zygote: Zygote) -> None:
    old = [zygote.fork() for _ in range(3)]
    os.kill(zygote.pid, signal.SIGKILL)
    new = zygote.fork()
    pid = zygote.pid
    for guest in old:
        assert guest.close() == signal.SIGKILL
    assert alive(new)
    another = zygote.fork()
    assert zygote.pid == pid
    zygote.close()
    for guest in (new, another):
        assert guest.close() == signal.SIGKILL


def test_a_zygote_that_dies_while_it_starts_is_replaced_by_the_next_attempt() -> None:
    async def test() -> None:
        guests = Guests()
        assert not guests.zygote.is_ready()
        os.kill(guests.zygote.pid, signal.SIGKILL)
        with pytest.raises(UserError) as raised:
            await guests.place(GOOD)
        assert raised.value.code == "A613"
        place = await guests.place(GOOD)
        place.close()
        guests.close()

    asyncio.run(test())


def test_a_zygote_that_dies_while_a_guest_is_waited_for_is_replaced(zygote: Zygote) -> None:
    assert not zygote.is_ready()
    os.kill(zygote.pid, signal.SIGKILL)
    guest = zygote.fork()
    assert alive(guest)
    guest.close()


def test_a_zygote_that_cannot_be_started_is_said(zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> None:
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with monkeypatch.context() as context:
        context.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(LinkError, match="No such file"):
            zygote.is_ready()
    assert len(os.listdir("/proc/self/fd")) == files  # noqa: PTH208
    zygote.fork().close()
