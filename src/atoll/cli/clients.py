# SPDX-License-Identifier: Apache-2.0
"""``atoll client``: telephones and other machines with stock WireGuard software."""

import sys
from pathlib import Path
from typing import Final

import click
import msgspec

from atoll.cli import render
from atoll.cli.api import Api, view
from atoll.cli.options import as_json, node_options, one_of, state_of
from atoll.node.views import ClientConfigView, ClientView

__all__ = ["client"]

_ALONE: Final = "This is the only copy of its private key; if it gets lost: atoll client rm, and add it again."


@click.group(no_args_is_help=False, short_help="Let a telephone in: anything with stock WireGuard software.")
def client() -> None:
    """Let machines with stock WireGuard software in. They reach every member, by name, through any one of them."""


@client.command(short_help="Print the WireGuard configuration of a new client, and its QR code.")
@click.argument("name")
@click.option("--endpoint", metavar="HOST:PORT", default="", help="Where it calls first; else this machine.")
@click.option("--qr/--no-qr", default=None, help="Show a QR code on standard error; by default if that is a terminal.")
@as_json
@node_options
def add(*, name: str, endpoint: str, qr: bool | None, as_json: bool, state: str | None, config: Path | None) -> None:
    """Print the WireGuard configuration of a new client NAME: for a file, or to be scanned from the QR code.

    The client may change the endpoint to that of any other member, at any time. `atoll client rm NAME` revokes it.
    """
    raw = Api(state_of(state, config)).call("client.add", {"name": name, "endpoint": endpoint})
    made = view(raw, ClientConfigView)
    click.echo(raw.decode() if as_json else made.config, nl=as_json)
    if qr or (qr is None and sys.stderr.isatty() and not as_json):
        import segno  # noqa: PLC0415 -- nothing else draws.

        segno.make(made.config, error="l").terminal(out=sys.stderr, compact=True)
    click.echo(f"{made.name} is a client with the address {made.address}. {_ALONE}", err=True)


@client.command("list")
@click.option("--plain", is_flag=True, help="Tab-separated columns that never change their order.")
@as_json
@node_options
def list_(*, plain: bool, as_json: bool, state: str | None, config: Path | None) -> None:
    """List the clients, and which member serves each now."""
    one_of({"--plain": plain, "--json": as_json})
    raw = Api(state_of(state, config)).call("client.list")
    if as_json:
        for one in view(raw, list[msgspec.Raw]):  # A stream of objects, each with its own schema.
            click.echo(bytes(one).decode())
        return
    seen = view(raw, list[ClientView])
    click.echo(render.clients_plain(seen) if plain else render.clients(seen), nl=False)


@client.command()
@click.argument("name")
@node_options
def rm(*, name: str, state: str | None, config: Path | None) -> None:
    """Revoke a client, everywhere and for good."""
    view(Api(state_of(state, config)).call("client.remove", {"name": name}), ClientView)
    click.echo(f"{name} is no client any more; every member hears of it", err=True)
