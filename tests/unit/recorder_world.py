# SPDX-License-Identifier: Apache-2.0
"""A recorder's key and journals for tests, with keys that are the same in every run."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from atoll.domain.recorder.journal import BlockJournal, create_journal
from atoll.domain.recorder.key import KEY_NAME, RecorderKey
from atoll.domain.recorder.messages import Code, RefusedError
from atoll.env.chain import (
    FORMAT,
    GENESIS,
    SIGNATURE_BYTES,
    Block,
    Manifest,
    Position,
    Seal,
    Sealed,
    Sealer,
    certificate_payload,
    encode_frame,
    manifest_payload,
    pack_body,
    position_after,
    seal_payload,
    segment_start,
)
from atoll.env.history import DIGEST_BYTES, SNAPSHOT_FORMAT, Entry, Snapshot, encode_body
from atoll.env.records import Checkpointed

__all__ = [
    "ENVIRONMENT",
    "NODE",
    "OTHER",
    "STATE",
    "WRITING",
    "Hand",
    "append",
    "block_after",
    "code_of",
    "journal_in",
    "key_in",
    "node_key",
    "segment_of",
    "stored",
    "writing",
]

ENVIRONMENT = bytes(range(16))
NODE = b"node-of-us"


def private(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def node_key(number: int = 1) -> Ed25519PrivateKey:
    """Return a node's signing key."""
    return private(number)


class Hand:
    """A recorder that seals in memory: by the specification, and not by the product's own recorder."""

    def __init__(self, number: int = 9, node: bytes = NODE, signer: int = 1) -> None:
        self.key = private(number)
        public = self.key.public_key().public_bytes_raw()
        signing = private(signer)
        self.sealer = Sealer(
            node, public, signing.public_key().public_bytes_raw(), signing.sign(certificate_payload(node, public))
        )

    def manifest(self, at: Position = GENESIS, environment: bytes = ENVIRONMENT) -> Manifest:
        draft = Manifest(FORMAT, environment, "shop", "0.1.0", at, self.sealer, bytes(SIGNATURE_BYTES))
        signature = self.key.sign(manifest_payload(draft))
        return Manifest(FORMAT, environment, "shop", "0.1.0", at, self.sealer, signature)

    def seal(self, before: Position, block: Block, environment: bytes = ENVIRONMENT) -> tuple[Sealed, Position]:
        after = position_after(before, block)
        return Sealed(block, Seal(after.head, self.key.sign(seal_payload(environment, after.head)))), after

    def snapshot(self, at: Position, content: bytes, environment: bytes = ENVIRONMENT) -> bytes:
        """Return the file of a snapshot."""
        place = environment + at.number.to_bytes(8, "little") + at.head
        signature = self.key.sign(b"atoll-snapshot-1" + place + sha256(content).digest())
        header = msgspec.msgpack.encode((1, environment, at.number, at.head, self.sealer, signature))
        return len(header).to_bytes(4, "little") + header + content


def block_after(at: Position, records: bytes = b"records", *, events: int = 1, epoch: int = 1) -> Block:
    """Return a block that follows."""
    return Block(at.number + 1, max(epoch, at.epoch), at.events + 1, events, pack_body(records))


def writing(state: bytes) -> bytes:
    """Return the records of a block after which this state is stored."""
    return encode_body(bytes(DIGEST_BYTES), [Entry(1, 0, Checkpointed(sha256(state).digest()))])


def stored(state: bytes, *, epoch: int = 1, code: bytes = b"c" * 32) -> bytes:
    """Return the snapshot of this state that fits such a block."""
    return Snapshot(SNAPSHOT_FORMAT, code, bytes(DIGEST_BYTES), epoch, (NODE,), 3, NODE, state).encode()


OTHER = Hand(8, b"other-node", signer=2)
STATE = stored(b"state")
WRITING = writing(b"state")  # Records of a block after which that can be stored.


def segment_of(hand: Hand, *blocks: bytes, at: Position = GENESIS) -> tuple[bytes, Position]:
    """Return a segment with these blocks, and where it stands at its end."""
    parts = [segment_start(hand.manifest(at))]
    for records in blocks:
        sealed, at = hand.seal(at, block_after(at, records))
        parts.append(encode_frame(sealed, sealed.block.number))
    return b"".join(parts), at


def key_in(state: Path, *, certified: bool = True) -> RecorderKey:
    """Return a recorder's key in this directory, always the same one."""
    path = state / KEY_NAME
    if not path.exists():
        path.write_bytes(bytes([9]) * 32)
        path.chmod(0o600)
    key = RecorderKey(state)
    if certified:
        signing = private(1)
        public = signing.public_key().public_bytes_raw()
        key.certify(Sealer(NODE, key.public, public, signing.sign(certificate_payload(NODE, key.public))))
    return key


def journal_in(state: Path, **options: int) -> BlockJournal:
    """Return a new journal, or the one that is there."""
    key = key_in(state)
    directory = state / ENVIRONMENT.hex()
    if not directory.exists():
        create_journal(directory, key, "shop", GENESIS)
    return BlockJournal(directory, key, **options)


def append(journal: BlockJournal, *blocks: bytes, epoch: int = 1) -> None:
    """Append blocks with these records, each durable before the next."""
    for records in blocks:
        journal.append(block_after(journal.position, records, epoch=epoch))
        journal.commit()


def code_of(act: Callable[[], object]) -> Code:
    """Return with which code the recorder refuses something."""
    with pytest.raises(RefusedError) as caught:
        act()
    return caught.value.code
