# SPDX-License-Identifier: Apache-2.0
"""A journal is what was sealed: each thing that does not check is named, with its block and its place."""

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import msgspec
import pytest
import zstandard

from atoll.base.errors import CorruptError, UsageError, UserError
from atoll.env.chain import (
    BODY_BYTES_MAX,
    FORMAT,
    GENESIS,
    HEAD_BYTES,
    ID_BYTES,
    MAGIC,
    SIGNATURE_BYTES,
    Block,
    ChainError,
    Fault,
    Frame,
    Manifest,
    Position,
    Seal,
    Sealed,
    Sealer,
    TornTail,
    Verifier,
    encode_frame,
    link_of,
    manifest_payload,
    pack_body,
    position_after,
    read,
    read_frames,
    seal_payload,
    segment_start,
    signed_by,
    unpack_body,
)
from atoll.env.limits import BLOCK_FRAME_BYTES_MAX, RECORDS_BYTES_MAX
from tests.unit.recorder_world import ENVIRONMENT, NODE, Hand, block_after, segment_of

HAND = Hand()
OTHER = Hand(8, b"other-node", signer=2)
TEXT = (Path(__file__).resolve().parents[2] / "docs" / "spec" / "environment-journal.md").read_text()


def frame(content: bytes, number: int) -> bytes:
    """The frame of the specification, written here a second time on purpose."""
    size = len(content).to_bytes(3, "little")
    return size + bytes([size[0] ^ size[1] ^ size[2] ^ 0x5A]) + crc32(content, number).to_bytes(4, "little") + content


def items(data: bytes) -> list[object]:
    return [found.item if isinstance(found, Frame) else found for found in read(data)]


def verify(data: bytes, verifier: Verifier) -> Verifier:
    for found in read(data):
        assert isinstance(found, Frame)
        verifier.feed(found.item, f"offset {found.offset}")
    return verifier


def replaced(struct: Block, **fields: object) -> Block:
    return msgspec.structs.replace(struct, **fields)


# Bytes


class Vectors(msgspec.Struct):
    environment: str
    recorder_secret: str
    node: str
    signing_secret: str
    certificate: str
    records: list[str]
    heads: list[str]
    signatures: list[str]
    segment: str


def test_the_vectors_of_the_specification() -> None:
    expected = msgspec.json.decode(TEXT.split("```json\n")[1].split("```")[0], type=Vectors)
    assert (expected.environment, expected.node) == (ENVIRONMENT.hex(), NODE.hex())
    assert (expected.recorder_secret, expected.signing_secret) == ("09" * 32, "01" * 32)
    assert expected.certificate == HAND.sealer.certificate.hex()
    data, _ = segment_of(HAND, *map(bytes.fromhex, expected.records))
    sealed = [found for found in items(data) if isinstance(found, Sealed)]
    assert [one.seal.head.hex() for one in sealed] == expected.heads
    assert [one.seal.signature.hex() for one in sealed] == expected.signatures
    assert data.hex() == expected.segment


def test_the_bytes_are_those_of_the_specification() -> None:
    body = b"\0records"
    block = Block(1, 1, 1, 2, body)
    numbers = b"".join(number.to_bytes(8, "little") for number in (1, 1, 1)) + (2).to_bytes(4, "little")
    head = sha256(b"atoll-chain-1" + bytes(32) + numbers + sha256(body).digest()).digest()
    after = position_after(GENESIS, block)
    assert after == Position(1, 1, 2, head)
    sealed, _ = HAND.seal(GENESIS, block)
    signature = HAND.key.sign(b"atoll-seal-1" + ENVIRONMENT + head)
    sealer = HAND.sealer
    data = segment_start(HAND.manifest()) + encode_frame(OTHER.sealer, 1) + encode_frame(sealed, 1)
    who = [sealer.node, sealer.recorder, sealer.signing_key, sealer.certificate]
    manifest = [1, 1, ENVIRONMENT, "shop", "0.1.0", [0, 0, 0, bytes(32)], [2, *who], HAND.manifest().signature]
    other = [2, OTHER.sealer.node, OTHER.sealer.recorder, OTHER.sealer.signing_key, OTHER.sealer.certificate]
    assert data == (
        b"\x89ATB\r\n\x1a\n"
        + frame(msgspec.msgpack.encode(manifest), 0)
        + frame(msgspec.msgpack.encode(other), 1)
        + frame(msgspec.msgpack.encode([3, [1, 1, 1, 2, body], [head, signature]]), 1)
    )


