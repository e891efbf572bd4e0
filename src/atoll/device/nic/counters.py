# SPDX-License-Identifier: Apache-2.0
"""Why the packet device dropped something, as counters whose names never come from outside."""

from typing import Final, final

__all__ = ["DROP_REASONS", "Counters"]

DROP_REASONS: Final = (
    "access-denied",  # A packet that a rule keeps from this machine's network stack; its sender was told.
    "control-rate",  # More control messages from one peer than it may send.
    "control-unsent",  # A control message of ours for a peer without a session.
    "datagram-empty",  # Nothing in it, or longer than any of ours.
    "endpoint-invalid",  # A member claims an address that is none: a name, a multicast group.
    "endpoint-unknown",  # Nobody knows where the peer is.
    "frame-forged",  # A relay frame with a wrong MAC.
    "frame-malformed",  # Too short, or nothing of ours in it.
    "frame-source",  # A relay frame that does not come from where its label's holder is.
    "guest-foreign",  # A guest's packet that is not from its own address.
    "guest-malformed",  # A guest's packet that is no IPv6.
    "guest-rate",  # A guest's packet beyond its rate.
    "guest-stranger",  # A guest's packet for an address that nobody has; it was told.
    "guest-unreachable",  # A packet for a guest without a session.
    "label-unknown",  # A relay frame under a label that we neither granted nor were told of.
    "order-refused",  # An order about an unknown peer, beyond a table's limit, or with impossible content.
    "outbox-full",  # The caller did not drain the outbox, or one call made too much.
    "packet-foreign",  # An inner packet whose addresses are not its sender's and its receiver's.
    "packet-malformed",  # A plaintext that is neither an IPv6 packet nor a control message.
    "packet-overflow",  # A packet that waited for a session, displaced by a newer one.
    "path-unknown",  # An order to send over a relay for which there is no label.
    "port-foreign",  # A packet of the process that speaks with members by itself, but not of its port or for no member.
    "port-full",  # That process did not take a packet.
    "port-unlinked",  # A packet of its for a member without a session.
    "relay-rate",  # A frame beyond its label's rate.
    "relay-budget",  # A frame beyond the budget for all forwarding.
    "report-overflow",  # A received packet that control did not take in time.
    "stack-missing",  # A connection to a machine whose network stack is not joined to the group; its sender was told.
    "tcp-ended",  # A connection that a peer used has ended.
    "tcp-overflow",  # A caller over TCP beyond the limit of connections.
    "tcp-stranger",  # A caller over TCP that had said nothing authentic, displaced by a newer one.
    "tun-foreign",  # A packet of the kernel that is not from our overlay address, or to a multicast group.
    "tun-malformed",  # A packet of the kernel that is no IPv6, or a large one that contradicts its header.
    "tun-reserved",  # A packet of the kernel of a port at which only the node speaks; its sender was told.
    "tun-too-big",  # A packet of the kernel that its way does not carry; the kernel was told how much it does.
    "tun-stranger",  # A packet of the kernel for an address that no member has; its sender was told.
    "tun-queue",  # A segment of a stream: the queue of the way out stands, and its sender should know.
    "tun-full",  # The kernel did not take a packet.
    "way-false",  # A control message that came by another kind of way than it was sent: a relay plays tricks.
    "receive-failed",  # The operating system's error on receiving.
    "send-full",  # The socket's buffer was full.
    "send-refused",  # The operating system's error on sending, such as no route.
    "send-too-long",  # Longer than the path's first hop takes.
)


@final
class Counters:
    """Counts by reason; the keys are DROP_REASONS and never grow.

    Attributes:
        dropped: Reason to count.
    """

    __slots__ = ("dropped",)

    def __init__(self) -> None:
        self.dropped: Final[dict[str, int]] = dict.fromkeys(DROP_REASONS, 0)

    def drop(self, reason: str, count: int = 1) -> None:
        """Count some."""
        self.dropped[reason] += count
