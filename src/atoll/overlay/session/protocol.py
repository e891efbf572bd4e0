# SPDX-License-Identifier: Apache-2.0
"""Constants of the WireGuard protocol, as published; none of them is ours to change. Ours are in ``limits.py``.

One thing is added to it, between our own nodes only: ``DATA_AES`` (docs/spec/session.md, 4; ADR 0018).

Source: J. A. Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel", sections 5.4 and 6.1, and
https://www.wireguard.com/protocol/.
"""

from struct import Struct
from typing import Final

from atoll.base.units import MILLISECOND_NS, SECOND_NS

__all__ = [
    "CONSTRUCTION",
    "COOKIE_BYTES",
    "COOKIE_NONCE_BYTES",
    "COOKIE_REPLY",
    "COOKIE_REPLY_BYTES",
    "COOKIE_SECRET_TIME_NS",
    "DATA",
    "DATA_AES",
    "DATA_AES_CONTEXT",
    "DATA_BYTES_MIN",
    "DATA_HEADER",
    "DATA_HEADER_BYTES",
    "IDENTIFIER",
    "INITIATION",
    "INITIATION_BYTES",
    "INITIATION_HEADER",
    "KEEPALIVE_TIMEOUT_NS",
    "LABEL_COOKIE",
    "LABEL_MAC1",
    "MACS_BYTES",
    "MAC_BYTES",
    "NONCE",
    "PADDING_BYTES",
    "REJECT_AFTER_MESSAGES",
    "REJECT_AFTER_TIME_NS",
    "REKEY_AFTER_MESSAGES",
    "REKEY_AFTER_TIME_NS",
    "REKEY_ATTEMPTS_MAX",
    "REKEY_ATTEMPT_TIME_NS",
    "REKEY_TIMEOUT_JITTER_NS",
    "REKEY_TIMEOUT_NS",
    "RESPONSE",
    "RESPONSE_BYTES",
    "RESPONSE_HEADER",
    "TAG_BYTES",
    "TIMESTAMP_BYTES",
    "WINDOW_BITS",
]

CONSTRUCTION: Final = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER: Final = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1: Final = b"mac1----"
LABEL_COOKIE: Final = b"cookie--"

# The first byte says the kind; the three after it are reserved and zero, so the four make one little-endian number.
INITIATION: Final = 1
RESPONSE: Final = 2
COOKIE_REPLY: Final = 3
DATA: Final = 4
DATA_AES: Final = 6  # Ours. Kind 5 is the relay frame.
DATA_AES_CONTEXT: Final = b"atoll data aes-256-gcm"

INITIATION_HEADER: Final = Struct("<II")  # Kind, sender index.
RESPONSE_HEADER: Final = Struct("<III")  # Kind, sender index, receiver index.
DATA_HEADER: Final = Struct("<IIQ")  # Kind, receiver index, counter.
DATA_HEADER_BYTES: Final = 16
NONCE: Final = Struct("<4xQ")  # Of a data packet: its counter.

TAG_BYTES: Final = 16
TIMESTAMP_BYTES: Final = 12
MAC_BYTES: Final = 16
MACS_BYTES: Final = 2 * MAC_BYTES
COOKIE_BYTES: Final = 16
COOKIE_NONCE_BYTES: Final = 24
PADDING_BYTES: Final = 16

INITIATION_BYTES: Final = 148
RESPONSE_BYTES: Final = 92
COOKIE_REPLY_BYTES: Final = 64
DATA_BYTES_MIN: Final = DATA_HEADER_BYTES + TAG_BYTES  # A keepalive.

REKEY_AFTER_TIME_NS: Final = 120 * SECOND_NS
REJECT_AFTER_TIME_NS: Final = 180 * SECOND_NS
REKEY_ATTEMPT_TIME_NS: Final = 90 * SECOND_NS
REKEY_TIMEOUT_NS: Final = 5 * SECOND_NS
REKEY_TIMEOUT_JITTER_NS: Final = 333 * MILLISECOND_NS
REKEY_ATTEMPTS_MAX: Final = REKEY_ATTEMPT_TIME_NS // REKEY_TIMEOUT_NS
KEEPALIVE_TIMEOUT_NS: Final = 10 * SECOND_NS
COOKIE_SECRET_TIME_NS: Final = 120 * SECOND_NS

WINDOW_BITS: Final = 8192
REKEY_AFTER_MESSAGES: Final = 1 << 60
REJECT_AFTER_MESSAGES: Final = (1 << 64) - WINDOW_BITS - 1
