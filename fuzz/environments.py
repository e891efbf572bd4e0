# SPDX-License-Identifier: Apache-2.0
"""Targets about environments: what parties and nodes say to each other, code, and what is in blocks. See targets.py."""

from collections.abc import Callable
from typing import Final

import msgspec
from guests import GUESTS
from recording import RECORDING

from atoll.base.errors import CorruptError, UserError, WireError
from atoll.base.ids import NodeId
from atoll.conduit.datagrams import ReliableDatagrams, bodies_of, messages_of
from atoll.domain import messages as local
from atoll.domain.loading import Bundle, decode_bundle, imports_of, level_of
from atoll.env import chain, messages
from atoll.env.history import DIGEST_BYTES, Entry, Snapshot, decode_body, decode_snapshot, encode_body
from atoll.env.records import Arrived, Began, Confirmed, Failed, Found, Held, Opened, Record, Upgraded

__all__ = ["ENVIRONMENTS"]

_A: Final = bytes(16)
_B: Final = bytes(range(16))
_NODE: Final = bytes(range(10))
_CODE: Final = b"c" * 32
_encode: Final = msgspec.msgpack.encode
_ITEMS: Final = _encode([[{"is": "Add", "n": 1}, 7, 0, "", ""], [{"is": "Done"}]])
_LINK: Final = chain.Link(b"h" * 32, 1, 1, 1, 1, b"b" * 32)
_CARRIED: Final = messages.Carried(_A, _B, 1, _ITEMS)

_MESSAGES: Final[tuple[messages.Message, ...]] = (
    _CARRIED,
    messages.Receipt(_A, _B, 7, again=True),
    messages.Refusal(_A, _B, "disk-full", "the disk of one refuses"),
    messages.Notices((messages.Notice(_A, 3, _NODE, "shop", "Shop", _CODE, (_NODE,), ended=True),)),
    messages.CodeWanted(_CODE),
    messages.CodeGiven(_CODE, b"code"),
    messages.Asked(1, "show", b"{}"),
    messages.Answered(1, b"", "A609", "there is none", "here", "mend it"),
    messages.Letter(bytes(30)),
    messages.HeadTold(_A, _LINK, b"s" * 64, chain.Sealer(_NODE, b"r" * 32, b"k" * 32, b"c" * 64)),
)
_RECORDS: Final[tuple[Record, ...]] = (
    Began(_A, b"s" * 32, "shop", _CODE, b"\x80", _NODE),
    Arrived(_B, 1, msgspec.Raw(_ITEMS)),
    Confirmed(_B, 2),
    Failed(_B, 2, "raised", "ValueError"),
    Upgraded(_CODE),
    Opened(_NODE, "one", 2, "two"),
    Held((_NODE,), 3),
    Found(1, (_A,)),
)
_SEEN: Final = local.MemberSeen(_NODE, "two", b"k" * 32, lost=True, slow="disk")
_BUNDLE: Final = Bundle(1, "shop", "Shop", {"shop": "import atoll\nclass Shop(atoll.App):\n    level = 'process'\n"})


def _message(data: bytes) -> messages.Message:
    """Read a message, and take its items apart and put them together again."""
    message = messages.decode_message(data)
    if isinstance(message, messages.Carried):
        count = messages.count_items(message.items)
        assert len(messages.split_items(message.items)) == count
        parcels = messages.parcels_of(message.first, count, message.items)
        assert sum(among for _, among, _ in parcels) == count
    return message


def _code(data: bytes) -> object:
    """Read code as a node does that is asked to run it, without running it."""
    bundle = decode_bundle(data)
    return bundle, level_of(bundle), imports_of(bundle)


# Name, decoder, what it may raise, seeds: the fields of a Decoder.
def _datagram(data: bytes) -> list[bytes]:
    """Take a datagram of another node's server; a second copy gives nothing."""
    side = ReliableDatagrams(2)
    body = side.receive(NodeId(_NODE), data, 1)
    if body is not None:
        assert side.receive(NodeId(_NODE), data, 1) is None
    side.tick(1 << 40)
    return _body(body or b"")


def _body(data: bytes) -> list[bytes]:
    """Take the messages out of a datagram's body, and put them together again."""
    found = messages_of(data)
    assert [one for put in bodies_of(found) for one in messages_of(put)] == found
    return found


ENVIRONMENTS: Final[
    tuple[tuple[str, Callable[[bytes], object], tuple[type[Exception], ...], tuple[bytes, ...]], ...]
] = (
    *RECORDING,
    *GUESTS,
    (
        "datagram",
        _datagram,
        (WireError,),
        (b"\1\0\0\0\1\0\0\0\1\0\0\0\2" + bytes(12) + b"\2\0hi\0\0", b"\3\0\0\0\1" + bytes(20)),
    ),
    ("datagram-body", _body, (WireError,), tuple(bodies_of([b"hi", b"", b"there"]))),
    ("party", _message, (WireError,), tuple(map(messages.encode_message, _MESSAGES))),
    (
        "client",
        local.client_codec.decode,
        (WireError,),
        tuple(map(_encode, (local.Hello(_A), local.Find(1, "shop"), _CARRIED, messages.Receipt(_A, _B, 7)))),
    ),
    (
        "control",
        local.control_codec.decode,
        (WireError,),
        tuple(
            map(_encode, (local.Members((_SEEN,)), local.FromNode(_NODE, b"payload"), local.Command(1, "list", b"{}")))
        ),
    ),
    (
        "server",
        local.server_codec.decode,
        (WireError,),
        tuple(
            map(
                _encode,
                (
                    local.Alive(),
                    local.Welcome("one"),
                    local.Found(1, _A, "one"),
                    local.ToNode(_NODE, b"payload"),
                    local.Outcome(1, b"{}"),
                    _CARRIED,
                ),
            )
        ),
    ),
    ("bundle", _code, (CorruptError, UserError), (_BUNDLE.encode(),)),
    (
        "records",
        decode_body,
        (CorruptError,),
        (encode_body(bytes(DIGEST_BYTES), [Entry(5, 7, record) for record in _RECORDS]),),
    ),
    (
        "state",
        decode_snapshot,
        (CorruptError,),
        (Snapshot(1, _CODE, bytes(DIGEST_BYTES), 1, (_NODE,), 3, _NODE, b"state").encode(),),
    ),
)
