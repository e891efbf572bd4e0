# SPDX-License-Identifier: Apache-2.0
"""What is inside a data packet: an IPv6 packet or a control message, and how each is padded.

Normative text: docs/spec/relay.md, section 4. The first nibble tells them apart: 6 is IPv6, 9 is the MessagePack array
of a control message. IPv6 knows its own length, so WireGuard's zero padding does; a control message carries its count.
"""

from typing import Final

from atoll.base.errors import WireError
from atoll.device.nic.limits import PACKET_BYTES_MAX
from atoll.overlay.messages import CONTROL_BYTES_MAX

__all__ = ["CONTROL_NIBBLE", "IPV6_NIBBLE", "is_control", "is_packet", "pad_control", "take_packet", "unpad_control"]

CONTROL_NIBBLE: Final = 9
IPV6_NIBBLE: Final = 6
IPV6_HEADER_BYTES: Final = 40

_BLOCK_BYTES: Final = 16
_PADS: Final = tuple(bytes(size - 1) + bytes((size,)) if size else b"" for size in range(_BLOCK_BYTES + 1))


def is_control(payload: bytes) -> bool:
    """Return whether this can be sent as a control message."""
    return 1 <= len(payload) <= CONTROL_BYTES_MAX and payload[0] >> 4 == CONTROL_NIBBLE


def is_packet(packet: bytes, addresses: bytes) -> bool:
    """Return whether this is one whole IPv6 packet between these two addresses (source and destination, 32 bytes)."""
    return (
        IPV6_HEADER_BYTES <= len(packet) <= PACKET_BYTES_MAX
        and packet[0] >> 4 == IPV6_NIBBLE
        and packet[8:40] == addresses
        and (packet[4] << 8 | packet[5]) + IPV6_HEADER_BYTES == len(packet)
    )


def pad_control(payload: bytes) -> bytes:
    """Return the plaintext of a control message: 1 to 16 bytes more, the last of which is their count."""
    return payload + _PADS[_BLOCK_BYTES - len(payload) % _BLOCK_BYTES]


def unpad_control(plaintext: bytes) -> bytes:
    """Return the control message in a plaintext whose first nibble is 9.

    Raises:
        WireError: Not padded as ``pad_control`` does, or too long.
    """
    count = plaintext[-1]
    if len(plaintext) % _BLOCK_BYTES or not 1 <= count <= _BLOCK_BYTES or not plaintext.endswith(_PADS[count]):
        raise WireError("control padding")
    if not 1 <= len(plaintext) - count <= CONTROL_BYTES_MAX:
        raise WireError("control length")
    return plaintext[:-count]


def take_packet(plaintext: bytes, addresses: bytes) -> bytes:
    """Return the IPv6 packet in a plaintext whose first nibble is 6, without padding.

    Raises:
        WireError: Shorter than it says, padded with a block or more, or between other addresses.
    """
    if len(plaintext) < IPV6_HEADER_BYTES:
        raise WireError("packet length")
    length = (plaintext[4] << 8 | plaintext[5]) + IPV6_HEADER_BYTES
    if not length <= len(plaintext) < length + _BLOCK_BYTES:
        raise WireError("packet length")
    if plaintext[8:40] != addresses:
        raise WireError("packet addresses")
    return plaintext[:length]
