# SPDX-License-Identifier: Apache-2.0
"""Which tuples are meant: queries as data, the same for a store here, a store elsewhere and a subscription.

A query is a small tree of frozen structs. It is made in Python (``where(Bid, field("amount") > 100)``), from text
(``query_grammar.parse``) or from the bytes of a stranger (``decode``), and asked of the plain form of a tuple, a dict
as MessagePack gives it: ``matches(query, value)``.

Every query that exists is within the limits of the room: each struct looks at itself when it is made, whoever makes it.
So a message may hold a query as a field, and whoever got one can evaluate, print and keep it without a further look.
A node looks at all that is below it, and there are at most QUERY_DEPTH_MAX above any, so that decoding stays linear.

What a comparison means is in docs/reference/query.md. In one sentence: between values of unlike kinds, and with a field
that is not there, it is false; an integer and a float are of one kind, an integer and a boolean are not. There are no
patterns: one that a stranger wrote can cost exponential time.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, Final, Literal, TypeAlias, final

import msgspec

from atoll.base.errors import UsageError
from atoll.core.codec import Codec
from atoll.core.machine import Tuple as Node
from atoll.env.limits import CONTAINS_TERMS, QUERY_BYTES_MAX, QUERY_DEPTH_MAX, QUERY_TERMS_MAX
from atoll.env.tuples import TYPE_FIELD, Tuple

__all__ = [
    "OPERATORS",
    "Compare",
    "Contains",
    "Every",
    "Everything",
    "Field",
    "IsType",
    "Names",
    "Not",
    "OneOf",
    "Operator",
    "Query",
    "QueryError",
    "Some",
    "StartsWith",
    "Value",
    "decode",
    "encode",
    "field",
    "matches",
    "types_of",
    "where",
]

Value: TypeAlias = bool | int | float | str | bytes | None
Names: TypeAlias = tuple[str, ...]
"""Of a field, from the outside in: ``("bid", "amount")``, written ``bid.amount``. At least one, none empty."""

Operator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]

OPERATORS: Final[dict[Operator, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

_KINDS: Final[dict[type, str]] = {
    type(None): "none",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "text",
    bytes: "bytes",
}
_MISSING: Final = object()  # What a field that is not there has for a value; of no kind.
_encoder: Final = msgspec.msgpack.Encoder()


class QueryError(UsageError, ValueError):
    """A query that cannot be. Also a ValueError, because that is what a struct may raise while msgspec decodes it."""


class _Node(Node, frozen=True):
    """What all parts of a query can do."""

    def __and__(self, other: object) -> "Every":
        if not isinstance(other, Query):
            return NotImplemented
        return Every((*_parts(self, Every), *_parts(other, Every)))

    def __or__(self, other: object) -> "Some":
        if not isinstance(other, Query):
            return NotImplemented
        return Some((*_parts(self, Some), *_parts(other, Some)))

    def __invert__(self) -> "Not":
        assert isinstance(self, Query)
        return Not(self)

    def __bool__(self) -> bool:
        # ``a and b`` would be b, and ``1 < field("x") < 9`` its second half, without a word.
        raise QueryError("a query is neither true nor false: combine queries with & | ~, or ask matches()")


class Everything(_Node, frozen=True, tag=0):
    """Every tuple."""

    def holds(self, value: Mapping[str, object]) -> bool:  # noqa: ARG002 -- as the others.
        """Return True."""
        return True


class IsType(_Node, frozen=True, tag=1):
    """Tuples of this type, exactly.

    Attributes:
        name: As in the tuple's key ``is``; not empty.
    """

    name: str

    def __post_init__(self) -> None:
        """Check it."""
        _check_names((self.name,))
        _check_size(self)

    def holds(self, value: Mapping[str, object]) -> bool:
        """Return whether a tuple is of the type."""
        return value.get(TYPE_FIELD) == self.name


class Compare(_Node, frozen=True, tag=2):
    """A field compared with a value of its kind.

    Attributes:
        field: Which field.
        operator: As in Python. The four of order are for numbers, texts and bytes.
        value: With what. ``!=`` None holds for every field that is there and is not None.
    """

    field: Names
    operator: Operator
    value: Any  # A Value; msgspec knows no union of text and bytes, so it is looked at here.

    def __post_init__(self) -> None:
        """Check it."""
        _check_names(self.field)
        kind = _kind_of(self.value)
        if self.operator not in OPERATORS:
            raise QueryError(f"no operator {self.operator!r}")
        if kind in {"none", "boolean"} and self.operator not in {"==", "!="}:
            raise QueryError(f"{self.operator} has no meaning for {kind}")
        _check_size(self)

    def holds(self, value: Mapping[str, object]) -> bool:
        """Return whether the field is there, is of the value's kind, and compares so."""
        found = _at(value, self.field)
        wanted = self.value
        if wanted is None:
            return found is None if self.operator == "==" else found is not None and found is not _MISSING
        if type(found) is type(wanted) or _KINDS.get(type(found)) == _KINDS[type(wanted)]:
            return OPERATORS[self.operator](found, wanted)
        return False


