# SPDX-License-Identifier: Apache-2.0
"""What the server keeps of a guest's channels: enough to say what a party has sent and what is owed to it.

It follows from the records that went in and the effects that came out, so a guest is asked for none of it, and what
is sent again is what was sent before. Whatever a guest says that does not fit is a fault; it is never taken over.
"""

from collections.abc import Iterable
from typing import Final, final

import msgspec

from atoll.base.errors import CorruptError, WireError
from atoll.env.asking import NOTE_CHARS_MAX
from atoll.env.channel import Channel, Parcel
from atoll.env.limits import PARTIES_KNOWN_MAX, PARTY_SILENT_NS
from atoll.env.parties import PARTY_BYTES
from atoll.env.records import Effect, Item, Note, Post
from atoll.env.state import State

__all__ = ["Mirror"]

_CHANNELS_MAX: Final = 2 * PARTIES_KNOWN_MAX  # Limit. An environment refuses new parties long before it.

_state_decoder: Final = msgspec.msgpack.Decoder(State)
_items_decoder: Final = msgspec.msgpack.Decoder(list[Item])


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
            channel.confirm(min(upto, channel.sent))

    def given_up(self, party: bytes, upto: int) -> None:
        """Note that a party has forgotten the environment."""
        channel = self._channels.get(party)
        if channel is not None:
            channel.give_up(upto)

    def took(self, party: bytes, upto: int, last: int, lived_ns: int) -> None:
        """Note up to which item of a party was taken, when it was given them up to ``last`` at most.

        Raises:
            WireError: That cannot be.
        """
        channel = self._channel(party, lived_ns)
        channel.heard_ns = lived_ns
        if not channel.received <= upto <= max(last, channel.received):
            raise WireError("items that nobody sent")
        channel.received = upto

    def sent(self, effects: Iterable[Effect], now_ns: int, lived_ns: int) -> None:
        """Note what goes out.

        Raises:
            WireError: It cannot be sent.
        """
        for effect in effects:
            if isinstance(effect, Note) and len(effect.text) > NOTE_CHARS_MAX:
                raise WireError("a line that is too long")
            if not isinstance(effect, Post):
                continue
            channel = self._channel(effect.party, lived_ns)
            if effect.party in self._unused:
                self._unused.discard(effect.party)
                channel.sent = min(max(0, effect.first - 1), self._floor)
            if effect.first != channel.sent + 1 or effect.count != _count(effect.items):
                raise WireError("items out of order")
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
            if channel.outbox and channel.heard_ns > lived_ns - PARTY_SILENT_NS:
                raise WireError("a party is forgotten to which something is owed")
            del self._channels[party]
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


def _count(items: bytes) -> int:
    try:
        return len(_items_decoder.decode(items))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("items") from error
