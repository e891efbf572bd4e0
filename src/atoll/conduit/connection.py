# SPDX-License-Identifier: Apache-2.0
"""One QUIC connection with one member, driven by the loop: packets in and out, one timer, and its streams.

Decides nothing about packets: ``PeerQuic`` does. It batches: however many packets arrive or writes happen in one turn
of the loop, the answer is computed once, at the end of the turn.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, final

from atoll.base.errors import LimitError
from atoll.base.ids import NodeId
from atoll.conduit.limits import BUFFERED_BYTES_MAX, CONNECT_TIMEOUT_S, KEEPALIVE_S, STREAMS_MAX, TIMER_GRAIN_S
from atoll.conduit.quic import (
    ConnectionTerminated,
    HandshakeCompleted,
    PeerQuic,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from atoll.conduit.stream import BrokenStreamError, Reason, Service, Stream

__all__ = ["Connection", "ConnectionKey", "ConnectionOwner"]

_IS_SERVER_INITIATED: Final = 1  # QUIC: the lowest bit of a stream id tells who opened it.


@dataclass(frozen=True, slots=True)
class ConnectionKey:
    """What tells a connection from the others of this node."""

    node: NodeId
    tag: int
    own_port: int
    peer_port: int


class ConnectionOwner(Protocol):
    """What a connection needs of its host."""

    buffered_bytes: int
    clock: Callable[[], float]

    def transmit(self, key: ConnectionKey, datagram: bytes) -> None:
        """Send one datagram to the member."""
        ...

    def incoming(self, stream: Stream) -> None:
        """The member opened a stream."""
        ...

    def established(self, connection: "Connection") -> None:
        """The handshake is complete."""
        ...

    def ended(self, connection: "Connection") -> None:
        """The connection is gone; all its streams have failed."""
        ...


@final
class Connection:
    """A connection and its streams. Implements ``stream.Carrier``.

    Args:
        owner: The host.
        key: Its identity.
        quic: The machine.
        is_client: Whether this side opens it.
    """

    def __init__(self, owner: ConnectionOwner, key: ConnectionKey, quic: PeerQuic, *, is_client: bool) -> None:
        self._owner, self._quic, self._is_client = owner, quic, is_client
        self.key: Final = key
        self.node, self.tag = key.node, key.tag
        self.is_established = False
        self.fault: str | None = None  # A bug inside aioquic that ended this connection, for the log.
        self._streams: dict[int, Stream] = {}
        self._gone: set[int] = set()  # Ended here, still alive in aioquic: late bytes must not open them anew.
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._stirred: asyncio.Handle | None = None
        self._ended = False
        now = owner.clock()
        self._connect_until = now + CONNECT_TIMEOUT_S
        self._keepalive_at = now + KEEPALIVE_S
        if is_client:
            quic.start(now)
            self._stir()

    @property
    def stream_count(self) -> int:
        """Streams that have not ended on this side."""
        return len(self._streams)

    def open(self, service: Service) -> Stream:
        """Open a stream and queue its header. It may be written to at once.

        Raises:
            LimitError: STREAMS_MAX streams are open.
        """
        assert not self._ended  # The owner forgets a connection in the same turn in which it ends.
        own = sum(1 for stream_id in self._streams if self._is_own(stream_id))
        if own >= STREAMS_MAX:
            raise LimitError("STREAMS_MAX", STREAMS_MAX)
        if not own:
            self._keepalive_at = self._owner.clock() + KEEPALIVE_S
        stream_id = self._quic.get_next_available_stream_id()
        stream = self._streams[stream_id] = Stream(self, stream_id, opener=True)
        stream.begin(service)
        return stream

    def feed(self, datagram: bytes) -> None:
        """Take one datagram from the member."""
        self._quic.feed(datagram, self._owner.clock())
        self._stir()

    def nudge(self) -> None:
        """The path changed because it was bad: resend now what was in flight."""
        self._quic.nudge(self._owner.clock())
        self._stir()

    def close(self) -> None:
        """End it: the member is told, the streams fail as unreachable."""
        if not self._ended:
            self._quic.close()
            for datagram in self._quic.drain(self._owner.clock()):
                self._owner.transmit(self.key, datagram)
            self._end()

    # stream.Carrier

    def put(self, stream_id: int, data: bytes, *, end: bool) -> None:
        """Queue bytes of a stream."""
        if not self._ended:
            self._quic.put(stream_id, data, end=end)
            self._stir()

    def unsent_bytes(self, stream_id: int, written_bytes: int) -> int:
        """Return how many queued bytes were not sent yet."""
        return self._quic.unsent_bytes(stream_id, written_bytes)

    def took(self, stream_id: int, count: int) -> None:
        """The reader took bytes, which lets the member send as many more."""
        if count:
            self._owner.buffered_bytes -= count
            self._quic.note_read(stream_id, count)
            self._stir()

    def cut(self, stream_id: int, code: int, *, sending: bool, receiving: bool) -> None:
        """End the named halves of a stream at once."""
        if not self._ended:
            if sending:
                self._quic.reset_stream(stream_id, code)
            if receiving:
                self._quic.stop(stream_id, code)
            self._stir()

    def done(self, stream_id: int) -> None:
        """Forget a stream that has ended here; aioquic goes on resending its last bytes."""
        self._streams.pop(stream_id, None)
        self._quic.forget(stream_id)
        if not self._is_own(stream_id):
            self._gone.add(stream_id)
            if len(self._gone) > 2 * STREAMS_MAX:  # At most half of them can be alive, so this is rare.
                self._gone = {gone for gone in self._gone if self._quic.knows(gone)}

    # The loop.

    def _stir(self) -> None:
        if self._stirred is None and not self._ended:
            self._stirred = self._loop.call_soon(self._turn)

    def _timed(self) -> None:
        self._timer = None
        now = self._owner.clock()
        timer = self._quic.get_timer()
        if timer is not None and now >= timer:
            self._quic.tick(now)
        if self._streams and now >= self._keepalive_at:
            self._keepalive_at = now + KEEPALIVE_S
            self._quic.send_ping(0)
        if not self.is_established and now >= self._connect_until:
            self.close()
            return
        self._turn()

    def _turn(self) -> None:
        if self._stirred is not None:
            self._stirred.cancel()
            self._stirred = None
        if self._ended:
            return
        while (event := self._quic.next_event()) is not None:
            if isinstance(event, ConnectionTerminated):
                self._end()
                return
            self._take(event)
        for datagram in self._quic.drain(self._owner.clock()):
            self._owner.transmit(self.key, datagram)
        if self._quic.foreign_fault is not None:
            self.fault = self._quic.foreign_fault
            self._end()
            return
        for stream in tuple(self._streams.values()):
            stream.drained()
        self._arm()

    def _take(self, event: QuicEvent) -> None:
        match event:
            case StreamDataReceived(data=data, end_stream=end, stream_id=stream_id):
                self._arrived(stream_id, data, end=end)
            case StreamReset(stream_id=stream_id):
                self._quic.reset_stream(stream_id, Reason.RESET)  # As in TCP, a reset ends both directions.
                if (stream := self._streams.get(stream_id)) is not None:
                    stream.fail(BrokenStreamError(Reason.RESET))
            case StopSendingReceived(stream_id=stream_id) if (stream := self._streams.get(stream_id)) is not None:
                stream.unwanted()
            case HandshakeCompleted():
                self.is_established = True
                self._owner.established(self)
            case _:
                pass

    def _arrived(self, stream_id: int, data: bytes, *, end: bool) -> None:
        self._owner.buffered_bytes += len(data)
        stream = self._streams.get(stream_id)
        if stream is None:
            if self._is_own(stream_id) or stream_id in self._gone:
                self._owner.buffered_bytes -= len(data)  # Late bytes of a stream that has ended here.
                return
            stream = self._streams[stream_id] = Stream(self, stream_id, opener=False)
            self._owner.incoming(stream)
        if self._owner.buffered_bytes > BUFFERED_BYTES_MAX:
            self._owner.buffered_bytes -= len(data)
            stream.close(Reason.LIMIT)
            return
        stream.arrived(data, end=end)

    def _is_own(self, stream_id: int) -> bool:
        return (stream_id & _IS_SERVER_INITIATED == 0) == self._is_client

    def _arm(self) -> None:
        due = [at for at in (self._quic.get_timer(),) if at is not None]
        if self._streams:
            due.append(self._keepalive_at)
        if not self.is_established:
            due.append(self._connect_until)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due:
            wait_s = max(TIMER_GRAIN_S, min(due) - self._owner.clock())
            self._timer = self._loop.call_later(wait_s, self._timed)

    def _end(self) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._stirred is not None:
            self._stirred.cancel()
        for stream in tuple(self._streams.values()):
            stream.fail(BrokenStreamError(Reason.UNREACHABLE))
        self._owner.ended(self)
