# SPDX-License-Identifier: Apache-2.0
"""What the server and a guest say to each other: one request, one answer, never two under way.

A guest's answers come from code that nobody trusts: decoding them is total, and what is decoded is checked against
what can be (``machine``).
"""

from typing import Annotated, Final

import msgspec

from atoll.base.errors import WireError
from atoll.core.machine import Tuple
from atoll.env.limits import PARTIES_KNOWN_MAX
from atoll.env.parties import PARTY_BYTES
from atoll.env.records import TEXT_CHARS_MAX, Effect, Record

__all__ = [
    "Answer",
    "Blank",
    "Content",
    "Done",
    "Fault",
    "Handle",
    "Load",
    "Request",
    "Restore",
    "Show",
    "Status",
    "Write",
    "decode_answer",
    "decode_request",
    "encode_answer",
    "encode_request",
]

Party = Annotated[bytes, msgspec.Meta(min_length=PARTY_BYTES, max_length=PARTY_BYTES)]
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Text = Annotated[str, msgspec.Meta(max_length=TEXT_CHARS_MAX)]


# Requests.


class Load(Tuple, frozen=True, tag=1):
    """Load this code (an encoded ``Bundle``); the answer is a ``Done``."""

    bundle: bytes


class Blank(Tuple, frozen=True, tag=2):
    """Be an environment before its first record."""


class Restore(Tuple, frozen=True, tag=3):
    """Be an environment in this state."""

    state: bytes


class Handle(Tuple, frozen=True, tag=4):
    """Apply a record."""

    now_ns: int
    record: Record


class Write(Tuple, frozen=True, tag=5):
    """Answer with the state as ``Content``.

    Attributes:
        go_on: And live on from what was written.
    """

    go_on: bool


class Show(Tuple, frozen=True, tag=6):
    """Answer with the declared state of one environment of the tree as ``Content``: an encoded map."""

    path: str


Request = Load | Blank | Restore | Handle | Write | Show


# Answers.


class Status(msgspec.Struct, frozen=True, array_like=True):
    """What the server has to know of an environment, after each request.

    Attributes:
        events: Events so far.
        deadline_ns: When a ``Fired`` is owed; None: never.
        first_timer: Number of the timer that is due first; 0: none.
        is_quiescent: Whether no coroutine waits.
    """

    events: Count = 0
    deadline_ns: Count | None = None
    first_timer: Count = 0
    is_quiescent: bool = True


class Done(Tuple, frozen=True, tag=1):
    """It was done.

    Attributes:
        status: After it.
        effects: What came of a record.
        received: Number of the last item that was taken of the party whose record it was.
        forgotten: Parties that it forgot; some may be known again.
    """

    status: Status
    effects: tuple[Effect, ...] = ()
    received: Count = 0
    forgotten: Annotated[tuple[Party, ...], msgspec.Meta(max_length=2 * PARTIES_KNOWN_MAX)] = ()


class Fault(Tuple, frozen=True, tag=2):
    """It failed.

    Attributes:
        code: ``raised`` or ``grown``, as of ``Failed``; ``usage`` or ``corrupt``: it could not be asked.
        text: For people.
        received: As of ``Done``; which item of several it was, follows from it.
        where: As of a ``UserError``, whose code is ``code`` then.
        fix: As above.
        is_known: Whether ``received`` says which item it was; it is not when all of them together were too much.
    """

    code: Annotated[str, msgspec.Meta(max_length=16)]
    text: Text
    received: Count = 0
    where: Text = ""
    fix: Text = ""
    is_known: bool = True


class Content(Tuple, frozen=True, tag=3):
    """What was asked for."""

    content: bytes
    status: Status


Answer = Done | Fault | Content

_encode: Final = msgspec.msgpack.Encoder().encode
_request_decoder: Final = msgspec.msgpack.Decoder(Request)
_answer_decoder: Final = msgspec.msgpack.Decoder(Answer)

encode_request: Final = _encode
decode_request: Final = _request_decoder.decode
encode_answer: Final = _encode


def decode_answer(data: bytes) -> Answer:
    """Return an answer; total.

    Raises:
        WireError: The bytes are none.
    """
    try:
        answer: Answer = _answer_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("a guest's answer") from error
    return answer
