# SPDX-License-Identifier: Apache-2.0
"""What the operating system says of a machine's load: a value that ``host/pressure.py`` makes and machines are fed."""

from typing import Final

from atoll.core.machine import Tuple

__all__ = ["SHARE_ONE", "Reading"]

SHARE_ONE: Final = 10_000
"""A share of everything. Shares are integers, because what machines are fed is."""


class Reading(Tuple, frozen=True):
    """A machine's load since its reading before. None: this machine does not tell it, or there was no reading before.

    Shares are 0 to SHARE_ONE, of the time since the reading before unless something else is said.

    Attributes:
        busy_share: Of all processors' time, in which they ran something of this machine.
        stolen_share: Of all processors' time, in which they had something to run and the hypervisor did not let them.
        own_share: Processor time of this process and those that it named, of one processor's: with several it may be
            above SHARE_ONE.
        waiting_share: At least one task was ready and waited for a processor.
        memory_share: At least one task waited for memory: it was being reclaimed, or read back from disk.
        io_share: At least one task waited for a disk.
        throttled_share: This process's control group, or one around it, was held back because its quota was used up;
            of several processors the sum, at most SHARE_ONE.
        nic_errors: Packets that network cards dropped or found damaged. A count. Only interfaces with a device behind
            them are cards, as a virtual machine's are (virtio) and a container's is not (veth): there it is None. What
            tunnels, bridges and ``lo`` drop, our own TUN device too, programs of this machine caused.
    """

    busy_share: int | None = None
    stolen_share: int | None = None
    own_share: int | None = None
    waiting_share: int | None = None
    memory_share: int | None = None
    io_share: int | None = None
    throttled_share: int | None = None
    nic_errors: int | None = None
