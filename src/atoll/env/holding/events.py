# SPDX-License-Identifier: Apache-2.0
"""What goes into the machine that decides who owns an environment, and what comes out of it.

The recorder is the process that keeps the journal. It obeys ``Seal``, ``Keep``, ``CutFrom``, ``KeepPromise``,
``KeepSnapshot`` and ``Left`` of one environment in their order, answers each but ``CutFrom`` and ``Left`` exactly once
and in that order, and says that something is kept only when a power cut could not take it away. The runner is what
executes the environment.
"""

from atoll.core.machine import Tick, Tuple
from atoll.env.holding.messages import Block, HoldingMessage

__all__ = [
    "BlocksRead",
    "Change",
    "Checkpointed",
    "Cleared",
    "Committed",
    "CutFrom",
    "Heard",
    "Hold",
    "HoldersAsked",
    "HoldersChanged",
    "HoldersFailed",
    "HoldingEffect",
    "HoldingInput",
    "Keep",
    "KeepFailed",
    "KeepPromise",
    "KeepSnapshot",
    "Kept",
    "Left",
    "MoveAsked",
    "MoveFailed",
    "Moved",
    "PromiseFailed",
    "PromiseKept",
    "Proposed",
    "ReadBlocks",
    "ReadSnapshot",
    "Refused",
    "Resume",
    "Run",
    "Seal",
    "SealFailed",
    "Sealed",
    "SnapshotFailed",
    "SnapshotKept",
    "SnapshotRead",
    "Stop",
    "Suspected",
    "Tell",
]


# Inputs from the runner.


class Proposed(Tuple, frozen=True):
    """Input: the environment that runs here in this epoch has applied events; they shall become the next block.

    Attributes:
        epoch: That of the ``Run``. Proposals of another epoch are dropped: what made them was thrown away.
        first_event: Number of the first event.
        events: How many.
        body: The events, encoded.
        holders: Empty, or exactly what ``Change`` asked for.
    """

    epoch: int
    first_event: int
    events: int
    body: bytes
    holders: tuple[bytes, ...] = ()


class Checkpointed(Tuple, frozen=True):
    """Input: a snapshot of the state after block ``number`` is kept here, and that block and all before may be gone."""

    number: int


# Inputs from the recorder.


class Sealed(Tuple, frozen=True):
    """Input: an own block is sealed and kept; ``sealed`` is what other holders need to check and keep it."""

    number: int
    epoch: int
    sealed: bytes


class SealFailed(Tuple, frozen=True):
    """Input: an own block could not be written, such as on a full disk. Nothing of it is in the journal."""

    number: int
    epoch: int
    code: str


class Kept(Tuple, frozen=True):
    """Input: a block of the owner is kept."""

    number: int
    epoch: int


class KeepFailed(Tuple, frozen=True):
    """Input: a block of the owner could not be kept, or does not check. Nothing of it is in the journal."""

    number: int
    epoch: int
    code: str


class PromiseKept(Tuple, frozen=True):
    """Input: a promise is kept; fields as in ``KeepPromise``."""

    epoch: int
    node: bytes


class PromiseFailed(Tuple, frozen=True):
    """Input: a promise could not be kept; it is asked for again later."""

    epoch: int
    node: bytes
    code: str


class BlocksRead(Tuple, frozen=True):
    """Input: the answer to ``ReadBlocks``: blocks without a gap from ``first`` on; none if ``first`` cannot be read."""

    node: bytes
    first: int
    blocks: tuple[Block, ...]


class SnapshotRead(Tuple, frozen=True):
    """Input: the answer to ``ReadSnapshot``.

    Attributes:
        node: As asked.
        number: Block after which the snapshot was taken; 0: there is none that can be read.
        epoch: That block's.
        holders: Who held the environment after that block.
        offset: As asked; 0 when the snapshot asked for is gone and this is the beginning of a newer one.
        total: Bytes of the whole snapshot.
        payload: The part.
    """

    node: bytes
    number: int
    epoch: int
    holders: tuple[bytes, ...]
    offset: int
    total: int
    payload: bytes


