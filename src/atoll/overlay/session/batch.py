# SPDX-License-Identifier: Apache-2.0
"""The compiled loop over a burst of packets, where it is installed (``atoll-fast``); Python's own does the same.

It holds no rule: the same bytes come out of both, which a property test checks for any packet.
"""

from importlib import import_module
from typing import Any, Final, Protocol

__all__ = ["Batch", "batch_of", "is_compiled"]


class Batch(Protocol):
    """One direction's key. What the arguments are stands in ``native/src/batch.c``."""

    def seal(self, *arguments: Any) -> int:
        """Cut a large packet, seal the segments, and return where the last datagram ends."""
        ...

    def open(self, *arguments: Any) -> int:
        """Open datagrams with consecutive counters as far as they are authentic; return how many."""
        ...


class _Maker(Protocol):
    def __call__(self, key: bytes, aes: bool, /) -> Batch: ...  # noqa: FBT001 - a function of C.


def _loaded() -> _Maker | None:
    try:
        made: _Maker = import_module("atoll_fast").Batch
    except ImportError:
        return None
    return made


_MAKER: Final = _loaded()


def is_compiled() -> bool:
    """Return whether there is a compiled loop."""
    return _MAKER is not None


def batch_of(key: bytes, *, aes: bool) -> Batch | None:
    """Return the compiled loop for a key; None: there is none."""
    return None if _MAKER is None else _MAKER(key, aes)
