# SPDX-License-Identifier: Apache-2.0
"""The two macs at the end of a handshake message, and the cookies behind the second one.

``mac1`` proves that the sender knows whom it speaks to; without it a node answers nothing at all. ``mac2`` proves that
the sender receives at the address it sends from; it is asked for only under load, so that a flood from forged
addresses costs a hash and a cookie for each packet and no key agreement.

Source: WireGuard paper, sections 5.3 and 5.4.4 to 5.4.7.
"""

from hashlib import blake2s
from hmac import compare_digest
from random import Random
from typing import Final, final

from atoll.base.ids import KEY_BYTES
from atoll.overlay.session.noise import hash_of
from atoll.overlay.session.protocol import (
    COOKIE_BYTES,
    COOKIE_NONCE_BYTES,
    COOKIE_REPLY,
    COOKIE_SECRET_TIME_NS,
    INITIATION_HEADER,
    LABEL_COOKIE,
    LABEL_MAC1,
    MAC_BYTES,
    MACS_BYTES,
    REKEY_TIMEOUT_NS,
)
from atoll.overlay.session.xchacha import open_sealed, seal

__all__ = ["CookieGate", "CookieJar"]

_NO_MAC: Final = bytes(MAC_BYTES)
_COOKIE_USE_NS: Final = COOKIE_SECRET_TIME_NS - REKEY_TIMEOUT_NS  # Stop before the peer's secret can have changed.


def _mac(key: bytes, message: bytes) -> bytes:
    return blake2s(message, key=key, digest_size=MAC_BYTES).digest()


@final
class CookieGate:
    """Checks the macs of messages to us, and makes cookies.

    Args:
        public: Our long-term public key, 32 bytes.
        rng: Secrets and nonces.
    """

    __slots__ = ("_cookie_key", "_mac1_key", "_rng", "_secret", "_secret_until_ns")

    def __init__(self, public: bytes, rng: Random) -> None:
        self._rng: Final = rng
        self._mac1_key: Final = hash_of(LABEL_MAC1, public)
        self._cookie_key: Final = hash_of(LABEL_COOKIE, public)
        self._secret = b""
        self._secret_until_ns = -1

    def is_addressed_to_us(self, datagram: bytes) -> bool:
        """Return whether ``mac1`` is right. The datagram is at least MACS_BYTES long."""
        return compare_digest(_mac(self._mac1_key, datagram[:-MACS_BYTES]), datagram[-MACS_BYTES:-MAC_BYTES])

    def proves_source(self, datagram: bytes, source: bytes, now_ns: int) -> bool:
        """Return whether ``mac2`` shows a cookie that we gave this source within the last two minutes."""
        return compare_digest(_mac(self._cookie(source, now_ns), datagram[:-MAC_BYTES]), datagram[-MAC_BYTES:])

    def reply(self, datagram: bytes, source: bytes, now_ns: int) -> bytes:
        """Return the cookie reply to a handshake message with a right ``mac1``, 64 bytes."""
        nonce = self._rng.randbytes(COOKIE_NONCE_BYTES)
        sender = int.from_bytes(datagram[4:8], "little")
        mac1 = datagram[-MACS_BYTES:-MAC_BYTES]
        return (
            INITIATION_HEADER.pack(COOKIE_REPLY, sender)
            + nonce
            + seal(self._cookie_key, nonce, self._cookie(source, now_ns), mac1)
        )

    def _cookie(self, source: bytes, now_ns: int) -> bytes:
        if now_ns >= self._secret_until_ns:
            self._secret = self._rng.randbytes(KEY_BYTES)
            self._secret_until_ns = now_ns + COOKIE_SECRET_TIME_NS
        return blake2s(source, key=self._secret, digest_size=COOKIE_BYTES).digest()


@final
class CookieJar:
    """Puts the macs on messages to one peer, and keeps the cookie that the peer gave us.

    Args:
        public: The peer's long-term public key, 32 bytes.
    """

    __slots__ = ("_cookie", "_cookie_key", "_cookie_until_ns", "_mac1", "_mac1_key")

    def __init__(self, public: bytes) -> None:
        self._mac1_key: Final = hash_of(LABEL_MAC1, public)
        self._cookie_key: Final = hash_of(LABEL_COOKIE, public)
        self._mac1: bytes | None = None  # Of the last message; None: its cookie reply has come already.
        self._cookie = b""
        self._cookie_until_ns = -1

    def finish(self, message: bytes, now_ns: int) -> bytes:
        """Return the handshake message with both macs behind it."""
        self._mac1 = _mac(self._mac1_key, message)
        message += self._mac1
        return message + (_mac(self._cookie, message) if now_ns < self._cookie_until_ns else _NO_MAC)

    def accept(self, reply: bytes, now_ns: int) -> bool:
        """Take a cookie reply of 64 bytes; False: not authentic, or not an answer to our last message.

        It is used for the next message. The last one is not sent again at once: that would make us an amplifier.
        """
        if self._mac1 is None:
            return False
        cookie = open_sealed(
            self._cookie_key, reply[8 : 8 + COOKIE_NONCE_BYTES], reply[8 + COOKIE_NONCE_BYTES :], self._mac1
        )
        if cookie is None:
            return False
        self._cookie, self._cookie_until_ns, self._mac1 = cookie, now_ns + _COOKIE_USE_NS, None
        return True
