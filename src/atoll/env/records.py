# SPDX-License-Identifier: Apache-2.0
"""What comes into an environment and what goes out: the inputs and effects of the machine ``Environment``.

An input is a *record* of the journal. Handlers have no other way to learn anything, so records are all that a replay
needs. Effects are not kept: a replay makes them again, and a digest says whether they are the same.
"""

from typing import Annotated, Final, Literal

import msgspec

from atoll.base.ids import NODE_ID_BYTES
from atoll.core.machine import Tuple
from atoll.env.limits import COPIES
from atoll.env.parties import PARTY_BYTES, PATH_CHARS_MAX

__all__ = [
    "CODE_BYTES",
    "FOUND_MAX",
    "INLINE",
    "PROCESS",
    "TEXT_CHARS_MAX",
    "Arrived",
    "Began",
    "Checkpointed",
    "Confirmed",
    "Effect",
    "Ended",
    "Failed",
    "Fired",
    "Forgotten",
    "Found",
    "Held",
    "Item",
    "Level",
    "Note",
    "Opened",
    "Post",
    "Record",
    "Resolve",
    "Stopped",
    "Told",
    "Upgraded",
]

Party = Annotated[bytes, msgspec.Meta(min_length=PARTY_BYTES, max_length=PARTY_BYTES)]
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
CODE_BYTES: Final = 32
INLINE: Final = "inline"  # Handlers run in the process that all environments of a node share.
PROCESS: Final = "process"  # Handlers run in a process of their own, which can do nothing but compute.
Level = Literal["inline", "process"]
TEXT_CHARS_MAX: Final = 500
FOUND_MAX: Final = 1_024  # Limit. Parties that one name may mean; whoever answers leaves out the others.
Node = Annotated[bytes, msgspec.Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]
Path = Annotated[str, msgspec.Meta(max_length=PATH_CHARS_MAX)]
Text = Annotated[str, msgspec.Meta(max_length=TEXT_CHARS_MAX)]


class Item(msgspec.Struct, frozen=True, array_like=True):
    """One thing that a party says to another.

    Attributes:
        event: An encoded tuple.
        ask: Number of the call whose response is wanted, chosen by the sender; 0: none is.
        re: Number of the call of the receiver's that this responds to; 0: none.
        to: Which nested environment of the receiver; empty: the outermost.
        by: Which nested environment of the sender.
    """

    event: msgspec.Raw
    ask: Count = 0
    re: Count = 0
    to: Path = ""
    by: Path = ""


# Records.


class Began(Tuple, frozen=True, tag=1):
    """The first record of a journal.

    Attributes:
        id: The environment as a party.
        seed: 32 bytes of entropy, from which all its randomness follows.
        name: How people call it.
        code: SHA-256 of the code that it runs.
        arguments: Encoded map of the fields that were given.
        node: Who began it; may be asked to do things to it wherever it runs. Empty: a trial.
        level: Where its handlers run, at each node: ``INLINE`` or ``PROCESS``.
        state: What ``Environment.snapshot`` gave of another one that this is a copy of; empty: it is none.
        source: Name of that one.
    """

    id: Party
    seed: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    name: str
    code: Annotated[bytes, msgspec.Meta(min_length=CODE_BYTES, max_length=CODE_BYTES)]
    arguments: bytes
    node: Annotated[bytes, msgspec.Meta(max_length=NODE_ID_BYTES)] = b""
    level: Level = INLINE
    state: bytes = b""
    source: str = ""


class Arrived(Tuple, frozen=True, tag=2):
    """Items of one party, in order.

    Attributes:
        party: Who sent them.
        first: Number of the first one in its channel; if it is not the next one, nothing between is missing.
        items: Encoded list of ``Item``.
    """

    party: Party
    first: Count
    items: msgspec.Raw


class Confirmed(Tuple, frozen=True, tag=3):
    """A party has taken our items up to this number for good."""

    party: Party
    upto: Count


class Fired(Tuple, frozen=True, tag=4):
    """The time of the first timer has come."""


