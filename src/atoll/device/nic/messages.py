# SPDX-License-Identifier: Apache-2.0
"""What control and the packet device say to each other beside the overlay's own orders and reports.

Between processes they travel in batches: one MessagePack array of tuples for each datagram of the socket between them.
Decoding is total and raises only ``WireError``, in both directions: either process may be the one that went mad.
"""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from atoll.base.errors import WireError
from atoll.base.ids import KEY_BYTES, NODE_ID_BYTES
from atoll.base.member import ENDPOINTS_MAX, Host, Port
from atoll.core.machine import Tuple
from atoll.device.nic.limits import (
    ACCESS_ENTRIES_MAX,
    LISTEN_MAX,
    SHARES_PER_ORDER_MAX,
    TAGS_MAX,
    TRAFFIC_ENTRIES_MAX,
    TUN_PORTS_MAX,
)
from atoll.overlay.orders import NicOrder
from atoll.overlay.reports import (
    ControlReceived,
    EndpointSeen,
    FlowSeen,
    GuestDown,
    GuestUp,
    RelayMetered,
    SessionDown,
    SessionUp,
    SizePassed,
)
from atoll.overlay.session import BOX_BYTES

__all__ = [
    "AdmitPeer",
    "AttachPort",
    "AttachTun",
    "CloseGateway",
    "Configure",
    "EndpointSeen",
    "EngineOrder",
    "ExpelPeer",
    "FlowOpened",
    "FlowOwned",
    "GatewayShared",
    "Listening",
    "NicCounters",
    "OpenGateway",
    "Order",
    "PacketReceived",
    "RefuseGuest",
    "Report",
    "SendPacket",
    "ServeGuest",
    "SetAccess",
    "SetTraffic",
    "ShareGateway",
    "Stop",
    "Timestamp",
    "TunLost",
    "decode_orders",
    "decode_reports",
    "encode_item",
    "join_items",
]

Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
ListenPort = Annotated[int, msgspec.Meta(ge=0, le=65535)]
AnyNode = Annotated[bytes, msgspec.Meta(max_length=NODE_ID_BYTES)]
Octet = Annotated[int, msgspec.Meta(ge=0, le=255)]
Box = Annotated[bytes, msgspec.Meta(min_length=BOX_BYTES, max_length=BOX_BYTES)]
Ns = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Program = Annotated[int, msgspec.Meta(ge=0, le=TRAFFIC_ENTRIES_MAX)]
Flow = Annotated[bytes, msgspec.Meta(min_length=20, max_length=20)]


class Configure(Tuple, frozen=True):
    """Order, the first and only once: who we are and where to listen.

    Attributes:
        group: Id of the group, 32 bytes.
        private_key: X25519, 32 bytes. It goes nowhere else.
        listen: Numeric addresses and ports of the underlay, at most LISTEN_MAX; port 0: any.
        wall_floor_ns: The last ``Timestamp`` that was stored under this key; 0: none.
        relay_bytes_s: Budget for forwarding in all, bytes per second; 0: none.
        run_as_uid: Become this user (and the group of the same number) once the sockets are open, when started as
            root; 0: stay.
        outlives_ns: How long it goes on with the last tables after control has gone without ``Stop``, if there are
            sessions; 0: it ends.
    """

    group: Key
    private_key: Key
    listen: Annotated[tuple[tuple[Host, ListenPort], ...], msgspec.Meta(max_length=LISTEN_MAX)]
    wall_floor_ns: Ns = 0
    relay_bytes_s: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = 2_500_000
    run_as_uid: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFE)] = 0
    outlives_ns: Ns = 0


class AdmitPeer(Tuple, frozen=True):
    """Order: have sessions with this key. Again: change endpoints and psk, keep the session.

    ``invited`` says that it is no member yet: it calls us, we do not call it.
    """

    public_key: Key
    endpoints: Annotated[tuple[tuple[Host, Port], ...], msgspec.Meta(max_length=ENDPOINTS_MAX)] = ()
    psk: Key | None = None
    invited: bool = False


class ExpelPeer(Tuple, frozen=True):
    """Order: forget this key, its session, its routes and every label that has to do with it."""

    public_key: Key


class OpenGateway(Tuple, frozen=True):
    """Order: guests may shake hands with us under this key, whose private half is sealed for us."""

    public_key: Key
    box: Box


