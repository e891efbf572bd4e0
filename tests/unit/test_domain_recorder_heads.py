# SPDX-License-Identifier: Apache-2.0
"""Heads of other nodes' journals stay bounded, and two pasts of one journal stay both."""

from pathlib import Path

import pytest

from atoll.domain.limits import HEADS_NODES_MAX
from atoll.domain.recorder.heads import HeadFiles, decode_heads
from atoll.domain.recorder.messages import Code, KeptHead, RefusedError
from atoll.env.chain import Link
from tests.unit.recorder_world import NODE

RECORD_BYTES = 176


def head(environment: int, number: int, body: int = 0) -> KeptHead:
    link = Link(b"b" * 32, number, 1, number + 5, 3, bytes([body]) * 32)
    return KeptHead(bytes([environment]) * 16, link, b"s" * 64)


def code_of(files: HeadFiles, kept: KeptHead, node: bytes = NODE) -> Code:
    with pytest.raises(RefusedError) as caught:
        files.keep(node, kept)
    return caught.value.code


def test_heads_come_back_in_order_and_for_each_node(tmp_path: Path) -> None:
    files = HeadFiles(tmp_path)
    assert files.read(NODE) == ()
    heads = (head(1, 1), head(2, 9), head(1, 2))
    for kept in heads:
        files.keep(NODE, kept)
    files.keep(b"other-node", head(1, 1))
    assert HeadFiles(tmp_path).read(NODE) == heads
    assert files.read(b"other-node") == (head(1, 1),)
    assert (tmp_path / f"{NODE.hex()}.ath").stat().st_size == 3 * RECORD_BYTES


def test_a_torn_record_is_cut_off(tmp_path: Path) -> None:
    files, path = HeadFiles(tmp_path), tmp_path / f"{NODE.hex()}.ath"
    files.keep(NODE, head(1, 1))
    with path.open("ab") as file:
        file.write(b"torn")
    assert files.read(NODE) == (head(1, 1),)
    files.keep(NODE, head(1, 2))
    assert files.read(NODE) == (head(1, 1), head(1, 2))


def test_a_full_file_keeps_the_newest_and_what_is_proof(tmp_path: Path) -> None:
    files = HeadFiles(tmp_path, bytes_max=6 * RECORD_BYTES)
    for kept in (head(1, 1), head(1, 2, 0), head(1, 2, 1), head(2, 5), head(1, 3), head(2, 4)):
        files.keep(NODE, kept)
    files.keep(NODE, head(2, 6))
    assert files.read(NODE) == (head(1, 2, 0), head(1, 2, 1), head(2, 5), head(1, 3), head(2, 6))
    files.keep(NODE, head(3, 1))
    assert code_of(HeadFiles(tmp_path, bytes_max=4 * RECORD_BYTES), head(4, 1)) is Code.LIMIT
    assert len(files.read(NODE)) == 6


def test_an_end_that_a_power_cut_left_is_cut_off_before_anything_is_put_behind_it(tmp_path: Path) -> None:
    path = tmp_path / f"{NODE.hex()}.ath"
    HeadFiles(tmp_path).keep(NODE, head(1, 1))
    with path.open("ab") as file:
        file.write(bytes(2 * RECORD_BYTES + 9))
    files = HeadFiles(tmp_path)
    assert files.read(NODE) == (head(1, 1),)
    files.keep(NODE, head(1, 2))
    assert path.stat().st_size == 2 * RECORD_BYTES
    assert decode_heads(path.read_bytes()) == ((head(1, 1), head(1, 2)), 0)
    path.write_bytes(bytes(RECORD_BYTES))
    HeadFiles(tmp_path).keep(NODE, head(1, 3))
    assert files.read(NODE) == (head(1, 3),)


def test_a_record_in_the_middle_that_does_not_check_is_passed_over(tmp_path: Path) -> None:
    files, path = HeadFiles(tmp_path, bytes_max=3 * RECORD_BYTES), tmp_path / f"{NODE.hex()}.ath"
    for number in (1, 2, 3):
        files.keep(NODE, head(number, 1))
    changed = bytearray(path.read_bytes())
    changed[RECORD_BYTES + 30] ^= 1
    path.write_bytes(changed)
    assert decode_heads(bytes(changed)) == ((head(1, 1), head(3, 1)), 1)
    assert files.read(NODE) == (head(1, 1), head(3, 1))
    again = HeadFiles(tmp_path, bytes_max=3 * RECORD_BYTES)
    again.keep(NODE, head(4, 1))
    assert again.read(NODE) == (head(1, 1), head(3, 1), head(4, 1))


def test_nodes_are_bounded(tmp_path: Path) -> None:
    files = HeadFiles(tmp_path)
    for number in range(HEADS_NODES_MAX):
        (tmp_path / f"{number:020x}.ath").touch()
    assert code_of(files, head(1, 1)) is Code.LIMIT
    files.keep((1).to_bytes(10, "big"), head(1, 1))


def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    files, path = HeadFiles(tmp_path), tmp_path / f"{NODE.hex()}.ath"
    path.mkdir()
    assert code_of(files, head(1, 1)) is Code.IO
    with pytest.raises(RefusedError, match="io: "):
        files.read(NODE)
    path.rmdir()
    path.symlink_to("/dev/full")
    assert code_of(files, head(1, 1)) is Code.FULL
