# SPDX-License-Identifier: Apache-2.0
"""All sessions of one node: finds the session of each datagram, and decides which strangers get an answer.

A datagram of a stranger costs, in this order and no further than it gets: a table lookup and one authentication
(data), or a hash (handshakes that do not know our key), a cookie check and reply (under load), two key agreements
(not under load). None of it raises, and none of it allocates anything that stays.
"""

from random import Random
from typing import Final, final

from cryptography.exceptions import InvalidTag

from atoll.base.errors import LimitError, UsageError
from atoll.base.ids import KEY_BYTES
from atoll.base.units import SECOND_NS
from atoll.overlay.session.admission import Allowance, HandshakeLoad, SourceAllowances
from atoll.overlay.session.cookie import CookieGate
from atoll.overlay.session.events import Burst, Counters, Data, Established, Outgoing, Received, Run
from atoll.overlay.session.keypair import NEVER_NS, Keypair
from atoll.overlay.session.limits import (
    BURST_MAX,
    COOKIE_REPLIES_PER_S,
    COOKIE_REPLY_BURST,
    KEEPALIVE_S_MAX,
    PEERS_MAX,
    PLAINTEXT_BYTES_MAX,
)
from atoll.overlay.session.noise import PrivateKey, Responder
from atoll.overlay.session.protocol import (
    COOKIE_REPLY,
    COOKIE_REPLY_BYTES,
    DATA,
    DATA_AES,
    DATA_BYTES_MIN,
    DATA_HEADER,
    DATA_HEADER_BYTES,
    INITIATION,
    INITIATION_BYTES,
    INITIATION_HEADER,
    MACS_BYTES,
    NONCE,
    REJECT_AFTER_MESSAGES,
    RESPONSE,
    RESPONSE_BYTES,
    TAG_BYTES,
)
from atoll.overlay.session.session import Local, Session
from atoll.overlay.session.timestamp import Timestamps

__all__ = ["DATA_KINDS", "Sessions"]

DATA_KINDS: Final = frozenset(kind.to_bytes(4, "little") for kind in (DATA, DATA_AES))
_HANDSHAKE_BYTES: Final = {INITIATION: INITIATION_BYTES, RESPONSE: RESPONSE_BYTES, COOKIE_REPLY: COOKIE_REPLY_BYTES}
_ZERO_PSK: Final = bytes(KEY_BYTES)


