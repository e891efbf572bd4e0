# SPDX-License-Identifier: Apache-2.0
"""Small files beside the blocks of an environment: snapshots, which are signed, and the standing, which is checked.

A snapshot is as good as the blocks that it stands for, so it is bound to the chain: the recorder signs its digest
together with the head of the block after which it was taken. docs/spec/environment-journal.md, section 6.
"""

from dataclasses import dataclass
from hashlib import sha256
from struct import Struct
from typing import Annotated, Final

import msgspec

from atoll.base.errors import CorruptError, WireError
from atoll.base.ids import NODE_ID_BYTES
from atoll.core.codec import Codec
from atoll.domain.recorder.key import RecorderKey
from atoll.env.chain import (
    From0,
    Head,
    Id,
    Sealer,
    Signature,
    is_certified,
    signed_by,
)

__all__ = [
    "Signed",
    "Standing",
    "checks",
    "decode_standing",
    "encode_snapshot",
    "encode_standing",
    "open_snapshot",
]

_SNAPSHOT: Final = b"atoll-snapshot-1"
_FORMAT: Final = 1
_LENGTH: Final = Struct("<I")
_NUMBER: Final = Struct("<Q")
_HEADER_BYTES_MAX: Final = 1024
_DIGEST_BYTES: Final = 32
_NOBODY: Final = bytes(NODE_ID_BYTES)  # As files of before say it.


class _Header(msgspec.Struct, frozen=True, array_like=True):
    format: int
    environment: Id
    number: From0
    head: Head
    sealer: Sealer
    signature: Signature


@dataclass(frozen=True, slots=True)
class Signed:
    """A state that a recorder has signed.

    Attributes:
        head: Of the block after which it was taken.
        content: The state.
        sealer: Whose recorder signed it.
        signature: By which.
    """

    head: bytes
    content: bytes
    sealer: Sealer
    signature: bytes


class Standing(msgspec.Struct, frozen=True, array_like=True):
    """What holds of a journal beside its blocks. Files of before have its first three fields only.

    Attributes:
        environment: Id of the environment.
        epoch: No block of an earlier epoch is sealed here.
        node: Whose epoch it is; empty: nobody's yet.
        floor_epoch: Epoch of the newest block that was ever here and went with a journal that was given up; 0: none.
        floor_number: Number of that block.
        segment: Number of the first segment that counts; what is older is of a journal that was given up.
    """

    environment: Id
    epoch: From0
    node: Annotated[bytes, msgspec.Meta(max_length=NODE_ID_BYTES)]
    floor_epoch: From0 = 0
    floor_number: From0 = 0
    segment: From0 = 0


_headers: Final = Codec[_Header](_Header, bytes_max=_HEADER_BYTES_MAX, name="snapshot header")
_standings: Final = Codec[Standing](Standing, bytes_max=_HEADER_BYTES_MAX, name="standing of a journal")


def _payload(environment: bytes, number: int, head: bytes, content: bytes) -> bytes:
    return b"".join((_SNAPSHOT, environment, _NUMBER.pack(number), head, sha256(content).digest()))


def encode_snapshot(key: RecorderKey, environment: bytes, at: tuple[int, bytes], content: bytes) -> bytes:
    """Return the file of a snapshot.

    Args:
        key: Signs it.
        environment: Whose state it is.
        at: Number and head of the block after which it was taken.
        content: The state.

    Raises:
        RefusedError: SIGNATURE, the recorder has no certificate yet.
    """
    number, head = at
    signature = key.sign(_payload(environment, number, head, content))
    header = _headers.encode(_Header(_FORMAT, environment, number, head, key.sealer, signature))
    return _LENGTH.pack(len(header)) + header + content


def checks(environment: bytes, number: int, signed: Signed) -> bool:
    """Tell whether a recorder that its node has certified signed this as the state after a block.

    Whose the signing key is, a roster says.
    """
    payload = _payload(environment, number, signed.head, signed.content)
    return is_certified(signed.sealer) and signed_by(signed.sealer.recorder, payload, signed.signature)


def open_snapshot(data: bytes, environment: bytes, number: int) -> Signed:
    """Return the state in a file, with the head after which it was taken and who signed it.

    Raises:
        CorruptError: It is not what a recorder signed for this environment and number.
    """
    if len(data) < _LENGTH.size:
        raise CorruptError("a snapshot without a header")
    (size,) = _LENGTH.unpack_from(data)
    content_at = _LENGTH.size + size
    try:
        header = _headers.decode(data[_LENGTH.size : content_at])
    except WireError as error:
        raise CorruptError(f"a snapshot whose header does not decode: {error.reason}") from error
    signed = Signed(header.head, data[content_at:], header.sealer, header.signature)
    if (header.format, header.environment, header.number) != (_FORMAT, environment, number):
        raise CorruptError("a snapshot of something else")
    if not checks(environment, number, signed):
        raise CorruptError(f"the snapshot after block {number}: its signature does not check")
    return signed


def encode_standing(standing: Standing) -> bytes:
    """Return the file of a standing: its digest, and what it is."""
    content = _standings.encode(standing)
    return sha256(content).digest() + content


def decode_standing(data: bytes, environment: bytes) -> Standing:
    """Return the standing in a file.

    Raises:
        CorruptError: It is not what was written.
    """
    digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if sha256(content).digest() != digest:
        raise CorruptError("a standing that does not check")
    try:
        standing = _standings.decode(content)
    except WireError as error:
        raise CorruptError(f"a standing that does not decode: {error.reason}") from error
    if standing.environment != environment:
        raise CorruptError("a standing of another environment")
    if standing.node == _NOBODY:
        return msgspec.structs.replace(standing, node=b"")
    return standing
