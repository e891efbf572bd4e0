# SPDX-License-Identifier: Apache-2.0
"""All environments of a node: what goes to whom, who is believed, and what becomes of what changes hands or ends."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from atoll.base.errors import CorruptError, UsageError, UserError
from atoll.base.ids import NodeId
from atoll.base.units import SECOND_NS
from atoll.env import graves as graves_module
from atoll.env import routes as routes_module
from atoll.env import stranded as stranded_module
from atoll.env.app import App, on, program_of
from atoll.env.beginning import Wanted
from atoll.env.changes import Failure
from atoll.env.context import Context
from atoll.env.directory import Directory
from atoll.env.graves import Barred
from atoll.env.holding import events as on_holding
from atoll.env.holding.messages import Canvass
from atoll.env.holding.messages import Store as StoreMessage
from atoll.env.keepers import Peer
from atoll.env.limits import LOST_NS, MAINTAIN_NS, NOTICE_NS
from atoll.env.messages import (
    Answered,
    Asked,
    Carried,
    CodeGiven,
    CodeWanted,
    Letter,
    Message,
    Notice,
    Notices,
    Receipt,
    Refusal,
)
from atoll.env.orders import Create, FetchCode, Forget, Say, StoreSnapshot, TellSession, Told
from atoll.env.records import Opened
from atoll.env.records import Told as ToldRecord
from atoll.env.runner import Runner
from atoll.env.tuples import Tuple
from tests.unit.steward_world import (
    ANN,
    BOB,
    CODE,
    ONE,
    OTHER,
    OTHER_CODE,
    PROGRAM,
    THREE,
    TWO,
    WALL_NS,
    Add,
    Elsewhere,
    Group,
    Later,
    Place,
    Quit,
    Seek,
    Sum,
    encode,
    items,
    letter,
    notice,
    told_nodes,
)


def _wall_due_ns(place: Place) -> int | None:
    return place.steward.wall_deadline_ns


def _due_ns(place: Place) -> int | None:
    return place.steward.deadline_ns


# What begins.


def test_what_begins_is_known_by_its_name_and_told_to_all_members() -> None:
    place = Place()
    place.members(two=Peer("two"), three=Peer("three"))
    identity = place.run("shop")
    known = place.steward.directory.named("shop")
    assert known is not None
    assert known == Notice(identity, 1, ONE, "shop", "Counter", CODE, (ONE,))
    assert (TWO, Notices((known,))) in told_nodes(place)
    assert (THREE, Notices((known,))) in told_nodes(place)
    assert place.got(Create) == [Create(identity, "shop")]
    assert place.steward.running == 1


def test_a_name_is_given_once() -> None:
    place = Place()
    place.run("shop")
    with pytest.raises(UserError) as caught:
        place.run("shop")
    assert caught.value.code == "A606"


def test_a_name_is_given_once_however_slow_the_disk_is() -> None:
    place = Place()
    place.is_slow = True
    wanted = Wanted("twin", CODE, encode({}))
    begun = [place.steward.begin(wanted, PROGRAM, place.now) for _ in range(3)]
    place.steward.take_up(begun[0], place.now)
    for late in begun[1:]:
        with pytest.raises(UserError, match="A606"):
            place.steward.take_up(late, place.now)
    with pytest.raises(UserError, match="A606"):
        place.steward.begin(wanted, PROGRAM, place.now)
    place.answer()
    assert len(place.steward.hosted) == 1
    assert [one.name for one in place.steward.directory.all()] == ["twin"]


def test_one_that_cannot_begin_leaves_nothing_behind() -> None:
    place = Place()
    with pytest.raises(UserError) as caught:
        place.run("shop", n="text")
    assert caught.value.code == "A602"
    place.settle()
    assert not place.orders
    assert not place.steward.hosted


def test_ids_are_drawn_and_differ() -> None:
    place = Place()
    assert place.run("shop") != place.run("store")


def test_what_is_asked_of_one_that_does_not_run_here_is_an_error() -> None:
    place = Place()
    asks: tuple[Callable[[], None], ...] = (
        lambda: place.steward.checkpoint(OTHER, place.now),
        lambda: place.steward.stop(OTHER, place.now),
        lambda: place.steward.move(OTHER, TWO, 1, place.now),
        lambda: place.steward.hold(OTHER, [TWO], place.now),
        lambda: place.steward.upgrade(OTHER, PROGRAM, CODE, place.now),
    )
    for ask in asks:
        with pytest.raises(UsageError, match="does not run here"):
            ask()


def test_answers_about_what_is_not_here_are_nothing() -> None:
    place = Place()
    place.steward.restored(OTHER, 1, None, "failed", place.now)
    place.steward.recorded(OTHER, on_holding.Kept(1, 1), place.now)
    place.steward.forget(OTHER)
    assert not place.steward.orders()


def test_checkpoints_and_upgrades_are_handed_on() -> None:
    class Counter(App):
        n: int = 0

    place = Place()
    identity = place.run("shop", n=3)
    place.steward.checkpoint(identity, place.now)
    place.settle()
    assert len(place.got(StoreSnapshot)) == 1
    place.steward.upgrade(identity, program_of(Counter), OTHER_CODE, place.now)
    place.settle()
    assert place.counter(identity) == {"n": 3}
    known = place.steward.directory.find(identity)
    assert known is not None
    assert known.code == OTHER_CODE


def test_state_that_does_not_fit_other_code_leaves_everything_as_it_was() -> None:
    class Counter(App):
        n: str = ""

    place = Place()
    identity = place.run("shop", n=3)
    with pytest.raises(CorruptError):
        place.steward.upgrade(identity, program_of(Counter), OTHER_CODE, place.now)
    place.attach()
    place.send(identity, 1, Add(1))
    assert place.counter(identity)["n"] == 4


# Clients.


def test_a_client_speaks_for_itself_only() -> None:
    place = Place()
    identity = place.run()
    place.attach(ANN, 1)
    place.hear(2, Carried(ANN, identity, 1, items(Add(1))))
    place.hear(1, Carried(BOB, identity, 1, items(Add(1))))
    assert place.steward.strange == 2
    assert place.counter(identity)["n"] == 0


def test_a_client_that_comes_back_gets_what_it_has_missed_by_its_new_session() -> None:
    place = Place()
    identity = place.run()
    place.attach(ANN, 1)
    place.is_slow = True
    place.send(identity, 1, Add(1), ask=1)
    place.steward.detach(ANN, 1)
    place.answer()
    assert not place.responses(1)
    place.attach(ANN, 2)
    assert place.responses(2) == [{"is": "Sum", "n": 1}]
    place.steward.detach(ANN, 1)  # Which is over already.
    place.hear(2, Carried(ANN, identity, 2, items(Add(1), ask=2)))
    assert len(place.responses(2)) == 2


def test_what_is_for_nobody_is_refused_and_what_is_strange_is_counted() -> None:
    place = Place()
    place.attach()
    place.send(OTHER, 1, Add(1))
    assert place.said(1) == [Refusal(OTHER, ANN, "unknown", "no such environment", 1)]
    place.hear(1, Receipt(ANN, OTHER, 1))
    place.hear(1, Refusal(ANN, OTHER, "unknown", ""))
    assert len(place.said(1)) == 1
    place.hear(1, Notices((notice(),)))
    place.hear(1, letter(Canvass(1, 0, 0, trial=False, transfer=False)))
    assert place.steward.strange == 2
    others: tuple[Message, ...] = (
        CodeWanted(CODE),
        CodeGiven(CODE, b""),
        Asked(1, "show", b""),
        Answered(1, b""),
    )
    for message in others:
        place.hear(TWO, message)
    assert place.steward.strange == 2


def test_items_that_do_not_decode_are_counted_and_dropped() -> None:
    place = Place()
    identity = place.run()
    place.attach()
    for wrong in (b"", b"\xc1", encode([]), encode([{}])):
        place.hear(1, Carried(ANN, identity, 1, wrong))
    assert place.steward.strange == 4
    place.send(identity, 1, Add(1))
    assert place.counter(identity)["n"] == 1


def test_a_refusal_to_an_environment_changes_nothing() -> None:
    place = Place()
    identity = place.run()
    before = len(place.kept[identity])
    place.hear(TWO, Refusal(OTHER, identity, "queue-full", ""))
    place.tick()
    assert len(place.kept[identity]) == before


# Other nodes.


def test_a_client_of_another_node_is_answered_through_that_node() -> None:
    place = Place()
    identity = place.run()
    place.members(two=Peer("two"))
    place.hear(TWO, Carried(ANN, identity, 1, items(Add(1), ask=1)))
    receipt, response = [message for node, message in told_nodes(place) if node == TWO][-2:]
    assert receipt == Receipt(identity, ANN, 1)
    assert isinstance(response, Carried)


def test_the_client_not_heard_for_longest_is_forgotten_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes_module, "ROUTES_MAX", 2)
    place = Place()
    identity = place.run()
    for party in (ANN, BOB, ANN, b"c" * 16):
        place.hear(TWO, Receipt(party, identity, 0))
    place.hear(THREE, Notices((notice(owner=THREE),)))
    place.orders.clear()
    for party in (ANN, BOB, b"c" * 16):
        place.hear(THREE, Receipt(OTHER, party, 1))
    assert [message.target for _, message in told_nodes(place)] == [ANN, b"c" * 16]


def test_what_is_for_an_environment_elsewhere_goes_there() -> None:
    place = Place()
    place.attach()
    place.hear(TWO, Notices((notice(),)))
    place.send(OTHER, 1, Add(1))
    assert told_nodes(place)[-1] == (TWO, Carried(ANN, OTHER, 1, items(Add(1))))
    place.hear(TWO, Receipt(OTHER, ANN, 1))
    assert place.said(1) == [Receipt(OTHER, ANN, 1)]


def test_what_is_for_one_that_changes_hands_waits_until_somebody_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stranded_module, "STRANDED_MAX", 2)
    place = Place()
    place.attach()
    place.steward.directory.note(notice(owner=ONE, holders=(ONE, TWO)), 0)  # We ran it, and do not any more.
    for number in (1, 2, 3):
        place.send(OTHER, number, Add(1))
    assert not told_nodes(place)
    place.hear(TWO, Notices((notice(owner=TWO, epoch=2),)))
    assert [message.first for _, message in told_nodes(place)] == [1, 2]


def test_an_environment_that_has_ended_elsewhere_is_refused() -> None:
    place = Place()
    place.attach()
    place.hear(TWO, Notices((notice(),)))
    place.hear(TWO, Notices((notice(ended=True),)))
    place.send(OTHER, 1, Add(1))
    assert place.said(1) == [Refusal(OTHER, ANN, "unknown", "it has ended", 1)]


def test_letters_about_what_is_not_known_are_dropped() -> None:
    place = Place()
    place.members(two=Peer("two"), three=Peer("three"))
    asks = Canvass(1, 0, 0, trial=False, transfer=False)
    place.hear(TWO, letter(asks))
    place.hear(TWO, Letter(b"nonsense"))
    assert place.steward.strange == 1
    place.hear(TWO, Notices((notice(),)))
    place.hear(THREE, letter(asks))
    assert not place.steward.hosted, "it neither owns it nor keeps it"


def test_a_node_that_is_told_to_keep_a_journal_begins_one_and_asks_for_the_code() -> None:
    place = Place()
    place.members(two=Peer("two"))
    place.hear(TWO, Notices((notice(),)))
    place.hear(TWO, letter(StoreMessage(1, 0, 0, (), 0, 1, counted=False)))
    assert not place.steward.hosted, "it is told only that it is no holder"
    place.hear(TWO, letter(StoreMessage(1, 0, 0, (), 0, 1, counted=True)))
    assert place.got(Create) == [Create(OTHER, "other")]
    assert place.got(FetchCode) == [FetchCode(CODE, TWO)]
    assert place.steward.hosted[OTHER].runner is None
    assert any(isinstance(message, Letter) for _, message in told_nodes(place))


def test_environments_of_two_nodes_talk_to_each_other() -> None:
    class Go(Tuple):
        name: str

    class Caller(App):
        got: int = 0

        @on(Go)
        def go(self, go: Go, ctx: Context) -> None:
            ctx.call(go.name, Add(5), then=Caller.came)

        def came(self, answer: Any, _: Context) -> None:
            self.got = -1 if isinstance(answer, Failure) else 1

    group = Group("one", "two")
    one = group["one"]
    counter = group["two"].run("counter")
    group.flow()
    caller = one.steward.create(Wanted("caller", CODE, encode({}), 1), program_of(Caller, known=[Sum]), one.now)
    one.attach()
    one.send(caller, 1, Go("counter"))
    group.flow()
    assert group["two"].counter(counter)["n"] == 5
    assert one.counter(caller)["got"] == 1


# Names.


def test_a_search_finds_one_by_its_name_and_all_of_a_class() -> None:
    place = Place()
    seeker, shop = place.run("seeker"), place.run("shop")
    place.attach()
    place.send(seeker, 1, Seek("shop"))
    assert place.counter(shop)["n"] == 1
    place.send(seeker, 2, Seek("nobody"))
    place.send(seeker, 3, Seek("app:Nothing"))
    assert sum("nobody is called" in one.text for one in place.got(Say)) == 2
    place.send(seeker, 4, Seek("app:Counter"))
    assert place.counter(shop)["n"] + place.counter(seeker)["n"] == 2


# Members.


def test_environments_hear_who_is_slow_once() -> None:
    place = Place()
    identity = place.run()

    def heard() -> list[Any]:
        return [msgspec.msgpack.decode(one.event) for one in place.records(identity) if isinstance(one, ToldRecord)]

    for _ in range(2):
        place.members(two=Peer("two", slow="disk"), three=Peer("three"))
    assert heard() == [{"is": "PeerSlow", "node": "two", "slow": True, "reason": "disk"}]
    place.members(two=Peer("two"), three=Peer("three"))
    assert heard()[1:] == [{"is": "PeerSlow", "node": "two", "slow": False, "reason": ""}]


def test_members_that_are_lost_are_suspected_and_cleared() -> None:
    place = Place()
    identity = place.run()
    suspected = place.hosted(identity).holding._state.suspected  # pyright: ignore[reportPrivateUsage]
    place.members(two=Peer("two", lost=True))
    place.members(two=Peer("two", lost=True))
    assert list(suspected) == [TWO]
    place.members(two=Peer("two"))
    assert not suspected


def test_a_holder_that_is_lost_for_long_is_replaced() -> None:
    group = Group("one", "two", "three", "four")
    one = group["one"]
    identity = one.run(copies=3)
    hosted = one.hosted(identity)
    group.until(lambda: len(hosted.holding.holders) == 3)
    gone = next(NodeId(node) for node in hosted.holding.holders if node != ONE)
    group.cut.add(gone)
    group.meet()
    since_ns = one.now_ns
    group.until(lambda: gone not in hosted.holding.holders, 90)
    assert one.now_ns - since_ns >= LOST_NS
    assert len(hosted.holding.holders) == 3


def test_a_new_member_is_told_what_runs_here() -> None:
    place = Place()
    identity = place.run()
    place.members(two=Peer("two"))
    assert not told_nodes(place)
    place.tick()
    (told,) = told_nodes(place)
    known = place.steward.directory.find(identity)
    assert known is not None
    assert told == (TWO, Notices((known,)))
    place.orders.clear()
    place.tick(NOTICE_NS - 1)
    assert not [one for one in told_nodes(place) if isinstance(one[1], Notices)]
    place.tick(1)
    assert [one for one in told_nodes(place) if isinstance(one[1], Notices)]


def test_a_node_without_environments_tells_nothing_and_waits_for_nothing() -> None:
    place = Place()
    assert _due_ns(place) is None
    assert place.steward.wall_deadline_ns is None
    place.members(two=Peer("two"))
    assert _due_ns(place) == place.now_ns
    place.tick()
    assert not told_nodes(place)
    assert _due_ns(place) == place.now_ns + NOTICE_NS


def test_the_deadlines_are_those_of_what_is_here() -> None:
    place = Place()
    identity = place.run()
    place.attach()
    place.send(identity, 1, Later(3))
    assert place.steward.wall_deadline_ns == WALL_NS + place.now_ns + 3 * SECOND_NS
    place.tick()
    due_ns = place.steward.deadline_ns
    assert due_ns is not None
    assert due_ns <= place.now_ns + MAINTAIN_NS
    place.tick(3 * SECOND_NS)
    assert place.counter(identity)["n"] == 100


# Holders, moves, ends.


def test_who_shall_keep_it_can_be_said() -> None:
    group = Group("one", "two", "three")
    one = group["one"]
    identity = one.run(copies=2)
    one.steward.hold(identity, [ONE, TWO], one.now)
    group.until(lambda: set(one.hosted(identity).holding.holders) == {ONE, TWO})
    assert len(group["two"].kept[identity]) == len(one.kept[identity])
    assert identity not in group["three"].kept


def test_a_stopped_environment_takes_nothing_any_more_and_its_files_are_put_aside_everywhere() -> None:
    group = Group("one", "two", "three")
    one = group["one"]
    identity = one.run(copies=3)
    group.until(lambda: len(one.hosted(identity).holding.holders) == 3)
    one.attach()
    one.steward.stop(identity, one.now)
    group.flow()
    for place in group.places.values():
        assert Forget(identity) in place.orders
        assert identity not in place.steward.hosted
        assert identity not in place.kept
        assert place.steward.directory.named("count") is None
    one.send(identity, 1, Add(1))
    assert one.said(1)[-1] == Refusal(identity, ANN, "unknown", "it has ended", 1)
    one.run("count")


def test_a_node_that_gave_it_up_hears_of_the_end_from_those_that_keep_it_only() -> None:
    group = Group("one", "two", "three")
    one, two = group["one"], group["two"]
    identity = one.run(copies=1)
    one.steward.move(identity, TWO, 9, one.now)
    group.until(lambda: group.owner(identity) is two and one.hosted(identity).is_blank)
    notice = one.steward.directory.find(identity)
    assert notice is not None
    one.steward.heard(THREE, Notices((msgspec.structs.replace(notice, ended=True),)), one.now)
    assert identity in one.steward.hosted
    two.steward.stop(identity, two.now)
    group.until(lambda: Forget(identity) in one.orders)
    assert identity not in one.steward.hosted


def test_a_holder_that_was_away_hears_of_the_end_later() -> None:
    group = Group("one", "two", "three")
    one, two = group["one"], group["two"]
    identity = one.run(copies=3)
    group.until(lambda: len(one.hosted(identity).holding.holders) == 3)
    group.cut.add(TWO)
    group.meet()
    one.steward.stop(identity, one.now)
    group.flow()
    assert identity in two.kept
    group.cut.clear()
    group.meet()
    group.until(lambda: identity not in two.kept)
    assert group.owner(identity) is None


def test_only_so_many_ends_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graves_module, "OVER_MAX", 1)
    place = Place()
    place.members(two=Peer("two"))
    first, second = place.run("shop"), place.run("store")
    for identity in (first, second):
        place.steward.stop(identity, place.now)
    place.settle()
    place.orders.clear()
    place.tick(NOTICE_NS)
    assert [one.id for _, message in told_nodes(place) for one in message.notices] == [second]


def test_one_that_ends_itself_is_over_and_what_it_said_last_arrives() -> None:
    place = Place()
    identity = place.run()
    place.attach()
    place.send(identity, 1, Add(1), Quit(), ask=1)
    assert [one["is"] for one in place.responses(1)] == ["Sum", "Done"]
    assert identity not in place.steward.hosted
    place.send(identity, 3, Add(1))
    assert place.said(1)[-1] == Refusal(identity, ANN, "unknown", "it has ended", 3)


def test_a_move_of_one_that_ends_is_answered() -> None:
    group = Group("one", "two")
    one = group["one"]
    identity = one.run(copies=1)
    group.cut.add(TWO)
    one.steward.move(identity, TWO, 4, one.now)
    one.steward.stop(identity, one.now)
    one.settle()
    assert one.got(Told) == [Told(4, "it has ended")]


def test_notices_that_are_no_news_change_nothing() -> None:
    place = Place()
    place.hear(TWO, Notices((notice(epoch=2),)))
    place.hear(THREE, Notices((notice(owner=THREE, epoch=1),)))
    found = place.steward.directory.find(OTHER)
    assert found is not None
    assert found.owner == TWO
    assert isinstance(place.steward.directory, Directory)


def test_a_journal_from_before_goes_on_where_it_was() -> None:
    before = Place()
    identity = before.run("shop")
    before.attach()
    before.send(identity, 1, Add(5), ask=1)
    place = Place()
    place.again(before)
    assert place.counter(identity)["n"] == 5
    place.attach()
    assert place.responses(1) == [{"is": "Sum", "n": 5}]
    assert place.got(TellSession)
    assert isinstance(place.hosted(identity).runner, Runner)


def test_what_runs_elsewhere_is_resumed_and_its_name_is_given_once() -> None:
    place, at = Place(), Elsewhere()
    identity = place.run("shop", at=at)
    begun = place.steward.begin(Wanted("store", CODE, encode({}), 1), PROGRAM, place.now)
    place.run("store")
    with pytest.raises(UserError):
        place.steward.take_up(begun, place.now)
    place.attach()
    at.is_slow = True
    place.send(identity, 1, Add(1), ask=1)
    assert not place.responses(1)
    at.is_slow = False
    place.steward.resume(OTHER, place.now)
    place.steward.resume(identity, place.now)
    place.settle()
    assert place.responses(1) == [{"is": "Sum", "n": 1}]


def test_one_that_was_moved_here_hears_from_where_unless_that_node_is_not_known() -> None:
    for known in (True, False):
        group = Group("one", "two")
        one, two = group["one"], group["two"]
        identity = one.run(copies=1)
        group.flow()
        if not known:
            two.steward.members({}, two.now)
        one.steward.move(identity, TWO, 1, one.now)
        group.until(lambda: two.steward.hosted.get(identity) and two.hosted(identity).runner)  # noqa: B023
        opened = [one for one in two.records(identity) if isinstance(one, Opened)]
        assert [record.before for record in opened] == ["one" if known else ""]


def test_what_has_ended_before_is_said_to_whoever_still_speaks_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graves_module, "DIRECTORY_MAX", 1)
    place = Place()
    place.members(two=Peer("two"))
    place.steward.graves.bury(b"x" * 16)
    place.steward.graves.bury(OTHER)
    place.hear(TWO, Notices((notice(), notice(b"x" * 16, name="odd"))))
    place.hear(TWO, letter(StoreMessage(1, 0, 0, (), 0, 1, counted=True)))
    place.hear(TWO, letter(StoreMessage(1, 0, 0, (), 0, 1, counted=True), b"x" * 16))
    said = [message for _, message in told_nodes(place) if isinstance(message, Notices)]
    assert [(one.id, one.ended) for message in said for one in message.notices] == [(OTHER, True)]
    assert list(place.steward.hosted) == [b"x" * 16], "which was forgotten at the limit"


def test_an_end_that_was_told_here_is_told_again_as_it_was() -> None:
    place = Place()
    place.members(two=Peer("two"))
    identity = place.run("shop")
    place.steward.stop(identity, place.now)
    place.settle()
    place.steward.graves.bury(identity)
    place.orders.clear()
    place.hear(TWO, letter(StoreMessage(1, 0, 0, (), 0, 1, counted=True), identity))
    (told,) = [message for _, message in told_nodes(place) if isinstance(message, Notices)]
    assert [one.name for one in told.notices] == ["shop"]


def test_a_journal_that_cannot_be_used_is_never_taken_up() -> None:
    place = Place()
    place.members(two=Peer("two"))
    place.steward.graves.bar(Barred(OTHER, "other", "it is damaged"))
    place.hear(TWO, Notices((notice(),)))
    place.hear(TWO, letter(StoreMessage(1, 0, 0, (), 0, 1, counted=True)))
    assert not place.steward.hosted


def test_a_place_is_let_go_of_with_the_files() -> None:
    place, at = Place(), Elsewhere()
    identity = place.run(at=at)
    place.steward.forget(identity)
    assert at.is_closed


def test_a_holder_fetches_the_code_of_an_upgrade() -> None:
    place = Place()
    place.members(two=Peer("two"))
    place.hear(TWO, Notices((notice(),)))
    place.hear(TWO, letter(StoreMessage(1, 0, 0, (), 0, 1, counted=True)))
    upgraded = msgspec.structs.replace(notice(), code=OTHER_CODE, app="Following")
    place.hear(TWO, Notices((upgraded,)))
    assert place.got(FetchCode)[-1] == FetchCode(OTHER_CODE, TWO)
    assert place.steward.hosted[OTHER].facts.app == "Following"


def test_an_environment_leaves_a_node_that_is_slow_for_a_holder_that_is_not() -> None:
    group = Group("one", "two", "three")
    one = group["one"]
    identity = one.run(copies=3)
    group.until(lambda: len(one.hosted(identity).holding.holders) == 3)
    one.steward.members({TWO: Peer("two", slow="disk"), THREE: Peer("three")}, one.now, "the disk is slow")
    group.until(lambda: group.owner(identity) is group["three"])


def test_nothing_is_due_of_what_is_not_here_any_more() -> None:
    place = Place()
    kept, gone = place.run("kept"), place.run("gone")
    place.attach()
    for identity, seconds in ((kept, 50), (gone, 5)):
        place.send(identity, 1, Later(seconds))
    assert _wall_due_ns(place) == WALL_NS + place.now_ns + 5 * SECOND_NS
    place.steward.stop(gone, place.now)
    place.settle()
    assert _wall_due_ns(place) == WALL_NS + place.now_ns + 50 * SECOND_NS
    place.steward.forget(kept)
    assert _wall_due_ns(place) is None
    assert _due_ns(place) is None
