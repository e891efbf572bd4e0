# SPDX-License-Identifier: Apache-2.0
"""One pair of transport keys, and the table of the indices under which packets find theirs."""

from hashlib import blake2s
from random import Random
from typing import Final, Generic, TypeVar, final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from atoll.base.ids import KEY_BYTES
from atoll.overlay.session.protocol import (
    DATA,
    DATA_AES,
    DATA_AES_CONTEXT,
    KEEPALIVE_TIMEOUT_NS,
    REJECT_AFTER_TIME_NS,
    REKEY_TIMEOUT_NS,
)
from atoll.overlay.session.window import Window

__all__ = ["NEVER_NS", "IndexTable", "Keypair"]

NEVER_NS: Final = 1 << 63  # Later than any clock; plain integers compare faster than optional ones on the packet path.
_INDEX_MASK: Final = 0xFFFF_FFFF


@final
class Keypair:
    """Transport keys and counters. Plain state: the packet path of ``session`` and ``sessions`` works on it directly.

    Args:
        local_index: Ours, in packets to us.
        remote_index: The peer's, in packets to it.
        send_key: 32 bytes.
        receive_key: 32 bytes.
        now_ns: Birth.
        rekey_ns: When we start a successor, ns; NEVER_NS: the peer does, because it started this one.
        ours: Whether the peer is a node of ours, which understands kind 6.

    Attributes:
        kind: Of what we seal: DATA, or DATA_AES.
        aes_opener: For kind 6; None: the peer is no node of ours.
    """

    __slots__ = (
        "_aes_sealer",
        "aes_opener",
        "kind",
        "late_ns",
        "local_index",
        "opener",
        "reject_ns",
        "rekey_ns",
        "remote_index",
        "sealer",
        "sent",
        "window",
    )

    def __init__(
        self,
        *,
        local_index: int,
        remote_index: int,
        send_key: bytes,
        receive_key: bytes,
        now_ns: int,
        rekey_ns: int,
        ours: bool = False,
    ) -> None:
        self.local_index: Final = local_index
        self.remote_index: Final = remote_index
        self.kind = DATA
        self.sealer: ChaCha20Poly1305 | AESGCM = ChaCha20Poly1305(send_key)
        self._aes_sealer: Final = _aes(send_key) if ours else None
        self.aes_opener: Final = _aes(receive_key) if ours else None
        self.opener: Final = ChaCha20Poly1305(receive_key)
        self.reject_ns: Final = now_ns + REJECT_AFTER_TIME_NS
        self.rekey_ns: Final = rekey_ns
        # A node that only receives starts the successor when one keepalive and one retry are left before the end.
        self.late_ns: Final = (
            NEVER_NS if rekey_ns == NEVER_NS else self.reject_ns - KEEPALIVE_TIMEOUT_NS - REKEY_TIMEOUT_NS
        )
        self.sent = 0
        self.window: Final = Window()

    def use_aes(self) -> None:
        """Seal with AES from now on."""
        if self._aes_sealer is not None:
            self.kind, self.sealer = DATA_AES, self._aes_sealer

    def seal_aes(self, nonce: bytes, plaintext: bytes) -> bytes | None:
        """Seal one packet of kind 6; None: the peer would not understand it."""
        return None if self._aes_sealer is None else self._aes_sealer.encrypt(nonce, plaintext, None)


def _aes(key: bytes) -> AESGCM:
    """Return the cipher of kind 6 that belongs to a transport key; its key is another one, and says nothing of it."""
    return AESGCM(blake2s(DATA_AES_CONTEXT, key=key, digest_size=KEY_BYTES).digest())


OwnerT = TypeVar("OwnerT")


@final
class IndexTable(Generic[OwnerT]):
    """Local indices in use. Bounded by its users: each peer holds at most 1 + 2 + PREVIOUS_MAX of them.

    Attributes:
        keypairs: Index to the owner and the keypair.
        attempts: Index of a handshake under way to its owner.
    """

    __slots__ = ("_rng", "attempts", "keypairs")

    def __init__(self, rng: Random) -> None:
        self._rng: Final = rng
        self.keypairs: Final[dict[int, tuple[OwnerT, Keypair]]] = {}
        self.attempts: Final[dict[int, OwnerT]] = {}

    def draw(self) -> int:
        """Return a random index that is not in use. Steps on at most once for each index in use."""
        index = self._rng.getrandbits(32)
        while index in self.keypairs or index in self.attempts:
            index = (index + 1) & _INDEX_MASK
        return index

    def owner(self, index: int) -> OwnerT | None:
        """Return who uses the index, for a handshake or a keypair."""
        held = self.keypairs.get(index)
        return held[0] if held is not None else self.attempts.get(index)
