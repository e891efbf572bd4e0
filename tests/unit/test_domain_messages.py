# SPDX-License-Identifier: Apache-2.0
"""What clients and control say to the server of environments, and it to them: read back whole, or refused."""

from typing import Any

import msgspec
import pytest

from atoll.base.errors import UsageError, WireError
from atoll.core.codec import Codec
from atoll.domain.limits import SERVER_FRAME_BYTES_MAX, SERVER_MEMBERS_MAX
from atoll.domain.messages import (
    Alive,
    Command,
    Datagrams,
    Find,
    Found,
    FromNode,
    Hello,
    Members,
    MemberSeen,
    Outcome,
    ToNode,
    Welcome,
    client_codec,
    control_codec,
    server_codec,
)
from atoll.env.messages import Carried, Receipt, Refusal

A, B, NODE, KEY = b"a" * 16, b"b" * 16, b"n" * 10, b"k" * 32
SEEN = MemberSeen(NODE, "two", KEY, lost=True, slow="disk")
FROM_CLIENTS = (Hello(A), Find(1, "shop"), Carried(A, B, 1, b"\x91\xc0"), Receipt(A, B, 3, again=True))
FROM_CONTROL = (Members(()), Members((SEEN,)), FromNode(NODE, b"payload"), Command(1, "list", b"{}"))
FROM_SERVER = (
    Alive(),
    Alive(3, Datagrams(7, 1, 0, 2)),
    Welcome("one"),
    Found(1, b""),
    Found(1, A, "one"),
    ToNode(NODE, b"payload"),
    Outcome(1, b"{}"),
    Outcome(2, b"", "A609", "there is none", "here", "mend it"),
    Carried(A, B, 1, b"\x91\xc0"),
    Receipt(A, B, 3),
    Refusal(A, B, "disk-full", "full"),
)
CODECS: dict[str, tuple[Codec[Any], tuple[Any, ...]]] = {
    "client": (client_codec, FROM_CLIENTS),
    "control": (control_codec, FROM_CONTROL),
    "server": (server_codec, FROM_SERVER),
}
each_codec = pytest.mark.parametrize(("codec", "messages"), CODECS.values(), ids=CODECS.keys())


@each_codec
def test_every_message_is_read_back(codec: Codec[Any], messages: tuple[Any, ...]) -> None:
    for message in messages:
        assert codec.decode(codec.encode(message)) == message


@each_codec
def test_what_is_cut_or_longer_is_refused(codec: Codec[Any], messages: tuple[Any, ...]) -> None:
    for message in messages:
        whole = codec.encode(message)
        for wrong in (whole[:-1], whole + b"\0", b""):
            with pytest.raises(WireError):
                codec.decode(wrong)


def test_tags_are_those_of_the_specification() -> None:
    tags = {
        type(one).__name__: msgspec.msgpack.decode(codec.encode(one))[0]
        for codec, messages in CODECS.values()
        for one in messages
    }
    assert tags == {
        "Hello": 1,
        "Welcome": 2,
        "Find": 3,
        "Found": 4,
        "Members": 5,
        "FromNode": 6,
        "ToNode": 7,
        "Command": 8,
        "Outcome": 9,
        "Alive": 10,
        "Carried": 64,
        "Receipt": 65,
        "Refusal": 66,
    }


def test_what_others_may_say_is_refused_of_a_client() -> None:
    for message in (*FROM_CONTROL, Alive(), Welcome("one"), Refusal(A, B, "", "")):
        with pytest.raises(WireError):
            client_codec.decode(msgspec.msgpack.encode(message))


@pytest.mark.parametrize(
    ("codec", "wrong"),
    [
        (client_codec, [1, A[1:]]),
        (client_codec, [3, -1, "shop"]),
        (client_codec, [3, 1 << 63, "shop"]),
        (control_codec, [5, [[NODE, "two", KEY[1:]]]]),
        (control_codec, [5, [[NODE[1:], "two", KEY]]]),
        (control_codec, [5, [[NODE, "two", KEY]] * (SERVER_MEMBERS_MAX + 1)]),
        (control_codec, [6, NODE + b"x", b""]),
        (server_codec, [9, -1, b""]),
    ],
)
def test_what_is_out_of_its_bounds_is_refused(codec: Codec[Any], wrong: list[Any]) -> None:
    with pytest.raises(WireError):
        codec.decode(msgspec.msgpack.encode(wrong))


def test_what_fits_in_no_frame_is_neither_made_nor_read() -> None:
    with pytest.raises(UsageError):
        control_codec.encode(Command(1, "run", bytes(SERVER_FRAME_BYTES_MAX)))
    with pytest.raises(WireError, match="too long"):
        client_codec.decode(bytes(SERVER_FRAME_BYTES_MAX + 1))
