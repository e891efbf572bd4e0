# SPDX-License-Identifier: Apache-2.0
"""How much an observer doubts itself: whoever is late itself measures others as late, and must not accuse them.

A score from 0 to 8, as in Lifeguard: each turn of the observer's own loop that began late adds one, each one in time
takes one. An observer with a score of 2 and more gives no evidence.

Source: Dadgar, Phillips and Currey, Lifeguard: Local Health Awareness for More Accurate Failure Detection, DSN 2018
workshops, section 3.1.
"""

from typing import Final, final

from atoll.base.units import MILLISECOND_NS

__all__ = ["DOUBT_MAX", "Doubt"]

DOUBT_MAX: Final = 8  # S of the paper.
LATE_NS: Final = 50 * MILLISECOND_NS  # A turn that begins so late was not run: the machine or the program is busy.
DOUBTFUL: Final = 2  # One late turn happens.


@final
class Doubt:
    """One observer's.

    Attributes:
        score: 0 to DOUBT_MAX.
    """

    def __init__(self) -> None:
        self.score = 0

    def turned(self, late_ns: int) -> None:
        """Note that a turn of the loop began so much after it was due."""
        if late_ns > LATE_NS:
            self.score = min(DOUBT_MAX, self.score + 1)
        elif self.score:
            self.score -= 1

    @property
    def is_doubtful(self) -> bool:
        """Whether what is measured now is no evidence."""
        return self.score >= DOUBTFUL
