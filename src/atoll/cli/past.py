# SPDX-License-Identifier: Apache-2.0
"""Commands that look at the past: replay, diff, trace, and the group ``audit``. They read files, and need no node.

Handlers are replayed as they ran: with the same order of sets and with the same look at the world refused. So a command
that replays starts itself again when this interpreter is of another kind.
"""

import os
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from atoll.base.errors import CorruptError, ProjectError, UserError
from atoll.base.units import MICROSECOND_NS, SECOND_NS
from atoll.cli.about import replay_node
from atoll.cli.api import Api, view
from atoll.cli.options import as_json as json_option
from atoll.cli.options import node_options, state_of

if TYPE_CHECKING:
    from atoll.domain.shelves import DiskShelf
    from atoll.env.past import Past

__all__ = ["audit", "diff", "replay", "trace"]

AGAIN_VARIABLE: Final = "ATOLL_REPLAYS"  # Set in the process that was started again; it is not a second time.
TRACED_EVENTS_MAX: Final = 200_000  # Limit. Of a trace: some seconds. What was before counts as given.
DIFF_SCHEMA: Final = "atoll.diff/1"
_NUMBER: Final = re.compile(r"[0-9]{1,19}")  # Of an event or an item, which has 63 bits.
_APART: Final = (  # Of an environment: what cannot be asked for at once, lest one of them be passed over unseen.
    ("at", "event"),
    ("stop", "changed"),
    ("new", "stop"),
    ("new", "changed"),
    ("new", "pdb"),
    ("show", "stop"),
    ("show", "changed"),
    ("show", "new"),
    ("show", "pdb"),
)
_WORDS: Final = {"stop": "break", "new": "with"}  # How options are called whose names mean something in Python.
_AGO: Final = re.compile(r"-(\d+(?:\.\d+)?) ?(s|sec|min|m|h|d)")
_UNITS_S: Final = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3_600, "d": 86_400}


trust_option = click.option(
    "--trust-code", is_flag=True, help="Of a journal from elsewhere: run its code here; it can do whatever you can."
)


@click.command(short_help="Look at the past of an environment, or re-run a node's decisions.")
@click.argument("name", metavar="NAME|JOURNAL")
@click.option("--at", metavar="TIME", help="Show the state at this time: 2026-11-29T12:00:00, in UTC, or -10min.")
@click.option("--event", metavar="N", type=click.IntRange(min=0), help="Show event N and the state after it.")
@click.option("--until", metavar="N|TIME", help="Stop after event N, of a node's journal input N, or at a time.")
@click.option("--show", is_flag=True, help="Print every event, of a node's journal every input, and its effects.")
@click.option("--break", "stop", metavar="EXPR", help="Show the first event after which EXPR is true: 'best > 100'.")
@click.option("--changed", metavar="EXPR", help="Show the last event that changed the value of EXPR.")
@click.option("--with", "new", metavar="FILE[:App]", help="Run history through this code; name the first difference.")
@click.option("--pdb", is_flag=True, help="Stop inside the handler of the event that is shown.")
@trust_option
@json_option
@node_options
def replay(
    name: str, *, trust_code: bool, as_json: bool, state: str | None, config: Path | None, **chosen: Any
) -> None:
    """Look at the past of the environment NAME: any event, forwards and backwards, with the state.

    Without options, all of it is run again and compared with what was recorded. NAME is a name, an id, or a directory
    or segment of a journal. With a JOURNAL of a node's decisions, those are re-run. Exits non-zero at the first
    difference.
    """
    path, directory = Path(name), _directory(state, config)
    if not _is_environment(path) and ("/" in name or _is_of_node(path) or _is_other_file(directory, path)):
        _of_a_node(path, as_json=as_json, **chosen)
        return
    _check_choice(chosen)
    shelf = _shelf(directory, name, is_trusted=trust_code)
    _run(shelf, lambda past: _look(past, shelf, as_json=as_json, **chosen))


