# SPDX-License-Identifier: Apache-2.0
"""What a detector says of one component: the word that all of them share."""

from enum import StrEnum

__all__ = ["Verdict"]


class Verdict(StrEnum):
    """Of one component, now."""

    NOTHING = "nothing"  # Too little is known.
    WELL = "well"
    BUSY = "busy"  # Later than usual, and the load explains it.
    SLOW = "slow"
