# SPDX-License-Identifier: Apache-2.0
"""How a connection over kernel TCP begins: what the opener says first, and what it is answered.

The opener's first bytes are the header of a stream, the policy tag, and the acceptor's key for this opener. The
acceptor's first byte is its verdict, as in a stream. Normative text: docs/spec/streams.md.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from atoll.base.errors import WireError
from atoll.conduit.stream import HEADER_BYTES, Kind, Service
from atoll.overlay.policy import TAGS_MAX

__all__ = ["INNER_KEY_BYTES", "OPENING_BYTES", "TCP_PORT", "Opening"]

TCP_PORT: Final = 4432  # Spec. Inner TCP port on which connections of members are accepted.
INNER_KEY_BYTES: Final = 16  # Spec.

_REST: Final = Struct(f">B{INNER_KEY_BYTES}s")
OPENING_BYTES: Final = HEADER_BYTES + _REST.size


@dataclass(frozen=True, slots=True)
class Opening:
    """What the opener asks for.

    Attributes:
        port: Of the acceptor's loopback.
        tag: Policy tag, in both directions.
        key: What the acceptor told this opener in an answer; shows that the node itself opens, and not just any program
            of its machine.
    """

    port: int
    tag: int
    key: bytes

    def encode(self) -> bytes:
        """Return the opening, OPENING_BYTES of it."""
        return Service(Kind.TCP, self.port).encode() + _REST.pack(self.tag, self.key)

    @classmethod
    def decode(cls, data: bytes) -> "Opening":
        """Return the opening in OPENING_BYTES bytes.

        Raises:
            WireError: Another version, another kind than a connection, or no tag.
        """
        if len(data) != OPENING_BYTES:
            raise WireError("opening length")
        service = Service.decode(data[:HEADER_BYTES])
        tag, key = _REST.unpack_from(data, HEADER_BYTES)
        if service.kind is not Kind.TCP or tag >= TAGS_MAX:
            raise WireError("opening")
        return cls(service.port, tag, key)
