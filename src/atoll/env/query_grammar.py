# SPDX-License-Identifier: Apache-2.0
"""How people write a query: the text of the command line, read by recursive descent and printed back.

``parse(text(query)) == query`` for every query. The grammar is in docs/reference/query.md. Whoever types is told the
column and what was expected there. Words with a meaning of their own, and names that are no words, are written between
quotes where a name is expected: ``"not" == 1`` asks for a field that is called ``not``.
"""

import re
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias, TypeVar

from atoll.base.errors import UserError
from atoll.env.limits import QUERY_DEPTH_MAX, QUERY_TERMS_MAX, QUERY_TEXT_CHARS_MAX
from atoll.env.query import (
    OPERATORS,
    Compare,
    Contains,
    Every,
    Everything,
    IsType,
    Names,
    Not,
    OneOf,
    Operator,
    Query,
    QueryError,
    Some,
    StartsWith,
    Value,
)

__all__ = ["RESERVED", "parse", "text"]

RESERVED: Final = frozenset({"and", "contains", "everything", "false", "in", "none", "not", "or", "startswith", "true"})
"""Words that are never names."""

_CONSTANTS: Final[dict[str, Value]] = {"none": None, "true": True, "false": False}
_INTEGER_CHARS_MAX: Final = 20  # -(2**63) and 2**64 - 1 have as many; reading more digits costs quadratic time.
_EXCERPT_CHARS: Final = 24
_A_VALUE: Final = 'a value (a number, "text", x"hex", true, false, none)'
_A_TERM: Final = "a type, a field, not, everything or ("
_A_COMPARISON: Final = f"one of {' '.join(OPERATORS)} in contains startswith"

