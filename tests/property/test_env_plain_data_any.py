# SPDX-License-Identifier: Apache-2.0
"""Plain data: what a program has written comes back as it was, and no bytes that came make looking at them fail."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.showing import shown
from atoll.env.comparing import differences
from atoll.env.comparing import shown as shown_in_a_line
from atoll.env.plain_data import MapKey, decode_fields, decode_plain

encode = msgspec.msgpack.Encoder().encode
leaves = st.one_of(st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.text(), st.binary())
keys = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.dictionaries(st.text(), inner, max_size=3).map(MapKey)
    ),
    max_leaves=6,
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), values, max_size=4))
def test_what_was_written_is_read_and_shown(fields: dict[str, Any]) -> None:
    data = encode(fields)
    plain = decode_fields(data)
    assert encode(plain) == encode(decode_plain(data)) == data
    assert differences(plain, fields) == ()
    assert isinstance(shown_in_a_line(plain), str)
    assert msgspec.json.decode(msgspec.json.encode(shown(plain)[0])).keys() == plain.keys()


@given(st.binary(min_size=1, max_size=60))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    assert isinstance(shown_in_a_line(decode_plain(data)), str)


@given(values, st.integers(0), st.integers(1, 255))
def test_no_bytes_that_were_changed_make_it_fail(value: object, at: int, bits: int) -> None:
    data = bytearray(encode(value))
    data[at % len(data)] ^= bits
    assert isinstance(shown_in_a_line(decode_plain(bytes(data))), str)
