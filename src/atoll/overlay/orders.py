# SPDX-License-Identifier: Apache-2.0
"""Effects of the overlay: table entries and packets for the packet device, and notices for people.

The device (``device/nic``) obeys orders and nothing else. Each order is idempotent: giving it twice changes nothing.
"""

from atoll.core.machine import Tuple

__all__ = [
    "DropArrivalLabel",
    "DropForwardLabel",
    "DropGuest",
    "DropTransmitLabel",
    "NicOrder",
    "OverlayEffect",
    "ProbeSize",
    "RouteNotice",
    "SendControl",
    "SetArrivalLabel",
    "SetForwardLabel",
    "SetGuest",
    "SetRoute",
    "SetSize",
    "SetTransmitLabel",
    "SuggestEndpoint",
    "YieldGuest",
]


class SendControl(Tuple, frozen=True):
    """Seal a control message for a member and send it along one named path, whatever the routes say."""

    node: bytes
    via: bytes
    payload: bytes


class SetRoute(Tuple, frozen=True):
    """Send data for ``node`` with policy tag ``tag`` along ``via``; and, when given, a copy of each along ``also``.

    A copy is the same ciphertext, so the receiver's replay window keeps one of the two.
    ``also`` is None except while the current path is under suspicion, and for a tag whose small packets go twice:
    then ``copy_bytes`` is the size of the largest that does; 0: all do.
    """

    node: bytes
    tag: int
    via: bytes
    also: bytes | None = None
    copy_bytes: int = 0


class ProbeSize(Tuple, frozen=True):
    """Send something as long as an inner packet of ``size`` bytes by this way, whole; ``SizePassed`` if it arrives.

    ``token`` is given back; 0 to 65535.
    """

    node: bytes
    via: bytes
    size: int
    token: int


class SetSize(Tuple, frozen=True):
    """Inner packets by this way have at most this many bytes."""

    node: bytes
    via: bytes
    size: int


class SetTransmitLabel(Tuple, frozen=True):
    """To reach ``node`` via ``relay``, put this label, authenticated with this key, in front of the packet."""

    node: bytes
    relay: bytes
    label: int
    key: bytes


class DropTransmitLabel(Tuple, frozen=True):
    """Forget the label towards ``node`` via ``relay``."""

    node: bytes
    relay: bytes


class SetForwardLabel(Tuple, frozen=True):
    """We are the relay: packets from ``source`` under ``label`` go to ``target`` under ``out_label``."""

    label: int
    key: bytes
    source: bytes
    target: bytes
    out_label: int
    out_key: bytes
    rate_bytes_s: int


class DropForwardLabel(Tuple, frozen=True):
    """We are the relay: the lease of this label ended."""

    label: int


class SetArrivalLabel(Tuple, frozen=True):
    """Packets that ``relay`` hands us under ``label`` were sent by ``origin``."""

    label: int
    key: bytes
    relay: bytes
    origin: bytes


class DropArrivalLabel(Tuple, frozen=True):
    """Forget an arrival label."""

    label: int


class SetGuest(Tuple, frozen=True):
    """Packets to and from a guest go by the member that serves it."""

    node: bytes
    server: bytes


class DropGuest(Tuple, frozen=True):
    """No other member serves this guest."""

    node: bytes


class YieldGuest(Tuple, frozen=True):
    """Another member serves this guest now: end the session with it, so that no two of us speak to it."""

    node: bytes


class SuggestEndpoint(Tuple, frozen=True):
    """A member may be found at this address, as another one sees it: what is said directly goes there, too."""

    node: bytes
    host: str
    port: int


class RouteNotice(Tuple, frozen=True):
    """For people and logs: a route changed or a path changed state.

    Attributes:
        node: The far end.
        tag: Policy tag.
        via: The path now in use.
        before: The path used before.
        cause: One of ``start``, ``silent``, ``lossy``, ``slow``, ``better``, ``recovered``, ``relay-gone``, ``policy``,
            ``slow-relay``.
        evidence: Short text with the numbers, for ``atoll why`` and the log.
        took_ns: From first suspicion to this switch; 0 where there was none.
    """

    node: bytes
    tag: int
    via: bytes
    before: bytes
    cause: str
    evidence: str
    took_ns: int


NicOrder = (
    SendControl
    | SetRoute
    | SetTransmitLabel
    | DropTransmitLabel
    | SetForwardLabel
    | DropForwardLabel
    | SetArrivalLabel
    | DropArrivalLabel
    | SuggestEndpoint
    | SetSize
    | ProbeSize
    | SetGuest
    | DropGuest
    | YieldGuest
)
OverlayEffect = NicOrder | RouteNotice
