# SPDX-License-Identifier: Apache-2.0
"""The page of names for authors has every name that there is, as it is; and what pages show as code can be run."""

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import atoll
from atoll import env
from atoll.domain.loading import FORMAT, Bundle, bundle_of, check_bundle, load
from atoll.env import limits
from atoll.env.changes import Failure
from atoll.env.context import Context
from atoll.env.tuples import Tuple

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference/env.md").read_text()
ROWS = {match[1]: match[0] for match in re.finditer(r"^\| `(\w+)[^`]*` \|.*$", PAGE, re.MULTILINE)}
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "s": 1, "min": 60, "d": 86_400}
MEMBERS = [name for name in vars(Context) if not name.startswith("_")]
TUPLES = [name for name in env.__all__ if isinstance(kind := getattr(env, name), type) and issubclass(kind, Tuple)]


@pytest.mark.parametrize("name", sorted({*env.__all__, *atoll.__all__} - {"__version__"}))
def test_a_public_name_is_on_the_page(name: str) -> None:
    assert re.search(rf"`{name}\b", PAGE)


@pytest.mark.parametrize("name", MEMBERS)
def test_whatever_a_handler_may_ask_is_on_the_page_with_its_parameters(name: str) -> None:
    member = inspect.getattr_static(Context, name)
    if name == "cut":
        assert "`cut()`" in PAGE
        return
    row = ROWS[name]
    if inspect.isfunction(member):
        given = row[: row.index(")` |")].partition("(")[2]
        names = [one.strip("*").partition("=")[0] for one in given.split(", ") if one]
        assert names == [one for one in inspect.signature(member).parameters if one != "self"]


@pytest.mark.parametrize("name", TUPLES)
def test_a_tuple_is_on_the_page_with_its_fields(name: str) -> None:
    kind: Any = getattr(env, name)
    lines = [line for line in PAGE.splitlines() if f"`{name}`" in line]
    for field in kind.__struct_fields__:
        assert any(f"`{field}`" in line for line in lines)


@pytest.mark.parametrize("name", [name for name in ROWS if name.isupper()])
def test_a_limit_has_its_value(name: str) -> None:
    said = re.search(r"\| ([\d,]+) ?(\w*) \|", ROWS[name])
    assert said is not None
    value = int(said[1].replace(",", "")) * UNITS[said[2]]
    assert getattr(limits, name) == value * (10**9 if "_NS_" in name else 1)


def test_every_code_of_a_failure_is_on_the_page() -> None:
    assert Failure.__doc__ is not None
    codes = re.findall(r"``([a-z-]+)``", Failure.__doc__)
    assert len(codes) > 10
    for code in codes:
        assert re.search(rf"^\| [^|]*`{code}`", PAGE, re.MULTILINE)


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def run_test(source: str, name: str, application: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the one test in a source that imports its application by name."""
    monkeypatch.setitem(sys.modules, name, application)
    space: dict[str, Any] = {}
    exec(compile(source, name, "exec"), space)
    (test,) = [function for key, function in space.items() if key.startswith("test_")]
    test()


@pytest.mark.parametrize(
    ("page", "name", "first"), [("tutorial/environments.md", "poll", 0), ("howto/environments.md", "counter", 0)]
)
def test_the_program_of_a_page_is_one_that_is_run_and_its_test_passes(
    page: str, name: str, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, test = blocks(page)[first : first + 2]
    (tmp_path / f"{name}.py").write_text(program)
    bundle = bundle_of(str(tmp_path / f"{name}.py"))
    check_bundle(bundle)
    loaded = load(bundle)
    application = ModuleType(name)
    application.__dict__.update(loaded.program.types)
    application.__dict__.update({kind: one.app for kind, one in loaded.program.classes.items()})
    run_test(test, name, application, monkeypatch)


def test_what_the_tutorial_changes_fits_into_its_program() -> None:
    program, _, tuples, question, more = blocks("tutorial/environments.md")
    handlers = more.partition("...  # As it was.\n")[2]
    changed = program.replace(
        "class Poll(atoll.App):\n", f"{tuples}\n\nclass Poll(atoll.App):\n    is_open: bool = True\n"
    )
    changed = changed.replace("        if vote.choice", question + "        if vote.choice", 1) + "\n" + handlers
    bundle = Bundle(FORMAT, "poll", "Poll", {"poll": changed})
    check_bundle(bundle)
    assert {kind.__name__ for kind in load(bundle).program.main.handlers} == {"Vote", "Close", "Closed"}


def test_the_program_of_the_reference_can_be_run() -> None:
    (program,) = blocks("reference/env.md")
    bundle = Bundle(FORMAT, "board", "Board", {"board": program})
    check_bundle(bundle)
    main = load(bundle).program.main
    assert main.migrations[1]({"notes": 3}) == {"count": 3}
