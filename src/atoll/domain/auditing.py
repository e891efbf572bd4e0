# SPDX-License-Identifier: Apache-2.0
"""Whether a journal is what was sealed, and what somebody would have had to change who wanted it otherwise.

Checked are every frame, the chain of heads, every seal, every certificate, who sealed it by the group's roster where
there is one, that snapshots are the states that their blocks say, stand where the chain was and are signed by a node,
and every head of this journal that a node has shown: a journal that was sealed anew with the right key contradicts
those. No node need run for it.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from atoll.base.errors import CorruptError, UserError
from atoll.domain.limits import HEADS_BYTES_MAX
from atoll.domain.recorder.disk import read_at
from atoll.domain.recorder.heads import decode_heads
from atoll.domain.recorder.messages import KeptHead
from atoll.domain.recorder.pruning import SNAPSHOTS_NAME
from atoll.domain.recorder.snapshots import open_snapshot
from atoll.domain.shelves import Journal, snapshots_of, standing_of
from atoll.env.chain import (
    Block,
    ChainError,
    Frame,
    Manifest,
    Position,
    Sealed,
    Sealer,
    TornTail,
    Verifier,
    read,
    seal_payload,
    signed_by,
    unpack_body,
)
from atoll.env.history import Written, check_written, decode_body, decode_snapshot, written_in
from atoll.env.records import Began, Upgraded
from atoll.group.roster import Roster

__all__ = ["Audit", "Fault", "Witness", "audit", "heads_in", "roster_of", "trusting"]

HEADS_NAME: Final = "heads"
ROSTER_NAME: Final = "roster"
_HEADS: Final = re.compile(r"([0-9a-f]{20})\.ath")
_DIRECTORY: Final = re.compile("[0-9a-f]{32}")
_FRAME_HEAD_BYTES: Final = 8
_blocks: Final = msgspec.msgpack.Decoder(Sealed)


@dataclass(frozen=True, slots=True)
class Witness:
    """A head of this journal that is kept apart from it.

    Attributes:
        node: Id of the node that showed it.
        number: Of the block.
        epoch: Of the block.
        head: The head.
        signature: Of its seal.
        place: Where it is kept.
    """

    node: bytes
    number: int
    epoch: int
    head: bytes
    signature: bytes
    place: Path


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that does not check.

    Attributes:
        block: Number of the block; 0: no block in particular.
        sentence: What is wrong, with its place.
        is_missing: Whether the block is not here, which nobody could mend by sealing what is here anew.
    """

    block: int
    sentence: str
    is_missing: bool = False


@dataclass(slots=True)
class Audit:
    """What was found.

    Attributes:
        journal: Which.
        first: Number of the first block that is kept.
        last: Number of the last block there is; it may not have been checked.
        sound: Number of the last block that checks, with all before it.
        first_event: Number of the first event that is kept.
        last_event: Number of the last event there is, as far as can be told.
        sound_events: Number of the last event up to there.
        codes: Digests of all code that blocks and snapshots name, in that order; none of it was run.
        odd: Number of the first block whose records do not decode, however well it is sealed, and why; None: all do.
        counts: What was checked, and how often.
        keepers: Who wrote the segments: the recorders of the node whose journal it is.
        sealers: Who sealed, and whether the roster has the key: ``roster``, ``unknown``, ``certificate``.
        witnesses: Heads that fit.
        contradicting: Heads that do not.
        faults: What does not check; none: all that was checked is as it was sealed.
        open: What the heads at hand do not decide, and whose would; nobody is to blame for that.
        torn: Bytes behind the last whole frame, as a crash leaves them.
        remarks: What is no fault, and is to be known.
    """

    journal: Journal
    first: int = 0
    last: int = 0
    sound: int = 0
    first_event: int = 0
    last_event: int = 0
    sound_events: int = 0
    codes: dict[bytes, None] = field(default_factory=dict[bytes, None])
    odd: tuple[int, str] | None = None
    counts: Counter[str] = field(default_factory=Counter[str])
    keepers: set[Sealer] = field(default_factory=set[Sealer])
    sealers: dict[Sealer, str] = field(default_factory=dict[Sealer, str])
    witnesses: list[Witness] = field(default_factory=list[Witness])
    contradicting: list[Witness] = field(default_factory=list[Witness])
    faults: list[Fault] = field(default_factory=list[Fault])
    open: list[Fault] = field(default_factory=list[Fault])
    torn: int = 0
    remarks: list[str] = field(default_factory=list[str])

    @property
    def is_sound(self) -> bool:
        """Whether all that was checked is as it was sealed, and nothing is open."""
        return not self.faults and not self.open

    @property
    def names_all_code(self) -> bool:
        """Whether ``codes`` is all: every block was read, and what comes before the first one is said by a snapshot."""
        return not self.faults and self.odd is None and self.is_begun

    @property
    def is_begun(self) -> bool:
        """Whether something says which code runs at the first block: its record, or a snapshot."""
        return self.first <= 1 or bool(self.counts["snapshots"])


