# SPDX-License-Identifier: Apache-2.0
"""Commands about the node of this machine: up, down, status, why, ping, invite, remove, metrics, logs."""

import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import click

from atoll.base.errors import UserError
from atoll.base.problems import ExitStatus
from atoll.cli import render
from atoll.cli.api import Api, socket_path, view
from atoll.cli.options import (
    BYTES_PER_MBIT,
    YES_NO,
    as_json,
    colours_wanted,
    is_terminal,
    node_options,
    one_of,
    rules,
    settings,
    state_of,
)
from atoll.cli.settings import Setting
from atoll.node.views import CanView, InviteView, MetricsView, PingView, Ready, StatusView, WhyView

__all__ = [
    "TAGS",
    "advertised_of",
    "can",
    "down",
    "invite",
    "logs",
    "metrics",
    "metrics_of",
    "ping",
    "remove",
    "status",
    "up",
    "why",
]

TAGS: Final = ("latency", "direct", "throughput", "loss")  # Names of policy tags 0 to 3.
DOWN_TIMEOUT_S: Final = 10.0  # Limit. The node ends its streams and writes its journal; then the socket is gone.
WATCH_INTERVAL_S: Final = 1.0
FOLLOW_INTERVAL_S: Final = 0.2
LOG_SCHEMA: Final = "atoll.log/1"
PING_TIMEOUT_S: Final = 30.0  # Limit. For one line of the stream: longer than the node's own wait for one echo.
PING_COUNT_MAX: Final = 10_000
PORT_MAX: Final = 65_535
NONE: Final = "none"  # A word that is no HOST:PORT: it takes back what was advertised, or serves no metrics.
METRICS_HOST: Final = "127.0.0.1"  # Whoever reaches the port reads who the members are.


@click.command(short_help="Start the node: found a group, join one, or go on.")
@click.argument("invitation", metavar="[INVITE]", required=False)
@click.option("--name", help="Name of this machine in the group.")
@click.option("--listen", metavar="HOST:PORT", help="Address of the UDP socket; several with commas.")
@click.option("--tcp", metavar="PORT", help="Take calls over TCP at this port too, say 443; 0: none.")
@click.option(
    "--advertise",
    metavar="HOST:PORT",
    multiple=True,
    help="Where members should call this machine; `none`: where it finds itself, as if never given.",
)
@click.option("--relay", type=click.Choice(["never", "metered", "yes"]), help="Forward for others?")
@click.option("--relay-budget", metavar="MBIT", type=click.FloatRange(min=0), help="At most this many Mbit/s.")
@click.option("--group-name", help="Name of a new group.")
@click.option("--tun/--no-tun", default=None, help="Let the whole machine reach the group's addresses. Needs root.")
@click.option("--metrics", metavar="[HOST:]PORT", help="Answer Prometheus here, on 127.0.0.1; `none`: nowhere.")
@click.option("--foreground", is_flag=True, help="Stay in this process until interrupted.")
@as_json
@node_options
def up(  # noqa: PLR0913 -- one parameter an option, as click hands them over.
    *,
    invitation: str | None,
    name: str | None,
    listen: str | None,
    tcp: str | None,
    advertise: tuple[str, ...],
    relay: str | None,
    relay_budget: float | None,
    group_name: str | None,
    tun: bool | None,
    metrics: str | None,
    foreground: bool,
    as_json: bool,
    state: str | None,
    config: Path | None,
) -> None:
    """Start the node of this machine: found a group, join one with INVITE, or go on.

    Prints the line to paste on the next machine.
    """
    import msgspec  # noqa: PLC0415 -- with the rest of the node.

    from atoll.base.member import RelayWill  # noqa: PLC0415
    from atoll.node.launch import launch, stay  # noqa: PLC0415 -- nothing else needs the node's code.
    from atoll.node.start import LaunchOptions  # noqa: PLC0415

    flags = {
        "state": state,
        "name": name,
        "listen": listen,
        "tcp": tcp,
        "advertise": ",".join(advertise) if advertise else None,
        "relay": relay,
        "relay-budget": relay_budget,
        "group-name": group_name,
        "tun": None if tun is None else YES_NO[not tun],
        "metrics": metrics,
    }
    chosen = settings(config, flags)
    will = _one_of(chosen["relay"], ("never", "metered", "yes"))
    options = LaunchOptions(
        state=str(Path(chosen["state"].value or "").absolute()),
        invite=invitation,
        name=chosen["name"].value,
        listen=_listen(chosen["listen"]),
        tcp=_tcp(chosen["tcp"]),
        advertise=advertised_of(chosen["advertise"]),
        relay=None if will is None else RelayWill(will),
        relay_bytes_s=_budget(chosen["relay-budget"]),
        group_name=chosen["group-name"].value,
        tun=_yes_no(chosen["tun"]),
        rules=rules(config),
        metrics=metrics_of(chosen["metrics"]),
    )

    def announce(ready: Ready) -> None:
        click.echo(msgspec.json.encode(ready).decode() if as_json else render.ready(ready), nl=as_json)

    if foreground:
        stay(options, announce)
    else:
        announce(launch(options))


