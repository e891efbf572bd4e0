# SPDX-License-Identifier: Apache-2.0
"""Who is asked twice, who is cancelled, and that a slow service is not asked twice as much."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from atoll.adapt import Hedge


def service(delay_s: float, answer: str, log: list[str]) -> Callable[[], Awaitable[str]]:
    async def ask() -> str:
        log.append(f"{answer} asked")
        try:
            await asyncio.sleep(delay_s)
        except asyncio.CancelledError:
            log.append(f"{answer} cancelled")
            raise
        if answer.startswith("bad"):
            raise ValueError(answer)
        return answer

    return ask


async def warmed(hedge: Hedge[str]) -> None:
    for _ in range(20):
        await hedge.ask([service(0.001, "warm", [])])


def test_a_late_answer_is_asked_for_elsewhere_and_the_first_counts() -> None:
    async def run() -> None:
        hedge: Hedge[str] = Hedge()
        await warmed(hedge)
        log: list[str] = []
        assert await hedge.ask([service(30, "slow", log), service(0, "quick", log)]) == "quick"
        assert log == ["slow asked", "quick asked", "slow cancelled"]
        assert hedge.asked_twice == 1

    asyncio.run(run())


def test_an_answer_in_time_is_asked_for_once() -> None:
    async def run() -> None:
        hedge: Hedge[str] = Hedge()
        log: list[str] = []
        for _ in range(20):
            await hedge.ask([service(0.02, "usual", log), service(0, "other", log)])
        log.clear()
        assert await hedge.ask([service(0, "usual", log), service(0, "other", log)]) == "usual"
        assert log == ["usual asked"]

    asyncio.run(run())


def test_a_service_that_is_slow_for_everybody_is_not_asked_twice_as_much() -> None:
    async def run() -> None:
        hedge: Hedge[str] = Hedge(extra_share=0.05)
        await warmed(hedge)
        services = [service(0.02, "slow", []), service(0.02, "slow too", [])]
        for _ in range(100):
            await hedge.ask(services)
        assert hedge.asked_twice <= 4 + 0.05 * 120 + 1

    asyncio.run(run())


def test_a_failure_is_asked_for_elsewhere_at_once_and_the_last_error_is_told() -> None:
    async def run() -> None:
        hedge: Hedge[str] = Hedge()
        assert await hedge.ask([service(0, "bad", []), service(0, "good", [])]) == "good"
        assert hedge.asked_twice == 0
        with pytest.raises(ValueError, match="bad too"):
            await hedge.ask([service(0, "bad", []), service(0, "bad too", [])])

    asyncio.run(run())


def test_who_gives_up_waiting_leaves_nothing_running() -> None:
    async def run() -> None:
        hedge: Hedge[str] = Hedge()
        log: list[str] = []
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(hedge.ask([service(30, "slow", log)]), 0.01)
        assert log == ["slow asked", "slow cancelled"]

    asyncio.run(run())