class CloseGateway(Tuple, frozen=True):
    """Order: no more; its guests' sessions end."""

    public_key: Key


class ServeGuest(Tuple, frozen=True):
    """Order: answer this guest under that gateway's key. A guest that we serve is reported by ``GuestUp``."""

    public_key: Key
    gateway: Key


class RefuseGuest(Tuple, frozen=True):
    """Order: forget this guest and its session."""

    public_key: Key


class ShareGateway(Tuple, frozen=True):
    """Order: seal a gateway's private key for these public keys; ``GatewayShared`` answers.

    Attributes:
        public_key: The gateway, one that was opened; empty: make one.
        recipients: X25519 keys of members.
    """

    public_key: Annotated[bytes, msgspec.Meta(max_length=KEY_BYTES)]
    recipients: Annotated[tuple[Key, ...], msgspec.Meta(max_length=SHARES_PER_ORDER_MAX)]


class SetAccess(Tuple, frozen=True):
    """Order: who may reach what on this machine, in place of what was said before.

    Attributes:
        entries: (node id or empty for anybody, protocol number or 0 for both, first port, last port, allow); the first
            that matches counts.
        default: What counts when none does.
    """

    entries: Annotated[
        tuple[tuple[AnyNode, Octet, ListenPort, ListenPort, bool], ...], msgspec.Meta(max_length=ACCESS_ENTRIES_MAX)
    ] = ()
    default: bool = True


class SetTraffic(Tuple, frozen=True):
    """Order: which tag packets of this machine get, in place of what was said before.

    Attributes:
        entries: (node id or empty for anybody, protocol number or 0 for any, first port, last port, DSCP or -1, largest
            size or 0, tag, number of a program or 0 for any); the first that matches counts, and without one the DSCP
            is the tag.
        asks: Whether ``FlowOpened`` is wanted. With this order all answers given before are void.
    """

    entries: Annotated[
        tuple[
            tuple[
                AnyNode,
                Octet,
                ListenPort,
                ListenPort,
                Annotated[int, msgspec.Meta(ge=-1, lt=TAGS_MAX)],
                ListenPort,
                Annotated[int, msgspec.Meta(ge=0, lt=TAGS_MAX)],
                Program,
            ],
            ...,
        ],
        msgspec.Meta(max_length=TRAFFIC_ENTRIES_MAX),
    ] = ()
    asks: bool = False


class FlowOpened(Tuple, frozen=True):
    """Report: packets of a flow leave this machine's network stack, and we do not know whose; ``FlowOwned`` answers.

    Attributes:
        protocol: TCP's number or UDP's.
        flow: The target's address, the source port and the target port, as they stand in the packet.
    """

    protocol: Octet
    flow: Flow


class FlowOwned(Tuple, frozen=True):
    """Order: whose a flow is; it holds until the flow is silent for FLOW_IDLE_NS. One that was not reported: nothing.

    Attributes:
        protocol: As reported.
        flow: As reported.
        programs: Numbers of the programs in ``SetTraffic`` that it belongs to.
        tag: What all its packets get, whatever the rules say; -1: the rules count.
    """

    protocol: Octet
    flow: Flow
    programs: Annotated[tuple[Program, ...], msgspec.Meta(max_length=TRAFFIC_ENTRIES_MAX)] = ()
    tag: Annotated[int, msgspec.Meta(ge=-1, lt=TAGS_MAX)] = -1


class GatewayShared(Tuple, frozen=True):
    """Report: (member's public key, box) for each that was asked for; with an empty key: we do not have that one."""

    public_key: bytes
    boxes: tuple[tuple[bytes, bytes], ...]


class SendPacket(Tuple, frozen=True):
    """Order: an inner IPv6 packet of ours for a node, by the route of its policy tag."""

    node: bytes
    tag: int
    packet: bytes


class AttachTun(Tuple, frozen=True):
    """Order, alone in its batch, which carries an open file as well: a TUN device with virtio headers, to be served.

    Attributes:
        ports: Inner UDP ports that stay control's, at most TUN_PORTS_MAX.
        echo: Identifier of control's own echo requests, whose answers it sees as well; -1: it has none.
        whole: Whether the kernel gets every packet whole, because what is left to it goes wrong.
    """

    ports: Annotated[tuple[Port, ...], msgspec.Meta(max_length=TUN_PORTS_MAX)] = ()
    echo: Annotated[int, msgspec.Meta(ge=-1, le=0xFFFF)] = -1
    whole: bool = False


