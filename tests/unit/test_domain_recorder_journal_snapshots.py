# SPDX-License-Identifier: Apache-2.0
"""A state is kept and given back only if it is the one that its block says, and this recorder has signed it."""

from pathlib import Path

import pytest

from atoll.domain.limits import KEPT_SNAPSHOTS_MAX
from atoll.domain.recorder.journal import create_journal
from atoll.domain.recorder.messages import Code, RefusedError
from atoll.domain.recorder.snapshots import encode_snapshot
from atoll.env.chain import GENESIS, Position
from atoll.env.history import Entry, encode_body
from atoll.env.records import Checkpointed
from tests.unit.recorder_world import (
    ENVIRONMENT,
    NODE,
    OTHER,
    STATE,
    WRITING,
    Hand,
    append,
    code_of,
    journal_in,
    key_in,
    stored,
    writing,
)


def test_a_snapshot_is_kept_with_the_head_it_belongs_to(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, writing(b"after one"))
    first = journal.position.head
    append(journal, writing(b"after two"))
    one, two = stored(b"after one"), stored(b"after two")
    for number, content in ((2, two), (1, one), (0, b"nothing yet")):
        journal.keep_snapshot(number, content)
    again = journal_in(tmp_path)
    assert again.snapshots == journal.snapshots == (0, 1, 2)
    at, signed = again.snapshot(1)
    assert (at, signed.head, signed.content) == (Position(1, 1, 1, first), first, one)
    at, signed = again.snapshot(2)
    assert (at, signed.head, signed.content) == (journal.position, journal.position.head, two)
    at, signed = again.snapshot(0)
    assert (at, signed.content) == (GENESIS, b"nothing yet")
    upgraded = stored(b"after two", code=b"d" * 32)
    again.keep_snapshot(2, upgraded)
    assert again.snapshot(2)[1].content == upgraded
    for upto, found in ((0, 0), (1, 1), (2, 2), (99, 2)):
        assert again.snapshot(upto, upto=True)[0].number == found
    assert again.snapshots == (0, 1, 2)


def test_snapshots_that_cannot_be_are_refused(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    assert code_of(lambda: journal.keep_snapshot(1, b"")) is Code.NUMBER
    assert code_of(lambda: journal.snapshot(0)) is Code.UNKNOWN
    assert code_of(lambda: journal.snapshot(9, upto=True)) is Code.UNKNOWN
    append(journal, WRITING)
    journal.keep_snapshot(1, STATE)
    path = tmp_path / ENVIRONMENT.hex() / "snapshots" / "1.ats"
    path.write_bytes(path.read_bytes() + b"x")
    assert code_of(lambda: journal.snapshot(1)) is Code.CORRUPT
    path.write_bytes(encode_snapshot(key_in(tmp_path), ENVIRONMENT, (1, b"h" * 32), STATE))
    assert code_of(lambda: journal.snapshot(1)) is Code.CORRUPT
    path.unlink()
    assert code_of(lambda: journal.snapshot(1)) is Code.IO
    path.mkdir()
    assert code_of(lambda: journal.keep_snapshot(1, STATE)) is Code.IO


@pytest.mark.parametrize(
    ("number", "content"),
    [(1, STATE), (2, stored(b"another")), (2, stored(b"state", epoch=2)), (2, b"no snapshot"), (3, STATE)],
)
def test_a_state_that_its_block_does_not_say_is_not_kept(tmp_path: Path, number: int, content: bytes) -> None:
    journal = journal_in(tmp_path)
    append(journal, b"no records", WRITING, encode_body(bytes(16), [Entry(1, 0, Checkpointed())]))
    assert code_of(lambda: journal.keep_snapshot(number, content)) is Code.DIGEST
    assert journal_in(tmp_path).snapshots == ()


def test_a_state_on_disk_that_its_block_does_not_say_is_not_given_back(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, WRITING)
    journal.keep_snapshot(1, STATE)
    path, at = tmp_path / ENVIRONMENT.hex() / "snapshots" / "1.ats", (1, journal.position.head)
    path.write_bytes(encode_snapshot(key_in(tmp_path), ENVIRONMENT, at, stored(b"another")))
    with pytest.raises(RefusedError, match=r"corrupt: .*it is not the state after block 1"):
        journal_in(tmp_path).snapshot(1)
    path.write_bytes(encode_snapshot(key_in(tmp_path), ENVIRONMENT, at, STATE))
    assert journal_in(tmp_path).snapshot(1)[1].content == STATE
    path.rename(path.with_name("7.ats"))
    path.with_name("7.ats").write_bytes(encode_snapshot(key_in(tmp_path), ENVIRONMENT, (7, at[1]), STATE))
    with pytest.raises(RefusedError, match=r"corrupt: .*block 7 is not here"):
        journal_in(tmp_path).snapshot(7)


def test_only_what_a_recorder_of_this_node_has_signed_is_gone_on_from(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, WRITING)
    journal.keep_snapshot(1, STATE)
    path, other = tmp_path / ENVIRONMENT.hex() / "snapshots" / "1.ats", stored(b"state", code=b"e" * 32)
    for invented in (Hand(7, NODE, signer=5), OTHER):
        path.write_bytes(invented.snapshot(journal.position, other))
        with pytest.raises(RefusedError, match=r"corrupt: .*signed by another recorder"):
            journal.snapshot(1)
    before = Hand(7, NODE, signer=1)  # A recorder's key of this node that was lost.
    path.write_bytes(before.snapshot(journal.position, STATE))
    assert journal.snapshot(1)[1].sealer == before.sealer


def test_snapshots_are_bounded(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    append(journal, *[WRITING] * (KEPT_SNAPSHOTS_MAX))
    for number in range(KEPT_SNAPSHOTS_MAX):
        journal.keep_snapshot(number, STATE)
    assert code_of(lambda: journal.keep_snapshot(KEPT_SNAPSHOTS_MAX, STATE)) is Code.LIMIT
    journal.keep_snapshot(0, b"again")


def test_a_journal_begins_where_a_snapshot_stands(tmp_path: Path) -> None:
    at = Position(7, 2, 30, b"h" * 32)
    create_journal(tmp_path / ENVIRONMENT.hex(), key_in(tmp_path), "shop", at)
    journal = journal_in(tmp_path)
    assert (journal.first, journal.position) == (8, at)
    journal.keep_snapshot(7, b"state")
    append(journal, b"eight")
    found, signed = journal_in(tmp_path).snapshot(7)
    assert (found, signed.content) == (at, b"state")
    assert journal.base == 7
    assert code_of(lambda: journal.read(7, 1)) is Code.NUMBER
    path = tmp_path / ENVIRONMENT.hex() / "snapshots" / "7.ats"
    path.write_bytes(OTHER.snapshot(at, b"forged"))  # Its block is not here, so the signature has to do.
    assert code_of(lambda: journal.snapshot(7)) is Code.CORRUPT