@click.command(short_help="Show where two histories begin to differ.")
@click.argument("runs", metavar="RUN [RUN]", nargs=-1, required=True)
@click.option("--at", metavar="TIME|N", multiple=True, help="Compare the state at these two moments of one RUN.")
@trust_option
@json_option
@node_options
def diff(
    *,
    runs: tuple[str, ...],
    at: tuple[str, ...],
    trust_code: bool,
    as_json: bool,
    state: str | None,
    config: Path | None,
) -> None:
    """Name the first event at which what came into two runs differs, and how their states differ there.

    A RUN is an environment's name, id, or directory. With one RUN and --at twice: how its state differs.
    """
    from atoll.cli import past_text  # noqa: PLC0415
    from atoll.env.comparing import differences  # noqa: PLC0415
    from atoll.env.parting import first_difference  # noqa: PLC0415
    from atoll.env.past import Past, flat  # noqa: PLC0415

    directory = _directory(state, config)
    if (len(runs), len(at)) not in {(1, 2), (2, 0)}:
        raise UserError("A501", "two runs are compared, or one at two moments", fix="atoll diff RUN RUN")
    shelves = [_shelf(directory, run, is_trusted=trust_code) for run in runs]

    def compare(past: "Past") -> None:
        if at:
            first, second = (_event_of(past, one) for one in at)
            states = flat(past.state_at(first).state), flat(past.state_at(second).state)
            _print_differences(differences(*states), (f"event {first}", f"event {second}"), {}, as_json=as_json)
            return
        other = Past(shelves[1], _walls())
        where = first_difference(past, other)
        if where is None:
            last = min(past.last, other.last)
            same = _json({"schema": DIFF_SCHEMA, "same": True, "last": last, "state": ()})
            click.echo(same if as_json else f"the same came into both, up to event {last}")
            return
        states = flat(past.state_at(where.event).state), flat(other.state_at(where.other).state)
        inputs = tuple(past_text.came_in(place.record, place.item) for place in (where.one, where.two))
        heading = {"same": False, "events": (where.event, where.other), "in": inputs}
        _print_differences(differences(*states), runs, heading, as_json=as_json)

    _run(shelves[0], compare)


@click.group()
def audit() -> None:
    """Check that journals are what was sealed."""


@audit.command()
@click.argument("name", metavar="[NAME|DIR]", required=False)
@click.option("--heads", metavar="DIR", multiple=True, help="Heads that another node keeps: its STATE/heads.")
@json_option
@node_options
@click.pass_context
def verify(
    context: click.Context,
    *,
    name: str | None,
    heads: tuple[str, ...],
    as_json: bool,
    state: str | None,
    config: Path | None,
) -> None:
    """Check chain, signatures, certificates and kept heads of a journal, or of all, offline.

    Exits 1 at a fault, and where the heads at hand leave something open.
    """
    from atoll.cli import past_text  # noqa: PLC0415 -- costs an import that other commands need not pay.
    from atoll.domain import auditing  # noqa: PLC0415
    from atoll.domain.shelves import find_journal, journals_of  # noqa: PLC0415

    directory = _directory(state, config)
    journals = journals_of(directory) if name is None else [find_journal(directory, name)]
    roster = auditing.roster_of(directory)
    for place in map(Path, heads):
        if not place.is_dir():
            fix = "name the heads directory of another node, or a copy: its STATE/heads"
            raise UserError("A501", f"there is no directory {place}", where="--heads", fix=fix)
    kept: list[tuple[Path, Any]] = []
    for place in (directory / auditing.HEADS_NAME, *map(Path, heads)):
        shown, remarks = auditing.heads_in(place)
        kept += [(place, one) for one in shown]
        if not shown and place != directory / auditing.HEADS_NAME:
            remarks.append(f"{place}: no heads are kept there")
        for remark in remarks:
            click.echo(remark, err=True)
    names = {} if roster is None else {bytes(member.node): member.name for member in roster.members()}
    found = [auditing.audit(journal, kept, roster) for journal in journals]
    for one in found:
        click.echo(_json(_plain_audit(one)) if as_json else past_text.audited(one, names))
    if not found:
        click.echo(f"no journals in {directory}", err=True)
    if not all(one.is_sound for one in found):
        context.exit(1)


