# SPDX-License-Identifier: Apache-2.0
"""Records go to who is ready; what a consumer leaves behind goes to the others."""

import asyncio
from collections import Counter

import pytest

from atoll.adapt import DistributedQueue
from atoll.base.errors import UsageError

SEED = b"queue"


def test_a_slow_consumer_gets_less_and_every_record_is_handed_out_once() -> None:
    async def run() -> tuple[Counter[str], list[int]]:
        queue: DistributedQueue[int] = DistributedQueue(seed=SEED)
        share: Counter[str] = Counter()
        got: list[int] = []

        async def consume(name: str, work_s: float) -> None:
            async with queue.consumer() as records:
                async for record in records:
                    share[name] += 1
                    got.append(record)
                    await asyncio.sleep(work_s)

        async with asyncio.TaskGroup() as tasks:
            for name, work_s in (("slow", 0.02), ("one", 0.001), ("two", 0.001)):
                tasks.create_task(consume(name, work_s))
            for number in range(300):
                await queue.put(number)
            await queue.close()
        return share, got

    share, got = asyncio.run(run())
    assert sorted(got) == list(range(300))
    assert share["slow"] * 4 < min(share["one"], share["two"])


def test_what_a_consumer_did_not_finish_goes_to_another() -> None:
    async def run() -> list[int]:
        queue: DistributedQueue[int] = DistributedQueue(credit=3, seed=SEED)
        got: list[int] = []

        async def fail() -> None:
            async with queue.consumer() as records:
                async for _ in records:
                    raise KeyError

        async def consume() -> None:
            async with queue.consumer() as records:
                got.extend([record async for record in records])

        failing = asyncio.create_task(fail())
        await asyncio.sleep(0)
        for number in range(3):
            await queue.put(number)
        with pytest.raises(KeyError):
            await failing
        consuming = asyncio.create_task(consume())
        await queue.close()
        await consuming
        return sorted(got)

    assert asyncio.run(run()) == [0, 1, 2]


def test_a_producer_waits_for_who_is_ready() -> None:
    async def run() -> None:
        queue: DistributedQueue[int] = DistributedQueue(credit=2, seed=SEED)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(queue.put(1), 0.01)
        async with queue.consumer() as records:
            await queue.put(1)
            await queue.put(2)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(queue.put(3), 0.01)
            assert await anext(records) in {1, 2}

    asyncio.run(run())


def test_a_closed_queue_takes_nothing() -> None:
    async def run() -> None:
        queue: DistributedQueue[int] = DistributedQueue(seed=SEED)
        await queue.close()
        with pytest.raises(UsageError):
            await queue.put(1)

    asyncio.run(run())
