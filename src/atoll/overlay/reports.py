# SPDX-License-Identifier: Apache-2.0
"""Inputs of the overlay: what the packet device, the group and the operator tell it. All are journalled."""

from atoll.base.member import Member
from atoll.core.machine import Tick, Tuple
from atoll.overlay.policy import Policy

__all__ = [
    "ControlReceived",
    "EndpointSeen",
    "FlowSeen",
    "GuestDown",
    "GuestUp",
    "MembersChanged",
    "NetworkChanged",
    "NicRestarted",
    "OverlayInput",
    "PolicyChanged",
    "RelayMetered",
    "RelaysShunned",
    "SessionDown",
    "SessionUp",
    "SizePassed",
    "SizesAsked",
]


class MembersChanged(Tuple, frozen=True):
    """The roster changed: the full list of the *other* members, ordered by node id."""

    members: tuple[Member, ...]


class SessionUp(Tuple, frozen=True):
    """A session with a member is established (first handshake, or again after ``SessionDown``)."""

    node: bytes
    boot: int  # The device's count of sessions with this node, so that a restart of the peer is seen.


class SessionDown(Tuple, frozen=True):
    """No session with this member any more: nothing authenticated within WireGuard's reject time."""

    node: bytes


class ControlReceived(Tuple, frozen=True):
    """An authenticated control message came from a member.

    ``via`` is DIRECT or the relay whose label it arrived under. That it was sent directly, or not, is authenticated; by
    which relay is a hint.

    Attributes:
        data_sent: Data packets that the member had sent us by this way before it (not those that went by two ways at
            once), modulo 2^32.
        data_seen: Those that had come by this way, modulo 2^32.
    """

    node: bytes
    via: bytes
    payload: bytes
    data_sent: int = 0
    data_seen: int = 0


class EndpointSeen(Tuple, frozen=True):
    """Report: authenticated packets of the node come directly from this address now; at most one a second and node."""

    node: bytes
    host: str
    port: int


class NetworkChanged(Tuple, frozen=True):
    """Addresses or routes of this machine changed: any direct path may be another one now."""


class FlowSeen(Tuple, frozen=True):
    """Data packets to and from one member since the last such report; sent only when one of the counts is not 0."""

    node: bytes
    sent: int
    received: int


class RelayMetered(Tuple, frozen=True):
    """Traffic that we forwarded under one label since the last report."""

    label: int
    forwarded_bytes: int
    dropped: int


class GuestUp(Tuple, frozen=True):
    """A guest shook hands with us and spoke in the session; again at each new handshake.

    Attributes:
        node: Id of the guest.
        stamp: The handshake's timestamp, TAI64N, 12 bytes; the guest makes it, and it only grows.
    """

    node: bytes
    stamp: bytes


class GuestDown(Tuple, frozen=True):
    """No session with this guest any more."""

    node: bytes


class SizePassed(Tuple, frozen=True):
    """What ``ProbeSize`` with this token sent has arrived."""

    node: bytes
    token: int


class SizesAsked(Tuple, frozen=True):
    """Somebody wants to know what size of packets the way to this member carries."""

    node: bytes


class PolicyChanged(Tuple, frozen=True):
    """The operator wants other rules for the tags from now on."""

    policy: Policy


class RelaysShunned(Tuple, frozen=True):
    """These members are slow, and relay only where nobody else will do; all others as they would."""

    nodes: tuple[bytes, ...]


class NicRestarted(Tuple, frozen=True):
    """The packet device lost its tables; every order that still holds must be given again."""


OverlayInput = (
    Tick
    | MembersChanged
    | SessionUp
    | SessionDown
    | ControlReceived
    | FlowSeen
    | RelayMetered
    | NicRestarted
    | PolicyChanged
    | SizePassed
    | EndpointSeen
    | NetworkChanged
    | RelaysShunned
    | SizesAsked
)
