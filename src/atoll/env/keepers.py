# SPDX-License-Identifier: Apache-2.0
"""Which nodes should keep an environment's journal. Pure: from who is there to who is wanted.

Two holders are worth less than one: both are needed for each block, so that either one's loss stops the environment.
Hence a group of two keeps one copy unless somebody asks for two, and three are made as soon as there is a third node.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from atoll.base.ids import NodeId
from atoll.env.messages import Notice

__all__ = ["Kept", "Peer", "fit_of", "parted", "wanted_holders"]


@dataclass(frozen=True, slots=True)
class Peer:
    """Another member, as this node sees it.

    Attributes:
        name: Its name.
        lost: It cannot be reached.
        slow: It is slow, and why; empty: it is not.
        lost_ns: Since when it has been lost, monotonic; None: it is not.
    """

    name: str
    lost: bool = False
    slow: str = ""
    lost_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """An environment whose journal is kept.

    Attributes:
        identity: Its id.
        own: The node that runs it, which stays a holder.
        holders: Who keeps it now.
        copies: How many should.
    """

    identity: bytes
    own: NodeId
    holders: tuple[bytes, ...]
    copies: int


def fit_of(holders: Iterable[bytes], peers: Mapping[NodeId, Peer]) -> list[NodeId]:
    """Return those holders that are neither lost nor slow, in their order."""
    fit: list[NodeId] = []
    for node in map(NodeId, holders):
        peer = peers.get(node)
        if peer is not None and not peer.lost and not peer.slow:
            fit.append(node)
    return fit


def parted(
    notice: Notice, own: NodeId, members: Collection[NodeId], lost: Collection[NodeId]
) -> tuple[list[NodeId], list[NodeId]] | None:
    """Return who keeps an environment and cannot be reached, and who else does; None: somebody runs it, or could.

    Args:
        notice: What is believed of it.
        own: This node.
        members: The other members. Who is neither is gone for good, and counts as not reached.
        lost: Those of them that have not been reached for long.

    Returns:
        Lost members and those that are there, in the order of the holders; one of the two may be empty.
    """
    kept = [NodeId(node) for node in notice.holders or (notice.owner,)]
    there = [node for node in kept if node == own or (node in members and node not in lost)]
    away = [node for node in kept if node in lost]
    is_run = notice.owner == own or notice.owner in there
    return None if is_run or 2 * len(there) > len(kept) or not (away or there) else (away, there)


def wanted_holders(kept: Kept, peers: Mapping[NodeId, Peer], gone: set[NodeId]) -> tuple[bytes, ...]:
    """Return who should keep the journal of an environment that runs on this node.

    Args:
        kept: The environment.
        peers: The other members.
        gone: Members that have been lost so long that they are given up.

    Returns:
        The holders, this node first and the rest in the order in which they came; the same as ``holders``, in some
        order, when nothing better is at hand.
    """
    own, holders, copies = kept.own, kept.holders, kept.copies
    good = [node for node in holders if node != own and NodeId(node) in peers and NodeId(node) not in gone]
    spare = sorted(
        (node for node, peer in peers.items() if node not in holders and not peer.lost),
        key=lambda node: (bool(peers[node].slow), blake2b(kept.identity + node, digest_size=8).digest()),
    )
    wanted: list[bytes] = [own, *good][:copies]
    wanted += spare[: copies - len(wanted)]
    if len(wanted) == 2 and copies > 2:
        # Better alone than two of whom both are needed; but what is a holder already is not given up for that.
        wanted = [own, *[node for node in holders if node != own][:1]] if len(holders) == 2 else [own]
    if len(wanted) < min(copies, len(holders)):
        lost = [node for node in holders if node not in wanted and NodeId(node) in peers]
        wanted += lost[: min(copies, len(holders)) - len(wanted)]
    return tuple(wanted)
