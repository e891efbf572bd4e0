# SPDX-License-Identifier: Apache-2.0
"""Once a turn, or at once."""

import asyncio
from collections.abc import Callable

from atoll.domain.turns import Turn


def during(act: Callable[[Turn, list[str]], None]) -> list[str]:
    """Return what was done during ``act`` and, after a bar, once the turn was over."""
    done: list[str] = []

    async def main() -> None:
        turn = Turn(lambda: done.append("done"))
        act(turn, done)
        done.append("|")
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    return done


def _wait(turn: Turn, _: list[str]) -> None:
    turn.later()
    turn.later()


def test_what_can_wait_is_done_once_at_the_end() -> None:
    assert during(_wait) == ["|", "done"]


def test_what_cannot_is_done_at_once_and_what_follows_at_the_end() -> None:
    def act(turn: Turn, _: list[str]) -> None:
        turn.later()
        turn.now()
        turn.now()
        turn.later()

    assert during(act) == ["done", "|", "done"]


def test_the_next_turn_begins_anew() -> None:
    done: list[int] = []

    async def main() -> None:
        turn = Turn(lambda: done.append(1))
        for expected in (1, 3, 5):
            turn.now()
            assert len(done) == expected
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(main())
