# SPDX-License-Identifier: Apache-2.0
"""QUIC as the overlay needs it: aioquic's connection, sans-I/O, with our limits. Decides what a change of path means.

This is the only module that knows aioquic, and the only one that reaches behind its public names; each such place says
why. The version is pinned in the constraints file, and tests/unit/test_conduit_quic.py fails if a name moves.

Two differences from plain QUIC:

* *Flow control follows the reader.* aioquic doubles a stream's window as data arrives, whether or not anybody reads
  it. Here a window is granted on top of what was read, so a slow reader stops its sender and memory stays bounded.
* *A change of path is not congestion* (``nudge``). When the overlay leaves a dead path, what was in flight on it is
  lost, the probe timer has backed off, and no acknowledgement will come to say so. The connection then resends at
  once, and its window stays as it was.

Source: ADR 0011.
"""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # pyright: ignore[reportPrivateImportUsage] -- its documented place.
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from aioquic.quic.packet import QuicFrameType, QuicPacketType, QuicProtocolVersion, pull_quic_header
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from atoll.base.errors import WireError
from atoll.conduit.limits import (
    DATAGRAM_BYTES_MAX,
    IDLE_TIMEOUT_S,
    NUDGE_PACKETS_MAX,
    STREAM_WINDOW_BYTES,
    STREAMS_MAX,
)

__all__ = [
    "ConnectionTerminated",
    "HandshakeCompleted",
    "PeerQuic",
    "QuicEvent",
    "StopSendingReceived",
    "StreamDataReceived",
    "StreamReset",
    "client_configuration",
    "first_connection_id",
    "server_configuration",
]

ALPN: Final = "atoll/1"
CONNECTION_ID_BYTES: Final = 8
_ADDRESS: Final = ("overlay", 0)  # QUIC sees one unchanging address: the overlay hides every change of path.
_CAPACITY_BYTES: Final = 17  # A frame type and two variable-length integers.
_CERTIFICATE_DAYS: Final = 3650  # Longer than any process; the certificate dies with it.


def client_configuration() -> QuicConfiguration:
    """Return the configuration of the side that opens connections."""
    return _configuration(is_client=True)


