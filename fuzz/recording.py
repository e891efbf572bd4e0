# SPDX-License-Identifier: Apache-2.0
"""Targets about journals of environments: the files, and what the recorder and its users say. See targets.py."""

from collections.abc import Callable
from typing import Final

from atoll.base.errors import CorruptError, UserError, WireError
from atoll.domain.recorder import messages
from atoll.domain.recorder.heads import decode_heads, encode_head
from atoll.env import chain
from atoll.env.history import DIGEST_BYTES, Entry, encode_body, written_in
from atoll.env.records import Checkpointed

__all__ = ["RECORDING"]

_ID: Final = bytes(16)
_NODE: Final = bytes(range(10))
_SEALER: Final = chain.Sealer(_NODE, b"r" * 32, b"s" * 32, b"c" * 64)
_BLOCK: Final = chain.Block(1, 1, 1, 1, chain.pack_body(bytes(200)))
_SEALED: Final = chain.Sealed(_BLOCK, chain.Seal(chain.position_after(chain.GENESIS, _BLOCK).head, b"s" * 64))
_KEPT: Final = messages.KeptHead(_ID, chain.link_of(chain.GENESIS.head, _BLOCK), b"s" * 64)
_CHECKPOINT: Final = encode_body(bytes(DIGEST_BYTES), [Entry(1, 0, Checkpointed(b"d" * 32))])


def _journal() -> bytes:
    manifest = chain.Manifest(chain.FORMAT, _ID, "shop", "0.1.0", chain.GENESIS, _SEALER, b"s" * 64)
    return chain.segment_start(manifest) + chain.encode_frame(_SEALER, 1) + chain.encode_frame(_SEALED, 1)


def _verified(data: bytes) -> object:
    """Read a journal, follow its chain, unpack each body."""
    verifier = chain.Verifier(signatures=False)
    for found in chain.read(data):
        if isinstance(found, chain.Frame):
            verifier.feed(found.item)
            if isinstance(found.item, chain.Sealed):
                chain.unpack_body(found.item.block.body)
    return verifier.position


def _written(data: bytes) -> object:
    """Read a block's body for what it says of the state after it."""
    return written_in(chain.Block(1, 1, 1, 1, data))


def _heads(data: bytes) -> object:
    """Read a file of heads, follow each to its head, write it again."""
    kept, bad = decode_heads(data)
    assert decode_heads(b"".join(map(encode_head, kept))) == (kept, 0)
    return [one.link.head for one in kept], bad


def _stream_of(decode: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Return what takes a stream of messages apart."""

    def taken(data: bytes) -> object:
        inbox, found = messages.Inbox(), list[object]()
        inbox.add(data)
        while (content := inbox.take()) is not None:
            found.append(decode(content))
        return found

    return taken


_REQUESTS: Final[tuple[messages.Request, ...]] = (
    messages.Append(1, _ID, _BLOCK),
    messages.Keep(2, _ID, _SEALER, _BLOCK, _SEALED.seal),
    messages.Create(3, _ID, "shop"),
    messages.KeepHead(4, _NODE, _KEPT),
    messages.Read(5, _ID, 1),
    messages.Restart(6, _ID, chain.GENESIS, (3, 4), messages.Taken(b"state", _SEALER, b"s" * 64)),
)
_ANSWERS: Final[tuple[messages.Answer, ...]] = (
    messages.Starting(3),
    messages.Greeting(b"r" * 32, "0.1.0", _SEALER),
    messages.Blocks(1, (_SEALER, _SEALED)),
    messages.Refused(2, messages.Code.FULL, "no room"),
    messages.Snapshot(5, 1, b"h" * 32, b"state", 1, 1, _SEALER, b"s" * 64),
    messages.Listed(4, (messages.Recorded(_ID, "shop", 1, chain.GENESIS, 2, _NODE, (0, 1)),)),
)

# Name, decoder, what it may raise, seeds: the fields of a Decoder.
RECORDING: Final[tuple[tuple[str, Callable[[bytes], object], tuple[type[Exception], ...], tuple[bytes, ...]], ...]] = (
    ("environment", _verified, (CorruptError, UserError), (_journal(),)),
    ("body", chain.unpack_body, (CorruptError,), (chain.pack_body(b"records"), chain.pack_body(bytes(200)))),
    ("written", _written, (CorruptError,), (chain.pack_body(_CHECKPOINT),)),
    ("heads", _heads, (), (encode_head(_KEPT), encode_head(_KEPT) + bytes(200) + encode_head(_KEPT))),
    (
        "recorded",
        _stream_of(messages.decode_request),
        (WireError,),
        (b"".join(map(messages.encode_request, _REQUESTS)), *map(messages.encode_request, _REQUESTS)),
    ),
    (
        "answered",
        _stream_of(messages.decode_answer),
        (WireError,),
        (b"".join(map(messages.encode_answer, _ANSWERS)), *map(messages.encode_answer, _ANSWERS)),
    ),
)
