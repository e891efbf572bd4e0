# SPDX-License-Identifier: Apache-2.0
"""Typed tuples: the tag comes first, what is unknown is refused, and a kind is a value."""

import dataclasses

import msgspec
import pytest

from atoll.core.machine import Machine, MachineKind, Tick, Tuple


class Added(Tuple, frozen=True):
    amount: int


class Short(Tuple, frozen=True, tag=7):
    amount: int


def test_a_tuple_is_an_array_that_begins_with_its_tag() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Added(3))) == ["Added", 3]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Short(3))) == [7, 3]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Tick())) == ["Tick"]


def test_a_tuple_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Added(3).amount = 4  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  That is the test.


def test_more_fields_than_known_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(["Added", 3, 4]), type=Added)


class Idle:
    deadline_ns: int | None = None

    def handle(self, event: Tick, now_ns: int) -> tuple[Tick, ...]:
        return (event,) if now_ns < 0 else ()

    def snapshot(self) -> bytes:
        return b"\xc0"


def test_a_kind_is_a_frozen_value_that_restores_its_machine() -> None:
    def restore(_: bytes) -> Machine[Tick, Tick]:
        return Idle()

    kind: MachineKind[Tick, Tick] = MachineKind("idle", 1, Tick, Tick, restore)
    assert kind.restore(b"").snapshot() == b"\xc0"
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind.version = 2  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  That is the test.