@click.command(short_help="Show what led to an event, a field's value or a reply.")
@click.argument("name")
@click.argument("what", metavar="WHAT")
@click.option("--until", metavar="N|TIME", help="Look at what was up to then.")
@click.option("--without", metavar="FIELD", multiple=True, help="Do not follow this field, such as a counter.")
@click.option("--all", "unfiltered", is_flag=True, help="Do not leave out keys of dictionaries that are not named.")
@trust_option
@json_option
@node_options
def trace(  # noqa: PLR0913 -- one parameter an option, as click hands them over.
    *,
    name: str,
    what: str,
    until: str | None,
    without: tuple[str, ...],
    unfiltered: bool,
    trust_code: bool,
    as_json: bool,
    state: str | None,
    config: Path | None,
) -> None:
    """Walk back from WHAT to the inputs that led to it.

    WHAT is the number of an event; FIELD or PATH:FIELD, a field's last change; or PARTY/N, item N sent to a party.
    """
    from atoll.cli import past_text  # noqa: PLC0415
    from atoll.env.tracing import history_of  # noqa: PLC0415
    from atoll.env.tracing import trace as traced  # noqa: PLC0415

    shelf = _shelf(_directory(state, config), name, is_trusted=trust_code)

    def show(past: "Past") -> None:
        last = past.last if until is None else _event_of(past, until)
        if _NUMBER.fullmatch(what):
            last = min(_event_of(past, what), last)
        if last <= past.first:
            kept = f"events {past.first + 1} to {past.last} are kept" if past.last > past.first else "there is none yet"
            raise UserError("A501", f"nothing happened up to event {last}", where=kept, fix="name a later one")
        history = history_of(shelf, max(past.first + 1, last - TRACED_EVENTS_MAX), max(last, past.first + 1), _walls())
        wanted = _wanted(history, what)
        left_out = [_field(one) for one in without]
        found = traced(history, wanted, filtered=not unfiltered, without=left_out)
        click.echo(_json(past_text.plain_trace(found)) if as_json else past_text.traced(found))

    _run(shelf, show)


def _look(past: "Past", shelf: "DiskShelf", *, as_json: bool, **chosen: Any) -> None:
    from atoll.cli.past_look import Chosen, Look  # noqa: PLC0415 -- costs an import that other commands need not pay.

    def event_of(text: str) -> int:
        return _event_of(past, text)

    Look(past, shelf, event_of, _json if as_json else None).show(Chosen(**chosen))


# What they share.


def _is_environment(path: Path) -> bool:
    """Tell whether a path is a journal of an environment, and not one of a node."""
    return path.suffix == ".atb" or (path.is_dir() and next(path.glob("*.atb"), None) is not None)


def _is_of_node(path: Path) -> bool:
    """Tell whether a path is a journal of a node's decisions: a segment, or a directory of such."""
    return path.suffix == ".atj" or (path.is_dir() and next(path.glob("*.atj"), None) is not None)


def _is_other_file(directory: Path, path: Path) -> bool:
    """Tell whether a word is the name of a file here, say of an exported journal, and of no environment."""
    from atoll.domain.shelves import find_journal  # noqa: PLC0415

    if not path.is_file():
        return False
    try:
        find_journal(directory, str(path))
    except UserError as error:
        return error.code == "A304" and not _keepers(directory, str(path))
    return False


def _of_a_node(path: Path, *, as_json: bool, until: str | None, show: bool, **others: Any) -> None:
    """Re-run a node's decisions."""
    given = [name for name, value in others.items() if value]
    if given:
        options = ", ".join(f"--{_WORDS.get(name, name)}" for name in given)
        fix = f"atoll replay {path}; or name an environment: atoll env list"
        raise UserError("A501", f"{path} is no journal of an environment", where=f"given: {options}", fix=fix)
    if until is not None and not _NUMBER.fullmatch(until):
        raise UserError("A501", f"{until!r} is no number of an input", fix="atoll replay JOURNAL --until N")
    replay_node(path, None if until is None else int(until), show=show, as_json=as_json)


def _check_choice(chosen: dict[str, Any]) -> None:
    """Refuse what does not go together."""
    for pair in _APART:
        if all(chosen[name] not in {None, False} for name in pair):
            names = [f"--{_WORDS.get(name, name)}" for name in pair]
            fix = f"leave out {' or '.join(names)}"
            raise UserError("A501", f"{' and '.join(names)} exclude each other", where="atoll replay", fix=fix)
    if chosen["pdb"] and chosen["until"] and (chosen["at"] or chosen["event"] is not None) and not chosen["stop"]:
        fix = "leave out --until"
        raise UserError("A501", "--pdb stops in one event, and these are several", where="atoll replay", fix=fix)
    if chosen["pdb"] and not sys.stdin.isatty():
        raise UserError("A501", "--pdb needs a terminal", fix="run it by hand, without a pipe")


def _directory(state: str | None, config: Path | None) -> Path:
    return state_of(state, config)


