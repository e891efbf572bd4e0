# SPDX-License-Identifier: Apache-2.0
"""Whatever is encoded, and however: it is shallow just when a naive reader that goes down by recursion finds it so."""

from typing import Any, Final

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from atoll.env import nesting
from atoll.env.limits import NESTING_MAX
from atoll.env.messages import TooDeepError, count_items
from atoll.env.nesting import are_shallow, is_shallow

SIZES: Final = (1, 1, 2, 3, 16, 17, 40, 300)
"""Of what is in a list or a map: short and long heads, and more parts than are taken apart."""


def length(size: int, short: int | None, longer: dict[int, int]) -> bytes:
    """Return a head in the shortest form that there is for this."""
    if short is not None:
        return bytes((short + size,))
    width, lead = next((width, lead) for width, lead in longer.items() if size < 1 << 8 * width)
    return bytes((lead,)) + size.to_bytes(width, "big")


def text(content: bytes) -> bytes:
    return length(len(content), 0xA0 if len(content) < 32 else None, {1: 0xD9, 2: 0xDA, 4: 0xDB}) + content


def binary(content: bytes) -> bytes:
    return length(len(content), None, {1: 0xC4, 2: 0xC5, 4: 0xC6}) + content


# A value, and how deep it is: pairs, so that nothing of what is tested says it.
Value = tuple[bytes, int]
lookalike = st.integers(0, 300).map(lambda size: b"\x91" * size)  # Inside a text or bytes it is neither.
leaves: st.SearchStrategy[Value] = st.one_of(
    st.sampled_from((None, True, False, 0, 127, 0x91, 0x9191, 0x91919191, 1 << 40, -1, -200, -70_000, 1.5)).map(
        msgspec.msgpack.encode
    ),
    st.sampled_from((b"\xca\x91\x91\x91\x91", b"\xd4\x91\x91", b"\xd8" + b"\x91" * 17, b"\xc7\x03\x05\x91\x91\x91")),
    lookalike.map(text),
    lookalike.map(binary),
).map(lambda data: (data, 0))


def listed(parts: list[Value], *, is_long: bool) -> Value:
    head = length(len(parts), 0x90 if len(parts) < 16 and not is_long else None, {2: 0xDC, 4: 0xDD})
    return head + b"".join(data for data, _ in parts), 1 + max((depth for _, depth in parts), default=0)


def mapped(parts: list[Value], *, is_long: bool) -> Value:
    parts = parts[: len(parts) // 2 * 2]
    head = length(len(parts) // 2, 0x80 if len(parts) < 32 and not is_long else None, {2: 0xDE, 4: 0xDF})
    return head + b"".join(data for data, _ in parts), 1 + max((depth for _, depth in parts), default=0)


def held(parts: list[Value], is_map: bool, is_long: bool) -> Value:
    return (mapped if is_map else listed)(parts, is_long=is_long)


def within(inner: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    several = st.lists(inner, max_size=4)
    repeated = st.tuples(inner, st.sampled_from(SIZES)).map(lambda pair: [pair[0]] * pair[1])
    return st.builds(held, st.one_of(several, repeated), st.booleans(), st.booleans())


def buried(value: Value, layers: list[int]) -> Value:
    """Put a value into lists and maps, between others."""
    for layer in layers:
        value = (listed, mapped)[layer % 2]([(b"\x01", 0)] * (layer // 2) + [value, (b"\xa1x", 0)], is_long=False)
    return value


values = st.builds(
    buried, st.recursive(leaves, within, max_leaves=5), st.lists(st.sampled_from((0, 1, 2, 4)), max_size=80)
)


def depth_of(value: Any) -> int:
    """Return the same by recursion, of what msgspec makes of it."""
    kind: type[Any] = value.__class__
    if kind is dict:
        return 1 + max((max(depth_of(key), depth_of(one)) for key, one in value.items()), default=0)
    return 1 + max(map(depth_of, value), default=0) if kind is list else 0


@given(value=values, around=st.integers(-2, 2))
def test_bytes_say_how_deep_a_value_is(value: Value, around: int) -> None:
    data, depth = value
    for depth_max in {max(1, depth + around), NESTING_MAX}:
        assert is_shallow(data, depth_max) == (depth <= depth_max)
        assert nesting._walked(data, depth_max) == (depth <= depth_max)  # pyright: ignore[reportPrivateUsage]


plain = st.recursive(
    st.one_of(st.none(), st.integers(-(1 << 63), (1 << 64) - 1), st.text(max_size=40), st.binary(max_size=300)),
    lambda inner: st.one_of(st.lists(inner, max_size=20), st.dictionaries(st.text(max_size=3), inner, max_size=20)),
    max_leaves=30,
)


@given(value=plain)
def test_what_programs_write_is_as_deep_as_its_values(value: object) -> None:
    data, depth = msgspec.msgpack.encode(value), depth_of(value)
    for depth_max in range(1, 8):
        assert is_shallow(data, depth_max) == (depth <= depth_max)


@given(several=st.lists(values, min_size=1, max_size=6))
def test_items_are_taken_just_when_each_is_shallow(several: list[Value]) -> None:
    raws = [msgspec.Raw(data) for data, _ in several]
    is_so = all(depth <= NESTING_MAX for _, depth in several)
    assert are_shallow(raws) is is_so
    items = msgspec.msgpack.encode([(raw, 0, 0, "", "") for raw in raws])
    later = msgspec.msgpack.encode([(0, 0, 0, "", "", raw) for raw in raws])
    for came in (items, later):
        try:
            assert count_items(came) == len(several)
        except TooDeepError:
            assert not is_so
        else:
            assert is_so


@given(noise=st.binary(max_size=600), depth_max=st.integers(1, 70))
@example(noise=b"\xdd\xff\xff\xff\xff" + b"\x90" * 80, depth_max=70)
@example(noise=b"\xdf\xff\xff\xff\xff" + b"\x90" * 80, depth_max=70)
@example(noise=b"\xdd", depth_max=1)
@example(noise=b"\x91" * 80 + b"\xdb\xff", depth_max=70)
def test_no_bytes_raise(noise: bytes, depth_max: int) -> None:
    assert is_shallow(noise, depth_max) in {True, False}
    assert is_shallow(b"\x91" * depth_max + b"\x91" + noise, depth_max) is False
