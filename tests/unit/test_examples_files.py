# SPDX-License-Identifier: Apache-2.0
"""The examples as texts: short, linted, and such that a node can run them."""

from pathlib import Path

import pytest

from atoll.domain.loading import bundle_of, load
from atoll.env.lint import lint

EXAMPLES = Path(__file__).parents[2] / "examples"
APPLICATIONS = ("auction", "chat", "crawler", "jobs")
LINES_MAX = 150  # Without blank ones: a reader is done in three minutes.


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_clean(path: Path) -> None:
    source = path.read_text()
    assert sum(1 for line in source.splitlines() if line.strip()) < LINES_MAX
    assert lint(source, path.name) == ()


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_goes_as_a_bundle(name: str) -> None:
    loaded = load(bundle_of(str(EXAMPLES / f"{name}.py")))
    assert loaded.bundle.needs == (("msgspec", loaded.bundle.needs[0][1]),)
    assert set(loaded.bundle.files) == {name, *(("fetching",) if name == "crawler" else ())}
