# SPDX-License-Identifier: Apache-2.0
"""One peer's sessions: when to shake hands, which keys to use, when to fall silent and when to speak.

Theory of operation. At any time a peer has at most one *attempt* (a handshake that we started and that is not
answered yet) and these keypairs:

* ``current``: used to seal;
* ``following``: made by answering the peer's handshake; the peer's first packet under it confirms it;
* ``previous``: superseded, newest first; they only open packets that are still on their way.

Timers are absolute times or NEVER_NS. The packet path only stores into them; ``deadline_ns`` may therefore be early
(a timer was cleared since), never late. All of them are WireGuard's; the choices that the protocol leaves open are in
docs/spec/session.md.
"""

from random import Random
from typing import Final, final

from atoll.base.ids import KEY_BYTES
from atoll.overlay.session.cookie import CookieJar
from atoll.overlay.session.events import Burst, Counters, Established, Outgoing
from atoll.overlay.session.keypair import NEVER_NS, IndexTable, Keypair
from atoll.overlay.session.limits import BURST_MAX, INITIATION_INTERVAL_NS, OUTBOX_MAX, PREVIOUS_MAX, RESPONDED_HOLD_NS
from atoll.overlay.session.noise import Initiator, PrivateKey, Responder
from atoll.overlay.session.protocol import (
    DATA_HEADER,
    DATA_HEADER_BYTES,
    INITIATION,
    INITIATION_HEADER,
    KEEPALIVE_TIMEOUT_NS,
    MACS_BYTES,
    NONCE,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME_NS,
    REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME_NS,
    REKEY_ATTEMPTS_MAX,
    REKEY_TIMEOUT_JITTER_NS,
    REKEY_TIMEOUT_NS,
    RESPONSE,
    RESPONSE_HEADER,
    TAG_BYTES,
)
from atoll.overlay.session.timestamp import Timestamps

__all__ = ["Local", "Session"]

_UNANSWERED_NS: Final = KEEPALIVE_TIMEOUT_NS + REKEY_TIMEOUT_NS


@final
class Local:
    """What all sessions of one node share: its key, its entropy, its indices, and the way out.

    Args:
        static: Long-term key.
        rng: Ephemeral keys, indices, jitter.
        timestamps: For initiations.
        counters: Drops are counted here.

        prefers_aes: Whether this machine is faster with AES.
        calls: Whether we ever start a handshake; without it we only answer.
        compiled: Whether bursts go through the compiled loop, if there is one.

    Attributes:
        wake_ns: Not later than the earliest deadline of any session.
    """

    __slots__ = (
        "calls",
        "compiled",
        "counters",
        "expired",
        "outbox",
        "prefers_aes",
        "rng",
        "static",
        "table",
        "timestamps",
        "wake_ns",
    )

    def __init__(
        self,
        *,
        static: PrivateKey,
        rng: Random,
        timestamps: Timestamps,
        counters: Counters,
        prefers_aes: bool,
        calls: bool,
        compiled: bool,
    ) -> None:
        self.static: Final = static
        self.rng: Final = rng
        self.timestamps: Final = timestamps
        self.counters: Final = counters
        self.prefers_aes: Final = prefers_aes
        self.calls: Final = calls
        self.compiled: Final = compiled
        self.table: Final[IndexTable[Session]] = IndexTable(rng)
        self.outbox: Final[list[Outgoing]] = []
        self.expired: Final[list[bytes]] = []
        self.wake_ns = NEVER_NS

    def send(self, public_key: bytes | None, datagram: bytes) -> None:
        """Put a datagram into the outbox."""
        if len(self.outbox) >= OUTBOX_MAX:
            self.counters.drop("outbox-full")
            return
        self.outbox.append(Outgoing(public_key, datagram))

    def wake_by(self, at_ns: int) -> int:
        """Make sure of a tick at that time; return the time."""
        if at_ns < self.wake_ns:  # noqa: PLR1730 - a third of the price of min(), on the packet path.
            self.wake_ns = at_ns
        return at_ns

    def jitter_ns(self) -> int:
        """Return a random part of WireGuard's jitter."""
        return self.rng.randrange(REKEY_TIMEOUT_JITTER_NS + 1)


