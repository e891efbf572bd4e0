# SPDX-License-Identifier: Apache-2.0
"""Heads of journals are told to all members, and kept only if their own recorder has sealed them."""

import asyncio
import logging
from pathlib import Path

import msgspec
import pytest

from atoll.base.errors import WireError
from atoll.base.ids import NodeId
from atoll.domain.heads import Heads
from atoll.domain.recorder.messages import Code, Done, KeptHead, RefusedError
from atoll.env.chain import GENESIS, Block, Link, Seal, Sealer, link_of, pack_body, position_after, seal_payload
from atoll.env.messages import HeadTold, decode_message
from tests.unit.recorder_world import ENVIRONMENT, key_in

BLOCK = Block(1, 1, 1, 1, pack_body(b"records"))


class _Node:
    """A recorder that keeps heads, a clerk of which one block is committed, and a server between them."""

    def __init__(self, state: Path) -> None:
        key = key_in(state)
        self.sealer: Sealer = key.sealer
        self.head = position_after(GENESIS, BLOCK).head
        self.seal: Seal = key.seal(ENVIRONMENT, self.head)
        self.link = link_of(GENESIS.head, BLOCK)
        self.fresh = {ENVIRONMENT: (self.link, self.seal)}
        self.runs = {ENVIRONMENT: key.sealer.node}
        self.members = (NodeId(b"a" * 10), NodeId(b"b" * 10))
        self.said: list[tuple[NodeId, HeadTold]] = []
        self.kept: list[tuple[bytes, KeptHead]] = []
        self.is_full = False
        self.heads = Heads(self, self)

    @property
    def recorder(self) -> "_Node":
        return self

    def news(self) -> dict[bytes, tuple[Link, Seal]]:
        news, self.fresh = self.fresh, {}
        return news

    def others(self) -> tuple[NodeId, ...]:
        return self.members

    def owner(self, identity: bytes) -> bytes:
        return self.runs.get(identity, b"")

    def knows(self, sealer: Sealer) -> bool:
        return sealer == self.sealer

    def tell_node(self, node: NodeId, payload: bytes) -> None:
        message = decode_message(payload)
        assert isinstance(message, HeadTold)
        self.said.append((node, message))

    async def keep_head(self, node: bytes, kept: KeptHead) -> Done:
        if self.is_full:
            raise RefusedError(Code.FULL, "no room")
        self.kept.append((node, kept))
        return Done(1)


def _told(state: Path) -> tuple[_Node, HeadTold]:
    node = _Node(state)
    node.heads.tell()
    return node, node.said[0][1]


def test_each_member_is_told_once_what_is_new(tmp_path: Path) -> None:
    node, told = _told(tmp_path)
    node.heads.tell()
    assert node.said == [(member, told) for member in node.members]
    assert told == HeadTold(ENVIRONMENT, node.link, node.seal.signature, node.sealer)


def test_what_a_node_tells_of_its_own_journals_is_kept(tmp_path: Path) -> None:
    node, told = _told(tmp_path)
    asyncio.run(node.heads.hear(NodeId(node.sealer.node), told))
    assert node.kept == [(node.sealer.node, KeptHead(ENVIRONMENT, node.link, node.seal.signature))]


LINK = link_of(GENESIS.head, BLOCK)


@pytest.mark.parametrize(
    "change",
    [
        {"link": msgspec.structs.replace(LINK, number=1_000_000)},
        {"link": msgspec.structs.replace(LINK, epoch=9)},
        {"link": msgspec.structs.replace(LINK, before=b"h" * 32)},
        {"id": b"i" * 16},
        {"signature": bytes(64)},
    ],
)
def test_what_its_recorder_has_not_sealed_is_not(tmp_path: Path, change: dict[str, object]) -> None:
    node, told = _told(tmp_path)
    node.runs[b"i" * 16] = node.sealer.node
    asyncio.run(node.heads.hear(NodeId(node.sealer.node), msgspec.structs.replace(told, **change)))
    assert node.kept == []


def test_what_is_told_in_the_name_of_another_is_not(tmp_path: Path) -> None:
    node, told = _told(tmp_path)
    asyncio.run(node.heads.hear(node.members[0], told))
    stranger = msgspec.structs.replace(told.sealer, certificate=bytes(64))
    asyncio.run(node.heads.hear(NodeId(node.sealer.node), msgspec.structs.replace(told, sealer=stranger)))
    assert node.kept == []
    with pytest.raises(WireError):
        decode_message(b"\x91\x4c")
    assert seal_payload(ENVIRONMENT, node.head)


@pytest.mark.parametrize("owner", [b"", b"somebody.."])
def test_what_is_told_of_an_environment_by_who_does_not_run_it_is_not(tmp_path: Path, owner: bytes) -> None:
    node, told = _told(tmp_path)
    node.runs = {ENVIRONMENT: owner}
    asyncio.run(node.heads.hear(NodeId(node.sealer.node), told))
    assert node.kept == []


def test_a_disk_that_refuses_is_no_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node, told = _told(tmp_path)
    node.is_full = True
    with caplog.at_level(logging.WARNING):
        asyncio.run(node.heads.hear(NodeId(node.sealer.node), told))
    assert "is not kept: full" in caplog.text
