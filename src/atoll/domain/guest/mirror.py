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
from atoll.env.channel import Channel
from atoll.env.limits import PARTIES_MAX
from atoll.env.parties import PARTY_BYTES
from atoll.env.records import Effect, Item, Note, Post
from atoll.env.state import State

__all__ = ["Mirror"]

_state_decoder: Final = msgspec.msgpack.Decoder(State)
_items_decoder: Final = msgspec.msgpack.Decoder(list[Item])


@final
class Mirror:
    """The channels.

    Args:
        channels: Channel by party; None: a new environment.
        now_ns: As below.

    Attributes:
        now_ns: Time of the last input when the state was written.
    """

    def __init__(self, channels: dict[bytes, Channel] | None = None, now_ns: int = 0) -> None:
        self._channels: dict[bytes, Channel] = {} if channels is None else channels
        self.now_ns: Final = now_ns

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
                if parcel.first != sent + 1 or parcel.count < 1:
                    raise CorruptError("a snapshot whose channels have gaps")
                sent += parcel.count
            if len(party) != PARTY_BYTES or sent != channel.sent or min(sent, channel.received) < 0:
                raise CorruptError("a snapshot whose channels cannot be")
        return cls(state.channels, state.now_ns)

    def received(self, party: bytes) -> int:
        """Return the number of the last item that was taken of a party."""
        channel = self._channels.get(party)
        return 0 if channel is None else channel.received

    def confirmed(self, party: bytes) -> int:
        """Return the number of our last item that a party has confirmed."""
        channel = self._channels.get(party)
        return 0 if channel is None else channel.sent - channel.unconfirmed

    def owes(self, party: bytes) -> int:
        """Return how many items a party has not confirmed."""
        channel = self._channels.get(party)
        return 0 if channel is None else channel.unconfirmed

    def taken(self) -> dict[bytes, int]:
        """Return the number of the last item that was taken, of every party."""
        return {party: channel.received for party, channel in self._channels.items()}

    def owed(self) -> tuple[Post, ...]:
        """Return everything that parties have not confirmed; oldest first for each party."""
        return tuple(
            Post(party, parcel.first, parcel.count, parcel.payload)
            for party, channel in self._channels.items()
            for parcel in channel.outbox
        )

    def confirm(self, party: bytes, upto: int) -> None:
        """Note that a party has our items up to a number."""
        channel = self._channels.get(party)
        if channel is not None:
            channel.confirm(min(upto, channel.sent))

    def took(self, party: bytes, upto: int, last: int) -> None:
        """Note up to which item of a party was taken, when it was given them up to ``last`` at most.

        Raises:
            WireError: That cannot be.
        """
        channel = self._channel(party)
        if not channel.received <= upto <= max(last, channel.received):
            raise WireError("items that nobody sent")
        channel.received = upto

    def sent(self, effects: Iterable[Effect]) -> None:
        """Note what goes out.

        Raises:
            WireError: It cannot be sent.
        """
        for effect in effects:
            if isinstance(effect, Note) and len(effect.text) > NOTE_CHARS_MAX:
                raise WireError("a line that is too long")
            if not isinstance(effect, Post):
                continue
            channel = self._channel(effect.party)
            if effect.first == 1 and channel.sent and not channel.outbox:
                channel = self._channels[effect.party] = Channel()  # It was forgotten, and known again at once.
            if effect.first != channel.sent + 1 or effect.count != _count(effect.items):
                raise WireError("items out of order")
            channel.send(effect.count, effect.items)

    def forget(self, parties: Iterable[bytes]) -> None:
        """Note who is known no more.

        Raises:
            WireError: Something is owed to one of them.
        """
        for party in parties:
            if self.owes(party):
                raise WireError("a party is forgotten to which something is owed")
            self._channels.pop(party, None)

    def _channel(self, party: bytes) -> Channel:
        channel = self._channels.get(party)
        if channel is None:
            if len(party) != PARTY_BYTES or len(self._channels) >= 2 * PARTIES_MAX:
                raise WireError("too many parties")
            channel = self._channels[party] = Channel()
        return channel


def _count(items: bytes) -> int:
    try:
        return len(_items_decoder.decode(items))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("items") from error
