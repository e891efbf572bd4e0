# SPDX-License-Identifier: Apache-2.0
"""All that the machine of ``holding`` remembers, and what it starts from."""

from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from atoll.core.entropy import Draws
from atoll.env.holding.ledger import Ledger
from atoll.env.holding.messages import HandOver, Store

__all__ = [
    "CANDIDATE",
    "HOLDER",
    "OWNER",
    "TRIAL",
    "Awaited",
    "Draft",
    "Early",
    "Handing",
    "HoldingOptions",
    "HoldingState",
    "Incoming",
    "Learning",
    "Peer",
    "Plan",
    "Preparing",
    "Probe",
    "Promise",
    "Reign",
    "Role",
    "Shipping",
]

Role = Literal["holder", "trial", "candidate", "owner"]
HOLDER: Final = "holder"  # Keeps what the owner tells; also a node that has no vote.
TRIAL: Final = "trial"  # Asks who would vote for it.
CANDIDATE: Final = "candidate"  # Asks for votes.
OWNER: Final = "owner"


@dataclass(frozen=True, slots=True)
class HoldingOptions:
    """What a machine starts from: what the recorder found on the disk.

    Attributes:
        own: This node.
        seed: 32 random bytes.
        promise: (epoch, node) as last kept; (0, empty): none.
        base: (number, epoch) of the block before the first one in the journal; (0, 0): it goes back to the beginning.
        holders: Who held the environment after that block. Empty for a node that was never told; where an environment
            is made, its first holders, the same at each of them.
        blocks: (number, epoch, holders) of each block in the journal, without a gap; holders empty where unchanged.
        floor: (epoch, number) of the newest block that this node ever had and deleted; see ``Left``.
    """

    own: bytes
    seed: bytes
    promise: tuple[int, bytes] = (0, b"")
    base: tuple[int, int] = (0, 0)
    holders: tuple[bytes, ...] = ()
    blocks: tuple[tuple[int, int, tuple[bytes, ...]], ...] = ()
    floor: tuple[int, int] = (0, 0)


class Promise(msgspec.Struct):
    """The newest epoch heard of, and who has our vote in it.

    Attributes:
        epoch: Never goes back.
        node: Empty: nobody.
        kept: It is on the disk.
        retry_ns: When to ask the recorder again; None: it was asked, or it is kept.
    """

    epoch: int = 0
    node: bytes = b""
    kept: bool = True
    retry_ns: int | None = None


class Incoming(msgspec.Struct):
    """A snapshot that comes in parts.

    Attributes:
        number: Block after which it was taken.
        epoch: That block's.
        holders: After that block.
        total: Bytes.
        parts: Without a gap from the beginning.
        size: Bytes of the parts.
        asked: The recorder was asked to keep it.
    """

    number: int
    epoch: int
    holders: tuple[bytes, ...]
    total: int
    parts: list[bytes] = []
    size: int = 0
    asked: bool = False


class Shipping(msgspec.Struct):
    """A snapshot on its way to a node.

    Attributes:
        number: Which; 0: the newest, not yet known.
        offset: What the node needs next.
        reading: The recorder was asked for the part and has not answered.
        sent_ns: When the part at ``offset`` was last told; None: not yet.
    """

    number: int = 0
    offset: int = 0
    reading: bool = False
    sent_ns: int | None = None


class Probe(msgspec.Struct):
    """The search for the last block that a node and its owner have in common.

    Attributes:
        since_ns: When it went back last.
        sent_ns: When the blocks from there were told; None: not yet, or too long ago.
        last: The last of them.
    """

    since_ns: int
    sent_ns: int | None = None
    last: int = 0


class Peer(msgspec.Struct):
    """What an owner knows of another node.

    Attributes:
        next: The block to tell it next.
        heard_ns: When the newest Store was sent that it answered.
        since_ns: It is counted on since then: answers to what was sent before say nothing of what it still has.
        match: Last block that is kept there and is ours.
        assumed: It is taken to have so many, until it says what it has.
        probe: It refused what came before ``next``; None: it did not.
        reading: First block that the recorder is reading for it; 0: none.
        shipping: It lacks more than our journal goes back.
        leave_ns: It is no holder any more, and is told until then.
    """

    next: int
    heard_ns: int
    since_ns: int
    match: int = 0
    assumed: int = 0
    probe: Probe | None = None
    reading: int = 0
    shipping: Shipping | None = None
    leave_ns: int | None = None


class Draft(msgspec.Struct):
    """An own block that is not sealed yet; kept so that it can be tried again."""

    number: int
    first_event: int
    events: int
    body: bytes
    holders: tuple[bytes, ...]


class Handing(msgspec.Struct):
    """A hand-over to somebody who lacks something yet.

    Attributes:
        target: To whom.
        until_ns: When to give up.
    """

    target: bytes
    until_ns: int


class Preparing(msgspec.Struct):
    """The step before a hand-over: the target restores what it will own.

    Attributes:
        target: Who.
        until_ns: When to give up.
        tell_ns: When to tell it next.
        ready: It is done.
    """

    target: bytes
    until_ns: int
    tell_ns: int
    ready: bool = False


class Early(msgspec.Struct):
    """Blocks that came before those which they follow.

    Attributes:
        is_level: All of the owner's blocks were here once: what is missing was overtaken, or lost on the way.
        stores: By the number of the block before the first one.
        since_ns: Since when something is missing; None: nothing is.
    """

    is_level: bool = False
    stores: dict[int, Store] = {}
    since_ns: int | None = None


