# SPDX-License-Identifier: Apache-2.0
"""Who is a member: every kind of dispute between removals, by hand."""

from atoll.base.ids import GroupId
from atoll.base.member import Member
from atoll.group import Identity
from atoll.group.limits import CYCLE_MAX, CYCLE_ROUNDS_MAX, MEMBERS_MAX
from atoll.group.statement import Admit, Body, Draft, Remove, digest_of, signed
from atoll.group.verdict import Entry, Histories, Verdict, judge, lineage


def identity(seed: int) -> Identity:
    return Identity(seed.to_bytes(2, "big") * 32)


class Court:
    """Histories under construction; member 0 is the founder."""

    def __init__(self) -> None:
        self.founder = identity(0)
        self.group = GroupId(self.founder.signing_key)
        self.histories: dict[bytes, list[Entry]] = {}
        self.admit(0, 0)

    def say(self, issuer: int, body: Body) -> bytes:
        who = identity(issuer)
        history = self.histories.setdefault(who.signing_key, [])
        previous = history[-1].digest if history else b""
        statement = signed(self.group, Draft(who.signing_key, len(history) + 1, previous, body), who.sign)
        history.append(Entry(digest_of(self.group, statement), statement))
        return history[-1].digest

    def admit(self, by: int, seed: int) -> bytes:
        return self.say(by, Admit(record(seed)))

    def heads(self, seed: int) -> tuple[bytes, ...]:
        history = self.histories.get(identity(seed).signing_key, [])
        return (history[-1].digest,) if history else ()

    def remove(self, by: int, seed: int, heads: tuple[bytes, ...] | None = None) -> bytes:
        kept = self.heads(seed) if heads is None else heads
        return self.say(by, Remove(identity(seed).node, identity(seed).signing_key, kept))

    def verdict(self) -> Verdict:
        histories: Histories = self.histories
        return judge(self.group, histories)

    def members(self) -> list[int]:
        return [int(member.name[1:]) for member in self.verdict().admitted]


def record(seed: int) -> Member:
    who = identity(seed)
    return Member(who.public_key, who.signing_key, f"m{seed}")


def group_of(*seeds: int) -> Court:
    court = Court()
    for seed in seeds:
        court.admit(0, seed)
    return court


def test_admissions_reach_as_far_as_they_go() -> None:
    court = group_of(1)
    court.admit(1, 2)
    court.admit(2, 3)
    court.admit(9, 10)  # Nobody admitted 9.
    assert court.members() == [0, 1, 2, 3]


def test_a_removed_member_is_out_and_its_guests_stay() -> None:
    court = group_of(1, 2)
    court.admit(1, 3)
    court.remove(2, 1)
    assert court.members() == [0, 2, 3]


def test_what_the_removed_says_later_is_void() -> None:
    court = group_of(1, 2)
    court.remove(2, 1)
    court.admit(1, 3)
    court.remove(1, 0)
    assert court.members() == [0, 2]
    assert len(court.verdict().removals) == 1


def test_disowning_takes_the_guests_along() -> None:
    court = group_of(1, 2)
    court.admit(1, 3)
    court.admit(1, 4)
    court.admit(2, 4)  # Somebody else vouches for 4.
    court.remove(2, 1, heads=())
    assert court.members() == [0, 2, 4]


def test_history_cannot_be_rewritten_below_the_cut() -> None:
    court = group_of(1, 2)
    court.admit(1, 3)
    court.remove(2, 1)
    thief = identity(1)
    forged = signed(court.group, Draft(thief.signing_key, 1, b"", Admit(record(9))), thief.sign)
    court.histories[thief.signing_key].append(Entry(digest_of(court.group, forged), forged))
    assert court.members() == [0, 2, 3]


def test_a_removed_key_cannot_come_back_and_a_new_key_can() -> None:
    court = group_of(1, 2)
    court.remove(2, 1)
    court.admit(0, 1)
    assert court.members() == [0, 2]
    old, new = identity(1), identity(11)
    court.say(0, Admit(Member(new.public_key, old.signing_key, "m1")))  # Half of the old identity is not enough.
    court.say(0, Admit(Member(old.public_key, new.signing_key, "m1")))
    assert court.members() == [0, 2]
    court.admit(0, 12)
    assert court.members() == [0, 2, 12]


def test_who_is_removed_before_being_admitted_stays_out() -> None:
    court = group_of(1)
    court.remove(1, 7)
    court.admit(0, 7)
    assert court.members() == [0, 1]


def test_the_founder_can_be_removed_and_the_group_goes_on() -> None:
    court = group_of(1, 2)
    court.remove(1, 0)
    court.admit(2, 3)
    court.admit(0, 4)
    assert court.members() == [1, 2, 3]


def test_members_can_leave_as_many_as_they_are() -> None:
    seeds = range(1, CYCLE_MAX + CYCLE_ROUNDS_MAX)
    court = group_of(*seeds)
    for seed in seeds:
        court.remove(seed, seed)
        court.admit(seed, 200 + seed)
    assert court.members() == [0]


def test_of_two_who_remove_each_other_the_one_nearer_to_the_founder_stays() -> None:
    court = group_of(1, 2, 3)
    heads_of_1, heads_of_2 = court.heads(1), court.heads(2)
    court.remove(2, 1, heads_of_1)
    court.remove(1, 2, heads_of_2)
    court.admit(2, 9)
    assert court.members() == [0, 1, 3]


