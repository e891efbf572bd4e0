# SPDX-License-Identifier: Apache-2.0
"""What is learned of code without running it: its level, and what it imports."""

import pytest

from atoll.base.errors import UserError
from atoll.domain.loading import Bundle, imports_of, level_of


def _bundle(source: str, **others: str) -> Bundle:
    return Bundle(1, "main", "Shop", {"main": source, **others})


@pytest.mark.parametrize(
    ("body", "level"),
    [
        ("level: ClassVar[str] = 'process'", "process"),
        ("level = 'process'", "process"),
        ("n: int = 0", ""),
        ("level = str('process')", ""),
        ("level: str", ""),
    ],
)
def test_the_level_is_read_from_the_source(body: str, level: str) -> None:
    assert level_of(_bundle(f"raise ValueError\nclass Other:\n    level = 'x'\nclass Shop:\n    {body}\n")) == level


def test_imports_are_found_where_they_come_later() -> None:
    source = "import os.path\ndef f():\n    from json.tool import x\n    from . import y\n"
    source += "    import re, csv as c, prices,\n"
    assert imports_of(_bundle(source, prices="if 1:\n\timport zlib")) == ["csv", "json.tool", "re", "zlib"]


def test_what_is_no_python_has_no_level() -> None:
    with pytest.raises(UserError, match="A603"):
        level_of(_bundle("class"))
