# SPDX-License-Identifier: Apache-2.0
"""The roster: what it takes in, what it comes to, and how two are compared."""

import msgspec
import pytest

from atoll.base.errors import CorruptError, WireError
from atoll.base.ids import GroupId
from atoll.base.member import Member
from atoll.group import Identity
from atoll.group.limits import FORKS_MAX
from atoll.group.roster import Outcome, Roster
from atoll.group.statement import (
    Admit,
    AdmitGuest,
    Body,
    Draft,
    Gateway,
    Name,
    Profile,
    Remove,
    RemoveGuest,
    Statement,
    decode_statement,
    digest_of,
    signed,
)

EDGES = (bytes(8), b"\xff" * 8)


def identity(seed: int) -> Identity:
    return Identity(seed.to_bytes(2, "big") * 32)


def record(seed: int, name: str = "") -> Member:
    who = identity(seed)
    return Member(who.public_key, who.signing_key, name or f"m{seed}")


GROUP = GroupId(identity(0).signing_key)


def say(roster: Roster, seed: int, body: Body) -> Statement:
    who = identity(seed)
    statement = signed(GROUP, roster.draft(who.signing_key, body), who.sign)
    assert roster.add(statement) is Outcome.NEW
    return statement


def remove(roster: Roster, by: int, seed: int, heads: tuple[bytes, ...] | None = None) -> Statement:
    who = identity(seed)
    kept = roster.heads(who.signing_key) if heads is None else heads
    return say(roster, by, Remove(who.node, who.signing_key, kept))


def founded(*seeds: int) -> Roster:
    roster = Roster(GROUP)
    for seed in (0, *seeds):
        say(roster, 0, Admit(record(seed)))
    return roster


def fork(counter: int, previous: bytes, seed: int, by: int = 0) -> Statement:
    who = identity(by)
    return signed(GROUP, Draft(who.signing_key, counter, previous, Admit(record(seed))), who.sign)


def names(roster: Roster) -> list[str]:
    return [member.name for member in roster.members()]


def exchange(left: Roster, right: Roster) -> int:
    """One full comparison in both directions; return how many statements moved."""
    moved = 0
    for sender, receiver in ((left, right), (right, left), (left, right)):
        lacking, _ = sender.compare(*EDGES, receiver.lines())
        moved += sum(receiver.add(statement) is Outcome.NEW for statement in lacking)
    return moved


def test_what_is_taken_in() -> None:
    roster = founded(1)
    statement = say(roster, 1, Admit(record(2)))
    assert roster.add(statement) is Outcome.KNOWN
    assert names(roster) == ["m0", "m1", "m2"]
    assert len(roster) == 3


def test_nothing_unsigned_or_from_elsewhere() -> None:
    roster = founded(1)
    before = roster.encode()
    good = signed(GROUP, roster.draft(identity(1).signing_key, Admit(record(2))), identity(1).sign)
    assert roster.add(msgspec.structs.replace(good, signature=bytes(64))) is Outcome.FORGED
    assert roster.add(msgspec.structs.replace(good, body=Admit(record(3)))) is Outcome.FORGED
    elsewhere = signed(GroupId(bytes(32)), good.draft, identity(1).sign)
    assert roster.add(elsewhere) is Outcome.FORGED
    assert roster.add(fork(1, b"", 3, by=9)) is Outcome.EARLY  # A stranger may become known.
    assert roster.add(fork(1, b"x", 3, by=1)) is Outcome.UNSOUND
    assert roster.add(fork(2, b"x" * 32, 3, by=1)) is Outcome.EARLY
    assert roster.encode() == before


def test_a_counter_follows_its_previous() -> None:
    roster = founded(1)
    first = digest_of(GROUP, roster.statements()[0])
    assert roster.add(fork(4, first, 5)) is Outcome.UNSOUND


def test_a_fork_counts_twice_and_is_reported() -> None:
    roster = founded(1)
    first = digest_of(GROUP, roster.statements()[0])
    assert roster.equivocators() == ()
    assert roster.add(fork(2, first, 5)) is Outcome.NEW
    assert set(names(roster)) == {"m0", "m1", "m5"}
    assert roster.equivocators() == (GROUP,)
    assert len(roster.heads(GROUP)) == 2


@pytest.mark.parametrize("backwards", [False, True])
def test_of_many_forks_the_smallest_digests_stay(*, backwards: bool) -> None:
    roster = founded()
    first = digest_of(GROUP, roster.statements()[0])
    forks = sorted((fork(2, first, seed) for seed in range(10, 20)), key=lambda s: digest_of(GROUP, s))
    for statement in reversed(forks) if backwards else forks:
        assert roster.add(statement) in {Outcome.NEW, Outcome.STALE}
    assert {s.body for s in roster.statements()[1:]} == {s.body for s in forks[:FORKS_MAX]}


