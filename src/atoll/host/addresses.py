# SPDX-License-Identifier: Apache-2.0
"""At which addresses of this machine others may reach it."""

import ipaddress
import socket
from contextlib import suppress
from typing import Final

from atoll.base.ids import Endpoint

__all__ = ["reachable_endpoints"]

# Addresses that the RFCs keep for documentation (5737, 3849): choosing a route to them sends nothing.
_FAR: Final = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
_DISCARD_PORT: Final = 9


def reachable_endpoints(bound: Endpoint) -> tuple[Endpoint, ...]:
    """Return where others may reach a UDP socket bound to a numeric address.

    Returns:
        The address itself; for an unspecified one (``0.0.0.0``, ``::``) the address from which this machine would
        call out, or nothing where there is no route.
    """
    host, port = bound
    if not ipaddress.ip_address(host).is_unspecified:
        return (bound,)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((_FAR[family], _DISCARD_PORT))
        return ((str(probe.getsockname()[0]), port),)
    return ()
