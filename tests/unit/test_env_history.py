# SPDX-License-Identifier: Apache-2.0
"""What is inside a block: bodies and snapshots read back, and nothing else decodes."""

from hashlib import sha256

import msgspec
import pytest

from atoll.base.errors import CorruptError
from atoll.env.chain import Block, pack_body
from atoll.env.history import (
    DIGEST_BYTES,
    NO_MARK,
    SNAPSHOT_FORMAT,
    Entry,
    Snapshot,
    Written,
    check_written,
    decode_body,
    decode_snapshot,
    digest_after,
    encode_body,
    mark_of,
    written_in,
)
from atoll.env.records import Checkpointed, Fired, Note, Post, Record
from tests.unit.env_world import ANN, CODE, arrived, item


def test_a_body_reads_back() -> None:
    entries = [Entry(5, NO_MARK, Fired()), Entry(6, 77, arrived(1, item({"is": "Bid"}, 1)))]
    body = decode_body(encode_body(b"d" * DIGEST_BYTES, entries))
    assert body.digest == b"d" * DIGEST_BYTES
    assert list(body.entries) == entries


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x92\xa1d\x90", msgspec.msgpack.encode([b"short", []]), b"\x91" * 2000]
)
def test_what_is_no_body_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptError, match="do not decode"):
        decode_body(data)


def _snapshot(form: int = SNAPSHOT_FORMAT) -> Snapshot:
    fields = {"code": CODE, "digest": bytes(DIGEST_BYTES), "epoch": 3, "holders": [b"n" * 10], "copies": 3}
    fields |= {"origin": b"o" * 10, "state": b"state", "level": "process"}
    return Snapshot(form, *(fields[name] for name in Snapshot.__struct_fields__[1:]))  # type: ignore[arg-type]


def test_a_snapshot_reads_back() -> None:
    back = decode_snapshot(_snapshot().encode())
    assert (back.state, back.epoch, back.code) == (b"state", 3, CODE)


def test_what_is_no_snapshot_is_refused() -> None:
    with pytest.raises(CorruptError, match="does not decode"):
        decode_snapshot(b"\x90")
    with pytest.raises(CorruptError, match="of format 99"):
        decode_snapshot(_snapshot(99).encode())


def test_the_digest_follows_from_all_effects_in_order() -> None:
    start = bytes(DIGEST_BYTES)
    one, two = Note("one"), Post(ANN, 1, 1, b"x")
    assert digest_after(start, [one, two]) == digest_after(start, [one, two])
    assert digest_after(start, [one, two]) != digest_after(start, [two, one])
    assert digest_after(digest_after(start, [one]), [two]) != digest_after(start, [one])


def test_a_mark_is_never_that_of_no_effects() -> None:
    assert mark_of(bytes(16)) == 1
    assert mark_of(b"\x02\x01" + bytes(14)) == 0x0102


def _block(*records: Record) -> Block:
    return Block(3, 2, 1, 1, pack_body(encode_body(bytes(16), [Entry(1, 0, record) for record in records])))


def test_a_block_says_the_state_that_was_stored_after_it() -> None:
    snapshot = msgspec.structs.replace(_snapshot(), digest=bytes(16), epoch=2)
    written = written_in(_block(Fired(), Checkpointed(sha256(snapshot.state).digest())))
    assert written == Written(3, 2, sha256(snapshot.state).digest(), bytes(16))
    check_written(snapshot, written)
    changes: list[dict[str, object]] = [{"state": b"another"}, {"epoch": 3}, {"digest": b"d" * 16}]
    for change in changes:
        with pytest.raises(CorruptError, match="block 3"):
            check_written(msgspec.structs.replace(snapshot, **change), written)


@pytest.mark.parametrize("records", [(), (Checkpointed(),), (Checkpointed(b"d" * 32), Fired())])
def test_a_block_after_which_none_was_stored_says_so(records: tuple[Record, ...]) -> None:
    with pytest.raises(CorruptError, match="no state was stored after block 3"):
        written_in(_block(*records))
    with pytest.raises(CorruptError):
        written_in(Block(3, 2, 1, 1, b"\0nonsense"))
