# SPDX-License-Identifier: Apache-2.0
"""The demo replays and audits with the commands that people have, each in a process of its own."""

import asyncio
from pathlib import Path

import pytest

from atoll.lab.histories import Replayed, digest_of, replayed, tampered
from tests.unit.past_world import DiskWorld

pytestmark = pytest.mark.process


@pytest.fixture
def world(tmp_path: Path) -> DiskWorld:
    """Return a journal with 12 events in three blocks."""
    made = DiskWorld(tmp_path / "one")
    made.bids(12)
    return made


def test_a_replay_gives_the_digest_of_the_state_that_lived(world: DiskWorld) -> None:
    found = asyncio.run(replayed(world.state, "auction", 12))
    assert found == Replayed(12, 0, digest_of(world.memory.environment.fields()))
    earlier = asyncio.run(replayed(world.state, "auction", 11))
    assert earlier.digest not in {"", found.digest}


def test_what_cannot_be_replayed_says_why(world: DiskWorld) -> None:
    assert "no journal of another" in asyncio.run(replayed(world.state, "another", 12)).words
    assert "no event 13" in asyncio.run(replayed(world.state, "auction", 13)).words


def test_an_audit_names_the_block_of_a_copy_in_which_a_byte_was_changed(world: DiskWorld, tmp_path: Path) -> None:
    content = world.segment.read_bytes()
    found = asyncio.run(tampered(world.state, "auction", tmp_path / "copies"))
    assert (found.blocks, found.block, found.named) == (3, 2, 2)
    assert "block 2" in found.words
    assert world.segment.read_bytes() == content, "the journal itself is not touched"


def test_a_journal_that_is_not_sound_is_not_copied(world: DiskWorld, tmp_path: Path) -> None:
    content = bytearray(world.segment.read_bytes())
    content[-10] ^= 1
    world.segment.write_bytes(content)
    found = asyncio.run(tampered(world.state, "auction", tmp_path / "copies"))
    assert (found.blocks, found.block, found.named) == (0, 0, None)
    assert not (tmp_path / "copies").exists()
    assert "block 3" in found.words, "it says what is wrong"


def test_a_journal_that_is_not_there_is_said_to_be_none(world: DiskWorld, tmp_path: Path) -> None:
    found = asyncio.run(tampered(world.state, "another", tmp_path / "copies"))
    assert (found.blocks, found.named) == (0, None)
    assert "no journal of another" in found.words