class AttachPort(Tuple, frozen=True):
    """Order, alone in its batch, which carries an open socket as well: who has its other end speaks UDP with members.

    Each of its messages is one inner packet from this port of ours to the same port of a member's, or back. It takes
    the place of the one before it.

    Attributes:
        port: The inner UDP port.
    """

    port: Port


class TunLost(Tuple, frozen=True):
    """Report: the TUN device is gone; ``error`` is the name of the operating system's error."""

    error: str


class Stop(Tuple, frozen=True):
    """Order: end the process."""


class Listening(Tuple, frozen=True):
    """Report, the first: the sockets are open at these addresses, or why not.

    Attributes:
        endpoints: As bound.
        missing: TCP endpoints that could not be had; it works without them.
        error: Empty, or the name of the operating system's error such as ``EADDRINUSE``; the process ends then.
        bursts: Whether the kernel cuts and joins datagrams for us, as a self-test found.
        aes: Whether it seals with AES between nodes that both want it.
        compiled: Whether the loop over a burst is compiled.
        translated: Whether the device's own modules are.
    """

    endpoints: tuple[tuple[str, int], ...]
    error: str = ""
    bursts: bool = False
    aes: bool = False
    compiled: bool = False
    missing: tuple[tuple[str, int], ...] = ()
    translated: bool = False


class PacketReceived(Tuple, frozen=True):
    """Report: an inner IPv6 packet came out of a node's session; its two addresses are checked."""

    node: bytes
    packet: bytes


class NicCounters(Tuple, frozen=True):
    """Report: what was dropped since the start, by reason; reasons are constants, zeros are left out.

    ``peers`` says how much of it came out of the session of which node; nodes with none are left out.
    """

    dropped: dict[str, int]
    peers: dict[AnyNode, dict[str, int]] = msgspec.field(default_factory=dict[bytes, dict[str, int]])


class Timestamp(Tuple, frozen=True):
    """Report to be stored: no handshake will use a timestamp above this before the next such report.

    Given back in ``Configure`` after a restart, so that peers answer although the wall clock went back meanwhile.
    """

    wall_ns: int


EngineOrder = (
    NicOrder
    | AdmitPeer
    | ExpelPeer
    | SendPacket
    | OpenGateway
    | CloseGateway
    | ServeGuest
    | RefuseGuest
    | ShareGateway
    | SetAccess
    | SetTraffic
    | FlowOwned
)
Order = EngineOrder | Configure | AttachTun | AttachPort | Stop
Report = (
    SessionUp
    | SessionDown
    | ControlReceived
    | FlowSeen
    | RelayMetered
    | Listening
    | PacketReceived
    | EndpointSeen
    | NicCounters
    | Timestamp
    | TunLost
    | GuestUp
    | GuestDown
    | GatewayShared
    | SizePassed
    | FlowOpened
)

_encoder: Final = msgspec.msgpack.Encoder()
_orders: Final[msgspec.msgpack.Decoder[list[Order]]] = msgspec.msgpack.Decoder(list[Order])
_reports: Final[msgspec.msgpack.Decoder[list[Report]]] = msgspec.msgpack.Decoder(list[Report])


def encode_item(item: Order | Report) -> bytes:
    """Return the bytes of one order or report, for ``join_items``."""
    return _encoder.encode(item)


def join_items(items: Sequence[bytes]) -> bytes:
    """Return one batch: a MessagePack array with a 32-bit count, so that it can be put together from encoded items."""
    return b"".join((b"\xdd", len(items).to_bytes(4, "big"), *items))


def decode_orders(batch: bytes) -> list[Order]:
    """Return the orders of a batch.

    Raises:
        WireError: They do not decode. Nothing else.
    """
    try:
        return _orders.decode(batch)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("batch of orders does not decode") from error


def decode_reports(batch: bytes) -> list[Report]:
    """Return the reports of a batch.

    Raises:
        WireError: They do not decode. Nothing else.
    """
    try:
        return _reports.decode(batch)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("batch of reports does not decode") from error
