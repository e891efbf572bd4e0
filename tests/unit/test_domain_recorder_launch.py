# SPDX-License-Identifier: Apache-2.0
"""A recorder that starts is waited for as long as it goes on, and no longer."""

import asyncio

import pytest

from atoll.domain.recorder import launch as launch_module
from atoll.domain.recorder.launch import greeted
from atoll.domain.recorder.messages import Greeting

GREETING = Greeting(b"k" * 32, "0.1.0")


class Slow:
    """A recorder that checks a journal in each span that it is given, and at last is done or hangs."""

    def __init__(self, journals: int, *, hangs: bool = False) -> None:
        self.greeting: asyncio.Future[Greeting] = asyncio.get_running_loop().create_future()
        self._looks, self._journals, self._hangs = 0, journals, hangs

    @property
    def checked(self) -> int:
        if self._looks < self._journals:
            self._looks += 1
        elif not self._hangs and not self.greeting.done():
            self._looks += 1
            self.greeting.set_result(GREETING)
        return self._looks


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_module, "RECORDER_START_S_MAX", 0)


def test_one_with_many_journals_is_waited_for_as_long_as_it_goes_on() -> None:
    async def body() -> None:
        assert await greeted(Slow(1_000)) == GREETING

    asyncio.run(body())


def test_one_that_hangs_is_given_up() -> None:
    async def body() -> None:
        with pytest.raises(TimeoutError):
            await greeted(Slow(10, hangs=True))

    asyncio.run(body())
