# SPDX-License-Identifier: Apache-2.0
"""The life of a node's process: take the state directory, found or join a group if there is none, run, end in order."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from atoll.base.errors import CorruptError, LinkError, StorageError, UserError
from atoll.base.ids import address_of
from atoll.base.units import SECOND_NS
from atoll.base.version import __version__
from atoll.conduit.limits import (
    CONNECTIONS_MAX,
    FLOWS_MAX,
    FORWARD_CONNECTIONS_MAX,
    INNER_CONNECTIONS_MAX,
    INNER_SPARES_MAX,
    STREAMS_MAX,
)
from atoll.core.entropy import Draws
from atoll.device.nic.orphan import DOOR_NAME, end_orphan
from atoll.group.form import decode_form
from atoll.group.identity import Identity, founding_roster, name_from
from atoll.group.invite import GROUP_PREFIX_BYTES, check_usable, decode_invitation
from atoll.group.roster import Roster
from atoll.group.statement import Admit, Name, Profile
from atoll.host.clock import SystemClock
from atoll.host.descriptors import descriptors_allowed
from atoll.host.files import explain
from atoll.host.heap import freeze_heap
from atoll.host.log_files import log_to_stderr, rotate_log
from atoll.node.addresses import free_default, listening, own_member, parse_address, parse_endpoint, with_tcp
from atoll.node.api import check_path, serve
from atoll.node.joining import join
from atoll.node.limits import (
    CLIENTS_MAX,
    DESCRIPTORS_SPARE,
    METRICS_CONNECTIONS_MAX,
    METRICS_TURNED_AWAY_MAX,
    STOCK_SOCKETS,
)
from atoll.node.methods import FORWARDS_MAX, Methods
from atoll.node.metrics_http import MetricsServer
from atoll.node.naming import checked_name, group_name
from atoll.node.service import Node, Plan
from atoll.node.start import LaunchAnswer, LaunchOptions
from atoll.node.state import SOCKET_NAME, Settings, StateDirectory
from atoll.node.supervisor import Supervisor
from atoll.node.views import Problem, Ready

__all__ = ["live", "main", "run"]

log: Final = logging.getLogger("atoll.node")

OPTIONS_BYTES_MAX: Final = 64 * 1024  # Limit. One line of JSON below 1 KiB.
# What may be open at once when every limit is reached: the API, metrics, forwards, streams, connections of kernel TCP
# (one file for each that is opened, two for each served) and flows that are served, the rest.
DESCRIPTORS_WANTED: Final = (
    CLIENTS_MAX
    + METRICS_CONNECTIONS_MAX
    + METRICS_TURNED_AWAY_MAX
    + FORWARDS_MAX * (1 + FORWARD_CONNECTIONS_MAX)
    + CONNECTIONS_MAX * STREAMS_MAX
    + 3 * INNER_CONNECTIONS_MAX
    + INNER_SPARES_MAX
    + 2 * STOCK_SOCKETS
    + FLOWS_MAX
    + DESCRIPTORS_SPARE
)

Say = Callable[[LaunchAnswer], None]


def main() -> int:
    """Run the daemon that ``launch`` started; return its exit status."""
    line = sys.stdin.buffer.readline(OPTIONS_BYTES_MAX)
    log_to_stderr()
    try:
        options = msgspec.json.decode(line, type=LaunchOptions)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _say_on_stdout(LaunchAnswer(error=Problem("A501", f"the options do not decode: {error}")))
        return 2
    return run(options, _say_on_stdout)


def _say_on_stdout(answer: LaunchAnswer) -> None:
    """Answer ``launch`` and let go of its pipe, so that nobody waits for this process any more."""
    with suppress(OSError):
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def run(options: LaunchOptions, say: Say) -> int:
    """Run a node until it ends; tell ``say`` once whether it started.

    Returns:
        Exit status: 0 ended in order, 1 it had to stop or did not start.
    """
    told = False

    def tell(answer: LaunchAnswer) -> None:
        nonlocal told
        if not told:
            told = True
            say(answer)

    try:
        live(options, tell)
    except UserError as error:
        log.error("%s (%s) fix: %s", error, error.where, error.fix)  # noqa: TRY400 - the sentence is the message.
        tell(LaunchAnswer(error=Problem(error.code, error.sentence, error.where, error.fix)))
        return 1
    except KeyboardInterrupt:  # As SIGTERM. In the foreground it is the command line's to tell.
        log.error("interrupted before the node had started")  # noqa: TRY400 - the sentence is the message.
        return 1
    return 0


def live(options: LaunchOptions, tell: Say) -> None:
    """Run a node in this process until it ends; ``tell`` is called once it is ready.

    Raises:
        UserError: It did not start, or had to stop.
    """
    try:
        asyncio.run(_live(options, tell))
    except asyncio.CancelledError as error:
        raise UserError(
            "A403", "the node was told to end before it had started", where=options.state, fix="atoll up"
        ) from error
    except LinkError as error:
        raise UserError("A403", str(error), where=options.state, fix="read the node's log: atoll logs") from error


async def _live(options: LaunchOptions, tell: Say) -> None:
    check_path(Path(options.state) / SOCKET_NAME)  # Before anything is kept, or an invitation is used up.
    state = StateDirectory(Path(options.state))
    try:
        rotate_log(state.log)
        if end_orphan(state.path / DOOR_NAME):
            log.warning(
                "this node's control had ended without a word; its packet device, which had gone on, is replaced"
            )
        task = asyncio.current_task()
        assert task is not None
        # Until the node has started there is nothing to end in order; what was begun is undone on the way out.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        if (allowed := descriptors_allowed(DESCRIPTORS_WANTED)) < DESCRIPTORS_WANTED:
            log.info("at most %d files and sockets can be open; new connections beyond that will wait", allowed)
        clock = SystemClock()
        began_ns = clock.monotonic_ns()
        plan, joined = await _plan(options, state, clock)
        node = Node(plan)
        methods = Methods(node)
        asyncio.get_running_loop().set_exception_handler(Supervisor(node.fail).judge)
        try:
            await node.start()
            await node.confirm()  # A new name or address, say: nothing is called ready that the disk refused.
            if node.ended.done() and (error := node.ended.result()) is not None:
                raise error  # The stored roster says that we were removed: it must not be called a start.
            _guard(node)
            server = await serve(state.socket, methods.table())
            metrics = MetricsServer(methods.metrics_text, partial(_is_called, node))
            try:
                if plan.settings.metrics:
                    await metrics.start(parse_endpoint(plan.settings.metrics))
                ready = _ready(node, methods, joined=joined, began_ns=began_ns)
                await node.confirm()  # The invitation in it must outlive this process.
                tell(LaunchAnswer(ok=ready))
                state.keep_ending(None)
                freeze_heap()
                if (error := await node.ended) is not None:
                    state.keep_ending(Problem(error.code, error.sentence, error.where, error.fix))
                    raise error
            finally:
                await metrics.close()
                server.close()
        finally:
            await methods.close()
            await node.stop()
            state.socket.unlink(missing_ok=True)
    finally:
        state.close()


def _is_called(node: Node, host: str) -> bool:
    return node.book().locate(host) == node.control.group.own.node


def _guard(node: Node) -> None:
    """Make signals end a node in order that has started."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.end_soon)


