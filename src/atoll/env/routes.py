# SPDX-License-Identifier: Apache-2.0
"""Where clients are: in a session of this node, or behind another node from which something of them came."""

from collections import OrderedDict
from typing import Final, final

from atoll.base.ids import NodeId
from atoll.env.limits import ROUTES_MAX

__all__ = ["Routes"]


@final
class Routes:
    """The clients that one node knows of. State only."""

    def __init__(self) -> None:
        self._sessions: Final[dict[bytes, int]] = {}
        self._nodes: Final[OrderedDict[bytes, NodeId]] = OrderedDict()

    def attach(self, party: bytes, session: int) -> None:
        """Note that a client is here."""
        self._sessions[party] = session

    def detach(self, party: bytes, session: int) -> None:
        """Note that a client is gone, unless it has come back by another session."""
        if self._sessions.get(party) == session:
            del self._sessions[party]

    def session(self, party: bytes) -> int | None:
        """Return the session of a client that is here; None: it is not."""
        return self._sessions.get(party)

    def learn(self, party: bytes, node: NodeId, *, is_passed_on: bool) -> None:
        """Note that something of a client came from a node; who passes it on is better than nobody."""
        if is_passed_on and party in self._nodes:
            return
        self._nodes[party] = node
        self._nodes.move_to_end(party)
        if len(self._nodes) > ROUTES_MAX:
            self._nodes.popitem(last=False)

    def node(self, party: bytes) -> NodeId | None:
        """Return behind which other node a client is; None: it is not known."""
        return self._nodes.get(party)
