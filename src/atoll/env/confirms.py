# SPDX-License-Identifier: Apache-2.0
"""What parties have confirmed and one environment was not told yet: it hears of many confirmations at once."""

from typing import Final, final

from atoll.env.limits import CONFIRM_ITEMS, CONFIRM_NS
from atoll.env.records import Confirmed

__all__ = ["Confirms"]


@final
class Confirms:
    """Confirmations that wait to be recorded.

    Attributes:
        deadline_ns: When ``due`` is owed, monotonic; None: nothing waits.
    """

    def __init__(self) -> None:
        self._upto: Final[dict[bytes, int]] = {}
        self.deadline_ns: int | None = None

    def upto(self, party: bytes) -> int:
        """Return up to which item a party has confirmed, as far as that waits here."""
        return self._upto.get(party, 0)

    def heard(self, party: bytes, upto: int, confirmed: int, now_ns: int) -> None:
        """Take a confirmation. That of many items waits for no other.

        Args:
            party: Whose.
            upto: Number of the last item that it has.
            confirmed: The same, as the environment knows it.
            now_ns: Monotonic.
        """
        if upto <= confirmed:
            return
        upto = self._upto[party] = max(upto, self._upto.get(party, 0))
        at_ns = now_ns if upto - confirmed >= CONFIRM_ITEMS else now_ns + CONFIRM_NS
        self.deadline_ns = at_ns if self.deadline_ns is None else min(self.deadline_ns, at_ns)

    def due(self, now_ns: int) -> list[Confirmed]:
        """Take all that waits, if it is time."""
        if self.deadline_ns is None or now_ns < self.deadline_ns:
            return []
        told = [Confirmed(party, upto) for party, upto in self._upto.items()]
        self.clear()
        return told

    def clear(self) -> None:
        """Forget what waits; who confirmed it is sent it again, and says so again."""
        self._upto.clear()
        self.deadline_ns = None