@dataclass(frozen=True, slots=True)
class _Place:
    """What the chain says of a block after which there is a snapshot.

    Attributes:
        head: Its head; empty: the journal was not followed to it.
        written: What it says of the state after it, or that it says nothing; None: the journal begins after it.
    """

    head: bytes = b""
    written: Written | CorruptError | None = None


_UNSEEN: Final = _Place()


def roster_of(state: Path) -> Roster | None:
    """Return the group's roster, as a node keeps it; None: there is none.

    Raises:
        UserError: A108, it cannot be read, or is not signed by the group: no journal is to blame for that.
    """
    path = state / ROSTER_NAME
    try:
        return Roster.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            "A108", f"cannot read {path}", fix="check who may read it", where=error.strerror or str(error)
        ) from error
    except CorruptError as error:
        fix = "restore it from a backup; or move it away: certificates are believed then; join anew: atoll up INVITE"
        raise UserError("A108", f"the file {path} is damaged", where=str(error), fix=fix) from error


def trusting(state: Path) -> Callable[[Sealer], bool] | None:
    """Return what says whether a sealer is a node's by the group's roster; None: there is none. Raises as roster_of."""
    roster = roster_of(state)
    return None if roster is None else lambda sealer: _is_known(roster, sealer)


def heads_in(directory: Path) -> tuple[list[tuple[bytes, KeptHead]], list[str]]:
    """Return all heads in a directory as a recorder keeps them, with the node that showed each; and what is to be said.

    What is not called as a recorder calls such a file is left out, and so are records that do not check.

    Raises:
        UserError: A304, a file cannot be read.
    """
    found: list[tuple[bytes, KeptHead]] = []
    remarks: list[str] = []
    for path in sorted(directory.glob("*.ath")):
        called = _HEADS.fullmatch(path.name)
        if called is None:
            continue
        try:
            heads, bad = decode_heads(read_at(path, 0, HEADS_BYTES_MAX))
        except OSError as error:
            raise UserError(
                "A304", f"cannot read {path}", where=error.strerror or str(error), fix="give it to the user who audits"
            ) from error
        found += [(bytes.fromhex(called[1]), kept) for kept in heads]
        if bad:
            remarks.append(f"{path}: {bad} of {bad + len(heads)} heads do not check, and count for nothing")
    return found, remarks


