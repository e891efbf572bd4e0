# SPDX-License-Identifier: Apache-2.0
"""Connections over TCP to peers that no datagram reaches: which there are, and when they end.

The engine knows such a connection as an endpoint like any other, whose host begins with ``tcp/``. Sending to one that
is not there dials it. Whoever calls us is a stranger until something authentic came over its connection, which the
engine shows by using it; strangers are few and have little time, and a new one takes the place of the oldest. A
connection that no peer uses any more is closed.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final, final

from atoll.base.errors import LinkError
from atoll.base.ids import Endpoint
from atoll.base.ports import Clock
from atoll.base.units import SECOND_NS
from atoll.device.nic.engine import Engine
from atoll.device.nic.limits import (
    ACCEPTS_PER_TURN_MAX,
    CARRIERS_MAX,
    DIAL_NS,
    DIALS_REMEMBERED_MAX,
    REDIAL_NS_MAX,
    REDIAL_NS_MIN,
    STRANGERS_MAX,
    UNUSED_NS,
)
from atoll.host.poller import READ, WRITE, Poller
from atoll.host.tcp import TcpListener, TcpStream
from atoll.host.udp import Sent

__all__ = ["Carriers"]

NEVER_NS: Final = 1 << 63
_SWEEP_NS: Final = SECOND_NS


class _Carrier:
    """One connection.

    Attributes:
        stream: It.
        used_ns: When a peer last used it; at first, when it began.
        is_known: Whether a peer ever did.
        events: What the poller watches for.
    """

    __slots__ = ("events", "is_known", "stream", "used_ns")

    def __init__(self, stream: TcpStream, now_ns: int) -> None:
        self.stream: Final = stream
        self.used_ns = now_ns
        self.is_known = False
        self.events = 0


@final
class Carriers:
    """All connections of one packet device.

    Args:
        listeners: For callers; closed with the rest.
        poller: Told what to watch.
        engine: Takes what comes.
        clock: Time.

    Attributes:
        deadline_ns: When ``tick`` is owed.
    """

    def __init__(self, listeners: Sequence[TcpListener], poller: Poller, engine: Engine, clock: Clock) -> None:
        self._listeners, self._poller, self._engine, self._clock = listeners, poller, engine, clock
        self._carriers: Final[dict[Endpoint, _Carrier]] = {}
        self._redial: Final[dict[Endpoint, tuple[int, int]]] = {}  # (when it may be dialled again, the pause then).
        self._reading = False
        self.deadline_ns = NEVER_NS

    def read(self, *, wanted: bool) -> None:
        """Listen to the network, or not while control is too slow."""
        self._reading = wanted
        for listener in self._listeners:
            if wanted:
                self._poller.register(listener.fileno(), partial(self._accept, listener))
            else:
                self._poller.unregister(listener.fileno())
        for carrier in self._carriers.values():
            self._watch(carrier)

    def send(self, endpoint: Endpoint, data: bytes | memoryview, size: int, now_ns: int) -> Sent:
        """Send datagrams that stand back to back; what is not connected is dialled, and they wait for that."""
        carrier = self._carriers.get(endpoint) or self._dial(endpoint, now_ns)
        if carrier is None:
            return Sent.REFUSED
        sent = carrier.stream.send(data, size)
        self._watch(carrier)
        return sent

    def _accept(self, listener: TcpListener, _: int) -> None:
        now_ns = self._clock.monotonic_ns()
        for _ in range(ACCEPTS_PER_TURN_MAX):
            stream = listener.accept()
            if stream is None:
                return
            strangers = [one for one in self._carriers.values() if not one.is_known and not self._is_used(one)]
            if len(strangers) >= STRANGERS_MAX:
                self._end(strangers[0])
                self._engine.counters.drop("tcp-stranger")
            if len(self._carriers) >= CARRIERS_MAX:
                stream.close()
                self._engine.counters.drop("tcp-overflow")
                continue
            self._add(_Carrier(stream, now_ns), now_ns)

    def _serve(self, carrier: _Carrier, mask: int) -> None:
        stream = carrier.stream
        if self._carriers.get(stream.endpoint) is not carrier:  # It ended in this turn.
            return
        now_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
        try:
            if mask & WRITE:
                stream.flush()
            if mask & READ:
                for datagram in stream.receive():
                    self._engine.receive(datagram, stream.endpoint, now_ns, wall_ns)
        except LinkError:
            self._end(carrier)
            self._engine.counters.drop("tcp-ended", carrier.is_known)
        else:
            self._watch(carrier)

    def tick(self, now_ns: int) -> None:
        """End what nobody uses, and what does not come about."""
        if now_ns < self.deadline_ns:
            return
        for carrier in tuple(self._carriers.values()):
            if self._is_used(carrier):
                carrier.used_ns, carrier.is_known = now_ns, True
                self._redial.pop(carrier.stream.endpoint, None)
            wait_ns = UNUSED_NS if carrier.stream.is_connected else DIAL_NS
            if now_ns - carrier.used_ns >= wait_ns:
                self._end(carrier)
        self.deadline_ns = now_ns + _SWEEP_NS if self._carriers else NEVER_NS

    def close(self) -> None:
        """End everything."""
        for carrier in self._carriers.values():
            carrier.stream.close()
        for listener in self._listeners:
            listener.close()

    def _is_used(self, carrier: _Carrier) -> bool:
        return self._engine.places.uses(carrier.stream.endpoint)

    def _dial(self, endpoint: Endpoint, now_ns: int) -> _Carrier | None:
        again_ns, pause_ns = self._redial.get(endpoint, (now_ns, REDIAL_NS_MIN))
        if now_ns < again_ns or len(self._carriers) >= CARRIERS_MAX:
            return None
        self._redial.pop(endpoint, None)
        while len(self._redial) >= DIALS_REMEMBERED_MAX:
            del self._redial[next(iter(self._redial))]
        self._redial[endpoint] = (now_ns + pause_ns, min(2 * pause_ns, REDIAL_NS_MAX))
        try:
            stream = TcpStream.dial(endpoint)
        except LinkError:
            return None
        carrier = _Carrier(stream, now_ns)
        self._add(carrier, now_ns)
        return carrier

    def _add(self, carrier: _Carrier, now_ns: int) -> None:
        before = self._carriers.get(carrier.stream.endpoint)
        if before is not None:
            self._end(before)
        self._carriers[carrier.stream.endpoint] = carrier
        self.deadline_ns = min(self.deadline_ns, now_ns + _SWEEP_NS)
        self._watch(carrier)

    def _watch(self, carrier: _Carrier) -> None:
        events = READ * (self._reading and carrier.stream.is_connected)
        events |= WRITE * carrier.stream.is_waiting
        if events == carrier.events:
            return
        if not carrier.events:
            self._poller.register(carrier.stream.fileno(), partial(self._serve, carrier), events)
        elif events:
            self._poller.modify(carrier.stream.fileno(), events)
        else:
            self._poller.unregister(carrier.stream.fileno())
        carrier.events = events

    def _end(self, carrier: _Carrier) -> None:
        if carrier.events:
            self._poller.unregister(carrier.stream.fileno())
        carrier.stream.close()
        del self._carriers[carrier.stream.endpoint]
        self._engine.places.lost(carrier.stream.endpoint)
