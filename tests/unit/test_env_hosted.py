# SPDX-License-Identifier: Apache-2.0
"""One environment on one node: nothing leaves before it is durable, nothing counts twice, and what fails is said."""

from collections.abc import Callable

import msgspec
import pytest

from atoll.base.errors import UsageError
from atoll.base.units import SECOND_NS
from atoll.env import inbox as inbox_module
from atoll.env import runner as runner_module
from atoll.env.app import App, on, program_of
from atoll.env.beginning import Wanted
from atoll.env.context import Context
from atoll.env.facts import Facts
from atoll.env.holding import Holding, HoldingOptions
from atoll.env.hosted import Hosted
from atoll.env.limits import (
    BLOCK_BYTES,
    BLOCKS_AHEAD_MAX,
    CONFIRM_ITEMS,
    CONFIRM_NS,
    DISK_RETRY_NS,
    INBOX_ITEMS_MAX,
    ITEMS_MAX,
    NESTING_MAX,
    OWED_MAX,
    PARCEL_BYTES,
    PIPELINED_BLOCKS_MAX,
    RESEND_NS,
    RESEND_PARCELS_MAX,
    SLEW_PARTS,
    TOLD_MAX,
)
from atoll.env.messages import Carried, Receipt, count_items
from atoll.env.orders import AskRecorder, Moment, Say, StoreSnapshot
from atoll.env.records import Arrived, Confirmed, Found
from atoll.env.records import Told as ToldRecord
from atoll.env.tuples import Tuple
from tests.unit.steward_world import (
    ANN,
    BOB,
    CODE,
    OTHER_CODE,
    PROGRAM,
    Add,
    Boom,
    Counter,
    Hang,
    Later,
    Place,
    Spoil,
    Sum,
    encode,
    items,
    node_id,
    receipts,
    refusals,
    started,
)

# What is durable, and what leaves.


def test_nothing_leaves_before_its_block_is_durable() -> None:
    place, identity = started()
    assert place.hosted(identity).is_open
    place.is_slow = True
    place.send(identity, 1, Add(2), ask=1)
    assert place.counter(identity)["n"] == 2
    assert not place.said(1)
    place.answer()
    assert receipts(place) == [(1, False)]
    assert place.responses(1) == [{"is": "Sum", "n": 2}]


def test_log_lines_leave_when_they_are_durable() -> None:
    place, identity = started()
    place.is_slow = True
    place.send(identity, 1, Add(2))
    assert not place.got(Say)
    place.answer()
    assert place.got(Say) == [Say(identity, "n is 2")]


def test_what_comes_while_a_block_is_on_its_way_shares_the_next_one() -> None:
    place, identity = started()
    place.is_slow = True
    for number in range(1, 6):
        place.send(identity, number, Add(1))
    assert len(place.waiting) == 1
    place.answer()
    assert len(place.kept[identity]) == 3  # Its beginning, the first one, and all others.
    assert receipts(place) == [(1, False), (5, False)]


def test_blocks_ahead_are_bounded_and_the_rest_waits_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "BLOCK_EVENTS_MAX", 1)
    place, identity = started()
    place.is_slow = True
    count = BLOCKS_AHEAD_MAX + 5
    for number in range(1, count + 1):
        place.send(identity, number, Add(1))
    assert place.counter(identity)["n"] == BLOCKS_AHEAD_MAX
    place.answer()
    assert place.counter(identity)["n"] == count


def test_many_bytes_make_several_blocks_though_they_are_few_events() -> None:
    place, identity = started()
    place.is_slow = True
    large = encode([[{"is": "Add", "n": 1, "more": bytes(200_000)}]] * 4)
    for number in range(1, 41, 4):
        place.hear(1, Carried(ANN, identity, number, large))
    place.answer()
    assert place.counter(identity)["n"] == 40
    sizes = [len(block.sealed) for block in place.kept[identity]]
    assert max(sizes) < BLOCK_BYTES + len(large) + 10_000
    assert len(sizes) >= 4


# What comes in.


def test_what_came_before_is_confirmed_and_not_applied_again() -> None:
    place, identity = started()
    place.send(identity, 1, Add(2), Add(3))
    place.send(identity, 1, Add(2), Add(3))
    assert place.counter(identity)["n"] == 5
    assert receipts(place) == [(2, False), (2, False)]


def test_what_comes_again_before_it_is_durable_is_not_confirmed() -> None:
    place, identity = started()
    place.is_slow = True
    place.send(identity, 1, Add(2))
    place.send(identity, 1, Add(2))
    assert not receipts(place)
    place.answer()
    assert place.counter(identity)["n"] == 2


