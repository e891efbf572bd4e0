# SPDX-License-Identifier: Apache-2.0
"""Rosters converge whatever the order, loss, duplication and partition, with removals and with issuers that fork."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from atoll.base.errors import LimitError
from atoll.base.ids import GroupId
from atoll.base.member import Member
from atoll.group import Identity
from atoll.group.limits import MEMBERS_MAX
from atoll.group.roster import Outcome, Roster
from atoll.group.statement import Admit, Body, Draft, Name, Profile, Remove, Statement, digest_of, signed
from atoll.group.verdict import Entry, judge, lineage

REPLICAS = 4
PEOPLE = 9  # The first REPLICAS of them run a replica each; the others only sign, and come and go.
EDGES = (bytes(8), b"\xff" * 8)
HEAL_ROUNDS_MAX = 40

IDENTITIES = [Identity(seed.to_bytes(2, "big") * 32) for seed in range(PEOPLE)]
GROUP = GroupId(IDENTITIES[0].signing_key)

replicas = st.integers(0, REPLICAS - 1)
people = st.integers(0, PEOPLE - 1)


def record(seed: int, name: str = "") -> Member:
    who = IDENTITIES[seed]
    return Member(who.public_key, who.signing_key, name or f"m{seed}")


def heal(rosters: list[Roster]) -> None:
    """Compare all with all until nothing moves any more."""
    for _ in range(HEAL_ROUNDS_MAX):
        moved = 0
        for sender in rosters:
            for receiver in rosters:
                lacking, behind = sender.compare(*EDGES, receiver.lines())
                moved += sum(receiver.add(statement) is Outcome.NEW for statement in lacking)
                if behind:
                    back, _ = receiver.compare(*EDGES, sender.lines(), thorough=True)
                    moved += sum(sender.add(statement) is Outcome.NEW for statement in back)
        if not moved:
            return
    raise AssertionError("the rosters do not come to rest")


class Replicas(RuleBasedStateMachine):
    """Some replicas of one roster, which hear of each other now and then."""

    rosters: list[Roster]

    @initialize()
    def found(self) -> None:
        first = Roster(GROUP)
        for seed in range(REPLICAS):
            draft = first.draft(GROUP, Admit(record(seed)))
            assert first.add(signed(GROUP, draft, IDENTITIES[0].sign)) is Outcome.NEW
        self.rosters = [Roster.decode(first.encode()) for _ in range(REPLICAS)]

    def say(self, replica: int, issuer: int, body: Body) -> None:
        roster = self.rosters[replica]
        try:
            draft = roster.draft(IDENTITIES[issuer].signing_key, body)
        except LimitError:
            return
        roster.add(signed(GROUP, draft, IDENTITIES[issuer].sign))

    @rule(replica=replicas, issuer=people, whom=people)
    def admit(self, replica: int, issuer: int, whom: int) -> None:
        self.say(replica, issuer, Admit(record(whom)))

    @rule(replica=replicas, issuer=people, whom=people, disown=st.booleans())
    def remove(self, replica: int, issuer: int, whom: int, *, disown: bool) -> None:
        who = IDENTITIES[whom]
        heads = () if disown else self.rosters[replica].heads(who.signing_key)
        self.say(replica, issuer, Remove(who.node, who.signing_key, heads))

    @rule(replica=replicas, issuer=people, name=st.sampled_from(["m1", "db", "x" * 32]))
    def rename(self, replica: int, issuer: int, name: str) -> None:
        self.say(replica, issuer, Profile(record(issuer, name)))

    @rule(replica=replicas, issuer=people, name=st.sampled_from(["lab", "den", "x" * 32]))
    def call_the_group(self, replica: int, issuer: int, name: str) -> None:
        before = self.rosters[replica].name
        self.say(replica, issuer, Name(name))
        assert issuer == 0 or self.rosters[replica].name == before

    @rule(replica=replicas, issuer=people, whom=people, data=st.data())
    def fork(self, replica: int, issuer: int, whom: int, data: st.DataObject) -> None:
        roster, who = self.rosters[replica], IDENTITIES[issuer]
        chain = [s for s in roster.statements() if s.issuer == who.signing_key and not isinstance(s.body, Profile)]
        after = data.draw(st.sampled_from([None, *chain]))
        name = data.draw(st.sampled_from(["a", "b", "c", "d", "e", "f"]))
        counter = 1 if after is None else after.counter + 1
        previous = b"" if after is None else digest_of(GROUP, after)
        draft = Draft(who.signing_key, counter, previous, Admit(record(whom, name)))
        roster.add(signed(GROUP, draft, who.sign))

    @rule(sender=replicas, receiver=replicas, data=st.data())
    def tell(self, sender: int, receiver: int, data: st.DataObject) -> None:
        statements = self.rosters[sender].statements()
        some = data.draw(st.lists(st.sampled_from(statements), max_size=20))
        for statement in some:
            self.rosters[receiver].add(statement)

    @rule(replica=replicas)
    def restart(self, replica: int) -> None:
        before = self.rosters[replica]
        self.rosters[replica] = Roster.decode(before.encode())
        assert self.rosters[replica].encode() == before.encode()
        assert self.rosters[replica].members() == before.members()

    @rule(replica=replicas)
    def compaction_shows_the_same_members(self, replica: int) -> None:
        roster = Roster.decode(self.rosters[replica].encode())
        before = roster.members(), roster.name
        roster.compact()
        assert (roster.members(), roster.name) == before

    @rule(data=st.data())
    def meet(self, data: st.DataObject) -> None:
        heal(self.rosters)
        first = self.rosters[0]
        for other in self.rosters[1:]:
            assert other.digest() == first.digest()
            assert other.lines() == first.lines()
            assert other.encode() == first.encode()
            assert other.members() == first.members()
            assert other.name == first.name
        self.arrives_in_any_order(first, data.draw(st.permutations(first.statements())))

    @staticmethod
    def arrives_in_any_order(whole: Roster, order: list[Statement]) -> None:
        again = Roster(GROUP)
        for _ in range(len(order)):
            if sum(again.add(statement) is Outcome.NEW for statement in order) == 0:
                break
        assert again.members() == whole.members()
        assert again.digest() == whole.digest()

    @invariant()
    def the_removed_stay_out(self) -> None:
        for roster in getattr(self, "rosters", []):
            members = roster.members()
            assert len({member.name for member in members}) == len(members) <= MEMBERS_MAX
            in_force = {entry.digest for entry in roster.removals()}
            verdict = roster._judged()
            for entry in roster.removals():
                body = entry.statement.body
                assert isinstance(body, Remove)
                assert roster.find(body.node) is None
                history = roster._history(body.signing_key)
                kept = lineage(history, body.heads)
                for said in history:
                    assert said.digest not in verdict.valid or said.digest in kept or said.digest in in_force

    def teardown(self) -> None:
        if hasattr(self, "rosters"):
            heal(self.rosters)
            assert len({roster.digest() for roster in self.rosters}) == 1


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(forged=st.data())
@settings(max_examples=60)
def test_nothing_but_a_good_signature_has_an_effect(forged: st.DataObject) -> None:
    roster = Roster(GROUP)
    for seed in range(3):
        roster.add(signed(GROUP, roster.draft(GROUP, Admit(record(seed))), IDENTITIES[0].sign))
    before = roster.encode()
    issuer = forged.draw(st.integers(0, 2))
    bodies: list[Body] = [
        Admit(record(5)),
        Remove(IDENTITIES[1].node, IDENTITIES[1].signing_key, ()),
        Profile(record(issuer, "thief")),
    ]
    body = bodies[forged.draw(st.integers(0, 2))]
    draft = roster.draft(IDENTITIES[issuer].signing_key, body)
    good = IDENTITIES[issuer].sign(draft.payload(GROUP))
    elsewhere = IDENTITIES[issuer].sign(draft.payload(GroupId(IDENTITIES[5].signing_key)))
    by_another = IDENTITIES[6].sign(draft.payload(GROUP))
    flipped = bytearray(good)
    flipped[forged.draw(st.integers(0, 63))] ^= 1 << forged.draw(st.integers(0, 7))
    random = forged.draw(st.binary(min_size=64, max_size=64))
    signature = forged.draw(st.sampled_from([elsewhere, by_another, bytes(flipped), random]))
    assume(signature != good)
    assert roster.add(draft.with_signature(signature)) is Outcome.FORGED
    assert roster.encode() == before
    assert roster.add(draft.with_signature(good)) is Outcome.NEW


def chained(issuer: int, counter: int, previous: bytes, body: Body) -> Entry:
    who = IDENTITIES[issuer]
    statement = signed(GROUP, Draft(who.signing_key, counter, previous, body), who.sign)
    return Entry(digest_of(GROUP, statement), statement)


@st.composite
def malice(draw: st.DrawFn, stolen: int, known: dict[bytes, list[Entry]]) -> dict[bytes, list[Entry]]:
    """Return the histories of the stolen key and of those that it admits: whatever they may sign afterwards."""
    histories = {key: list(history) for key, history in known.items()}
    gang = [stolen, 6, 7, 8]
    for _ in range(draw(st.integers(1, 25))):
        issuer, whom = draw(st.sampled_from(gang)), draw(people)
        history = histories.setdefault(IDENTITIES[issuer].signing_key, [])
        back = draw(st.integers(0, len(history)))  # Not only at the end: it may rewrite what it said before.
        previous = history[back - 1] if back else None
        if draw(st.booleans()):
            body: Body = Admit(record(whom))
        else:
            victim = known.get(IDENTITIES[whom].signing_key, [])
            kept = draw(st.integers(0, len(victim)))
            heads = (victim[kept - 1].digest,) if kept else ()
            body = Remove(IDENTITIES[whom].node, IDENTITIES[whom].signing_key, heads)
        counter = 1 if previous is None else previous.statement.counter + 1
        history.append(chained(issuer, counter, b"" if previous is None else previous.digest, body))
    return {key: sorted(h, key=lambda e: (e.statement.counter, e.digest)) for key, h in histories.items()}


@given(data=st.data())
@settings(max_examples=300)
def test_a_thief_has_no_power_over_a_remover_nearer_to_the_founder(data: st.DataObject) -> None:
    roster = Roster(GROUP)

    def say(issuer: int, body: Body) -> None:
        roster.add(signed(GROUP, roster.draft(IDENTITIES[issuer].signing_key, body), IDENTITIES[issuer].sign))

    for issuer, whom in ((0, 0), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5)):
        say(issuer, Admit(record(whom)))
    stolen = data.draw(st.integers(1, 5))
    remover = data.draw(st.integers(0, stolen - 1))  # Admitted in this order, so nearer to the founder.
    who = IDENTITIES[stolen]
    say(remover, Remove(who.node, who.signing_key, roster.heads(who.signing_key)))
    known: dict[bytes, list[Entry]] = {}
    for statement in roster.statements():
        known.setdefault(statement.issuer, []).append(Entry(digest_of(GROUP, statement), statement))
    before = judge(GROUP, known)
    after = judge(GROUP, data.draw(malice(stolen, known)))
    assert after.admitted == before.admitted