def test_what_was_written_is_read() -> None:
    data, at = segment_of(HAND, b"one", b"two")
    frames = [found for found in read(data) if isinstance(found, Frame)]
    manifest, first, second = (found.item for found in frames)
    assert manifest == HAND.manifest()
    assert isinstance(first, Sealed)
    assert isinstance(second, Sealed)
    assert unpack_body(first.block.body) == b"one"
    assert second.seal.head == at.head
    assert [found.offset for found in frames] == [0, frames[0].end, frames[1].end]
    assert frames[-1].end == len(data)


def test_reading_from_the_middle_is_the_same() -> None:
    data, _ = segment_of(HAND, b"one", b"two")
    _, first, second = (found for found in read(data) if isinstance(found, Frame))
    assert list(read_frames(data[first.end :], 2, first.end)) == [second]


@pytest.mark.parametrize("size", range(40))
def test_a_cut_begin_is_torn_at_its_begin(size: int) -> None:
    data, _ = segment_of(HAND)
    assert list(read(data[:size])) == ([TornTail(0)] if size else [])


def test_a_cut_block_is_torn_behind_the_last_whole_one() -> None:
    data, _ = segment_of(HAND, b"one")
    begin = len(segment_of(HAND)[0])
    for size in (begin + 1, begin + 8, len(data) - 1):
        assert items(data[:size]) == [HAND.manifest(), TornTail(begin)]


@pytest.mark.parametrize("zeros", [1, 7, 8, 100])
def test_zeros_to_the_end_are_torn(zeros: int) -> None:
    data, _ = segment_of(HAND, b"one")
    assert items(data + bytes(zeros))[-1] == TornTail(len(data))
    assert list(read(bytes(zeros))) == [TornTail(0)]


def test_a_block_that_ends_in_zeros_is_torn() -> None:
    data, _ = segment_of(HAND, b"one")
    begin = len(segment_of(HAND)[0])
    assert items(data[:-16] + bytes(16))[-1] == TornTail(begin)
    assert items(data[:-100] + bytes(100 + 4096))[-1] == TornTail(begin)
    with pytest.raises(CorruptError, match=f"offset {begin}: content"):
        items(data[:-15] + bytes(15))
    more, _ = segment_of(HAND, b"one", b"two")
    with pytest.raises(CorruptError, match=f"offset {begin}: content"):
        items(data[:-16] + bytes(16) + more[len(data) :])


def test_corruption_is_named_with_its_offset() -> None:
    data, _ = segment_of(HAND, b"one")
    begin = len(segment_of(HAND)[0])
    with pytest.raises(CorruptError, match="offset 0: no segment"):
        items(b"X" + data)
    for place in (0, 1, 2, 3):
        changed = bytearray(data)
        changed[begin + place] ^= 1
        with pytest.raises(CorruptError, match=f"offset {begin}: a length"):
            items(bytes(changed))
    for place in (4, 8, 60):
        changed = bytearray(data)
        changed[begin + place] ^= 0x10
        with pytest.raises(CorruptError, match=f"offset {begin}: content"):
            items(bytes(changed))


def test_a_length_above_the_limit_is_corrupt() -> None:
    size = (BLOCK_FRAME_BYTES_MAX + 1).to_bytes(3, "little")
    head = size + bytes([size[0] ^ size[1] ^ size[2] ^ 0x5A]) + bytes(4)
    with pytest.raises(CorruptError, match="a length"):
        list(read_frames(head, 1, 0))


def test_what_is_no_frame_is_corrupt() -> None:
    data, _ = segment_of(HAND)
    block = encode_frame(HAND.seal(GENESIS, block_after(GENESIS))[0], 1)
    for wrong, words in (
        (frame(b"\xc1", 1), "does not decode"),
        (frame(msgspec.msgpack.encode([3, [0, 1, 1, 1, b"x"], [bytes(32), bytes(64)]]), 1), "does not decode"),
        (frame(msgspec.msgpack.encode(HAND.manifest()), 1), "a second manifest"),
        (frame(block[8:], 1) + frame(block[8:], 2), "block 1 in the place of 2"),
        (encode_frame(HAND.seal(GENESIS, block_after(GENESIS))[0], 2), "content that does not check"),
    ):
        with pytest.raises(CorruptError, match=words):
            items(data + wrong)


def test_a_manifest_that_is_none_is_corrupt_and_another_format_is_said() -> None:
    for content in (b"\xc1", msgspec.msgpack.encode([2, 1]), msgspec.msgpack.encode([1, 1, b"short"])):
        with pytest.raises(CorruptError, match="offset 8: "):
            items(MAGIC + frame(content, 0))
    with pytest.raises(UserError, match="A301") as caught:
        items(MAGIC + frame(msgspec.msgpack.encode([1, 2, "whatever"]), 0))
    assert caught.value.where == "offset 8"


# Bodies


