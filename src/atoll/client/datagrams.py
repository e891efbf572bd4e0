# SPDX-License-Identifier: Apache-2.0
"""Datagrams to any member and port, and the answers to them."""

import asyncio
from typing import Final, final

from atoll.base.errors import WireError
from atoll.conduit.forward_udp import PAYLOAD_BYTES_MAX
from atoll.conduit.stream import BrokenStreamError
from atoll.node.attached import Letter, framed, pack_letter, read_frame, unpack_letter

__all__ = ["DATAGRAM_BYTES_MAX", "Datagrams"]

DATAGRAM_BYTES_MAX: Final = PAYLOAD_BYTES_MAX

Address = tuple[str, int]
"""Node and port."""


@final
class Datagrams:
    """An endpoint. Nothing is acknowledged and nothing is resent, as with UDP.

    A service at a member's loopback port sees each endpoint as one local client. To *be* a service, bind an ordinary
    UDP socket to a port of the loopback: members reach it by this machine's name and that port.

    Args:
        frames: From the node.
        raw: To the node.
    """

    def __init__(self, frames: asyncio.StreamReader, raw: asyncio.StreamWriter) -> None:
        self._frames, self._raw = frames, raw

    def sendto(self, data: bytes, address: Address) -> None:
        """Send one datagram.

        Args:
            data: At most DATAGRAM_BYTES_MAX bytes.
            address: Name or overlay address of a member, this machine included, and a port from 1.

        Raises:
            ValueError: It is too long, or the port is out of range.
            ConnectionResetError: The endpoint is closed, or the node is gone.
        """
        if len(data) > DATAGRAM_BYTES_MAX:
            raise ValueError(f"a datagram of {len(data)} bytes; at most {DATAGRAM_BYTES_MAX} fit")
        if self._raw.is_closing():
            raise ConnectionResetError("the endpoint is closed")
        try:
            content = pack_letter(Letter(address[0], address[1], data))
        except WireError as error:
            raise ValueError(f"no address: {address}") from error
        self._raw.write(framed(content))

    async def drain(self) -> None:
        """Wait until most of what was sent has left this program."""
        await self._raw.drain()

    async def recvfrom(self) -> tuple[bytes, Address]:
        """Return the next answer and who sent it; only one task at a time.

        Raises:
            ConnectionResetError: The endpoint is closed, or the node is gone.
        """
        try:
            content = await read_frame(self._frames)
            if not content:
                raise ConnectionResetError("the endpoint is closed, or the node is gone")
            letter = unpack_letter(content)
        except (BrokenStreamError, WireError) as error:
            raise ConnectionResetError(str(error)) from error
        return letter.payload, (letter.host, letter.port)

    def close(self) -> None:
        """Close the endpoint."""
        self._raw.close()
