# SPDX-License-Identifier: Apache-2.0
"""A codec returns a value of its union or a ``WireError``, and never lets a bad value out."""

from typing import Annotated

import msgspec
import pytest

from atoll.base.errors import UsageError, WireError
from atoll.core.codec import Codec
from atoll.core.machine import Tuple


class Put(Tuple, frozen=True, tag=1):
    key: Annotated[str, msgspec.Meta(max_length=8)]
    value: bytes


class Count(Tuple, frozen=True, tag=2):
    numbers: tuple[int, ...]


class Fussy(Tuple, frozen=True, tag=3):
    amount: int

    def __post_init__(self) -> None:
        if self.amount == 13:
            raise OverflowError("a validator of our own")


CODEC: Codec[Put | Count | Fussy] = Codec(Put | Count | Fussy, bytes_max=64, name="sample")


@pytest.mark.parametrize("value", [Put("key", b"\0" * 8), Count(()), Count((1, -(1 << 63), (1 << 64) - 1)), Fussy(1)])
def test_what_goes_in_comes_out(value: Put | Count | Fussy) -> None:
    payload = CODEC.encode(value)
    assert CODEC.decode(payload) == value
    assert CODEC.decode(memoryview(payload)) == value


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x93\x01\xa3key",  # Cut.
        CODEC.encode(Count(())) + b"\0",  # Followed by more.
        msgspec.msgpack.encode([9, 1]),  # Unknown tag.
        msgspec.msgpack.encode(["Put", "a", b""]),
        msgspec.msgpack.encode([1, "a", b"", 1]),  # One field too many.
        msgspec.msgpack.encode([1, "a"]),
        msgspec.msgpack.encode([1, "a" * 9, b""]),
        msgspec.msgpack.encode([1, 5, b""]),
        msgspec.msgpack.encode([2, [1.5]]),
        msgspec.msgpack.encode({"type": 1}),
        b"\x93\x01\xa1\xff\xc4\x00",  # Not UTF-8.
        b"\x92\x02\xdd\xff\xff\xff\xff",  # Announces 4 G items.
        b"\x92\x02" + b"\x91" * 60,  # Deep.
        msgspec.msgpack.encode([3, 13]),  # A validator raises.
    ],
)
def test_anything_else_is_a_wire_error(payload: bytes) -> None:
    with pytest.raises(WireError) as caught:
        CODEC.decode(payload)
    assert caught.value.reason == "sample does not decode"


def test_nesting_beyond_the_recursion_limit_is_a_wire_error() -> None:
    nested: Codec[object] = Codec(object, bytes_max=1 << 20, name="nested")
    with pytest.raises(WireError, match="nested does not decode"):
        nested.decode(b"\x91" * (1 << 20))


def test_a_payload_of_the_bound_is_read_and_one_more_is_not() -> None:
    payload = CODEC.encode(Put("k", bytes(58)))
    assert len(payload) == 64
    assert CODEC.decode(payload) == Put("k", bytes(58))
    with pytest.raises(WireError, match="sample too long"):
        CODEC.decode(payload + b"\0")


def test_a_value_beyond_the_bound_does_not_leave() -> None:
    with pytest.raises(UsageError, match="sample Put of 65 bytes, at most 64"):
        CODEC.encode(Put("k", bytes(59)))


@pytest.mark.parametrize("number", [1 << 64, object()])
def test_a_value_that_has_no_encoding_is_the_callers_fault(number: int) -> None:
    with pytest.raises(UsageError, match="sample Count does not encode"):
        CODEC.encode(Count((number,)))


def test_a_codec_without_room_is_refused() -> None:
    with pytest.raises(UsageError):
        Codec[Put](Put, bytes_max=0, name="sample")
