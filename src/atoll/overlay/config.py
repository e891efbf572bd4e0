# SPDX-License-Identifier: Apache-2.0
"""Decides nothing: what the overlay of one node is told once, when it is built."""

from typing import Final, final

import msgspec

from atoll.base.member import RelayWill
from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.overlay.choice import WILL_METERED, WILL_NEVER, WILL_YES
from atoll.overlay.policy import DEFAULT_POLICY, Policy

__all__ = ["Config", "Paces", "will_number"]

_WILLS: Final = {RelayWill.NEVER: WILL_NEVER, RelayWill.METERED: WILL_METERED, RelayWill.YES: WILL_YES}


def will_number(will: RelayWill) -> int:
    """Return a will as the wire has it: 0 never, 1 metered, 2 yes."""
    return _WILLS[will]


@final
class Paces(msgspec.Struct, frozen=True, kw_only=True):
    """How often paths are probed; a probe is about 108 bytes on the wire.

    Attributes:
        idle_ns: A path without traffic. Halving it doubles the idle traffic (50 members: 74 kbit/s at 1 s).
        idle_relay_ns: A relay in use without traffic; its two links are probed besides.
        active_ns: The path in use while traffic flows. A cut is suspected this long, plus jitter, after it is seen.
        crowded_ns: The same for pairs beyond FAST_PAIRS_MAX.
        watch_ns: The direct path while a relay is in use and traffic flows.
        standby_ns: A relay that is kept ready.
        burst_ns: Between the questions of a burst; ``burst`` of them.
        idle_burst_ns: The same for a pair without traffic; ``idle_burst`` of them.
        active_for_ns: A pair counts as active so long after its last packet.
        review_ns: Between two looks at all candidates while traffic flows or something is wrong.
        idle_review_ns: The same without either; a faster path may be taken once a minute, so looking more often is
            in vain. ``young_review_ns``: in a pair's first minute.
    """

    idle_ns: int = SECOND_NS
    idle_relay_ns: int = 2 * SECOND_NS
    active_ns: int = 50 * MILLISECOND_NS
    crowded_ns: int = 250 * MILLISECOND_NS
    watch_ns: int = 100 * MILLISECOND_NS
    standby_ns: int = SECOND_NS
    burst_ns: int = 20 * MILLISECOND_NS
    burst: int = 32
    idle_burst_ns: int = 50 * MILLISECOND_NS
    idle_burst: int = 10
    active_for_ns: int = 2 * SECOND_NS
    review_ns: int = SECOND_NS
    idle_review_ns: int = 60 * SECOND_NS
    young_review_ns: int = 15 * SECOND_NS


@final
class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What the overlay of one node is told once.

    Attributes:
        node: Our id, 10 bytes.
        boot: Number of this life, larger than that of any former one, 0 to 2^63 - 1.
        relay: Whether we forward for others.
        relay_bytes_s: Our budget for all forwarding, bytes per second; 0: none.
        policy: The rules of the traffic's tags.
        paces: How often paths are probed.
    """

    node: bytes
    boot: int
    relay: RelayWill = RelayWill.YES
    relay_bytes_s: int = 2_500_000
    policy: Policy = DEFAULT_POLICY
    paces: Paces = Paces()