def test_bodies_are_compressed_unless_that_makes_them_larger() -> None:
    for records, kind in (
        (b"", 0),
        (b"short", 0),
        (bytes(1000), 1),
        (b"".join(sha256(bytes([number])).digest() for number in range(9)), 0),
    ):
        body = pack_body(records)
        assert body[0] == kind
        assert len(body) <= len(records) + 1
        assert unpack_body(body) == records


def test_a_body_is_bounded_before_it_is_unpacked() -> None:
    with pytest.raises(UsageError):
        pack_body(bytes(RECORDS_BYTES_MAX + 1))
    largest = pack_body(bytes(RECORDS_BYTES_MAX))
    assert len(unpack_body(largest)) == RECORDS_BYTES_MAX
    bomb = zstandard.ZstdCompressor().compress(bytes(RECORDS_BYTES_MAX + 1))
    with pytest.raises(CorruptError, match="when unpacked"):
        unpack_body(b"\1" + bomb)
    nameless = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    with pytest.raises(CorruptError, match="when unpacked"):
        unpack_body(b"\1" + nameless)


def test_a_body_that_is_none_is_refused() -> None:
    packed = pack_body(bytes(1000))
    for body in (b"", b"\2x", b"\1", b"\1noise", packed[:-1], packed + b"x", b"\0" + bytes(RECORDS_BYTES_MAX + 1)):
        with pytest.raises(CorruptError):
            unpack_body(body)


# The chain


def test_a_position_follows_only_its_block() -> None:
    first = position_after(GENESIS, block_after(GENESIS, events=3))
    assert (first.number, first.epoch, first.events) == (1, 1, 3)
    second = block_after(first, epoch=4)
    assert position_after(first, second).epoch == 4
    for wrong, fault in (
        (replaced(second, number=3), Fault.NUMBER),
        (replaced(second, number=1), Fault.NUMBER),
        (replaced(second, first_event=3), Fault.NUMBER),
        (replaced(second, first_event=5), Fault.NUMBER),
    ):
        with pytest.raises(ChainError) as caught:
            position_after(first, wrong)
        assert caught.value.fault is fault
    later = position_after(first, second)
    with pytest.raises(ChainError) as caught:
        position_after(later, replaced(block_after(later), epoch=3))
    assert (caught.value.fault, caught.value.block, str(caught.value)) == (
        Fault.EPOCH,
        3,
        "block 3: its epoch does not check",
    )


def test_every_field_is_in_the_head() -> None:
    block = Block(2, 5, 7, 2, b"\0x")
    before = Position(1, 4, 6, b"h" * HEAD_BYTES)
    head = position_after(before, block).head
    others = [
        position_after(Position(2, 4, 6, b"h" * 32), replaced(block, number=3)).head,
        position_after(before, replaced(block, epoch=6)).head,
        position_after(Position(1, 4, 7, b"h" * 32), replaced(block, first_event=8)).head,
        position_after(before, replaced(block, events=3)).head,
        position_after(before, replaced(block, body=b"\0y")).head,
        position_after(Position(1, 4, 6, b"i" * 32), block).head,
    ]
    assert len({head, *others}) == 7


def test_a_whole_journal_checks_over_its_segments_and_sealers() -> None:
    first, at = segment_of(HAND, b"one", b"two")
    sealed, after = OTHER.seal(at, block_after(at, b"three", epoch=2))
    own, end = HAND.seal(after, block_after(after, b"four"))
    second = (
        segment_start(HAND.manifest(at))
        + encode_frame(OTHER.sealer, 3)
        + encode_frame(OTHER.sealer, 3)
        + encode_frame(sealed, 3)
        + encode_frame(HAND.sealer, 4)
        + encode_frame(own, 4)
    )
    seen: list[Sealer] = []

    def trusts(sealer: Sealer) -> bool:
        seen.append(sealer)
        return True

    verifier = verify(first, Verifier(trusts=trusts))
    assert (verifier.environment, verifier.position) == (ENVIRONMENT, at)
    verify(second, verifier)
    assert verifier.position == end
    assert verifier.manifest == HAND.manifest(at)
    assert verifier.sealer == HAND.sealer
    assert seen == [HAND.sealer, OTHER.sealer, HAND.sealer]
    verifier.check_last()


def fault_of(act: Callable[[], object]) -> tuple[Fault, int, str]:
    with pytest.raises(ChainError) as caught:
        act()
    return caught.value.fault, caught.value.block, caught.value.place


