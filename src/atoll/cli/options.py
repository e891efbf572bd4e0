# SPDX-License-Identifier: Apache-2.0
"""What several commands share: their options, the settings behind them, and whether a person is looking."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import click

from atoll.cli.settings import Setting, load, load_rules

if TYPE_CHECKING:
    from atoll.node.rules import Rules

__all__ = [
    "BYTES_PER_MBIT",
    "YES_NO",
    "as_json",
    "colours_wanted",
    "is_terminal",
    "node_options",
    "one_of",
    "rules",
    "settings",
    "state_of",
]

Args = ParamSpec("Args")
Result = TypeVar("Result")

BYTES_PER_MBIT: Final = 125_000
YES_NO: Final = ("yes", "no")

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON of a versioned schema instead of text.")


def node_options(command: Callable[Args, Result]) -> Callable[Args, Result]:
    """Add the options that say which node is meant."""
    state = click.option("--state", metavar="DIR", help="State directory of the node.")
    config = click.option("--config", metavar="FILE", type=click.Path(path_type=Path), help="Use this atoll.toml.")
    return state(config(command))


def one_of(given: Mapping[str, bool]) -> None:
    """Refuse options that exclude each other, rather than let one of them win unseen.

    Raises:
        click.UsageError: More than one is given.
    """
    names = [name for name, is_given in given.items() if is_given]
    if len(names) > 1:
        raise click.UsageError(f"{' and '.join(names)} exclude each other", click.get_current_context())


def settings(config: Path | None, flags: Mapping[str, Any]) -> dict[str, Setting]:
    """Return all settings of this invocation; flags are keyed by setting.

    Raises:
        UserError: A501, see ``settings.load``.
    """
    given = {key: None if value is None else str(value) for key, value in flags.items()}
    return load(given, os.environ, config)


def rules(config: Path | None) -> "Rules | None":
    """Return the rules of atoll.toml; None: there is no such file.

    Raises:
        UserError: A501, see ``settings.load_rules``.
    """
    return load_rules(os.environ, config)


def state_of(state: str | None, config: Path | None) -> Path:
    """Return the state directory that is meant.

    Raises:
        UserError: A501, see ``settings.load``.
    """
    chosen = settings(config, {"state": state})["state"].value
    assert chosen is not None  # load() fills it in.
    return Path(chosen)


def is_terminal() -> bool:
    """Say whether a person is looking at standard output."""
    return sys.stdout.isatty()


def colours_wanted() -> bool:
    """Say whether to colour: a person looks, and has not asked for none (https://no-color.org)."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
