# SPDX-License-Identifier: Apache-2.0
"""The file of a group: what is written comes back, files of before are read, and everything else is one error."""

import msgspec
import pytest

from atoll.base.errors import CorruptError
from atoll.group import Roster, founding_roster, invite_public_key
from atoll.group.form import FORM_VERSION, KeptInvite, KeptInvites, decode_form
from atoll.group.limits import INVITE_FORGET_NS, INVITES_MAX
from tests.unit.group_world import WALL_S, identity, record

INVITE = KeptInvite(bytes(invite_public_key(b"s" * 16)), WALL_S, 1, 2, record(7), 4)


def encoded(**changes: object) -> bytes:
    invite = {**msgspec.structs.asdict(INVITE), **changes}
    form = msgspec.msgpack.decode(founding_roster(identity(0), record(0)).encode())
    return msgspec.msgpack.encode([*form[:3], [WALL_S, [list(invite.values())]]])


def test_invitations_come_back_and_change_nothing_in_the_roster() -> None:
    roster = founding_roster(identity(0), record(0))
    kept = KeptInvites(WALL_S, (INVITE,))
    assert decode_form(roster.encode(kept=kept)).kept == kept
    assert Roster.decode(roster.encode(kept=kept)).encode() == roster.encode()
    assert decode_form(encoded()).kept == kept


def test_a_file_of_before_invitations_were_kept_is_read() -> None:
    roster = founding_roster(identity(0), record(0))
    form = msgspec.msgpack.decode(roster.encode())
    assert decode_form(msgspec.msgpack.encode(form[:3])).kept is None
    assert Roster.decode(msgspec.msgpack.encode(form[:3])).digest() == roster.digest()


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\x94",
        b"\xff" * 100,
        msgspec.msgpack.encode([FORM_VERSION + 1, b"g", []]),
        encoded(public_key=bytes(31)),
        encoded(expires_wall_s=-1),
        encoded(valid_ns=-1),
        encoded(remembered_ns=INVITE_FORGET_NS + 1),
        encoded(refused=256),
        encoded(joiner=["not", "a", "member"]),
        encoded(valid_ns=1.5),
        msgspec.msgpack.encode([FORM_VERSION, b"g", [], KeptInvites(WALL_S, (INVITE,) * (INVITES_MAX + 1))]),
    ],
    ids=lambda content: str(content[:6]) + str(len(content)),
)
def test_whatever_else_stands_in_it_is_one_error(damaged: bytes) -> None:
    with pytest.raises(CorruptError):
        decode_form(damaged)
