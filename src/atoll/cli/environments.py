# SPDX-License-Identifier: Apache-2.0
"""Commands about programs that the group keeps running: run, and the group ``env``."""

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atoll.base.errors import UserError
from atoll.base.problems import ExitStatus
from atoll.cli.api import Api, view
from atoll.cli.options import as_json, node_options, state_of

if TYPE_CHECKING:
    from atoll.domain.views import EnvironmentView

__all__ = ["env", "run"]

CALL_TIMEOUT_S = 60.0  # Unless --timeout says how long; that of programs.
ANSWER_TIMEOUT_S = 130.0  # Limit. Longer than the longest move; loading code takes a second.


@click.command(short_help="Keep a program running in the group.")
@click.argument("target", metavar="FILE[:App]")
@click.option("--name", help="How to call it; else the name of the file.")
@click.option("--with", "fields", metavar="FIELD=VALUE", multiple=True, help="Begin with this field of its state set.")
@click.option("--on", "node", metavar="NODE", help="Which machine shall run it; else this one.")
@click.option("--copies", type=click.IntRange(1, 5), help="Nodes that keep its journal.")
@click.option(
    "--level", type=click.Choice(["inline", "process"]), help="Where its handlers run; else as the class says."
)
@as_json
@node_options
def run(  # noqa: PLR0913 -- one parameter an option, as click hands them over.
    *,
    target: str,
    name: str | None,
    fields: tuple[str, ...],
    node: str | None,
    copies: int | None,
    level: str | None,
    as_json: bool,
    state: str | None,
    config: Path | None,
) -> None:
    """Run the application in FILE and keep it running: it survives its process and its machine, and can be moved."""
    from atoll.domain.loading import bundle_of, check_bundle  # noqa: PLC0415 -- what other commands do without.
    from atoll.domain.views import RunView  # noqa: PLC0415

    bundle = bundle_of(target)
    check_bundle(bundle)
    params: dict[str, Any] = {
        "name": name or bundle.entry.replace("_", "-").lower(),
        "bundle": base64.b64encode(bundle.encode()).decode(),
        "arguments": dict(map(_field, fields)),
    }
    if copies is not None:
        params["copies"] = copies
    if level is not None:
        params["level"] = level
    if node is not None:
        params["node"] = node
    raw = _call(state_of(state, config), "run", params)
    if as_json:
        click.echo(raw.decode())
        return
    seen = view(raw, RunView)
    click.echo(f"{seen.name} runs {seen.app} on {seen.node}  (code {seen.code[:12]}, id {seen.id})")


@click.group(short_help="Programs that the group keeps running.")
def env() -> None:
    """List, look at, move, upgrade and stop the programs that the group keeps running (`atoll run` starts one)."""


@env.command("list")
@as_json
@node_options
def list_(*, as_json: bool, state: str | None, config: Path | None) -> None:
    """List all of them: where each runs, and which nodes keep its journal."""
    from atoll.domain.views import EnvironmentsView  # noqa: PLC0415

    raw = _call(state_of(state, config), "list", {})
    if as_json:
        click.echo(raw.decode())
        return
    for one in view(raw, EnvironmentsView).environments:
        cannot = "".join(f"\t{line}" for line in _troubles(one))
        click.echo(f"{one.name}\t{one.app}\t{one.node}\tkept by {', '.join(one.holders)}{cannot}")


@env.command()
@click.argument("name")
@as_json
@node_options
def show(*, name: str, as_json: bool, state: str | None, config: Path | None) -> None:
    """Show one of them, and its state."""
    raw = _call(state_of(state, config), "show", {"name": name})
    _print(raw, as_json=as_json)


@env.command()
@click.argument("name")
@as_json
@node_options
def logs(*, name: str, as_json: bool, state: str | None, config: Path | None) -> None:
    """Print the last lines that it has logged."""
    from atoll.domain.views import LogView  # noqa: PLC0415

    raw = _call(state_of(state, config), "logs", {"name": name})
    if as_json:
        click.echo(raw.decode())
        return
    for line in view(raw, LogView).lines:
        click.echo(line)