@click.command()
@node_options
def down(*, state: str | None, config: Path | None) -> None:
    """End the node of this machine. It stays a member, and `atoll up` brings it back."""
    directory = state_of(state, config)
    try:
        Api(directory).call("down")
    except UserError as error:
        if error.code != "A401" or not _ended_orphan(directory):
            raise
        click.echo("the node had ended without a word; its packet device, which had gone on, has ended now", err=True)
        return
    give_up_at = time.monotonic() + DOWN_TIMEOUT_S
    while socket_path(directory).exists():
        if time.monotonic() > give_up_at:
            raise UserError(
                "A406", f"the node is still ending after {DOWN_TIMEOUT_S:g} s", where=str(directory), fix="atoll logs"
            )
        time.sleep(FOLLOW_INTERVAL_S / 4)
    click.echo("the node has ended", err=True)


def _ended_orphan(directory: Path) -> bool:
    from atoll.node.launch import end_orphaned  # noqa: PLC0415 - hardly ever needed.

    return end_orphaned(directory)


@click.command(short_help="Show every other machine, and the path to it.")
@click.option("--plain", is_flag=True, help="Tab-separated columns that never change their order.")
@click.option("--check", is_flag=True, help="Exit with status 4 when a member is not ok, or at a warning.")
@click.option("--watch", is_flag=True, help="Show it again every second until interrupted.")
@as_json
@node_options
def status(*, plain: bool, check: bool, watch: bool, as_json: bool, state: str | None, config: Path | None) -> int:
    """Show every other machine: its state, the path in use, round trip, loss, and why."""
    one_of({"--plain": plain, "--json": as_json})
    one_of({"--check": check, "--watch": watch})
    api = Api(state_of(state, config))
    shown = _status_text(api, plain=plain, as_json=as_json)
    if watch and is_terminal() and not (plain or as_json):
        _watch(api)
    while True:
        text, seen = next(shown)
        click.echo(text, nl=False)
        for warning in seen.warnings:
            click.echo(f"warning: {warning}", err=True)
        if not watch:
            return ExitStatus.DEGRADED if check and seen.degraded else ExitStatus.OK
        time.sleep(WATCH_INTERVAL_S)


@click.command(short_help="Say why it is slow from A to B.")
@click.argument("first", metavar="A")
@click.argument("second", metavar="[B[:PORT]]", required=False)
@click.option("--tag", type=click.Choice(TAGS), default=TAGS[0], show_default=True, help="Whose table of routes.")
@as_json
@node_options
def why(*, first: str, second: str | None, tag: str, as_json: bool, state: str | None, config: Path | None) -> None:
    """Say why it is slow from A to B (from this machine, with one name): causes, the path and its rivals, the numbers.

    With B:PORT also whether B's rules let A in there, and whether a program answers. Another machine's path is told by
    that machine, in its own word.
    """
    target, port = target_of(first if second is None else second)
    params: dict[str, object] = {"target": target, "tag": tag}
    if second is not None:
        params["source"] = first
    if port:
        params["port"] = port
    raw = Api(state_of(state, config)).call("why", params)
    click.echo(raw.decode() + "\n" if as_json else render.why(view(raw, WhyView)), nl=False)


@click.command(
    short_help="Say whether A may reach a port of B, and why.",
    context_settings={"ignore_unknown_options": True},  # For the arrow.
)
@click.argument("words", metavar="A [->] B:PORT[/udp]", nargs=-1, required=True)
@as_json
@node_options
def can(*, words: tuple[str, ...], as_json: bool, state: str | None, config: Path | None) -> int:
    """Say whether A may reach a port of B, and by which rule of B's. Exit status 0 if it may, 1 if not.

    A shell takes a bare `->` for a redirection: leave it out, or quote the whole.
    """
    source, target, port, protocol = reach_of(" ".join(words))
    params = {"source": source, "target": target, "port": port, "protocol": protocol}
    raw = Api(state_of(state, config)).call("can", params)
    seen = view(raw, CanView)
    click.echo(raw.decode() + "\n" if as_json else render.can(seen), nl=False)
    return ExitStatus.OK if seen.allowed else ExitStatus.FAILURE


