# SPDX-License-Identifier: Apache-2.0
"""``atoll forward`` and ``atoll socks``: local ports that come out at another machine."""

import re
from pathlib import Path

import click
import msgspec

from atoll.cli import render
from atoll.cli.api import Api, view
from atoll.cli.node import TAGS
from atoll.cli.options import as_json, node_options, one_of, state_of
from atoll.node.views import ForwardView

__all__ = ["forward", "parse_local", "parse_target", "proxy_url", "socks"]

_PORT_MAX = 65_535
_NODE = r"(?:[a-z0-9.-]{1,255}|\[[0-9a-f:]{1,39}\])"
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 -- shown, not bound.


def parse_local(text: str) -> str:
    """Return ``HOST:PORT`` of a local address; a port alone is on 127.0.0.1.

    Raises:
        click.BadParameter: Neither PORT nor HOST:PORT.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not port.isascii() or not port.isdigit() or int(port) > _PORT_MAX:
        raise click.BadParameter(f"{text!r} is neither PORT nor HOST:PORT", param_hint="LOCAL")
    return f"[{host}]:{int(port)}" if ":" in host else f"{host}:{int(port)}"


def parse_target(text: str) -> tuple[str, int]:
    """Return (nodes, port) of ``NODE[,NODE]...:PORT``; an overlay address stands in brackets, and is returned bare.

    Raises:
        click.BadParameter: It is not that.
    """
    matched = re.fullmatch(rf"({_NODE}(?:,{_NODE})*):([0-9]{{1,5}})", text, re.ASCII)
    if matched is None or not 1 <= int(matched[2]) <= _PORT_MAX:
        raise click.BadParameter(f"{text!r} is not NODE:PORT", param_hint="NODE:PORT")
    return re.sub(r"[][]", "", matched[1]), int(matched[2])


@click.group(no_args_is_help=False, short_help="Make a port of another machine appear on this one.")
def forward() -> None:
    """Make a port of another machine appear on this one, over the best path, for unmodified programs."""


def _add(  # tidy: allow parameters, one for each option of both commands.
    protocol: str, local: str, target: str, tag: str, *, as_json: bool, state: Path
) -> None:
    node, port = parse_target(target)
    params = {"protocol": protocol, "local": parse_local(local), "node": node, "port": port, "tag": tag}
    raw = Api(state).call("forward.add", params)
    if as_json:
        click.echo(raw.decode())
        return
    made = view(raw, ForwardView)
    click.echo(f"forward {made.id}: {made.protocol} {made.local} -> {made.node}:{made.port} (by {made.tag})")


_tag = click.option("--tag", type=click.Choice(TAGS), default=TAGS[0], show_default=True, help="What the path is for.")


@forward.command(short_help="Forward TCP connections.")
@click.argument("local")
@click.argument("target", metavar="NODE[,NODE...]:PORT")
@_tag
@as_json
@node_options
def tcp(*, local: str, target: str, tag: str, as_json: bool, state: str | None, config: Path | None) -> None:
    """Forward TCP connections to LOCAL (PORT or HOST:PORT) to a loopback port of NODE.

    Of several NODEs each new connection goes to the first that is reachable and not slow; from one that refuses it, to
    the next.
    """
    _add("tcp", local, target, tag, as_json=as_json, state=state_of(state, config))


@forward.command(short_help="Forward UDP datagrams, and the answers back.")
@click.argument("local")
@click.argument("target", metavar="NODE:PORT")
@_tag
@as_json
@node_options
def udp(*, local: str, target: str, tag: str, as_json: bool, state: str | None, config: Path | None) -> None:
    """Forward UDP datagrams to LOCAL (PORT or HOST:PORT) to a loopback port of NODE, and the answers back."""
    _add("udp", local, target, tag, as_json=as_json, state=state_of(state, config))


@forward.command("list")
@click.option("--plain", is_flag=True, help="Tab-separated columns that never change their order.")
@as_json
@node_options
def list_(*, plain: bool, as_json: bool, state: str | None, config: Path | None) -> None:
    """List the forwards of this node."""
    one_of({"--plain": plain, "--json": as_json})
    raw = Api(state_of(state, config)).call("forward.list")
    if as_json:
        for one in view(raw, list[msgspec.Raw]):  # A stream of objects, each with its own schema.
            click.echo(bytes(one).decode())
        return
    seen = view(raw, list[ForwardView])
    click.echo(render.forwards_plain(seen) if plain else render.forwards(seen), nl=False)


@forward.command()
@click.argument("number", metavar="ID", type=int)
@node_options
def rm(*, number: int, state: str | None, config: Path | None) -> None:
    """End the forward with this ID; its connections are reset."""
    Api(state_of(state, config)).call("forward.remove", {"id": number})
    click.echo(f"forward {number} has ended", err=True)


def proxy_url(local: str) -> str:
    """Return what programs on this machine are given; ``local`` is where the proxy listens.

    With ``socks5h`` (and not ``socks5``) a program leaves names to the proxy, which alone knows them.
    """
    host, _, port = local.rpartition(":")
    return f"socks5h://{_WILDCARDS.get(host, host)}:{port}"


@click.command(short_help="Reach all machines by name from programs that know a proxy.")
@click.option(
    "--listen", metavar="LOCAL", default="127.0.0.1:1080", show_default=True, help="PORT or HOST:PORT to listen on."
)
@_tag
@click.option(
    "--anyone", is_flag=True, help="Allow an address that other machines reach, and so open the group to them."
)
@as_json
@node_options
def socks(*, listen: str, tag: str, anyone: bool, as_json: bool, state: str | None, config: Path | None) -> None:
    """Start a SOCKS5 and HTTP CONNECT proxy in the running node; the names of its machines work through it.

    Standard output is one line to paste, or for `eval`. The proxy is a forward: `atoll forward list` shows it, `atoll
    forward rm` ends it.
    """
    params = {"protocol": "socks", "local": parse_local(listen), "tag": tag, "anyone": anyone}
    raw = Api(state_of(state, config)).call("forward.add", params)
    if as_json:
        click.echo(raw.decode())
        return
    made = view(raw, ForwardView)
    told = (
        f"forward {made.id}: SOCKS5 and HTTP CONNECT on {made.local} (by {made.tag}); end: atoll forward rm {made.id}"
    )
    click.echo(told, err=True)
    click.echo(f"export ALL_PROXY={proxy_url(made.local)}")
