# SPDX-License-Identifier: Apache-2.0
"""What this machine's processor is good at, found out by trying."""

from time import perf_counter_ns
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

__all__ = ["prefers_aes"]

_ROUNDS: Final = 3  # The best of them counts: another process may disturb one.
_PACKETS: Final = 64
_NONCE: Final = bytes(12)
_PACKET: Final = bytes(1408)
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
