# SPDX-License-Identifier: Apache-2.0
"""Atoll makes a few machines, far apart and not all to be trusted, behave like one dependable computer.

Start with ``atoll demo`` on the command line. The rooms of the code and who may know whom are in ARCHITECTURE.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from atoll.base.version import __version__

if TYPE_CHECKING:
    from atoll.client import CallError, join
    from atoll.env import (
        App,
        Asker,
        Context,
        Done,
        Failure,
        LeaseLost,
        Matched,
        Matches,
        Moved,
        Operation,
        PeerSlow,
        Placed,
        Put,
        QueueFull,
        Read,
        Ref,
        Renew,
        Request,
        Resolved,
        Restored,
        Started,
        Take,
        Tuple,
        Unwatch,
        Watch,
        Watching,
        field,
        intercept,
        migration,
        on,
        where,
    )

__all__ = [
    "App",
    "Asker",
    "CallError",
    "Context",
    "Done",
    "Failure",
    "LeaseLost",
    "Matched",
    "Matches",
    "Moved",
    "Operation",
    "PeerSlow",
    "Placed",
    "Put",
    "QueueFull",
    "Read",
    "Ref",
    "Renew",
    "Request",
    "Resolved",
    "Restored",
    "Started",
    "Take",
    "Tuple",
    "Unwatch",
    "Watch",
    "Watching",
    "__version__",
    "field",
    "intercept",
    "join",
    "migration",
    "on",
    "where",
]


def __getattr__(name: str) -> object:
    """Load the Python interface when it is asked for: commands need not pay for it (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'atoll' has no attribute {name!r}")
    room = "atoll.client" if name in {"CallError", "join"} else "atoll.env"
    found: object = getattr(import_module(room), name)
    globals()[name] = found  # Handlers ask for these again and again.
    return found
