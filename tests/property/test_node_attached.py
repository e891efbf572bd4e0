# SPDX-License-Identifier: Apache-2.0
"""The frames between the node and programs that are attached to it."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import WireError
from atoll.conduit.stream import BrokenStreamError, Reason
from atoll.node.attached import LENGTH_BROKEN, Letter, framed, pack_letter, read_frame, unpack_letter
from atoll.node.limits import FRAME_BYTES_MAX

names = st.text(max_size=60)


@given(st.builds(Letter, names, st.integers(0, 0xFFFF), st.binary(max_size=2000)))
def test_a_datagram_comes_back(letter: Letter) -> None:
    assert unpack_letter(pack_letter(letter)) == letter


@given(st.binary(max_size=300))
def test_any_bytes_are_a_datagram_or_refused(content: bytes) -> None:
    try:
        letter = unpack_letter(content)
    except WireError:
        return
    assert pack_letter(letter) == content


@pytest.mark.parametrize(("host", "port"), [("x" * 256, 1), ("x", -1), ("x", 65_536)])
def test_an_impossible_address_is_refused(host: str, port: int) -> None:
    with pytest.raises(WireError):
        pack_letter(Letter(host, port, b""))


def read(*pieces: bytes) -> list[bytes | None]:
    """What ``read_frame`` makes of some bytes, until the end or the connection's end."""

    async def test() -> list[bytes | None]:
        reader = asyncio.StreamReader()
        for piece in pieces:
            reader.feed_data(piece)
        reader.feed_eof()
        found: list[bytes | None] = []
        while not found or found[-1]:
            found.append(await read_frame(reader))
        return found

    return asyncio.run(test())


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=5))
def test_frames_come_back_and_the_end_is_told_from_a_loss(contents: list[bytes]) -> None:
    whole = b"".join(map(framed, contents))
    assert read(whole, framed(b"")) == [*contents, b""]
    assert read(whole) == [*contents, None]
    assert read(whole, b"\0\0") == [*contents, None]
    assert read(whole, framed(b"cut short")[:-1]) == [*contents, None]


@pytest.mark.parametrize(("said", "meant"), [(2, Reason.REFUSED), (0, Reason.RESET), (255, Reason.RESET)])
def test_a_break_has_a_reason(said: int, meant: Reason) -> None:
    with pytest.raises(BrokenStreamError) as broken:
        read(LENGTH_BROKEN.to_bytes(4, "big") + bytes((said,)))
    assert broken.value.reason is meant


def test_a_frame_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(WireError, match="frame length"):
        read((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
