# SPDX-License-Identifier: Apache-2.0
"""Reads the vectors of a specification's page, and writes messages in its words."""

import re
from pathlib import Path
from typing import cast

import msgspec

__all__ = ["block", "items", "vectors"]

SPEC = Path(__file__).parents[2] / "docs" / "spec"


def block(page: str, name: str) -> list[str]:
    """Return the lines of the block with this name."""
    found = re.search(rf"```{name}\n(.*?)```", (SPEC / page).read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1].split("\n")


def vectors(page: str) -> list[tuple[str, str]]:
    """Return the vectors: words, bytes in hex."""
    lines = block(page, "vectors")
    return list(zip(lines[0::3], lines[1::3], strict=False))


def words(value: object) -> str:
    """Write a message's items as the specification does."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, msgspec.Struct):
        return f"[{items(value)}]"
    if isinstance(value, tuple):
        return "[" + ", ".join(words(item) for item in cast("tuple[object, ...]", value)) + "]"  # Of any items.
    return str(value)


def items(message: msgspec.Struct) -> str:
    """Write a message's items, with commas."""
    return ", ".join(words(item) for item in msgspec.structs.astuple(message))