class OneOf(_Node, frozen=True, tag=3):
    """A field that equals one of some values.

    Attributes:
        field: Which field.
        values: At least one; they may be of different kinds.
    """

    field: Names
    values: tuple[Any, ...]  # Of Value, as above.

    def __post_init__(self) -> None:
        """Check it."""
        _check_names(self.field)
        _check_values(self.values)
        _check_size(self)

    def holds(self, value: Mapping[str, object]) -> bool:
        """Return whether the field is there and equals one of them."""
        found = _at(value, self.field)
        return type(found) in _KINDS and _has(self.values, found)


class Contains(_Node, frozen=True, tag=4):
    """A list that has an item, or a text or bytes with a piece.

    Attributes:
        field: Which field.
        value: The item, which an item of its kind equals; or the piece.
    """

    field: Names
    value: Any  # A Value, as above.

    def __post_init__(self) -> None:
        """Check it."""
        _check_names(self.field)
        _kind_of(self.value)
        _check_size(self)

    def holds(self, value: Mapping[str, object]) -> bool:
        """Return whether the field is there and contains the value."""
        found: Any = _at(value, self.field)
        kind = found.__class__
        if kind in {list, tuple}:
            return _has(found, self.value)
        return kind in {str, bytes} and kind is type(self.value) and self.value in found


class StartsWith(_Node, frozen=True, tag=5):
    """A text or bytes with a beginning.

    Attributes:
        field: Which field.
        value: Text or bytes.
    """

    field: Names
    value: Any  # Text or bytes, as above.

    def __post_init__(self) -> None:
        """Check it."""
        _check_names(self.field)
        if _kind_of(self.value) not in {"text", "bytes"}:
            raise QueryError("`startswith` needs a text or bytes")
        _check_size(self)

    def holds(self, value: Mapping[str, object]) -> bool:
        """Return whether the field is there, is of the value's kind, and begins so."""
        found: Any = _at(value, self.field)
        return type(found) is type(self.value) and found.startswith(self.value)


class Every(_Node, frozen=True, tag=6):
    """All of these at once.

    Attributes:
        parts: At least two.
    """

    parts: "tuple[Query, ...]"

    def __post_init__(self) -> None:
        """Check it."""
        _check_parts(self.parts)
        _check_size(self)

    def holds(self, value: Mapping[str, object]) -> bool:
        """Return whether all hold."""
        for part in self.parts:  # noqa: SIM110 -- a loop is a third faster than all() over a generator.
            if not part.holds(value):
                return False
        return True


class Some(_Node, frozen=True, tag=7):
    """At least one of these.

    Attributes:
        parts: At least two.
    """

    parts: "tuple[Query, ...]"

    def __post_init__(self) -> None:
        """Check it."""
        _check_parts(self.parts)
        _check_size(self)

    def holds(self, value: Mapping[str, object]) -> bool:
        """Return whether one holds."""
        for part in self.parts:  # noqa: SIM110 -- as above.
            if part.holds(value):
                return True
        return False


