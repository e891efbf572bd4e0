# SPDX-License-Identifier: Apache-2.0
"""What the demo does with the journals of its lot: replay one, audit it, change a byte of a copy, read who owned it.

Replays and audits are the commands that people have, each in a process of its own: ``atoll replay``, ``atoll audit
verify``. They read a node's files and ask no node.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from atoll.base.errors import CorruptError, UserError
from atoll.domain.guard import INTERPRETER_VARIABLES
from atoll.domain.shelves import DiskShelf, find_journal
from atoll.env.chain import Frame, Sealed, read, unpack_body
from atoll.env.history import decode_body
from atoll.env.records import Began, Opened

__all__ = ["Replayed", "Tampered", "changed_byte", "digest_of", "has_event", "owners_of", "replayed", "tampered"]

COMMAND_S_MAX: Final = 30.0  # Limit. A replay of some thousand events takes a second, most of it for its start.


class _Whole(msgspec.Struct):
    """Of ``atoll replay NAME --json``, what is used here."""

    first: int
    last: int
    checkpoints: int


class _Moment(msgspec.Struct):
    """Of ``atoll replay NAME --event N --json``."""

    state: dict[str, dict[str, Any]]


class _Fault(msgspec.Struct):
    block: int
    sentence: str


class _Audit(msgspec.Struct):
    """Of ``atoll audit verify --json``."""

    sound: bool
    blocks: tuple[int, int]
    faults: tuple[_Fault, ...]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay gave.

    Attributes:
        events: How many events were applied again, and gave the effects that were recorded.
        checkpoints: How many recorded states were met on the way, and were the same.
        digest: Of the state at its end; empty: it did not get there.
        words: Why not.
    """

    events: int = 0
    checkpoints: int = 0
    digest: str = ""
    words: str = ""


@dataclass(frozen=True, slots=True)
class Tampered:
    """What an audit found.

    Attributes:
        blocks: How many blocks of the journal, as it is, are as they were sealed; 0: it does not check.
        block: Number of the block of which a byte was changed in a copy; 0: there was none to change.
        named: Which block the audit of the copy named; None: none.
        words: What it said.
    """

    blocks: int = 0
    block: int = 0
    named: int | None = None
    words: str = ""


def digest_of(state: Any) -> str:
    """Return a digest of the declared state of an environment, plain data as JSON has it."""
    return sha256(msgspec.json.encode(state, order="deterministic")).hexdigest()


async def replayed(state: Path, name: str, event: int) -> Replayed:
    """Replay the whole journal that a node keeps, and show the state after one event.

    Args:
        state: The node's state directory.
        name: Of the environment.
        event: Number of the event, which is kept.
    """
    said, errors = await _atoll("replay", name, "--json", "--state", str(state))
    if errors is not None:
        return Replayed(words=errors)
    whole = msgspec.json.decode(said, type=_Whole)
    said, errors = await _atoll("replay", name, "--event", str(event), "--json", "--state", str(state))
    if errors is not None:
        return Replayed(words=errors)
    moment = msgspec.json.decode(said, type=_Moment)
    return Replayed(whole.last - whole.first + 1, whole.checkpoints, digest_of(moment.state.get("", {})))


async def tampered(state: Path, name: str, copies: Path) -> Tampered:
    """Audit the journal that a node keeps, then a copy of it in which one byte is another.

    Args:
        state: The node's state directory.
        name: Of the environment.
        copies: Directory for the copy; it is made.
    """
    sound = await _audited(state, name)
    if not sound.sound:
        return Tampered(words=_first(sound).sentence)
    directory = find_journal(state, name).directory
    copy = copies / directory.name
    shutil.copytree(directory, copy)
    block = changed_byte(sorted(copy.glob("*.atb")))
    audit = await _audited(state, str(copy))
    first, last = sound.blocks
    fault = _first(audit)
    return Tampered(last - first + 1, block, fault.block or None, fault.sentence)


async def _audited(state: Path, name: str) -> _Audit:
    """Return what an audit says; that it says nothing is a fault of no block."""
    said, errors = await _atoll("audit", "verify", name, "--json", "--state", str(state))
    if not said:
        return _Audit(sound=False, blocks=(0, 0), faults=(_Fault(0, errors or "it says nothing"),))
    return msgspec.json.decode(said, type=_Audit)


def _first(audit: _Audit) -> _Fault:
    return audit.faults[0] if audit.faults else _Fault(0, "nothing is wrong with it")


def changed_byte(segments: Iterable[Path]) -> int:
    """Change one byte in the block in the middle of a journal; return the block's number, or 0: it has none."""
    blocks = [
        (path, frame.item.block.number, frame.offset, frame.end)
        for path in segments
        for frame in read(path.read_bytes())
        if isinstance(frame, Frame) and isinstance(frame.item, Sealed)
    ]
    if not blocks:
        return 0
    path, number, begin, end = blocks[len(blocks) // 2]
    content = bytearray(path.read_bytes())
    content[(begin + end) // 2] ^= 1
    path.write_bytes(content)
    return number


def has_event(state: Path, name: str, event: int) -> bool:
    """Return whether the journal that a node keeps has come to an event; False also while it cannot be read."""
    try:
        return DiskShelf(find_journal(state, name)).last_event >= event
    except (CorruptError, UserError):
        return False


def owners_of(states: Iterable[Path], name: str) -> dict[int, set[bytes]]:
    """Return which nodes opened each epoch, by all journals that these nodes keep.

    Args:
        states: State directories; one that keeps no journal of it, or an unreadable one, says nothing.
        name: Of the environment.
    """
    owners: dict[int, set[bytes]] = {}
    for state in states:
        try:
            shelf = DiskShelf(find_journal(state, name))
            for number in range(shelf.first, shelf.last + 1):
                block = shelf.block(number)
                for entry in decode_body(unpack_body(block.body)).entries:
                    if isinstance(entry.record, Began | Opened):
                        epoch = entry.record.epoch if isinstance(entry.record, Opened) else block.epoch
                        owners.setdefault(epoch, set()).add(entry.record.node)
        except (CorruptError, UserError):
            continue
    return dict(sorted(owners.items()))


async def _atoll(*words: str) -> tuple[bytes, str | None]:
    """Run a command; return what it said, and None or what it said of its failure."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "atoll.cli",
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **INTERPRETER_VARIABLES},  # As a journal's handlers ran; else it would start itself anew.
    )
    try:
        async with asyncio.timeout(COMMAND_S_MAX):
            said, errors = await process.communicate()
    except TimeoutError:
        return b"", f"atoll {words[0]} took more than {COMMAND_S_MAX:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said, None if process.returncode == 0 else " ".join(errors.decode(errors="replace").split())