def server_configuration() -> QuicConfiguration:
    """Return the configuration of the side that accepts connections, with a fresh self-signed certificate.

    The certificate proves nothing and need not: a packet reaches QUIC only out of the member's own session, which has
    proved the member's key (ADR 0011). TLS wants one all the same.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "atoll")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_CERTIFICATE_DAYS))
    )
    configuration = _configuration(is_client=False)
    configuration.certificate = builder.sign(key, hashes.SHA256())
    configuration.private_key = key
    return configuration


def _configuration(*, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[ALPN],
        # Reno, not cubic: measured here, requests and answers over a clean path end sooner with it (p95 0.17 s against
        # 0.27 s at 0.1 % loss), and lossy paths, where cubic moves bulk a fifth faster, are left anyway (ADR 0011).
        congestion_control_algorithm="reno",
        connection_id_length=CONNECTION_ID_BYTES,
        idle_timeout=IDLE_TIMEOUT_S,
        max_data=1 << 60,  # Bounded per stream and per host instead, so that one stalled reader stops only itself.
        max_stream_data=STREAM_WINDOW_BYTES,
        max_datagram_size=DATAGRAM_BYTES_MAX,
        supported_versions=[QuicProtocolVersion.VERSION_1],
        verify_mode=ssl.CERT_NONE,
    )


def first_connection_id(datagram: bytes) -> bytes:
    """Return the destination connection id of a datagram that may open a connection.

    Raises:
        WireError: Not a full-sized QUIC version 1 Initial.
    """
    if len(datagram) < DATAGRAM_BYTES_MAX:
        raise WireError("QUIC opening too short")
    try:
        header = pull_quic_header(Buffer(data=datagram), host_cid_length=CONNECTION_ID_BYTES)
    except ValueError as error:  # BufferReadError is one, too.
        raise WireError("QUIC header") from error
    if header.packet_type != QuicPacketType.INITIAL or header.version != QuicProtocolVersion.VERSION_1:
        raise WireError("QUIC opening of another kind")
    return header.destination_cid


class PeerQuic(QuicConnection):
    """One QUIC connection with one member. Time is an argument, in seconds; nothing here waits.

    Args:
        configuration: From ``client_configuration`` or ``server_configuration``.
        opened_with: For a server, the id from ``first_connection_id``; None for a client.
    """

    def __init__(self, configuration: QuicConfiguration, opened_with: bytes | None = None) -> None:
        super().__init__(configuration=configuration, original_destination_connection_id=opened_with)
        # aioquic has no setting for these two; both are announced in the handshake, which has not begun.
        self._local_max_streams_bidi.value = self._local_max_streams_bidi.sent = STREAMS_MAX
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = 0
        self._read_bytes: dict[int, int] = {}
        self._foreign_fault: str | None = None

    def start(self, now: float) -> None:
        """Begin the handshake, as a client."""
        self.connect(_ADDRESS, now)

    def feed(self, datagram: bytes, now: float) -> None:
        """Take one datagram from the member. Never raises: a fault inside aioquic ends this connection only."""
        self._guard(lambda: self.receive_datagram(datagram, _ADDRESS, now))

    def tick(self, now: float) -> None:
        """Handle the timer; call it at or after ``get_timer()``."""
        self._guard(lambda: self.handle_timer(now))

    def drain(self, now: float) -> list[bytes]:
        """Return the datagrams to send, in order."""
        datagrams: list[bytes] = []

        def collect() -> None:
            if self._network_paths:  # A server has none before its first good packet, and aioquic needs one.
                datagrams.extend(datagram for datagram, _ in self.datagrams_to_send(now))

        self._guard(collect)
        return datagrams

    @property
    def foreign_fault(self) -> str | None:
        """What went wrong inside aioquic; the connection is then dead and must be dropped without ceremony."""
        return self._foreign_fault

    def _guard(self, call: Callable[[], None]) -> None:
        # The one place where foreign exceptions are mapped. aioquic turns a peer's faults into a closed connection;
        # what still gets out is a bug that some sequence of frames reaches, and must not end the node.
        if self._foreign_fault is None:
            try:
                call()
            except Exception as error:  # noqa: BLE001 -- a supervisor of foreign code that reads a peer's bytes.
                self._foreign_fault = f"{type(error).__name__}: {error}"

    def nudge(self, now: float) -> None:
        """Presume lost what is in flight, resend it at the next ``drain``, and forget the timer's back-off.

        Call it when packets were lost for a reason that is now over: the path was changed because it was dead or
        lossy. Without it the connection waits for a probe timer that has doubled with each silent round.
        """
        recovery = self._loss
        # No public name resets the back-off. reschedule_data resends the oldest packet without blaming congestion.
        recovery._pto_count = 0  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] -- see above.
        in_flight = sum(space.ack_eliciting_in_flight for space in recovery.spaces)
        for _ in range(max(1, min(in_flight, NUDGE_PACKETS_MAX))):
            recovery.reschedule_data(now=now)

    def unsent_bytes(self, stream_id: int, written_bytes: int) -> int:
        """Return how many of the bytes written to a stream have not been sent once."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else max(0, written_bytes - stream.sender.highest_offset)

    def put(self, stream_id: int, data: bytes, *, end: bool) -> None:
        """Queue bytes of a stream; dropped when the peer has just asked for no more (its event is on the way up)."""
        try:
            self.send_stream_data(stream_id, data, end_stream=end)
        except (RuntimeError, ValueError):
            return

    def knows(self, stream_id: int) -> bool:
        """Say whether the stream has still something to send, to receive or to have acknowledged."""
        return stream_id in self._streams

    def note_read(self, stream_id: int, count: int) -> None:
        """Say that the local reader took ``count`` bytes, which lets the peer send as many more."""
        if stream_id in self._streams:
            self._read_bytes[stream_id] = self._read_bytes.get(stream_id, 0) + count

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the peer to send no more on this stream; no effect on one that is finished."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            self.stop_stream(stream_id, code)

    def forget(self, stream_id: int) -> None:
        """Drop the reader's account of a stream that nobody reads any more."""
        self._read_bytes.pop(stream_id, None)

    def _write_stream_limits(
        self,
        builder: QuicPacketBuilder,
        space: QuicPacketSpace,  # noqa: ARG002 -- aioquic's signature.
        stream: QuicStream,
    ) -> None:
        """Grant what the reader took, in steps of half a window. Replaces aioquic's unconditional doubling."""
        granted = self._read_bytes.get(stream.stream_id or 0, 0) + STREAM_WINDOW_BYTES
        if granted - stream.max_stream_data_local >= STREAM_WINDOW_BYTES // 2:
            stream.max_stream_data_local = granted
        if stream.max_stream_data_local_sent == stream.max_stream_data_local:
            return
        frame = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=_CAPACITY_BYTES,
            handler=self._on_max_stream_data_delivery,
            handler_args=(stream,),
        )
        frame.push_uint_var(stream.stream_id or 0)
        frame.push_uint_var(stream.max_stream_data_local)
        stream.max_stream_data_local_sent = stream.max_stream_data_local
