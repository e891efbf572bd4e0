# SPDX-License-Identifier: Apache-2.0
"""What the demo reads in journals, and what it changes in a copy of one."""

from pathlib import Path

import pytest

from atoll.domain.auditing import audit
from atoll.domain.shelves import find_journal
from atoll.env.records import Opened
from atoll.lab.histories import changed_byte, digest_of, has_event, owners_of
from tests.unit.past_world import ANN, DiskWorld, arrived, bid
from tests.unit.recorder_world import NODE

OTHER = b"other-node"


@pytest.fixture
def world(tmp_path: Path) -> DiskWorld:
    """Return a journal with 12 events in three blocks."""
    made = DiskWorld(tmp_path / "one")
    made.bids(12)
    return made


def test_a_digest_is_that_of_the_content() -> None:
    assert digest_of({"a": 1, "b": {"x": 2, "y": 3}}) == digest_of({"b": {"y": 3, "x": 2}, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


def test_the_changed_byte_is_in_the_block_that_the_audit_names(world: DiskWorld) -> None:
    size = world.segment.stat().st_size
    assert changed_byte([world.segment]) == 2
    assert world.segment.stat().st_size == size
    found = audit(find_journal(world.state, "auction"), [], None)
    assert [fault.block for fault in found.faults] == [2]


def test_where_there_is_no_block_nothing_is_changed(tmp_path: Path) -> None:
    empty = DiskWorld(tmp_path / "empty")
    content = empty.segment.read_bytes()
    assert changed_byte([empty.segment]) == 0
    assert empty.segment.read_bytes() == content
    assert changed_byte([]) == 0


def test_a_node_has_an_event_when_its_journal_has_come_to_it(world: DiskWorld, tmp_path: Path) -> None:
    assert has_event(world.state, "auction", 12)
    assert not has_event(world.state, "auction", 13)
    assert not has_event(world.state, "another", 1)
    assert not has_event(tmp_path / "nowhere", "auction", 1)
    changed_byte([world.segment])
    assert not has_event(world.state, "auction", 12), "it cannot be read"


def test_who_opened_each_epoch_is_read_from_all_journals(world: DiskWorld, tmp_path: Path) -> None:
    began = owners_of([world.state, tmp_path / "nowhere"], "auction")
    assert list(began) == [1]
    world.seal(Opened(NODE, "fra", 2), arrived(ANN, 9, bid("ann", 50)))
    other = DiskWorld(tmp_path / "two")
    other.bids(4)
    other.seal(Opened(OTHER, "ash", 2))
    assert owners_of([other.state], "auction") == began | {2: {OTHER}}
    assert owners_of([world.state, other.state], "auction") == began | {2: {NODE, OTHER}}
