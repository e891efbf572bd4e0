# SPDX-License-Identifier: Apache-2.0
"""What the server keeps of a guest's channels: enough to say what a party has sent and what is owed to it.

It follows from the records that went in and the effects that came out, so a guest is asked for none of it, and what
is sent again is what was sent before. Whatever a guest says that does not fit is a fault; it is never taken over.
"""

from collections.abc import Iterable
from typing import Final, final

import msgspec

from atoll.base.errors import CorruptError, WireError
from atoll.domain.limits import GUEST_ANSWER_BYTES_MAX, GUEST_OWED_BYTES_MAX, GUEST_OWED_PARCELS_MAX
from atoll.env.asking import NOTE_CHARS_MAX
from atoll.env.channel import Channel, Parcel
from atoll.env.limits import INBOX_ITEMS_MAX, NESTING_MAX, PARTIES_KNOWN_MAX, UNCONFIRMED_MAX
from atoll.env.nesting import are_shallow
from atoll.env.parties import PARTY_BYTES
from atoll.env.records import Effect, Item, Note, Post
from atoll.env.state import State

__all__ = ["Mirror"]

_CHANNELS_MAX: Final = 2 * PARTIES_KNOWN_MAX  # Limit. An environment refuses new parties long before it.
FAILURES_MAX: Final = INBOX_ITEMS_MAX
"""Limit. So many parcels more may be owed once nothing else may, and as many bytes as one answer has: whoever sent what
fails is told so, and all that waits may fail before anything is confirmed."""

_state_decoder: Final = msgspec.msgpack.Decoder(State)
_items_decoder: Final = msgspec.msgpack.Decoder(list[Item])
_raw_items: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])


