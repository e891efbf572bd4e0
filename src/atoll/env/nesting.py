# SPDX-License-Identifier: Apache-2.0
"""How deep lists and maps nest in what is encoded, told from its bytes, and so the same on every stack.

Decoders go down by recursion, and how far they come depends on the stack of whoever calls: what one place has read,
another one may not be able to. So nothing comes in, is sent or is kept that nests deeper than NESTING_MAX, and that is
decided here, with the same answer on each. A list or a map takes at least a byte, and such bytes can be counted in one
go: nearly everything is known to be shallow by that. Of the rest only what is long enough to be deep is looked at.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from atoll.env.changes import Failure
from atoll.env.limits import NESTING_MAX, TUPLE_BYTES_MAX

__all__ = ["TOO_DEEP", "TOO_DEEP_TEXT", "TOO_LARGE", "are_shallow", "is_bounded", "is_shallow", "misfit"]

TOO_LARGE: Final = "too-large"
TOO_DEEP: Final = "too-deep"
TOO_DEEP_TEXT: Final = f"a tuple nests deeper than {NESTING_MAX} (NESTING_MAX); keep what is deep as text, or flat"

_MAPS: Final = range(0x80, 0x90)
_LISTS: Final = range(0x90, 0xA0)
_LONG_LISTS: Final = (0xDC, 0xDD)
_COUNTED: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""By first byte of a longer list or map: bytes of its count, and values for each item."""

_HEADERS: Final = frozenset({*_MAPS, *_LISTS, *_COUNTED})
_NO_HEADERS: Final = bytes(byte for byte in range(256) if byte not in _HEADERS)
_SAID: Final = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)} | {
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),
}
"""By first byte of bytes, texts and extensions that say how long they are: bytes of the length, and of the type."""

TOGETHER: Final = (
    16  # Values whose bytes are looked at together: of ordinary ones all headers are fewer than NESTING_MAX.
)
PARTS_MAX: Final = 64  # Limit. Long parts on one level that are taken apart; more are walked through, which is linear.
TYPE_DEPTH_MAX: Final = 8  # Limit. A type that nests deeper is looked through value by value, as one that holds itself.
TYPES_MAX: Final = 1_024  # Limit. The same of one with more parts.
_parts: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_FLAT: Final = (
    *(msgspec.inspect.NoneType, msgspec.inspect.BoolType, msgspec.inspect.IntType, msgspec.inspect.FloatType),
    *(msgspec.inspect.StrType, msgspec.inspect.BytesType, msgspec.inspect.ByteArrayType),
    *(msgspec.inspect.DateTimeType, msgspec.inspect.DateType, msgspec.inspect.TimeType, msgspec.inspect.TimeDeltaType),
    *(msgspec.inspect.UUIDType, msgspec.inspect.DecimalType, msgspec.inspect.EnumType, msgspec.inspect.LiteralType),
)


def _sizes() -> tuple[int, ...]:
    """Return by first byte how long a value is that holds no other; 0: it says that itself, or is a list or a map."""
    sizes = [1] * 256
    sizes[0xA0:0xC0] = range(1, 33)  # Short texts.
    sizes[0xCA:0xD4] = (5, 9, 2, 3, 5, 9, 2, 3, 5, 9)  # Floats, integers without and with a sign.
    sizes[0xD4:0xD9] = (3, 4, 6, 10, 18)  # Short extensions.
    for byte in (*_HEADERS, *_SAID):
        sizes[byte] = 0
    return tuple(sizes)


_SIZES: Final = _sizes()


def is_shallow(data: bytes, depth_max: int = NESTING_MAX) -> bool:
    """Return whether lists and maps in an encoded value nest at most so deep. Total: of what is no value, any answer.

    Args:
        data: The value. A list in a list is two deep.
        depth_max: So deep, at least 1.
    """
    if len(data) <= depth_max or data[0] not in _HEADERS or len(data.translate(None, _NO_HEADERS)) <= depth_max:
        return True
    try:
        return _peeled(data, depth_max)
    except (msgspec.DecodeError, OverflowError, RecursionError):  # The last one of what is deep, or of a deep stack.
        return _walked(data, depth_max)


