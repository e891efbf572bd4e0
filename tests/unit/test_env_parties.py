# SPDX-License-Identifier: Apache-2.0
"""A reference is data: it names, compares, and goes through any encoding."""

import msgspec
import pytest

from atoll.env.parties import PARTY_BYTES, PATH_CHARS_MAX, Ref


def test_a_reference_survives_its_encoding() -> None:
    ref = Ref(b"p" * PARTY_BYTES, "rooms/lobby")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(ref), type=Ref) == ref
    assert Ref(b"p" * PARTY_BYTES) == Ref(b"p" * PARTY_BYTES, "")
    assert {ref: 1}[Ref(b"p" * PARTY_BYTES, "rooms/lobby")] == 1


@pytest.mark.parametrize("content", [[b"short", ""], [b"p" * PARTY_BYTES, "x" * (PATH_CHARS_MAX + 1)], ["text"], []])
def test_what_is_no_reference_does_not_decode(content: list[object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(content), type=Ref)