@env.command()
@click.argument("name")
@click.argument("kind", metavar="TYPE")
@click.argument("fields", metavar="FIELD=VALUE", nargs=-1)
@click.option(
    "--timeout", type=click.FloatRange(0.001, 86_400), default=CALL_TIMEOUT_S, metavar="S", help="How long to wait, 60."
)
@as_json
@node_options
@click.pass_context
def call(
    context: click.Context,
    *,
    name: str,
    kind: str,
    fields: tuple[str, ...],
    timeout: float,
    as_json: bool,
    state: str | None,
    config: Path | None,
) -> None:
    """Send it a tuple and print the response; the exit status is 1 when that is a failure.

    NAME/PATH is one that is nested in it. A VALUE is JSON, or else a text.
    """
    said = _say(state_of(state, config), name, _event(kind, fields), timeout)
    if not _print_response(said, as_json=as_json):
        context.exit(ExitStatus.FAILURE)


@env.command()
@click.argument("name")
@click.argument("kind", metavar="TYPE")
@click.argument("fields", metavar="FIELD=VALUE", nargs=-1)
@node_options
@click.pass_context
def send(
    context: click.Context, *, name: str, kind: str, fields: tuple[str, ...], state: str | None, config: Path | None
) -> None:
    """Send it a tuple and wait until that is durable; what it makes of it is not waited for."""
    said = _say(state_of(state, config), name, _event(kind, fields), 0)
    if said:
        click.echo(_line(said), err=True)
        context.exit(ExitStatus.FAILURE)


@env.command()
@click.argument("name")
@click.option("--anyway", is_flag=True, help="Even if too few of the nodes that keep it can be reached.")
@as_json
@node_options
def stop(*, name: str, anyway: bool, as_json: bool, state: str | None, config: Path | None) -> None:
    """End it for good. Its journal is put aside, not deleted.

    With --anyway, on a node that keeps it, also one that nobody can run: nodes that come back hear that it has ended.
    """
    params: dict[str, Any] = {"name": name, "anyway": True} if anyway else {"name": name}
    _print(_call(state_of(state, config), "stop", params), as_json=as_json)


@env.command()
@click.argument("name")
@click.argument("node")
@as_json
@node_options
def move(*, name: str, node: str, as_json: bool, state: str | None, config: Path | None) -> None:
    """Let NODE run it. Who uses it notices a pause."""
    _print(_call(state_of(state, config), "move", {"name": name, "node": node}), as_json=as_json)


@env.command()
@click.argument("name")
@click.argument("copy")
@as_json
@node_options
def copy(*, name: str, copy: str, as_json: bool, state: str | None, config: Path | None) -> None:
    """Begin another one, called COPY, with the state and the code that it has now, where it runs."""
    from atoll.domain.views import RunView  # noqa: PLC0415

    raw = _call(state_of(state, config), "copy", {"name": name, "copy": copy})
    if as_json:
        click.echo(raw.decode())
        return
    seen = view(raw, RunView)
    click.echo(f"{seen.name} runs {seen.app} on {seen.node}  (code {seen.code[:12]}, id {seen.id})")


@env.command()
@click.argument("name")
@as_json
@node_options
def checkpoint(*, name: str, as_json: bool, state: str | None, config: Path | None) -> None:
    """Write its state down now, which shortens the next restore."""
    _print(_call(state_of(state, config), "checkpoint", {"name": name}), as_json=as_json)


@env.command()
@click.argument("name")
@click.argument("target", metavar="FILE[:App]")
@as_json
@node_options
def upgrade(*, name: str, target: str, as_json: bool, state: str | None, config: Path | None) -> None:
    """Run other code from now on, with the state that it has. If the state does not fit, it runs as before."""
    from atoll.domain.loading import bundle_of, check_bundle  # noqa: PLC0415

    bundle = bundle_of(target)
    check_bundle(bundle)
    params = {"name": name, "bundle": base64.b64encode(bundle.encode()).decode()}
    _print(_call(state_of(state, config), "upgrade", params), as_json=as_json)


