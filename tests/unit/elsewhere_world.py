# SPDX-License-Identifier: Apache-2.0
"""A place that answers later: what the tests of runners have where handlers run elsewhere."""

from typing import Any

from atoll.env.app import App, program_of
from atoll.env.environment import Environment
from atoll.env.places import HandlerFailedError, UnansweredError
from atoll.env.records import Arrived, Record


class Slow:
    """An environment that says for a while that its handler still runs."""

    def __init__(self, place: "Elsewhere", inner: Environment) -> None:
        self._place, self._inner = place, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def handle(self, record: Record, now_ns: int) -> Any:
        outcome: Any
        try:
            if self._place.failures and isinstance(record, Arrived) and record.first == self._place.fails_at:
                raise self._place.failures.pop(0)
            outcome = self._inner.handle(record, now_ns)
        except Exception as error:  # noqa: BLE001 -- it is handed on.
            outcome = error
        self._place.outcome, self._place.polls = outcome, self._place.slowness
        return self._place.answered()


class Elsewhere:
    """A place that answers later, and fails as a test says.

    Args:
        app: The application.
        slowness: How often it says that it is not done.
    """

    name = "Actor"
    walls = None

    def __init__(self, app: type[App], slowness: int) -> None:
        self._program, self.slowness = program_of(app), slowness
        self.failures: list[HandlerFailedError] = []
        self.fails_at = 1
        self.outcome: Any = ()
        self.polls = 0
        self.unmade = 0  # How often it says that it has not made one again.
        self.is_closed = False

    def blank(self) -> Any:
        return Slow(self, Environment.blank(self._program))

    def restore(self, snapshot: bytes) -> Any:
        return Slow(self, Environment.restore(self._program, snapshot))

    def remake(self, snapshot: bytes | None) -> Any:
        self.unmade -= 1
        if self.unmade >= 0:
            raise UnansweredError
        return self.blank() if snapshot is None else self.restore(snapshot)

    def answered(self) -> Any:
        self.polls -= 1
        if self.polls >= 0:
            raise UnansweredError
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def close(self) -> None:
        self.is_closed = True
