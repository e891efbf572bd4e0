# SPDX-License-Identifier: Apache-2.0
"""When and what one environment sends again of what parties have not confirmed, so that all get their turn."""

from collections.abc import Callable, Iterable
from typing import Final, final

from atoll.env.channel import Parcel
from atoll.env.limits import AGAIN_NS, PARTIES_MAX, RESEND_NS, RESEND_PARCELS_MAX

__all__ = ["Resends"]

Owed = tuple[bytes, Parcel]


@final
class Resends:
    """The turns of parties.

    Attributes:
        deadline_ns: When what is not confirmed is to be sent again, monotonic; None: nothing was sent.
    """

    def __init__(self) -> None:
        self.deadline_ns: int | None = None
        self._last = b""  # Whose turn it was last.
        self._asked_ns: Final[dict[bytes, int]] = {}  # When a party was last sent what it asked for.

    def sent(self, now_ns: int) -> None:
        """Note that something was sent."""
        if self.deadline_ns is None:
            self.deadline_ns = now_ns + RESEND_NS

    def is_due(self, now_ns: int) -> bool:
        """Return whether it is time, and begin to wait for the next time if it is."""
        if self.deadline_ns is None or now_ns < self.deadline_ns:
            return False
        self.deadline_ns = now_ns + RESEND_NS
        return True

    def may_ask(self, party: bytes, now_ns: int) -> bool:
        """Return whether a party that asks is sent something again, which is much more than it says to ask."""
        if now_ns < self._asked_ns.get(party, -AGAIN_NS) + AGAIN_NS // 2:
            return False
        if len(self._asked_ns) >= PARTIES_MAX:
            self._asked_ns.clear()
        self._asked_ns[party] = now_ns
        return True

    def chosen(self, owed: Iterable[Owed], is_lost: Callable[[bytes, Parcel], bool], party: bytes = b"") -> list[Owed]:
        """Return what is sent now, of each party oldest first: RESEND_PARCELS_MAX parcels.

        Args:
            owed: All that is not confirmed, in an order of parties that stays.
            is_lost: Tells whether a parcel has left, and is not confirmed yet.
            party: Who asks; empty: nobody. Then those are first whose turn it was not last time.
        """
        some = [one for one in owed if (not party or one[0] == party) and is_lost(*one)]
        if party:
            return some[:RESEND_PARCELS_MAX]
        behind = 1 + max((at for at, one in enumerate(some) if one[0] == self._last), default=-1)
        chosen = (some[behind:] + some[:behind])[:RESEND_PARCELS_MAX]
        self._last = chosen[-1][0] if chosen else b""
        return chosen

    def clear(self) -> None:
        """Wait for nothing any more."""
        self.deadline_ns = None
        self._last = b""
        self._asked_ns.clear()