def _ready(node: Node, methods: Methods, *, joined: bool, began_ns: int) -> Ready:
    own, around = node.control.group.own, node.around()
    try:
        invitation = methods.new_invitation()
    except UserError:
        invitation = None  # No address to put into it; the node itself runs, and ``atoll invite`` says why.
    return Ready(
        version=__version__,
        name=own.name,
        group=around.group_name,
        mode=node.mode,
        address=address_of(node.plan.group, own.node),
        listen=around.listen,
        invite=None if invitation is None else invitation.invite,
        invite_valid_s=None if invitation is None else invitation.valid_s,
        ready_s=(around.now_ns - began_ns) / SECOND_NS,
        joined=joined,
    )


async def _plan(options: LaunchOptions, state: StateDirectory, clock: SystemClock) -> tuple[Plan, bool]:
    """Return what to run, durable already, and whether a group was joined for it."""
    identity = state.identity()
    settings = _settings(options, state.settings())
    state.keep_settings(settings)  # Before any roster: a member that forgot its name would take another one.
    stored = state.roster()
    joined = False
    if options.invite is not None:
        invitation = decode_invitation(options.invite)
        held = None if stored is None else _decoded(state, stored).group
        if held is not None and held[:GROUP_PREFIX_BYTES] != invitation.group_prefix and _is_alone(state, identity):
            # Somebody ran ``up`` here first, without the invitation. That group is nobody's but ours; it goes if the
            # join succeeds.
            stored = held = None
            settings = msgspec.structs.replace(settings, group_name=options.group_name or "")
        check_usable(invitation, now_s=clock.wall_ns() // SECOND_NS, group=held)
        listen = listening(settings)
        member = own_member(identity, settings, listen)
        answer = await join(invitation, identity, member, listen, clock)
        stored, joined = _merged(state, answer.roster, stored), True
        _keep(state, stored)
    if stored is None:
        state.check_never_used()
        listen = listening(settings)
        stored = founding_roster(identity, own_member(identity, settings, listen), settings.group_name).encode()
        _keep(state, stored)
    roster = _decoded(state, stored)
    # What the founder said, or else what follows from the group's id: so it is called the same on all members.
    own = settings.group_name if identity.signing_key == roster.group else ""
    called = roster.name or own or group_name(Draws(roster.group))
    if called != settings.group_name:
        settings = msgspec.structs.replace(settings, group_name=called)
        state.keep_settings(settings)
    return Plan(state, identity, settings, roster.group, stored, clock, options.journal), joined


def _is_alone(state: StateDirectory, identity: Identity) -> bool:
    """Tell whether the group here was founded here, and nobody was ever admitted to it or removed from it."""
    roster = state.roster()
    return roster is not None and all(
        statement.issuer == identity.signing_key
        and (
            isinstance(statement.body, Name)
            or (
                isinstance(statement.body, Admit | Profile)
                and statement.body.member.signing_key == identity.signing_key
            )
        )
        for statement in _decoded(state, roster).statements()
    )


def _merged(state: StateDirectory, joined: bytes, stored: bytes | None) -> bytes:
    """Return the inviter's roster with what only this node knows: removals that it signed, and its open invitations."""
    if stored is None:
        return joined
    roster = _decoded(state, joined)
    for statement in _decoded(state, stored).statements():
        roster.add(statement)
    return roster.encode(kept=decode_form(stored).kept)


def _decoded(state: StateDirectory, roster: bytes) -> Roster:
    try:
        return Roster.decode(roster)
    except CorruptError as error:
        raise state.damaged_roster(error) from error


def _keep(state: StateDirectory, roster: bytes) -> None:
    try:
        state.keep_roster(roster)
    except StorageError as error:
        raise explain(error, state.path / "roster") from error


def _settings(options: LaunchOptions, kept: Settings | None) -> Settings:
    """Return the kept settings with what the options change; defaults where neither says anything."""
    if kept is None:
        kept = Settings(
            name=name_from(socket.gethostname()),
            # Empty: ``_plan`` gives it one, when it knows the group.
            group_name=checked_name(options.group_name, "--group-name") if options.group_name else "",
            listen=options.listen or free_default(),
        )
    changed = {
        "name": None if options.name is None else checked_name(options.name),
        "listen": options.listen,
        "advertise": options.advertise,
        "relay": options.relay,
        "relay_bytes_s": options.relay_bytes_s,
        "tun": options.tun,
        "rules": options.rules,
        "metrics": options.metrics,
    }
    if options.metrics:
        parse_endpoint(options.metrics)
    for text in (*(options.listen or "").split(","), *(options.advertise or ())):
        if text:
            parse_address(text)
    chosen = msgspec.structs.replace(kept, **{name: value for name, value in changed.items() if value is not None})
    if options.tcp is None:
        return chosen
    return msgspec.structs.replace(chosen, listen=with_tcp(chosen.listen, options.tcp))