# Each of these takes every character at most once and never goes back by more than one, whatever the text is.
_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<bytes>x"[0-9A-Fa-f]*"|x'[0-9A-Fa-f]*')
    |(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
    |(?P<word>[^\W\d]\w*)
    |(?P<sign>==|!=|<=|>=|[<>=(),.])""",
    re.VERBOSE | re.DOTALL,
)
_WORD: Final = re.compile(r"[^\W\d]\w*")
_ESCAPE: Final = re.compile(r"\\(?:u\{([0-9A-Fa-f]{1,6})\}|(.))", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "'": "'", "\\": "\\"}
_ESCAPES: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t", '"': r"\"", "\\": r"\\"}

_Kind: TypeAlias = Literal["bytes", "string", "number", "word", "sign", "end"]
_KINDS: Final[tuple[_Kind, ...]] = ("bytes", "string", "number", "word", "sign")
MadeT = TypeVar("MadeT", bound=Query)


class _Token(NamedTuple):
    """A piece of the text. ``column`` counts characters from 1."""

    kind: _Kind
    text: str
    column: int

    def is_word(self, word: str) -> bool:
        return self.kind == "word" and self.text == word

    def is_sign(self, sign: str) -> bool:
        return self.kind == "sign" and self.text == sign


def parse(line: str) -> Query:
    """Return the query that a text means, such as ``Bid and amount > 100 and not who == "bob"``.

    Raises:
        UserError: A501, it means none; the sentence names the column and what was expected there.
    """
    if len(line) > QUERY_TEXT_CHARS_MAX:
        raise _wrong(QUERY_TEXT_CHARS_MAX + 1, f"the query has {len(line)} characters, at most {QUERY_TEXT_CHARS_MAX}")
    return _Parser(_tokens(line)).whole()


def text(query: Query) -> str:
    """Return the text of a query, on one line; ``parse`` gives an equal query of it."""
    match query:
        case Everything():
            return "everything"
        case IsType():
            return _print_name(query.name)
        case Compare():
            return f"{_print_names(query.field)} {query.operator} {_print_value(query.value)}"
        case OneOf():
            return f"{_print_names(query.field)} in ({', '.join(map(_print_value, query.values))})"
        case Contains():
            return f"{_print_names(query.field)} contains {_print_value(query.value)}"
        case StartsWith():
            return f"{_print_names(query.field)} startswith {_print_value(query.value)}"
        case Every():
            return " and ".join(
                f"({text(part)})" if isinstance(part, Every | Some) else text(part) for part in query.parts
            )
        case Some():
            return " or ".join(f"({text(part)})" if isinstance(part, Some) else text(part) for part in query.parts)
        case _:  # Not.
            return f"not ({text(query.part)})" if isinstance(query.part, Every | Some) else f"not {text(query.part)}"


# Reading.


def _wrong(column: int, what: str) -> UserError:
    return UserError("A501", f"column {column} of the query: {what}", fix="see docs/reference/query.md")


def _tokens(line: str) -> list[_Token]:
    """Cut a text up. The last token is of kind ``end``."""
    tokens: list[_Token] = []
    at = 0
    while at < len(line):
        found = _TOKEN.match(line, at)
        if found is None:
            what = "the text has no end" if line[at] in "\"'" else f"{_excerpt(line[at])} means nothing here"
            raise _wrong(at + 1, what)
        tokens += [_Token(kind, found.group(), at + 1) for kind in _KINDS if kind == found.lastgroup]  # None for space.
        at = found.end()
    return [*tokens, _Token("end", "", len(line) + 1)]


class _Parser:
    """Reads a row of tokens; ``nested`` and ``terms`` are bounded before anything is built of what is inside."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._nested = 0
        self._terms = 0

    def whole(self) -> Query:
        query = self._either()
        if self._next.kind != "end":
            raise self._expected("and, or, or the end")
        return query

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _took_word(self, word: str) -> bool:
        if not self._next.is_word(word):
            return False
        self._at += 1
        return True

    def _took_sign(self, sign: str) -> bool:
        if not self._next.is_sign(sign):
            return False
        self._at += 1
        return True

    def _expected(self, what: str) -> UserError:
        token = self._next
        found = "the end" if token.kind == "end" else _excerpt(token.text)
        return _wrong(token.column, f"expected {what}, found {found}")

    def _either(self) -> Query:
        return self._row("or", self._both, Some)

    def _both(self) -> Query:
        return self._row("and", self._one, Every)

    def _row(self, word: str, part: Callable[[], Query], kind: type[Every] | type[Some]) -> Query:
        first = self._next
        parts = [part()]
        while self._took_word(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else _made(first, lambda: kind(tuple(parts)))

    def _one(self) -> Query:
        """Read what may stand between two ``and``."""
        first = self._next
        if first.is_word("not") or first.is_sign("("):
            self._nested += 1
            if self._nested > QUERY_DEPTH_MAX:
                raise _wrong(first.column, f"the query is nested more than {QUERY_DEPTH_MAX} deep")
            self._at += 1
            query = self._negated(first) if first.is_word("not") else self._inner()
            self._nested -= 1
            return query
        if self._took_word("everything"):
            self._count(first)
            return Everything()
        return self._term()

    def _negated(self, first: _Token) -> Query:
        part = self._one()
        return _made(first, lambda: Not(part))

    def _inner(self) -> Query:
        query = self._either()
        if not self._took_sign(")"):
            raise self._expected("and, or, or )")
        return query

    def _term(self) -> Query:
        """Read the name of a type, or a field and what it is compared with."""
        first = self._next
        names = self._names()
        token = self._next
        if token.kind == "sign" and (sign := _operator(token.text)) is not None:
            self._at += 1
            value = self._value()
            return _made(first, lambda: Compare(names, sign, value))
        if self._took_word("in"):
            values = self._values()
            return _made(first, lambda: OneOf(names, values))
        if self._took_word("contains"):
            piece = self._value()
            return _made(first, lambda: Contains(names, piece))
        if self._took_word("startswith"):
            piece = self._value()
            return _made(first, lambda: StartsWith(names, piece))
        if len(names) == 1 and (
            token.kind == "end" or token.is_sign(")") or token.is_word("and") or token.is_word("or")
        ):
            self._count(first)
            return _made(first, lambda: IsType(names[0]))
        raise self._expected(_A_COMPARISON)

    def _names(self) -> Names:
        names = [self._name(_A_TERM)]
        while self._took_sign("."):
            names.append(self._name("the name of a field"))
        return tuple(names)

    def _name(self, what: str) -> str:
        token = self._next
        if token.kind == "string":
            self._at += 1
            return _read_string(token)
        if token.kind == "word" and token.text not in RESERVED:
            self._at += 1
            return token.text
        raise self._expected(what)

    def _values(self) -> tuple[Value, ...]:
        if not self._took_sign("("):
            raise self._expected("(")
        values = [self._value()]
        while self._took_sign(","):
            values.append(self._value())
        if not self._took_sign(")"):
            raise self._expected(", or )")
        return tuple(values)

    def _value(self) -> Value:
        token = self._next
        if token.kind in {"sign", "end"} or (token.kind == "word" and token.text not in _CONSTANTS):
            raise self._expected(_A_VALUE)
        self._at += 1
        self._count(token)
        match token.kind:
            case "string":
                return _read_string(token)
            case "bytes" if len(token.text) % 2:  # With the x and two quotes.
                return bytes.fromhex(token.text[2:-1])
            case "bytes":
                raise _wrong(token.column, "two hexadecimal digits make one byte")
            case "number":
                return _read_number(token)
            case _:
                return _CONSTANTS[token.text]

    def _count(self, token: _Token) -> None:
        self._terms += 1
        if self._terms > QUERY_TERMS_MAX:
            raise _wrong(token.column, f"the query has more than {QUERY_TERMS_MAX} terms")


def _made(first: _Token, make: Callable[[], MadeT]) -> MadeT:
    """Make a part of the query; a part that cannot be is where it began."""
    try:
        return make()
    except QueryError as error:
        raise _wrong(first.column, str(error)) from error


def _operator(sign: str) -> Operator | None:
    for known in OPERATORS:
        if sign == known:
            return known
    return None


def _read_number(token: _Token) -> int | float:
    if not token.text.lstrip("-").isdecimal():
        return float(token.text)
    if len(token.text) > _INTEGER_CHARS_MAX:
        raise _wrong(token.column, "an integer beyond 64 bits")
    return int(token.text)


def _read_string(token: _Token) -> str:
    def read(found: re.Match[str]) -> str:
        number, letter = found.groups()
        if number is not None and int(number, 16) <= 0x10FFFF:
            return chr(int(number, 16))
        if letter in _ESCAPED:
            return _ESCAPED[letter]
        column = token.column + 1 + found.start()
        what = r"after a backslash comes one of n r t \ ' or u{HEX}"
        raise _wrong(column, f'{what}, or "')

    return _ESCAPE.sub(read, token.text[1:-1])


# Printing.


def _excerpt(piece: str) -> str:
    return _print_string(piece if len(piece) <= _EXCERPT_CHARS else piece[:_EXCERPT_CHARS] + "...")


def _print_names(names: Names) -> str:
    return ".".join(map(_print_name, names))


def _print_name(name: str) -> str:
    return name if name not in RESERVED and _WORD.fullmatch(name) else _print_string(name)


def _print_string(value: str) -> str:
    """Return a text between quotes; what a terminal would not show as itself is escaped."""
    shown = (_ESCAPES.get(char) or (char if char.isprintable() else f"\\u{{{ord(char):x}}}") for char in value)
    return f'"{"".join(shown)}"'


def _print_value(value: Value) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case str():
            return _print_string(value)
        case bytes():
            return f'x"{value.hex()}"'
        case _:  # A number.
            return repr(value)
