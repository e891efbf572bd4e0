# SPDX-License-Identifier: Apache-2.0
"""When and what one environment sends again of what parties have not confirmed, so that all get their turn."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, final

from atoll.env.channel import Parcel
from atoll.env.limits import AGAIN_NS, PARTIES_MAX, RESEND_NS, RESEND_PARCELS_MAX
from atoll.env.messages import AGE_UNSAID, Refusal

__all__ = ["Resends", "doubtful_upto"]

Owed = tuple[bytes, Parcel]


def doubtful_upto(owed: Iterable[Owed], message: Refusal, age_ns: Callable[[int], int]) -> int:
    """Return the number up to which a party that has forgotten us may have taken what it is owed; 0: nothing.

    Args:
        owed: All that is not confirmed.
        message: What the party says.
        age_ns: Gives how old something is that was made at a time.
    """
    old_ns = message.age_ns or AGE_UNSAID
    doubtful = [
        parcel.first
        for to, parcel in owed
        if to == message.source and (parcel.first <= message.first or age_ns(parcel.made_ns) >= old_ns)
    ]
    return max(doubtful, default=0)


@final
class Resends:
    """The turns of parties.

    Attributes:
        deadline_ns: When what is not confirmed is to be sent again, monotonic; None: nothing was sent.
    """

    def __init__(self) -> None:
        self.deadline_ns: int | None = None
        self._turned: Final[set[bytes]] = set()  # Whose turn it was since all had one.
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

    def chosen(
        self, owed: Iterable[Owed], held: Mapping[bytes, int], confirmed: Callable[[bytes], int], party: bytes = b""
    ) -> list[Owed]:
        """Return what is sent now, of each party oldest first: RESEND_PARCELS_MAX parcels. Wait no more if all is had.

        Args:
            owed: All that is not confirmed, in an order of parties that stays.
            held: Number of the first item that has not left yet, by party.
            confirmed: Gives the number of the last item that a party has confirmed.
            party: Who asks; empty: nobody. Then those are first whose turn it was not last time.
        """
        some = [
            (to, parcel)
            for to, parcel in owed
            if (not party or to == party)
            and parcel.first < held.get(to, parcel.first + 1)
            and parcel.first + parcel.count - 1 > confirmed(to)
        ]
        if party:
            return some[:RESEND_PARCELS_MAX]
        if not some:  # What has not left yet begins the wait when it does.
            self.deadline_ns = None
        turned = self._turned
        turned.intersection_update(to for to, _ in some)  # Who has confirmed all needs no turn.
        first = [one for one in some if one[0] not in turned]
        if not first:
            turned.clear()
        chosen = (first + [one for one in some if one[0] in turned] if first else some)[:RESEND_PARCELS_MAX]
        turned.update(one[0] for one in chosen)
        return chosen

    def clear(self) -> None:
        """Wait for nothing any more."""
        self.deadline_ns = None
        self._turned.clear()
        self._asked_ns.clear()
