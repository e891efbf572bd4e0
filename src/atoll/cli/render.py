# SPDX-License-Identifier: Apache-2.0
"""Views and errors as text. Pure: the same view gives the same text, and golden tests hold it to the transcripts.

Never 0 for unknown: an unknown number is ``-``. Columns are padded for people; ``plain`` functions give tab-separated
columns that never change their order within a major version.
"""

import textwrap
from collections.abc import Sequence
from typing import Final

from atoll.base.errors import UserError
from atoll.base.problems import PROBLEMS
from atoll.node.views import (
    CandidateView,
    CanView,
    ClientView,
    FindingView,
    ForwardView,
    InviteView,
    PeerView,
    PingView,
    Ready,
    StatusView,
    SwitchView,
    WhyView,
)

__all__ = [
    "STATE_COLOURS",
    "ago",
    "can",
    "clients",
    "clients_plain",
    "error",
    "explanation",
    "forwards",
    "forwards_plain",
    "invite",
    "ping",
    "ping_summary",
    "ready",
    "status",
    "status_plain",
    "table",
    "why",
]

STATE_COLOURS: Final = {"ok": "green", "slow": "magenta", "degraded": "yellow", "connecting": "cyan", "away": "red"}

_SLOW: Final = frozenset({"slow", "failed"})
_BYTES_PER_MBIT: Final = 125_000
_NO_CAUSE: Final = frozenset({"nothing", "unknown"})
_WIDTH: Final = 110  # Of texts that are wrapped, beside their label.
_HISTORY_SHOWN_MAX: Final = 5  # The newest; ``--json`` gives all that the node keeps.


