# SPDX-License-Identifier: Apache-2.0
"""What a signed statement about membership is, which bytes are signed, and whether a signature is good. Pure.

The signature covers the canonical MessagePack of (domain, group, issuer, counter, previous, body), so no statement is
valid in another group or as another kind of message. A statement is *the same* when these are the same: its digest
leaves the signature out, because an issuer can make any number of good signatures of one content.
Normative text: docs/spec/membership.md, section 2.
"""

import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2s
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from atoll.base.errors import WireError
from atoll.base.ids import KEY_BYTES, NODE_ID_BYTES, TCP_PREFIX, GroupId
from atoll.base.member import NAME_CHARS_MAX, NAME_PATTERN, Member
from atoll.core.machine import Tuple
from atoll.group.limits import HEADS_MAX, ISSUER_STATEMENTS_MAX, SHARES_MAX, STATEMENT_BYTES_MAX

__all__ = [
    "BOX_BYTES",
    "DIGEST_BYTES",
    "SIGNATURE_BYTES",
    "Admit",
    "AdmitGuest",
    "Body",
    "Draft",
    "Gateway",
    "Name",
    "Profile",
    "Remove",
    "RemoveGuest",
    "Statement",
    "decode_statement",
    "digest_of",
    "encode_statement",
    "join_payload",
    "member_is_sound",
    "signed",
    "statement_is_sound",
    "verify",
]

DIGEST_BYTES: Final = 32  # Spec.
SIGNATURE_BYTES: Final = 64  # Ed25519.
BOX_BYTES: Final = 80  # Spec. A private key of 32 bytes, sealed for one member.
STATEMENT_DOMAIN: Final = "atoll statement 1"  # Spec.
JOIN_DOMAIN: Final = "atoll join 1"  # Spec.
SERIAL_MAX: Final = (1 << 53) - 1  # Spec. Any implementation's integers hold it.

_NAME: Final = re.compile(NAME_PATTERN)

Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Id = Annotated[bytes, msgspec.Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]
Box = Annotated[bytes, msgspec.Meta(min_length=BOX_BYTES, max_length=BOX_BYTES)]
Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Serial = Annotated[int, msgspec.Meta(ge=1, le=SERIAL_MAX)]


class Admit(Tuple, frozen=True, tag=1):
    """``member`` belongs to the group."""

    member: Member


class Remove(Tuple, frozen=True, tag=2):
    """The member with these keys does not belong to the group, and never will again.

    Attributes:
        node: Its node id.
        signing_key: Its Ed25519 key.
        heads: Digests of its last statements that the remover accepts; they and what came before them stay in force,
            all else that it ever signed or signs is void. Empty: all of it is void.
    """

    node: Id
    signing_key: Key
    heads: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=HEADS_MAX)]


class Profile(Tuple, frozen=True, tag=3):
    """The issuer's own name, endpoints and will to relay from now on; the highest counter wins."""

    member: Member


class Name(Tuple, frozen=True, tag=4):
    """The group is called ``name``: a label as members have it. Only the founder can say so; its last word counts."""

    name: Annotated[str, msgspec.Meta(max_length=NAME_CHARS_MAX, pattern=NAME_PATTERN)]


class Gateway(Tuple, frozen=True, tag=5):
    """These members may serve guests under a key that they share, so that a guest need not know who serves it.

    Attributes:
        public_key: X25519 key, 32 bytes, that guests know as their one peer.
        shares: (node id, the private key sealed for that member); each is a fact, and none takes another back.
    """

    public_key: Key
    shares: Annotated[tuple[tuple[Id, Box], ...], msgspec.Meta(min_length=1, max_length=SHARES_MAX)]


class AdmitGuest(Tuple, frozen=True, tag=6):
    """A stock WireGuard client may reach the members by way of any member that has its gateway's key.

    Attributes:
        public_key: X25519 key of the client; its address follows from it as a member's does.
        gateway: The key that it was given as its peer.
        name: A label as members have it.
    """

    public_key: Key
    gateway: Key
    name: Annotated[str, msgspec.Meta(max_length=NAME_CHARS_MAX, pattern=NAME_PATTERN)]


class RemoveGuest(Tuple, frozen=True, tag=7):
    """The guest with this key may not, and never will again."""

    public_key: Key