def test_what_does_not_check_is_named() -> None:
    at = GENESIS
    sealed, after = HAND.seal(at, block_after(at))
    forged = Sealed(sealed.block, Seal(sealed.seal.head, bytes(SIGNATURE_BYTES)))
    changed = Sealed(replaced(sealed.block, body=b"\0other"), sealed.seal)
    elsewhere, _ = HAND.seal(at, sealed.block, b"e" * ID_BYTES)
    for item, fault in (
        (forged, Fault.SIGNATURE),
        (changed, Fault.CHAIN),
        (elsewhere, Fault.SIGNATURE),
        (Sealed(replaced(sealed.block, number=2), sealed.seal), Fault.NUMBER),
        (OTHER.seal(at, sealed.block)[0], Fault.SIGNATURE),
    ):
        verifier = Verifier()
        verifier.feed(HAND.manifest())
        assert fault_of(partial(verifier.feed, item, "offset 9")) == (fault, item.block.number, "offset 9")
    verifier = Verifier(position=after, environment=ENVIRONMENT)
    verifier.feed(HAND.sealer)
    old = replaced(block_after(after), epoch=1)
    later = Verifier(position=Position(1, 2, 1, after.head), environment=ENVIRONMENT)
    later.feed(HAND.sealer)
    assert fault_of(lambda: later.feed(Sealed(old, sealed.seal))) == (Fault.EPOCH, 2, "")
    assert str(ChainError(Fault.EPOCH, 2, "there")) == "there, block 2: its epoch does not check"


def test_a_manifest_that_does_not_fit_is_named() -> None:
    _, after = HAND.seal(GENESIS, block_after(GENESIS))
    assert fault_of(lambda: Verifier(b"e" * 16).feed(HAND.manifest())) == (Fault.CHAIN, 1, "")
    assert fault_of(lambda: Verifier(position=after).feed(HAND.manifest())) == (Fault.NUMBER, 1, "")
    other = msgspec.structs.replace(after, head=b"h" * 32)
    assert fault_of(lambda: Verifier(position=after).feed(HAND.manifest(other))) == (Fault.CHAIN, 2, "")
    renamed = msgspec.structs.replace(HAND.manifest(), name="ship")
    assert fault_of(lambda: Verifier().feed(renamed)) == (Fault.SIGNATURE, 1, "")


def test_a_sealer_must_be_certified_and_trusted() -> None:
    false = msgspec.structs.replace(OTHER.sealer, signing_key=HAND.sealer.signing_key)
    verifier = Verifier()
    assert fault_of(lambda: verifier.feed(false)) == (Fault.CERTIFICATE, 1, "")
    verifier.feed(HAND.manifest())
    assert fault_of(lambda: verifier.feed(false)) == (Fault.CERTIFICATE, 1, "")
    assert fault_of(lambda: Verifier(trusts=lambda _: False).feed(HAND.manifest())) == (Fault.CERTIFICATE, 1, "")


def test_signatures_can_be_left_out_and_the_last_seal_covers_all() -> None:
    data, at = segment_of(HAND, b"one", b"two")
    verifier = verify(data, Verifier(signatures=False))
    assert verifier.position == at
    verifier.check_last()
    Verifier().check_last()
    sealed, _ = OTHER.seal(at, block_after(at))
    verifier.feed(sealed)
    assert fault_of(lambda: verifier.check_last("here")) == (Fault.SIGNATURE, 3, "here")


def test_a_block_needs_what_comes_before_it() -> None:
    sealed, _ = HAND.seal(GENESIS, block_after(GENESIS))
    with pytest.raises(UsageError):
        Verifier().feed(sealed)


def test_a_signature_of_anything_is_judged() -> None:
    payload = seal_payload(ENVIRONMENT, bytes(HEAD_BYTES))
    key = HAND.sealer.recorder
    assert signed_by(key, payload, HAND.key.sign(payload))
    assert not signed_by(key, payload, b"")
    assert not signed_by(b"short", payload, HAND.key.sign(payload))
    assert manifest_payload(HAND.manifest()) == manifest_payload(
        msgspec.structs.replace(HAND.manifest(), signature=b"s" * SIGNATURE_BYTES)
    )


def test_a_link_gives_the_head_and_no_other_link_does() -> None:
    block = block_after(GENESIS)
    link = link_of(GENESIS.head, block)
    assert link.head == position_after(GENESIS, block).head
    changes: list[dict[str, object]] = [
        {"before": b"h" * HEAD_BYTES},
        {"number": 2},
        {"epoch": 2},
        {"first_event": 2},
        {"events": 2},
        {"body": b"b" * HEAD_BYTES},
    ]
    assert all(msgspec.structs.replace(link, **change).head != link.head for change in changes)


def test_a_frame_holds_the_largest_block() -> None:
    block = Block(1, 1, 1, 1, bytes(BODY_BYTES_MAX))
    sealed, _ = HAND.seal(GENESIS, block)
    data = segment_start(HAND.manifest()) + encode_frame(sealed, 1)
    assert items(data)[1] == sealed
    assert isinstance(items(data)[0], Manifest)
    assert FORMAT == 1
