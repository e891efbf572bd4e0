# SPDX-License-Identifier: Apache-2.0
"""What this machine's processor is good at, found out by trying; and how its time is shared out."""

from contextlib import suppress
from time import perf_counter_ns
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from atoll.base.compiled import COMPILED

__all__ = ["ask_for_short_slices", "prefers_aes"]

_ROUNDS: Final = 3  # The best of them counts: another process may disturb one.
_PACKETS: Final = 64
_NONCE: Final = bytes(12)
_PACKET: Final = bytes(1408)
_SLICE_NS: Final = 100_000  # The least that Linux takes; a packet alone needs as much.
_GAIN: Final = 8  # AES must save an eighth, so that a tie is always decided the same way.


def prefers_aes() -> bool:
    """Return whether AES-256-GCM is faster here than ChaCha20-Poly1305, as with AES in hardware. Takes 2 ms."""
    key = AESGCM.generate_key(256)
    aes, chacha = _taken_ns(AESGCM(key)), _taken_ns(ChaCha20Poly1305(key))
    return aes + chacha // _GAIN < chacha


def _taken_ns(cipher: AESGCM | ChaCha20Poly1305) -> int:
    times: list[int] = []
    for _ in range(_ROUNDS):
        began_ns = perf_counter_ns()
        for _ in range(_PACKETS):
            cipher.encrypt(_NONCE, _PACKET, None)
        times.append(perf_counter_ns() - began_ns)
    return min(times)


def ask_for_short_slices() -> None:
    """Ask the scheduler for short turns, and soon, instead of long ones: for those whose work somebody waits for.

    Unlike a higher priority it takes no time away from others. Linux listens from 6.12 on; elsewhere nothing happens.
    """
    ask = getattr(COMPILED, "ask_for_slices", None)
    if ask is not None:
        with suppress(OSError):  # A sandbox may forbid it.
            ask(_SLICE_NS)