class SnapshotKept(Tuple, frozen=True):
    """Input: a snapshot from the owner is kept; no block is in the journal."""

    number: int
    epoch: int


class SnapshotFailed(Tuple, frozen=True):
    """Input: a snapshot could not be kept, or does not check. The journal is as it was."""

    number: int
    epoch: int
    code: str


# Inputs from the network, the overlay and people.


class Heard(Tuple, frozen=True):
    """Input: an authenticated message about this environment came from a member of the group."""

    node: bytes
    message: HoldingMessage


class Suspected(Tuple, frozen=True):
    """Input: the overlay takes this node for lost."""

    node: bytes


class Cleared(Tuple, frozen=True):
    """Input: the overlay no longer takes this node for lost."""

    node: bytes


class MoveAsked(Tuple, frozen=True):
    """Input: somebody wants the environment to run at this node. Answered by ``Moved`` or ``MoveFailed``."""

    target: bytes


class Ready(Tuple, frozen=True):
    """Input: what ``GetReady`` asked for is done.

    Attributes:
        failed: Why it cannot be; empty: it is.
    """

    failed: str = ""


class HoldersAsked(Tuple, frozen=True):
    """Input: somebody wants these to be the holders. Answered by ``HoldersChanged`` or ``HoldersFailed``."""

    holders: tuple[bytes, ...]


# Effects for the recorder.


class Seal(Tuple, frozen=True):
    """Effect: append and seal an own block; answered by ``Sealed`` or ``SealFailed``.

    Attributes:
        epoch: Of the block.
        number: Of the block. One that does not follow the last block of the journal must fail.
        first_event: As proposed.
        events: As proposed.
        body: As proposed.
        holders: Empty, or who the holders are from this block on; kept with it, because ``HoldingOptions`` needs it.
    """

    epoch: int
    number: int
    first_event: int
    events: int
    body: bytes
    holders: tuple[bytes, ...]


class Keep(Tuple, frozen=True):
    """Effect: check and append a block of the owner; answered by ``Kept`` or ``KeepFailed``.

    One that does not follow the last block of the journal must fail.
    """

    number: int
    epoch: int
    holders: tuple[bytes, ...]
    sealed: bytes


class CutFrom(Tuple, frozen=True):
    """Effect: drop the blocks from this number on, if there are any. They were never committed. Not answered."""

    number: int


class KeepPromise(Tuple, frozen=True):
    """Effect: keep the newest epoch that was heard of, and for whom this node stands in it; it replaces the one before.

    Answered by ``PromiseKept`` or ``PromiseFailed``. Nothing that depends on it leaves this node before.

    Attributes:
        epoch: Never lower than before.
        node: Who has this node's vote; empty: nobody yet.
    """

    epoch: int
    node: bytes


class ReadBlocks(Tuple, frozen=True):
    """Effect: read blocks of the own journal for another node; answered by ``BlocksRead``.

    Attributes:
        node: For whom; to be repeated in the answer.
        first: Number of the first block.
        bytes_max: The blocks together; but one block at least, whatever its size.
    """

    node: bytes
    first: int
    bytes_max: int


class ReadSnapshot(Tuple, frozen=True):
    """Effect: read a part of a snapshot for another node; answered by ``SnapshotRead``.

    Attributes:
        node: For whom; to be repeated in the answer.
        number: Which snapshot; 0: the newest.
        offset: First byte.
        bytes_max: Most bytes of the part.
    """

    node: bytes
    number: int
    offset: int
    bytes_max: int


class KeepSnapshot(Tuple, frozen=True):
    """Effect: check and keep a snapshot from the owner in place of the whole journal; the promise and the floor stay.

    Answered by ``SnapshotKept`` or ``SnapshotFailed``. A power cut leaves the journal as it was or the snapshot.
    """

    number: int
    epoch: int
    holders: tuple[bytes, ...]
    payload: bytes


