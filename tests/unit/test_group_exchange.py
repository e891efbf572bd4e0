# SPDX-License-Identifier: Apache-2.0
"""How rosters become equal: what one side sends, in which portions, and when."""

from itertools import pairwise

from atoll.base.units import SECOND_NS
from atoll.core.entropy import Draws
from atoll.group import Roster, founding_roster
from atoll.group.exchange import Exchange, Letters
from atoll.group.limits import DIGEST_INTERVAL_NS, FANOUT_MAX, SUMMARY_GAP_NS, SYNC_MESSAGES_MAX
from atoll.group.messages import Digest, Push, Summary, decode
from atoll.group.statement import Admit, Profile, Remove, Statement, signed
from tests.unit.group_world import identity, record

NODE = b"n" * 10
OTHERS = [bytes([number]) * 10 for number in range(9)]


def exchange() -> Exchange:
    return Exchange(7, Draws(bytes(32)))


def grown(members: int, *, profiles: bool) -> Roster:
    roster = founding_roster(identity(0), record(0))
    for seed in range(1, members):
        roster.add(signed(roster.group, roster.draft(roster.group, Admit(record(seed))), identity(0).sign))
    for seed in range(members if profiles else 0):
        who = identity(seed)
        roster.add(signed(roster.group, roster.draft(who.signing_key, Profile(record(seed, f"p{seed}"))), who.sign))
    return roster


def summaries(letters: Letters) -> list[Summary]:
    return [message for _, payload in letters if isinstance(message := decode(payload), Summary)]


def pushed(letters: Letters) -> list[Statement]:
    messages = [decode(payload) for _, payload in letters]
    return [statement for message in messages if isinstance(message, Push) for statement in message.statements]


def test_the_parts_of_a_summary_share_out_all_keys() -> None:
    roster = grown(64, profiles=True)
    parts = summaries(exchange().ask(NODE, roster, 0))
    assert len(parts) > 1
    edges = [(int.from_bytes(part.first, "big"), int.from_bytes(part.last, "big")) for part in parts]
    assert edges[0][0] == 0
    assert edges[-1][1] == (1 << 64) - 1
    assert all(after[0] == before[1] + 1 for before, after in pairwise(edges))
    assert [line for part in parts for line in part.lines] == list(roster.lines())
    # To the same roster they say nothing, to an empty one everything, once.
    assert [letter for part in parts for letter in exchange().answer(NODE, part, roster, 0)] == []
    nothing = summaries(exchange().ask(NODE, Roster(roster.group), 0))
    assert nothing == []
    short = founding_roster(identity(0), record(0))
    (asked,) = summaries(exchange().ask(NODE, short, 0))
    assert set(map(repr, pushed(exchange().answer(NODE, asked, roster, 0)))) == {
        repr(statement) for statement in roster.statements()[1:]
    }


def test_a_second_summary_waits() -> None:
    roster, machine = grown(2, profiles=False), exchange()
    assert exchange().deadline_ns is None
    assert len(machine.ask(NODE, roster, 0)) == 1
    assert machine.ask(NODE, roster, 1) == []
    assert machine.deadline_ns == SUMMARY_GAP_NS
    assert machine.tick(roster, 2) == []
    assert len(summaries(machine.tick(roster, SUMMARY_GAP_NS))) == 1
    assert machine.deadline_ns == machine.digest_due_ns


def test_digests_go_to_one_neighbour_at_a_time() -> None:
    roster, machine = grown(2, profiles=False), exchange()
    for node in OTHERS:
        machine.peer(node, 0)
    told: dict[bytes, int] = {}
    now_ns = 0
    for _ in range(200):
        due_ns = machine.deadline_ns
        assert due_ns is not None
        assert 15 * SECOND_NS < due_ns - now_ns <= DIGEST_INTERVAL_NS
        now_ns = due_ns
        ((node, payload),) = machine.tick(roster, now_ns)
        assert decode(payload) == Digest(7, roster.digest())
        told[node] = told.get(node, 0) + 1
    assert sorted(told) == OTHERS


def test_removals_go_to_all_and_the_rest_to_some() -> None:
    roster, machine = grown(3, profiles=False), exchange()
    for node in OTHERS:
        machine.peer(node, 0)
    admission = roster.statements()[-1]
    who = identity(2)
    removal = signed(roster.group, roster.draft(roster.group, Remove(who.node, who.signing_key, ())), identity(0).sign)
    letters = machine.pass_on((admission, removal), OTHERS[0])
    assert [node for node, _ in letters] == OTHERS[1:]
    assert pushed(letters).count(removal) == len(OTHERS) - 1
    assert pushed(letters).count(admission) == FANOUT_MAX
    assert pushed(machine.tell_all((admission,))) == [admission] * len(OTHERS)


def test_who_is_cut_off_in_the_middle_is_told_to_ask_again() -> None:
    roster, machine = grown(400, profiles=False), exchange()
    (asked,) = summaries(exchange().ask(NODE, founding_roster(identity(0), record(0)), 0))
    starts: dict[bytes, bool] = {}
    for second in range(40):
        letters = machine.answer(NODE, asked, roster, second * SECOND_NS)
        assert 2 <= len(letters) <= SYNC_MESSAGES_MAX + 1
        assert decode(letters[-1][1]) == Digest(7, roster.digest())
        assert machine.answer(NODE, asked, roster, second * SECOND_NS + SUMMARY_GAP_NS - 1) == []
        starts[letters[0][1]] = True
    # From another place now and then, so that nothing stays out of reach.
    assert len(starts) > 2
