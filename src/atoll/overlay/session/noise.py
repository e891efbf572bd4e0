# SPDX-License-Identifier: Apache-2.0
"""The handshake's cryptography: Noise's symmetric state, and the two sides of pattern IKpsk2.

::

    <- s
    ...
    -> e, es, s, ss, payload
    <- e, ee, se, psk, payload

Nothing here knows indices, macs, time or peers. Functions that read bytes from the network return None for anything
that is not authentic, low-order points included; they never raise on such bytes.

Source: The Noise Protocol Framework, revision 34, sections 5 and 9; names there are kept where they help.
"""

import hmac
from hashlib import blake2s
from typing import Final, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from atoll.base.errors import UsageError
from atoll.base.ids import KEY_BYTES
from atoll.overlay.session.protocol import CONSTRUCTION, IDENTIFIER, TAG_BYTES

__all__ = ["Initiator", "PrivateKey", "Responder", "SymmetricState", "hash_of"]

_HASH_BYTES: Final = 32
_SEALED_KEY_BYTES: Final = KEY_BYTES + TAG_BYTES


def hash_of(*parts: bytes) -> bytes:
    """Return the 32-byte BLAKE2s hash of the parts joined."""
    return blake2s(b"".join(parts)).digest()


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, blake2s).digest()


@final
class PrivateKey:
    """An X25519 key pair.

    Args:
        private: 32 bytes.

    Raises:
        UsageError: Another length.
    """

    __slots__ = ("_private", "public")

    def __init__(self, private: bytes) -> None:
        if len(private) != KEY_BYTES:
            raise UsageError(f"a private key of {len(private)} bytes")
        self._private: Final = X25519PrivateKey.from_private_bytes(private)
        self.public: Final = self._private.public_key().public_bytes_raw()

    def agree(self, public: bytes) -> bytes | None:
        """Return the 32-byte shared secret with a 32-byte public key.

        None: the key is a low-order point, so anybody would know the secret (or it is not 32 bytes).
        """
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            return None


