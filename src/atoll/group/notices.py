# SPDX-License-Identifier: Apache-2.0
"""What people are told about the group, in words. Decides nothing."""

from atoll.group.events import GroupNotice
from atoll.group.messages import PROTOCOL_MAX, PROTOCOL_MIN, Hello, Refused

__all__ = ["forked", "full", "joined", "own_inviter", "skewed", "twins"]


def joined(node: bytes, name: str) -> GroupNotice:
    """Somebody joined by our invitation."""
    return GroupNotice("joined", "", node, f"{name} joined the group", "by an invitation of this node", "")


def forked(node: bytes, name: str, signing_key: bytes) -> GroupNotice:
    """An issuer signed two statements under one counter."""
    return GroupNotice(
        "equivocation",
        "",
        node,
        f"{name} signed two different statements under one number; both count",
        f"signing key {signing_key.hex()[:16]}",
        f"if {name} was not restored from a backup, its key is in other hands: remove it",
    )


def full(node: bytes, where: str) -> GroupNotice:
    """There is no room for a statement."""
    return GroupNotice(
        "full",
        "A209",
        node,
        "the group's list of statements is full",
        where,
        "remove the member that filled it, with all that it stated",
    )


def own_inviter(node: bytes, name: str) -> GroupNotice:
    """A person wants to void what our own membership rests on."""
    return GroupNotice(
        "refused",
        "",
        node,
        f"this node cannot disown {name}: it is a member by what {name} said",
        "nobody else has admitted this node",
        f"remove {name} without disowning it, or disown it from another member",
    )


def skewed(node: bytes, name: str, product: str, other: Hello | Refused) -> GroupNotice:
    """A peer and we have no protocol in common."""
    older = "this node" if other.protocol_min > PROTOCOL_MAX else name
    return GroupNotice(
        "version",
        "A208",
        node,
        f"{name} and this node have no protocol in common",
        f"{name} runs atoll {other.product!r}, protocols {other.protocol_min} to {other.protocol_max}; "
        f"this node runs atoll {product!r}, protocols {PROTOCOL_MIN} to {PROTOCOL_MAX}",
        f"upgrade atoll on {older}",
    )


def twins(node: bytes, name: str, where: str) -> GroupNotice:
    """Two processes use one key."""
    return GroupNotice(
        "twin",
        "A207",
        node,
        f"two running processes use the key of {name}",
        where,
        "the one that started later is told to stop; give that machine its own state directory and invite it",
    )