def _call(directory: Path, verb: str, params: dict[str, Any]) -> bytes:
    return Api(directory, ANSWER_TIMEOUT_S).call(f"env.{verb}", params)


def _print(raw: bytes, *, as_json: bool) -> None:
    from atoll.domain.views import EnvironmentView  # noqa: PLC0415

    if as_json:
        click.echo(raw.decode())
        return
    import msgspec  # noqa: PLC0415

    seen = view(raw, EnvironmentView)
    click.echo(f"{seen.name}  {seen.app}  on {seen.node}  epoch {seen.epoch}  kept by {', '.join(seen.holders)}")
    for line in _troubles(seen):
        click.echo(f"  {line}")
    if seen.events is not None:
        click.echo(f"  events  {seen.events}, handlers that failed {seen.failures or 0}")
    if seen.gone:
        now = "the code has no such field now; atoll replay shows what was in it"
        click.echo(f"  dropped: {', '.join(seen.gone)} ({now})")
    for field, value in (seen.state or {}).items():
        click.echo(f"  {field}  {msgspec.json.encode(value).decode()}")
    if seen.is_cut:
        click.echo("  not all of it is shown: it is too long")


def _troubles(seen: "EnvironmentView") -> list[str]:
    """Return why an environment does not run as it should, and what to do."""
    waiting = f"waits for {', '.join(seen.waits_for)}, which cannot be reached" if seen.waits_for else ""
    barred = f"its journal on this node cannot be used: {seen.barred}" if seen.barred else ""
    failed, fix = f"cannot run: {seen.failed}" if seen.failed else "", f"fix: {seen.fix}" if seen.fix else ""
    return [line for line in (failed, waiting, barred, fix) if line]


def _say(directory: Path, name: str, event: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Send a tuple; return the response. With a time-out of 0 none is wanted, and its being taken is waited for."""
    import asyncio  # noqa: PLC0415 -- other commands do without.

    from atoll.client.environments import CallError, Desk  # noqa: PLC0415

    outer, _, path = name.partition("/")

    async def say() -> dict[str, Any]:
        async with Desk(directory) as desk:
            environment = (await desk.environment(outer)).nested(path)
            try:
                if timeout_s:
                    return await environment.call(event, timeout_s=timeout_s)
                await environment.send(event)
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    await environment.flush()
            except CallError as error:
                return {"is": "Failure", "code": error.failure.code, "text": error.failure.text}
            except TimeoutError as error:
                fix = "it is kept by nobody: send it again when `atoll env list` shows where it runs"
                raise UserError("A611", f"{outer} has not taken it", where=str(directory), fix=fix) from error
        return {}

    return asyncio.run(say())


def _event(kind: str, fields: tuple[str, ...]) -> dict[str, Any]:
    return {"is": kind, **dict(map(_field, fields))}


def _print_response(said: dict[str, Any], *, as_json: bool) -> bool:
    """Print a response; say whether it is none of a failure."""
    is_failure = said["is"] == "Failure"
    if not as_json:
        click.echo(_line(said), err=is_failure)
        return not is_failure
    import msgspec  # noqa: PLC0415

    from atoll.domain.showing import shown  # noqa: PLC0415
    from atoll.domain.views import CallView  # noqa: PLC0415

    click.echo(msgspec.json.encode(CallView(dict(shown(said)[0]))).decode())
    return not is_failure


def _line(said: dict[str, Any]) -> str:
    """Return a response as it would be written on a command line."""
    from atoll.domain.showing import shown  # noqa: PLC0415

    told, _ = shown(said)
    fields = [f"{name}={bytes(value).decode()}" for name, value in told.items() if name != "is"]
    return " ".join((str(said["is"]), *fields))


def _field(text: str) -> tuple[str, Any]:
    import msgspec  # noqa: PLC0415

    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UserError("A501", f"{text!r} is no FIELD=VALUE", fix="write best=5, or title='\"5\"' for a text")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value
