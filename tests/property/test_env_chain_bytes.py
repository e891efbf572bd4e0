# SPDX-License-Identifier: Apache-2.0
"""Journals of environments cut, damaged and mixed with noise: a cut is a torn tail, a changed byte is found."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import CorruptError, UserError
from atoll.env.chain import (
    GENESIS,
    ChainError,
    Fault,
    Frame,
    Position,
    Sealed,
    TornTail,
    Verifier,
    encode_frame,
    pack_body,
    read,
    segment_start,
    unpack_body,
)
from tests.unit.recorder_world import Hand, block_after

HANDS = (Hand(), Hand(8, b"other-node", signer=2))
blocks = st.lists(st.tuples(st.binary(max_size=300), st.integers(1, 4), st.integers(0, 1)), max_size=6)
Script = list[tuple[bytes, int, int]]


def written(script: Script) -> tuple[bytes, Position]:
    """A segment by our own hand, with blocks of both."""
    parts, at, said = [segment_start(HANDS[0].manifest())], GENESIS, 0
    for records, events, who in script:
        sealed, after = HANDS[who].seal(at, block_after(at, records, events=events))
        if who != said:
            parts.append(encode_frame(HANDS[who].sealer, after.number))
        parts.append(encode_frame(sealed, after.number))
        at, said = after, who
    return b"".join(parts), at


def whole(data: bytes) -> list[Frame]:
    return [found for found in read(data) if isinstance(found, Frame)]


@given(blocks)
def test_what_is_written_is_read_and_checks(script: Script) -> None:
    data, at = written(script)
    verifier = Verifier()
    for frame in whole(data):
        verifier.feed(frame.item)
    assert verifier.position == at


@given(blocks, st.data())
def test_any_cut_leaves_the_whole_frames_before_it(script: Script, data: st.DataObject) -> None:
    journal, _ = written(script)
    frames = whole(journal)
    cut = data.draw(st.integers(0, len(journal)))
    left = list(read(journal[:cut]))
    kept = [frame for frame in frames if frame.end <= cut]
    end = kept[-1].end if kept else 0
    assert left == [*kept, *([TornTail(end)] if cut > end else [])]


def is_whole(data: bytes) -> bool:
    """Whether it reads to its end; anything but a refusal fails the test."""
    try:
        return not any(isinstance(found, TornTail) for found in read(data))
    except (CorruptError, UserError):
        return False


@given(blocks, st.data())
def test_a_changed_byte_is_corruption_and_never_a_torn_tail(script: Script, data: st.DataObject) -> None:
    journal, _ = written(script)
    place = data.draw(st.integers(0, len(journal) - 1))
    changed = bytearray(journal)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        found = list(read(bytes(changed)))
    except CorruptError:
        return
    raise AssertionError(f"byte {place} of {len(journal)}: {found[-1]}")


@given(blocks, st.integers(1, 5000), st.data())
def test_a_changed_byte_before_a_torn_tail_is_corruption(script: Script, zeros: int, data: st.DataObject) -> None:
    journal, _ = written(script)
    place = data.draw(st.integers(0, len(journal) - 1))
    changed = bytearray(journal + bytes(zeros))
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        list(read(bytes(changed)))
    except CorruptError:
        return
    raise AssertionError(f"byte {place} of {len(journal)}")


@given(blocks.filter(bool), st.data())
def test_a_block_that_was_changed_together_with_its_checks_does_not_verify(script: Script, data: st.DataObject) -> None:
    """Who can write the file can make its frames check; what he cannot make is a seal."""
    journal, _ = written(script)
    which = data.draw(st.integers(1, len(script)))
    body = pack_body(data.draw(st.binary(max_size=300)))
    verifier, found = Verifier(), 0
    caught: ChainError | None = None
    for frame in whole(journal):
        item = frame.item
        if isinstance(item, Sealed) and item.block.number == which and item.block.body != body:
            item = msgspec.structs.replace(item, block=msgspec.structs.replace(item.block, body=body))
            found = which
        try:
            verifier.feed(item)
        except ChainError as error:
            caught = error
            break
    assert ((caught.fault, caught.block) if caught else None) == ((Fault.CHAIN, found) if found else None)


@given(st.binary(max_size=400), blocks)
def test_any_bytes_are_read_or_refused(noise: bytes, script: Script) -> None:
    journal, _ = written(script[:2])
    for data in (noise, journal + noise, noise + journal):
        is_whole(data)


@given(st.binary(max_size=2000))
def test_bodies_come_back(records: bytes) -> None:
    assert unpack_body(pack_body(records)) == records


@given(st.binary(max_size=200), st.data())
def test_any_body_is_unpacked_or_refused(noise: bytes, data: st.DataObject) -> None:
    for body in (noise, b"\1" + noise, pack_body(noise * 20)[: data.draw(st.integers(0, 100))]):
        try:
            unpack_body(body)
        except CorruptError:
            continue