def test_what_comes_again_with_more_is_taken_from_where_it_is_new() -> None:
    place, identity = started()
    place.send(identity, 1, Add(1), Add(1))
    place.send(identity, 1, Add(1), Add(1), Add(5), Add(7))
    assert place.counter(identity)["n"] == 14


def test_a_gap_is_asked_for() -> None:
    place, identity = started()
    place.send(identity, 1, Add(1))
    place.send(identity, 3, Add(1))
    assert receipts(place) == [(1, False), (1, True)]
    assert place.counter(identity)["n"] == 1


def test_the_queue_is_bounded_and_its_sender_is_told() -> None:
    place, identity = started()
    place.is_slow = True
    first = 1
    while not refusals(place):
        place.send(identity, first, *[Add(1)] * ITEMS_MAX)
        first += ITEMS_MAX
    assert refusals(place) == ["queue-full"]
    assert first > INBOX_ITEMS_MAX
    place.answer()
    place.send(identity, first - ITEMS_MAX, *[Add(1)] * ITEMS_MAX)
    assert place.counter(identity)["n"] == first - 1


def test_a_party_that_asks_and_does_not_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "OWED_MAX", 5)
    place, identity = started()
    for number in range(1, 8):
        place.send(identity, number, Add(1), ask=number)
    assert refusals(place) == ["queue-full"]
    assert place.counter(identity)["n"] == 6
    assert OWED_MAX > 5


def test_a_tuple_that_fits_in_no_block_is_refused() -> None:
    place, identity = started()
    for count in (1, 3):
        place.hear(1, Carried(ANN, identity, 1, encode([[{"is": "Add", "n": 1, "x": bytes(PARCEL_BYTES)}]] * count)))
    assert refusals(place) == ["too-large", "too-large"]
    place.send(identity, 1, Add(1))
    assert place.counter(identity)["n"] == 1


def test_whatever_depth_is_sent_is_taken_and_replays_or_is_refused() -> None:
    place, identity = started()
    for depth in range(NESTING_MAX - 2, 1_010, 13):
        item = b"\x91\x95\x83\xa2is\xa3Add\xa1n\x01\xa2zz" + b"\x91" * depth + b"\xc0\x00\x00\xa0\xa0"
        place.hear(1, Carried(ANN, identity, 1, item))
    assert set(refusals(place)) == {"too-deep"}
    place.send(identity, 2, Boom(), Add(1))
    assert place.counter(identity)["n"] == 2, "the first one and this"
    runner = place.runner(identity, len(place.kept[identity]))
    assert runner.environment.fields() == place.counter(identity)


def test_an_environment_that_does_not_run_takes_nothing_and_says_nothing() -> None:
    options = HoldingOptions(node_id("two"), b"s" * 32)
    hosted = Hosted(Facts(b"i" * 16, "x", "X", CODE), (node_id("two"), "two"), Holding.create(options, 0))
    now = Moment(0, 0)
    hosted.open(now)
    hosted.carried(Carried(ANN, b"i" * 16, 1, items(Add(1))), now)
    hosted.receipt(Receipt(ANN, b"i" * 16, 1), now)
    hosted.found(Found(1), now)
    hosted.tell(ToldRecord(msgspec.Raw(encode({"is": "Done"}))), now)
    hosted.maintain({}, set(), now)
    assert hosted.taken() == ([], [])
    assert hosted.wall_deadline_ns is None
    assert hosted.deadline_ns == hosted.holding.deadline_ns
    asks: tuple[Callable[[], None], ...] = (
        lambda: hosted.checkpoint(now),
        lambda: hosted.upgrade(PROGRAM, CODE, now),
    )
    for ask in asks:
        with pytest.raises(UsageError, match="does not run here"):
            ask()


def test_the_deadline_is_the_first_of_all() -> None:
    place, identity = started()
    hosted = place.hosted(identity)
    assert (hosted.holding.deadline_ns,) == (None,), "it is alone, and has nobody to tell"
    dues = [hosted.deadline_ns]
    place.tick(RESEND_NS)
    dues.append(hosted.deadline_ns)
    assert dues == [place.now_ns, None], "nothing was sent that could be lost, and it is idle"
    place.send(identity, 1, Later(5))
    assert hosted.wall_deadline_ns == place.now.wall_ns + 5 * SECOND_NS
    assert hosted.deadline_ns == place.now_ns + RESEND_NS
    place.is_full = True
    place.send(identity, 2, Add(1))
    assert hosted.deadline_ns == hosted.holding.deadline_ns == place.now_ns + DISK_RETRY_NS


# Confirmations, and sending again.


