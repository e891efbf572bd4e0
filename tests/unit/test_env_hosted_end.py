# SPDX-License-Identifier: Apache-2.0
"""How an environment comes to its end: by a record that is committed, so that nobody who has it goes on."""

import pytest

from atoll.base.errors import UsageError
from atoll.base.units import SECOND_NS
from atoll.env.history import decode_body
from atoll.env.keepers import Peer
from atoll.env.orders import Forget, Told
from atoll.env.records import Opened, Record, Stopped
from tests.unit.steward_world import PROGRAM, Add, Boom, Group, Later, Place, Quit, node_id, refusals, started

TWO, THREE = node_id("two"), node_id("three")


def kept_by_three() -> tuple[Group, bytes]:
    """Return three nodes that keep an environment of the first one's, which has a client."""
    group = Group("one", "two", "three")
    identity = group["one"].run(copies=3)
    group.until(lambda: len(group["one"].hosted(identity).holding.holders) == 3)
    group["one"].attach()
    return group, identity


def after_the_end(records: list[Record]) -> list[Record]:
    """Return what is in a journal after the record that ends it."""
    return records[1 + next(at for at, record in enumerate(records) if isinstance(record, Stopped)) :]


def test_an_end_is_a_record_of_the_journal() -> None:
    place, identity = started()
    kept = place.kept[identity]
    place.steward.stop(identity, place.now)
    place.settle()
    assert place.got(Forget) == [Forget(identity)]
    place.kept[identity] = kept
    assert place.records(identity)[-1] == Stopped()


def test_it_has_not_ended_before_a_majority_knows() -> None:
    group, identity = kept_by_three()
    one = group["one"]
    group.cut |= {TWO, THREE}
    one.steward.stop(identity, one.now)
    group.flow()
    assert one.hosted(identity).runner is not None
    group.cut.clear()
    group.until(lambda: not any(identity in place.kept for place in group.places.values()))


def test_nothing_is_taken_between_the_end_and_its_commit() -> None:
    group, identity = kept_by_three()
    one = group["one"]
    one.send(identity, 1, Later(0.001))
    group.flow()
    group.cut |= {TWO, THREE}
    one.steward.stop(identity, one.now)
    group.flow()
    one.send(identity, 2, Add(1))
    one.steward.move(identity, TWO, 9, one.now)
    one.tick(SECOND_NS // 10)
    one.members(two=Peer("two", slow="disk"))
    assert after_the_end(one.records(identity)) == []
    assert one.got(Told) == [Told(9, "it has ended")]
    assert one.steward.wall_deadline_ns is None
    with pytest.raises(UsageError, match="it has ended"):
        one.steward.checkpoint(identity, one.now)
    with pytest.raises(UsageError, match="it has ended"):
        one.steward.upgrade(identity, PROGRAM, b"", one.now)
    group.cut.clear()
    group.until(lambda: identity not in one.steward.hosted)
    assert refusals(one) == ["unknown"], "what waited is not lost without a word"
    one.send(identity, 2, Add(1))
    assert refusals(one) == ["unknown", "unknown"]


@pytest.mark.parametrize("ends_itself", [False, True])
def test_who_takes_over_after_the_end_ends_it_and_runs_nothing(*, ends_itself: bool) -> None:
    group, identity = kept_by_three()
    one, two, three = (group[name] for name in ("one", "two", "three"))
    journals = [place.kept[identity] for place in (two, three)]
    blocks = len(journals[0])
    if ends_itself:
        one.send(identity, 1, Quit())
    else:
        one.steward.stop(identity, one.now)
    while len(journals[0]) == blocks:  # The others have the block, and nobody has told anybody of its commit.
        _deliver_once(group, one)
    group.cut.add(one.own)
    group.meet()
    group.until(lambda: not any(identity in place.kept for place in (two, three)))
    for blocks_of_one in journals:
        (last,) = [entry.record for entry in decode_body(blocks_of_one[-1].sealed).entries]
        assert isinstance(last, Opened)
        assert last.silent


def _deliver_once(group: Group, source: Place) -> None:
    """Deliver what one node has sent, but none of the answers."""
    source.settle()
    out, source.out = source.out, []
    for node, message in out:
        target = group.places[node]
        target.steward.heard(source.own, message, target.now)
        target.settle()
        target.out = []


def test_one_that_cannot_run_is_put_aside_at_once() -> None:
    place, identity = started()
    place.send(identity, 1, Add(1))
    hosted = place.hosted(identity)
    hosted._fail("it cannot be", place.now)  # pyright: ignore[reportPrivateUsage]
    place.settle()
    assert hosted.failed == "it cannot be"
    place.steward.stop(identity, place.now)
    place.settle()
    assert place.got(Forget) == [Forget(identity)]


def test_one_that_never_began_is_let_go_of_though_nothing_can_be_written() -> None:
    place = Place()
    place.is_full = True
    identity = place.run()
    assert not place.hosted(identity).is_open
    place.steward.stop(identity, place.now)
    place.settle()
    assert place.got(Forget) == [Forget(identity)]
    place.run()


def test_what_has_ended_elsewhere_cannot_be_stopped_here() -> None:
    group, identity = kept_by_three()
    with pytest.raises(UsageError):
        group["two"].steward.stop(identity, group["two"].now)
    with pytest.raises(UsageError):
        group["two"].steward.stop(b"x" * 16, group["two"].now)


def test_a_handler_that_fails_before_the_end_is_undone_and_the_end_stands() -> None:
    place, identity = started()
    place.send(identity, 1, Boom(), Quit(), ask=1)
    assert [one["is"] for one in place.responses(1)] == ["Failure", "Done"]
    assert identity not in place.steward.hosted


def test_one_whose_first_vote_is_not_kept_is_let_go_of() -> None:
    place = Place()
    place.is_slow = True
    identity = place.run()
    assert place.hosted(identity).is_new
    place.steward.stop(identity, place.now)
    place.settle()
    assert place.got(Forget) == [Forget(identity)]
    place.answer()
    assert identity not in place.steward.hosted
