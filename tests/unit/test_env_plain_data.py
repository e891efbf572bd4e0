# SPDX-License-Identifier: Apache-2.0
"""Whatever a program can hold, or a stranger can send, can be looked at."""

from typing import Any

import msgspec
import pytest

from atoll.env.plain_data import MapKey, decode_fields, decode_plain

encode = msgspec.msgpack.Encoder().encode
TEXT = "x" * 5
FFFD = "\N{REPLACEMENT CHARACTER}"


class Cell(msgspec.Struct, frozen=True):
    x: int
    inner: tuple[Any, ...] = ()


def test_keys_that_are_structs_are_keys() -> None:
    cells = {Cell(1): 2, (Cell(3), "a"): [{Cell(4, (Cell(5),)): b"\xff"}], "z": 6}
    plain = decode_plain(encode(cells))
    assert plain == {
        MapKey(x=1, inner=()): 2,
        (MapKey(x=3, inner=()), "a"): [{MapKey(x=4, inner=(MapKey(x=5, inner=()),)): b"\xff"}],
        "z": 6,
    }
    assert encode(plain) == encode(cells)
    assert msgspec.convert({MapKey(x=1, inner=()): 2}, dict[Cell, int]) == {Cell(1): 2}
    assert decode_fields(encode({"n": 1, "cells": cells})) == {"n": 1, "cells": plain}


def test_what_can_be_decoded_is_what_it_always_was() -> None:
    value: dict[str, Any] = {"is": "T", "n": [1, 2.5, None, True, b"x"], "of": {(1, "b"): {}}}
    assert decode_plain(encode(value)) == value
    assert decode_fields(encode(value)) == value
    with pytest.raises(msgspec.DecodeError):
        decode_fields(encode([1]))
    with pytest.raises(msgspec.DecodeError):
        decode_fields(encode({1: 1}))


@pytest.mark.parametrize("head", [b"\x81", b"\xde\x00\x01", b"\xdf\x00\x00\x00\x01"])
def test_maps_are_read_however_their_size_is_written(head: bytes) -> None:
    assert decode_plain(head + encode(Cell(1)) + b"\x02") == {MapKey(x=1, inner=()): 2}
    many = {Cell(number): number for number in range(20)}
    assert list(decode_plain(encode(many)).values()) == [*range(20)]


@pytest.mark.parametrize("head", [b"\x92", b"\xdc\x00\x02", b"\xdd\x00\x00\x00\x02"])
def test_lists_are_read_however_their_size_is_written(head: bytes) -> None:
    assert decode_plain(head + encode({Cell(1): 2}) + b"\x02") == [{MapKey(x=1, inner=()): 2}, 2]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xa1\xff", FFFD),
        (b"\xd9\x02a\xff", f"a{FFFD}"),
        (b"\xda\x00\x02a\xff", f"a{FFFD}"),
        (b"\xdb\x00\x00\x00\x02a\xff", f"a{FFFD}"),
        (b"\x92\x01\xa1\xff", [1, FFFD]),
        (b"\x81\xa1\xff\x01", {FFFD: 1}),
        (b"\xd7\xff" + b"\xff" * 8, b"\xd7\xff" + b"\xff" * 8),  # A time that there is not.
        (b"\x81\xa1x\xd7\xff" + b"\xff" * 8, {"x": b"\xd7\xff" + b"\xff" * 8}),
        (b"\xc1", b"\xc1"),
        (b"\x92\x01", b"\x92\x01"),
        (b"\xdf\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"),
    ],
)
def test_what_no_program_could_read_is_shown_as_well_as_it_can_be(data: bytes, expected: object) -> None:
    assert decode_plain(data) == decode_plain(memoryview(data)) == expected


@pytest.mark.parametrize("innermost", [b"\x01", b"\xa1\xff"])
def test_what_is_too_deep_says_so_and_is_not_left_out_of_a_state(innermost: bytes) -> None:
    deep = b"\x91" * 100_000 + innermost
    assert decode_plain(deep) == "(too deep to be shown)"
    with pytest.raises(RecursionError):
        decode_fields(b"\x82\xa1a\xa1\xff\xa1b" + deep)