def ago(seconds: float | None) -> str:
    """Return an age in its largest whole unit, such as ``3 min``; ``-`` for unknown."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Return aligned lines, two spaces between columns, no spaces at the end; ``right``: columns set flush right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]


def ready(view: Ready) -> str:
    """Return what ``atoll up`` prints."""
    lines = [f"atoll {view.version}  node  {view.name}   group  {view.group}   mode  {view.mode}"]
    lines.append(f"  listening   {view.listen}")
    lines.append(f"  address     {view.address}")
    if view.joined:
        lines.append(f"  joined      {view.group}")
    if view.invite is not None:
        lines.append(f"  add another machine ({_validity(view.invite_valid_s)}, 1 use):")
        lines.append(f"      atoll up {view.invite}")
    lines.append(f"Ready in {view.ready_s:.1f} s.")
    return "\n".join(lines) + "\n"


def invite(view: InviteView) -> str:
    """Return the line to paste on the next machine."""
    return f"atoll up {view.invite}\n"


def status(view: StatusView) -> str:
    """Return the table of ``atoll status``."""
    header = ("PEER", "STATE", "PATH", "RTT", "LOSS", "WHY")
    rows = [
        (peer.name, peer.state, _path(peer), _rtt(peer.rtt_ms, peer.deviation_ms), _share(peer.loss), _reason(peer))
        for peer in view.peers
    ]
    lines = table(header, rows, right=frozenset({3, 4})) if rows else []
    device = (f"packets: {view.device}",) if view.device else ()
    slow = [
        f"{view.name} itself is slow: {one.text}, for {ago(one.since_s)}"
        for one in view.components
        if one.state in _SLOW
    ]
    return "\n".join([*lines, f"{_count_peers(view.peers)}      {_relaying(view)}", *device, *slow]) + "\n"


def status_plain(view: StatusView) -> str:
    """Return one line a peer: name, state, via, rtt_ms, deviation_ms, loss, last_heard_s, address, why."""
    return "".join(
        "\t".join(
            (
                peer.name,
                peer.state,
                "direct" if peer.via is None and peer.session else peer.via or "-",
                _number(peer.rtt_ms),
                _number(peer.deviation_ms),
                _number(peer.loss, digits=4),
                _number(peer.last_heard_s),
                peer.address,
                peer.why.replace("\t", " ") or "-",
            )
        )
        + "\n"
        for peer in view.peers
    )


def why(view: WhyView) -> str:
    """Return the explanation of ``atoll why``."""
    chosen = f"   (chosen {ago(view.since_s)} ago)" if view.since_s is not None else ""
    lines = [] if view.told_by is None else [f"Told by   {view.told_by}: its own word, which nobody here can check"]
    lines.append(f"Path      {' -> '.join(view.path) or '-'}{chosen}")
    found = view.diagnosis
    if found is None:
        lines.append(f"Because   {view.because}")
    else:
        lines.append(f"Symptom   {found.symptom}")
        label = "Because"
        for one in found.findings:
            lines.append(f"{label:<10}{_finding(one)}")
            label = ""
        lines.append(f"Taken     {view.because}")
    label = "Would be"
    for candidate in sorted(view.candidates, key=lambda one: not one.chosen):
        lines.append(f"{label:<10}{_candidate(candidate)}")
        label = ""
    label = "Changes"
    for switch in sorted(view.history, key=lambda one: one.ago_s)[:_HISTORY_SHOWN_MAX]:
        lines.append(f"{label:<10}{_switch(switch)}")
        label = ""
    if found is not None:
        for label, texts in (("Not it", found.not_it), ("Unknown", found.unknown)):
            wrapped = textwrap.wrap("; ".join(texts), _WIDTH, break_long_words=False, break_on_hyphens=False)
            lines += [f"{label if not at else '':<10}{text}" for at, text in enumerate(wrapped)]
    for at, text in enumerate(view.hearsay):
        lines.append(f"{'Others' if not at else '':<10}{text}")
    label = "Next"
    for text in dict.fromkeys(
        (*(one.next for one in (() if found is None else found.findings) if one.next), view.next)
    ):
        lines.append(f"{label:<10}{text}")
        label = ""
    return "\n".join(lines) + "\n"


def _finding(one: FindingView) -> str:
    if one.cause in _NO_CAUSE:
        return one.because
    return f"{one.because}  ({one.cause}, {one.confidence} % sure)"


def ping(view: PingView) -> str:
    """Return one line for one echo."""
    path = "direct" if view.via is None else f"via {view.via}"
    if view.rtt_ms is None:
        return f"{view.name}  {path}  seq {view.sequence}  no answer\n"
    return f"{view.name}  {path}  seq {view.sequence}  {view.rtt_ms:.1f} ms\n"


def ping_summary(views: Sequence[PingView]) -> str:
    """Return the last line of ``atoll ping``."""
    answered = sorted(view.rtt_ms for view in views if view.rtt_ms is not None)
    lost = 1 - len(answered) / len(views) if views else 0.0
    text = f"{len(views)} sent, {len(answered)} answered, {_share(lost)} lost"
    if answered:
        middle = (answered[(len(answered) - 1) // 2] + answered[len(answered) // 2]) / 2
        text += f"; min/median/max {answered[0]:.1f}/{middle:.1f}/{answered[-1]:.1f} ms"
    return text + "\n"


def can(view: CanView) -> str:
    """Return the line of ``atoll can``."""
    reach = f"{view.source} -> {view.target}:{view.port}/{view.protocol}"
    by = f"{view.line}: {view.rule}" if view.rule else "no rule matches; this is the default"
    told = f" (as {view.told_by} says)" if view.told_by else ""
    return f"{'allow' if view.allowed else 'deny'}  {reach}  {by}{told}\n"


def clients(views: Sequence[ClientView]) -> str:
    """Return the table of ``atoll client list``."""
    if not views:
        return "no clients\n"
    header = ("NAME", "ADDRESS", "SERVED BY", "AT")
    rows = [(one.name, one.address, one.served_by or "-", one.endpoint or "-") for one in views]
    return "\n".join(table(header, rows)) + "\n"


def clients_plain(views: Sequence[ClientView]) -> str:
    """Return one line a client: name, address, public key, member that serves it, where it is."""
    rows = ((one.name, one.address, one.public_key, one.served_by or "-", one.endpoint or "-") for one in views)
    return "".join("\t".join(row) + "\n" for row in rows)


def forwards(views: Sequence[ForwardView]) -> str:
    """Return the table of ``atoll forward list``."""
    if not views:
        return "no forwards\n"
    header = ("ID", "PROTOCOL", "LOCAL", "TO", "TAG", "OPEN", "BY")
    rows = [
        (
            str(one.id),
            one.protocol,
            one.local,
            f"{one.node}:{one.port}" if one.node else "all members",
            one.tag,
            str(one.connections),
            one.carrier or "-",
        )
        for one in views
    ]
    return "\n".join(table(header, rows, right=frozenset({0, 5}))) + "\n"


def forwards_plain(views: Sequence[ForwardView]) -> str:
    """Return one line a forward: id, protocol, local, node, port, tag, connections, carrier."""
    return "".join(
        "\t".join(
            (
                str(one.id),
                one.protocol,
                one.local,
                one.node or "-",
                str(one.port) if one.node else "-",
                one.tag,
                str(one.connections),
                one.carrier or "-",
            )
        )
        + "\n"
        for one in views
    )


def error(problem: UserError) -> str:
    """Return an error as people see it: code and sentence, evidence, remedy, where to read more."""
    lines = [f"error {problem.code}: {problem.sentence}"]
    for label, text in (("where", problem.where), ("fix", problem.fix)):
        if text:
            lines.append(f"  {label:<8}" + text.replace("\n", "\n          "))
    lines.append(f"  more    atoll help {problem.code}")
    return "\n".join(lines) + "\n"


def explanation(code: str) -> str:
    """Return the catalogue's entry of a code.

    Raises:
        KeyError: There is none.
    """
    entry = PROBLEMS[code]
    return f"{code}: {entry.title}\n\n{entry.meaning}\n\nFix: {entry.fix}\n\nExit status {entry.status.value}.\n"


def _validity(valid_s: int | None) -> str:
    return "valid" if valid_s is None else f"valid {ago(valid_s)}"


def _path(peer: PeerView) -> str:
    if not peer.session or peer.state == "away":
        return "-"
    return "direct" if peer.via is None else f"via {peer.via}"


def _rtt(rtt_ms: float | None, deviation_ms: float | None) -> str:
    if rtt_ms is None:
        return "-"
    return f"{rtt_ms:.0f} ms" if deviation_ms is None else f"{rtt_ms:.0f} ±{deviation_ms:.0f} ms"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _reason(peer: PeerView) -> str:
    if peer.state != "away":
        return peer.why
    heard = "never heard" if peer.last_heard_s is None else f"last heard {ago(peer.last_heard_s)} ago"
    return f"{peer.why}, {heard}" if peer.why else heard


def _count_peers(peers: Sequence[PeerView]) -> str:
    counts: dict[str, int] = {}
    for state in (*STATE_COLOURS, *(peer.state for peer in peers)):  # The known states first, in their own order.
        counts[state] = sum(peer.state == state for peer in peers)
    shown = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    noun = "peer" if len(peers) == 1 else "peers"
    return f"{len(peers)} {noun}: {shown}" if shown else "no peers: add a machine with `atoll invite`"


def _relaying(view: StatusView) -> str:
    relaying = view.relaying
    if relaying.will == "never":
        return "relaying for others: never"
    rate, budget = relaying.bytes_s / _BYTES_PER_MBIT, relaying.budget_bytes_s / _BYTES_PER_MBIT
    return f"relaying for others: {rate:.1f} Mbit/s of {budget:g} allowed"


def _way(via: str | None) -> str:
    return "direct" if via is None else f"via {via}"


def _candidate(one: CandidateView) -> str:
    numbers = [_rtt(one.rtt_ms, None)]
    losses = [loss for loss in (one.loss_out, one.loss_in) if loss is not None]
    if losses:
        numbers.append(f"{_share(max(losses))} loss")
    text = f"{_way(one.via)}: {' + '.join(numbers)}"
    if one.tcp_mbit_s is not None:
        text += f" -> TCP about {one.tcp_mbit_s:.1f} Mbit/s"
    return f"{text}   ({one.verdict})" if one.verdict else text


def _switch(one: SwitchView) -> str:
    took = f" in {one.took_s:.2f} s" if one.took_s else ""
    evidence = f": {one.evidence}" if one.evidence else ""
    return f"{ago(one.ago_s)} ago  {_way(one.before)} -> {_way(one.after)}{took}  {one.cause}{evidence}"
