# SPDX-License-Identifier: Apache-2.0
"""``atoll exec``: run a program whose only network is the overlay."""

import os
from pathlib import Path
from typing import Final, NoReturn

import click

from atoll.base.errors import LinkError, UserError
from atoll.cli.api import Api, view
from atoll.cli.node import TAGS
from atoll.cli.options import node_options, state_of
from atoll.node.views import DoorView

__all__ = ["execute"]

NOT_FOUND: Final = 127  # As shells have it.
NOT_EXECUTABLE: Final = 126


@click.command("exec", short_help="Run a program whose only network is the overlay.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--tag", type=click.Choice(TAGS), help="What all packets of COMMAND get, whatever the rules say.")
@node_options
def execute(*, command: tuple[str, ...], tag: str | None, state: str | None, config: Path | None) -> NoReturn:
    """Run COMMAND in a private network in which there is the overlay and nothing else. No root needed.

    Members are called NODE, NODE.atoll or NODE.GROUP.atoll there. The exit status is COMMAND's. Write `--` before
    COMMAND, so that its options are its own.
    """
    from atoll.host.namespaces import enter, use_resolver  # noqa: PLC0415 -- nothing else here needs them.
    from atoll.host.owners import MARK_VARIABLE, born_ticks  # noqa: PLC0415 -- as above.

    pid = os.getpid()  # It stays the same when this process becomes COMMAND.
    wanted = {} if tag is None else {"tag": tag, "pid": pid, "born": born_ticks(pid)}
    door = view(Api(state_of(state, config)).call("private", wanted), DoorView)
    if door.mark:
        os.environ[MARK_VARIABLE] = door.mark
    if door.pid:
        try:
            files = [os.open(f"/proc/{door.pid}/fd/{number}", os.O_RDONLY) for number in (door.user, door.net)]
            enter(*files)
            use_resolver(door.resolver, (door.search, "atoll"))
        except (LinkError, OSError) as error:
            raise UserError(
                "A112",
                "the node's private network cannot be entered",
                where=f"process {door.pid}: {error}",
                fix="run it as the user that runs the node",
            ) from error
    try:
        os.execvp(command[0], command)  # noqa: S606 -- what the user asked for, and no shell.
    except FileNotFoundError:
        click.echo(f"atoll exec: no program {command[0]!r}", err=True)
        raise SystemExit(NOT_FOUND) from None
    except OSError as error:
        click.echo(f"atoll exec: {command[0]}: {error.strerror}", err=True)
        raise SystemExit(NOT_EXECUTABLE) from None