def _shelf(directory: Path, name: str, *, is_trusted: bool) -> "DiskShelf":
    """Return the journal that is meant.

    Args:
        directory: The node's state directory. Journals in it are its own.
        name: A name, an id or a path.
        is_trusted: Whether code may be run that comes with another journal.

    Raises:
        UserError: A108, A302, A304, A305, A501, A610.
    """
    from atoll.domain.auditing import trusting  # noqa: PLC0415
    from atoll.domain.shelves import CODE_NAME, DiskShelf, find_journal  # noqa: PLC0415

    try:
        journal = find_journal(directory, name)
        is_own = _is_own(directory, journal.directory)  # Another may be of another group.
        shelf = DiskShelf(journal, (directory / CODE_NAME,), trusting(directory) if is_own else None)
    except CorruptError as error:
        raise _damaged(error) from error
    except UserError as error:
        if error.code == "A304" and (elsewhere := _keepers(directory, name)):
            raise _elsewhere(name, elsewhere) from error
        raise
    if not is_own:
        if not is_trusted:
            raise UserError(
                "A305",
                f"{name} is a journal from elsewhere, and looking at it runs its code",
                where="here, as you, with nothing around it: it can do whatever you can",
                fix="if you trust who made it: --trust-code; `atoll audit verify` runs none of it",
            )
        if not shelf.last:
            raise UserError("A304", f"the journal at {name} has no blocks", fix="copy it from a node that keeps it")
    if shelf.last == 0:  # A node that gave its copy away keeps the directory, and none of the blocks in it.
        raise _elsewhere(name, _keepers(directory, name))
    return shelf


def _is_own(directory: Path, journal: Path) -> bool:
    """Tell whether a journal is one that the node of a state directory keeps or kept.

    It is where it really lies, and where it is called from there: operators put a large one on another disk by a link.
    """
    from atoll.domain.shelves import ENDED_NAME, ENVS_NAME  # noqa: PLC0415

    called = journal.absolute().parent if journal.is_file() else journal.absolute()
    homes = [(directory / name).resolve() for name in (ENVS_NAME, ENDED_NAME)]
    return called.parent.resolve() in homes or any(journal.resolve().is_relative_to(home) for home in homes)


def _elsewhere(name: str, keepers: str) -> UserError:
    if not keepers:
        fix = "atoll env list, while the node runs, says which nodes keep it; run this there"
        return UserError("A610", f"nothing of the journal of {name} is kept on this node", fix=fix)
    where = "it is not kept on this node"
    return UserError(
        "A610", f"the journal of {name} is kept by {keepers}", where=where, fix=f"atoll replay {name}, on one of these"
    )


def _keepers(directory: Path, name: str) -> str:
    """Return which nodes keep an environment, as the running node has heard; empty: nobody knows."""
    from atoll.domain.views import EnvironmentsView  # noqa: PLC0415

    try:
        seen = view(Api(directory).call("env.list", {}), EnvironmentsView)
    except (ProjectError, OSError):
        return ""
    return next((", ".join(one.holders) for one in seen.environments if name in {one.name, one.id}), "")


def _damaged(error: CorruptError) -> UserError:
    return UserError("A302", "the journal is damaged", where=str(error), fix="atoll audit verify; or a holder's copy")


def _walls() -> Any:
    from atoll.domain.causes import GuardedWalls  # noqa: PLC0415 -- it changes this process.

    return GuardedWalls()


