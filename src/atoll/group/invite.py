# SPDX-License-Identifier: Apache-2.0
"""What an invitation says, and how it is written as text that a person can paste or read out. Pure.

The text is ``atoll1-`` and groups of four Crockford base32 digits. Its last four bytes are a checksum, so that a typing
error is found here and not by a time-out. From the secret an X25519 key pair follows (``invite_exchange_secret``): the
joiner opens an ordinary session as that key, so the inviter needs no second protocol for strangers.
Normative text: docs/spec/membership.md, section 7.
"""

import ipaddress
import struct
from hashlib import blake2s
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from atoll.base.errors import UsageError, UserError
from atoll.base.ids import KEY_BYTES, TCP_PREFIX, Endpoint, GroupId, PublicKey, is_tcp
from atoll.group.limits import INVITE_VALID_S, JOIN_CLOCK_SKEW_S

__all__ = [
    "GROUP_PREFIX_BYTES",
    "INVITE_ENDPOINTS_MAX",
    "INVITE_SECRET_BYTES",
    "Invitation",
    "check_usable",
    "decode_invitation",
    "encode_invitation",
    "invite_exchange_secret",
    "invite_public_key",
]

INVITE_SECRET_BYTES: Final = 16  # Spec. 128 bits: nobody guesses it in ten minutes, or ever.
GROUP_PREFIX_BYTES: Final = 8  # Spec.
INVITE_ENDPOINTS_MAX: Final = 4  # Spec. Each costs 11 or 30 digits of a text that people paste.
TEXT_PREFIX: Final = "ATOLL1"  # Spec. The digit is the version of the form.
TEXT_CHARS_MAX: Final = 400  # Longest good text: 252 digits and their dashes; more is not even looked at.
GROUP_CHARS: Final = 4
CHECKSUM_BYTES: Final = 4
_TCP: Final = 0x10  # Spec. Added to the version of an address that is reached over TCP.

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford: no I, L, O, U.
_VALUES: Final = {digit: value for value, digit in enumerate(_ALPHABET)} | {"O": 0, "I": 1, "L": 1}
_HEAD: Final = struct.Struct(f">I{GROUP_PREFIX_BYTES}s{INVITE_SECRET_BYTES}s{KEY_BYTES}sB")
_FIX: Final = "copy the whole line again, or make a new one with:  atoll invite"


class Invitation(msgspec.Struct, frozen=True):
    """What the joiner must know to reach the inviter. Holds a secret: never log it, never journal it.

    Attributes:
        secret: 16 bytes from the operating system's generator.
        inviter: X25519 key of the inviter, 32 bytes.
        endpoints: 1 to 4 numeric addresses of the inviter, best first.
        expires_s: Seconds since 1970, at most 10 minutes after it was issued.
        group_prefix: First 8 bytes of the group's id.
    """

    secret: bytes
    inviter: bytes
    endpoints: tuple[Endpoint, ...]
    expires_s: int
    group_prefix: bytes

    def __repr__(self) -> str:
        return f"Invitation(from {self.endpoints!r}, expires {self.expires_s})"


def invite_exchange_secret(secret: bytes) -> bytes:
    """Return the 32-byte X25519 secret that follows from an invitation's secret: for the joiner's packet device.

    Raises:
        UsageError: The secret is not 16 bytes.
    """
    if len(secret) != INVITE_SECRET_BYTES:
        raise UsageError(f"an invitation's secret of {len(secret)} bytes")
    return blake2s(b"x25519", key=secret, person=b"atollinv").digest()


def invite_public_key(secret: bytes) -> PublicKey:
    """Return the X25519 public key that the inviter admits for this invitation; may be journalled."""
    exchange = X25519PrivateKey.from_private_bytes(invite_exchange_secret(secret))
    return PublicKey(exchange.public_key().public_bytes_raw())


def encode_invitation(invitation: Invitation) -> str:
    """Return the text form.

    Raises:
        UsageError: A field has another size or range than documented, or a host is not numeric.
    """
    if not 1 <= len(invitation.endpoints) <= INVITE_ENDPOINTS_MAX:
        raise UsageError(f"an invitation with {len(invitation.endpoints)} endpoints")
    sizes = (len(invitation.group_prefix), len(invitation.secret), len(invitation.inviter))
    if sizes != (GROUP_PREFIX_BYTES, INVITE_SECRET_BYTES, KEY_BYTES):
        raise UsageError(f"an invitation with fields of {sizes} bytes")
    try:
        head = _HEAD.pack(
            invitation.expires_s,
            invitation.group_prefix,
            invitation.secret,
            invitation.inviter,
            len(invitation.endpoints),
        )
        body = head + b"".join(_packed(endpoint) for endpoint in invitation.endpoints)
    except (struct.error, ValueError) as error:
        raise UsageError(f"an invitation that cannot be written: {error}") from error
    digits = _to_base32(body + _checksum(body))
    groups = [digits[start : start + GROUP_CHARS] for start in range(0, len(digits), GROUP_CHARS)]
    return "-".join([TEXT_PREFIX.lower(), *groups])


