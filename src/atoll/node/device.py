# SPDX-License-Identifier: Apache-2.0
"""What a node's packet device is told when it starts, what it said of itself then, and whether it is worth another try.

Who starts it again and gives it its tables is the node (``service.py``).
"""

from typing import Final, Protocol, final

from atoll.base.errors import UserError
from atoll.base.ids import Endpoint, GroupId, is_tcp
from atoll.base.units import SECOND_NS
from atoll.device.nic.limits import OUTLIVES_NS
from atoll.device.nic.messages import Configure, Listening
from atoll.group.identity import Identity
from atoll.node.addresses import listed_text

__all__ = ["RESTARTS_MAX", "RESTARTS_NS", "Device", "Nic", "started"]

RESTARTS_MAX: Final = 5  # Limit. Within RESTARTS_NS; a device that dies faster will not live by trying.
RESTARTS_NS: Final = 60 * SECOND_NS
NOBODY: Final = 65_534  # What the packet device becomes when it was started as root.


class Nic(Protocol):
    """The process, of which only the start is meant here: ``NicClient``."""

    async def start(self, configure: Configure) -> Listening:
        """Start it, or start it again; return its first report.

        Raises:
            LinkError: It did not come up.
        """
        ...


async def started(nic: Nic, configure: Configure) -> Listening:
    """Start a packet device; return where it listens, and what it can.

    Raises:
        UserError: A105, an address cannot be had.
        LinkError: The process did not come up.
    """
    told = await nic.start(configure)
    if not told.error:
        return told
    where = listed_text(tuple(endpoint for endpoint in configure.listen if not is_tcp(endpoint)))
    if told.error == "EADDRINUSE":
        raise UserError(
            "A105",
            f"the port is in use: {where}",
            where=told.error,
            fix="end the program that has it, or choose another one: --listen HOST:PORT",
        )
    raise UserError(
        "A105",
        f"cannot listen on {where}",
        where=told.error,
        fix="choose an address of this machine: --listen HOST:PORT",
    )


@final
class Device:
    """A node's packet device, through all of its lives.

    Args:
        nic: Its process.
        group: Of the node.
        identity: Of the node.
        relay_bytes_s: Budget for forwarding, bytes per second.
        stamp_ns: The last handshake timestamp known to be used, ns since 1970; 0: none.

    Attributes:
        told: What it said of itself at its last start.
    """

    def __init__(self, nic: Nic, group: GroupId, identity: Identity, *, relay_bytes_s: int, stamp_ns: int) -> None:
        self._nic, self._group, self._identity, self._relay_bytes_s = nic, group, identity, relay_bytes_s
        self._stamp_ns = stamp_ns
        self._deaths_ns: list[int] = []
        self.told = Listening(())

    async def start(self, listen: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """Start it; return where it listens.

        Raises:
            UserError: A105, an address cannot be had.
            LinkError: The process did not come up.
        """
        configure = Configure(
            self._group,
            self._identity.exchange_secret,
            listen,
            wall_floor_ns=self._stamp_ns,  # Not from the disk: it may be behind, and this device's elder was not.
            relay_bytes_s=self._relay_bytes_s,
            run_as_uid=NOBODY,
            outlives_ns=OUTLIVES_NS,
        )
        self.told = await started(self._nic, configure)
        return self.told.endpoints

    def reserved(self, wall_ns: int) -> int:
        """Note a handshake timestamp, which it reserves half a minute ahead of its use; return the newest one."""
        self._stamp_ns = max(self._stamp_ns, wall_ns)
        return self._stamp_ns

    def ended(self, now_ns: int) -> bool:
        """Note that it ended by itself; return whether it is worth starting again."""
        self._deaths_ns = [at_ns for at_ns in self._deaths_ns if now_ns - at_ns < RESTARTS_NS] + [now_ns]
        return len(self._deaths_ns) <= RESTARTS_MAX

    def text(self, offloads: str) -> str:
        """Return what it uses of this machine, and what it goes without, for people.

        Args:
            offloads: The same of the TUN device.
        """
        told = self.told
        return ", ".join(
            (
                offloads,
                "bursts" if told.bursts else "one datagram at a time",
                "AES-256-GCM" if told.aes else "ChaCha20-Poly1305",
                "compiled" if told.translated else "bursts compiled" if told.compiled else "not compiled",
            )
        )

    def warnings(self) -> tuple[str, ...]:
        """Return what of it does not work, for people; at most one."""
        missing = listed_text(self.told.missing)
        text = f"{missing} cannot be had: members whose networks let only TCP through cannot call this machine there"
        return (text,) if missing else ()
