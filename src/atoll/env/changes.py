# SPDX-License-Identifier: Apache-2.0
"""Tuples that every program knows: what changes around it, how a call fails, and how spaces are used from outside.

Change is exposed, not hidden: an application hears that it was moved or restored, and gets everything again that it
held of its surroundings (Grimm et al., "System support for pervasive applications", TOCS 22(4), 2004).

The requests to a space are ordinary tuples: ``await ctx.call(store, Read(where(Job), 10))``. The environment answers
them itself, if its application ``shared`` the type and has no handler for the request. On the wire they are called
``atoll.Put`` and so on, so that a program may have tuples called ``Put`` and ``Take`` of its own.
"""

from typing import Any, Final

from atoll.env.limits import SPACE_READ_MAX
from atoll.env.parties import Ref
from atoll.env.query import Query
from atoll.env.tuples import Tuple

__all__ = [
    "BUILT_IN",
    "CHANGES",
    "Copied",
    "Done",
    "Failure",
    "LeaseLost",
    "Matched",
    "Matches",
    "Moved",
    "PeerSlow",
    "Placed",
    "Put",
    "Read",
    "Renew",
    "Request",
    "Resolved",
    "Restored",
    "Started",
    "Take",
    "Unwatch",
    "Watch",
    "Watching",
]


class Started(Tuple, frozen=True):
    """The environment has begun; the first event of its life."""


class Restored(Tuple, frozen=True):
    """It runs again, on the node ``node``, after that node or another one had stopped.

    Attributes:
        node: Where it runs now.
    """

    node: str


class Copied(Tuple, frozen=True):
    """It is a copy, and begins with what another environment was; nobody owes it anything, nor it anybody.

    Attributes:
        source: Name of the other one.
    """

    source: str


class Moved(Tuple, frozen=True):
    """It runs on another node now, on purpose.

    Attributes:
        source: Where it ran.
        node: Where it runs now.
    """

    source: str
    node: str


class PeerSlow(Tuple, frozen=True):
    """A member of the group is slow, or no longer.

    Attributes:
        node: Which.
        slow: Whether it is.
        reason: For people.
    """

    node: str
    slow: bool
    reason: str


class LeaseLost(Tuple, frozen=True):
    """The lease of something that this environment itself put or watched has run out.

    Attributes:
        key: Key of the tuple, or number of the watch.
        event: The tuple, of its type if the program knows that, else a dict; None: it was a watch.
    """

    key: int
    event: Any  # A tuple of any type, which only the program knows.


class Failure(Tuple, frozen=True):
    """What a call gives when there is no response; exactly one of the two comes.

    Attributes:
        code: ``timeout``, ``raised``, ``killed``, ``grown``, ``unhandled``, ``unknown``, ``unexpected``, ``forbidden``,
            ``queue-full``, ``too-large``, ``too-deep``, ``disk-full`` or ``ended``.
        text: For people.
    """

    code: str
    text: str = ""


class Done(Tuple, frozen=True):
    """The response to a call whose handler has nothing to say."""


class Request(Tuple, frozen=True):
    """What a nested environment asks of the outside, as its outer one sees it.

    Attributes:
        path: The nested environment.
        party: Whom it wants to reach, 16 bytes.
        what: The type of the tuple.
        event: The tuple, encoded.
    """

    path: str
    party: bytes
    what: str
    event: bytes


class Resolved(Tuple, frozen=True, tag="atoll.Resolved"):
    """Who is meant by a name: the response of ``ctx.resolve``.

    Attributes:
        refs: At least one, in the order of their ids.
    """

    refs: tuple[Ref, ...]


# Requests to a space of another environment, and their responses.


class Put(Tuple, frozen=True, tag="atoll.Put"):
    """Place a tuple in your space. Response: ``Placed``.

    Attributes:
        event: The tuple, of a type that is shared there.
        lease_s: How long it is to stay, brought within 1 s and 10 min; None: 1 min. ``Renew`` makes it longer.
    """

    event: Any  # As in LeaseLost.
    lease_s: float | None = None


class Read(Tuple, frozen=True, tag="atoll.Read"):
    """Give me what matches, oldest first. Response: ``Matches``.

    Attributes:
        query: Which; it names types, and all of them are shared there.
        limit: At most so many.
    """

    query: Query
    limit: int = SPACE_READ_MAX


class Take(Tuple, frozen=True, tag="atoll.Take"):
    """Give me what matches, and remove it. Response: ``Matches``. Fields as in ``Read``."""

    query: Query
    limit: int = 1


class Watch(Tuple, frozen=True, tag="atoll.Watch"):
    """Send me a ``Matched`` for each tuple that is put from now on and matches. Response: ``Watching``.

    Attributes:
        query: As in ``Read``.
        lease_s: As in ``Put``.
    """

    query: Query
    lease_s: float | None = None


class Unwatch(Tuple, frozen=True, tag="atoll.Unwatch"):
    """End a watch of mine. Response: ``Done``, or a ``Failure`` ``unknown``.

    Attributes:
        number: As ``Watching`` gave it.
    """

    number: int


class Renew(Tuple, frozen=True, tag="atoll.Renew"):
    """Let what I put or watch last so long from now. Response: ``Placed``, or a ``Failure`` ``unknown``.

    Attributes:
        key: Key of the tuple, or number of the watch.
        lease_s: As in ``Put``.
    """

    key: int
    lease_s: float | None = None


class Placed(Tuple, frozen=True, tag="atoll.Placed"):
    """A tuple is in the space, or stays longer.

    Attributes:
        key: Its key.
        expires_ns: When its lease ends, ns since 1970 by the clock of that environment.
    """

    key: int
    expires_ns: int


class Matches(Tuple, frozen=True, tag="atoll.Matches"):
    """What matched.

    Attributes:
        tuples: Each of its type if the receiving program knows that, else a dict; oldest first.
        more: There was no room for the others in one response: ask again.
    """

    tuples: tuple[Any, ...]  # As in LeaseLost.
    more: bool = False


class Watching(Tuple, frozen=True, tag="atoll.Watching"):
    """A watch is set.

    Attributes:
        number: Its number.
        expires_ns: As in ``Placed``.
    """

    number: int
    expires_ns: int


class Matched(Tuple, frozen=True, tag="atoll.Matched"):
    """A tuple was put that matches a watch.

    The tuple does not come bare, because a handler could not tell it from one that a stranger sent directly, nor which
    watch it belongs to.

    Attributes:
        watch: Number of the watch.
        key: Key of the tuple.
        event: The tuple, as in ``LeaseLost``.
    """

    watch: int
    key: int
    event: Any  # As in LeaseLost.


CHANGES: Final[frozenset[type[Tuple]]] = frozenset((Started, Restored, Copied, Moved, PeerSlow, LeaseLost))
"""What only the surroundings of an environment say. A party that sends one is refused."""

BUILT_IN: Final[tuple[type[Tuple], ...]] = (
    *(Started, Restored, Copied, Moved, PeerSlow, LeaseLost, Failure, Done, Resolved),
    *(Put, Read, Take, Watch, Unwatch, Renew, Placed, Matches, Watching, Matched),
)
