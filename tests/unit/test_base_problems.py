# SPDX-License-Identifier: Apache-2.0
"""The catalogue is whole, and the reference page is the catalogue."""

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
    assert re.fullmatch(r"A[1-5]\d\d", code)
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


def test_every_code_that_the_source_raises_is_in_the_catalogue() -> None:
    raised: set[str] = set()
    for path in (ROOT / "src/atoll").rglob("*.py"):
        raised |= set(re.findall(r'"(A[1-5]\d\d)"', path.read_text()))
    assert raised - set(PROBLEMS) == set()
