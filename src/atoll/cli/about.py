# SPDX-License-Identifier: Apache-2.0
"""Commands that need no running node: help, config; and what a replay of a node does."""

from pathlib import Path
from typing import Final

import click

from atoll.base.errors import CorruptError, DivergenceError, UserError
from atoll.base.ids import TCP_PREFIX
from atoll.base.problems import PROBLEMS
from atoll.cli import render
from atoll.cli.api import Api
from atoll.cli.options import BYTES_PER_MBIT, YES_NO, as_json, node_options, rules, settings, state_of
from atoll.cli.settings import Setting

__all__ = ["config", "explain", "replay_node"]

SETTINGS_SCHEMA: Final = "atoll.settings/1"
AGAIN: Final = "copy the journal again from its machine; or stop before the damage: atoll replay JOURNAL --until N"


@click.command("help", short_help="Explain an error or a command, offline.")
@click.argument("code", required=False)
@click.pass_context
def explain(context: click.Context, *, code: str | None) -> None:
    """Explain an error CODE such as A203, or a command, offline; without one, list the commands."""
    assert context.parent is not None
    assert isinstance(context.parent.command, click.Group)
    if code is None:
        click.echo(context.parent.get_help())
        return
    command = context.parent.command.get_command(context.parent, code)
    if command is not None:
        click.echo(command.get_help(click.Context(command, context.parent, info_name=code)))
        return
    wanted = code.upper()
    if wanted not in PROBLEMS:
        raise UserError(
            "A501",
            f"{code!r} is neither an error nor a command",
            where=f"errors: {', '.join(PROBLEMS)}",
            fix="the commands: atoll help",
        )
    click.echo(render.explanation(wanted), nl=False)


@click.group(no_args_is_help=False)
def config() -> None:
    """Show the settings, and where they come from; apply rules."""


@config.command()
@click.option("--origin", is_flag=True, help="Also print where each value comes from.")
@as_json
@node_options
def show(*, origin: bool, as_json: bool, state: str | None, config: Path | None) -> None:
    """Print each setting; `-` where the node decides by itself."""
    found = settings(config, {"state": state})
    found |= _kept(found)
    if as_json:
        import msgspec  # noqa: PLC0415 -- text needs none.

        click.echo(msgspec.json.encode({"schema": SETTINGS_SCHEMA, "settings": list(found.values())}).decode())
        return
    for setting in found.values():
        value = "-" if setting.value is None else setting.value
        click.echo(f"{setting.key}\t{value}\t{setting.origin}" if origin else f"{setting.key}\t{value}")


@config.command(short_help="Give the rules of atoll.toml to the running node.")
@node_options
def apply(*, state: str | None, config: Path | None) -> None:
    """Give the rules of atoll.toml (access, traffic, tags) to the running node. Connections that are open stay."""
    found = rules(config)
    if found is None:
        raise UserError("A501", "there is no configuration file", fix="write atoll.toml, or name one: --config FILE")
    import msgspec  # noqa: PLC0415 -- text needs none.

    Api(state_of(state, config)).call("rules", {"rules": msgspec.to_builtins(found)})
    click.echo(f"{len(found.access)} access and {len(found.traffic)} traffic rules are in force", err=True)


def _kept(found: dict[str, Setting]) -> dict[str, Setting]:
    """Return the settings that nobody gave now and that the node keeps from an earlier ``up``."""
    from atoll.node.state import peek_settings  # noqa: PLC0415 -- it costs an import that other commands need not pay.

    kept = peek_settings(Path(found["state"].value or ""))
    if kept is None:
        return {}
    values = {
        "name": kept.name,
        "listen": kept.listen,
        "tcp": next((one.rpartition(":")[2] for one in kept.listen.split(",") if one.startswith(TCP_PREFIX)), "0"),
        "advertise": ",".join(kept.advertise),
        "relay": kept.relay.value,
        "relay-budget": f"{kept.relay_bytes_s / BYTES_PER_MBIT:g}",
        "group-name": kept.group_name,
        "tun": YES_NO[not kept.tun],
        "metrics": kept.metrics,
    }
    return {
        key: Setting(key, value, "kept from an earlier up")
        for key, value in values.items()
        if value and found[key].value is None
    }


def replay_node(journal: Path, until: int | None, *, show: bool, as_json: bool) -> None:
    """Re-run a node's decisions from its journal.

    Raises:
        UserError: A301, A302, A303, A304.
    """
    import msgspec  # noqa: PLC0415 -- with the rest of the machines.

    from atoll.core.replay import Replayed  # noqa: PLC0415
    from atoll.node.replaying import replay_file, shown  # noqa: PLC0415 -- all machines, which nothing else here needs.

    def print_input(seen: Replayed) -> None:
        if as_json:
            click.echo(msgspec.json.encode(shown(seen)).decode())
            return
        outcome = f"  raised {seen.raised}" if seen.raised is not None else ""
        click.echo(f"{seen.sequence}\t{seen.now_ns} ns\t{seen.event!r}{outcome}")
        for effect in seen.effects:
            click.echo(f"\t\t{effect!r}")

    try:
        summary = replay_file(journal, until, print_input if show else None)
    except DivergenceError as error:
        raise UserError(
            "A303", f"the replay differs at {error}", where=str(journal), fix="compare the versions; else report it"
        ) from error
    except CorruptError as error:
        raise UserError("A302", f"the journal is damaged: {error}", where=str(journal), fix=AGAIN) from error
    if as_json:
        click.echo(msgspec.json.encode(summary).decode())
        return
    click.echo(
        f"{summary.inputs} inputs of {summary.machine} gave the same effects: last {summary.last}, "
        f"digest {summary.digest}, {summary.runs} runs, {summary.gaps} gaps"
    )
    if summary.torn:
        click.echo("a torn record, as after a crash, was left out", err=True)
    if summary.raised:
        click.echo(f"warning: the machine raised {summary.raised} times, as it did then: a bug", err=True)
