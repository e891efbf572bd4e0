# SPDX-License-Identifier: Apache-2.0
"""Notices that the wall clock was set back. Pure: it is given both clocks."""

from typing import Final, final

from atoll.base.units import SECOND_NS
from atoll.group.limits import INVITE_VALID_NS

__all__ = ["STEP_NS_MIN", "ClockWatch"]

STEP_NS_MIN: Final = 60 * SECOND_NS  # Less changes nothing that anybody would notice in ten minutes of validity.


@final
class ClockWatch:
    """Compares the wall clock with the monotonic one.

    The warning stands for INVITE_VALID_NS from when the step was noticed: as long as an invitation from before it may
    be open. After that nothing depends on it, and a clock that was mended must not keep a monitor red.

    Args:
        wall_ns: Wall clock now.
        now_ns: Monotonic clock now.
    """

    def __init__(self, wall_ns: int, now_ns: int) -> None:
        self._ahead_ns = wall_ns - now_ns
        self._back_ns = self._until_ns = 0

    def warning(self, wall_ns: int, now_ns: int) -> str | None:
        """Return a sentence with its code while a step back is of consequence; None: all is well."""
        ahead_ns = wall_ns - now_ns
        if self._ahead_ns - ahead_ns >= STEP_NS_MIN:
            self._back_ns, self._until_ns = self._ahead_ns - ahead_ns, now_ns + INVITE_VALID_NS
        self._ahead_ns = ahead_ns
        if now_ns >= self._until_ns:
            return None
        return _coded(
            "A107",
            f"the clock was set back by {self._back_ns // SECOND_NS} s; traffic goes on, but an invitation made before "
            "that may be refused or last longer than it says; fix: set the clock, then `atoll invite` again",
        )


def _coded(code: str, sentence: str) -> str:
    return f"{code}: {sentence}"