def target_of(text: str) -> tuple[str, int]:
    """Return name and port of ``B`` or ``B:PORT``; 0: none was given.

    Raises:
        click.BadParameter: It is neither.
    """
    name, colon, port = text.partition(":")
    if not colon:
        return name, 0
    if re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) is None or not 0 < int(port) <= PORT_MAX:
        raise click.BadParameter(f"{text!r} is not B:PORT", param_hint="B:PORT")
    return name, int(port)


def reach_of(text: str) -> tuple[str, str, int, str]:
    """Return (source, target, port, protocol) of ``A -> B:PORT/udp``.

    Raises:
        click.BadParameter: It is not that.
    """
    matched = re.fullmatch(r"([a-z0-9-]{1,64}) +(?:-> +)?([a-z0-9-]{1,64}):([0-9]{1,5})(?:/(tcp|udp))?", text, re.ASCII)
    if matched is None or int(matched[3]) > PORT_MAX:
        raise click.BadParameter(f"{text!r} is not A B:PORT", param_hint="A B:PORT")
    return matched[1], matched[2], int(matched[3]), matched[4] or "tcp"


@click.command()
@click.argument("node")
@click.option("-c", "--count", type=click.IntRange(1, PING_COUNT_MAX), default=4, show_default=True)
@click.option("--tag", type=click.Choice(TAGS), default=TAGS[0], show_default=True, help="Whose route the echoes take.")
@as_json
@node_options
def ping(*, node: str, count: int, tag: str, as_json: bool, state: str | None, config: Path | None) -> None:
    """Send echoes to NODE through the overlay. Exits with status 5 if none is answered."""
    seen: list[PingView] = []
    api = Api(state_of(state, config), timeout_s=PING_TIMEOUT_S)
    for raw in api.stream("ping", {"node": node, "count": count, "tag": tag}):
        seen.append(view(raw, PingView))
        click.echo(raw.decode() + "\n" if as_json else render.ping(seen[-1]), nl=False)
    if not as_json:
        click.echo(render.ping_summary(seen), nl=False)
    if not any(one.rtt_ms is not None for one in seen):
        raise UserError(
            "A406",
            f"{node} did not answer",
            where=f"{len(seen)} echoes by {tag}",
            fix=f"see what was tried: atoll why {node}",
        )


@click.command(short_help="Print the line that brings one more machine in.")
@as_json
@node_options
def invite(*, as_json: bool, state: str | None, config: Path | None) -> None:
    """Print the line that brings one more machine in; single use, valid for ten minutes."""
    raw = Api(state_of(state, config)).call("invite")
    made = view(raw, InviteView)
    click.echo(raw.decode() + "\n" if as_json else render.invite(made), nl=False)
    click.echo(f"valid {render.ago(made.valid_s)}, 1 use; paste it on the next machine", err=True)


@click.command()
@click.argument("node")
@node_options
def remove(*, node: str, state: str | None, config: Path | None) -> None:
    """Remove NODE from the group for good. Every member hears of it."""
    Api(state_of(state, config)).call("remove", {"node": node})
    click.echo(
        f"removed {node}; that machine can come back only with a new state directory and a new invitation", err=True
    )


@click.command(short_help="Print what the node tells Prometheus.")
@as_json
@node_options
def metrics(*, as_json: bool, state: str | None, config: Path | None) -> None:
    """Print what the node tells Prometheus, in its text format. The node need not serve it (`up --metrics`)."""
    raw = Api(state_of(state, config)).call("metrics")
    click.echo(raw.decode() + "\n" if as_json else view(raw, MetricsView).text, nl=False)


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as the log grows, until interrupted.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=50, show_default=True)
@as_json
@node_options
def logs(*, follow: bool, lines: int, as_json: bool, state: str | None, config: Path | None) -> None:
    """Print the end of the node's log."""
    from atoll.host.log_files import LogReader  # noqa: PLC0415 -- nothing else here needs the host's files.

    path = state_of(state, config) / "node.log"
    try:
        log = LogReader(path)
    except OSError as error:
        raise UserError("A401", "there is no log here", where=f"{path}: {error.strerror}", fix="atoll up") from error
    with closing(log):
        rest = _print_log(log.tail(lines), as_json=as_json)
        while follow:
            for piece in log.added():
                rest = _print_log(rest + piece, as_json=as_json)
            time.sleep(FOLLOW_INTERVAL_S)