Body = Admit | Remove | Profile | Name | Gateway | AdmitGuest | RemoveGuest


class Statement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One signed statement.

    Attributes:
        issuer: Ed25519 key of the member that says it.
        counter: 1, 2, 3... of this issuer. For ``Profile``: an own series, gaps allowed.
        previous: Digest of the issuer's statement with the counter before; empty for the first and for profiles.
        body: What it says.
        signature: 64 bytes.
    """

    issuer: Key
    counter: Serial
    previous: Annotated[bytes, msgspec.Meta(max_length=DIGEST_BYTES)]
    body: Body
    signature: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]

    @property
    def draft(self) -> "Draft":
        """The statement without its signature."""
        return Draft(self.issuer, self.counter, self.previous, self.body)


class Draft(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A statement that waits for its signature; the fields are those of ``Statement``."""

    issuer: Key
    counter: Serial
    previous: Annotated[bytes, msgspec.Meta(max_length=DIGEST_BYTES)]
    body: Body

    def payload(self, group: GroupId) -> bytes:
        """Return the bytes to sign."""
        return _encoder.encode((STATEMENT_DOMAIN, group, self.issuer, self.counter, self.previous, self.body))

    def with_signature(self, signature: bytes) -> Statement:
        """Return the finished statement; whether the signature is good is for ``verify`` to say."""
        return Statement(self.issuer, self.counter, self.previous, self.body, signature)


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[Statement]] = msgspec.msgpack.Decoder(Statement)


def digest_of(group: GroupId, statement: Statement) -> bytes:
    """Return the statement's name: 32 bytes of BLAKE2s over what is signed."""
    return blake2s(statement.draft.payload(group)).digest()


def signed(group: GroupId, draft: Draft, sign: Callable[[bytes], bytes]) -> Statement:
    """Return the draft with the signature that ``sign`` makes of its payload."""
    return draft.with_signature(sign(draft.payload(group)))


def verify(public_key: bytes, payload: bytes, signature: bytes) -> bool:
    """Tell whether this Ed25519 key signed these bytes. Never raises, whatever the key and the signature."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, payload)
    except (InvalidSignature, ValueError):
        return False
    return True


def encode_statement(statement: Statement) -> bytes:
    """Return the wire form, at most STATEMENT_BYTES_MAX bytes."""
    return _encoder.encode(statement)


def decode_statement(encoded: bytes) -> Statement:
    """Return the statement in these bytes; not yet verified.

    Raises:
        WireError: Too long, not MessagePack, wrong types or out of range. Nothing else.
    """
    if len(encoded) > STATEMENT_BYTES_MAX:
        raise WireError("statement too long")
    try:
        return _decoder.decode(encoded)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireError("statement does not decode") from error


@lru_cache(maxsize=4096)
def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix(TCP_PREFIX))
    except ValueError:
        return False
    return "%" not in host  # A scope id names an interface of one machine only.


def member_is_sound(member: Member) -> bool:
    """Tell whether a member record keeps the rules that its type cannot express.

    Records that were made here, and not decoded, have met no pattern yet, so the name is checked too. Each host must be
    a numeric address, with TCP_PREFIX or without, so that no peer can make us ask a resolver.
    """
    return _NAME.fullmatch(member.name) is not None and all(_is_host(host) for host, _ in member.endpoints)


def statement_is_sound(statement: Statement) -> bool:
    """Tell whether a decoded statement keeps the rules of its kind (all but signature and history)."""
    match statement.body:
        case Admit(member):
            sound = member_is_sound(member)
        case Profile(member):
            return member_is_sound(member) and statement.previous == b"" and member.signing_key == statement.issuer
        case Remove() | Gateway() | RemoveGuest():
            sound = True
        case Name(name) | AdmitGuest(_, _, name):
            sound = _NAME.fullmatch(name) is not None
    first = statement.counter == 1
    chained = len(statement.previous) == (0 if first else DIGEST_BYTES)
    return sound and chained and statement.counter <= ISSUER_STATEMENTS_MAX


def join_payload(invite_public_key: bytes, member: Member) -> bytes:
    """Return the bytes that a joiner signs to show that it holds the signing key of its record."""
    return _encoder.encode((JOIN_DOMAIN, invite_public_key, member))