class Not(_Node, frozen=True, tag=8):
    """Not this: also true of tuples that do not have the field that is compared.

    Attributes:
        part: What must not hold.
    """

    part: "Query"

    def __post_init__(self) -> None:
        """Check it."""
        _check_part(self.part)
        _check_size(self)

    def holds(self, value: Mapping[str, object]) -> bool:
        """Return whether it does not hold."""
        return not self.part.holds(value)


Query: TypeAlias = Everything | IsType | Compare | OneOf | Contains | StartsWith | Every | Some | Not
"""Two queries may be equal that do not mean the same, as 1, 1.0 and True are equal: never use one as a key."""

_CODEC: Final[Codec[Query]] = Codec(Query, bytes_max=QUERY_BYTES_MAX, name="query")


def matches(query: Query, value: Mapping[str, object]) -> bool:
    """Return whether a tuple is meant.

    Args:
        query: The query.
        value: The tuple's plain form: a dict with its type under ``is``, of what untyped MessagePack decodes to.
    """
    return query.holds(value)


def types_of(query: Query) -> tuple[str, ...] | None:
    """Return names of types such that nothing else can match, each once; None: tuples of any type may.

    A store looks at tuples of these types only. They are not the closest bound: ``not Bid`` gives None.
    """
    match query:
        case IsType():
            return (query.name,)
        case Every():
            bounds = [bound for part in query.parts if (bound := types_of(part)) is not None]
            return min(bounds, key=len, default=None)
        case Some():
            names: dict[str, None] = {}
            for part in query.parts:
                bound = types_of(part)
                if bound is None:
                    return None
                names.update(dict.fromkeys(bound))
            return tuple(names)
        case _:
            return None


# Ways in.


def encode(query: Query) -> bytes:
    """Return the encoding, at most QUERY_BYTES_MAX bytes."""
    return _CODEC.encode(query)


def decode(payload: bytes | bytearray | memoryview) -> Query:
    """Return the query in these bytes.

    Raises:
        WireError: They are none, or one that is larger or deeper than a query can be. Nothing else is ever raised.
    """
    return _CODEC.decode(payload)


@final
class Field:
    """A field of a tuple, to be compared: ``field("amount") > 100``. What comes of it is a query.

    Raises:
        QueryError: From all of its methods: such a query cannot be.
    """

    __slots__ = ("names",)
    __hash__ = None  # type: ignore[assignment]  # pyright: ignore  Equality makes a query, so it can be no key.

    def __init__(self, names: Names) -> None:
        _check_names(names)
        self.names: Final = names

    def __eq__(self, value: object) -> Compare:  # type: ignore[override]  # pyright: ignore  It makes a query.
        return Compare(self.names, "==", value)

    def __ne__(self, value: object) -> Compare:  # type: ignore[override]  # pyright: ignore  As above.
        return Compare(self.names, "!=", value)

    def __lt__(self, value: Value) -> Compare:
        return Compare(self.names, "<", value)

    def __le__(self, value: Value) -> Compare:
        return Compare(self.names, "<=", value)

    def __gt__(self, value: Value) -> Compare:
        return Compare(self.names, ">", value)

    def __ge__(self, value: Value) -> Compare:
        return Compare(self.names, ">=", value)

    def one_of(self, *values: Value) -> OneOf:
        """Return the query: the field equals one of these values."""
        return OneOf(self.names, values)

    def contains(self, value: Value) -> Contains:
        """Return the query: the list has this item, or the text or bytes this piece."""
        return Contains(self.names, value)

    def startswith(self, value: str | bytes) -> StartsWith:
        """Return the query: the text or bytes begin so."""
        return StartsWith(self.names, value)


def field(names: str | Names) -> Field:
    """Return a field, to be compared.

    Args:
        names: Name, or names joined by dots: ``bid.amount``. A name that has a dot in it is given in a tuple of names.

    Raises:
        QueryError: A name is empty.
    """
    return Field(tuple(names.split(".")) if isinstance(names, str) else names)


