# SPDX-License-Identifier: Apache-2.0
"""Invitations of an inviter that is stopped, or killed, before the guest came."""

from collections.abc import Generator

import msgspec
import pytest

from atoll.group.form import decode_form
from atoll.group.invite import decode_invitation, invite_public_key
from tests.process.node_world import Box, Nodes, Said, nodes, until

pytestmark = pytest.mark.process


@pytest.fixture
def world() -> Generator[Nodes]:
    with nodes() as world:
        yield world


def stopped(box: Box) -> None:
    box.down()
    until(lambda: box.pid == 0, "the end of the process")


def used(said: Said) -> bool:
    return (said.code, said.status) == ("A204", 6)


def test_an_inviter_killed_before_the_guest_came_lets_it_in_and_nobody_else(world: Nodes) -> None:
    one, two, late = world.box("one"), world.box("two"), world.box("late")
    one.up()
    invite = one.invite()
    one.kill()  # At once: whoever holds the line must get in.
    one.again()
    assert two.up(invite).joined
    assert used(late.try_up(invite))
    one.kill()
    one.again()
    assert used(late.try_up(invite)), "that it was used is known to the next process, too"
    assert set(one.peers()) == {"two"}
    one.down()  # A journal is written within a second, or at the end.
    replayed = one.run_bare("replay", str(one.state / "journal"))
    assert replayed.status == 0, replayed.err


def test_the_line_that_up_prints_survives_a_stop(world: Nodes) -> None:
    one, two = world.box("one"), world.box("two")
    invite = one.up().invite
    assert invite is not None
    stopped(one)
    one.again()
    assert two.up(invite).joined
    secret = decode_invitation(invite).secret
    for path in one.state.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes(), f"the secret is in {path}"


def test_a_member_that_joins_once_more_keeps_its_own_invitations(world: Nodes) -> None:
    one, two, three = world.box("one"), world.box("two"), world.box("three")
    one.up()
    two.up(one.invite())
    own, again = two.invite(), one.invite()
    stopped(two)
    assert two.up(again).joined
    assert three.up(own).joined


def test_an_invitation_that_ended_while_its_inviter_was_down_is_called_expired(world: Nodes) -> None:
    one, two = world.box("one"), world.box("two")
    one.up()
    invite = one.invite()
    stopped(one)
    path, key = one.state / "roster", bytes(invite_public_key(decode_invitation(invite).secret))
    form = decode_form(path.read_bytes())
    assert form.kept is not None
    assert key in {kept.public_key for kept in form.kept.invites}
    # As if it had been down for ten minutes: written so much earlier, by a clock that was right.
    earlier = tuple(
        msgspec.structs.replace(kept, expires_wall_s=kept.expires_wall_s - 600) for kept in form.kept.invites
    )
    kept = msgspec.structs.replace(form.kept, wall_s=form.kept.wall_s - 600, invites=earlier)
    path.write_bytes(msgspec.msgpack.encode(msgspec.structs.replace(form, kept=kept)))
    one.again()
    said = two.try_up(invite)
    assert (said.code, said.status) == ("A203", 6)


def test_a_clock_set_back_while_its_inviter_was_down_prolongs_nothing(world: Nodes) -> None:
    one, two = world.box("one"), world.box("two")
    one.up()
    invite = one.invite()
    stopped(one)
    path = one.state / "roster"
    form = decode_form(path.read_bytes())
    assert form.kept is not None
    kept = msgspec.structs.replace(form.kept, wall_s=form.kept.wall_s + 3600)  # The clock that wrote it was ahead.
    path.write_bytes(msgspec.msgpack.encode(msgspec.structs.replace(form, kept=kept)))
    one.again()
    said = two.try_up(invite)
    assert (said.code, said.status) == ("A203", 6)