def _print_log(text: bytes, *, as_json: bool) -> bytes:
    """Print a piece of the log; return what is not a whole line yet."""
    if not as_json:
        click.echo(text, nl=False)
        return b""
    import msgspec  # noqa: PLC0415 -- text needs none.

    *whole, rest = text.split(b"\n")
    for line in whole:
        click.echo(msgspec.json.encode({"schema": LOG_SCHEMA, "line": line.decode("utf-8", "replace")}).decode())
    return rest


def _status_text(api: Api, *, plain: bool, as_json: bool) -> Iterator[tuple[str, StatusView]]:
    while True:
        raw = api.call("status")
        seen = view(raw, StatusView)
        if as_json:
            yield raw.decode() + "\n", seen
        elif plain:
            yield render.status_plain(seen), seen
        else:
            yield _coloured(render.status(seen), seen), seen


def _coloured(text: str, seen: StatusView) -> str:
    if not colours_wanted():
        return text
    lines = text.split("\n")
    for number, peer in enumerate(seen.peers, start=1):  # The header is line 0.
        colour = render.STATE_COLOURS.get(peer.state)
        head, state, rest = lines[number].partition(peer.state)
        if colour is not None and head.strip() == peer.name:
            lines[number] = head + click.style(state, fg=colour) + rest
    return "\n".join(lines)


def _watch(api: Api) -> None:
    from rich.live import Live  # noqa: PLC0415 -- only ever on a terminal, and only here.
    from rich.text import Text  # noqa: PLC0415

    shown = _status_text(api, plain=False, as_json=False)
    with Live(Text(""), auto_refresh=False) as live:
        while True:
            live.update(Text.from_ansi(next(shown)[0]), refresh=True)
            time.sleep(WATCH_INTERVAL_S)


def _one_of(setting: Setting, choices: tuple[str, ...]) -> str | None:
    if setting.value is not None and setting.value not in choices:
        raise _wrong(setting, f"one of {', '.join(choices)}")
    return setting.value


def _yes_no(setting: Setting) -> bool | None:
    will = _one_of(setting, YES_NO)
    return None if will is None else will == YES_NO[0]


def _listen(setting: Setting) -> str | None:
    parts = [part.strip() for part in (setting.value or "").split(",")]
    if setting.value is not None and not all(parts):
        raise _wrong(setting, "HOST:PORT, or several with commas")
    return ",".join(parts) or None


def _tcp(setting: Setting) -> int | None:
    if setting.value is None:
        return None
    if not setting.value.isascii() or not setting.value.isdigit() or int(setting.value[:6]) > PORT_MAX:
        raise _wrong(setting, f"a port, 1 to {PORT_MAX}, or 0 for none")
    return int(setting.value)


def advertised_of(setting: Setting) -> tuple[str, ...] | None:
    """Return the addresses to advertise; none of them: the detected ones again; None: as before."""
    if setting.value is None:
        return None
    parts = tuple(part.strip() for part in setting.value.split(",") if part.strip())
    if parts == (NONE,):
        return ()
    if NONE in parts:
        raise _wrong(setting, f"either {NONE!r} or addresses HOST:PORT with commas")
    return parts


def metrics_of(setting: Setting) -> str | None:
    """Return where to serve metrics, HOST:PORT; empty: nowhere; None: as before."""
    if setting.value is None:
        return None
    if setting.value == NONE:
        return ""
    host, _, port = setting.value.rpartition(":")
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= PORT_MAX:
        raise _wrong(setting, f"[HOST:]PORT with a port of 1 to {PORT_MAX}, or {NONE!r}")
    return f"{host or METRICS_HOST}:{int(port)}"


def _budget(setting: Setting) -> int | None:
    if setting.value is None:
        return None
    try:
        mbit = float(setting.value)
    except ValueError as error:
        raise _wrong(setting, "a number of Mbit/s") from error
    if not 0 <= mbit <= 1_000_000:
        raise _wrong(setting, "a number of Mbit/s")
    return int(mbit * BYTES_PER_MBIT)


def _wrong(setting: Setting, wanted: str) -> UserError:
    return UserError(
        "A501",
        f"{setting.key} is {setting.value!r}, which is not {wanted}",
        where=setting.origin,
        fix=f"give {wanted}",
    )