def decode_invitation(text: str) -> Invitation:
    """Return the invitation in a text; case, spaces, dashes and line breaks do not matter.

    Raises:
        UserError: A201: it is no invitation, cut short, or has a typing error. Nothing else, whatever the text.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise _malformed("it is too long")
    digits = "".join(text.split()).replace("-", "").upper()
    if not digits.startswith(TEXT_PREFIX):
        raise _malformed(f"it does not start with {TEXT_PREFIX.lower()}-")
    data = _from_base32(digits[len(TEXT_PREFIX) :])
    body, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if len(body) <= _HEAD.size or _checksum(body) != checksum:
        raise _malformed("its checksum does not match: a character is wrong or missing")
    expires_s, group_prefix, secret, inviter, count = _HEAD.unpack_from(body)
    endpoints = _endpoints(body[_HEAD.size :])
    if len(endpoints) != count or not 1 <= count <= INVITE_ENDPOINTS_MAX:
        raise _malformed("its addresses do not decode")
    return Invitation(secret, inviter, endpoints, expires_s, group_prefix)


def check_usable(invitation: Invitation, *, now_s: int, group: GroupId | None) -> None:
    """Refuse, before any packet is sent, an invitation that cannot work here.

    Args:
        invitation: The decoded text.
        now_s: This machine's wall clock. Five minutes of error are forgiven: the inviter has the last word.
        group: The group that this node is in already; None: in none.

    Raises:
        UserError: A202 a member of another group; A203 expired.
    """
    if group is not None and group[:GROUP_PREFIX_BYTES] != invitation.group_prefix:
        raise UserError(
            "A202",
            "this node is a member of another group",
            where=f"group here {group[:4].hex()}, group of the invitation {invitation.group_prefix[:4].hex()}",
            fix="use another state directory with  --state DIR  for the second group",
        )
    late_s = now_s - invitation.expires_s
    if late_s > JOIN_CLOCK_SKEW_S:
        host, port = invitation.endpoints[0]
        raise UserError(
            "A203",
            f"this invitation expired {_ago(late_s)} ago",
            where=f"invitation from {host} port {port}, valid {INVITE_VALID_S // 60} min",
            fix="on the inviting machine run:  atoll invite  and paste the new line here",
        )


def _ago(seconds: int) -> str:
    """Return a span of at least a minute in its largest whole unit."""
    unit_s, unit = next(((u, n) for u, n in ((86_400, "day"), (3_600, "hour")) if seconds >= u), (60, "minute"))
    count = seconds // unit_s
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def _malformed(reason: str) -> UserError:
    # The text is not repeated: it may hold a good secret but for one character.
    return UserError("A201", "this is not a whole invitation", where=reason, fix=_FIX)


def _checksum(body: bytes) -> bytes:
    return blake2s(body, digest_size=CHECKSUM_BYTES, person=b"atollchk").digest()


def _packed(endpoint: Endpoint) -> bytes:
    address = ipaddress.ip_address(endpoint[0].removeprefix(TCP_PREFIX))
    kind = address.version | (_TCP if is_tcp(endpoint) else 0)
    return bytes([kind]) + address.packed + struct.pack(">H", endpoint[1])


def _endpoints(data: bytes) -> tuple[Endpoint, ...]:
    found: list[Endpoint] = []
    while data and data[0] & ~_TCP in (4, 6):  # Each turn takes 7 or 19 bytes.
        size = 4 if data[0] & ~_TCP == 4 else 16
        prefix = TCP_PREFIX if data[0] & _TCP else ""
        address, port = data[1 : 1 + size], data[1 + size : 3 + size]
        if len(port) != 2 or port == b"\x00\x00":
            return ()
        found.append((prefix + str(ipaddress.ip_address(address)), int.from_bytes(port, "big")))
        data = data[3 + size :]
    return () if data else tuple(found)


def _to_base32(data: bytes) -> str:
    count = -(-len(data) * 8 // 5)
    number = int.from_bytes(data, "big") << (count * 5 - len(data) * 8)
    return "".join(_ALPHABET[(number >> 5 * (count - 1 - index)) & 31] for index in range(count))


def _from_base32(digits: str) -> bytes:
    number = 0
    for index, digit in enumerate(digits):
        value = _VALUES.get(digit)
        if value is None:
            raise _malformed(f"character {index + 1} after the prefix cannot occur")
        number = number << 5 | value
    size = len(digits) * 5 // 8
    spare = len(digits) * 5 - size * 8
    if number & ((1 << spare) - 1) or spare >= 5:
        raise _malformed("it is cut short, or a character is wrong at its end")
    return (number >> spare).to_bytes(size, "big")
