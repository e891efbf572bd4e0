# SPDX-License-Identifier: Apache-2.0
"""The past of an environment as text: one event, a walk over many, differences, an audit, a trace. Pure."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from atoll.base.units import SECOND_NS
from atoll.cli.render import table
from atoll.domain.auditing import Audit
from atoll.env.comparing import ABSENT, Difference, plain_effects, plain_tuple, shown
from atoll.env.past import Moment, Summary, flat
from atoll.env.plain_data import decode_plain, is_map
from atoll.env.records import Arrived, Began, Effect, Failed, Found, Item, Note, Opened, Post, Record, Told
from atoll.env.revising import Revision
from atoll.env.tracing import Reason, Step, Trace, named

__all__ = [
    "audited",
    "came_in",
    "came_text",
    "differing",
    "event",
    "line",
    "plain_event",
    "plain_moment",
    "plain_revision",
    "plain_trace",
    "replayed",
    "revised",
    "time_of",
    "traced",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_items: Final = msgspec.msgpack.Decoder(list[Item])
_item: Final = msgspec.msgpack.Decoder(Item)
STEPS_SHOWN_MAX: Final = 40  # Limit. Of a trace, unless more is asked for.
PAST_SCHEMA: Final = "atoll.past/1"
SHORT_CHARS: Final = 8  # Of an id.


def time_of(now_ns: int) -> str:
    """Return a time in UTC, to the microsecond."""
    moment = _EPOCH + timedelta(microseconds=now_ns // 1000)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")


def _short(data: bytes) -> str:
    return data.hex()[:SHORT_CHARS]


def tuple_text(plain: Any) -> str:
    """Return a tuple as ``Bid(who='ann', amount=7)``."""
    if not is_map(plain) or "is" not in plain:
        return shown(plain)
    return f"{plain['is']}({', '.join(f'{key}={shown(value)}' for key, value in plain.items() if key != 'is')})"


def came_in(record: Record, at: int) -> dict[str, Any]:
    """Return what came in as plain data: ``what`` it is, the tuple, who sent it and as which item."""
    match record:
        case Arrived(party, first, raw):
            return _of_item(party, first + max(at, 0), _items.decode(raw)[max(at, 0)])
        case Failed(party, number, code, text, item):
            inner = _of_item(party, number, _item.decode(item)) if item else {"number": number}
            return {**inner, "what": "Failed", "code": code, "text": text}
        case Told(raw):
            return {"what": "Told", "event": plain_tuple(raw)}
        case Began(id_, _, name, code, arguments):
            return {"what": "Began", "name": name, "id": id_, "code": code, "fields": plain_tuple(arguments)}
        case Opened(node, name, epoch, before):
            return {"what": "Opened", "node": node, "name": name, "epoch": epoch, "before": before}
        case Found(number, parties):
            return {"what": "Found", "number": number, "parties": list(parties)}
        case _:
            return {"what": type(record).__name__}


def _of_item(party: bytes, number: int, item: Item) -> dict[str, Any]:
    plain: dict[str, Any] = {"what": "Arrived", "event": plain_tuple(item.event), "from": party, "number": number}
    more = {"call": item.ask, "answers": item.re, "to": item.to, "by": item.by}
    return plain | {key: value for key, value in more.items() if value}


def came_text(came: dict[str, Any]) -> str:
    """Return in one line what came in."""
    what = came["what"]
    if what == "Arrived":
        return tuple_text(came["event"])
    if what == "Failed":
        tail = f": {came['code']}, {came['text']}"
        return f"{tuple_text(came['event'])} failed{tail}" if "event" in came else f"a timer or change failed{tail}"
    if what == "Told":
        return tuple_text(came["event"])
    rest = ", ".join(f"{key}={shown(value)}" for key, value in came.items() if key not in {"what", "event"})
    return f"{what}({rest})"


def _effect_lines(effects: Iterable[Effect]) -> list[str]:
    lines: list[str] = []
    for one in effects:
        match one:
            case Note(text):
                lines.append(f"  log      {text}")
            case Post():
                for item in plain_effects([one]):
                    kind = "reply" if item.get("re") else "ask" if item.get("ask") else "send"
                    call = f", call {item.get('re') or item.get('ask')}" if kind != "send" else ""
                    where = f"{_short(item['to'])} item {item['number']}{call}"
                    lines.append(f"  {kind:<8} {tuple_text(item['event'])} to {where}")
            case _:
                lines.append(f"  {type(one).__name__.lower():<8} {shown(msgspec.structs.asdict(one))}")
    return lines


def event(moment: Moment, last: int) -> str:
    """Return one event: what came in, what it did, and the state after it with the changed fields marked."""
    if moment.entry is None:
        lines = [f"event {moment.event} of {last}: where the journal begins"]
    else:
        of = (
            f"events {moment.before + 1} to {moment.event}"
            if moment.event > moment.before + 1
            else f"event {moment.event}"
        )
        came = came_in(moment.entry.record, moment.item)
        item = f", item {moment.item}" if moment.item >= 0 else ""
        place = f"block {moment.number}, record {moment.index}{item}"
        lines = [f"{of} of {last}  {time_of(moment.now_ns)}  ({place})", f"  in       {came_text(came)}"]
        if came.get("from"):
            call = f", call {came['call']}" if "call" in came else ""
            lines.append(f"  from     {_short(came['from'])} item {came['number']}{call}")
        lines += _effect_lines(moment.effects)
    lines.append("  state")
    lines += _state_lines(moment)
    return "\n".join(lines)


def _state_lines(moment: Moment) -> list[str]:
    lines: list[str] = []
    for path, fields in moment.state.items():
        before = moment.was.get(path, {})
        inner = "  " if path else ""
        if path:
            lines.append(f"    {path}:")
        for name, value in fields.items():
            is_changed = moment.entry is not None and (name not in before or before[name] != value)
            was = f"   was {shown(before[name])}" if is_changed and name in before else ""
            lines.append(f"  {'*' if is_changed else ' '} {inner}{name}  {shown(value)}{was}")
    return lines or ["    none yet"]


def line(now_ns: int, number: int, came: dict[str, Any], effects: Sequence[Effect]) -> str:
    """Return one event in one line."""
    sent = sum(one.count for one in effects if isinstance(one, Post))
    logged = [one.text for one in effects if isinstance(one, Note)]
    did = ", ".join([*([f"sent {sent}"] if sent else []), *(f"log: {text}" for text in logged)])
    return f"{number}\t{time_of(now_ns)}\t{came_text(came)}\t{did or '-'}"


def plain_event(event: int, came: dict[str, Any], effects: Sequence[Effect]) -> dict[str, Any]:
    """Return one event of a walk as plain data for JSON, without the state."""
    return {"schema": PAST_SCHEMA, "event": event, "in": came, "effects": plain_effects(effects)}


def plain_moment(moment: Moment) -> dict[str, Any]:
    """Return a moment as plain data for JSON; bytes become hexadecimal."""
    return {
        "schema": PAST_SCHEMA,
        "event": moment.event,
        "events": moment.event - moment.before,
        "time": time_of(moment.now_ns),
        "block": moment.number,
        "record": moment.index,
        "item": moment.item,
        "in": None if moment.entry is None else came_in(moment.entry.record, moment.item),
        "effects": plain_effects(moment.effects),
        "state": moment.state,
        "changed": [name for name, value in flat(moment.state).items() if flat(moment.was).get(name, ABSENT) != value],
    }


def replayed(name: str, summary: Summary, took_ns: int, lived_ns: int) -> str:
    """Return what a whole replay found."""
    events = summary.last - summary.first + 1
    took_s = max(took_ns, 1) / SECOND_NS
    return (
        f"{name}: events {summary.first} to {summary.last} in {summary.blocks} blocks gave the same effects "
        f"(digest {summary.digest.hex()}), and {summary.checkpoints} checkpoints the same state\n"
        f"  {events / took_s:,.0f} events/s: {took_s:.2f} s for what took {lived_ns / SECOND_NS:,.1f} s"
    )


def differing(found: Iterable[Difference], one: str, other: str) -> str:
    """Return differences as a table."""
    rows = [(each.path or "-", each.expected, each.got) for each in found]
    return "\n".join(f"  {text}" for text in table(("field", one, other), rows))


def audited(audit: Audit, names: dict[bytes, str]) -> str:
    """Return what an audit found, as a table, and who would have had to do what."""
    counts = audit.counts
    rows = [
        ("segments", str(counts["segments"]), "-"),
        ("blocks", str(counts["blocks"]), _span(audit.first, audit.sound)),
        ("events", str(counts["events"]), _span(audit.first_event, audit.sound_events)),
        ("seals", str(counts["blocks"]), "Ed25519"),
        ("certificates", str(counts["certificates"]), _sealers(audit, names)),
        ("snapshots", str(counts["snapshots"]), "-"),
        ("heads kept apart", str(counts["heads"]), _heads(audit, names)),
    ]
    lines = [f"{audit.journal.name or '(no name)'}  {audit.journal.id.hex()}: {_verdict(audit)}"]
    lines += [f"  {text}" for text in table(("checked", "count", "which"), rows, right=frozenset({1}))]
    if audit.torn:
        lines.append(f"  the newest segment ends with {audit.torn} bytes of no whole block, as while it is written")
    lines += [f"  {remark}" for remark in audit.remarks]
    for fault in audit.faults:
        lines.append(f"  FAULT  {fault.sentence}")
    lines += [f"  OPEN  {question.sentence}" for question in audit.open]
    lines += [f"  {text}" for text in _forger(audit, names)]
    return "\n".join(lines)


def _span(first: int, last: int) -> str:
    return f"{first} to {last}" if 0 < first <= last else "-"


def _verdict(audit: Audit) -> str:
    if audit.faults:
        return f"{len(audit.faults)} fault{'s' if len(audit.faults) > 1 else ''}"
    if audit.open:
        return "no fault was found, but what was shown of it and is not here is open"
    return "as it was sealed" if audit.counts["blocks"] else "nothing was checked, for no block is here"


def _sealers(audit: Audit, names: dict[bytes, str]) -> str:
    said = {
        "roster": "key in the roster",
        "unknown": "key NOT in the roster",
        "certificate": "by its certificate's word: no roster here",
    }
    return (
        "; ".join(
            f"{names.get(sealer.node, sealer.node.hex())} ({said[trust]})" for sealer, trust in audit.sealers.items()
        )
        or "-"
    )


def _heads(audit: Audit, names: dict[bytes, str]) -> str:
    newest: dict[bytes, int] = {}
    for witness in (*audit.witnesses, *audit.contradicting):
        newest[witness.node] = max(newest.get(witness.node, 0), witness.number)
    return ", ".join(f"{names.get(node, node.hex())} to block {number}" for node, number in newest.items()) or "none"


def _forger(audit: Audit, names: dict[bytes, str]) -> list[str]:
    """Say what somebody would have had to change who wanted this journal to pass as another one."""
    keys = ", ".join(names.get(sealer.node, sealer.node.hex()) for sealer in audit.sealers) or "its node"
    if not audit.faults and not audit.counts["blocks"]:
        return []
    if not audit.faults:
        newest = max((witness.number for witness in audit.witnesses), default=0)
        seen = f", and the heads that are kept apart, up to block {newest}" if newest else ""
        anew = f"all blocks from its own to {audit.last} would have to be sealed anew"
        return [f"to change event N, {anew} with the recorder's key of {keys}{seen}"]
    wrong = [fault.block for fault in audit.faults if not fault.is_missing]
    if not wrong:
        return []  # Nobody can seal what is here so that more of it is here.
    block = min((block for block in wrong if block), default=audit.first)
    if block > audit.last or not audit.last:
        return []  # It is something beside the blocks, such as a snapshot of another journal.
    first = audit.sound_events + 1 if block > audit.sound else audit.first_event
    blocks = f"blocks {block} to {audit.last} (events {first} to {audit.last_event})"
    lines = [f"for this to pass, {blocks} would have to be sealed anew with the recorder's key of {keys}"]
    against = sorted({(witness.number, witness.node) for witness in (*audit.contradicting, *audit.witnesses)})
    lines += [
        f"and the head of block {number} that {names.get(node, node.hex())} has shown would contradict it"
        for number, node in against
        if number >= block
    ]
    return lines


def traced(trace: Trace, most: int = STEPS_SHOWN_MAX) -> str:
    """Return a trace as a chain, the latest first."""
    lines: list[str] = []
    for step in trace.steps[:most]:
        lines.append(_step_line(step))
        lines += [f"    because of {reason}" for reason in _reasons(trace.reasons.get(step.event, ()))]
    if len(trace.steps) > most:
        lines.append(f"... and {len(trace.steps) - most} more")
    begin = f", from event {trace.begins + 1} on" if trace.begins else ""
    lines.append(f"{len(trace.steps)} of {trace.all} steps{begin}; {trace.unfiltered} without the filter")
    return "\n".join(lines)


def plain_trace(trace: Trace) -> dict[str, Any]:
    """Return a trace as plain data for JSON."""
    return {
        "schema": "atoll.trace/1",
        "steps": [_plain_step(step, trace.reasons.get(step.event, ())) for step in trace.steps],
        "all": trace.all,
        "unfiltered": trace.unfiltered,
        "begins": trace.begins,
    }


def _plain_step(step: Step, reasons: Sequence[Reason]) -> dict[str, Any]:
    return {
        "event": step.event,
        "time": time_of(step.now_ns),
        "came": step.came,
        "what": step.what,
        "from": step.party,
        "number": step.number,
        "answers": step.re,
        "reads": [named(read) for read in step.reads],
        # Keys of a dictionary that were written; null: the whole value was.
        "writes": {named(field): _plain_keys(keys) for field, keys in step.writes.items()},
        "calls": step.calls,
        "timers": [*range(step.timers[0], step.timers[1] + 1)] if step.timers[1] else [],
        "sent": [{"to": party, "number": number} for party, number in step.sent],
        "because": [{"event": reason.source, "through": reason.through} for reason in reasons],
    }


def _plain_keys(keys: Sequence[bytes | None]) -> list[Any] | None:
    return None if None in keys else [decode_plain(key) for key in keys if key is not None]


def _reasons(reasons: Sequence[Reason]) -> list[str]:
    by_through: dict[str, list[int]] = {}
    for reason in reasons:
        by_through.setdefault(reason.through, []).append(reason.source)
    return [
        f"{through}: event {', '.join(map(str, sources[-5:]))}{' and earlier ones' if len(sources) > 5 else ''}"
        for through, sources in by_through.items()
    ]


def _step_line(step: Step) -> str:
    who = f" from {_short(step.party)} item {step.number}" if step.party else ""
    what = tuple_text(step.what) if step.what is not None else step.came
    failed = f" {step.came}" if step.came.startswith("Failed") and step.what is not None else ""
    wrote = ", ".join(map(named, step.writes))
    return f"event {step.event}  {time_of(step.now_ns)}  {what}{failed}{who}{f'  wrote {wrote}' if wrote else ''}"


def plain_revision(found: Revision) -> dict[str, Any]:
    """Return what became of history as plain data."""
    first = found.first
    return {
        "schema": "atoll.revision/1",
        "events": found.events,
        "differing": found.differing,
        "failed": found.failed,
        "first": None
        if first is None
        else {
            "event": first.event,
            "time": time_of(first.now_ns),
            "in": came_in(first.record, 0),
            "differences": first.differences,
        },
        "state": found.state,
    }


def revised(found: Revision, target: str) -> str:
    """Return what became of history with other code."""
    lines = [f"{found.differing} of {found.events} events differ with {target}"]
    if found.first is not None:
        first = found.first
        lines.append(f"first at event {first.event}  {time_of(first.now_ns)}  {came_text(came_in(first.record, 0))}")
        lines.append(differing(first.differences, "recorded", "now"))
    then, now = found.failed
    if then or now:
        lines.append(f"handlers that failed: {then} then, {now} now")
    if found.state:
        lines += ["the state at the end:", differing(found.state, "recorded", "now")]
    return "\n".join(lines)