def test_a_dropped_fork_takes_what_rests_on_it_along() -> None:
    roster = founded()
    first = digest_of(GROUP, roster.statements()[0])
    forks = sorted((fork(2, first, seed) for seed in range(10, 20)), key=lambda s: digest_of(GROUP, s))
    last = forks[-1]
    assert isinstance(last.body, Admit)
    assert roster.add(last) is Outcome.NEW
    guest = next(seed for seed in range(10, 20) if record(seed) == last.body.member)
    say(roster, guest, Admit(record(30)))
    assert roster.add(fork(3, digest_of(GROUP, last), 31)) is Outcome.NEW
    for statement in forks[:FORKS_MAX]:
        assert roster.add(statement) is Outcome.NEW
    assert len(roster) == 1 + FORKS_MAX
    assert {"m30", "m31", f"m{guest}"}.isdisjoint(names(roster))


def test_what_a_removal_keeps_cannot_be_pushed_out() -> None:
    roster = founded(1, 2)
    say(roster, 1, Admit(record(3)))
    remove(roster, 2, 1)
    for seed in range(40, 60):
        roster.add(fork(1, b"", seed, by=1))
    assert names(roster) == ["m0", "m2", "m3"]


def test_profiles_are_registers() -> None:
    roster = founded(1)
    newer = roster.draft(identity(1).signing_key, Profile(record(1, "newer")))
    say(roster, 1, Profile(record(1, "older")))
    assert names(roster) == ["m0", "older"]
    say(roster, 1, Profile(record(1, "newest")))
    assert names(roster) == ["m0", "newest"]
    assert roster.add(signed(GROUP, newer, identity(1).sign)) is Outcome.STALE
    assert roster.add(roster.statements()[-1]) is Outcome.KNOWN
    assert len(roster.statements()) == 3


@pytest.mark.parametrize("backwards", [False, True])
def test_of_two_profiles_with_one_counter_the_smaller_digest_stays(*, backwards: bool) -> None:
    roster = founded(1)
    who = identity(1)
    both = [signed(GROUP, Draft(who.signing_key, 7, b"", Profile(record(1, n))), who.sign) for n in ("a", "b")]
    both.sort(key=lambda s: digest_of(GROUP, s), reverse=backwards)
    for statement in both:
        roster.add(statement)
    assert roster.statements()[-1] == min(both, key=lambda s: digest_of(GROUP, s))


def test_profiles_are_of_members_and_keep_their_keys() -> None:
    roster = founded(1)
    who = identity(1)
    stranger = Draft(identity(5).signing_key, 1, b"", Profile(record(5)))
    assert roster.add(signed(GROUP, stranger, identity(5).sign)) is Outcome.EARLY
    other_key = Draft(who.signing_key, 1, b"", Profile(Member(record(5).public_key, who.signing_key, "m1")))
    assert roster.add(signed(GROUP, other_key, who.sign)) is Outcome.UNSOUND
    unsigned = Draft(who.signing_key, 1, b"", Profile(record(1, "thief")))
    assert roster.add(unsigned.with_signature(bytes(64))) is Outcome.FORGED
    say(roster, 1, Profile(record(1, "gone")))
    remove(roster, 0, 1)
    assert roster.statements()[-1].counter == 3  # The profile went with the member.


def test_names_are_told_apart() -> None:
    roster = Roster(GROUP)
    for seed in range(4):
        say(roster, 0, Admit(record(seed, "gpu")))
    assert names(roster) == ["gpu", "gpu-2", "gpu-3", "gpu-4"]
    assert roster.free_name("gpu") == "gpu-5"
    assert roster.free_name("x" * 32) == "x" * 32
    say(roster, 0, Admit(record(5, "x" * 32)))
    assert roster.free_name("x" * 32) == "x" * 30 + "-2"


def test_a_name_cannot_be_taken_over() -> None:
    roster = founded(1, 2)
    say(roster, 1, Profile(record(1, "m2")))
    assert names(roster) == ["m0", "m2-2", "m2"]
    found = roster.find(identity(1).node)
    assert found is not None
    assert found.name == "m2-2"
    assert roster.record(identity(1).signing_key) == record(1, "m2")
    assert roster.record(identity(9).signing_key) is None