@final
class Session:
    """Everything about one peer.

    Args:
        local: Shared with the other sessions of this node.
        public_key: The peer, 32 bytes.
        psk: 32 bytes; zeros: none. May be changed; counts from the next handshake on.
        ours: Whether the peer is a node of ours. May be changed, too.

    Attributes:
        static_secret: Agreement of the two long-term keys; None: the peer's key is a low-order point, and no session
            with it will ever be.
        traversed_ns: When an authentic packet last went either way.
        reply_ns: When to send a keepalive because data came and nothing went back.
        renew_ns: When to start a handshake because data went and nothing came back.
    """

    __slots__ = (
        "_attempt",
        "_attempt_index",
        "_expire_ns",
        "_initiated_ns",
        "_jar",
        "_keepalive_ns",
        "_local",
        "_lost_highest",
        "_lost_received",
        "_newest_timestamp",
        "_persist_ns",
        "_responded_ns",
        "_retries",
        "_retry_ns",
        "_unanswered_ns",
        "current",
        "following",
        "ours",
        "previous",
        "psk",
        "public_key",
        "renew_ns",
        "reply_ns",
        "static_secret",
        "traversed_ns",
    )

    def __init__(self, local: Local, public_key: bytes, psk: bytes, *, ours: bool) -> None:
        self._local: Final = local
        self.public_key: Final = public_key
        self.psk, self.ours = psk, ours
        self.static_secret: Final = local.static.agree(public_key)
        self._jar: Final = CookieJar(public_key)
        self.current: Keypair | None = None
        self.following: Keypair | None = None
        self.previous: list[Keypair] = []
        self._attempt: Initiator | None = None
        self._attempt_index = 0
        self._retries = 0
        self._newest_timestamp = b""  # Of the peer's initiations; sorts below every timestamp.
        self._lost_highest = self._lost_received = 0  # Counts of keypairs that are gone.
        self._initiated_ns = self._responded_ns = self.traversed_ns = -NEVER_NS
        self._retry_ns = self.reply_ns = self.renew_ns = self._persist_ns = self._expire_ns = NEVER_NS
        self._keepalive_ns = 0
        self._unanswered_ns = _UNANSWERED_NS

    @property
    def deadline_ns(self) -> int:
        """The next timer; NEVER_NS: none."""
        return min(self._retry_ns, self.reply_ns, self.renew_ns, self._persist_ns, self._expire_ns)

    @property
    def loss_counts(self) -> tuple[int, int]:
        """Packets that the peer is known to have sent, and those that came; over all keypairs, both only grow."""
        highest, received = self._lost_highest, self._lost_received
        for keypair in self._keypairs():
            highest += keypair.window.highest + 1
            received += keypair.window.received
        return highest, received

    def is_fresh(self, now_ns: int) -> bool:
        """Return whether there is a session that needs no successor yet."""
        return self.current is not None and now_ns < self.current.reject_ns - REJECT_AFTER_TIME_NS + REKEY_AFTER_TIME_NS

    def set_keepalive(self, keepalive_ns: int, now_ns: int) -> None:
        """Send something at least this often, from now on; 0: only when the protocol asks for it."""
        if keepalive_ns != self._keepalive_ns:
            self._keepalive_ns = keepalive_ns
            self._persist_ns = self._local.wake_by(now_ns) if keepalive_ns else NEVER_NS

    # Sealing.

    def seal(self, plaintext: bytes, now_ns: int, wall_ns: int) -> bytes | None:
        """Return the data packet; None: no session now, and a handshake is under way."""
        keypair = self.current
        if keypair is None or now_ns >= keypair.reject_ns or keypair.sent >= REJECT_AFTER_MESSAGES:
            self.demand(now_ns, wall_ns)
            return None
        sealed = keypair.seal(plaintext)
        self._sent(keypair, now_ns, wall_ns, data=len(plaintext) > 0)
        return sealed

    def seal_burst(self, burst: Burst, now_ns: int, wall_ns: int) -> int | None:
        """Seal packets that stand in one buffer into another one; return where the last datagram ends there.

        None: no session now, and a handshake is under way; nothing was sealed.
        """
        keypair = self.current
        if keypair is None or now_ns >= keypair.reject_ns or keypair.sent + BURST_MAX > REJECT_AFTER_MESSAGES:
            self.demand(now_ns, wall_ns)
            return None
        batch, cut = keypair.batch_sealer, burst.cut
        if batch is not None and cut is not None:
            first, index = keypair.sent, keypair.remote_index
            start, until, head_bytes, size = cut
            counter = first - (start + head_bytes - until) // size  # The payload by the size, rounded up.
            seal = batch.seal_finished if burst.finished else batch.seal
            end = seal(keypair.kind, index, first, burst.source, *cut, burst.out, burst.room, burst.step)
        else:
            end, counter = self._seal_spans(keypair, burst)
        keypair.sent = counter
        self._sent(keypair, now_ns, wall_ns, data=True)
        return end

    @staticmethod
    def _seal_spans(keypair: Keypair, burst: Burst) -> tuple[int, int]:
        """Return where the last datagram ends, and the next counter."""
        seal, index, counter = keypair.sealer.encrypt_into, keypair.remote_index, keypair.sent
        source, out, step = burst.source, burst.out, burst.step
        kind, pack_header, pack_nonce = keypair.kind, DATA_HEADER.pack_into, NONCE.pack
        at, end = burst.room, 0
        for start, until in burst.spans:
            pack_header(out, at, kind, index, counter)
            body = at + DATA_HEADER_BYTES
            end = body + until - start + TAG_BYTES
            seal(pack_nonce(counter), source[start:until], None, out[body:end])
            counter += 1
            at += step
        return end, counter

    def _sent(self, keypair: Keypair, now_ns: int, wall_ns: int, *, data: bool) -> None:
        """Keep the timers after something was sealed."""
        self.traversed_ns = now_ns
        self.reply_ns = NEVER_NS
        if data and self.renew_ns == NEVER_NS:
            self.renew_ns = self._local.wake_by(now_ns + self._unanswered_ns)
        if now_ns >= keypair.rekey_ns or keypair.sent > REKEY_AFTER_MESSAGES:
            self.demand(now_ns, wall_ns)

    # Handshakes that we start.

    def demand(self, now_ns: int, wall_ns: int) -> None:
        """Start a handshake, unless one is under way or too near in time (then it starts later)."""
        self._retries = 0
        if self._retry_ns != NEVER_NS or not self._local.calls:
            return
        start_ns = max(self._initiated_ns + REKEY_TIMEOUT_NS, self._responded_ns + RESPONDED_HOLD_NS)
        if start_ns > now_ns:
            self._retry_ns = self._local.wake_by(start_ns)
        else:
            self._initiate(now_ns, wall_ns)

    def _initiate(self, now_ns: int, wall_ns: int) -> None:
        self._end_attempt()
        if self.static_secret is None:
            self._local.counters.drop("peer-weak")
            return
        local = self._local
        attempt = Initiator(
            static=local.static,
            static_secret=self.static_secret,
            responder=self.public_key,
            psk=self.psk,
            ephemeral=PrivateKey(local.rng.randbytes(KEY_BYTES)),
        )
        message = attempt.write(local.timestamps.following(wall_ns))
        assert message is not None  # A point is of low order for every key or for none, and it was not for ours.
        self._attempt, self._attempt_index = attempt, local.table.draw()
        local.table.attempts[self._attempt_index] = self
        self._initiated_ns = now_ns
        self._retry_ns = local.wake_by(now_ns + REKEY_TIMEOUT_NS + local.jitter_ns())
        self._send_handshake(INITIATION_HEADER.pack(INITIATION, self._attempt_index) + message, now_ns)

    def _end_attempt(self) -> None:
        """Forget the handshake under way, if there is one, and its retry."""
        self._retry_ns = NEVER_NS
        if self._attempt is not None:
            self._attempt = None
            del self._local.table.attempts[self._attempt_index]

    def _send_handshake(self, message: bytes, now_ns: int) -> None:
        self.traversed_ns, self.reply_ns = now_ns, NEVER_NS
        self._local.send(self.public_key, self._jar.finish(message, now_ns))

    def complete(self, datagram: bytes, now_ns: int, wall_ns: int) -> Established | None:
        """Take the answer to our handshake, 92 bytes with a right ``mac1``; None: it is not authentic."""
        assert self._attempt is not None  # Whoever calls found our index among the attempts.
        opened = self._attempt.read(datagram[RESPONSE_HEADER.size : -MACS_BYTES])
        if opened is None:
            self._local.counters.drop("response-wrong")
            return None
        _, send_key, receive_key = opened
        _, remote_index, local_index = RESPONSE_HEADER.unpack_from(datagram)
        self._end_attempt()
        self._retries = 0
        if self.following is not None:  # Both ends started at once; the peer may be using the one that it started.
            self._supersede(self.following)
            self.following = None
        self._use(
            Keypair(
                local_index=local_index,
                remote_index=remote_index,
                send_key=send_key,
                receive_key=receive_key,
                now_ns=now_ns,
                rekey_ns=now_ns + REKEY_AFTER_TIME_NS + self._local.jitter_ns(),
                ours=self.ours,
                compiled=self._local.compiled,
            )
        )
        self.traversed_ns, self.renew_ns = now_ns, NEVER_NS
        self._send_keepalive(now_ns, wall_ns)  # Confirms the session, so that the peer may use it.
        self._offer_aes()
        return Established(self.public_key, initiator=True)

    # Handshakes that the peer starts.

    def call_back(self, timestamp: bytes, now_ns: int, wall_ns: int) -> bool:
        """Start a handshake of ours if the peer's comes too late to be answered; return whether it does.

        It is a replay. Or the peer's clock is behind what it was, or behind that of a second process with its key: then
        none of its calls will be answered for a while, and ours will. It goes where the initiation came from. The
        newest one once more is no sign of that: copies of it go by several ways.
        """
        if timestamp > self._newest_timestamp:
            return False
        self._local.counters.drop("initiation-replayed")
        if timestamp < self._newest_timestamp:
            self.demand(now_ns, wall_ns)
        return True

    def respond(self, responder: Responder, timestamp: bytes, remote_index: int, now_ns: int) -> None:
        """Answer an authentic initiation that is newer than all before, unless it comes too fast."""
        local = self._local
        if now_ns < self._responded_ns + INITIATION_INTERVAL_NS:
            local.counters.drop("initiation-rate")
            return
        answer = responder.write(b"", ephemeral=PrivateKey(local.rng.randbytes(KEY_BYTES)), psk=self.psk)
        assert answer is not None  # Reading the initiation already agreed with both of its keys.
        message, send_key, receive_key = answer
        self._newest_timestamp, self._responded_ns = timestamp, now_ns
        if self.following is not None:
            self._drop(self.following)
        self.following = Keypair(
            local_index=local.table.draw(),
            remote_index=remote_index,
            send_key=send_key,
            receive_key=receive_key,
            now_ns=now_ns,
            rekey_ns=NEVER_NS,
            ours=self.ours,
            compiled=local.compiled,
        )
        self._register(self.following)
        header = RESPONSE_HEADER.pack(RESPONSE, self.following.local_index, remote_index)
        self.renew_ns = NEVER_NS
        self._send_handshake(header + message, now_ns)

    def confirm(self) -> None:
        """Start to use the keypair of our last answer: the peer's first packet under it came."""
        assert self.following is not None
        self._end_attempt()
        self._retries = 0
        confirmed, self.following = self.following, None
        if self.current is not None:
            self._supersede(self.current)
        self.current = confirmed
        self._offer_aes()

    def _offer_aes(self) -> None:
        """Show a node of ours, by an empty packet of kind 6, that we would rather have AES."""
        keypair = self.current
        if keypair is None or not self._local.prefers_aes:
            return
        offer = keypair.offer_aes()
        if offer is not None:
            self._local.send(self.public_key, offer)

    def offered_aes(self, keypair: Keypair) -> None:
        """Take an authentic packet of kind 6: whoever sends one would rather have AES as well."""
        if self._local.prefers_aes:
            keypair.use_aes()
            if self.current is not None:  # When both ends started at once, each may stay with its own keypair.
                self.current.use_aes()

    def is_outdated(self, keypair: Keypair, now_ns: int, wall_ns: int) -> bool:
        """Tell whether a keypair is of an earlier handshake than the one in use; if so for long, shake hands again.

        When both ends start at once, each may stay with its own for good: those two are of one time. But who uses an
        older one seconds later does not know the newer one, and hears nothing that we say: somebody else with the
        peer's key knows it, or did. A handshake of ours, which goes where the packet came from, mends that.
        """
        if self.current is None or self.current.reject_ns - keypair.reject_ns <= RESPONDED_HOLD_NS:
            return False
        if now_ns >= self.current.reject_ns - REJECT_AFTER_TIME_NS + REKEY_TIMEOUT_NS:
            self.demand(now_ns, wall_ns)
        return True

    def accept_cookie(self, reply: bytes, now_ns: int) -> bool:
        """Take a cookie reply; False: not authentic, or not asked for."""
        return self._jar.accept(reply, now_ns)

    # Keypairs.

    def _keypairs(self) -> tuple[Keypair, ...]:
        return tuple(keypair for keypair in (self.current, self.following, *self.previous) if keypair is not None)

    def _use(self, keypair: Keypair) -> None:
        if self.current is not None:
            self._supersede(self.current)
        self.current = keypair
        self._register(keypair)

    def _register(self, keypair: Keypair) -> None:
        self._local.table.keypairs[keypair.local_index] = (self, keypair)
        self._expire_ns = self._local.wake_by(min(self._expire_ns, keypair.reject_ns))
        # The jitter is drawn once for each keypair: entropy is too dear for each packet.
        self._unanswered_ns = _UNANSWERED_NS + self._local.jitter_ns()

    def _supersede(self, keypair: Keypair) -> None:
        self.previous.insert(0, keypair)
        if len(self.previous) > PREVIOUS_MAX:
            self._drop(self.previous.pop())

    def _drop(self, keypair: Keypair) -> None:
        del self._local.table.keypairs[keypair.local_index]
        self._lost_highest += keypair.window.highest + 1
        self._lost_received += keypair.window.received

    def _expire(self, now_ns: int) -> None:
        """Drop keypairs past the reject time; say so when the one in use is among them."""
        for keypair in self._keypairs():
            if now_ns < keypair.reject_ns:
                continue
            self._drop(keypair)
            if keypair is self.current:
                self.current = None
                if self.public_key not in self._local.expired:
                    self._local.expired.append(self.public_key)
            elif keypair is self.following:
                self.following = None
            else:
                self.previous.remove(keypair)
        self._expire_ns = min((keypair.reject_ns for keypair in self._keypairs()), default=NEVER_NS)

    @property
    def newest_timestamp(self) -> bytes:
        """Of the peer's authentic initiations: TAI64N, 12 bytes; empty: there was none."""
        return self._newest_timestamp

    def close(self) -> None:
        """Forget all keys, and what was to be done; the peer may shake hands again, but no older handshake counts."""
        self._end_attempt()
        for keypair in self._keypairs():
            self._drop(keypair)
        self.current = self.following = None
        self.previous.clear()
        self.reply_ns = self.renew_ns = self._expire_ns = NEVER_NS

    # Time.

    def arm_reply(self, now_ns: int) -> None:
        """Data came: something must go back within the keepalive time."""
        self.reply_ns = self._local.wake_by(now_ns + KEEPALIVE_TIMEOUT_NS)

    def tick(self, now_ns: int, wall_ns: int) -> None:
        """Do what is due."""
        if now_ns >= self._expire_ns:
            self._expire(now_ns)
        if now_ns >= self._retry_ns:
            self._retry(now_ns, wall_ns)
        if now_ns >= self.renew_ns:
            self.renew_ns = NEVER_NS
            self.demand(now_ns, wall_ns)
        if now_ns >= self.reply_ns:
            self._send_keepalive(now_ns, wall_ns)
        if now_ns >= self._persist_ns:
            if now_ns >= self.traversed_ns + self._keepalive_ns:
                self._send_keepalive(now_ns, wall_ns)
                self._persist_ns = now_ns + self._keepalive_ns
            else:
                self._persist_ns = self.traversed_ns + self._keepalive_ns

    def _retry(self, now_ns: int, wall_ns: int) -> None:
        if self._attempt is not None:
            self._retries += 1
        if self._retries >= REKEY_ATTEMPTS_MAX:
            self._end_attempt()
        else:
            self._initiate(now_ns, wall_ns)

    def _send_keepalive(self, now_ns: int, wall_ns: int) -> None:
        self.reply_ns = NEVER_NS  # Also when there is no session: a keepalive is not worth keeping for later.
        datagram = self.seal(b"", now_ns, wall_ns)
        if datagram is not None:
            self._local.send(self.public_key, datagram)