def audit(journal: Journal, heads: Iterable[tuple[Path, tuple[bytes, KeptHead]]], roster: Roster | None) -> Audit:
    """Check a journal.

    Args:
        journal: Which.
        heads: Kept heads, of any environment: the directory, the node that showed it, the head.
        roster: Says whose signing key is whose; None: the certificates' word is taken.
    """
    found = Audit(journal)
    witnesses: dict[int, list[Witness]] = {}
    for place, (node, kept) in heads:
        if kept.environment == journal.id:
            link = kept.link
            witness = Witness(node, link.number, link.epoch, link.head, kept.signature, place)
            witnesses.setdefault(witness.number, []).append(witness)
    called = journal.directory.name.partition("-")[0]
    if _DIRECTORY.fullmatch(called) and called != journal.id.hex():
        found.faults.append(Fault(0, f"{journal.directory}: the journal in it is that of {journal.id.hex()}"))
    if not journal.segments:
        found.faults.append(Fault(0, f"{journal.directory}: there is no segment that can be read"))
    verifier = Verifier(journal.id, trusts=_judge(found, roster))
    known: dict[int, _Place] = {}
    try:
        known = dict.fromkeys(snapshots_of(journal), _UNSEEN)
    except CorruptError as error:
        found.faults.append(Fault(0, str(error)))
    for path in journal.segments:
        if not _segment(found, verifier, path, (known, witnesses)):
            break
    _measure(found)
    _compare_rest(found, witnesses)
    for number, said in known.items():
        _snapshot(found, number, said, roster)
    _say_unnamed(found)
    return found


def _say_unnamed(found: Audit) -> None:
    """Say why some code that it needs may not be named, unless that is because of a fault."""
    what = "not all code that it needs is named"
    if found.odd is not None:
        number, why = found.odd
        more = found.counts["undecoded"] - 1
        others = f", and {more} more," if more else ""
        found.remarks.append(f"{what}: block {number}{others} does not decode in this version: {why}")
    if not found.is_begun:
        found.remarks.append(f"{what}: no snapshot says which runs at block {found.first}")


def _judge(found: Audit, roster: Roster | None) -> Callable[[Sealer], bool]:
    def trusts(sealer: Sealer) -> bool:
        found.counts["certificates"] += 1
        if roster is None:
            found.sealers[sealer] = "certificate"
            return True
        is_known = _is_known(roster, sealer)
        found.sealers[sealer] = "roster" if is_known else "unknown"
        return is_known

    return trusts


def _is_known(roster: Roster, sealer: Sealer) -> bool:
    return roster.node_of(sealer.signing_key) == sealer.node


def _segment(
    found: Audit,
    verifier: Verifier,
    path: Path,
    wanted: tuple[dict[int, _Place], dict[int, list[Witness]]],
) -> bool:
    """Check one segment; say whether it is worth going on."""
    known, witnesses = wanted
    is_last = path == found.journal.segments[-1]
    found.counts["segments"] += 1
    try:
        data = path.read_bytes()
        for frame in read(data) if data else (TornTail(0),):
            if isinstance(frame, TornTail):
                if not frame.offset:  # No crash leaves this: a segment appears with its manifest or not at all.
                    raise CorruptError("offset 0: a segment without a whole manifest")
                found.torn = len(data) - frame.offset
                if not is_last:
                    _blame(found, f"{path}: offset {frame.offset}: it ends in the middle, and is not the newest")
                    return False
                break
            verifier.feed(frame.item, f"{path}: offset {frame.offset}")
            assert verifier.position is not None, "the first frame is a manifest"
            if isinstance(frame.item, Manifest):
                found.keepers.add(frame.item.sealer)
            is_reached = isinstance(frame.item, Sealed) or not found.first  # Other frames stand where the last one did.
            _note(found, verifier.position, frame)
            number = verifier.position.number
            if is_reached:
                if number in known:
                    known[number] = _Place(verifier.position.head, _written(frame))
                _compare(found, verifier, witnesses.get(number, ()))
    except ChainError as error:
        found.faults.append(Fault(error.block, str(error)))
        return False
    except (CorruptError, UserError) as error:
        _blame(found, f"{path}: {error}")
        return False
    except OSError as error:
        _blame(found, f"{path}: {error.strerror or error}")
        return False
    return True


def _blame(found: Audit, sentence: str) -> None:
    found.faults.append(Fault(found.sound + 1, sentence))


def _note(found: Audit, position: Position, frame: Frame) -> None:
    if not found.first:
        found.first, found.first_event = position.number + 1, position.events + 1
        found.sound, found.sound_events = position.number, position.events
    if isinstance(frame.item, Sealed):
        found.sound, found.sound_events = position.number, position.events
        found.counts["blocks"] += 1
        found.counts["events"] += frame.item.block.events
        _note_code(found, frame.item.block)