def are_shallow(values: Iterable[msgspec.Raw], depth_max: int = NESTING_MAX) -> bool:
    """Return whether ``is_shallow`` holds of each of some encoded values."""
    longer = [value for value in values if len(value) > depth_max]
    for at in range(0, len(longer), TOGETHER):
        some = longer[at : at + TOGETHER]
        if len(b"".join(some).translate(None, _NO_HEADERS)) <= depth_max:
            continue
        if not all(is_shallow(bytes(value), depth_max) for value in some):
            return False
    return True


def _peeled(data: bytes, depth_max: int) -> bool:
    """Take a value apart level by level, and look on only at parts that are long enough to be too deep.

    A table of many rows is known to be shallow so after two steps, and without a look at its fields.

    Args:
        data: A list or a map.
        depth_max: As above.

    Raises:
        msgspec.DecodeError: It is no value.
        OverflowError: The same.
        RecursionError: It is deep, or so is the stack.
    """
    level = [data]
    for room in range(depth_max - 1, -1, -1):
        parts = [bytes(part) for one in level for part in _parts_of(one) if len(part) > room]
        level = [part for part in parts if part[0] in _HEADERS]
        if len(level) > PARTS_MAX:
            return all(_walked(part, room) for part in level)
    return not level


def _parts_of(data: bytes) -> list[msgspec.Raw]:
    """Return the values in a list or a map, keys included."""
    first = data[0]
    if first in _LISTS or first in _LONG_LISTS:
        return _parts.decode(data)
    size = _COUNTED[first][0] if first in _COUNTED else 0
    count = int.from_bytes(data[1 : 1 + size], "big") if size else first & 15
    return _parts.decode(b"\xdd" + (2 * count).to_bytes(4, "big") + data[1 + size :])


def _walked(data: bytes, depth_max: int) -> bool:
    """Go through a value, and keep of each list and map that is open how many values of it are to come."""
    at, end, left = 0, len(data), 1
    above: list[int] = []
    while at < end:
        while not left:
            if not above:
                return True
            left = above.pop()
        left -= 1
        first = data[at]
        size = _SIZES[first]
        if size:
            at += size
        elif (said := _SAID.get(first)) is not None:
            after = at + 1 + said[0]
            at = after + said[1] + int.from_bytes(data[at + 1 : after], "big")
        else:
            if len(above) >= depth_max:
                return False
            above.append(left)
            if (counted := _COUNTED.get(first)) is not None:
                after = at + 1 + counted[0]
                left, at = counted[1] * int.from_bytes(data[at + 1 : after], "big"), after
            else:
                left, at = (first & 15) * (1 if first in _LISTS else 2), at + 1
    return True


def misfit(raw: bytes) -> Failure | None:
    """Return why a program's encoded tuple can be neither sent nor kept, for whoever made it; None: it can."""
    if len(raw) > TUPLE_BYTES_MAX:
        fix = "keep the data elsewhere, and send where it is"
        return Failure(TOO_LARGE, f"a tuple of {len(raw)} bytes; at most {TUPLE_BYTES_MAX} fit in one: {fix}")
    if not is_shallow(raw):
        return Failure(TOO_DEEP, TOO_DEEP_TEXT)
    return None


def is_bounded(kind: Any) -> bool:
    """Return whether, by a type, its values nest at most NESTING_MAX deep, so that they need not be looked at.

    Of a type that holds itself, or anything at all, they do not.

    Args:
        kind: A type that msgspec can read.
    """
    waiting: list[tuple[Any, int]] = [(msgspec.inspect.type_info(kind), 0)]
    while waiting:
        one, depth = waiting.pop()
        inside: list[Any] = []
        match one:
            case msgspec.inspect.UnionType():
                waiting += [(part, depth) for part in one.types]
            case msgspec.inspect.Metadata():
                waiting.append((one.type, depth))
            case msgspec.inspect.ListType() | msgspec.inspect.VarTupleType():
                inside = [one.item_type]
            case msgspec.inspect.TupleType():
                inside = [*one.item_types]
            case msgspec.inspect.DictType():
                inside = [one.key_type, one.value_type]
            case msgspec.inspect.StructType() if one.tag is not None:  # Else a value of a derived type passes for it.
                inside = [field.type for field in one.fields]
            case _ if not isinstance(one, _FLAT):
                return False
            case _:
                pass
        if inside and depth >= TYPE_DEPTH_MAX:
            return False
        waiting += [(part, depth + 1) for part in inside]
        if len(waiting) > TYPES_MAX:
            return False
    return True
