# SPDX-License-Identifier: Apache-2.0
"""Living with what is slow: queues that are pulled, readers and writers that follow the rates, hedged requests."""

from atoll.adapt.graduated import GraduatedReader
from atoll.adapt.hedge import Hedge
from atoll.adapt.queue import DistributedQueue
from atoll.adapt.striped import ADAPTIVE, EQUAL, Measured, StripedWriter, read_striped
from atoll.adapt.watched import Watched

__all__ = [
    "ADAPTIVE",
    "EQUAL",
    "DistributedQueue",
    "GraduatedReader",
    "Hedge",
    "Measured",
    "StripedWriter",
    "Watched",
    "read_striped",
]
