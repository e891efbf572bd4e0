# SPDX-License-Identifier: Apache-2.0
"""A member's description is bounded in every field when it comes from outside."""

import msgspec
import pytest

from atoll.base.ids import PublicKey, node_id_of
from atoll.base.member import ENDPOINTS_MAX, Member, RelayWill

MEMBER = Member(b"k" * 32, b"s" * 32, "fra-1", (("192.0.2.1", 41641),), RelayWill.METERED, 1000)


def test_a_member_survives_the_wire() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(MEMBER), type=Member) == MEMBER


def test_the_id_follows_from_the_key() -> None:
    assert MEMBER.node == node_id_of(PublicKey(b"k" * 32))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, b"k" * 31),
        (1, b"s" * 33),
        (2, ""),
        (2, "Fra"),
        (2, "-fra"),
        (2, "fra-"),
        (2, "f" * 33),
        (2, "fra\n"),
        (3, [["192.0.2.1", 41641]] * (ENDPOINTS_MAX + 1)),
        (3, [["", 41641]]),
        (3, [["x" * 46, 41641]]),
        (3, [["192.0.2.1", 0]]),
        (3, [["192.0.2.1", 65536]]),
        (4, "perhaps"),
        (5, -1),
        (5, (1 << 40) + 1),
    ],
)
def test_a_field_out_of_its_bounds_is_refused(field: int, value: object) -> None:
    items = msgspec.to_builtins(MEMBER, builtin_types=(bytes,))
    items[field] = value
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(items), type=Member)
