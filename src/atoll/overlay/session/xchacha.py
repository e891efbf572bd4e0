# SPDX-License-Identifier: Apache-2.0
"""XChaCha20-Poly1305, which cookies need for their random 24-byte nonces. Source: draft-irtf-cfrg-xchacha-03.

HChaCha20 is ChaCha20's block function without the final addition of the input. The library offers only the whole
block, but with a chosen counter and nonce; subtracting the known input words from its output gives HChaCha20 at the
price of one block, where twenty rounds in Python would cost thirty times as much.
"""

from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

__all__ = ["hchacha20", "open_sealed", "seal"]

_FOUR_WORDS: Final = Struct("<4I")
_BLOCK: Final = bytes(64)
_SIGMA: Final = _FOUR_WORDS.unpack(b"expand 32-byte k")


def _subtract(block: bytes, words: tuple[int, ...]) -> bytes:
    mixed = _FOUR_WORDS.unpack(block)
    return _FOUR_WORDS.pack(*((left - right) & 0xFFFF_FFFF for left, right in zip(mixed, words, strict=True)))


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Return the 32-byte subkey of a 32-byte key and a 16-byte nonce."""
    block = Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(_BLOCK)
    return _subtract(block[:16], _SIGMA) + _subtract(block[48:], _FOUR_WORDS.unpack(nonce))


def seal(key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Return ciphertext and 16-byte tag. The key is 32 bytes, the nonce 24."""
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])).encrypt(bytes(4) + nonce[16:], plaintext, associated)


def open_sealed(key: bytes, nonce: bytes, sealed: bytes, associated: bytes) -> bytes | None:
    """Return the plaintext, or None when it is not authentic."""
    try:
        return ChaCha20Poly1305(hchacha20(key, nonce[:16])).decrypt(bytes(4) + nonce[16:], sealed, associated)
    except InvalidTag:
        return None
