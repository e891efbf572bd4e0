# SPDX-License-Identifier: Apache-2.0
"""What the session layer tells its caller."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, final

import msgspec

__all__ = ["DROP_REASONS", "Counters", "Data", "Established", "Outgoing", "Received", "Run"]

DROP_REASONS: Final = (
    "cookie-owed",  # Under load: a handshake message without a valid cookie; answered with a cookie reply.
    "cookie-rate",  # The same, beyond COOKIE_REPLIES_PER_S: not answered.
    "cookie-wrong",  # A cookie reply that is not authentic, or that nobody asked for.
    "expired",  # A data packet of a keypair older than the reject time, or with an impossible counter.
    "forged",  # A data packet that is not authentic.
    "index-unknown",  # For a session or a handshake that is not ours (any more).
    "initiation-rate",  # Initiations of one peer faster than INITIATION_INTERVAL_NS.
    "initiation-replayed",  # A timestamp not above the highest seen from this peer.
    "initiation-wrong",  # Does not decrypt, or holds a low-order point.
    "mac1-wrong",  # Not for us: the sender does not know our public key.
    "malformed",  # Unknown kind, or a length that this kind cannot have.
    "outbox-full",  # An own datagram: the caller did not drain the outbox.
    "peer-unknown",  # An authentic initiation by a key that is no peer of ours.
    "peer-weak",  # A peer whose public key is a low-order point; nothing can be kept secret with it.
    "replayed",  # A data packet that came before, or too late to tell.
    "response-wrong",  # Does not decrypt, or holds a low-order point.
    "source-rate",  # Under load: too many handshake messages from one source.
)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A datagram to send.

    Attributes:
        public_key: The peer it is for; None: the source of the datagram just received.
        datagram: Its bytes.
    """

    public_key: bytes | None
    datagram: bytes


class Burst(msgspec.Struct, frozen=True, gc=False):
    """Packets to seal at once, for one peer.

    Attributes:
        source: The buffer in which they stand.
        spans: (from, until) of each in ``source``, at most BURST_MAX, none empty; each is read before the next is asked
            for, so that one may be written over the end of the one before it.
        out: Where the datagrams go; not ``source``.
        room: Bytes left free before each datagram.
        step: From the beginning of one to that of the next, the room included: at least what the longest one needs.
        cut: What the spans come from, for the compiled loop, which makes them itself: (start, end, bytes of headers,
            payload of each) of one packet in ``source``; None: something else.
        finished: For stock WireGuard: checksums are done, and zeros added up to a multiple of 16. The spans are so
            already; with ``cut`` the compiled loop does it.
    """

    source: memoryview
    spans: Iterable[tuple[int, int]]
    out: memoryview
    room: int
    step: int
    cut: tuple[int, int, int, int] | None = None
    finished: bool = False


class Run(msgspec.Struct, frozen=True, gc=False):
    """Datagrams to open at once.

    Attributes:
        data: The datagrams, back to back.
        size: From the beginning of one to that of the next.
        head: Bytes before the data packet in each; 0, or a relay frame's.
        ends: Where each ends, at least ``head`` and 32 bytes behind where it begins; at most BURST_MAX.
        out: Where the plaintexts go, each as far from the beginning as its datagram; not ``data``.
    """

    data: memoryview
    size: int
    head: int
    ends: Sequence[int]
    out: memoryview


class Data(msgspec.Struct, frozen=True, gc=False):
    """An authentic packet came; each counter of a keypair comes at most once.

    Attributes:
        public_key: Who sealed it.
        plaintext: Still padded to a multiple of 16; empty: a keepalive.
        counter: Its place in the keypair's sequence.
        gap_delta: Change of the number of missing packets: those skipped just before it, or -1 for a late one.
        confirms: It is the first packet of a session that the peer started: ``Established`` is true of it as well.
    """

    public_key: bytes
    plaintext: bytes
    counter: int
    gap_delta: int
    confirms: bool = False


class Established(msgspec.Struct, frozen=True, gc=False):
    """A new session can be used from now on: the first one, or the successor of one that goes on working.

    Attributes:
        public_key: The peer.
        initiator: Whether we started it.
    """

    public_key: bytes
    initiator: bool


Received = Data | Established


@final
class Counters:
    """What was dropped, by reason; the keys are DROP_REASONS and never grow.

    Attributes:
        dropped: Reason to count.
    """

    __slots__ = ("dropped",)

    def __init__(self) -> None:
        self.dropped: Final[dict[str, int]] = dict.fromkeys(DROP_REASONS, 0)

    def drop(self, reason: str) -> None:
        """Count one."""
        self.dropped[reason] += 1
