# SPDX-License-Identifier: Apache-2.0
"""When what one node hosts is to be looked at: the node has many, and what waits for orders not for all of them."""

from collections.abc import Mapping
from typing import Final, Protocol, final

__all__ = ["Dues"]


class Due(Protocol):
    """What is needed of an environment."""

    @property
    def deadline_ns(self) -> int | None:
        """When it is to be looked at, monotonic; None: it need not."""
        ...

    @property
    def wall_deadline_ns(self) -> int | None:
        """The same by the wall clock, for its own timers."""
        ...


@final
class Dues:
    """When each is due, as after its last input. State only.

    Args:
        hosted: What is here, by id; read only.
    """

    def __init__(self, hosted: Mapping[bytes, Due]) -> None:
        self._hosted: Final = hosted
        self._changed: Final[dict[bytes, None]] = {}  # Had an input since they were looked at.
        self._dues: Final[dict[bytes, int]] = {}
        self._wall_dues: Final[dict[bytes, int]] = {}

    def changed(self, identity: bytes) -> None:
        """Note that one had an input, or is not here any more."""
        self._changed[identity] = None

    @property
    def first_ns(self) -> int | None:
        """When the first is due, monotonic; None: none is."""
        self._look()
        return min(self._dues.values(), default=None)

    @property
    def first_wall_ns(self) -> int | None:
        """The same by the wall clock."""
        self._look()
        return min(self._wall_dues.values(), default=None)

    def _look(self) -> None:
        for identity in self._changed:
            hosted = self._hosted.get(identity)
            at_ns, wall_ns = (None, None) if hosted is None else (hosted.deadline_ns, hosted.wall_deadline_ns)
            for dues, due_ns in ((self._dues, at_ns), (self._wall_dues, wall_ns)):
                if due_ns is not None:
                    dues[identity] = due_ns
                else:
                    dues.pop(identity, None)
        self._changed.clear()