def test_a_thief_cannot_touch_a_remover_nearer_to_the_founder() -> None:
    court = group_of(1, 2, 3, 4)
    before = {seed: court.heads(seed) for seed in (0, 1)}
    court.remove(1, 2)  # 1 removes the stolen 2, and 2 answers with all it has.
    court.remove(2, 1, before[1])
    court.remove(2, 0, ())
    court.remove(2, 1, ())
    court.remove(2, 3)
    court.admit(2, 9)
    court.remove(9, 1, ())
    court.remove(9, 0, ())
    court.remove(9, 4)
    assert court.members() == [0, 1, 3, 4]


def test_a_flood_of_removals_does_not_help_the_thief() -> None:
    court = group_of(*range(1, 50))
    court.remove(1, 2)
    for seed in [0, 1, *range(3, 50)]:
        court.remove(2, seed, ())
    assert court.members() == [0, 1, *range(3, 50)]


def test_a_thief_that_nobody_contests_is_out_whoever_removes_it() -> None:
    court = group_of(1, 2, 3, 4)
    court.remove(4, 1)  # The last one removes the first one.
    court.remove(1, 2)
    court.remove(1, 0)
    assert court.members() == [0, 2, 3, 4]


def test_two_thieves_cannot_free_each_other() -> None:
    court = group_of(1, 2, 3, 4)
    before = court.heads(1)
    court.remove(1, 2)
    court.remove(1, 3)
    court.remove(2, 1, before)
    court.remove(3, 1, before)
    court.remove(2, 4)
    assert court.members() == [0, 1, 4]


def test_a_ring_of_three() -> None:
    court = group_of(1, 2, 3)
    heads = {seed: court.heads(seed) for seed in (1, 2, 3)}
    court.remove(1, 2, heads[2])
    court.remove(2, 3, heads[3])
    court.remove(3, 1, heads[1])
    assert court.members() == [0, 1, 3]  # 1 is the nearest to the founder.


def test_who_stands_behind_a_circle_waits_for_it() -> None:
    court = group_of(1, 2, 3, 4)
    heads = {seed: court.heads(seed) for seed in (1, 2)}
    court.remove(1, 4)
    court.remove(2, 1, heads[1])
    court.remove(3, 2, heads[2])
    court.remove(2, 3, ())
    # 2 and 3 remove each other, so 2 stays, so 1 is out and what it said meanwhile is void, near as it stands.
    assert court.members() == [0, 2, 4]


def test_a_removal_by_one_who_was_removed_first_is_void() -> None:
    court = group_of(1, 2, 3)
    court.remove(1, 2)
    court.remove(2, 3)
    court.remove(3, 0)
    # 1 removes 2 unheard, so 2 does not remove 3, so 3 does remove the founder; whose admissions stay.
    assert court.members() == [1, 3]


def test_who_disowns_its_own_inviter_says_nothing() -> None:
    court = group_of(1)
    court.admit(1, 2)
    court.remove(2, 1, heads=())
    assert court.members() == [0, 1, 2]
    court.admit(0, 2)  # When somebody else vouches for it, it may.
    assert court.members() == [0, 2]


def test_a_large_dispute_ends_too() -> None:
    seeds = list(range(1, CYCLE_MAX + 6))
    court = group_of(*seeds)
    heads = {seed: court.heads(seed) for seed in seeds}
    for seed, whom in zip(seeds, [*seeds[1:], seeds[0]], strict=True):
        court.remove(seed, whom, heads[whom])
    members = court.members()
    assert members[0] == 0
    assert 2 not in members


def test_a_long_chain_of_removals_is_bounded() -> None:
    seeds = list(range(1, 90))
    court = group_of(*seeds)
    for seed in seeds[:-1]:
        court.remove(seed, seed + 1, ())
    members = court.members()
    assert members[:2] == [0, 1]  # Nobody removes these two.
    assert 2 not in members


def test_disputes_beyond_the_bound_are_settled_by_rank() -> None:
    pairs = [(low, low + 1) for low in range(1, 2 * CYCLE_ROUNDS_MAX + 9, 2)]
    court = group_of(*(seed for pair in pairs for seed in pair))
    heads = {seed: court.heads(seed) for pair in pairs for seed in pair}
    for low, high in pairs:
        court.remove(high, low, heads[low])
        court.remove(low, high, heads[high])
    members = court.members()
    for low, high in pairs[:CYCLE_ROUNDS_MAX]:
        assert (low in members, high in members) == (low <= 68, False)
    assert len(court.verdict().removals) == CYCLE_ROUNDS_MAX  # Of the last pairs nobody is removed.


def test_keys_are_bound_once() -> None:
    court = group_of(1, 2)
    thief = identity(5)
    court.say(2, Admit(Member(identity(1).public_key, thief.signing_key, "m91")))
    court.say(2, Admit(Member(thief.public_key, identity(1).signing_key, "m92")))
    assert court.members() == [0, 1, 2]


def test_the_group_has_a_size() -> None:
    court = group_of(*range(1, MEMBERS_MAX + 10))
    assert court.members() == list(range(MEMBERS_MAX))
    court.remove(0, 5)
    assert len(court.members()) == MEMBERS_MAX
    assert 5 not in court.members()


def test_lineage_ignores_what_is_not_there() -> None:
    court = group_of(1)
    history = court.histories[court.founder.signing_key]
    assert lineage(history, (b"?" * 32,)) == frozenset()
    assert lineage(history, (history[1].digest, history[0].digest)) == {history[0].digest, history[1].digest}


def test_disowning_voids_removals_too() -> None:
    court = group_of(1, 2, 3)
    court.remove(1, 2)
    court.remove(3, 1, heads=())
    assert court.members() == [0, 2, 3]
