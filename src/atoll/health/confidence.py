# SPDX-License-Identifier: Apache-2.0
"""How sure it is that a component is slower than it should be: 0 to 100, from what speaks against it.

Three tests may speak, each with a reference of its own: the component's past, its declared specification, its peers.
Each has a *strength*: how many of the newest eight answers are beyond what the test allows, of which more than half
make it speak at all; never more than 99. That of the past is scaled by n / (n + 32) for n samples, that of the peers by
n / (n + 1) for n of them: a reference that few have made is a poor one. A broken quantile is as strong as x / (x + s)
of its excess x of answers and the deviation s that their allowed number has by chance. Together they are as sure as
that not all of them are wrong: 1 - (1 - a)(1 - b)(1 - c).

*How far* beyond they are does not count. It would seem to: but of the alarms on labelled telemetry (bench/health.py)
those that lay more than twice as far out as the limit were true less often than the others, and those of which a second
sample of eight was outside twice as often as those of which none was (63 and 29 %).

It is a rank, not a probability. The references are independent of each other and the newest samples are the same, so
it says too much where those were unlucky.
"""

from collections.abc import Iterable
from typing import Final

__all__ = ["STRENGTH_MAX", "combined", "strength"]

STRENGTH_MAX: Final = 99


def strength(beyond: int, of: int) -> int:
    """Return how strongly a test speaks that so many of the newest are beyond: 0 to STRENGTH_MAX."""
    return min(STRENGTH_MAX, 100 * beyond // of)


def combined(strengths: Iterable[int]) -> int:
    """Return how sure it is that not all of these are wrong, 0 to 99; of none 0."""
    wrong, whole = 1, 1
    for one in strengths:
        wrong, whole = wrong * (100 - one), whole * 100
    return 100 - -(-100 * wrong // whole)
