# SPDX-License-Identifier: Apache-2.0
"""A snapshot is bound to its environment, block and state; a standing to its environment."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from atoll.base.errors import CorruptError
from atoll.domain.recorder.snapshots import (
    Signed,
    Standing,
    checks,
    decode_standing,
    encode_snapshot,
    encode_standing,
    open_snapshot,
)
from tests.unit.recorder_world import ENVIRONMENT, NODE, key_in

HEAD = b"h" * 32
STANDING = Standing(ENVIRONMENT, 3, NODE)


def test_a_snapshot_comes_back(tmp_path: Path) -> None:
    key = key_in(tmp_path)
    data = encode_snapshot(key, ENVIRONMENT, (7, HEAD), b"state")
    signature = key.sign(
        b"atoll-snapshot-1" + ENVIRONMENT + (7).to_bytes(8, "little") + HEAD + sha256(b"state").digest()
    )
    header = msgspec.msgpack.encode([1, ENVIRONMENT, 7, HEAD, key.sealer, signature])
    assert data == len(header).to_bytes(4, "little") + header + b"state"
    signed = open_snapshot(data, ENVIRONMENT, 7)
    assert signed == Signed(HEAD, b"state", key.sealer, signature)
    assert checks(ENVIRONMENT, 7, signed)
    assert not checks(ENVIRONMENT, 8, signed)
    false = msgspec.structs.replace(key.sealer, node=b"other-node")
    assert not checks(ENVIRONMENT, 7, replace(signed, sealer=false))


def test_a_snapshot_that_was_changed_or_is_of_something_else_is_refused(tmp_path: Path) -> None:
    data = encode_snapshot(key_in(tmp_path), ENVIRONMENT, (7, HEAD), b"state")
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(CorruptError):
            open_snapshot(bytes(changed), ENVIRONMENT, 7)
    for size in range(len(data)):
        with pytest.raises(CorruptError):
            open_snapshot(data[:size], ENVIRONMENT, 7)
    for environment, number in ((b"e" * 16, 7), (ENVIRONMENT, 8)):
        with pytest.raises(CorruptError, match="something else"):
            open_snapshot(data, environment, number)


def test_a_standing_comes_back_or_is_refused() -> None:
    full = Standing(ENVIRONMENT, 3, NODE, 2, 70, 5)
    assert decode_standing(encode_standing(full), ENVIRONMENT) == full
    data = encode_standing(STANDING)
    assert decode_standing(data, ENVIRONMENT) == STANDING
    with pytest.raises(CorruptError, match="another environment"):
        decode_standing(data, b"e" * 16)
    for wrong in (b"", data[:-1], data + b"x", bytes(32) + data[32:]):
        with pytest.raises(CorruptError, match="does not check"):
            decode_standing(wrong, ENVIRONMENT)
    nonsense = b"\xc1"
    with pytest.raises(CorruptError, match="does not decode"):
        decode_standing(sha256(nonsense).digest() + nonsense, ENVIRONMENT)


def test_files_of_before_are_read() -> None:
    for node, read in ((NODE, NODE), (b"", b""), (bytes(10), b"")):
        content = msgspec.msgpack.encode([ENVIRONMENT, 3, node])
        found = decode_standing(sha256(content).digest() + content, ENVIRONMENT)
        assert found == Standing(ENVIRONMENT, 3, read, 0, 0, 0)
