# SPDX-License-Identifier: Apache-2.0
"""What server and guest say to each other reads back, and nothing else decodes."""

from random import Random

import msgspec
import pytest

from atoll.base.errors import WireError
from atoll.domain.guest.messages import (
    Answer,
    Blank,
    Content,
    Done,
    Fault,
    Handle,
    Load,
    Request,
    Restore,
    Show,
    Status,
    Write,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)
from atoll.env.records import Ended, Fired, Note, Post, Resolve

REQUESTS: list[Request] = [Load(b"x"), Blank(), Restore(b"s"), Handle(5, Fired()), Write(go_on=True), Show("a/b")]
ANSWERS: list[Answer] = [
    Done(Status(1, 2, 3, is_quiescent=False), (Post(b"p" * 16, 1, 1, b"x"), Note("n"), Ended(), Resolve(1, "n")), 4),
    Done(Status(), (), 0, (b"p" * 16,)),
    Fault("raised", "no", 3),
    Content(b"state", Status()),
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_requests_read_back(request_: Request) -> None:
    assert decode_request(encode_request(request_)) == request_


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_read_back(answer: Answer) -> None:
    assert decode_answer(encode_answer(answer)) == answer


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x90", b"\x91" * 3000, *(msgspec.msgpack.encode(one) for one in (Blank(), [9], [1, [-1]], "x"))],
)
def test_nothing_else_is_an_answer(data: bytes) -> None:
    with pytest.raises(WireError, match="answer"):
        decode_answer(data)


def test_changed_bytes_raise_nothing_else() -> None:
    rng = Random(7)
    for answer in ANSWERS:
        data = encode_answer(answer)
        for _ in range(200):
            changed = bytearray(data)
            changed[rng.randrange(len(changed))] = rng.randrange(256)
            try:
                decode_answer(bytes(changed[: rng.randrange(len(changed) + 1)]))
            except WireError:
                continue