def where(kind: type[Tuple] | str, *conditions: Query, **equal: Value) -> Query:
    """Return the query: tuples of a type that meet all conditions.

    Args:
        kind: The type, or its name.
        conditions: Queries.
        equal: Values by field: ``amount=100``.

    Raises:
        QueryError: Such a query cannot be.
    """
    name = kind if isinstance(kind, str) else kind.__struct_config__.tag
    if not isinstance(name, str):
        raise QueryError(f"the type {kind} is not called by a text")
    _check_each(conditions)
    query: Query = IsType(name)
    for condition in (*conditions, *(Compare((key,), "==", value) for key, value in equal.items())):
        query &= condition
    return query


# Looking at tuples.


def _at(value: Mapping[str, object], names: Names) -> object:
    """Return what a field holds; _MISSING: it is not there."""
    found: Any = value.get(names[0], _MISSING)
    for name in names[1:]:
        if found.__class__ is not dict:
            return _MISSING
        found = found.get(name, _MISSING)
    return found


def _has(items: Sequence[object], wanted: object) -> bool:
    """Return whether an item equals a value and is of its kind."""
    if wanted not in items:  # At the speed of C: what is in the list came from a stranger, and can be long.
        return False
    kind = _KINDS[type(wanted)]
    return any(item == wanted and _KINDS.get(type(item)) == kind for item in items)


# Looking at queries.


def _check_names(names: Sequence[object]) -> None:
    if not isinstance(names, tuple) or not names:
        raise QueryError("a field needs a name")
    for name in names:
        if not isinstance(name, str) or not name:
            raise QueryError("an empty name")


def _check_values(values: Sequence[object]) -> None:
    if not isinstance(values, tuple) or not values:
        raise QueryError("`in` needs at least one value")
    for value in values:
        _kind_of(value)


def _kind_of(value: object) -> str:
    kind = _KINDS.get(type(value))
    if kind is None:
        raise QueryError(f"a {type(value).__name__} cannot be compared: give None, a bool, int, float, str or bytes")
    if isinstance(value, float) and not isfinite(value):
        raise QueryError("a number that is not finite")
    return kind


def _check_part(part: object) -> None:
    if not isinstance(part, Query):
        raise QueryError(f"a {type(part).__name__} is no query")


def _check_each(parts: Sequence[object]) -> None:
    for part in parts:
        _check_part(part)


def _check_parts(parts: Sequence[object]) -> None:
    if not isinstance(parts, tuple) or len(parts) < 2:
        raise QueryError("`and` and `or` join at least two")
    _check_each(parts)


def _check_size(query: Query) -> None:
    """Refuse a query that is too large; those below it were looked at before, so this recursion is bounded."""
    depth, terms = _extent(query)
    if depth > QUERY_DEPTH_MAX:
        raise QueryError(f"the query is nested more than {QUERY_DEPTH_MAX} deep")
    if terms > QUERY_TERMS_MAX:
        raise QueryError(f"the query has more than {QUERY_TERMS_MAX} terms")
    try:
        size = len(_encoder.encode(query))
    except (OverflowError, ValueError) as error:  # Beyond 64 bits; half of a surrogate pair.
        raise QueryError(f"the query has a value that cannot be written: {error}") from error
    if size > QUERY_BYTES_MAX:
        raise QueryError(f"the query is longer than {QUERY_BYTES_MAX} bytes")


def _extent(query: Query) -> tuple[int, int]:
    """Return how deep a query is nested, from 1, and how many terms it has, which bounds what it costs to ask."""
    match query:
        case Every() | Some():
            extents = [_extent(part) for part in query.parts]
            return 1 + max(depth for depth, _ in extents), sum(terms for _, terms in extents)
        case Not():
            depth, terms = _extent(query.part)
            return depth + 1, terms
        case OneOf():
            return 1, len(query.values)
        case Contains():
            return 1, CONTAINS_TERMS
        case _:
            return 1, 1


def _parts(query: object, kind: type[Every] | type[Some]) -> "tuple[Query, ...]":
    """Return the parts of a query of that kind, so that ``a & b & c`` is one row of three; else the query itself."""
    if isinstance(query, kind):
        return query.parts
    assert isinstance(query, Query)
    return (query,)
