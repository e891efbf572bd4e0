# SPDX-License-Identifier: Apache-2.0
"""What a member keeps on disk of its group: the statements, and its own invitations. One file, so one atomic write.

Invitations are kept as public keys. The secret that a bearer must know cannot be had from them, so a copy of the file
lets nobody in. Normative text: docs/spec/membership.md, section 10.
"""

from typing import Annotated, Final

import msgspec

from atoll.base.errors import CorruptError
from atoll.base.ids import KEY_BYTES
from atoll.base.member import Member
from atoll.group.limits import INVITE_FORGET_NS, INVITES_MAX
from atoll.group.statement import Statement

__all__ = ["FORM_VERSION", "Form", "KeptInvite", "KeptInvites", "decode_form", "encode_form"]

FORM_VERSION: Final = 1  # Of the durable form.

Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Span = Annotated[int, msgspec.Meta(ge=0, le=INVITE_FORGET_NS)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Code = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]


class KeptInvite(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One invitation on disk. Times are spans, because a monotonic clock means nothing to the next process.

    Attributes:
        public_key: The key that its bearer connects with.
        expires_wall_s: As written in it, seconds since 1970.
        valid_ns: How much longer it was valid when this was written.
        remembered_ns: How much longer its bearer was to get an answer.
        joiner: The record that it belongs to.
        refused: The code that this record was refused with; 0: not refused.
    """

    public_key: Key
    expires_wall_s: Seconds
    valid_ns: Span
    remembered_ns: Span
    joiner: Member | None
    refused: Code


class KeptInvites(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All of them, as of ``wall_s``, seconds since 1970."""

    wall_s: Seconds
    invites: Annotated[tuple[KeptInvite, ...], msgspec.Meta(max_length=INVITES_MAX)]


class Form(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The whole file.

    Attributes:
        version: FORM_VERSION.
        group: The group's id.
        statements: Each after those that it rests on.
        kept: Invitations; None: none, and in files of before invitations were kept.
    """

    version: int
    group: bytes
    statements: tuple[Statement, ...]
    kept: KeptInvites | None = None


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Form)


def encode_form(form: Form) -> bytes:
    """Return the bytes for the disk."""
    return _encoder.encode(form)


def decode_form(encoded: bytes) -> Form:
    """Return what these bytes say; nothing in it is verified.

    Raises:
        CorruptError: They are not what ``encode_form`` wrote.
    """
    try:
        form = _decoder.decode(encoded)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CorruptError("a roster that does not decode") from error
    if form.version != FORM_VERSION:
        raise CorruptError(f"a roster of form {form.version}, this is form {FORM_VERSION}")
    return form
