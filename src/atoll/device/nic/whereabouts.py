# SPDX-License-Identifier: Apache-2.0
"""Decides where a peer is: to which endpoint what goes directly is sent. Normative text: docs/spec/relay.md, section 5.

Theory of operation. That an authentic datagram came from an address proves nothing: whoever relays it could have taken
its frame off and sent it from his own. But each control message says, under the session's seal, whether it was *sent*
directly (a *mark*). A mark goes to no relay. So who brings one from an address stands on the direct path, or is the
peer itself.

A peer that moves is heard from its new address while the old one falls silent. So a rival endpoint wins when
``MARKS_TO_MOVE`` marks in a row came from it and none from the old one; until then the old one is kept, and from the
second mark on what we say directly goes to both, so that the rival can be heard to answer. Marks must be fresh, that
is, newer than all that came in the session: nobody can save them up.

TCP is the last resort. Places that are reached over it are asked, and believed, only when all others are silent; while
one of them is in use the others are tried from time to time, and the first that answers is preferred at once.
"""

from typing import Final, final

from atoll.base.ids import Endpoint, is_tcp

__all__ = ["MARKS_TO_ASK", "MARKS_TO_MOVE", "SILENT_ASKS", "SUGGESTED_MAX", "Whereabouts"]

MARKS_TO_MOVE: Final = 3  # An on-path thief of one packet moves nothing; a peer under suspicion sends 50 a second.
MARKS_TO_ASK: Final = 2
SILENT_ASKS: Final = 32  # After so many questions without a mark, other places are asked, and those over TCP.
SUGGESTED_MAX: Final = 2  # Limit. Whatever members say, we knock at so few places.


@final
class Whereabouts:
    """Where one peer is.

    Attributes:
        endpoint: Where to send; None: unknown.
        proven: Whether a mark of the present session came from there; if not, the next mark decides.
        listed: Where the peer says that it is over UDP, best first; ``listed_tcp``: over TCP.
        good: The last endpoint that was proven, in any session; None: none yet.
        suggested: Where members see it, newest first, at most SUGGESTED_MAX; none after a mark from ``endpoint``.
        rival: Another place from which marks come; None: none.
        rival_marks: How many came from it since the last one from ``endpoint``.
    """

    __slots__ = (
        "_silent",
        "_turn",
        "endpoint",
        "good",
        "listed",
        "listed_tcp",
        "proven",
        "rival",
        "rival_marks",
        "suggested",
    )

    def __init__(self) -> None:
        self.endpoint: Endpoint | None = None
        self.good: Endpoint | None = None
        self.rival: Endpoint | None = None
        self.listed: tuple[Endpoint, ...] = ()
        self.listed_tcp: tuple[Endpoint, ...] = ()
        self.suggested: tuple[Endpoint, ...] = ()
        self.proven, self.rival_marks, self._turn, self._silent = False, 0, 0, 0

    @property
    def is_carried(self) -> bool:
        """Whether what goes directly goes over TCP now."""
        return self.endpoint is not None and is_tcp(self.endpoint)

    def list(self, listed: tuple[Endpoint, ...], *, up: bool) -> bool:
        """Take what the peer now says about where it is; return whether that is news. A live session stays put."""
        plain = tuple(one for one in listed if not is_tcp(one))
        carried = tuple(one for one in listed if is_tcp(one))
        if (plain, carried) == (self.listed, self.listed_tcp):
            return False
        self.listed, self.listed_tcp = plain, carried
        if not up and plain:
            self.endpoint, self.proven = plain[0], False
        return True

    def called(self, source: Endpoint) -> bool:
        """Note an authentic and fresh call from there, not in a frame; return whether the endpoint changed.

        It may have come through a relay that took its frame off, so it moves nothing that is known; but the peer may
        have begun anew elsewhere, so its next mark decides.
        """
        if self.endpoint is None:
            self.endpoint = source
            return True
        if source != self.endpoint:
            self.proven = False
        return False

    def answered(self, source: Endpoint) -> bool:
        """Note an answer to our call from there, not in a frame; return whether the endpoint changed.

        One of the places where we called is a better guess than the first of the list.
        """
        if self.proven or source == self.endpoint:
            return False
        if self.endpoint is not None and source not in self.known() and source not in self.listed_tcp:
            return False
        self.endpoint = source
        return True

    def marked(self, source: Endpoint) -> bool:
        """Note a fresh mark from there; return whether the endpoint is another one now, or was proven just now."""
        if source == self.endpoint:
            news = not self.proven
        elif not self.proven:
            news = True
        elif is_tcp(source) and not self.is_carried and self._silent < SILENT_ASKS:
            return False  # The peer does not know yet that UDP passes, or knows before us that it does not.
        else:
            self.rival_marks = self.rival_marks + 1 if source == self.rival else 1
            self.rival = source
            news = self.rival_marks >= MARKS_TO_MOVE
            if not news:
                return False
        self._prove(source)
        return news

    def passed(self, source: Endpoint) -> bool:
        """Note that what we asked there over UDP was answered from there; return whether that ends a stay on TCP."""
        if not self.is_carried or is_tcp(source):
            return False
        self._prove(source)
        return True

    def lost(self, endpoint: Endpoint) -> None:
        """Note that a connection has ended."""
        if self.rival == endpoint:
            self.rival, self.rival_marks = None, 0
        if self.good == endpoint:
            self.good = None
        if self.endpoint == endpoint:
            self.endpoint, self.proven = next(iter(self.listed), None), False

    def _prove(self, source: Endpoint) -> None:
        self.endpoint = self.good = source
        self.proven, self.rival, self.rival_marks, self.suggested = True, None, 0, ()
        self._silent = 0

    def suggest(self, place: Endpoint) -> None:
        """Take another member's word for where it is: enough to knock there, and to believe nothing."""
        self.suggested = (place, *(one for one in self.suggested if one != place))[:SUGGESTED_MAX]

    def asked(self) -> tuple[Endpoint, ...]:
        """Return where a direct control message goes as well.

        That is the rival, and what others suggest. While no place is proven, or the proven one is silent, it is in turn
        one of those listed as well; and after a long silence one of those over TCP.
        """
        self._silent = min(self._silent + 1, SILENT_ASKS)
        places = list(self.suggested)
        if self.rival is not None and self.rival_marks >= MARKS_TO_ASK:
            places.insert(0, self.rival)
        is_silent = self._silent == SILENT_ASKS
        self._turn += 1
        if not self.proven or is_silent:
            places += self._in_turn(self.listed)
        if is_silent:
            places += self._in_turn(self.listed_tcp)
        return tuple(place for place in dict.fromkeys(places) if place != self.endpoint)

    def trial(self) -> Endpoint | None:
        """Return one of the places over UDP to try while TCP is in use; None: there is none."""
        self._turn += 1
        return next(iter(self._in_turn(tuple(one for one in self.known() if not is_tcp(one)))), None)

    def tcp(self) -> Endpoint | None:
        """Return one of the places over TCP, in turn; None: there is none."""
        self._turn += 1
        return next(iter(self._in_turn(self.listed_tcp)), None)

    def _in_turn(self, places: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        return (places[self._turn % len(places)],) if places else ()

    def known(self) -> tuple[Endpoint, ...]:
        """Return all the places where it may be but those listed over TCP, best first, each once."""
        return tuple(
            dict.fromkeys(one for one in (self.endpoint, self.good, *self.listed, *self.suggested) if one is not None)
        )