def test_confirmations_are_recorded_together_and_free_what_is_owed() -> None:
    place, identity = started()
    place.send(identity, 1, Add(1), Add(1), Add(1), ask=1)
    runner = place.hosted(identity).runner
    assert runner is not None
    for upto in (1, 3, 2):
        place.hear(1, Receipt(ANN, identity, upto))
    assert runner.environment.owes(ANN) == 3
    place.tick(CONFIRM_NS)
    assert runner.environment.owes(ANN) == 0
    assert [one for one in place.records(identity) if isinstance(one, Confirmed)] == [Confirmed(ANN, 3)]
    place.hear(1, Receipt(ANN, identity, 3))
    place.tick(CONFIRM_NS)
    assert len([one for one in place.records(identity) if isinstance(one, Confirmed)]) == 1


def test_many_confirmations_do_not_wait() -> None:
    place, identity = started()
    place.send(identity, 1, *[Add(1)] * (CONFIRM_ITEMS + 1), ask=1)
    place.hear(1, Receipt(ANN, identity, 1))
    place.hear(1, Receipt(ANN, identity, CONFIRM_ITEMS))
    place.tick()
    place.send(identity, CONFIRM_ITEMS + 2, Add(1))
    assert Confirmed(ANN, CONFIRM_ITEMS) in place.records(identity)


def test_a_receipt_for_what_was_never_sent_is_nothing() -> None:
    place, identity = started()
    blocks = len(place.kept[identity])
    place.send(identity, 1, Add(1), ask=1)
    for origin, party in ((1, ANN), (node_id("two"), BOB)):
        place.hear(origin, Receipt(party, identity, 1 << 60))
    place.tick(CONFIRM_NS)
    assert [one for one in place.records(identity) if isinstance(one, Confirmed)] == [Confirmed(ANN, 1)]
    assert len(place.kept[identity]) == blocks + 2


def test_what_is_not_confirmed_is_sent_again_after_a_while_and_at_once_when_asked_for() -> None:
    place, identity = started()
    place.send(identity, 1, Add(1), ask=1)
    place.send(identity, 2, Add(1), ask=2)
    count = len([one for one in place.said(1) if isinstance(one, Carried)])
    place.hear(1, Receipt(ANN, identity, 1, again=True))
    assert len([one for one in place.said(1) if isinstance(one, Carried)]) == count + 1
    place.tick(RESEND_NS)
    assert len([one for one in place.said(1) if isinstance(one, Carried)]) == count + 2
    place.hear(1, Receipt(ANN, identity, 2))
    place.tick(2 * RESEND_NS)
    assert len([one for one in place.said(1) if isinstance(one, Carried)]) == count + 2


def test_what_is_held_back_is_not_sent_again_and_others_are_not_asked() -> None:
    place, identity = started()
    place.attach(BOB, 2)
    place.hear(2, Carried(BOB, identity, 1, items(Add(1), ask=1)))
    place.is_slow = True
    place.send(identity, 1, Add(1), ask=1)
    before = len(place.said(1)), len(place.said(2))
    place.hear(1, Receipt(ANN, identity, 0, again=True))
    assert (len(place.said(1)), len(place.said(2))) == before


def test_so_many_are_sent_again_at_a_time_at_most() -> None:
    place, identity = started()
    for number in range(1, RESEND_PARCELS_MAX + 10):
        place.send(identity, number, Add(1), ask=number)
    before = len(place.said(1))
    place.tick(RESEND_NS)
    assert len(place.said(1)) == before + RESEND_PARCELS_MAX


