# SPDX-License-Identifier: Apache-2.0
"""A journal that begins anew is the old one or the new one, whatever moment the power is cut or the disk refuses."""

import errno
import os
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atoll.domain.limits import BATCH_BYTES_MAX
from atoll.domain.recorder.journal import BlockJournal
from atoll.domain.recorder.messages import Code, RefusedError, Restart, Taken
from atoll.domain.recorder.restarting import begin_anew, counting, is_settled, segment_numbers, segment_path, settle
from atoll.domain.recorder.snapshots import encode_snapshot, open_snapshot
from atoll.env.chain import GENESIS, Frame, Position, Sealed, read, segment_start
from tests.unit.recorder_world import ENVIRONMENT, Hand, block_after, journal_in, key_in, stored, writing

OTHER = b"other-node"
AT = Position(90, 7, 400, b"h" * 32)
CHANGES = {"os.rename", "os.remove"}
Watch = Callable[[], None]
_watches: list[Watch] = []


def _heard(event: str, arguments: tuple[object, ...]) -> None:
    """Hear of what is about to change in files: Python tells it before it is done, and an error stops it."""
    if not _watches:
        return
    is_write = event == "open" and isinstance(flags := arguments[2], int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
    is_sync = event == "open" and isinstance(flags := arguments[2], int) and bool(flags & os.O_DIRECTORY)
    if event in CHANGES or is_write or is_sync:
        watch = _watches.pop()  # It does not hear of itself.
        try:
            watch()
        finally:
            _watches.append(watch)


sys.addaudithook(_heard)


@contextmanager
def watched(watch: Watch) -> Generator[None]:
    _watches.append(watch)
    try:
        yield
    finally:
        _watches.clear()


def old_journal(state: Path) -> BlockJournal:
    """Blocks in three segments, snapshots, a promise."""
    journal = journal_in(state, segment_bytes_max=BATCH_BYTES_MAX + 600)
    for number in range(1, 6):
        journal.append(block_after(journal.position, writing(b"state %d" % number), epoch=2))
        journal.commit()
    journal.keep_snapshot(2, stored(b"state 2", epoch=2))
    journal.keep_snapshot(5, stored(b"state 5", epoch=2))
    journal.promise(9, OTHER)
    journal.release()
    return journal


def taken(state: Path, at: Position = AT) -> Taken:
    """A snapshot that another recorder has signed."""
    key = key_in(state)
    signed = open_snapshot(encode_snapshot(key, ENVIRONMENT, (at.number, at.head), b"theirs"), ENVIRONMENT, at.number)
    return Taken(signed.content, signed.sealer, signed.signature)


def restarts(state: Path) -> tuple[Restart, ...]:
    return (
        Restart(1, ENVIRONMENT, AT, (0, 0), taken(state)),
        Restart(1, ENVIRONMENT, floor=(2, 5)),
        # Where a block was that is here as well, and of which there is a snapshot.
        Restart(1, ENVIRONMENT, Position(5, 3, 9, b"h" * 32), (2, 5), taken(state, Position(5, 3, 9, b"h" * 32))),
    )


def check(state: Path, before: Position, request: Restart) -> bool:
    """Return whether the journal in these files is the new one; it must be that or the old one, with its promise."""
    journal = journal_in(state)
    recorded = journal.recorded()
    assert recorded.damage == ""
    assert (recorded.promised_epoch, recorded.promised_to) == (9, OTHER)
    files = {path.name for path in (state / ENVIRONMENT.hex()).iterdir() if path.suffix == ".ats"}
    assert files == set()
    if journal.position == before:
        assert recorded.floor == (0, 0)
        assert recorded.snapshots == (2, 5)
        assert journal.snapshot(5)[1].content == stored(b"state 5", epoch=2)
        assert sum(isinstance(item, Sealed) for item in journal.read(1, 1 << 20)) == 5
        return False
    assert journal.position == request.at
    assert recorded.floor == request.floor
    assert journal.first == request.at.number + 1
    if request.snapshot is not None:
        assert recorded.snapshots == (request.at.number,)
        assert journal.snapshot(request.at.number)[1].content == b"theirs"
    else:
        assert recorded.snapshots == ()
    aside = list((state / ENVIRONMENT.hex() / "orphans").iterdir())
    frames = [frame for path in aside if path.suffix == ".atb" for frame in read(path.read_bytes())]
    items = [frame.item for frame in frames if isinstance(frame, Frame)]
    blocks = [item.block.number for item in items if isinstance(item, Sealed)]
    assert sorted(blocks) == [1, 2, 3, 4, 5]
    assert sorted(int(path.name[:19]) for path in aside if path.suffix == ".ats") == [2, 5]
    with pytest.raises(RefusedError):
        journal.append(block_after(journal.position, epoch=8))
    theirs, after = Hand(8, OTHER, signer=2).seal(journal.position, block_after(journal.position, epoch=9))
    journal.keep(Hand(8, OTHER, signer=2).sealer, theirs)
    journal.commit()
    journal.release()
    assert journal_in(state).position == after
    return True


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_power_cut_leaves_the_old_journal_or_the_new_one(tmp_path: Path, which: int) -> None:
    state = tmp_path / "state"
    state.mkdir()
    journal = old_journal(state)
    before, request = journal.position, restarts(state)[which]
    images: list[Path] = []

    def watch() -> None:
        images.append(tmp_path / f"image-{len(images)}")
        shutil.copytree(state, images[-1])

    with watched(watch):
        journal.restart(request)
    assert journal.position == request.at
    journal.release()
    assert check(state, before, request)
    found = [check(image, before, request) for image in images]
    assert found == sorted(found)
    assert {False, True} == set(found)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_disk_that_refuses_leaves_the_old_journal_or_the_new_one(tmp_path: Path, which: int) -> None:
    outcomes: list[str] = []
    for count in range(1000):
        state = tmp_path / f"{count}"
        state.mkdir()
        journal = old_journal(state)
        before, request = journal.position, restarts(state)[which]
        left = [count]

        def watch(left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise OSError(errno.EIO, "Input/output error")

        try:
            with watched(watch):
                journal.restart(request)
        except RefusedError as error:
            outcomes.append(error.code)
        else:
            outcomes.append("done")
        is_new = check(state, before, request) if outcomes[-1] != Code.IO else None
        match outcomes[-1]:
            case "done":
                assert is_new
                assert journal.position == request.at
            case Code.IO:
                assert journal.position == before
                after = block_after(GENESIS if request.snapshot is None else before, epoch=10)
                journal.append(after)
                journal.commit()
                journal.release()
                assert journal_in(state).position.number == after.number
            case _:
                assert journal.damage
        if left[0] >= 0:
            break
    assert set(outcomes) == {"done", "io", "corrupt"}
    assert outcomes[-1] == "done"


def test_a_crash_again_and_again_goes_on_where_it_was(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    journal = old_journal(state)
    before, request = journal.position, restarts(state)[0]
    count = [0]

    def stop() -> None:
        count[0] += 1
        if count[0] > 14:
            raise OSError(errno.EIO, "Input/output error")

    with watched(stop), pytest.raises(RefusedError):
        journal.restart(request)
    for _ in range(20):  # Each start gets one step further.
        count[0] = 14 - 2
        with watched(stop):
            journal_in(state)
    assert check(state, before, request)


def test_what_never_counted_is_removed(tmp_path: Path) -> None:
    directory = tmp_path / "one"
    for name in ("", "snapshots", "orphans"):
        (directory / name).mkdir()
    segment_path(directory, 1).write_bytes(segment_start(Hand().manifest(GENESIS)))
    settle(directory, 0)
    begin_anew(directory, 2, Hand().manifest(AT), b"snapshot")
    (directory / "00000003.ats").touch()  # Of one that came no further.
    assert segment_numbers(directory) == [1, 2]
    assert (counting(directory, 0), is_settled(directory, 0)) == ([1], True)
    settle(directory, 0)
    assert counting(directory, 0) == [1]
    assert sorted(path.name for path in directory.iterdir()) == ["00000001.atb", "orphans", "snapshots"]


def test_what_counts_is_put_in_its_place(tmp_path: Path) -> None:
    directory = tmp_path / "one"
    for name in ("", "snapshots", "orphans"):
        (directory / name).mkdir()
    segment_path(directory, 1).write_bytes(segment_start(Hand().manifest(GENESIS)))
    (directory / "snapshots" / "90.ats").write_bytes(b"old")
    begin_anew(directory, 2, Hand().manifest(AT), b"new")
    assert (counting(directory, 2), is_settled(directory, 2)) == ([2], False)
    settle(directory, 2)
    assert (counting(directory, 2), is_settled(directory, 2)) == ([2], True)
    assert segment_numbers(directory) == [2]
    assert (directory / "snapshots" / "90.ats").read_bytes() == b"new"
    assert (directory / "orphans" / f"{90:019d}-1.ats").read_bytes() == b"old"
    assert (directory / "orphans" / f"{1:019d}-2.atb").exists()
    begin_anew(directory, 3, Hand().manifest(GENESIS), b"")
    settle(directory, 3)
    assert list((directory / "snapshots").iterdir()) == []
    assert not (directory / "00000003.ats").exists()
