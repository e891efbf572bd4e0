# SPDX-License-Identifier: Apache-2.0
"""Every error of the product, split by what the handler does about it.

``UsageError`` is a bug of the caller: let it end the task. ``PeerError`` is the other side's fault: count it, drop the
input, go on. ``LimitError``, ``LinkError`` and ``StorageError`` come from the world: refuse the one operation and say
why. ``UserError`` is for a person: it carries a catalogue code, the evidence and the command that fixes it
(``base/problems.py``). Foreign exceptions are mapped to these once, in the rooms that do I/O.
"""

from typing import Final, final

__all__ = [
    "CorruptError",
    "DivergenceError",
    "LimitError",
    "LinkError",
    "PeerError",
    "ProjectError",
    "StorageError",
    "UsageError",
    "UserError",
    "WireError",
]


class ProjectError(Exception):
    """Root of all errors that this product raises on purpose."""


class UsageError(ProjectError):
    """The caller broke a documented rule. A bug in our own code, never in a peer's bytes."""


class PeerError(ProjectError):
    """A peer or a stranger sent something wrong. The input is dropped and counted."""


class WireError(PeerError):
    """Bytes that do not decode to a known, bounded message.

    Args:
        reason: Few words, stable, no peer bytes in it (it is used as a counter's label).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason: Final = reason


class LimitError(ProjectError):
    """A named limit was reached; the one operation is refused and nothing else changes.

    Args:
        limit: Name of the limit, as in ``limits.py``.
        bound: Its value.
    """

    def __init__(self, limit: str, bound: int) -> None:
        super().__init__(limit, bound)
        self.limit: Final = limit
        self.bound: Final = bound

    def __str__(self) -> str:
        return f"{self.limit} is {self.bound}"


class LinkError(ProjectError):
    """A socket or a helper process failed; the supervisor retries or restarts it."""


class StorageError(ProjectError):
    """The disk refused: full, read-only, no permission."""


class CorruptError(StorageError):
    """Stored bytes are not what was written. Never repaired silently."""


@final
class DivergenceError(ProjectError):
    """A replay did not repeat the recording.

    Args:
        sequence: Index of the first input whose effects differ.
        expected: Digest (hex) in the recording.
        got: Digest (hex) of the replay.
    """

    def __init__(self, sequence: int, expected: str, got: str) -> None:
        super().__init__(sequence, expected, got)
        self.sequence: Final = sequence
        self.expected: Final = expected
        self.got: Final = got

    def __str__(self) -> str:
        return f"input {self.sequence}: recorded effects {self.expected}, replayed {self.got}"


class UserError(ProjectError):
    """A failure that a person reads: code, one sentence, evidence, fix.

    Args:
        code: Catalogue code such as ``A203``; ``base/problems.py`` gives its exit status and its offline help.
        sentence: What happened, one clause without a full stop.
        where: The evidence: file, address, time.
        fix: The command or action that mends it.
    """

    def __init__(self, code: str, sentence: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(code, sentence)
        self.code: Final = code
        self.sentence: Final = sentence
        self.where: Final = where
        self.fix: Final = fix

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_user_error, (type(self), self.code, self.sentence, self.where, self.fix))


def _rebuild_user_error(kind: type[UserError], code: str, sentence: str, where: str, fix: str) -> UserError:
    return kind(code, sentence, where=where, fix=fix)
