# SPDX-License-Identifier: Apache-2.0
"""What the operator of a node wants: who may reach what on it, and which packets travel how. Pure.

The text stands in ``atoll.toml`` (docs/howto/policy.md). Names are names of members and clients; what they mean now is
looked up whenever the rules are given to the packet device and to the overlay, so a machine that is renamed or joins
later falls under the rules that name it.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec

from atoll.base.errors import UserError
from atoll.base.ids import NodeId
from atoll.base.member import NAME_PATTERN
from atoll.conduit.names import Book
from atoll.conduit.opening import TCP_PORT
from atoll.device.nic.limits import ACCESS_ENTRIES_MAX, TRAFFIC_ENTRIES_MAX
from atoll.device.nic.messages import SetAccess, SetTraffic
from atoll.overlay.policy import DEFAULT_RULES, TAG_NAMES, Metric, Policy, Rule

__all__ = [
    "RULE_KEYS",
    "AccessRule",
    "Rules",
    "TagRule",
    "TrafficRule",
    "Verdict",
    "access_order",
    "parse_rules",
    "policy_of",
    "programs_of",
    "traffic_order",
    "verdict",
]

RULE_KEYS: Final = ("access", "access-default", "traffic", "tags")  # Of atoll.toml.
PORT_MAX: Final = 0xFFFF
DSCP_MAX: Final = 63
COPY_BYTES_MAX: Final = 1280

# Limits. What the packet device takes, without the entries that are the node's own: see access_order, traffic_order.
ACCESS_RULES_MAX: Final = ACCESS_ENTRIES_MAX - 1
TRAFFIC_RULES_MAX: Final = TRAFFIC_ENTRIES_MAX - len(TAG_NAMES)

ANYBODY: Final = "*"
_NUMBERS: Final = {"": 0, "tcp": 6, "udp": 17}
_RULE: Final = re.compile(r"(allow|deny) +(\S+) +-> +(\S+)")
_TARGET: Final = re.compile(r"([^:/]+):(\*|[0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp))?", re.ASCII)
_PORTS: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_NAME: Final = re.compile(NAME_PATTERN)
_PROGRAM: Final = re.compile(r"[^/\0]{1,255}")  # A name in a directory, as Linux has them.
_TABLE: Final = re.compile(r"\s*\[\[\s*traffic\s*\]\]")
_TRAFFIC_KEYS: Final = ("tag", "program", "port", "protocol", "to", "dscp", "size")
_TAG_KEYS: Final = ("metric", "direct-only", "avoid", "copy")

Made = TypeVar("Made")
_Tags = dict[str, dict[str, Any]]
Port = Annotated[int, msgspec.Meta(ge=0, le=PORT_MAX)]


class AccessRule(msgspec.Struct, frozen=True):
    """Who may (not) reach what. ``protocol`` "": TCP and UDP; ``source`` and ``target`` may be ``*``."""

    allow: bool
    source: str
    target: str
    first: Port
    last: Port
    protocol: str = ""
    text: str = ""
    line: int = 0


class TrafficRule(msgspec.Struct, frozen=True):
    """Which packets get a tag: all that is given must hold. ``dscp`` -1 and ``size`` 0: any; ``size``: at most.

    ``program`` is the name of the program that sends them, as ``host/owners.py`` finds it; empty: any.
    """

    tag: str
    first: Port = 0
    last: Port = PORT_MAX
    protocol: str = ""
    to: str = ANYBODY
    dscp: Annotated[int, msgspec.Meta(ge=-1, le=DSCP_MAX)] = -1
    size: Annotated[int, msgspec.Meta(ge=0)] = 0
    program: str = ""


class TagRule(msgspec.Struct, frozen=True):
    """How packets of a tag travel.

    Attributes:
        metric: What makes one path better than another.
        direct_only: Never by a relay.
        avoid: Names of members that must not relay them.
        copy_bytes: Packets of at most so many bytes also go by a second path; 0: none do.
    """

    metric: Metric
    direct_only: bool = False
    avoid: tuple[str, ...] = ()
    copy_bytes: Annotated[int, msgspec.Meta(ge=0, le=COPY_BYTES_MAX)] = 0


class Rules(msgspec.Struct, frozen=True):
    """All of them.

    Attributes:
        access: In order; the first that matches counts.
        default_allow: What counts when none matches.
        traffic: In order; the first that matches counts. None: the packet's own DSCP, if that is the number of a tag.
        tags: Changed ones, by name.
        origin: The file.
    """

    access: tuple[AccessRule, ...] = ()
    default_allow: bool = True
    traffic: tuple[TrafficRule, ...] = ()
    tags: dict[str, TagRule] = {}
    origin: str = ""

    def place_of(self, rule: AccessRule) -> str:
        """Return where a rule stands, such as ``atoll.toml:12``."""
        return f"{Path(self.origin).name}:{rule.line}"


class Verdict(msgspec.Struct, frozen=True):
    """Whether something may be reached, and by which rule; None: by the default."""

    allowed: bool
    rule: AccessRule | None


# Reading.


def parse_rules(table: Mapping[str, Any], text: str, origin: str) -> Rules:
    """Return the rules of a settings file.

    Args:
        table: The file, parsed.
        text: The file itself, to find the lines of rules.
        origin: Its path.

    Raises:
        UserError: A501, a rule that cannot be understood, with its line.
    """
    lines = text.splitlines()
    texts = _shaped(table, "access", list[str], origin, 'access = ["allow web -> db:5432"]')
    access = tuple(_access(rule, _line(lines, rule), origin) for rule in texts)
    default = table.get("access-default", "deny" if access else "allow")
    if default not in {"allow", "deny"}:
        raise _wrong(f"access-default is {default!r}", origin, _line(lines, "access-default"), "use allow or deny")
    entries = _shaped(table, "traffic", list[dict[str, Any]], origin, "[[traffic]]")
    heads = [number for number, line in enumerate(lines, start=1) if _TABLE.match(line)]
    heads = heads if len(heads) == len(entries) else [0] * len(entries)  # Written in another way: no lines.
    traffic = tuple(
        _traffic(entry, f"{origin}:{line}" if line else origin) for entry, line in zip(entries, heads, strict=True)
    )
    tags = _shaped(table, "tags", _Tags, origin, "[tags.latency]")
    changed = {name: _tag(name, entry, origin) for name, entry in tags.items()}
    if len(access) > ACCESS_RULES_MAX or len(traffic) > TRAFFIC_RULES_MAX:
        most = f"at most {ACCESS_RULES_MAX} access rules and {TRAFFIC_RULES_MAX} traffic rules"
        raise _wrong("too many rules", origin, 0, most)
    return Rules(access, default == "allow", traffic, changed, origin)


def _wrong(what: str, origin: str, line: int, fix: str) -> UserError:
    return UserError("A501", what, where=f"{origin}:{line}" if line else origin, fix=fix)


def _line(lines: Sequence[str], text: str) -> int:
    """Return the first line that holds this text, from 1; 0: none, because it is written in another way."""
    return next((number for number, line in enumerate(lines, start=1) if text in line), 0)


def _shaped(table: Mapping[str, Any], key: str, kind: type[Made], origin: str, example: str) -> Made:
    """Return what stands under a key; nothing there: empty."""
    try:
        return msgspec.convert(table.get(key, {} if kind is _Tags else []), kind)
    except msgspec.ValidationError as error:
        raise _wrong(f"{key} is not of the right form: {error}", origin, 0, f"write: {example}") from error


def _access(text: str, line: int, origin: str) -> AccessRule:
    example = "write: allow web -> db:5432, or deny * -> *:1-1023/udp"
    matched = _RULE.fullmatch(text.strip())
    target = None if matched is None else _TARGET.fullmatch(matched[3])
    if matched is None or target is None:
        raise _wrong(f"this is no access rule: {text!r}", origin, line, example)
    first, last = (0, PORT_MAX) if target[2] == ANYBODY else (int(target[2]), int(target[3] or target[2]))
    if not first <= last <= PORT_MAX or (target[2] == ANYBODY and target[3]):
        raise _wrong(f"this is no range of ports: {text!r}", origin, line, "use 0 to 65535, the lower one first")
    for name in (matched[2], target[1]):
        if name != ANYBODY and not _NAME.fullmatch(name):
            raise _wrong(f"{name!r} cannot be a name", origin, line, example)
    return AccessRule(matched[1] == "allow", matched[2], target[1], first, last, target[4] or "", text.strip(), line)


def _traffic(entry: Mapping[str, Any], origin: str) -> TrafficRule:
    _known(entry, _TRAFFIC_KEYS, "traffic", origin)
    ports = _PORTS.fullmatch(str(entry.get("port", f"0-{PORT_MAX}")))
    first, last = (1, 0) if ports is None else (int(ports[1]), int(ports[2] or ports[1]))
    if not first <= last <= PORT_MAX:
        raise _wrong(f"traffic: port is {entry.get('port')!r}", origin, 0, 'use a port, or "6000-6010"')
    if entry.get("tag") not in TAG_NAMES:
        raise _wrong(f"traffic: tag is {entry.get('tag')!r}", origin, 0, f"use one of: {', '.join(TAG_NAMES)}")
    if entry.get("protocol", "") not in _NUMBERS:
        raise _wrong(f"traffic: protocol is {entry['protocol']!r}", origin, 0, "use tcp or udp, or leave it out")
    program = entry.get("program")
    if program is not None and (not isinstance(program, str) or not _PROGRAM.fullmatch(program)):
        raise _wrong(
            f"traffic: program is {program!r}", origin, 0, 'use its name without directories: program = "rsync"'
        )
    return _converted(
        {
            "tag": entry["tag"],
            "first": first,
            "last": last,
            **{key: entry[key] for key in ("program", "protocol", "to", "dscp", "size") if key in entry},
        },
        TrafficRule,
        "traffic",
        origin,
    )


def _tag(name: str, entry: Mapping[str, Any], origin: str) -> TagRule:
    if name not in TAG_NAMES:
        raise _wrong(f"there is no tag {name!r}", origin, 0, f"use one of: {', '.join(TAG_NAMES)}")
    _known(entry, _TAG_KEYS, f"tags.{name}", origin)
    rule = DEFAULT_RULES[TAG_NAMES.index(name)]
    fields = {
        "metric": entry.get("metric", rule.metric.value),
        "direct_only": entry.get("direct-only", rule.direct_only),
        "avoid": entry.get("avoid", []),
        "copy_bytes": entry.get("copy", 0),
    }
    return _converted(fields, TagRule, f"tags.{name}", origin)


def _known(entry: Mapping[str, Any], keys: Sequence[str], what: str, origin: str) -> None:
    for key in entry:
        if key not in keys:
            raise _wrong(f"{what}: unknown key {key!r}", origin, 0, f"known keys: {', '.join(keys)}")


def _converted(fields: Mapping[str, Any], kind: type[Made], what: str, origin: str) -> Made:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise _wrong(f"{what}: {error}", origin, 0, "see docs/howto/policy.md") from error


# Deciding.


def verdict(rules: Rules, source: str, target: str, protocol: str, port: int) -> Verdict:
    """Return whether a machine may reach a port of another one, as that one's rules have it.

    Args:
        rules: Those of the target.
        source: Name of the machine that asks.
        target: Name of the machine whose rules these are.
        protocol: ``tcp`` or ``udp``.
        port: 0 to 65535.
    """
    for rule in rules.access:
        if (
            rule.source in {ANYBODY, source}
            and rule.target in {ANYBODY, target}
            and rule.protocol in {"", protocol}
            and rule.first <= port <= rule.last
        ):
            return Verdict(rule.allow, rule)
    return Verdict(rules.default_allow, None)


def access_order(rules: Rules, own: str, book: Book, *, open: bool = False) -> SetAccess:  # noqa: A002 -- its verb.
    """Return the rules about this node as the packet device applies them. A name that nobody has matches nobody.

    Args:
        rules: All of them.
        own: Name of this node.
        book: Who is who.
        open: Whether connections of members are accepted at TCP_PORT; the rules are then applied there, to the ports
            that they lead to.
    """
    entries: list[tuple[bytes, int, int, int, bool]] = []
    if open:
        entries.append((b"", _NUMBERS["tcp"], TCP_PORT, TCP_PORT, True))
    for rule in rules.access:
        node = _node(rule.source, book)
        if node is not None and rule.target in {ANYBODY, own}:
            entries.append((node, _NUMBERS[rule.protocol], rule.first, rule.last, rule.allow))
    return SetAccess(tuple(entries), rules.default_allow)


def programs_of(rules: Rules) -> tuple[str, ...]:
    """Return the programs that rules name; the numbers of ``SetTraffic`` count them from 1."""
    return tuple(dict.fromkeys(rule.program for rule in rules.traffic if rule.program))


def traffic_order(rules: Rules, book: Book, *, asks: bool = False) -> SetTraffic:
    """Return the rules about packets that leave, as the packet device applies them.

    Connections between members over kernel TCP have the tag that was asked for, which is their DSCP.

    Args:
        rules: Those of this node.
        book: Who is who.
        asks: Whether the programs of packets matter although no rule names one.
    """
    programs = programs_of(rules)
    entries: list[tuple[bytes, int, int, int, int, int, int, int]] = []
    if rules.traffic:
        own = (_NUMBERS["tcp"], TCP_PORT, TCP_PORT)
        entries += [(b"", *own, number, 0, number, 0) for number in range(len(TAG_NAMES))]
    for rule in rules.traffic:
        node = _node(rule.to, book)
        if node is not None:
            number, program = TAG_NAMES.index(rule.tag), programs.index(rule.program) + 1 if rule.program else 0
            matched = (node, _NUMBERS[rule.protocol], rule.first, rule.last, rule.dscp, rule.size)
            entries.append((*matched, number, program))
    return SetTraffic(tuple(entries), asks or bool(programs))


def policy_of(rules: Rules, book: Book) -> Policy:
    """Return what the overlay is to do for each tag."""
    made = dict(DEFAULT_RULES)
    for name, tag in rules.tags.items():
        avoided = tuple(node for name in tag.avoid if (node := _node(name, book)))
        made[TAG_NAMES.index(name)] = Rule(tag.metric, tag.direct_only, avoided, tag.copy_bytes)
    return Policy(made)


def _node(name: str, book: Book) -> bytes | None:
    """Return the id of a member or client, empty for ``*``; None: nobody has this name."""
    if name == ANYBODY:
        return b""
    named: tuple[tuple[str, NodeId], ...] = (*((member.name, member.node) for member in book.members), *book.guests)
    return next((bytes(node) for known, node in named if known == name), None)