@final
class SymmetricState:
    """Noise's SymmetricState with HMAC-BLAKE2s key derivation and ChaCha20-Poly1305.

    Args:
        protocol_name: Full Noise name of the protocol.
    """

    __slots__ = ("_chaining_key", "_cipher", "_nonce", "hash")

    def __init__(self, protocol_name: bytes) -> None:
        self.hash = (
            protocol_name.ljust(_HASH_BYTES, b"\0") if len(protocol_name) <= _HASH_BYTES else hash_of(protocol_name)
        )
        self._chaining_key = self.hash
        self._cipher: ChaCha20Poly1305 | None = None
        self._nonce = 0

    def copy(self) -> "SymmetricState":
        """Return an independent copy: a forged message is tried on a copy, so that it spoils nothing."""
        twin = SymmetricState(b"")
        twin.hash, twin._chaining_key = self.hash, self._chaining_key
        twin._cipher, twin._nonce = self._cipher, self._nonce
        return twin

    def mix_hash(self, data: bytes) -> None:
        """Bind public data to the transcript."""
        self.hash = blake2s(self.hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        """Derive the next chaining key and cipher key from a shared secret."""
        self._chaining_key, key = self._derive(secret, 2)
        self._rekey(key)

    def mix_key_and_hash(self, secret: bytes) -> None:
        """Mix a pre-shared key."""
        self._chaining_key, hashed, key = self._derive(secret, 3)
        self.mix_hash(hashed)
        self._rekey(key)

    def seal(self, plaintext: bytes) -> bytes:
        """Encrypt (once there is a key) and bind to the transcript."""
        sealed = plaintext if self._cipher is None else self._cipher.encrypt(self._take_nonce(), plaintext, self.hash)
        self.mix_hash(sealed)
        return sealed

    def open(self, sealed: bytes) -> bytes | None:
        """Undo ``seal``; None: not authentic, and this state is of no more use."""
        plaintext = sealed
        if self._cipher is not None:
            try:
                plaintext = self._cipher.decrypt(self._take_nonce(), sealed, self.hash)
            except InvalidTag:
                return None
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Return the two transport keys: initiator to responder, responder to initiator."""
        first, second = self._derive(b"", 2)
        return first, second

    def _derive(self, secret: bytes, count: int) -> tuple[bytes, ...]:
        """HKDF of the Noise specification: ``count`` outputs of 32 bytes."""
        extracted = _hmac(self._chaining_key, secret)
        outputs: list[bytes] = []
        last = b""
        for index in range(1, count + 1):
            last = _hmac(extracted, last + bytes((index,)))
            outputs.append(last)
        return tuple(outputs)

    def _rekey(self, key: bytes) -> None:
        self._cipher, self._nonce = ChaCha20Poly1305(key), 0

    def _take_nonce(self) -> bytes:
        nonce = bytes(4) + self._nonce.to_bytes(8, "little")
        self._nonce += 1
        return nonce


def _opened(responder_public: bytes, prologue: bytes) -> SymmetricState:
    """State that both sides share before the first message."""
    state = SymmetricState(CONSTRUCTION)
    state.mix_hash(prologue)
    state.mix_hash(responder_public)
    return state


@final
class Initiator:
    """The side that speaks first. ``write`` once, then ``read`` until an authentic answer comes.

    Args:
        static: Our long-term key.
        static_secret: Its agreement with the responder's long-term key (computed once for each peer), 32 bytes.
        responder: The responder's long-term public key, 32 bytes.
        psk: 32 bytes; zeros: none.
        ephemeral: A fresh key, used for this handshake only.
        prologue: Bound to the transcript.
    """

    __slots__ = ("_ephemeral", "_psk", "_responder", "_state", "_static", "_static_secret")

    def __init__(
        self,
        *,
        static: PrivateKey,
        static_secret: bytes,
        responder: bytes,
        psk: bytes,
        ephemeral: PrivateKey,
        prologue: bytes = IDENTIFIER,
    ) -> None:
        self._static, self._static_secret, self._responder = static, static_secret, responder
        self._psk, self._ephemeral = psk, ephemeral
        self._state = _opened(responder, prologue)

    def write(self, payload: bytes) -> bytes | None:
        """Return the first message: ephemeral key, sealed static key, sealed payload.

        None: the responder's key is a low-order point.
        """
        state, ephemeral = self._state, self._ephemeral
        state.mix_hash(ephemeral.public)
        state.mix_key(ephemeral.public)
        secret = ephemeral.agree(self._responder)
        if secret is None:
            return None
        state.mix_key(secret)
        sealed_static = state.seal(self._static.public)
        state.mix_key(self._static_secret)
        return ephemeral.public + sealed_static + state.seal(payload)

    def read(self, message: bytes) -> tuple[bytes, bytes, bytes] | None:
        """Read an answer: ephemeral key, sealed payload.

        Returns:
            Payload, key to send with, key to receive with; None: not authentic, and nothing has changed.
        """
        state = self._state.copy()
        theirs = message[:KEY_BYTES]
        state.mix_hash(theirs)
        state.mix_key(theirs)
        for key in (self._ephemeral, self._static):
            secret = key.agree(theirs)
            if secret is None:
                return None
            state.mix_key(secret)
        state.mix_key_and_hash(self._psk)
        payload = state.open(message[KEY_BYTES:])
        if payload is None:
            return None
        send, receive = state.split()
        return payload, send, receive


@final
class Responder:
    """The side that answers. ``read_static``, then (for a known key) ``read_payload``, then ``write``.

    Args:
        static: Our long-term key.
        prologue: Bound to the transcript.
    """

    __slots__ = ("_initiator", "_rest", "_state", "_static", "_theirs")

    def __init__(self, *, static: PrivateKey, prologue: bytes = IDENTIFIER) -> None:
        self._static = static
        self._state = _opened(static.public, prologue)
        self._initiator = self._theirs = self._rest = b""

    def read_static(self, message: bytes) -> bytes | None:
        """Read the first message up to the initiator's long-term public key and return that; None: not authentic."""
        state, self._theirs = self._state, message[:KEY_BYTES]
        state.mix_hash(self._theirs)
        state.mix_key(self._theirs)
        secret = self._static.agree(self._theirs)
        if secret is None:
            return None
        state.mix_key(secret)
        initiator = state.open(message[KEY_BYTES : KEY_BYTES + _SEALED_KEY_BYTES])
        if initiator is None:
            return None
        self._initiator, self._rest = initiator, message[KEY_BYTES + _SEALED_KEY_BYTES :]
        return initiator

    def read_payload(self, static_secret: bytes) -> bytes | None:
        """Read the rest and return the payload; None: not authentic.

        Args:
            static_secret: Agreement of the two long-term keys, 32 bytes.
        """
        self._state.mix_key(static_secret)
        return self._state.open(self._rest)

    def write(self, payload: bytes, *, ephemeral: PrivateKey, psk: bytes) -> tuple[bytes, bytes, bytes] | None:
        """Make the answer.

        Returns:
            Message (ephemeral key, sealed payload), key to send with, key to receive with; None: the initiator's
            ephemeral key is a low-order point.
        """
        state = self._state
        state.mix_hash(ephemeral.public)
        state.mix_key(ephemeral.public)
        for public in (self._theirs, self._initiator):
            secret = ephemeral.agree(public)
            if secret is None:
                return None
            state.mix_key(secret)
        state.mix_key_and_hash(psk)
        message = ephemeral.public + state.seal(payload)
        receive, send = state.split()
        return message, send, receive
