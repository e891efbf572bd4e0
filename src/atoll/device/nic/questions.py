# SPDX-License-Identifier: Apache-2.0
"""Asks whether something arrives, and answers that: packets of a size, for control; and whether UDP passes again.

Both are data packets of their own kind, under the session's seal. A question about a place is answered to where it came
from, whatever else is known of the peer: so an answer from the place that was asked proves it in both directions.
Normative text: docs/spec/relay.md, section 4.
"""

from collections.abc import Callable
from typing import Final, final

from atoll.base.ids import DIRECT, Endpoint
from atoll.device.nic.counters import Counters
from atoll.device.nic.messages import Report
from atoll.device.nic.outlet import Outlet
from atoll.device.nic.peers import Peer
from atoll.device.nic.plaintext import answer_to, place_probe, size_probe, token_of
from atoll.device.nic.relay import Arrival
from atoll.overlay.orders import ProbeSize
from atoll.overlay.reports import SizePassed
from atoll.overlay.sizes import BASE_BYTES, LARGEST_BYTES

__all__ = ["Questions"]

_TOKENS: Final = 1 << 16
Seal = Callable[[Peer, bytes], bytes | None]


@final
class Questions:
    """Both kinds, for all peers.

    Args:
        by_key: All peers by public key, kept by the engine.
        seal: Seals a plaintext for a peer as of now; None: there is no session.
        outlet: The way out.
        counters: Drops are counted here.
        reports: Where answers about sizes go.
    """

    __slots__ = ("_by_key", "_counters", "_outlet", "_reports", "_seal", "_token")

    def __init__(
        self, by_key: dict[bytes, Peer], seal: Seal, outlet: Outlet, counters: Counters, reports: list[Report]
    ) -> None:
        self._by_key, self._seal, self._outlet = by_key, seal, outlet
        self._counters, self._reports = counters, reports
        self._token = 0

    def ask_size(self, peer: Peer | None, order: ProbeSize) -> None:
        """Obey an order; an impossible one is dropped and counted."""
        if peer is None or not BASE_BYTES <= order.size <= LARGEST_BYTES or not 0 <= order.token < _TOKENS:
            self._counters.drop("order-refused")
            return
        sealed = self._seal(peer, size_probe(order.size, order.token))
        if sealed is not None:
            self._outlet.send(peer, order.via, sealed)

    def ask_places(self) -> None:
        """Try one place over UDP of each peer to which we send over TCP."""
        for peer in self._by_key.values():
            place = peer.where.trial() if peer.up and peer.where.is_carried else None
            if place is None:
                continue
            self._token = (self._token + 1) % _TOKENS
            sealed = self._seal(peer, place_probe(self._token))
            if sealed is not None:
                peer.tried = (place, self._token)
                self._outlet.emit(place, sealed)

    def take(self, peer: Peer, plaintext: bytes, source: Endpoint, arrival: Arrival | None, now_ns: int) -> None:
        """Take a plaintext whose first nibble is 8: answer it, or use the answer."""
        token = token_of(plaintext)
        if token is None:
            self._counters.drop("packet-malformed")
            return
        answer, is_place = answer_to(plaintext)
        if answer is not None:
            sealed = self._seal(peer, answer)
            if sealed is None:
                return
            if not is_place:
                via = DIRECT if arrival is None else arrival.relay
                self._outlet.send(peer, via if via == DIRECT or via in peer.transmit else peer.route(0)[0], sealed)
            elif arrival is None:
                self._outlet.emit(source, sealed)
        elif not is_place:
            self._reports.append(SizePassed(peer.node, token))
        elif arrival is None and peer.tried == (source, token):
            peer.tried = None
            self._outlet.note_place(peer, news=peer.where.passed(source), now_ns=now_ns)