def _run(shelf: "DiskShelf", look: "Callable[[Past], None]") -> None:
    """Look at a past, in an interpreter as it was recorded in; what goes wrong becomes an error for people."""
    from atoll.domain import guard  # noqa: PLC0415
    from atoll.env.past import Past  # noqa: PLC0415
    from atoll.env.stepping import DivergedError  # noqa: PLC0415

    if guard.check_interpreter() and AGAIN_VARIABLE not in os.environ:
        sys.stdout.flush()
        variables = {**os.environ, **guard.INTERPRETER_VARIABLES, AGAIN_VARIABLE: "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], variables)  # noqa: S606 -- itself.
    try:
        look(Past(shelf, _walls()))
    except DivergedError as error:
        raise _diverged(shelf, error) from error
    except CorruptError as error:
        raise _damaged(error) from error


def _diverged(shelf: "DiskShelf", error: Any) -> UserError:
    from atoll.domain.causes import cause_of  # noqa: PLC0415

    cause = cause_of(shelf, error)
    first = cause.differences[0] if cause.differences else None
    field = f"field {first.path or '-'}: expected {first.expected}, got {first.got}" if first else str(error)
    more = f" and {len(cause.differences) - 1} more fields" if len(cause.differences) > 1 else ""
    return UserError(
        "A303",
        f"the replay differs at event {error.event} (block {error.block}, record {error.index})",
        where=f"{field}{more}",
        fix=f"likely cause: {cause.kind} ({cause.sentence})",
    )


def when(text: str, now_ns: int) -> int:
    """Return a time, ns since 1970, from ISO 8601 (UTC unless it says otherwise) or ``-10min``.

    Raises:
        UserError: A501, it is neither.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now_ns - round(float(ago[1]) * _UNITS_S[ago[2]] * SECOND_NS)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(
            "A501",
            f"{text!r} is no time",
            where="such as 2026-11-29T12:00:00 (UTC), or -10min",
            fix="atoll help replay",
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * SECOND_NS + since.microseconds * MICROSECOND_NS


def _event_of(past: "Past", text: str) -> int:
    """Return an event from its number or a time, inside of what is kept."""
    event = int(text) if _NUMBER.fullmatch(text) else past.event_at(when(text, time.time_ns()))
    if not past.first <= event <= past.last:
        kept = f"events {past.first} to {past.last} are kept"
        raise UserError("A501", f"there is no event {event} here", where=kept, fix="name one of these, or a time")
    return event


def _json(value: Any) -> str:
    """Return JSON; bytes become hexadecimal, and keys text."""
    import msgspec  # noqa: PLC0415 -- text needs none.

    plain = msgspec.to_builtins(_printable(value), builtin_types=(bytes,), str_keys=False)
    return msgspec.json.encode(_printable(plain)).decode()


def _printable(value: Any) -> Any:
    from atoll.env.plain_data import is_map, is_row  # noqa: PLC0415

    if isinstance(value, bytes):
        return value.hex()
    if is_map(value):
        return {key if isinstance(key, str) else str(_printable(key)): _printable(one) for key, one in value.items()}
    return [_printable(one) for one in value] if is_row(value) else value


def _print_differences(found: Any, columns: tuple[str, ...], heading: dict[str, Any], *, as_json: bool) -> None:
    from atoll.cli import past_text  # noqa: PLC0415

    if as_json:
        click.echo(_json({"schema": DIFF_SCHEMA, **heading, "state": list(found)}))
        return
    if heading:
        for column, event, came in zip(columns, heading["events"], heading["in"], strict=True):
            click.echo(f"{column}  event {event}: {past_text.came_text(came)}")
    click.echo(past_text.differing(found, *columns) if found else "  the states are equal")


def _plain_audit(found: Any) -> dict[str, Any]:
    return {
        "schema": "atoll.audit/1",
        "name": found.journal.name,
        "id": found.journal.id,
        "sound": found.is_sound,
        "blocks": (found.first, found.last),
        "events": (found.first_event, found.last_event),
        "sound_to": (found.sound, found.sound_events),
        "counts": dict(found.counts),
        "codes": [*found.codes],
        "codes_complete": found.names_all_code,
        "sealers": {sealer.node.hex(): said for sealer, said in found.sealers.items()},
        "faults": [{"block": fault.block, "sentence": fault.sentence} for fault in found.faults],
        "open": [{"block": question.block, "sentence": question.sentence} for question in found.open],
        "remarks": found.remarks,
        "contradicting": [(witness.node, witness.number) for witness in found.contradicting],
    }


def _field(text: str) -> tuple[str, str]:
    path, _, name = text.rpartition(":")
    return path, name


def _wanted(history: Any, what: str) -> Any:
    """Return the step that is meant.

    Raises:
        UserError: A501, there is none.
    """
    if _NUMBER.fullmatch(what):
        step = history.step_of(int(what))
    elif "/" in what and _NUMBER.fullmatch(what.rpartition("/")[2]):
        party, _, number = what.rpartition("/")
        try:
            step = history.sender_of(bytes.fromhex(party), int(number))
        except ValueError:
            step = None
    else:
        step = history.writer_of(_field(what))
    if step is None:
        fix = "an event's number, a field, or PARTY/N"
        raise UserError(
            "A501", f"nothing that is called {what} was found", where=f"from event {history.begins + 1}", fix=fix
        )
    return step
