# SPDX-License-Identifier: Apache-2.0
"""Which member serves a guest: the newest handshake has it, whoever hears of it in whatever order."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from atoll.base.ids import DIRECT
from atoll.base.member import Member
from atoll.core.machine import Tick
from atoll.overlay.guests import (
    REPEAT_NS,
    Guests,
    GuestsChanged,
    GuestsEffect,
    GuestsInput,
    Serving,
    TellMember,
    decode_serving,
    encode_serving,
)
from atoll.overlay.orders import DropGuest, SetGuest, YieldGuest
from atoll.overlay.reports import (
    ControlReceived,
    GuestDown,
    GuestUp,
    MembersChanged,
    NicRestarted,
    SessionDown,
    SessionUp,
)

A, B, C = (Member(bytes([number]) * 32, bytes([number]) * 32, f"m{number}") for number in (1, 2, 3))
PHONE, PAD = b"p" * 10, b"q" * 10


def stamp(number: int) -> bytes:
    return number.to_bytes(12, "big")


def heard(node: bytes, *served: tuple[bytes, int]) -> ControlReceived:
    message = Serving(tuple((guest, stamp(number)) for guest, number in served))
    return ControlReceived(node, DIRECT, encode_serving(message))


class World:
    """One machine, A's, with the others linked."""

    def __init__(self) -> None:
        self.machine = Guests.create(A.node)
        self.now_ns = 0
        self.give(MembersChanged((B, C)))
        self.give(GuestsChanged((PHONE, PAD)))
        self.give(SessionUp(B.node, 1))

    def give(self, event: GuestsInput) -> Sequence[GuestsEffect]:
        self.now_ns += 1
        return self.machine.handle(event, self.now_ns)


def told(effects: Sequence[GuestsEffect]) -> list[tuple[bytes, tuple[tuple[bytes, bytes], ...]]]:
    return [(e.node, decode_serving(e.payload).served) for e in effects if isinstance(e, TellMember)]


def orders(effects: Sequence[GuestsEffect]) -> list[GuestsEffect]:
    return [effect for effect in effects if not isinstance(effect, TellMember)]


def test_whoever_serves_a_guest_tells_the_linked_members() -> None:
    world = World()
    assert told(world.give(GuestUp(PHONE, stamp(5)))) == [(B.node, ((PHONE, stamp(5)),))]
    assert world.machine.server(PHONE) == A.node
    assert told(world.give(SessionUp(C.node, 1))) == [(C.node, ((PHONE, stamp(5)),))]
    assert told(world.give(GuestDown(PHONE))) == [(B.node, ()), (C.node, ())]
    assert world.machine.server(PHONE) is None


def test_it_is_said_again_as_long_as_somebody_is_served() -> None:
    world = World()
    world.give(GuestUp(PHONE, stamp(5)))
    due_ns = world.machine.deadline_ns
    assert due_ns is not None
    assert due_ns == world.now_ns + REPEAT_NS
    world.now_ns = due_ns
    assert told(world.give(Tick())) == [(B.node, ((PHONE, stamp(5)),))]
    world.give(GuestDown(PHONE))
    assert world.machine.deadline_ns is None


def test_a_newer_handshake_elsewhere_takes_the_guest_away() -> None:
    world = World()
    world.give(GuestUp(PHONE, stamp(5)))
    effects = world.give(heard(B.node, (PHONE, 6)))
    assert orders(effects) == [YieldGuest(PHONE), SetGuest(PHONE, B.node)]
    assert told(effects) == [(B.node, ())]
    back = world.give(GuestUp(PHONE, stamp(7)))
    assert orders(back) == [DropGuest(PHONE)]
    assert world.machine.server(PHONE) == A.node


def test_an_older_claim_takes_nothing() -> None:
    world = World()
    world.give(GuestUp(PHONE, stamp(5)))
    assert orders(world.give(heard(B.node, (PHONE, 4)))) == []
    assert world.machine.server(PHONE) == A.node


def test_a_member_that_is_gone_serves_nobody() -> None:
    world = World()
    assert orders(world.give(heard(B.node, (PHONE, 4), (PAD, 4)))) == [SetGuest(PHONE, B.node), SetGuest(PAD, B.node)]
    assert orders(world.give(SessionDown(B.node))) == []  # It may be back, and the guest cannot know.
    assert orders(world.give(MembersChanged((C,)))) == [DropGuest(PHONE), DropGuest(PAD)]


def test_a_guest_that_is_removed_is_forgotten() -> None:
    world = World()
    world.give(GuestUp(PHONE, stamp(5)))
    world.give(heard(B.node, (PAD, 4)))
    effects = world.give(GuestsChanged(()))
    assert orders(effects) == [DropGuest(PAD)]
    assert told(effects) == [(B.node, ())]
    assert orders(world.give(heard(B.node, (PAD, 9)))) == []
    assert orders(world.give(GuestUp(PHONE, stamp(6)))) == []


def test_a_device_that_restarted_serves_nobody_and_is_told_again() -> None:
    world = World()
    world.give(GuestUp(PHONE, stamp(5)))
    world.give(heard(B.node, (PAD, 4)))
    effects = world.give(NicRestarted())
    assert orders(effects) == [SetGuest(PAD, B.node)]
    assert told(effects) == [(B.node, ())]


def test_what_does_not_decode_changes_nothing() -> None:
    world = World()
    world.give(heard(B.node, (PAD, 4)))
    assert world.give(ControlReceived(B.node, DIRECT, b"\x92\x18\x91\x91\x01")) == []
    assert world.machine.server(PAD) == B.node


Event = tuple[int, int, int]  # Which member, which guest, which stamp.


@given(events=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 50)), max_size=30))
def test_all_come_to_the_same_answer_and_snapshots_hold_all(events: list[Event]) -> None:
    members, guests = (A, B, C), (PHONE, PAD)
    machines = [Guests.create(member.node) for member in members]
    for index, machine in enumerate(machines):
        machine.handle(MembersChanged(tuple(m for i, m in enumerate(members) if i != index)), 0)
        machine.handle(GuestsChanged(guests), 0)
        for other, member in enumerate(members):
            if other != index:
                machine.handle(SessionUp(member.node, 1), 0)
    waiting: list[tuple[int, bytes, bytes]] = []
    by_node = {bytes(member.node): index for index, member in enumerate(members)}
    for who, guest, number in events:
        effects = machines[who].handle(GuestUp(guests[guest], stamp(number)), 0)
        waiting += [(by_node[e.node], members[who].node, e.payload) for e in effects if isinstance(e, TellMember)]
    while waiting:
        index, node, payload = waiting.pop(0)
        machines[index] = Guests.restore(machines[index].snapshot())
        effects = machines[index].handle(ControlReceived(node, DIRECT, payload), 0)
        waiting += [(by_node[e.node], members[index].node, e.payload) for e in effects if isinstance(e, TellMember)]
    for phone in guests:
        assert len({machine.server(phone) for machine in machines}) == 1
