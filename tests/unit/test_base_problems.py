# SPDX-License-Identifier: Apache-2.0
"""The catalogue is whole, and the reference page is the catalogue."""

import ast
import re
from pathlib import Path

import pytest

from atoll.base.problems import PROBLEMS, exit_status, reference_page

ROOT = Path(__file__).parents[2]


def test_the_reference_page_is_generated_from_the_catalogue() -> None:
    assert (ROOT / "docs/reference/errors.md").read_text() == reference_page()


@pytest.mark.parametrize("code", PROBLEMS)
def test_an_entry_reads_well(code: str) -> None:
    entry = PROBLEMS[code]
    assert re.fullmatch(r"A[1-6]\d\d", code)
    assert not entry.title.endswith(".")
    assert entry.title[0].islower()
    assert entry.meaning.endswith(".")
    assert entry.fix.endswith(".")


@pytest.mark.parametrize(
    ("code", "status"),
    [("A203", 6), ("A401", 3), ("A406", 5), ("A501", 2), ("A208", 7), ("A303", 1), ("A999", 1)],
)
def test_a_code_decides_the_exit_status(code: str, status: int) -> None:
    assert exit_status(code) == status


def codes_raised(source: str) -> set[str]:
    """Return the codes that a module hands to something: not those that it only looks up, compares or explains."""
    tree = ast.parse(source)
    looked_up: set[ast.AST] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Dict(keys=keys):
                looked_up |= {key for key in keys if key is not None}
            case ast.Compare(left=left, comparators=comparators):
                looked_up |= {left, *comparators}
            case ast.Subscript(slice=index):
                looked_up.add(index)
            case _:
                pass
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in looked_up]
    return {node.value for node in constants if isinstance(node.value, str) and re.fullmatch(r"A\d{3}", node.value)}


def test_only_a_code_that_is_handed_on_counts_as_raised() -> None:
    source = 'raise E("A101")\nT = {"A102": 1, 2: ("A103", "x")}\n"A104" == T["A105"]\n"""A106"""  # A107\n'
    assert codes_raised(source) == {"A101", "A103", "A106"}


def test_the_catalogue_holds_every_code_that_is_raised_and_no_other() -> None:
    raised: set[str] = set()
    for path in (ROOT / "src/atoll").rglob("*.py"):
        if path != ROOT / "src/atoll/base/problems.py":
            raised |= codes_raised(path.read_text())
    assert raised == set(PROBLEMS)
