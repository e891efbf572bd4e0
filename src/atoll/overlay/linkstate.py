# SPDX-License-Identifier: Apache-2.0
"""Decides what we believe of other members' links, and when to tell them of ours.

``LinkTable`` holds what others said; ``LinkReporter`` decides what we say. A relay that died must not linger in
anybody's table, so everything carries a boot, a sequence and an age. A statement names absolute values, so a lost
delta costs freshness until the next full state and nothing else.
"""

from collections.abc import Sequence
from typing import Final, final

import msgspec

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.core.entropy import Draws
from atoll.overlay.limits import MEMBERS_MAX
from atoll.overlay.messages import Link, LinkState

__all__ = [
    "AGE_NS_MAX",
    "FULL_INTERVAL_NS",
    "LINKS_MAX",
    "LINKS_PER_PART",
    "METRIC_GAP_NS",
    "ORIGINS_MAX",
    "URGENT_GAP_NS",
    "LinkReporter",
    "LinkTable",
]

ORIGINS_MAX: Final = MEMBERS_MAX  # Limit. One origin too many is ignored.
LINKS_MAX: Final = MEMBERS_MAX  # Limit. Links of one origin.
LINKS_PER_PART: Final = 36  # Limit. A link takes up to 30 bytes, the rest of the message up to 25: 1105 of 1200.
PARTS_MAX: Final = -(-LINKS_MAX // LINKS_PER_PART)  # Limit. A full state of LINKS_MAX links.
FULL_INTERVAL_NS: Final = 30 * SECOND_NS  # At N = 50 the full states cost each node about 20 kbit/s.
AGE_NS_MAX: Final = 3 * FULL_INTERVAL_NS  # Two full states in a row may be lost before a link is forgotten.
METRIC_GAP_NS: Final = 5 * SECOND_NS  # Limit. Between deltas for numbers alone; bounds them to a fifth of the budget.
URGENT_GAP_NS: Final = 200 * MILLISECOND_NS  # Limit. Between deltas for states; a flapping link cannot flood.
RTT_CHANGE_US_MIN: Final = 2_000
RTT_CHANGE_PARTS: Final = 10  # A tenth of the value said before.
LOAD_FULL: Final = 255  # Spec. No budget left.
LOAD_CHANGE_MIN: Final = 32  # An eighth of the budget.
LOSS_CHANGE_MIN: Final = 100  # 1/10000: 1 %.
LOSS_URGENT_MIN: Final = 500  # 1/10000: others must leave a leg that became this lossy, so they hear it at once.


class _Known(msgspec.Struct, array_like=True):
    """One believed link: when it was said, and in which message."""

    link: Link
    sequence: int
    heard_ns: int


class _Row(msgspec.Struct, array_like=True):
    """What one origin said. ``parts`` collects a full state whose last part is still to come."""

    boot: int
    sequence: int
    heard_ns: int
    load: int
    will: int
    links: dict[bytes, _Known]
    part_sequence: int = 0
    part_next: int = 0
    parts: list[Link] = []


@final
class LinkTable(msgspec.Struct):
    """What others said of their links.

    Attributes:
        rows: By origin; at most ORIGINS_MAX, each of at most LINKS_MAX links.
        ignored: Messages that were stale, out of bounds or broken; for counters.
    """

    rows: dict[bytes, _Row] = {}
    ignored: int = 0

    def apply(self, origin: bytes, message: LinkState, now_ns: int) -> bool:
        """Take a message from an authenticated origin; return True when a link, the load or the will changed."""
        row = self._row_for(origin, message, now_ns)
        if row is None or message.parts > PARTS_MAX or (message.full and message.part >= message.parts):
            self.ignored += 1
            return False
        if message.full:
            return self._apply_full(origin, row, message, now_ns)
        if message.sequence <= row.sequence:
            self.ignored += 1
            return False
        row.sequence = message.sequence
        changed = _take_load(row, message, now_ns)
        for link in message.links:
            if link.node == origin or (link.node not in row.links and len(row.links) >= LINKS_MAX):
                self.ignored += 1
                continue
            known = row.links.get(link.node)
            changed |= known is None or known.link != link
            row.links[link.node] = _Known(link, message.sequence, now_ns)
        return changed

    def _row_for(self, origin: bytes, message: LinkState, now_ns: int) -> _Row | None:
        row = self.rows.get(origin)
        if row is not None:
            if message.boot == row.boot:
                return row
            # A lower boot is a late packet of the origin's former life, unless the present one has fallen silent (its
            # clock, from which boots may be made, can have been set back).
            if message.boot < row.boot and now_ns - row.heard_ns <= AGE_NS_MAX:
                return None
        elif len(self.rows) >= ORIGINS_MAX:
            return None
        row = self.rows[origin] = _Row(message.boot, -1, now_ns, 0, 0, {})
        return row

    def _apply_full(self, origin: bytes, row: _Row, message: LinkState, now_ns: int) -> bool:
        if message.part == 0:
            if message.sequence <= row.part_sequence and row.part_sequence:
                self.ignored += 1
                return False
            row.part_sequence, row.part_next, row.parts = message.sequence, 0, []
        if message.sequence != row.part_sequence or message.part != row.part_next:
            self.ignored += 1  # A part is missing; the next full state repairs it.
            return False
        row.part_next += 1
        row.parts.extend(message.links)
        if row.part_next < message.parts:
            return False
        changed = False
        if message.sequence > row.sequence:
            row.sequence = message.sequence
            changed = _take_load(row, message, now_ns)
        # A delta that overtook this state is newer than it and stays.
        links = {node: known for node, known in row.links.items() if known.sequence > message.sequence}
        for link in row.parts:
            if link.node == origin or link.node in links or len(links) >= LINKS_MAX:
                continue
            before = row.links.get(link.node)
            changed |= before is None or before.link != link
            links[link.node] = _Known(link, message.sequence, now_ns)
        changed |= any(node not in links for node in row.links)
        row.links, row.parts = links, []
        return changed

    def link(self, origin: bytes, target: bytes, now_ns: int) -> Link | None:
        """Return what ``origin`` last said of its link to ``target``; None: nothing, or too long ago."""
        row = self.rows.get(origin)
        known = None if row is None else row.links.get(target)
        return None if known is None or now_ns - known.heard_ns > AGE_NS_MAX else known.link

    def load(self, origin: bytes) -> int:
        """Return the relay load of a member, 0 to 255; 0 when it said nothing."""
        row = self.rows.get(origin)
        return 0 if row is None else row.load

    def will(self, origin: bytes) -> int:
        """Return whether a member relays: 0 never (or it said nothing), 1 metered, 2 yes."""
        row = self.rows.get(origin)
        return 0 if row is None else row.will

    def boot(self, origin: bytes) -> int:
        """Return the boot of a member's present life; 0 when it said nothing."""
        row = self.rows.get(origin)
        return 0 if row is None else row.boot

    def forget(self, origin: bytes) -> None:
        """Drop everything that a former member said, and what others said of their links to it."""
        self.rows.pop(origin, None)
        for row in self.rows.values():
            row.links.pop(origin, None)


def _take_load(row: _Row, message: LinkState, now_ns: int) -> bool:
    changed = (row.load, row.will) != (message.load, message.will)
    row.load, row.will, row.heard_ns = message.load, message.will, now_ns
    return changed


class _Change(msgspec.Struct, frozen=True):
    """The links of which others must hear, and whether that can wait."""

    links: tuple[Link, ...]
    urgent: bool


@final
class LinkReporter(msgspec.Struct):
    """What we tell the others of our own links, and when.

    Attributes:
        boot: This life's number, larger than that of any former life.
        draws: Jitter, so that members do not speak in step.
        sequence: Of the last message.
        full_due_ns: When the next full state is due.
        waiting_ns: When a change that was held back may be said; None: nothing waits.
        said: What the others were last told, by far end.
    """

    boot: int
    draws: Draws
    sequence: int = 0
    full_due_ns: int = 0
    delta_ns: int | None = None
    waiting_ns: int | None = None
    said: dict[bytes, Link] = {}
    said_load: int = 0
    said_will: int = 0

    @property
    def due_ns(self) -> int:
        """When ``messages`` should be called again, though nothing changes."""
        return self.full_due_ns if self.waiting_ns is None else min(self.full_due_ns, self.waiting_ns)

    def messages(self, links: Sequence[Link], load: int, will: int, now_ns: int) -> tuple[LinkState, ...]:
        """Return what to send to every member now, in order; () when nothing is due.

        Args:
            links: All our links, at most LINKS_MAX.
            load: Our relay load, 0 to 255.
            will: 0 never, 1 metered, 2 yes.
            now_ns: Monotonic time, ns.
        """
        links = links[:LINKS_MAX]
        if now_ns >= self.full_due_ns:
            self.full_due_ns = now_ns + FULL_INTERVAL_NS - self.draws.below(FULL_INTERVAL_NS // 4)
            self.waiting_ns, self.delta_ns = None, now_ns
            self.said = {link.node: link for link in links}
            self.said_load, self.said_will = load, will
            return self.introduction(links, load, will)
        change = self._change(links, load, will)
        if change is None:
            self.waiting_ns = None
            return ()
        gap_ns = URGENT_GAP_NS if change.urgent else METRIC_GAP_NS
        if self.delta_ns is not None and now_ns < self.delta_ns + gap_ns:
            self.waiting_ns = self.delta_ns + gap_ns
            return ()
        self.waiting_ns, self.delta_ns = None, now_ns
        self.sequence += 1
        changed = change.links[:LINKS_PER_PART]
        if len(changed) < len(change.links):
            self.waiting_ns = now_ns + URGENT_GAP_NS
        self.said.update((link.node, link) for link in changed)
        self.said_load, self.said_will = load, will
        return (LinkState(self.boot, self.sequence, full=False, part=0, parts=1, load=load, will=will, links=changed),)

    def introduction(self, links: Sequence[Link], load: int, will: int) -> tuple[LinkState, ...]:
        """Return a full state for one member that may know nothing yet; ``messages`` goes on as if it were not sent."""
        self.sequence += 1
        links = links[:LINKS_MAX]
        chunks = [tuple(links[at : at + LINKS_PER_PART]) for at in range(0, len(links), LINKS_PER_PART)]
        parts = max(1, len(chunks))
        return tuple(
            LinkState(self.boot, self.sequence, full=True, part=part, parts=parts, load=load, will=will, links=chunk)
            for part, chunk in enumerate(chunks or [()])
        )

    def _change(self, links: Sequence[Link], load: int, will: int) -> _Change | None:
        urgent = will != self.said_will or (load == LOAD_FULL) != (self.said_load == LOAD_FULL)
        changed: list[Link] = []
        for link in links:
            before = self.said.get(link.node)
            if before is link or before == link:
                continue
            if before is None or _is_urgent(before, link):
                urgent = True
                changed.append(link)
            elif _is_significant(before, link):
                changed.append(link)
        if not changed and not urgent and abs(load - self.said_load) < LOAD_CHANGE_MIN:
            return None
        return _Change(tuple(changed), urgent)


def _is_urgent(before: Link, link: Link) -> bool:
    lossier = max(link.loss_out - before.loss_out, link.loss_in - before.loss_in)
    return link.state != before.state or lossier >= LOSS_URGENT_MIN


def _is_significant(before: Link, link: Link) -> bool:
    # A move within the deviation that was said is no news, and a jittery link would otherwise talk all the time.
    bound_us = max(before.rtt_us // RTT_CHANGE_PARTS, RTT_CHANGE_US_MIN, before.deviation_us)
    moved = abs(link.rtt_us - before.rtt_us) > bound_us
    loss = max(abs(link.loss_out - before.loss_out), abs(link.loss_in - before.loss_in))
    return moved or loss > LOSS_CHANGE_MIN
