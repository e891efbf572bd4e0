# SPDX-License-Identifier: Apache-2.0
"""Queries as text: what each form means, and where the reader says that a text is wrong."""

import re

import pytest

from atoll.base.errors import UserError
from atoll.env.limits import QUERY_DEPTH_MAX, QUERY_TERMS_MAX, QUERY_TEXT_CHARS_MAX
from atoll.env.query import Every, Everything, IsType, Query, Some, field, where
from atoll.env.query_grammar import RESERVED, parse, text

A, B, C = where("A"), where("B"), where("C")

READ: list[tuple[str, Query]] = [
    ("Bid", where("Bid")),
    ("everything", Everything()),
    ('Bid and amount > 100 and not who == "bob"', where("Bid", field("amount") > 100, ~(field("who") == "bob"))),
    ("a == 1", field("a") == 1),
    ("a != -1", field("a") != -1),
    ("a < 1.5", field("a") < 1.5),
    ("a <= 1e3", field("a") <= 1000.0),
    ("a>-2.5E-3", field("a") > -0.0025),
    ("a >= 18446744073709551615", field("a") >= (1 << 64) - 1),
    ("a.b.c == none", field("a.b.c") == None),  # noqa: E711  A query.
    ("a == true", field("a") == True),  # noqa: E712  A query.
    ("a == false", field("a") == False),  # noqa: E712  A query.
    ('a == x"00ffAb"', field("a") == b"\x00\xff\xab"),
    ("a == x''", field("a") == b""),
    ("x == 1", field("x") == 1),
    ("a in (1)", field("a").one_of(1)),
    ("a in (1, 'b', none)", field("a").one_of(1, "b", None)),
    ("tags contains 'urgent'", field("tags").contains("urgent")),
    ("who startswith 'b'", field("who").startswith("b")),
    ("größe > 3", field("größe") > 3),
    ("A and B or C", A & B | C),
    ("A or B and C", A | B & C),
    ("A and (B or C)", A & (B | C)),
    ("(A and B) and C", Every((A & B, C))),
    ("A or (B or C)", Some((A, B | C))),
    ("((A))", A),
    ("not A and B", ~A & B),
    ("not (A and B)", ~(A & B)),
    ("not not A", ~~A),
    (' \t\r\n A\nand"B"', A & B),
    ('"not" == 1', field("not") == 1),
    ('"a b"."c.d" == 1', field(("a b", "c.d")) == 1),
    ("'everything'", IsType("everything")),
    (r'a == "\n\r\t\"\'\\\u{1F600}"', field("a") == "\n\r\t\"'\\\U0001f600"),
    ("a == 'say \"no\"'", field("a") == 'say "no"'),
]


@pytest.mark.parametrize(("line", "query"), READ)
def test_a_text_means_a_query_and_is_printed_back(line: str, query: Query) -> None:
    found = parse(line)
    assert found == query
    assert repr(found) == repr(query)  # 1 and True are equal.
    assert repr(parse(text(query))) == repr(query)


@pytest.mark.parametrize(
    ("query", "line"),
    [
        (where("Bid", field("amount") > 100, ~(field("who") == "bob")), 'Bid and amount > 100 and not who == "bob"'),
        (field("a").one_of(1, 2.0, b"\x01", True, None, "b"), 'a in (1, 2.0, x"01", true, none, "b")'),
        (field("a").contains(False), "a contains false"),
        (field("a").startswith("b"), 'a startswith "b"'),
        (A & B | C, "A and B or C"),
        (A & (B | C), "A and (B or C)"),
        (Every((A & B, C)), "(A and B) and C"),
        (Some((A, B | C)), "A or (B or C)"),
        (~(A | B), "not (A or B)"),
        (~~A, "not not A"),
        (Everything(), "everything"),
        (where("in"), '"in"'),
        (where("2nd"), '"2nd"'),
        (field("a") == "\u202e\x1b\n", r'a == "\u{202e}\u{1b}\n"'),
    ],
)
def test_a_query_is_printed_with_no_more_than_it_needs(query: Query, line: str) -> None:
    assert text(query) == line