@final
class Mirror:
    """The channels.

    Args:
        state: What the guest goes on from; None: a new environment.

    Attributes:
        now_ns: Time of the last input when the state was written.
        lived_ns: As of ``State``, when it was written.
        forgot_ns: As of ``State``.
    """

    def __init__(self, state: State | None = None) -> None:
        state = State() if state is None else state
        self._channels, self._floor = state.channels, state.floor
        self._unused: set[bytes] = set()  # Known anew, and nothing was sent to them: where their numbers begin.
        self.now_ns: Final = state.now_ns
        self.lived_ns: Final = state.lived_ns
        self.forgot_ns = state.forgot_ns
        owed = [parcel for channel in self._channels.values() for parcel in channel.outbox]
        self._before: tuple[Channel, int] | None = None  # What the record at hand has moved, and from where.
        self._parcels, self._bytes = len(owed), sum(len(parcel.payload) for parcel in owed)

    @classmethod
    def of(cls, snapshot: bytes) -> "Mirror":
        """Return that of a state.

        Raises:
            CorruptError: It is none, or its channels cannot be.
        """
        try:
            state = _state_decoder.decode(snapshot)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptError(f"a snapshot that does not decode: {error}") from error
        for party, channel in state.channels.items():
            sent = channel.outbox[0].first - 1 if channel.outbox else channel.sent
            for parcel in channel.outbox:
                if parcel.first != sent + 1 or parcel.count < 1 or parcel.made_ns < 0:
                    raise CorruptError("a snapshot whose channels have gaps")
                sent += parcel.count
            if len(party) != PARTY_BYTES or sent != channel.sent or min(sent, channel.received) < 0:
                raise CorruptError("a snapshot whose channels cannot be")
        if min(state.floor, state.lived_ns, state.forgot_ns + 1) < 0:
            raise CorruptError("a snapshot whose channels cannot be")
        return cls(state)

    def received(self, party: bytes) -> int:
        """Return the number of the last item that was taken of a party."""
        channel = self._channels.get(party)
        return 0 if channel is None else channel.received

    def confirmed(self, party: bytes) -> int:
        """Return the number of our last item that a party has confirmed."""
        channel = self._channels.get(party)
        return 0 if channel is None else channel.settled

    def owes(self, party: bytes) -> int:
        """Return how many items a party has not confirmed."""
        channel = self._channels.get(party)
        return 0 if channel is None else channel.unconfirmed

    def knows(self, party: bytes) -> bool:
        """Return whether a party is known."""
        return party in self._channels

    @property
    def parties(self) -> int:
        """How many parties are known."""
        return len(self._channels)

    def room(self, lived_ns: int) -> int:
        """Return how many parties that are not known can be known now, but for those of which something is asked."""
        idle = sum(channel.may_go(lived_ns) for channel in self._channels.values())
        return PARTIES_KNOWN_MAX - len(self._channels) + idle

    def taken(self) -> dict[bytes, int]:
        """Return the number of the last item that was taken, of every party."""
        return {party: channel.received for party, channel in self._channels.items()}

    def owed(self) -> tuple[tuple[bytes, Parcel], ...]:
        """Return everything that parties have not confirmed; oldest first for each party."""
        return tuple((party, parcel) for party, channel in self._channels.items() for parcel in channel.outbox)

    def confirm(self, party: bytes, upto: int, lived_ns: int) -> None:
        """Note that a party has our items up to a number."""
        channel = self._channels.get(party)
        if channel is not None:
            channel.heard_ns = lived_ns
            owed = channel.outbox[:]
            channel.confirm(min(upto, channel.sent))
            self._shed(owed, channel)

    def given_up(self, party: bytes, upto: int) -> None:
        """Note that a party has forgotten the environment."""
        channel = self._channels.get(party)
        if channel is not None:
            owed = channel.outbox[:]
            channel.give_up(upto)
            self._shed(owed, channel)

    def _shed(self, owed: list[Parcel], channel: Channel) -> None:
        """Count what is not owed any more."""
        gone = owed[: len(owed) - len(channel.outbox)]
        self._parcels -= len(gone)
        self._bytes -= sum(len(parcel.payload) for parcel in gone)

    def begin(self) -> None:
        """Note that a record is given to the guest."""
        self._before = None

    def took(self, party: bytes, upto: int, last: int, lived_ns: int) -> None:
        """Note up to which item of a party was taken, when it was given them up to ``last`` at most.

        Raises:
            WireError: That cannot be.
        """
        channel = self._channel(party, lived_ns)
        channel.heard_ns = lived_ns
        if not channel.received <= upto <= max(last, channel.received):
            raise WireError("items that nobody sent")
        self._before = channel, channel.received
        channel.received = upto

    def take_back(self) -> None:
        """Undo what ``took`` has noted since ``begin``: what else was said cannot be, so none of the items is taken."""
        if self._before is not None:
            channel, received = self._before
            channel.received = received

    def sent(self, effects: Iterable[Effect], now_ns: int, lived_ns: int, *, of_failure: bool = False) -> None:
        """Note what goes out.

        Args:
            effects: Of a record.
            now_ns: Time of the record.
            lived_ns: The same, as of ``State``.
            of_failure: Whether the record says that a handler has failed.

        Raises:
            WireError: It cannot be sent.
        """
        spare = (FAILURES_MAX, GUEST_ANSWER_BYTES_MAX) if of_failure else (0, 0)
        parcels_max, bytes_max = GUEST_OWED_PARCELS_MAX + spare[0], GUEST_OWED_BYTES_MAX + spare[1]
        for effect in effects:
            if isinstance(effect, Note) and len(effect.text) > NOTE_CHARS_MAX:
                raise WireError("a line that is too long")
            if not isinstance(effect, Post):
                continue
            channel = self._channel(effect.party, lived_ns)
            if effect.party in self._unused:
                self._unused.discard(effect.party)
                channel.sent = min(max(0, effect.first - 1), self._floor)
            if effect.first != channel.sent + 1 or effect.count != _count(effect.items, channel.unconfirmed):
                raise WireError("items out of order")
            if self._parcels >= parcels_max or self._bytes + len(effect.items) > bytes_max:
                raise WireError("more than can be owed to its parties")
            self._parcels, self._bytes = self._parcels + 1, self._bytes + len(effect.items)
            channel.send(effect.count, effect.items, now_ns)

    def forget(self, parties: Iterable[bytes], lived_ns: int) -> None:
        """Note who was forgotten. What the same record sent to one of them comes after it.

        Raises:
            WireError: Something is owed to one of them.
        """
        for party in parties:
            channel = self._channels.get(party)
            if channel is None:
                continue
            if channel.outbox and not channel.may_go(lived_ns):
                raise WireError("a party is forgotten to which something is owed")
            del self._channels[party]
            owed, channel.outbox = channel.outbox, []
            self._shed(owed, channel)
            self._floor, self.forgot_ns = max(self._floor, channel.sent), max(self.forgot_ns, channel.heard_ns)
            self._unused.discard(party)

    def _channel(self, party: bytes, lived_ns: int) -> Channel:
        channel = self._channels.get(party)
        if channel is None:
            if len(party) != PARTY_BYTES or len(self._channels) >= _CHANNELS_MAX:
                raise WireError("too many parties")
            channel = self._channels[party] = Channel(heard_ns=lived_ns)
            self._unused.add(party)
        return channel


def _count(items: bytes, unconfirmed: int) -> int:
    """Return how many items these are.

    Raises:
        WireError: They are none, nest too deep, or some that respond to nothing are beyond what may be on its way
            (``Channel.room``).
    """
    try:
        decoded = _items_decoder.decode(items)
        is_shallow = are_shallow(_raw_items.decode(items), NESTING_MAX + 1)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("items") from error
    if not is_shallow:
        raise WireError("items that nest too deep")
    if unconfirmed + len(decoded) > UNCONFIRMED_MAX:
        room = max(0, UNCONFIRMED_MAX - unconfirmed)
        if not all(item.re for item in decoded[room:]):
            raise WireError("more items than may be on their way")
    return len(decoded)
