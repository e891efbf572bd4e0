# SPDX-License-Identifier: Apache-2.0
"""What clients and control say to the server of environments, and it to them, beside ``env.messages``.

On each connection a frame is its length, 4 bytes, and one MessagePack tuple. Decoding is total. A client's first
message is ``Hello``; control's connection is inherited, so it needs none.
"""

from typing import Annotated, Final

import msgspec

from atoll.base.ids import KEY_BYTES, NODE_ID_BYTES
from atoll.core.codec import Codec
from atoll.core.machine import Tuple
from atoll.domain.limits import SERVER_FRAME_BYTES_MAX, SERVER_MEMBERS_MAX
from atoll.env.messages import Carried, Receipt, Refusal
from atoll.env.parties import PARTY_BYTES

__all__ = [
    "DOOR_NAME",
    "Alive",
    "ClientMessage",
    "Command",
    "ControlMessage",
    "Datagrams",
    "Find",
    "Found",
    "FromNode",
    "Hello",
    "MemberSeen",
    "Members",
    "Outcome",
    "ServerMessage",
    "ToNode",
    "Welcome",
    "client_codec",
    "control_codec",
    "server_codec",
]

DOOR_NAME: Final = "env.sock"  # In the state directory: where clients find the server.
Party = Annotated[bytes, msgspec.Meta(min_length=PARTY_BYTES, max_length=PARTY_BYTES)]
Node = Annotated[bytes, msgspec.Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]
Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Hello(Tuple, frozen=True, tag=1):
    """From a client: who it is. Its id is 16 random bytes of its own; by the same id it comes back."""

    party: Party


class Welcome(Tuple, frozen=True, tag=2):
    """To a client: it may go on.

    Attributes:
        node: Name of this node.
    """

    node: str


class Find(Tuple, frozen=True, tag=3):
    """From a client: which environment has this name? ``Found`` answers."""

    number: Number
    name: str


class Found(Tuple, frozen=True, tag=4):
    """To a client.

    Attributes:
        number: Of the ``Find``.
        party: The environment; empty: none has that name.
        node: Name of the node that runs it, as far as is known.
    """

    number: Number
    party: bytes
    node: str = ""


class MemberSeen(msgspec.Struct, frozen=True, array_like=True):
    """A member of the group as control sees it.

    Attributes:
        node: Its id.
        name: Its name.
        signing_key: Its Ed25519 key.
        lost: The overlay does not reach it.
        slow: It is slow, and why; empty: it is not.
        former: It is no member any more: what it has sealed stays true, and nothing else that it says counts.
    """

    node: Node
    name: str
    signing_key: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    lost: bool = False
    slow: str = ""
    former: bool = False


class Members(Tuple, frozen=True, tag=5):
    """From control: all other members, and how this machine is.

    Attributes:
        members: The others, and as many of those who were members as have room.
        slow: This machine is slow, and why; empty: it is not.
    """

    members: Annotated[tuple[MemberSeen, ...], msgspec.Meta(max_length=SERVER_MEMBERS_MAX)]
    slow: str = ""


class FromNode(Tuple, frozen=True, tag=6):
    """From control: what another node's server of environments says."""

    node: Node
    payload: bytes


class ToNode(Tuple, frozen=True, tag=7):
    """To control: what another node's server shall hear; it may be lost."""

    node: Node
    payload: bytes


class Command(Tuple, frozen=True, tag=8):
    """From control: do something; ``Outcome`` answers.

    Attributes:
        number: Of the command.
        verb: What.
        params: Of the verb, as JSON.
    """

    number: Number
    verb: str
    params: bytes


class Outcome(Tuple, frozen=True, tag=9):
    """To control.

    Attributes:
        number: Of the command.
        ok: What came of it, as JSON; empty: it failed.
        code: Of the error's catalogue.
        sentence: What happened.
        where: The evidence.
        fix: What mends it.
    """

    number: Number
    ok: bytes
    code: str = ""
    sentence: str = ""
    where: str = ""
    fix: str = ""


class Datagrams(msgspec.Struct, frozen=True, array_like=True):
    """Small messages to other servers since this one started.

    Attributes:
        sent: Datagrams, each with one message or some.
        resent: How often one was sent again.
        lost: Given up; whether they came is not known.
        dropped: That the packet device did not take at once, and what came and was nobody's.
    """

    sent: Number = 0
    resent: Number = 0
    lost: Number = 0
    dropped: Number = 0


class Alive(Tuple, frozen=True, tag=10):
    """To control: it turns; said every second, unless a handler keeps it from that.

    Attributes:
        running: Environments that run here.
        datagrams: What became of what it said to others.
    """

    running: Number = 0
    datagrams: Datagrams = Datagrams()


ClientMessage = Hello | Find | Carried | Receipt
ControlMessage = Members | FromNode | Command
ServerMessage = Alive | Welcome | Found | ToNode | Outcome | Carried | Receipt | Refusal

client_codec: Final = Codec[ClientMessage](ClientMessage, bytes_max=SERVER_FRAME_BYTES_MAX, name="client message")
control_codec: Final = Codec[ControlMessage](ControlMessage, bytes_max=SERVER_FRAME_BYTES_MAX, name="control message")
server_codec: Final = Codec[ServerMessage](ServerMessage, bytes_max=SERVER_FRAME_BYTES_MAX, name="server message")