@pytest.mark.parametrize("word", sorted(RESERVED))
def test_reserved_words_are_names_between_quotes_only(word: str) -> None:
    assert parse(text(IsType(word))) == IsType(word)
    assert parse(text(field(f"{word}.{word}") == 1)) == (field(f"{word}.{word}") == 1)
    with pytest.raises(UserError):
        parse(f"a.{word} == 1")


@pytest.mark.parametrize(
    ("line", "column", "what"),
    [
        ("", 1, "expected a type, a field, not, everything or (, found the end"),
        ("Bid and", 8, "expected a type, a field, not, everything or (, found the end"),
        ("Bid and and", 9, 'everything or (, found "and"'),
        ("Bid amount", 5, 'expected one of == != < <= > >= in contains startswith, found "amount"'),
        ("amount = 100", 8, 'expected one of == != < <= > >= in contains startswith, found "="'),
        ("amount ! 100", 8, '"!" means nothing here'),
        ("amount == bob", 11, 'expected a value (a number, "text", x"hex", true, false, none), found "bob"'),
        ("amount ==", 10, "found the end"),
        ("amount == (1)", 11, 'found "("'),
        ("a.b", 4, "expected one of =="),
        ("a.", 3, "expected the name of a field, found the end"),
        ("a.1 == 1", 3, 'expected the name of a field, found "1"'),
        ("a in 1", 6, 'expected (, found "1"'),
        ("a in ()", 7, "expected a value"),
        ("a in (1 2)", 9, "expected , or )"),
        ("(A", 3, "expected and, or, or ), found the end"),
        ("A)", 2, 'expected and, or, or the end, found ")"'),
        ("a == 1 2", 8, 'expected and, or, or the end, found "2"'),
        ("a == 'b", 6, "the text has no end"),
        (r"a == 'b\q'", 8, "after a backslash comes one of"),
        (r"a == '\u{110000}'", 7, "after a backslash comes one of"),
        (r"a == '\u{}'", 7, "after a backslash comes one of"),
        ("a == x'123'", 6, "two hexadecimal digits make one byte"),
        ("a == 18446744073709551616", 1, "cannot be written"),
        ("a == " + "9" * 21, 6, "an integer beyond 64 bits"),
        ("a == 1e999", 1, "not finite"),
        ("A and b > none", 7, "> has no meaning for none"),
        ("a startswith 1", 1, "`startswith` needs a text or bytes"),
        ("A and ''", 7, "an empty name"),
        ("a == '\ud800'", 1, "cannot be written"),
        ("b == '" + "b" * 5000 + "'", 1, "longer than 4096 bytes"),
        ("a == 1 " + "b" * 30, 8, 'found "' + "b" * 24 + '..."'),
        ("(" * (QUERY_DEPTH_MAX + 1), QUERY_DEPTH_MAX + 1, f"nested more than {QUERY_DEPTH_MAX} deep"),
        ("not " * QUERY_DEPTH_MAX + "A", 1, f"nested more than {QUERY_DEPTH_MAX} deep"),
        ("A or " * QUERY_TERMS_MAX + "A", QUERY_TERMS_MAX * 5 + 1, f"more than {QUERY_TERMS_MAX} terms"),
        ("a contains 1 or " * 8 + "a contains 1", 1, f"more than {QUERY_TERMS_MAX} terms"),
        (" " * (QUERY_TEXT_CHARS_MAX + 1), QUERY_TEXT_CHARS_MAX + 1, f"at most {QUERY_TEXT_CHARS_MAX}"),
    ],
)
def test_a_wrong_text_is_named_by_its_column(line: str, column: int, what: str) -> None:
    with pytest.raises(UserError, match=f"^A501: column {column} of the query: .*{re.escape(what)}") as caught:
        parse(line)
    assert caught.value.code == "A501"
    assert caught.value.fix