def _note_code(found: Audit, block: Block) -> None:
    """Note which code runs from a block on. To decode all of them costs a tenth of what checking them does."""
    try:
        entries = decode_body(unpack_body(block.body)).entries
    except CorruptError as error:
        found.odd = found.odd or (block.number, str(error))
        found.counts["undecoded"] += 1  # Every block may be so, of a journal that somebody made for that.
        return
    for entry in entries:
        if isinstance(entry.record, Began | Upgraded):
            found.codes[entry.record.code] = None


def _compare(found: Audit, verifier: Verifier, witnesses: Iterable[Witness]) -> None:
    """Compare the heads that were kept of the block at hand."""
    assert verifier.position is not None, "a block was fed"
    assert verifier.sealer is not None, "a block was fed"
    assert verifier.environment is not None, "a block was fed"
    for witness in witnesses:
        found.counts["heads"] += 1
        if witness.head == verifier.position.head:
            found.witnesses.append(witness)
            continue
        found.contradicting.append(witness)
        payload = seal_payload(verifier.environment, witness.head)
        is_ours = signed_by(verifier.sealer.recorder, payload, witness.signature)
        proof = "sealed by the same recorder: it has sealed two pasts" if is_ours else "sealed by another key"
        sentence = f"block {witness.number}: {witness.node.hex()} has shown another head, {proof} ({witness.place})"
        found.faults.append(Fault(witness.number, sentence))


def _floor(journal: Journal) -> tuple[int, int] | None:
    """Return epoch and number of the newest block that the node gave up by the rules, as the standing says.

    Nobody signs that file, so it counts only against what this node itself has been shown.
    """
    standing = standing_of(journal)
    if standing is None:
        return None
    floor = standing.floor_epoch, standing.floor_number
    return floor if standing.segment and any(floor) else None


def _compare_rest(found: Audit, witnesses: dict[int, list[Witness]]) -> None:
    """Look at heads of blocks that are not here.

    A node that learns a journal, or was away, is shown more than it has. What is missing then came from another node,
    so it is a fault only where this one has sealed it, or has shown it as its own, and does not say that it gave it up.
    Where it says so, and no head says that another node went on, it is open: who gave a journal away honestly looks
    like who shortened it, as long as the new owner's heads alone are at hand, which keeps none of its own blocks.
    """
    rest = [one for number in sorted(witnesses) if number > found.last for one in witnesses[number]]
    ours = [one for one in rest if _is_ours(found, one)]
    floor = _floor(found.journal)
    undecided: list[Witness] = []
    if found.faults:
        missing = rest
    elif floor is None:
        missing = ours
    else:
        missing = [one for one in ours if (one.epoch, one.number) > floor]
        below = [one for one in ours if (one.epoch, one.number) <= floor]
        undecided = [one for one in below if not _is_given_up(found.journal, one, rest, ours)]
    for witness in missing:
        found.counts["heads"] += 1
        found.contradicting.append(witness)
        lacking = f"blocks {found.last + 1} to {witness.number} are missing"
        shown = f"{witness.node.hex()} has shown the head of {witness.number} ({witness.place})"
        found.faults.append(Fault(witness.number, f"{lacking}: {shown}", is_missing=True))
    if undecided:
        found.open.append(_question(found, undecided[-1]))
    newest = max((one.number for one in rest), default=0)
    if not found.faults and not found.last and floor is not None:
        shown = f", and heads up to {newest} have been shown" if newest else ""
        found.remarks.append(f"the journal is not kept here: this node gave it up{shown}; nothing was checked")
    elif len(missing) + len(undecided) < len(rest):
        found.remarks.append(f"behind: {found.last} of {newest} blocks")


def _question(found: Audit, witness: Witness) -> Fault:
    """Return what is open, of the newest block that this node had and says that it gave up."""
    standing = standing_of(found.journal)
    owner = b"" if standing is None else standing.node
    is_other = any(owner) and all(owner != keeper.node for keeper in found.keepers)
    but = f" but {owner.hex()}, which keeps none of its own" if is_other else ""
    return Fault(
        witness.number,
        f"blocks {found.last + 1} to {witness.number} were given up, as this node says; "
        f"{witness.node.hex()} has shown the head of {witness.number} ({witness.place}), "
        f"and whether another node went on no head here says: add --heads of every member{but}",
        is_missing=True,
    )


