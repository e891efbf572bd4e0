# SPDX-License-Identifier: Apache-2.0
"""The command ``atoll``: its top level, and how every error becomes one anatomy and one exit status.

Data goes to standard output, messages to standard error. No traceback unless ``--debug``. Contract:
docs/reference/cli.md.
"""

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from atoll.base.errors import ProjectError, UserError
from atoll.base.problems import ExitStatus, exit_status
from atoll.base.version import __version__
from atoll.cli import render
from atoll.cli.about import config, explain
from atoll.cli.clients import client
from atoll.cli.environments import env
from atoll.cli.environments import run as run_program
from atoll.cli.exec import execute
from atoll.cli.forwards import forward, socks
from atoll.cli.lab import demo
from atoll.cli.node import can, down, invite, logs, metrics, ping, remove, status, up, why
from atoll.cli.past import audit, diff, replay, trace

__all__ = ["atoll", "run"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="atoll %(version)s")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def atoll(*, debug: bool) -> None:
    """Your machines, one network: a path that goes bad is left within a second, and atoll says why.

    Start with `atoll demo`, or with `atoll up` on the first of your machines.
    """


for command in (
    up,
    down,
    status,
    why,
    can,
    ping,
    invite,
    remove,
    client,
    forward,
    socks,
    execute,
    metrics,
    logs,
    run_program,
    env,
    replay,
    diff,
    trace,
    audit,
    demo,
    explain,
    config,
):
    atoll.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit status. Prints everything that a person should see."""
    is_debug = "--debug" in arguments or os.environ.get("ATOLL_DEBUG", "") not in {"", "0"}
    try:
        _check_text(arguments)
        # Alone, it shows what there is: nobody means anything else by it.
        outcome = atoll.main(list(arguments) or ["--help"], prog_name="atoll", standalone_mode=False)
        return outcome if isinstance(outcome, int) else ExitStatus.OK
    except (click.Abort, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:  # The reader of a pipe has seen enough, as in `atoll status | head -1`.
        sys.stdout = None  # Or the interpreter would complain when it flushes at exit.
        return ExitStatus.FAILURE
    except Exception as error:  # The supervisor of the command line: whatever it is becomes one anatomy.
        if is_debug:
            raise
        problem = _as_problem(error)
        click.echo(render.error(problem), err=True, nl=False)
        return exit_status(problem.code)


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse bytes that are no UTF-8: they could neither travel to a node nor be shown.

    Raises:
        UserError: A501, with the argument.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise UserError("A501", "an argument is not UTF-8", where=ascii(argument), fix="write it anew") from error


_BY_SYSTEM: Final = "the system refused it: check the name, and who may use it; atoll --debug shows where"


def _as_problem(error: Exception) -> UserError:
    match error:
        case UserError():
            return error
        case click.UsageError():
            command = error.ctx.command_path if error.ctx is not None else "atoll"
            return UserError("A501", _clause(error.format_message()), where=command, fix=f"{command} --help")
        case click.ClickException():
            return UserError("A501", _clause(error.format_message()), fix="atoll --help")
        case ProjectError():
            return UserError("A499", _clause(str(error)), fix="atoll logs")
        case OSError():
            return UserError(
                "A499", _clause(error.strerror or str(error)), where=str(error.filename or ""), fix=_BY_SYSTEM
            )
        case _:
            name = type(error).__name__
            return UserError("A500", f"unexpected {name}: {error}", fix="please report it; `--debug` shows where")


def _clause(sentence: str) -> str:
    """Return a sentence as the anatomy wants it: lower case first, no full stop."""
    sentence = sentence.strip().removesuffix(".")
    return sentence[:1].lower() + sentence[1:]