# Effects for the network.


class Tell(Tuple, frozen=True):
    """Effect: send a message about this environment to a node. It may be lost, repeated or overtaken."""

    node: bytes
    message: HoldingMessage


# Effects for the runner.


class Run(Tuple, frozen=True):
    """Effect: this node owns the environment now: restore it from the journal up to ``number`` and go on.

    The runner proposes an opening block at once. What is older and was not committed before counts as committed when
    that block does, and not sooner.
    """

    epoch: int
    number: int


class GetReady(Tuple, frozen=True):
    """Effect: restore the environment from the journal, and keep it for a ``Run`` that may come; say ``Ready``.

    It may come again before that, and after it: then say so again.
    """

    epoch: int


class Stop(Tuple, frozen=True):
    """Effect: the environment is no longer owned here: throw away what runs, and all that was not committed."""

    epoch: int


class Committed(Tuple, frozen=True):
    """Effect: blocks up to this number are kept by a majority for ever. At the owner their outputs may leave."""

    number: int


class Hold(Tuple, frozen=True):
    """Effect: propose nothing until ``Resume``; the reason is ``full``, ``disk`` or ``move``."""

    epoch: int
    reason: str


class Resume(Tuple, frozen=True):
    """Effect: propose again, beginning with what was refused."""

    epoch: int


class Refused(Tuple, frozen=True):
    """Effect: a proposal was not taken. All that follow are refused as well until ``Resume``; propose it again then.

    The reason is one of those of ``Hold``, or ``holders``: nobody asked for that change; it must not be proposed again.
    """

    epoch: int
    first_event: int
    reason: str


class Change(Tuple, frozen=True):
    """Effect: propose a block that makes these the holders, as soon as possible and once."""

    epoch: int
    holders: tuple[bytes, ...]


class Left(Tuple, frozen=True):
    """Effect: this node is no holder any more, by a committed block, and no owner counts on what it has.

    The recorder keeps these two durably as ``HoldingOptions.floor``, and then drops the whole journal or puts it aside,
    in the order of the other effects and before it obeys the next. Not answered. The promise stays. ``Committed`` is
    counted from 0 again if the node becomes a holder once more.

    Attributes:
        epoch: Of the newest block that this node ever had.
        number: Of that block.
    """

    epoch: int
    number: int


# Effects for who asked.


class Moved(Tuple, frozen=True):
    """Effect: the environment runs at ``to`` in this epoch."""

    to: bytes
    epoch: int


class MoveFailed(Tuple, frozen=True):
    """Effect: the environment was not moved as asked."""

    reason: str


class HoldersChanged(Tuple, frozen=True):
    """Effect: the holders are as asked, and that is committed."""

    holders: tuple[bytes, ...]


class HoldersFailed(Tuple, frozen=True):
    """Effect: the holders were not changed as asked; some steps of the change may have been made."""

    reason: str


HoldingInput = (
    Tick
    | Proposed
    | Checkpointed
    | Sealed
    | SealFailed
    | Kept
    | KeepFailed
    | PromiseKept
    | PromiseFailed
    | BlocksRead
    | SnapshotRead
    | SnapshotKept
    | SnapshotFailed
    | Heard
    | Suspected
    | Cleared
    | MoveAsked
    | Ready
    | HoldersAsked
)
HoldingEffect = (
    Seal
    | Keep
    | CutFrom
    | KeepPromise
    | ReadBlocks
    | ReadSnapshot
    | KeepSnapshot
    | Tell
    | Run
    | GetReady
    | Stop
    | Committed
    | Hold
    | Resume
    | Refused
    | Change
    | Left
    | Moved
    | MoveFailed
    | HoldersChanged
    | HoldersFailed
)