def _is_given_up(journal: Journal, witness: Witness, rest: Sequence[Witness], ours: Sequence[Witness]) -> bool:
    """Tell whether a block that this node has had, and says that it gave up, went by the rules.

    Whoever can shorten a journal can write a standing beside it, but not the heads that are kept elsewhere: those have
    to show that another node has gone on with the journal since.
    """
    own = (journal.directory.absolute().parent.parent / HEADS_NAME).resolve()
    if witness.place.resolve() == own:
        return True
    return any(
        one not in ours and one.epoch > witness.epoch and one.number > witness.number and one.place.resolve() != own
        for one in rest
    )


def _is_ours(found: Audit, witness: Witness) -> bool:
    """Tell whether the node whose journal it is has had a block: it has sealed it, or shown its head."""
    payload = seal_payload(found.journal.id, witness.head)
    return any(
        witness.node == keeper.node or signed_by(keeper.recorder, payload, witness.signature)
        for keeper in found.keepers
    )


def _written(frame: Frame) -> Written | CorruptError | None:
    if not isinstance(frame.item, Sealed):
        return None
    try:
        return written_in(frame.item.block)
    except CorruptError as error:
        return error


def _snapshot(found: Audit, number: int, place: _Place, roster: Roster | None) -> None:
    """Check one snapshot: its signature, who signed it, where it stands, and that its block says this state."""
    path = found.journal.directory / SNAPSHOTS_NAME / f"{number}.ats"
    try:
        signed = open_snapshot(path.read_bytes(), found.journal.id, number)
        if place is _UNSEEN and not found.faults and number > found.last:
            raise CorruptError(f"it is of block {number}, which is not here")
        if place.head not in {b"", signed.head}:
            raise CorruptError(f"it was taken after another block {number}")
        if not _may_sign(found, signed.sealer, roster):
            raise CorruptError(f"it is signed with a key that is not known as that of {signed.sealer.node.hex()}")
        if isinstance(place.written, CorruptError):
            raise place.written
        snapshot = decode_snapshot(signed.content)
        found.codes[snapshot.code] = None
        if place.written is not None:
            check_written(snapshot, place.written)
    except FileNotFoundError:
        return  # It was thinned out meanwhile.
    except (OSError, CorruptError) as error:
        found.faults.append(Fault(number, f"{path}: {error}"))
    found.counts["snapshots"] += 1


def _may_sign(found: Audit, sealer: Sealer, roster: Roster | None) -> bool:
    """Tell whether a sealer is a node's: by the roster, else by what the journal says of that node."""
    if roster is not None:
        return _is_known(roster, sealer)
    # Whoever keeps a journal begins its segments, so the node that signs snapshots is named there.
    return any((one.node, one.signing_key) == (sealer.node, sealer.signing_key) for one in found.sealers)


def _measure(found: Audit) -> None:
    """Find out how far the journal goes behind what does not check, without believing any of it."""
    found.last, found.last_event = found.sound, found.sound_events
    if not found.faults:
        return
    for path in found.journal.segments:
        try:
            data = path.read_bytes()
        except OSError:
            continue
        _leap(found, data)


def _leap(found: Audit, data: bytes) -> None:
    """Go from frame to frame by their lengths alone."""
    offset = _FRAME_HEAD_BYTES
    while offset + _FRAME_HEAD_BYTES <= len(data):
        size = int.from_bytes(data[offset : offset + 3], "little")
        content = data[offset + _FRAME_HEAD_BYTES : offset + _FRAME_HEAD_BYTES + size]
        offset += _FRAME_HEAD_BYTES + size
        try:
            block = _blocks.decode(content).block
        except msgspec.DecodeError:
            continue
        if block.number > found.last:
            found.last, found.last_event = block.number, block.first_event + block.events - 1
