# SPDX-License-Identifier: Apache-2.0
"""Programs that move, survive and replay: what an environment is, who owns it, and what its past looks like.

Decides what a user's handlers see and what becomes of what they ask for (``environment``, ``runner``), what is in a
journal that its writer could not alter later (``chain``), which node may run an environment (``holding``), what goes
to whom (``steward``), and which tuples match (``query``). Its names are what authors of applications import from
``atoll``.
"""

from atoll.env.app import App, intercept, migration, on
from atoll.env.changes import (
    Done,
    Failure,
    LeaseLost,
    Matched,
    Matches,
    Moved,
    PeerSlow,
    Placed,
    Put,
    Read,
    Renew,
    Request,
    Resolved,
    Restored,
    Started,
    Take,
    Unwatch,
    Watch,
    Watching,
)
from atoll.env.context import Asker, Context, Operation, QueueFull
from atoll.env.parties import Ref
from atoll.env.query import field, where
from atoll.env.tuples import Tuple

__all__ = [
    "App",
    "Asker",
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
    "field",
    "intercept",
    "migration",
    "on",
    "where",
]