def test_who_did_what() -> None:
    roster = founded(1)
    say(roster, 1, Admit(record(2)))
    remove(roster, 2, 1)
    assert roster.is_removed(record(1))
    assert not roster.is_removed(record(2))
    assert [entry.statement.issuer for entry in roster.removals()] == [identity(2).signing_key]
    assert roster.issuer_name(identity(1).signing_key) == "m1"
    assert roster.issuer_name(b"\xab" * 32) == "abababab"
    assert roster.node_of(identity(1).signing_key) == identity(1).node
    assert roster.node_of(b"\xab" * 32) is None
    assert roster.admitted_by(identity(2).node) == "m1"
    assert roster.admitted_by(identity(9).node) == ""
    assert roster.find(identity(1).node) is None
    assert [former.signing_key for former in roster.former()] == [identity(1).signing_key]
    assert founded(1).former() == ()


def test_the_version_tells_rosters_apart() -> None:
    left, right = founded(1), founded(1)
    assert left.version_text() == right.version_text()
    assert left.version_text().startswith("2-")
    say(left, 1, Profile(record(1, "new")))
    assert left.version_text().startswith("3-")
    assert left.digest() != right.digest()


def test_two_rosters_become_equal() -> None:
    left, right = founded(1, 2), founded(1, 2)
    say(left, 1, Admit(record(3)))
    say(left, 3, Profile(record(3, "three")))
    remove(right, 2, 0)
    say(right, 2, Profile(record(2, "two")))
    assert exchange(left, right) == 4
    assert left.digest() == right.digest()
    assert left.members() == right.members()
    assert exchange(left, right) == 0


def test_forks_and_equal_counters_are_exchanged_too() -> None:
    left, right = founded(1), founded(1)
    first = digest_of(GROUP, left.statements()[0])
    for seed in (5, 6):
        assert left.add(fork(2, first, seed)) is Outcome.NEW
    deep = fork(3, digest_of(GROUP, fork(2, first, 7)), 8)
    assert right.add(fork(2, first, 7)) is Outcome.NEW
    assert right.add(deep) is Outcome.NEW
    exchange(left, right)
    exchange(left, right)
    assert left.digest() == right.digest()
    who = identity(1)
    for roster, name in ((left, "a"), (right, "b")):
        roster.add(signed(GROUP, Draft(who.signing_key, 7, b"", Profile(record(1, name))), who.sign))
    exchange(left, right)
    assert left.digest() == right.digest()


def test_a_longer_history_that_is_dropped_elsewhere_does_not_block() -> None:
    left, right = founded(), founded()
    first = digest_of(GROUP, left.statements()[0])
    forks = sorted((fork(2, first, seed) for seed in range(10, 20)), key=lambda s: digest_of(GROUP, s))
    for statement in (forks[-1], fork(3, digest_of(GROUP, forks[-1]), 30)):
        assert left.add(statement) is Outcome.NEW
    for statement in forks[:FORKS_MAX]:
        assert right.add(statement) is Outcome.NEW
    lacking, behind = left.compare(*EDGES, right.lines())
    assert [right.add(statement) for statement in lacking] == [Outcome.KNOWN, Outcome.STALE, Outcome.EARLY]
    assert behind
    for statement in right.compare(*EDGES, left.lines(), thorough=True)[0]:
        left.add(statement)
    assert left.digest() == right.digest()


def test_a_comparison_is_of_a_range() -> None:
    roster = founded(1)
    assert roster.compare(b"\x00" * 8, b"\x00" * 8, ()) == ((), False)
    low = GROUP[:8]
    assert roster.compare(low, low, ())[0] == roster.statements()
    assert roster.compare(*EDGES, roster.lines()) == ((), False)


def test_an_issuer_that_only_the_other_knows_is_missed() -> None:
    left, right = founded(1), founded(1)
    say(right, 1, Profile(record(1, "new")))
    assert left.compare(*EDGES, right.lines()) == ((), True)
    ahead = right.compare(*EDGES, left.lines())
    assert ahead == ((right.statements()[-1],), False)


def test_the_durable_form() -> None:
    roster = founded(1, 2)
    say(roster, 1, Profile(record(1, "new")))
    remove(roster, 2, 0)
    for again in (Roster.decode(roster.encode()), Roster.trusted(roster.encode())):
        assert again.encode() == roster.encode()
        assert again.members() == roster.members()
        assert again.digest() == roster.digest()


def test_a_durable_form_that_was_touched() -> None:
    roster = founded(1)
    good = roster.encode()
    for cut in range(0, len(good), 7):
        with pytest.raises(CorruptError):
            Roster.decode(good[:cut])
    with pytest.raises(CorruptError):
        Roster.decode(good.replace(b"\xa2m1", b"\xa2m9"))
    with pytest.raises(CorruptError):
        Roster.decode(msgspec.msgpack.encode((2, GROUP, ())))


def test_compaction_drops_what_is_void_only() -> None:
    roster = founded(1, 2)
    say(roster, 1, Admit(record(3)))
    say(roster, 3, Admit(record(4)))
    remove(roster, 2, 1, heads=())
    before = roster.members()
    assert roster.compact() == 2
    assert roster.members() == before
    assert roster.compact() == 0
    assert Roster.decode(roster.encode()).members() == before


