# SPDX-License-Identifier: Apache-2.0
"""A component against its peers: what takes twice as long as the median of those that should be alike is slow.

The Tail at Store compares each disk's latency over an hour with the median of its RAID group and calls it slow from a
ratio of 2; Lu and others (ATC 2022) do the same over 15 seconds with at least eleven peers. The median is blind when
half of a group is slow; at the 30th percentile, which IASO takes of what a node's peers say of it, seven of ten may
be, and the quick ones still show it. IASO's scores of time-outs (additive increase, multiplicative decrease) and DBSCAN
over them are not here: we have latencies.

Source: Hao and others, The Tail at Store, FAST 2016; Panda and others, IASO, ATC 2019.
"""

from collections.abc import Collection, Mapping
from typing import Final, final

from atoll.base.errors import UsageError
from atoll.health.levels import OCTAVE

__all__ = ["IASO_SHARE", "MEDIAN", "PEERS_MIN", "PEER_RATIO", "PeerRatio", "reference"]

PEER_RATIO: Final = OCTAVE  # Levels: twice. The Tail at Store.
MEDIAN: Final = 50
IASO_SHARE: Final = 30
PEERS_MIN: Final = 3  # Ours. Fewer others say nothing of what is usual.


def reference(levels: Collection[int], share: int = MEDIAN) -> int:
    """Return the level that so many hundredths of these (at least one) are at or below."""
    return sorted(levels)[len(levels) * share // 100]


@final
class PeerRatio:
    """Components of one kind, which should be alike.

    Args:
        share: Which of them is the measure, in hundredths from the quickest: MEDIAN, or IASO_SHARE.
        ratio: How much slower than that is slow, in levels.

    Raises:
        UsageError: One of them is no good.
    """

    def __init__(self, share: int = MEDIAN, ratio: int = PEER_RATIO) -> None:
        if not 0 <= share <= MEDIAN or ratio < 1:
            raise UsageError(f"the {share}th of 100 peers, {ratio} levels: give 0 to {MEDIAN}, and at least 1")
        self._share, self._ratio = share, ratio

    def observe(self, levels: Mapping[str, int]) -> list[tuple[str, int]]:
        """Compare them as they are now; return who is slow and by how many levels, the worst first, then by name.

        Args:
            levels: Of the latency of each, over the same span (levels.py). Of fewer than PEERS_MIN + 1, none is slow.
        """
        if len(levels) <= PEERS_MIN:
            return []
        usual = reference(levels.values(), self._share)
        slow = [(name, level - usual) for name, level in levels.items() if level - usual >= self._ratio]
        return sorted(slow, key=lambda one: (-one[1], one[0]))