@final
class Sessions:
    """WireGuard, without socket and clock.

    After each call the caller sends what is in ``outbox`` and clears it, and looks at ``expired`` and clears it.
    ``tick`` is owed at ``deadline_ns``; late is harmless, early too.

    Args:
        private_key: X25519, 32 bytes.
        rng: Ephemeral keys, indices, cookies, jitter. ``SystemRandom`` in production; a seeded one gives no secrecy.
        now_ns: Monotonic time of creation.
        wall_floor_ns: ``timestamp_ns`` of an earlier life of this key, so that peers go on answering it although the
            wall clock went back in between; 0: none.
        prefers_aes: Whether this machine is faster with AES-256-GCM than with ChaCha20-Poly1305.
        calls: Whether handshakes are started here; without that, peers are answered only.
        compiled: Whether bursts go through the compiled loop, if there is one.

    Attributes:
        counters: What was dropped, by reason.
        outbox: Datagrams to send, in order; the caller clears it.
        expired: Keys of peers whose session ended with no successor; the caller clears it.

    Raises:
        UsageError: The key is not 32 bytes.
    Source: docs/spec/session.md.
    """

    __slots__ = (
        "_cookie_replies",
        "_gate",
        "_keypairs",
        "_load",
        "_local",
        "_now_ns",
        "_peers",
        "_sources",
        "counters",
        "expired",
        "outbox",
    )

    def __init__(
        self,
        *,
        private_key: bytes,
        rng: Random,
        now_ns: int,
        wall_floor_ns: int = 0,
        prefers_aes: bool = True,
        calls: bool = True,
        compiled: bool = True,
    ) -> None:
        self.counters: Final = Counters()
        self._local: Final = Local(
            static=PrivateKey(private_key),
            rng=rng,
            timestamps=Timestamps(wall_floor_ns),
            counters=self.counters,
            prefers_aes=prefers_aes,
            calls=calls,
            compiled=compiled,
        )
        self._keypairs: Final = self._local.table.keypairs
        self._peers: Final[dict[bytes, Session]] = {}
        self._gate: Final = CookieGate(self.public_key, rng)
        self._sources: Final = SourceAllowances()
        self._load: Final = HandshakeLoad()
        self._cookie_replies: Final = Allowance(per_s=COOKIE_REPLIES_PER_S, burst=COOKIE_REPLY_BURST)
        self._now_ns = now_ns
        self.outbox: Final[list[Outgoing]] = self._local.outbox
        self.expired: Final[list[bytes]] = self._local.expired

    @property
    def public_key(self) -> bytes:
        """Our X25519 public key, 32 bytes."""
        return self._local.static.public

    @property
    def deadline_ns(self) -> int | None:
        """When the next ``tick`` is owed; None: never."""
        return None if self._local.wake_ns == NEVER_NS else self._local.wake_ns

    @property
    def timestamp_ns(self) -> int:
        """The last handshake timestamp used, ns since 1970; to be stored as the next life's ``wall_floor_ns``."""
        return self._local.timestamps.last_ns

    def add_peer(self, public_key: bytes, *, psk: bytes = _ZERO_PSK, keepalive_s: int = 0, ours: bool = False) -> None:
        """Allow a peer; for a known one, change what differs and keep its sessions.

        Args:
            public_key: 32 bytes.
            psk: 32 bytes, the same at both ends; zeros: none. Counts from the next handshake on.
            keepalive_s: Send something at least this often, seconds, at most KEEPALIVE_S_MAX; 0: no. A peer with a
                keepalive is connected to by itself.
            ours: It is a node of ours, and understands packets of kind 6. Counts from the next handshake on.

        Raises:
            LimitError: PEERS_MAX peers already.
            UsageError: A key of another length, our own key, or a keepalive out of range.
        """
        if len(public_key) != KEY_BYTES or len(psk) != KEY_BYTES or public_key == self.public_key:
            raise UsageError("a peer's keys are 32 bytes each, and the public one is not our own")
        if not 0 <= keepalive_s <= KEEPALIVE_S_MAX:
            raise UsageError(f"a keepalive of {keepalive_s} s")
        session = self._peers.get(public_key)
        if session is None:
            if len(self._peers) >= PEERS_MAX:
                raise LimitError("PEERS_MAX", PEERS_MAX)
            session = self._peers[public_key] = Session(self._local, public_key, psk, ours=ours)
        session.psk, session.ours = psk, ours
        session.set_keepalive(keepalive_s * SECOND_NS, self._now_ns)

    def remove_peer(self, public_key: bytes) -> None:
        """Forget a peer and its keys; unknown: nothing. It is not reported in ``expired``."""
        session = self._peers.pop(public_key, None)
        if session is not None:
            session.close()

    def end(self, public_key: bytes) -> None:
        """Forget the session with a peer that stays one; unknown: nothing. It is not reported in ``expired``."""
        session = self._peers.get(public_key)
        if session is not None:
            session.close()

    def is_addressed(self, datagram: bytes) -> bool:
        """Return whether a handshake message was made by somebody who knows our key; for an answer, say no more."""
        return self._gate.is_addressed_to_us(datagram)

    def owns(self, index: int) -> bool:
        """Return whether we drew this index, for a keypair or for a handshake that we started."""
        return index in self._keypairs or index in self._local.table.attempts

    def newest_timestamp(self, public_key: bytes) -> bytes:
        """Return that of a peer's authentic initiations, TAI64N; empty: there was none."""
        session = self._peers.get(public_key)
        return b"" if session is None else session.newest_timestamp

    def connect(self, public_key: bytes, now_ns: int, wall_ns: int) -> None:
        """Start a handshake if there is no fresh session and none is under way. An unknown peer: nothing."""
        session = self._peers.get(public_key)
        if session is not None and not session.is_fresh(now_ns):
            session.demand(now_ns, wall_ns)

    def seal(self, public_key: bytes, plaintext: bytes, now_ns: int, wall_ns: int) -> bytes | None:
        """Seal one packet for a peer.

        Args:
            public_key: The peer.
            plaintext: At most PLAINTEXT_BYTES_MAX; zero bytes are added to a multiple of 16. Empty: a keepalive.
            now_ns: Monotonic time.
            wall_ns: Time since 1970, in case a handshake starts.

        Returns:
            The datagram to send; None: there is no session now. A handshake is under way then (see ``outbox``), unless
            the peer is unknown.

        Raises:
            UsageError: The plaintext is too long.
        """
        session = self._peers.get(public_key)
        if session is None:
            return None
        if len(plaintext) > PLAINTEXT_BYTES_MAX:
            raise UsageError(f"a packet of {len(plaintext)} bytes")
        return session.seal(plaintext, now_ns, wall_ns)

    def seal_burst(self, public_key: bytes, burst: Burst, now_ns: int, wall_ns: int) -> int | None:
        """Seal packets for a peer, many at once and without padding.

        Args:
            public_key: The peer.
            burst: The packets, and where the datagrams go.
            now_ns: Monotonic time.
            wall_ns: Time since 1970, in case a handshake starts.

        Returns:
            Where the last datagram ends in ``burst.out``; None: as ``seal``, and nothing was sealed.
        """
        session = self._peers.get(public_key)
        return None if session is None else session.seal_burst(burst, now_ns, wall_ns)

    def receive(
        self,
        datagram: bytes,
        source: bytes,
        now_ns: int,
        wall_ns: int,
        under_load: bool,  # noqa: FBT001 - the packet path, where keywords cost time.
    ) -> Received | None:
        """Take one datagram of kind 1 to 4, or 6, from the network; nothing in it can raise.

        Args:
            datagram: Its bytes.
            source: Where it came from: packed address and port. Only for cookies and rates.
            now_ns: Monotonic time.
            wall_ns: Time since 1970, in case a handshake starts.
            under_load: Whether handshakes must show a cookie first though few come; the caller may be busy otherwise.

        Returns:
            What it was; None: nothing for the caller to act on (dropped and counted, or a step of a handshake).
        """
        if len(datagram) < DATA_BYTES_MIN:
            self.counters.drop("malformed")
            return None
        if datagram[:4] not in DATA_KINDS:
            kind = int.from_bytes(datagram[:4], "little")
            return self._receive_handshake(kind, datagram, source, now_ns, wall_ns, under_load=under_load)
        opened = self.open_packet(datagram, now_ns, wall_ns)
        if opened is None:
            return None
        public_key, plaintext, counter, gap_delta, confirms = opened
        if confirms and not plaintext:
            return Established(public_key, initiator=False)
        return Data(public_key, plaintext, counter, gap_delta, confirms)

    def open_packet(self, datagram: bytes, now_ns: int, wall_ns: int) -> tuple[bytes, bytes, int, int, bool] | None:
        """Open one data packet; nothing in it can raise.

        Args:
            datagram: Of kind 4 or 6, at least DATA_BYTES_MIN bytes.
            now_ns: Monotonic time.
            wall_ns: Time since 1970, in case a handshake starts.

        Returns:
            (public key, plaintext, counter, gap delta, confirms), as in ``Data``; None: dropped and counted.
        """
        kind, index, counter = DATA_HEADER.unpack_from(datagram)
        held = self._keypairs.get(index)
        if held is None:
            self.counters.drop("index-unknown")
            return None
        session, keypair = held
        if now_ns >= keypair.reject_ns or counter >= REJECT_AFTER_MESSAGES:
            self.counters.drop("expired")
            return None
        window = keypair.window
        if window.seen(counter):  # Before decrypting, because the second of two copies is common and should be cheap.
            self.counters.drop("replayed")
            return None
        if kind != DATA and keypair.aes_opener is None:
            self.counters.drop("malformed")
            return None
        plaintext = keypair.open(kind, counter, datagram)
        if plaintext is None:
            self.counters.drop("forged")
            return None
        gap_delta = window.mark(counter)
        session.traversed_ns = now_ns
        session.renew_ns = NEVER_NS
        confirms = keypair is session.following
        if confirms:
            session.confirm()
        if kind != keypair.kind and kind == DATA_AES:
            session.offered_aes(keypair)
        if now_ns >= keypair.late_ns and keypair is session.current:
            session.demand(now_ns, wall_ns)
        if keypair is not session.current and session.is_outdated(keypair, now_ns, wall_ns):
            gap_delta = -1  # Late by a whole handshake: it says nothing of where the peer is now.
        if plaintext and session.reply_ns == NEVER_NS:
            session.arm_reply(now_ns)
        return session.public_key, plaintext, counter, gap_delta, confirms

    def open_run(self, run: Run, now_ns: int, wall_ns: int) -> tuple[bytes, int, int] | None:
        """Open the first packets of a burst, as far as there is nothing special about them; nothing in it can raise.

        They are of one keypair, not an outdated one, which is confirmed and needs no successor, and their counters are
        consecutive and above all that came before.

        Returns:
            (public key, how many were opened, how many of these were joined to the first one); None: none, and the
            first one is for ``open_packet``, as is the one that follows those opened. Those joined say that they
            continue the TCP segment in the first one, and are as long: only their payload is in ``run.out``, back to
            back behind the first plaintext.
        """
        data, size, out, head = run.data, run.size, run.out, run.head
        kind, index, first = DATA_HEADER.unpack_from(data, head)
        held = self._keypairs.get(index)
        if held is None:
            return None
        session, keypair = held
        window = keypair.window
        if (
            keypair is session.following
            or (keypair is not session.current and session.is_outdated(keypair, now_ns, wall_ns))
            or now_ns >= keypair.reject_ns
            or now_ns >= keypair.late_ns
            or kind not in {DATA, keypair.kind}
            or size <= head + DATA_BYTES_MIN
            or not window.highest < first < REJECT_AFTER_MESSAGES - BURST_MAX
        ):
            return None
        batch = keypair.batch_opener if kind == DATA else keypair.aes_batch_opener
        if batch is not None:
            count, joined = batch.open(kind, index, first, data, size, head, len(run.ends), run.ends[-1], out)
        else:
            count, joined = _opened(keypair, run, kind, index, first), 0
        if not count:
            return None  # ``open_packet`` finds out once more why, and counts it.
        window.mark_run(first, count)
        session.traversed_ns, session.renew_ns = now_ns, NEVER_NS
        if session.reply_ns == NEVER_NS:
            session.arm_reply(now_ns)
        return session.public_key, count, joined

    def tick(self, now_ns: int, wall_ns: int) -> None:
        """Do what is due in every session."""
        self._now_ns = now_ns
        local = self._local
        if now_ns < local.wake_ns:
            return
        for session in self._peers.values():
            session.tick(now_ns, wall_ns)
        local.wake_ns = min((session.deadline_ns for session in self._peers.values()), default=NEVER_NS)

    def established(self, public_key: bytes) -> bool:
        """Return whether there is a session to seal with; exact if ``tick`` was called when it was owed."""
        session = self._peers.get(public_key)
        return session is not None and session.current is not None

    def loss_counts(self, public_key: bytes) -> tuple[int, int]:
        """Return how many packets the peer is known to have sent us, and how many came; both only grow."""
        session = self._peers.get(public_key)
        return (0, 0) if session is None else session.loss_counts

    def _receive_handshake(  # tidy: allow parameters, they are those of receive.
        self, kind: int, datagram: bytes, source: bytes, now_ns: int, wall_ns: int, *, under_load: bool
    ) -> Established | None:
        if len(datagram) != _HANDSHAKE_BYTES.get(kind):
            self.counters.drop("malformed")
        elif kind == COOKIE_REPLY:
            self._receive_cookie(datagram, now_ns)
        elif self._admit(kind, datagram, source, now_ns, under_load=under_load):
            if kind == INITIATION:
                self._receive_initiation(datagram, now_ns, wall_ns)
            else:
                return self._receive_response(datagram, now_ns, wall_ns)
        return None

    def _admit(self, kind: int, datagram: bytes, source: bytes, now_ns: int, *, under_load: bool) -> bool:
        """Return whether a handshake message is worth key agreements; answer with a cookie where one is owed."""
        if not self._gate.is_addressed_to_us(datagram):
            self.counters.drop("mac1-wrong")
            return False
        if kind == INITIATION:
            self._load.note(now_ns)
        if not under_load and not self._load.is_high(now_ns):
            return True
        if self._gate.proves_source(datagram, source, now_ns):
            if self._sources.take(source, now_ns):
                return True
            self.counters.drop("source-rate")
        elif self._cookie_replies.take(now_ns):
            self.counters.drop("cookie-owed")
            self._local.send(None, self._gate.reply(datagram, source, now_ns))
        else:
            self.counters.drop("cookie-rate")
        return False

    def _receive_initiation(self, datagram: bytes, now_ns: int, wall_ns: int) -> None:
        responder = Responder(static=self._local.static)
        public_key = responder.read_static(datagram[INITIATION_HEADER.size : -MACS_BYTES])
        if public_key is None:
            self.counters.drop("initiation-wrong")
            return
        session = self._peers.get(public_key)
        if session is None:
            self.counters.drop("peer-unknown")
            return
        if session.static_secret is None:
            self.counters.drop("peer-weak")
            return
        timestamp = responder.read_payload(session.static_secret)
        if timestamp is None:
            self.counters.drop("initiation-wrong")
            return
        _, remote_index = INITIATION_HEADER.unpack_from(datagram)
        if not session.call_back(timestamp, now_ns, wall_ns):
            session.respond(responder, timestamp, remote_index, now_ns)

    def _receive_response(self, datagram: bytes, now_ns: int, wall_ns: int) -> Established | None:
        session = self._local.table.attempts.get(int.from_bytes(datagram[8:12], "little"))
        if session is None:
            self.counters.drop("index-unknown")
            return None
        return session.complete(datagram, now_ns, wall_ns)

    def _receive_cookie(self, datagram: bytes, now_ns: int) -> None:
        session = self._local.table.owner(int.from_bytes(datagram[4:8], "little"))
        if session is None:
            self.counters.drop("index-unknown")
        elif not session.accept_cookie(datagram, now_ns):
            self.counters.drop("cookie-wrong")


def _opened(keypair: Keypair, run: Run, kind: int, index: int, first: int) -> int:
    """Open the first packets of a run, as far as their counters are consecutive; return how many."""
    opener = keypair.opener if kind == DATA else keypair.aes_opener
    if opener is None:
        return 0
    data, size, head, out = run.data, run.size, run.head, run.out
    opened, counter, at, body = opener.decrypt_into, first, 0, head + DATA_HEADER_BYTES
    pack_header, pack_nonce = DATA_HEADER.pack, NONCE.pack
    try:
        for end in run.ends:
            if data[at + head : at + body].tobytes() != pack_header(kind, index, counter):
                break
            opened(pack_nonce(counter), data[at + body : end], None, out[at : end - body - TAG_BYTES])
            counter += 1
            at += size
    except InvalidTag:
        pass
    return counter - first