class Told(Tuple, frozen=True, tag=5):
    """Something around the environment changed: moved, restored, a lease lost, a peer slow.

    Attributes:
        event: An encoded tuple of ``env.changes``.
    """

    event: msgspec.Raw


class Failed(Tuple, frozen=True, tag=6):
    """A handler raised or was ended; nothing that it did has happened. Its event counts as taken.

    Attributes:
        party: Who sent the item, or empty: a timer or a change.
        number: Number of the item in its channel, or of the timer; 0: a change, or a ``Found``.
        code: ``raised``, ``killed`` or ``grown``.
        text: For people.
        item: The item, encoded; empty: none.
        search: Number of the search whose ``Found`` it was; 0: it was none.
    """

    party: bytes
    number: Count
    code: str
    text: Text
    item: bytes = b""
    search: Count = 0


class Checkpointed(Tuple, frozen=True, tag=7):
    """The state was written and read back: what lives from here on is what a restore would give.

    Attributes:
        digest: SHA-256 of the snapshot, which a replay must give too; empty: it was not stored anywhere.
    """

    digest: bytes = b""


class Upgraded(Tuple, frozen=True, tag=8):
    """Other code runs it from here on; its state was migrated. A ``Checkpointed`` follows in the same block.

    Attributes:
        code: SHA-256 of the code.
    """

    code: Annotated[bytes, msgspec.Meta(min_length=CODE_BYTES, max_length=CODE_BYTES)]


class Opened(Tuple, frozen=True, tag=9):
    """A node begins to run the environment; the first record of each epoch, but for that of ``Began``.

    Attributes:
        node: Id of the node, 10 bytes.
        name: Its name.
        epoch: From here on.
        before: Name of the node that gave it away; empty: it, or this one, had stopped.
        silent: Handlers are not told, because one of them failed then.
    """

    node: Node
    name: str
    epoch: Count
    before: str = ""
    silent: bool = False


class Held(Tuple, frozen=True, tag=10):
    """These nodes keep the journal from here on.

    Attributes:
        nodes: Their ids.
        copies: How many there should be.
    """

    nodes: tuple[Node, ...]
    copies: Count = COPIES


class Found(Tuple, frozen=True, tag=11):
    """The answer to a ``Resolve``. One that was answered before, or that nobody waits for any more, is harmless.

    Attributes:
        number: Of the search.
        parties: Who is meant, in the order of their ids; empty: nobody is known.
    """

    number: Count
    parties: Annotated[tuple[Party, ...], msgspec.Meta(max_length=FOUND_MAX)] = ()


class Stopped(Tuple, frozen=True, tag=12):
    """Somebody ended the environment. Nothing but what a change of hands needs comes after it."""


class Forgotten(Tuple, frozen=True, tag=13):
    """A party has forgotten us; what it may have taken before is given up, because a copy might count twice.

    Attributes:
        party: Who.
        upto: Number of the last item of which that is so.
    """

    party: Party
    upto: Count


Record = (
    Began
    | Arrived
    | Confirmed
    | Fired
    | Told
    | Failed
    | Checkpointed
    | Upgraded
    | Opened
    | Held
    | Found
    | Stopped
    | Forgotten
)


# Effects.


class Post(Tuple, frozen=True, tag=1):
    """Deliver items to a party; repeated until it confirms them.

    Attributes:
        party: To whom.
        first: Number of the first one in the channel.
        count: How many.
        items: Encoded list of ``Item``.
    """

    party: bytes
    first: int
    count: int
    items: bytes


class Note(Tuple, frozen=True, tag=2):
    """A line for the environment's log."""

    text: str


class Ended(Tuple, frozen=True, tag=3):
    """The environment is over: it ended itself, or was ``Stopped``."""


class Resolve(Tuple, frozen=True, tag=4):
    """Say who is meant by a name: answer with ``Found``. Asked again in each ``Opened`` until it is answered.

    Attributes:
        number: Of the search.
        name: Of an environment, or ``app:`` and the name of a class, which all environments of that class have.
    """

    number: int
    name: str


Effect = Post | Note | Ended | Resolve
