# SPDX-License-Identifier: Apache-2.0
"""The reference page names every command, every option and every setting that there is."""

import ast
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from atoll.base.problems import ExitStatus
from atoll.cli.app import atoll
from atoll.cli.settings import DEFAULTS, environment_name

SOURCES = Path(__file__).parents[2] / "src/atoll"
PAGE = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text()


def leaves(group: click.Group, name: str) -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for word, command in group.commands.items():
        path = f"{name} {word}"
        found += leaves(command, path) if isinstance(command, click.Group) else [(path, command)]
    return found


COMMANDS = dict(leaves(atoll, "atoll"))


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_has_a_row_with_all_its_options(path: str) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{path}") and line[3 + len(path)] in " `"]
    for parameter in COMMANDS[path].params:
        for option in parameter.opts if isinstance(parameter, click.Option) else []:
            assert option in {"--state", "--config"} or option in row


def errors_without_a_fix() -> Iterator[str]:
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name("UserError"), args=[ast.Constant(str()), *_], keywords=keywords):
                    if all(keyword.arg != "fix" for keyword in keywords):
                        yield f"{path.relative_to(SOURCES)}:{node.lineno}"
                case _:
                    pass


def test_every_error_that_a_person_reads_says_what_to_do() -> None:
    assert list(errors_without_a_fix()) == []


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_setting_has_a_row(key: str) -> None:
    assert f"| `{key}` | `{environment_name(key)}` |" in PAGE


@pytest.mark.parametrize("status", ExitStatus)
def test_an_exit_status_has_a_row(status: ExitStatus) -> None:
    assert f"\n| {status.value} | " in PAGE
