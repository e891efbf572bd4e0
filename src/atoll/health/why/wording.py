# SPDX-License-Identifier: Apache-2.0
"""Decides how a diagnosis is worded: times, shares and other people's texts, bounded and fit to be printed.

Numbers and texts may be anybody's: a number of any size and a text of any length become something short.
"""

from collections.abc import Sequence
from typing import Final

from atoll.health.why.facts import Fault, HostFacts, PathFacts

__all__ = [
    "TEXT_CHARS_MAX",
    "ago",
    "bounded",
    "in_brackets",
    "links_slow",
    "listed",
    "load",
    "number",
    "per_cent",
    "round_trip",
    "shares_lost",
    "since",
    "span",
    "times_usual",
    "took",
    "turns",
    "usually",
    "word",
]

TEXT_CHARS_MAX: Final = 390  # Limit. Of one sentence; the longest that our own names and reasons make is about 300.
NAME_CHARS_MAX: Final = 32  # Limit. Members' names are no longer.
REASON_CHARS_MAX: Final = 60  # Limit. Of one text that somebody else wrote, such as a rule.
NUMBER_MAX: Final = 1 << 53  # Limit. Larger numbers are taken for this one: JSON's readers know no larger ones.
WHOLE: Final = 10_000  # Shares are in parts of this.


def number(value: int) -> int:
    """Return a number that is fit to be written: those of others may have thousands of digits."""
    return min(max(0, value), NUMBER_MAX)


def word(text: str, chars_max: int = NAME_CHARS_MAX) -> str:
    """Return somebody else's text, cut, without what would move a terminal's cursor."""
    return "".join(one if one.isprintable() else "?" for one in text[:chars_max])


def bounded(text: str) -> str:
    """Return a sentence that is no longer than TEXT_CHARS_MAX."""
    return text if len(text) <= TEXT_CHARS_MAX else text[: TEXT_CHARS_MAX - 3] + "..."


def listed(names: Sequence[str]) -> str:
    """Return names, at least one, as a list in words."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def in_brackets(text: str) -> str:
    """Return somebody else's text in brackets, to be put behind something; nothing if it is empty."""
    return f" ({word(text, REASON_CHARS_MAX)})" if text else ""


def took(us: int | None) -> str:
    """Return a time with two or three digits; ``-`` where it is not known."""
    if us is None:
        return "-"
    us = number(us)
    if us < 10_000:
        return f"{us // 1_000}.{us // 100 % 10} ms"
    if us < 1_000_000:
        return f"{us // 1_000} ms"
    if us < 60_000_000:
        return f"{us // 1_000_000}.{us // 10_000 % 100:02} s"
    return span(us // 1_000_000)


def span(seconds: int) -> str:
    """Return an age in its largest unit of which there are two."""
    seconds = number(seconds)
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def per_cent(share: int | None) -> str:
    """Return a share of 1/10000 in per cent."""
    share = min(number(share or 0), WHOLE)
    return f"{share // 100} %" if share >= 1_000 or not share % 100 else f"{share // 100}.{share // 10 % 10} %"


def usually(us: int | None) -> str:
    """Return what is usual, to be put behind what is now; nothing if that is not known."""
    return "" if us is None else f", usually {took(us)}"


def since(fault: Fault | None) -> str:
    """Return for how long a fault has lasted, to be put behind what it is."""
    return f", for {span(fault.since_s)}" if fault is not None and fault.since_s > 0 else ""


def ago(seconds: int | None) -> str:
    """Return an age, to be put behind what happened."""
    return "" if seconds is None else f" {span(seconds)} ago"


def times_usual(fault: Fault | None) -> str:
    """Return how much longer than usual something takes."""
    if fault is None or fault.slower_percent <= 100:
        return "longer than usual"
    times = number(fault.slower_percent)
    return f"{times // 100}.{times // 10 % 10} times as long as usual"


def turns(one: HostFacts) -> str:
    """Return how late a node runs, to be put behind something else."""
    return "" if one.late_us is None else f"; the node runs {took(one.late_us)} late{usually(one.late_usual_us)}"


def load(one: HostFacts) -> str:
    """Return who uses how much of a CPU."""
    shares = ((one.busy_share, "busy"), (one.own_share, "by the node itself"), (one.stolen_share, "taken by others"))
    return (
        ", ".join(f"{per_cent(share)} {of}" for share, of in shares if share is not None) or "its load is not measured"
    )


def links_slow(slow: int, others: int, name: str) -> str:
    """Return how many of a machine's other links are slow."""
    return f"{number(slow)} of {number(others)} other links of {name} are slow"


def shares_lost(out: int | None, back: int | None) -> str:
    """Return what is lost in either direction."""
    ways = ((out, "of the packets there"), (back, "of those back"))
    return " and ".join(f"{per_cent(share)} {of}" for share, of in ways if share is not None)


def round_trip(path: PathFacts) -> str:
    """Return the round trip against what is usual."""
    if path.rtt_us is None:
        return "round trip not measured"
    return f"round trip {took(path.rtt_us)}{usually(path.usual_rtt_us)}"
