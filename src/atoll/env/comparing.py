# SPDX-License-Identifier: Apache-2.0
"""Where two things differ, field by field: two states, or the effects of two runs. Bounded, whatever is compared.

What is compared is plain data: dictionaries, lists, text, bytes, numbers. A path names a field as Python would:
``bids["ann"].amount`` is ``bids['ann']['amount']``.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from atoll.env.plain_data import decode_plain, is_map, is_row
from atoll.env.records import Effect, Item, Note, Post

DIFFERENCES_MAX: Final = 100  # Limit. More than a person reads; the first one names the cause.
SHOWN_CHARS_MAX: Final = 200  # Limit. One value; the rest of it is cut off.

__all__ = [
    "ABSENT",
    "Difference",
    "differences",
    "grouped_effects",
    "plain_effects",
    "plain_tuple",
    "shown",
]

_items: Final = msgspec.msgpack.Decoder(list[Item])
_encode: Final = msgspec.msgpack.Encoder().encode


class _Absent:
    """Stands for a field that is not there."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT: Final = _Absent()


class Difference(msgspec.Struct, frozen=True):
    """One field in which two things differ.

    Attributes:
        path: The field; empty: all of it.
        expected: What the one has, as text of at most SHOWN_CHARS_MAX characters.
        got: What the other has.
    """

    path: str
    expected: str
    got: str


def shown(value: Any) -> str:
    """Return a value as one line of at most SHOWN_CHARS_MAX characters."""
    text = repr(_readable(value))
    if len(text) <= SHOWN_CHARS_MAX:
        return text
    return f"{text[: SHOWN_CHARS_MAX - 1]}…"


class _Unquoted(str):
    """Text that is no text of the value's own: bytes as people read them, or a key that is a dictionary."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _readable(value: Any) -> Any:
    if isinstance(value, bytes):
        return _Unquoted(value.hex())
    if is_map(value):
        return {_readable_key(key): _readable(inner) for key, inner in value.items()}
    if is_row(value) and not isinstance(value, tuple):
        return [_readable(inner) for inner in value]
    return value


def _readable_key(key: Any) -> Any:
    return _Unquoted(repr(_readable(key))) if is_map(key) else _readable(key)


def differences(expected: Any, got: Any, most: int = DIFFERENCES_MAX) -> tuple[Difference, ...]:
    """Return the first fields in which two pieces of plain data differ, at most ``most``; none: they are equal.

    Two dictionaries with the same content in another order differ, because what is written of them does.
    """
    found: list[Difference] = []
    waiting: list[tuple[str, Any, Any]] = [("", expected, got)]
    while waiting and len(found) < most:
        path, one, other = waiting.pop()
        if _is_same(one, other):
            continue
        inner = [each for each in _inner(path, one, other) if not _is_same(each[1], each[2])]
        if inner:
            waiting += reversed(inner)
        elif is_map(one) and is_map(other):
            found.append(Difference(path, f"keys {shown([*one])}", f"keys {shown([*other])}"))
        else:
            found.append(Difference(path, shown(one), shown(other)))
    return tuple(found)


def _inner(path: str, one: Any, other: Any) -> list[tuple[str, Any, Any]]:
    """Return what is inside two values of one kind, with its path; nothing of anything else."""
    if is_map(one) and is_map(other):
        return [(_below(path, key), one.get(key, ABSENT), other.get(key, ABSENT)) for key in {**one, **other}]
    if is_row(one) and is_row(other):
        return [(f"{path}[{at}]", _at(one, at), _at(other, at)) for at in range(max(len(one), len(other)))]
    return []


def _is_same(one: Any, other: Any) -> bool:
    """Compare as written: the order of a dictionary counts, a list and a tuple are the same, and NaN is NaN."""
    if one is ABSENT or other is ABSENT:
        return one is other
    return _encode(one) == _encode(other)


def _below(path: str, key: Any) -> str:
    return key if not path and isinstance(key, str) and key.isidentifier() else f"{path}[{shown(key)}]"


def _at(row: Sequence[Any], at: int) -> Any:
    return row[at] if at < len(row) else ABSENT


def plain_tuple(raw: bytes | memoryview) -> Any:
    """Return an encoded tuple as a dictionary whose key ``is`` names its type."""
    return decode_plain(raw)


def plain_effects(effects: Iterable[Effect]) -> list[dict[str, Any]]:
    """Return effects as plain data, item by item: what is sent does not depend on how it was parcelled.

    A sent item is ``{"to", "number", "event", "ask", "re", "path", "by"}`` without what is empty; a line of the log is
    ``{"log"}``; anything else is its fields under its name, such as ``{"ended": {}}``.
    """
    found: list[dict[str, Any]] = []
    for effect in effects:
        match effect:
            case Post(party, first, _, raw):
                found += [_plain_item(party, first + at, item) for at, item in enumerate(_items.decode(raw))]
            case Note(text):
                found.append({"log": text})
            case _:
                found.append({type(effect).__name__.lower(): msgspec.structs.asdict(effect)})
    return found


def grouped_effects(effects: Iterable[Effect]) -> dict[str, list[Any]]:
    """Return effects as plain data by kind, ``log``, ``sent`` and ``other``: so one more shifts only its own kind.

    Without the numbers that items and calls get on the way, which all shift when one more is sent.
    """
    found: dict[str, list[Any]] = {"log": [], "sent": [], "other": []}
    for one in plain_effects(effects):
        if "to" in one:
            found["sent"].append({key: value for key, value in one.items() if key not in {"number", "ask"}})
        elif "log" in one:
            found["log"].append(one["log"])
        else:
            found["other"].append(one)
    return found


def _plain_item(party: bytes, number: int, item: Item) -> dict[str, Any]:
    full = {
        "to": party,
        "number": number,
        "event": decode_plain(item.event),
        "ask": item.ask,
        "re": item.re,
        "path": item.to,
        "by": item.by,
    }
    return {key: value for key, value in full.items() if value or key in {"to", "event"}}
