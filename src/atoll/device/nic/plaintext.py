# SPDX-License-Identifier: Apache-2.0
"""What is inside a data packet: an IPv6 packet or a control message, and how each is padded.

Normative text: docs/spec/relay.md, section 4. The first nibble tells them apart: 6 is IPv6, 9 is the MessagePack array
of a control message, 8 asks whether something arrives. IPv6 knows its own length, so WireGuard's zero padding
does; a control message carries its count, and says by which kind of way it was sent and how many data packets went that
way before it.
"""

from typing import Final

from atoll.base.errors import WireError
from atoll.device.nic.limits import PACKET_BYTES_MAX
from atoll.overlay.messages import CONTROL_BYTES_MAX

__all__ = [
    "BLOCK_BYTES",
    "CONTROL_NIBBLE",
    "IPV6_HEADER_BYTES",
    "IPV6_NIBBLE",
    "QUESTION_NIBBLE",
    "answer_to",
    "is_control",
    "is_packet",
    "is_whole",
    "pad_control",
    "pad_copied",
    "place_probe",
    "size_probe",
    "take_packet",
    "token_of",
    "unpad_control",
]

CONTROL_NIBBLE: Final = 9
IPV6_NIBBLE: Final = 6
QUESTION_NIBBLE: Final = 8
IPV6_HEADER_BYTES: Final = 40

BLOCK_BYTES: Final = 16
_COUNT_BYTES: Final = 4
_SIZE: Final = 0x80  # Spec. First byte of a question about a size ...
_PLACE: Final = 0x82  # Spec. ... and about a place.
_ANSWER: Final = 1  # Spec. Added to it in the answer.
_QUESTION_BYTES: Final = 3
_DIRECT: Final = 0x80  # Spec. Added to the last byte of what is sent directly.
_PADS: Final = tuple(
    tuple(bytes(size - 1) + bytes((size | mark,)) if size else b"" for size in range(BLOCK_BYTES + 1))
    for mark in (0, _DIRECT)
)


def is_control(payload: bytes) -> bool:
    """Return whether this can be sent as a control message."""
    return 1 <= len(payload) <= CONTROL_BYTES_MAX and payload[0] >> 4 == CONTROL_NIBBLE


def is_whole(packet: bytes) -> bool:
    """Return whether this is one IPv6 packet, no longer than any that is passed on; it has a header's bytes."""
    length = (packet[4] << 8 | packet[5]) + IPV6_HEADER_BYTES
    return length == len(packet) <= PACKET_BYTES_MAX and packet[0] >> 4 == IPV6_NIBBLE


def is_packet(packet: bytes, addresses: bytes) -> bool:
    """Return whether this is one whole IPv6 packet between these two addresses (source and destination, 32 bytes)."""
    return len(packet) >= IPV6_HEADER_BYTES and packet[8:40] == addresses and is_whole(packet)


def pad_control(payload: bytes, sent: int, *, direct: bool) -> bytes:
    """Return the plaintext of a control message.

    Args:
        payload: One for which ``is_control`` holds.
        sent: Data packets sent by the same way before it, modulo 2^32.
        direct: Whether it is sent directly, and not by a relay.
    """
    body = payload + sent.to_bytes(_COUNT_BYTES, "little")
    return body + _PADS[direct][BLOCK_BYTES - len(body) % BLOCK_BYTES]


def unpad_control(plaintext: bytes) -> tuple[bytes, int, bool]:
    """Return the control message in a plaintext whose first nibble is 9, as (payload, sent, direct).

    Raises:
        WireError: Not padded as ``pad_control`` does, or too long.
    """
    direct = plaintext[-1] >= _DIRECT
    size = plaintext[-1] & ~_DIRECT
    if len(plaintext) % BLOCK_BYTES or not 1 <= size <= BLOCK_BYTES or not plaintext.endswith(_PADS[direct][size]):
        raise WireError("control padding")
    end = len(plaintext) - size - _COUNT_BYTES
    if not 1 <= end <= CONTROL_BYTES_MAX:
        raise WireError("control length")
    return plaintext[:end], int.from_bytes(plaintext[end : end + _COUNT_BYTES], "little"), direct


def pad_copied(packet: bytes) -> bytes:
    """Return the plaintext of an IPv6 packet that goes by two ways: a block longer than it needs to be.

    Its receiver must not count it for a way: which of the two is faster is chance, and the other one is no loss.
    """
    return packet + bytes(BLOCK_BYTES + -len(packet) % BLOCK_BYTES)


def size_probe(size: int, token: int) -> bytes:
    """Return a plaintext as long as an inner packet of ``size`` bytes, which asks for an answer by the same way."""
    return (bytes((_SIZE,)) + token.to_bytes(2, "big")).ljust(size, b"\0")


def place_probe(token: int) -> bytes:
    """Return a plaintext that asks for an answer to where it came from."""
    return bytes((_PLACE,)) + token.to_bytes(2, "big")


def token_of(plaintext: bytes) -> int | None:
    """Return the token of a plaintext whose first nibble is 8; None: it is no question and no answer."""
    if len(plaintext) < _QUESTION_BYTES or plaintext[0] & ~_ANSWER not in (_SIZE, _PLACE):
        return None
    return plaintext[1] << 8 | plaintext[2]


def answer_to(plaintext: bytes) -> tuple[bytes | None, bool]:
    """Return the answer to a plaintext with a token, None if it is one itself; and whether a place was asked for."""
    is_place = plaintext[0] & ~_ANSWER == _PLACE
    if plaintext[0] & _ANSWER:
        return None, is_place
    return bytes((plaintext[0] | _ANSWER,)) + plaintext[1:_QUESTION_BYTES], is_place


def take_packet(plaintext: bytes) -> tuple[bytes, bool]:
    """Return the IPv6 packet in a plaintext whose first nibble is 6, without padding, and whether it went by two ways.

    Raises:
        WireError: Shorter than it says, or padded with two blocks or more.
    """
    if len(plaintext) < IPV6_HEADER_BYTES:
        raise WireError("packet length")
    length = (plaintext[4] << 8 | plaintext[5]) + IPV6_HEADER_BYTES
    if not length <= len(plaintext) < length + 2 * BLOCK_BYTES:
        raise WireError("packet length")
    return plaintext[:length], len(plaintext) >= length + BLOCK_BYTES
