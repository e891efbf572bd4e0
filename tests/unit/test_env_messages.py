# SPDX-License-Identifier: Apache-2.0
"""What goes between parties: everything that can be said is read back, and nothing else decodes."""

from typing import Any

import msgspec
import pytest

from atoll.base.errors import UsageError, WireError
from atoll.env.limits import (
    CARRIED_BYTES_MAX,
    CODE_CHUNK_BYTES_MAX,
    HOLDERS_MAX,
    ITEMS_MAX,
    MESSAGE_BYTES_MAX,
    NAME_CHARS_MAX,
    NUMBER_MAX,
    PARCEL_BYTES,
    PASSED_ON_BYTES,
)
from atoll.env.messages import (
    Answered,
    Asked,
    Carried,
    CodeGiven,
    CodeWanted,
    Letter,
    Message,
    Notice,
    Notices,
    Receipt,
    Refusal,
    count_items,
    decode_message,
    encode_message,
    join_items,
    parcels_of,
    split_items,
)

A, B, NODE, CODE = b"a" * 16, b"b" * 16, b"n" * 10, b"c" * 32
encode = msgspec.msgpack.encode
ITEM = [{"is": "Add", "n": 1}, 7, 0, "", ""]
NOTICE = Notice(A, 3, NODE, "shop", "Shop", CODE, (NODE,))
ALL: tuple[Message, ...] = (
    Carried(A, B, 1, encode([ITEM])),
    Receipt(A, B, 0),
    Receipt(A, B, (1 << 63) - 1, again=True),
    Refusal(A, B, "disk-full", "the disk of one refuses"),
    Notices(()),
    Notices((NOTICE, Notice(B, 0, NODE, "s", "S", CODE, (), ended=True))),
    CodeWanted(CODE),
    CodeGiven(CODE, b"code"),
    Asked(1, "show", b"{}"),
    Answered(1, b"{}"),
    Answered(2, b"", "A609", "there is none", "here", "mend it"),
    Letter(b"letter"),
)


@pytest.mark.parametrize("message", ALL)
def test_a_message_is_read_back(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


def test_tags_are_those_of_the_specification() -> None:
    assert {type(one).__name__: encode_message(one)[1] for one in ALL} == {
        "Carried": 64,
        "Receipt": 65,
        "Refusal": 66,
        "Notices": 67,
        "CodeWanted": 68,
        "CodeGiven": 69,
        "Letter": 70,
        "Asked": 71,
        "Answered": 72,
    }


NONE: list[Any] = [
    [64, A[1:], B, 1, b""],
    [64, A, B, 0, b""],
    [64, A, B, 1 << 63, b""],
    [65, A, B, -1],
    [67, [[A, 1, NODE, "", "Shop", CODE, []]]],
    [67, [[A, 1, NODE, "x" * (NAME_CHARS_MAX + 1), "Shop", CODE, []]]],
    [67, [[A, 1, NODE, "shop", "x" * 100_000, CODE, []]]],
    [67, [[A, 1, NODE, "shop", "Shop", CODE, [NODE] * (HOLDERS_MAX + 1)]]],
    [67, [[A, NUMBER_MAX + 1, NODE, "shop", "Shop", CODE, []]]],
    [73, A, NUMBER_MAX + 1],
    [74, A, NUMBER_MAX + 1, 0],
    [75, A, NUMBER_MAX + 1, 0, 0],
    [69, CODE, bytes(CODE_CHUNK_BYTES_MAX + 1)],
    [99],
    {"is": "Carried"},
    7,
]


@pytest.mark.parametrize("wrong", NONE, ids=lambda wrong: str(wrong)[:40])
def test_what_is_none_is_refused(wrong: object) -> None:
    with pytest.raises(WireError):
        decode_message(encode(wrong))


@pytest.mark.parametrize("message", ALL)
def test_a_message_that_is_cut_or_followed_by_more_is_refused(message: Message) -> None:
    whole = encode_message(message)
    for cut in (whole[:-1], whole + b"\0"):
        with pytest.raises(WireError):
            decode_message(cut)


def test_what_decodes_can_be_passed_on_however_much_its_sender_left_out() -> None:
    refusal = [66, A, B, "code"]
    text = "t" * (MESSAGE_BYTES_MAX - PASSED_ON_BYTES - len(encode([*refusal, ""])) - 4)
    for short in (encode([*refusal, text]), encode([64, A, B, 1, bytes(CARRIED_BYTES_MAX)])):
        message = decode_message(short)
        assert isinstance(message, Carried | Refusal)
        assert len(encode_message(msgspec.structs.replace(message, hops=message.hops + 1))) > len(short)
    with pytest.raises(WireError):
        decode_message(encode([*refusal, f"{text}t"]))


def test_a_message_that_is_too_long_is_neither_made_nor_read() -> None:
    with pytest.raises(UsageError):
        encode_message(Letter(bytes(CARRIED_BYTES_MAX + 2_000)))
    with pytest.raises(WireError, match="too long"):
        decode_message(bytes(CARRIED_BYTES_MAX + 2_000))


def test_items_are_counted_taken_apart_and_put_together() -> None:
    items = encode([ITEM, [{"is": "Boom"}]])
    assert count_items(items) == 2
    first, second = split_items(items)
    assert first == encode(ITEM)
    assert msgspec.msgpack.decode(second) == [{"is": "Boom"}, 0, 0, "", ""]
    assert count_items(bytes(join_items((first, second)))) == 2
    assert split_items(bytes(join_items((second,)))) == [second]


@pytest.mark.parametrize(
    "wrong",
    [b"", b"\xc1", encode([]), encode([ITEM] * (ITEMS_MAX + 1)), encode({}), encode([[]]), encode([[{}, -1]])],
    ids=lambda wrong: bytes(wrong)[:4].hex(),
)
def test_what_is_no_list_of_items_is_refused(wrong: bytes) -> None:
    with pytest.raises(WireError):
        count_items(wrong)


def test_items_that_are_nested_without_end_are_refused_or_counted() -> None:
    deep = b"\x91\x91" + b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(WireError):
        count_items(deep)


def test_what_fits_in_one_message_stays_as_it_is() -> None:
    items = encode([ITEM] * ITEMS_MAX)
    assert parcels_of(7, ITEMS_MAX, items) == [(7, ITEMS_MAX, items)]


@pytest.mark.parametrize(("count", "size"), [(ITEMS_MAX + 1, 1), (3 * ITEMS_MAX, 1), (40, 100_000), (3, PARCEL_BYTES)])
def test_what_does_not_fit_goes_in_several_and_keeps_its_numbers(count: int, size: int) -> None:
    whole = [[{"is": "Add", "n": number, "x": bytes(size)}, 0, 0, "", ""] for number in range(count)]
    parcels = parcels_of(5, count, encode(whole))
    first, found = 5, list[Any]()
    for number, among, items in parcels:
        assert number == first
        one: list[Any] = msgspec.msgpack.decode(items)
        assert 1 <= len(one) == among <= ITEMS_MAX
        assert among == 1 or len(items) <= PARCEL_BYTES + 5
        first += among
        found += one
    assert found == whole
    assert len(parcels) > 1