def test_what_leaves_fits_in_a_message_and_keeps_its_numbers() -> None:
    class Much(Tuple):
        count: int
        size: int

    class Piece(Tuple):
        n: int
        data: bytes

    class Source(App):
        @on(Much)
        def much(self, much: Much, ctx: Context) -> None:
            assert ctx.sender is not None
            for number in range(much.count):
                ctx.send(ctx.sender, Piece(number, bytes(much.size)))

    place = Place()
    identity = place.steward.create(Wanted("source", CODE, encode({}), 1), program_of(Source), place.now)
    place.attach()
    place.send(identity, 1, Much(2_000, 1))
    place.send(identity, 2, Much(40, 200_000))
    said = [one for one in place.said(1) if isinstance(one, Carried)]
    assert all(len(one.items) <= PARCEL_BYTES + 5 for one in said)
    first = 1
    for one in said:
        assert one.first == first
        first += count_items(one.items)
    assert first == 2_041
    place.tick(RESEND_NS)
    again = [one for one in place.said(1) if isinstance(one, Carried)][len(said) :]
    assert again == [msgspec.structs.replace(one, age_ns=RESEND_NS * SLEW_PARTS // (SLEW_PARTS - 1)) for one in said]


# The disk.


def test_a_disk_that_refuses_is_said_and_what_was_taken_is_sealed_when_there_is_room() -> None:
    place, identity = started()
    place.is_full = True
    place.send(identity, 1, Add(1), ask=1)
    place.send(identity, 2, Add(1), ask=2)
    assert refusals(place) == ["disk-full"]
    assert not place.responses(1)
    place.is_full = False
    place.tick(SECOND_NS)
    assert place.responses(1) == [{"is": "Sum", "n": 1}]
    place.send(identity, 2, Add(1), ask=2)
    assert place.responses(1)[-1] == {"is": "Sum", "n": 2}


def test_blocks_that_were_refused_are_proposed_again_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "BLOCK_EVENTS_MAX", 1)
    monkeypatch.setattr("atoll.env.holding.serving.PIPELINED_BLOCKS_MAX", 3)
    place, identity = started()
    place.is_slow = True
    for number in range(1, 9):
        place.send(identity, number, Add(number), ask=number)
    place.answer()
    assert [one["n"] for one in place.responses(1)] == [1, 3, 6, 10, 15, 21, 28, 36]
    assert PIPELINED_BLOCKS_MAX > 3


def test_a_proposal_that_is_refused_waits_until_the_disk_takes_what_came_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner_module, "BLOCK_EVENTS_MAX", 1)
    place, identity = started()
    hosted = place.hosted(identity)
    place.is_full = True
    place.is_slow = True
    place.send(identity, 1, Add(1), ask=1)
    waiting = place.waiting
    place.waiting = []
    place.is_slow = False
    for order in waiting:
        place.record(order)
    hosted._hold = ""  # pyright: ignore[reportPrivateUsage]
    place.send(identity, 2, Add(1), ask=2)
    assert not place.responses(1)
    place.is_full = False
    place.tick(SECOND_NS)
    assert [one["n"] for one in place.responses(1)] == [1, 2]


# Checkpoints and other code.


def test_a_checkpoint_is_stored_once_its_block_is_durable() -> None:
    place, identity = started()
    place.send(identity, 1, Add(3))
    place.is_slow = True
    place.steward.checkpoint(identity, place.now)
    place.settle()
    assert not place.got(StoreSnapshot)
    place.answer()
    place.settle()
    (order,) = place.got(StoreSnapshot)
    assert order.number == len(place.kept[identity])


def test_a_checkpoint_that_is_due_is_taken_and_one_that_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "CHECKPOINT_EVENTS", 3)
    place, identity = started()
    place.send(identity, 1, Add(1), Add(1), Add(1), Add(1))
    place.send(identity, 5, Add(1))
    assert len(place.got(StoreSnapshot)) == 1
    place.send(identity, 6, Spoil(), Add(1), Add(1), Add(1))
    place.send(identity, 10, Add(1))
    assert any("no checkpoint can be taken" in one.text for one in place.got(Say))


def test_other_code_runs_from_its_own_block_on() -> None:
    class Counted(App):
        n: int = 0
        by: int = 1

        @on(Add)
        def add(self, add: Add, _: Context) -> Sum:
            self.n += 2 * add.n
            return Sum(self.n)

    Counted.__name__ = "Counter"
    place, identity = started()
    place.send(identity, 1, Add(3))
    hosted = place.hosted(identity)
    place.hosted(identity).upgrade(program_of(Counted), OTHER_CODE, place.now)
    place.settle()
    place.send(identity, 2, Add(1), ask=2)
    assert place.responses(1) == [{"is": "Sum", "n": 5}]
    assert (hosted.facts.code, hosted.facts.app) == (OTHER_CODE, "Counter")


def test_what_waits_for_a_coroutine_cannot_be_checkpointed() -> None:
    place, identity = started()
    place.send(identity, 1, Hang())
    with pytest.raises(UsageError, match="coroutine"):
        place.hosted(identity).checkpoint(place.now)


# News.


def test_news_are_bounded_and_wait_while_nothing_may_be_proposed() -> None:
    place, identity = started()
    hosted = place.hosted(identity)
    hosted._hold = "full"  # pyright: ignore[reportPrivateUsage]
    news = ToldRecord(msgspec.Raw(encode({"is": "PeerSlow", "node": "two", "slow": True, "reason": "disk"})))
    for _ in range(TOLD_MAX + 5):
        hosted.tell(news, place.now)
    hosted._hold = ""  # pyright: ignore[reportPrivateUsage]
    place.tick(SECOND_NS)
    assert place.records(identity).count(news) == TOLD_MAX


def test_records_are_of_the_block_that_holds_them() -> None:
    place, identity = started()
    place.send(identity, 1, Add(1), Add(2))
    kinds = [type(record) for record in place.records(identity)]
    assert kinds[2:] == [Arrived]
    assert place.got(AskRecorder)[0].id == identity


def test_names_of_handlers_are_those_of_the_class() -> None:
    assert PROGRAM.main.name == Counter.__name__
