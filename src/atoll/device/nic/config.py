# SPDX-License-Identifier: Apache-2.0
"""What a packet device is told once, when it is made."""

from dataclasses import dataclass

__all__ = ["EngineConfig"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the operator bounds.

    Attributes:
        relay_bytes_s: Budget for all forwarding, bytes per second, 0 to 2^40; 0: none. Raising it costs our upstream.
        prefers_aes: Whether this machine is faster with AES-256-GCM than with ChaCha20-Poly1305.
        compiled: Whether bursts go through the compiled loop, if it is installed.
    """

    relay_bytes_s: int = 2_500_000
    prefers_aes: bool = True
    compiled: bool = True
