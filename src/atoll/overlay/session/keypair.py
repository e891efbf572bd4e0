# SPDX-License-Identifier: Apache-2.0
"""One pair of transport keys, and the table of the indices under which packets find theirs."""

from hashlib import blake2s
from random import Random
from typing import Final, Generic, TypeVar, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from atoll.base.ids import KEY_BYTES
from atoll.overlay.session.batch import Batch, batch_of
from atoll.overlay.session.protocol import (
    DATA,
    DATA_AES,
    DATA_AES_CONTEXT,
    DATA_HEADER,
    DATA_HEADER_BYTES,
    KEEPALIVE_TIMEOUT_NS,
    NONCE,
    PADDING_BYTES,
    REJECT_AFTER_TIME_NS,
    REKEY_TIMEOUT_NS,
)
from atoll.overlay.session.window import Window

__all__ = ["NEVER_NS", "IndexTable", "Keypair"]

NEVER_NS: Final = 1 << 63  # Later than any clock; plain integers compare faster than optional ones on the packet path.
_INDEX_MASK: Final = 0xFFFF_FFFF
_PADS: Final = tuple(bytes(-size % PADDING_BYTES) for size in range(PADDING_BYTES))


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
        compiled: Whether the compiled loop is used, if there is one.

    Attributes:
        kind: Of what we seal: DATA, or DATA_AES.
        sent: The next counter.
        aes_opener: For kind 6; None: the peer is no node of ours.
        batch_sealer: The compiled form of ``sealer``, or None; ``batch_opener`` and ``aes_batch_opener`` likewise.
    """

    __slots__ = (
        "_aes_batch",
        "_aes_sealer",
        "aes_batch_opener",
        "aes_opener",
        "batch_opener",
        "batch_sealer",
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
        compiled: bool = True,
    ) -> None:
        self.local_index: Final = local_index
        self.remote_index: Final = remote_index
        self.kind = DATA
        self.sealer: ChaCha20Poly1305 | AESGCM = ChaCha20Poly1305(send_key)
        aes_send, aes_receive = (_aes_key(send_key), _aes_key(receive_key)) if ours else (None, None)
        self._aes_sealer: Final = None if aes_send is None else AESGCM(aes_send)
        self.aes_opener: Final = None if aes_receive is None else AESGCM(aes_receive)
        make = batch_of if compiled else _none
        self._aes_batch: Final = None if aes_send is None else make(aes_send, aes=True)
        self.aes_batch_opener: Final = None if aes_receive is None else make(aes_receive, aes=True)
        self.batch_sealer: Batch | None = make(send_key, aes=False)
        self.batch_opener: Final = make(receive_key, aes=False)
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
            self.kind, self.sealer, self.batch_sealer = DATA_AES, self._aes_sealer, self._aes_batch

    def seal(self, plaintext: bytes) -> bytes:
        """Return the next data packet, its plaintext padded."""
        counter, batch = self.sent, self.batch_sealer
        self.sent = counter + 1
        if batch is not None:
            return batch.seal_packet(self.kind, self.remote_index, counter, plaintext)
        return self._sealed(self.kind, self.sealer, counter, plaintext + _PADS[len(plaintext) & 15])

    def offer_aes(self) -> bytes | None:
        """Return the next data packet, empty and of kind 6; None: the peer would not understand it."""
        if self._aes_sealer is None:
            return None
        counter = self.sent
        self.sent = counter + 1
        return self._sealed(DATA_AES, self._aes_sealer, counter, b"")

    def _sealed(self, kind: int, sealer: ChaCha20Poly1305 | AESGCM, counter: int, plaintext: bytes) -> bytes:
        return DATA_HEADER.pack(kind, self.remote_index, counter) + sealer.encrypt(NONCE.pack(counter), plaintext, None)

    def open(self, kind: int, counter: int, datagram: bytes) -> bytes | None:
        """Return what a data packet of a kind that we understand holds, still padded; None: it is not authentic.

        Args:
            kind: In its header.
            counter: In its header.
            datagram: All of it, at least DATA_BYTES_MIN bytes.
        """
        batch = self.batch_opener if kind == DATA else self.aes_batch_opener
        if batch is not None:
            return batch.open_packet(datagram)
        opener = self.opener if kind == DATA else self.aes_opener
        assert opener is not None
        try:
            return opener.decrypt(NONCE.pack(counter), datagram[DATA_HEADER_BYTES:], None)
        except InvalidTag:
            return None


def _none(_: bytes, *, aes: bool) -> Batch | None:  # noqa: ARG001 - the shape of ``batch_of``.
    return None


def _aes_key(key: bytes) -> bytes:
    """Return the key of kind 6 that belongs to a transport key; it is another one, and says nothing of that."""
    return blake2s(DATA_AES_CONTEXT, key=key, digest_size=KEY_BYTES).digest()


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
