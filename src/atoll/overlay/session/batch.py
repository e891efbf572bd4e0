# SPDX-License-Identifier: Apache-2.0
"""The compiled form of one direction's key: seals and opens packets, by the dozen or one, as keypairs do in Python."""

from typing import Any, Protocol

from atoll.base.compiled import COMPILED

__all__ = ["Batch", "batch_of"]


class Batch(Protocol):
    """One direction's key. What the arguments are stands in ``native/src/batch.c``."""

    def seal(self, *arguments: Any) -> int:
        """Cut a large packet, seal the segments, and return where the last datagram ends."""
        ...

    def seal_finished(self, *arguments: Any) -> int:
        """As ``seal``, with checksums and padding as stock WireGuard has them."""
        ...

    def seal_packet(self, kind: int, index: int, counter: int, plaintext: bytes, /) -> bytes:
        """Return one packet as a datagram, padded."""
        ...

    def open_packet(self, datagram: bytes, /) -> bytes | None:
        """Return what a datagram holds; None: it is not authentic."""
        ...

    def open(self, *arguments: Any) -> tuple[int, int]:
        """Open datagrams with consecutive counters as far as they are authentic.

        Returns:
            How many, and how many of these follow the first one and continue it: their payload stands behind it.
        """
        ...


def batch_of(key: bytes, *, aes: bool) -> Batch | None:
    """Return the compiled loop for a key; None: there is none."""
    if COMPILED is None:
        return None
    made: Batch = COMPILED.Batch(key, aes)
    return made
