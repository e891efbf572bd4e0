# SPDX-License-Identifier: Apache-2.0
"""What is encoded as plain data, without the types that it was made of: dictionaries, lists, text, bytes, numbers.

Programs decode it by their types, and so take some that plain data cannot have as it is: a key of a dictionary that is
a struct, which is a dictionary itself; and in what a stranger has sent beside the fields that a type has, text that is
no text. Whoever looks at it must see it all the same: a look at the past must not end where a stranger wants it to.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeGuard, final

import msgspec

__all__ = ["MapKey", "decode_fields", "decode_plain", "is_map", "is_row"]

_TOO_DEEP: Final = "(too deep to be shown)"
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)
_plain: Final = msgspec.msgpack.Decoder().decode
_fields: Final = msgspec.msgpack.Decoder(dict[str, Any]).decode
_list: Final = msgspec.msgpack.Decoder(list[Any]).decode
_parts_by_name: Final = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode
_parts: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_TEXT_HEADS: Final = {0xD9: 2, 0xDA: 3, 0xDB: 5}  # First byte of a text, and how many there are before its content.
_MAP_HEADS: Final = {0xDE: 3, 0xDF: 5}


@final
class MapKey(dict[Any, Any]):
    """A dictionary that is a key of another one. Nobody changes it."""

    def __hash__(self) -> int:  # type: ignore[override]  # What it stands for is frozen.
        return hash(frozenset(self.items()))


def is_map(value: Any) -> TypeGuard[dict[Any, Any]]:
    """Tell whether plain data is a dictionary."""
    return isinstance(value, dict)


def is_row(value: Any) -> TypeGuard[Sequence[Any]]:
    """Tell whether plain data is a list."""
    return isinstance(value, list | tuple)


def decode_fields(data: bytes | msgspec.Raw) -> dict[str, Any]:
    """Return the fields of a state or a tuple, as ``decode_plain`` would, but nothing of them is left out.

    Raises:
        DecodeError: It is no map by texts.
        RecursionError: It is too deep.
    """
    try:
        return _fields(data)
    except _UNREADABLE:
        return {name: _decoded(part) for name, part in _parts_by_name(data).items()}


def decode_plain(data: bytes | memoryview | msgspec.Raw) -> Any:
    """Return plain data.

    A key that is a map is a ``MapKey``. In a text U+FFFD stands for what is none; of what else cannot be read the bytes
    come. What is too deep is a text that says so.

    Args:
        data: One whole value of MessagePack.
    """
    try:
        return _decoded(data)
    except RecursionError:
        return _TOO_DEEP


def _decoded(data: bytes | memoryview | msgspec.Raw) -> Any:
    try:
        return _plain(data)
    except _UNREADABLE:
        return _piecewise(bytes(data))


def _piecewise(data: bytes) -> Any:
    """Decode what cannot be decoded as a whole."""
    head = data[0]
    try:
        if 0x80 <= head <= 0x8F or head in _MAP_HEADS:
            start = _MAP_HEADS.get(head, 1)
            count = int.from_bytes(data[1:start]) if start > 1 else head & 0xF
            flat = _listed(b"\xdd" + (2 * count).to_bytes(4) + data[start:])  # Keys and values in turn.
            return {_key(key): one for key, one in zip(flat[::2], flat[1::2], strict=True)}
        if 0x90 <= head <= 0x9F or head in {0xDC, 0xDD}:
            return _listed(data)
    except (*_UNREADABLE, OverflowError):  # Nobody who has seen it applied gets here: it is no MessagePack.
        return data
    if 0xA0 <= head <= 0xBF or head in _TEXT_HEADS:
        return data[_TEXT_HEADS.get(head, 1) :].decode("utf-8", "replace")
    return data


def _listed(data: bytes) -> list[Any]:
    """Decode a list, at once if it can be."""
    try:
        return _list(data)
    except _UNREADABLE:
        return [_decoded(part) for part in _parts(data)]


def _key(value: Any) -> Any:
    """Return a value that can be a key: it is never changed."""
    if is_map(value):
        return MapKey({key: _key(one) for key, one in value.items()})
    return tuple(map(_key, value)) if is_row(value) else value
