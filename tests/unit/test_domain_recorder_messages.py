# SPDX-License-Identifier: Apache-2.0
"""Requests and answers come back as they were, whatever pieces the stream was cut into; nothing else decodes."""

import pytest

from atoll.base.errors import UsageError, WireError
from atoll.domain.limits import CODE_BYTES_MAX, MESSAGE_BYTES_MAX
from atoll.domain.recorder.messages import (
    WORDS_CHARS_MAX,
    Answer,
    Append,
    Appended,
    Blocks,
    Certify,
    Code,
    Content,
    Create,
    Cut,
    Done,
    Forget,
    Greeting,
    Inbox,
    Keep,
    KeepCode,
    KeepHead,
    KeepSnapshot,
    Kept,
    KeptHead,
    List,
    Listed,
    Promise,
    Read,
    ReadCode,
    ReadSnapshot,
    Recorded,
    Refused,
    RefusedError,
    Request,
    Restart,
    Retain,
    Retained,
    Snapshot,
    Starting,
    Taken,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)
from atoll.env.chain import GENESIS, Link, Position
from tests.unit.recorder_world import ENVIRONMENT, NODE, Hand, block_after

HAND = Hand()
BLOCK = block_after(GENESIS)
SEALED, AT = HAND.seal(GENESIS, BLOCK)
DIGEST = b"d" * 32
KEPT = KeptHead(ENVIRONMENT, Link(DIGEST, 1, 1, 1, 1, DIGEST), b"s" * 64)
REQUESTS: tuple[Request, ...] = (
    List(1),
    Create(2, ENVIRONMENT, "shop"),
    Append(3, ENVIRONMENT, BLOCK),
    Keep(4, ENVIRONMENT, HAND.sealer, BLOCK, SEALED.seal),
    Cut(5, ENVIRONMENT, 1),
    Promise(6, ENVIRONMENT, 2, NODE),
    KeepSnapshot(7, ENVIRONMENT, 0, b"state"),
    ReadSnapshot(8, ENVIRONMENT, 0),
    Read(9, ENVIRONMENT, 1),
    KeepCode(10, DIGEST, b"code"),
    ReadCode(11, DIGEST),
    KeepHead(12, NODE, KEPT),
    Forget(14, ENVIRONMENT),
    Retain(15, ENVIRONMENT, 1),
    Promise(17, ENVIRONMENT, 2),
    Restart(18, ENVIRONMENT, floor=(3, 4)),
    Restart(19, ENVIRONMENT, AT, (3, 4), Taken(b"state", HAND.sealer, b"s" * 64)),
    ReadSnapshot(20, ENVIRONMENT, 7, upto=True),
    Retain(21, ENVIRONMENT, 1, 1 << 30),
    Certify(16, NODE, b"k" * 32, b"c" * 64),
)
ANSWERS: tuple[Answer, ...] = (
    Starting(3),
    Greeting(b"k" * 32, "0.1.0", HAND.sealer),
    Done(1),
    Appended(2, 1, SEALED.seal, DIGEST),
    Kept(3, 1),
    Refused(4, Code.FULL, "no room"),
    Listed(5, (Recorded(ENVIRONMENT, "shop", 1, AT, 2, NODE, (0, 1)),)),
    Snapshot(6, 1, DIGEST, b"state"),
    Snapshot(11, 1, DIGEST, b"state", 2, 3, HAND.sealer, b"s" * 64),
    Retained(12, 9, 8),
    Listed(13, (Recorded(ENVIRONMENT, "shop", 1, AT, floor=(3, 4)),)),
    Blocks(7, (HAND.sealer, SEALED)),
    Content(8, b"code"),
    Retained(10, 1),
)


@pytest.mark.parametrize("size", [1, 3, 1000, 1 << 20])
def test_messages_come_back_from_any_pieces(size: int) -> None:
    stream = b"".join(map(encode_request, REQUESTS)) + b"".join(map(encode_answer, ANSWERS))
    inbox, contents = Inbox(), list[bytes]()
    for begin in range(0, len(stream), size):
        inbox.add(stream[begin : begin + size])
        while (content := inbox.take()) is not None:
            contents.append(content)
    assert len(inbox) == 0
    assert tuple(map(decode_request, contents[: len(REQUESTS)])) == REQUESTS
    assert tuple(map(decode_answer, contents[len(REQUESTS) :])) == ANSWERS


def test_an_inbox_holds_what_is_not_whole() -> None:
    inbox = Inbox()
    assert inbox.take() is None
    inbox.add(encode_answer(Done(1)) + b"\5\0\0\0half")
    assert inbox.take() is not None
    assert inbox.take() is None
    assert len(inbox) == 8
    inbox.clear()
    assert len(inbox) == 0


def test_a_message_that_is_too_long_is_refused_by_its_length() -> None:
    inbox = Inbox()
    inbox.add(MESSAGE_BYTES_MAX.to_bytes(4, "little"))
    assert inbox.take() is None
    inbox.clear()
    inbox.add((MESSAGE_BYTES_MAX + 1).to_bytes(4, "little"))
    with pytest.raises(WireError, match="too long"):
        inbox.take()


@pytest.mark.parametrize(
    "content", [b"", b"\xc1", b"\x92\xa4List", b"\x91\xa7Nothing", b"\x92\xa4List\xff", b"\x92\xa4Done\xff"]
)
def test_what_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises(WireError):
        decode_request(content)
    with pytest.raises(WireError):
        decode_answer(content)


def test_what_breaks_its_own_bounds_is_refused_on_the_other_side() -> None:
    with pytest.raises(WireError):
        decode_request(encode_request(KeepCode(1, DIGEST, bytes(CODE_BYTES_MAX + 1)))[4:])
    with pytest.raises(WireError):
        decode_request(encode_request(Cut(1, b"short", 1))[4:])
    with pytest.raises(UsageError):
        encode_request(List(1 << 70))


def test_a_snapshot_says_where_the_journal_stands() -> None:
    assert Snapshot(1, 7, DIGEST, b"state", 2, 30).at == Position(7, 2, 30, DIGEST)


def test_a_refusal_is_said_in_few_words() -> None:
    error = RefusedError(Code.IO, "x" * 2000)
    assert Refused.of(7, error) == Refused(7, Code.IO, "x" * WORDS_CHARS_MAX)
    assert str(RefusedError(Code.FULL, "no room")) == "full: no room"