class Learning(msgspec.Struct):
    """A node that is catching up, to be a holder.

    Attributes:
        node: Who.
        learned: How much it had: its last block, or bytes of a snapshot.
        learned_ns: When that last changed.
        goal: The block that ends this round.
        begun_ns: When this round began.
        rounds: How many there were, this one included.
    """

    node: bytes
    learned: int
    learned_ns: int
    goal: int = 1
    begun_ns: int = 0
    rounds: int = 0

    def begin_round(self, committed: int, now_ns: int) -> None:
        """Let it get what is committed now; at least one block, so that it has answered at all."""
        self.goal, self.begun_ns = max(1, committed), now_ns
        self.rounds += 1


class Plan(msgspec.Struct):
    """What an owner was asked to bring about, one step at a time.

    Attributes:
        wanted: Who shall be the holders.
        move_to: Who shall own the environment; empty: no matter.
        asked: Who waits for an answer: ``move``, ``holders``, or empty for nobody.
        count: Holders when it began.
        change: Holders that the runner was asked to propose; empty: none. Once asked it is not taken back.
        added: Who was made a holder last.
        learning: Who is catching up; None: nobody.
        preparing: The step before the last.
        handing: The last step.
    """

    wanted: tuple[bytes, ...]
    move_to: bytes = b""
    asked: Literal["", "move", "holders"] = ""
    count: int = 0
    change: tuple[bytes, ...] = ()
    added: bytes = b""
    learning: Learning | None = None
    preparing: Preparing | None = None
    handing: Handing | None = None


class Reign(msgspec.Struct):
    """What only an owner has.

    Attributes:
        heartbeat_ns: When everybody is told next.
        first: The first block of the own epoch.
        peers: Holders, learners and those that leave, but not itself.
        drafts: Own blocks that are not sealed, in order.
        drafts_bytes: Their bodies together.
        failing_ns: Since when the disk refuses; None: it does not.
        retry_ns: When to try again; None: the recorder was asked.
        told_hold: The reason that the runner was told; empty: it may propose.
        plan: What is to be brought about.
    """

    heartbeat_ns: int
    first: int
    peers: dict[bytes, Peer] = {}
    drafts: list[Draft] = []
    drafts_bytes: int = 0
    failing_ns: int | None = None
    retry_ns: int | None = None
    told_hold: str = ""
    plan: Plan | None = None


class Awaited(msgspec.Struct):
    """It was handed over: who owns the environment now?

    Attributes:
        target: Who was told to take over.
        message: What it is told, when the promise is on our disk.
        sign: What the other holders are told meanwhile, so that none stands because nobody owns it.
        until_ns: When to give up; None: that was given up, and any holder may stand.
        tell_ns: When to tell it again; None: it was not told yet, or is told no more.
        asked: Whether somebody waits for the outcome.
        back: Who shall be the holders if we own it again; empty: as they are.
    """

    target: bytes
    message: HandOver
    sign: Store
    until_ns: int | None
    tell_ns: int | None = None
    asked: bool = False
    back: tuple[bytes, ...] = ()

    def is_of(self, promise: Promise) -> bool:
        """Return whether this is the promise that was made for it."""
        return (promise.epoch, promise.node) == (self.message.epoch + 1, self.target)


class HoldingState(msgspec.Struct):
    """All that a snapshot holds.

    Attributes:
        own: This node.
        draws: Times of elections.
        ledger: What is in the journal.
        promise: The own epoch and vote.
        now_ns: Of the newest input.
        role: What this node is in its epoch.
        committed: Blocks up to here are kept by a majority; never goes back.
        matched: Blocks up to here are the same as the owner's of this epoch.
        told: What that owner says is committed.
        early: What that owner told and is beyond a gap.
        owner: Of this epoch; empty: not known.
        heard_ns: When it was last heard.
        echo_ns: Its clock in the newest message.
        election_ns: When to stand for election; None: never.
        canvass_ns: When to ask again those that have not answered.
        votes: Who votes for us, or would.
        transfer: The owner asked us to stand.
        wish: Who shall be the holders when we own the environment; empty: as they are.
        summons: The owner asked us to stand, and something is not on our disk yet.
        unfit_ns: Until then we stand for no election, because the disk refuses.
        suspected: Nodes that the overlay takes for lost.
        incoming: A snapshot that is coming.
        reign: None: we are not the owner.
        awaited: A hand-over whose outcome is not known.
        counts: What was dropped or refused, by reason.
    """

    own: bytes
    draws: Draws
    ledger: Ledger
    promise: Promise
    now_ns: int = 0
    role: Role = HOLDER
    committed: int = 0
    matched: int = 0
    told: int = 0
    early: Early = msgspec.field(default_factory=Early)
    owner: bytes = b""
    heard_ns: int = 0
    echo_ns: int = 0
    election_ns: int | None = None
    canvass_ns: int | None = None
    votes: dict[bytes, bool] = {}
    transfer: bool = False
    wish: tuple[bytes, ...] = ()
    summons: HandOver | None = None
    unfit_ns: int = 0
    suspected: dict[bytes, bool] = {}
    incoming: Incoming | None = None
    reign: Reign | None = None
    awaited: Awaited | None = None
    counts: dict[str, int] = {}
