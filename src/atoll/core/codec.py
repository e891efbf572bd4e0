# SPDX-License-Identifier: Apache-2.0
"""What is a well-formed message: bytes of one closed union of tuples, within one bound, and nothing else.

A codec is the only place where foreign bytes become typed values, so it must be total: whatever the bytes, ``decode``
returns a value of the union or raises ``WireError``. MessagePack headers that announce more items than there are bytes
cost nothing, because msgspec grows its lists as items come and never by the announced count.
"""

from typing import Any, Final, Generic, TypeVar, final

import msgspec

from atoll.base.errors import UsageError, WireError

__all__ = ["Codec"]

T = TypeVar("T")

_encoder: Final = msgspec.msgpack.Encoder()


@final
class Codec(Generic[T]):
    """Encode and decode one closed union of tuples.

    Args:
        union: The type to decode: a ``Tuple`` class, or a union of them with distinct tags.
        bytes_max: Longest encoding, bytes; at least 1. Longer input is refused unread.
        name: What the union is called in errors, such as ``control message``; stable, because it labels counters.
    """

    __slots__ = ("_decoder", "bytes_max", "name")

    def __init__(self, union: Any, *, bytes_max: int, name: str) -> None:
        if bytes_max < 1:
            raise UsageError(f"a codec for {name} of {bytes_max} bytes")
        self.bytes_max: Final = bytes_max
        self.name: Final = name
        self._decoder: Final[msgspec.msgpack.Decoder[T]] = msgspec.msgpack.Decoder(union)

    def encode(self, value: T) -> bytes:
        """Return the encoding of a value, 1 to ``bytes_max`` bytes.

        Raises:
            UsageError: The value is not of the union's field types, or too long. A bug of the caller, never a peer's.
        """
        try:
            payload = _encoder.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise UsageError(f"{self.name} {type(value).__name__} does not encode: {error}") from error
        if len(payload) > self.bytes_max:
            raise UsageError(f"{self.name} {type(value).__name__} of {len(payload)} bytes, at most {self.bytes_max}")
        return payload

    def decode(self, payload: bytes | bytearray | memoryview) -> T:
        """Return the value in these bytes, which must be one whole encoding.

        Raises:
            WireError: Too long, not MessagePack, cut, followed by more, unknown tag, wrong type or out of range.
                The caller drops the input and counts it under ``reason``. Nothing else is ever raised.
        """
        if len(payload) > self.bytes_max:
            raise WireError(f"{self.name} too long")
        try:
            return self._decoder.decode(payload)
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
            # UnicodeDecodeError is a ValueError. A decode hook or a __post_init__ may raise the other kinds.
            raise WireError(f"{self.name} does not decode") from error
