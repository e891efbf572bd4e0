# SPDX-License-Identifier: Apache-2.0
"""What members say to each other of what is slow, inside sessions only. Normative text: docs/spec/control.md.

One message holds all that its sender has to tell, of itself and of what it measured at others; it replaces whatever the
sender told before. Tags 64 to 71, in the frame of ``overlay/messages.py``.
"""

from typing import Annotated, Final

import msgspec

from atoll.base.ids import NODE_ID_BYTES
from atoll.core.codec import Codec
from atoll.core.machine import Tuple

__all__ = ["AILMENTS_MAX", "HEALTH_TAGS", "Ailment", "Ailments", "decode_ailments", "encode_ailments"]

HEALTH_TAGS: Final = range(64, 72)
BYTES_MAX: Final = 1200  # Spec. As every control message.
AILMENTS_MAX: Final = 16  # Spec. Each takes at most 64 bytes.

U63 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
Id = Annotated[bytes, msgspec.Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]
What = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9_.:/-]{0,31}\Z")]


class Ailment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One performance fault that lasts.

    Attributes:
        of: Whose: the sender's own id, or that of a member that it measured.
        what: The component: cpu, memory, disk, loop, seen, of others link and answers; or what a program reports.
        failed: Whether it lasted so long that the sender takes it for a failure.
        age_s: How long it has lasted.
        usual_us: What is usual, microseconds.
        newest_us: What it is now.
    """

    of: Id
    what: What
    failed: bool
    age_s: U32
    usual_us: U32
    newest_us: U32


class Ailments(Tuple, frozen=True, tag=64):
    """All that the sender tells now.

    Attributes:
        boot: A number that the sender has anew each time it starts.
        sequence: Rises with each message of one life; one that does not is a late packet.
        ailments: Absolute: it replaces what was told before.
    """

    boot: U63
    sequence: U32
    ailments: Annotated[tuple[Ailment, ...], msgspec.Meta(max_length=AILMENTS_MAX)]


_codec: Final = Codec[Ailments](Ailments, bytes_max=BYTES_MAX, name="health message")


def encode_ailments(message: Ailments) -> bytes:
    """Return the message's bytes."""
    return _codec.encode(message)


def decode_ailments(payload: bytes) -> Ailments:
    """Return the message in these bytes.

    Raises:
        WireError: It does not decode. Nothing else.
    """
    return _codec.decode(payload)
