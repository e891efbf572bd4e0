# SPDX-License-Identifier: Apache-2.0
"""Notices that the wall clock was set. Pure: it is given both clocks."""

from typing import Final, final

from atoll.base.units import SECOND_NS
from atoll.group.limits import INVITE_VALID_NS

__all__ = ["STEP_NS_MIN", "TOLD_NS_MIN", "ClockWatch"]

TOLD_NS_MIN: Final = SECOND_NS  # Less is what a machine's clock is steered by.
STEP_NS_MIN: Final = 60 * SECOND_NS  # Less changes nothing that anybody would notice in ten minutes of validity.


@final
class ClockWatch:
    """Compares the wall clock with the monotonic one.

    The warning stands for INVITE_VALID_NS from when the step was noticed: as long as an invitation from before it may
    be open. After that nothing depends on it, and a clock that was mended must not keep a monitor red.

    A clock that was set by a second or more, either way, is told for as long to whoever asks why something is slow or
    breaks: certificates, tokens and time-outs of programs depend on it.

    Args:
        wall_ns: Wall clock now.
        now_ns: Monotonic clock now.
    """

    def __init__(self, wall_ns: int, now_ns: int) -> None:
        self._ahead_ns = wall_ns - now_ns
        self._back_ns = self._until_ns = 0
        self._set_ns = self._set_until_ns = 0

    def look(self, wall_ns: int, now_ns: int) -> None:
        """Compare the clocks; once a second or so."""
        ahead_ns = wall_ns - now_ns
        moved_ns = ahead_ns - self._ahead_ns
        if -moved_ns >= STEP_NS_MIN:
            self._back_ns, self._until_ns = -moved_ns, now_ns + INVITE_VALID_NS
        if abs(moved_ns) >= TOLD_NS_MIN:
            self._set_ns, self._set_until_ns = moved_ns, now_ns + INVITE_VALID_NS
        self._ahead_ns = ahead_ns

    def stepped_s(self, now_ns: int) -> int:
        """Return by how much the wall clock was set lately, seconds, negative for back; 0: it was not."""
        if now_ns >= self._set_until_ns:
            return 0
        sign = 1 if self._set_ns >= 0 else -1
        return sign * (abs(self._set_ns) // SECOND_NS)

    def warning(self, now_ns: int) -> str | None:
        """Return a sentence with its code while a step back is of consequence; None: all is well."""
        if now_ns >= self._until_ns:
            return None
        return _coded(
            "A107",
            f"the clock was set back by {self._back_ns // SECOND_NS} s; traffic goes on, but an invitation made before "
            "that may be refused or last longer than it says; fix: set the clock, then `atoll invite` again",
        )


def _coded(code: str, sentence: str) -> str:
    return f"{code}: {sentence}"
