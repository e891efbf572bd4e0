# SPDX-License-Identifier: Apache-2.0
"""A compiled packet device is used only if it was made of the sources that are installed."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.host.compiled_tree import PACKAGE, compiled_tree, digest_of, is_compiled_module, sources_of

SOURCES = Path(__file__).parents[2] / "src" / "atoll"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of that name comes first; return where it says what it was made of."""
    (tmp_path / PACKAGE).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    yield tmp_path / PACKAGE / "__init__.py"
    sys.modules.pop(PACKAGE, None)


@pytest.mark.parametrize("says", ["SOURCES = '0'", "", "raise ImportError('for another Python')"])
def test_one_of_other_sources_is_left_alone(install: Path, says: str) -> None:
    install.write_text(says, encoding="ascii")
    assert compiled_tree() is None


def test_the_digest_tells_every_change(tmp_path: Path) -> None:
    copy = tmp_path / "atoll"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = digest_of(copy)
    assert before == digest_of(SOURCES)
    changed = copy / "device" / "nic" / "messages.py"
    assert changed in sources_of(copy)
    changed.write_bytes(changed.read_bytes() + b"\n")
    after = digest_of(copy)
    assert after != before
    changed.rename(changed.with_name("orders.py"))
    assert digest_of(copy) not in {before, after}


def test_a_module_in_python_is_not_compiled() -> None:
    assert not is_compiled_module(__name__)
    assert is_compiled_module("_struct") == (getattr(sys.modules["_struct"], "__file__", None) is not None)