# The group's name.


def test_the_founder_says_what_the_group_is_called_and_its_last_word_counts() -> None:
    roster = founded(1)
    assert roster.name == ""
    say(roster, 0, Name("lab"))
    assert roster.name == "lab"
    say(roster, 0, Name("den"))
    say(roster, 0, Admit(record(2)))
    assert roster.name == "den"
    assert Roster.decode(roster.encode()).name == "den"
    assert len(roster.members()) == 3


def test_nobody_else_can_name_the_group() -> None:
    roster = founded(1)
    who = identity(1)
    statement = signed(GROUP, roster.draft(who.signing_key, Name("mine")), who.sign)
    assert roster.add(statement) is Outcome.UNSOUND
    assert roster.name == ""


@pytest.mark.parametrize("name", ["", "-", "UPPER", "a b", "a\n", "x" * 33, "\u202eevil", "\x1b[31m"])
def test_a_name_that_is_no_label_is_refused_here_and_on_the_wire(name: str) -> None:
    roster = founded()
    statement = signed(GROUP, roster.draft(GROUP, Name(name)), identity(0).sign)
    assert roster.add(statement) is Outcome.UNSOUND
    with pytest.raises(WireError):
        decode_statement(msgspec.msgpack.encode(statement))


def test_what_a_founder_says_of_the_name_after_its_removal_has_no_effect() -> None:
    roster = founded(1)
    say(roster, 0, Name("lab"))
    remove(roster, 1, 0)
    say(roster, 0, Name("mine"))
    assert roster.name == "lab"


def test_two_names_under_one_number_come_to_the_same_in_any_order() -> None:
    names: list[str] = []
    for order in (("lab", "den"), ("den", "lab")):
        roster = founded()
        previous = roster.heads(GROUP)[0]
        for name in order:
            draft = Draft(GROUP, 2, previous, Name(name))
            assert roster.add(signed(GROUP, draft, identity(0).sign)) is Outcome.NEW
        names.append(roster.name)
    assert names[0] == names[1]


PHONE, PAD, GATEWAY = (bytes([number]) * 32 for number in (0x50, 0x51, 0x52))


def guests(roster: Roster) -> list[str]:
    return [guest.name for guest in roster.guests().guests]


def test_guests_are_those_that_members_admitted_and_nobody_removed() -> None:
    roster = founded(1, 2)
    say(roster, 1, AdmitGuest(PHONE, GATEWAY, "phone"))
    say(roster, 2, AdmitGuest(PAD, GATEWAY, "pad"))
    assert guests(roster) == ["phone", "pad"]
    say(roster, 2, RemoveGuest(PHONE))
    assert guests(roster) == ["pad"]
    say(roster, 1, AdmitGuest(PHONE, GATEWAY, "again"))
    assert guests(roster) == ["pad"]  # For good.


def test_a_guest_goes_with_the_member_that_is_disowned() -> None:
    roster = founded(1, 2)
    say(roster, 1, AdmitGuest(PHONE, GATEWAY, "phone"))
    say(roster, 1, AdmitGuest(PAD, GATEWAY, "pad"))
    remove(roster, 2, 1)
    assert guests(roster) == ["phone", "pad"]
    remove(roster, 0, 1, ())
    assert guests(roster) == []


def test_a_guest_takes_no_name_of_another() -> None:
    roster = founded(1)
    say(roster, 0, AdmitGuest(PHONE, GATEWAY, "m1"))
    say(roster, 0, AdmitGuest(PAD, GATEWAY, "m1"))
    assert guests(roster) == ["m1-2", "m1-3"]
    assert roster.free_name("m1") == "m1-4"
    assert roster.free_name("m1-2") == "m1-2-2"


def test_a_gateways_key_is_sealed_for_members_one_by_one_and_the_first_box_stays() -> None:
    roster = founded(1)
    one, two = identity(0).node, identity(1).node
    say(roster, 0, Gateway(GATEWAY, ((one, b"a" * 80),)))
    say(roster, 1, Gateway(GATEWAY, ((one, b"x" * 80), (two, b"b" * 80))))
    assert roster.guests().shares == {GATEWAY: {one: b"a" * 80, two: b"b" * 80}}


def test_guests_survive_the_durable_form_and_the_digest_tells_them_apart() -> None:
    roster = founded(1)
    before = roster.digest()
    say(roster, 1, AdmitGuest(PHONE, GATEWAY, "phone"))
    assert roster.digest() != before
    assert Roster.decode(roster.encode()).guests() == roster.guests()
