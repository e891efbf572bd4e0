# SPDX-License-Identifier: Apache-2.0
"""Decides which of several members a new connection of a forward should try first. Pure reads of the machines."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from atoll.base.ids import DIRECT, NodeId
from atoll.health.members.bulletin import LINK, Word
from atoll.health.members.programs import PROGRAM
from atoll.node.control import Control

__all__ = ["Tier", "ranked", "tier"]

PROGRAM_OF: Final = f"{PROGRAM}:"


class Tier(IntEnum):
    """How well a member stands, the best first: as ``status`` shows it."""

    OK = 0
    DEGRADED = 1  # Its path is.
    SLOW = 2  # By its own word, or as this node measures; reachable all the same.
    UNREACHED = 3  # Away, connecting, or no member.


def ranked(control: Control, nodes: Sequence[NodeId], port: int, now_ns: int) -> tuple[NodeId, ...]:
    """Return members in the order in which a new connection to ``port`` tries them; equals stay as they are."""
    return tuple(sorted(nodes, key=lambda node: tier(control, node, port, now_ns)))


def tier(control: Control, node: NodeId, port: int, now_ns: int) -> Tier:
    """Return how well a member stands for connections to a port of it. This node always reaches itself."""
    report = control.mesh.peer_report(node, now_ns)
    if node != control.group.own.node and (report is None or report.state not in {"ok", "degraded"}):
        return Tier.UNREACHED
    is_direct = report is None or report.via == DIRECT
    if any(_matters(word, port, is_direct=is_direct) for word in control.bulletin.health(node).words):
        return Tier.SLOW
    return Tier.OK if report is None or report.state == "ok" else Tier.DEGRADED


def _matters(word: Word, port: int, *, is_direct: bool) -> bool:
    """Return whether a fault is felt at this port: a slow direct path where it is used, a slow program at its own.

    What programs report of what they use is not: a database that all members share would make all of them slow.
    """
    if ":" in word.what:
        return word.what == f"{PROGRAM_OF}{port}"
    return word.what != LINK or is_direct
