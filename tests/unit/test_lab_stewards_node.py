# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""A simulated computer: what it is given while it is paused waits, what it is given when it is dead is lost."""

from functools import partial
from hashlib import sha256

import pytest

from atoll.base.errors import UsageError, WireError
from atoll.base.ids import NodeId
from atoll.base.units import SECOND_NS
from atoll.domain.recorder.messages import Append, Create, Forget, Promise
from atoll.env.beginning import Wanted
from atoll.env.keepers import Peer
from atoll.env.messages import (
    Carried,
    CodeGiven,
    CodeWanted,
    Notice,
    Notices,
    Receipt,
    encode_message,
)
from atoll.env.orders import FetchCode, Moment, Say, StoreSnapshot, Told
from atoll.env.orders import Forget as ForgetOrder
from atoll.env.steward import Steward
from atoll.lab.stewards import apps
from atoll.lab.stewards.blueprint import bundle, loaded
from atoll.lab.stewards.node import (
    BEGIN_NS,
    FETCH_NS,
    FETCHES_MAX,
    GIVEN_UP,
    RETRY_NS,
    Computer,
    Process,
    decode_routed,
)
from atoll.lab.stewards.recorder import Later, RecorderEnd
from atoll.lab.stewards.world import StewardWorld
from tests.unit.quiet_world import Alone, BrokenError, Quiet, answer_of
from tests.unit.recorder_world import ENVIRONMENT, STATE, WRITING, block_after, writing

OTHER = NodeId(b"other-node")
CODE = b"some code"
DIGEST = sha256(CODE).digest()


# The computer.


def test_nothing_is_given_to_a_computer_on_which_nothing_runs() -> None:
    computer, got = Quiet().computer(), list[Process]()
    computer.put(got.append)
    computer.boot()
    assert got == []
    computer.put(got.append)
    assert got == [computer.process]
    assert computer.boots == 1
    computer.boot()
    assert computer.boots == 1, "it runs already"


def test_what_comes_while_it_is_paused_waits_and_comes_at_once() -> None:
    computer, got = Quiet().computer(), list[int]()
    computer.boot()
    computer.paused = True

    def get(number: int, _: Process) -> None:
        got.append(number)

    for number in range(3):
        computer.put(partial(get, number))
    assert got == []
    computer.resume()
    assert got == [0, 1, 2]
    computer.put(partial(get, 3))
    assert got == [0, 1, 2, 3]


def test_what_waited_for_a_process_that_died_is_lost_with_it() -> None:
    computer, got = Quiet().computer(), list[int]()
    computer.boot()
    computer.paused = True
    computer.put(lambda _: got.append(1))
    computer.kill(power=False)
    computer.boot()
    computer.resume()
    assert (got, computer.paused, computer.boots) == ([], False, 2)


def test_what_was_on_its_way_to_a_process_is_not_given_to_the_next_one() -> None:
    computer, got = Quiet().computer(), list[int]()
    computer.boot()
    computer.paused = True

    def die(_: Process) -> None:
        computer.kill(power=False)
        computer.boot()

    computer.put(die)
    computer.put(lambda _: got.append(1))
    computer.resume()
    assert (got, computer.boots) == ([], 2)


@pytest.mark.parametrize("power", [True, False])
def test_only_with_the_power_the_recorder_loses_what_it_has_not_done(*, power: bool) -> None:
    world = Quiet()
    computer, told = world.computer(), list[object]()
    world.disk = SECOND_NS
    RecorderEnd(computer.recorder).ask(lambda number: Create(number, ENVIRONMENT, "shop"), told.append)
    computer.kill(power=power)
    world.run(SECOND_NS)
    assert bool(told) == (ENVIRONMENT in computer.recorder.journals) == (not power)


def test_its_clocks_are_the_world_s_and_one_that_can_be_set() -> None:
    world = Quiet()
    computer = world.computer()
    world.run(5)
    assert computer.now() == Moment(5, BEGIN_NS + 5)
    computer.wall_ns = -3
    assert computer.now() == Moment(5, BEGIN_NS + 2)


# Its process.


def test_a_process_takes_up_what_the_recorder_has_before_it_listens() -> None:
    alone = Alone()
    counter = alone.plant()
    alone.computer.kill(power=True)
    alone.computer.boot()
    process = alone.process
    before = process.is_ready
    process.members({OTHER: Peer("other")})
    process.from_node(OTHER, encode_message(CodeGiven(DIGEST, CODE)))
    assert process.attach(bytes(16), alone.client) == 0
    alone.world.run(SECOND_NS)
    assert (before, process.is_ready) == (False, True)
    assert list(process.steward.hosted) == [counter]
    assert process.failures == []
    assert DIGEST not in alone.computer.recorder.code, "what came before it listened is lost"


def journal_of(alone: Alone, identity: bytes, records: bytes | None = None) -> None:
    """Have a journal begun, with a block if there are records."""
    end = RecorderEnd(alone.computer.recorder)
    answer_of(alone.world, end, Create(1, identity, "shop"))
    if records is not None:
        answer_of(alone.world, end, Promise(1, identity, 1, alone.computer.id))
        block = block_after(alone.computer.recorder.journals[identity].position, records)
        answer_of(alone.world, end, Append(1, identity, block))


def test_what_was_begun_and_never_written_to_is_deleted_and_what_has_ended_stays_ended() -> None:
    alone = Alone()
    ended, blank, promised = b"d" * 16, b"b" * 16, b"p" * 16
    for identity in (ended, blank, promised):
        journal_of(alone, identity)
    end = RecorderEnd(alone.computer.recorder)
    answer_of(alone.world, end, Promise(1, promised, 3, OTHER))
    answer_of(alone.world, end, Forget(1, ended))
    alone.computer.kill(power=False)
    alone.computer.boot()
    alone.world.run(SECOND_NS)
    assert list(alone.computer.recorder.journals) == [promised]
    assert list(alone.process.steward.hosted) == [promised]
    assert [one.environment for one in alone.computer.recorder.ended] == [ended]
    ask = alone.client.ask(ended, apps.Add, 5 * SECOND_NS)
    alone.world.run(SECOND_NS)
    assert (ask.outcome, ask.text) == ("unknown", "it has ended")


def test_a_journal_that_nobody_can_read_is_named_and_not_run() -> None:
    alone = Alone()
    journal_of(alone, ENVIRONMENT, b"no records")
    alone.computer.kill(power=False)
    alone.computer.boot()
    alone.world.run(SECOND_NS)
    assert len(alone.process.failures) == 1
    assert alone.process.failures[0].startswith("shop is not run: ")
    assert ENVIRONMENT not in alone.process.steward.hosted


def test_a_process_that_has_ended_does_nothing_more_and_its_clients_are_told() -> None:
    alone = Alone()
    counter = alone.plant()
    process, steps = alone.process, list[str]()

    async def work() -> None:
        steps.append("begun")
        await process.end_of_recorder.environments()
        steps.append("never")

    process.spawn(work())
    alone.computer.kill(power=False)
    alone.world.run(SECOND_NS)
    assert steps == ["begun"]
    assert alone.client._process is None
    operation = alone.client.ask(counter, apps.Add, SECOND_NS)
    alone.world.run(SECOND_NS)
    assert operation.outcome == "timeout"


def test_coroutines_go_on_when_what_they_wait_for_is_there_and_not_while_it_is_paused() -> None:
    alone = Alone()
    later, found = Later[int](), list[int]()

    async def work() -> None:
        found.append(await later)

    alone.process.spawn(work())
    alone.computer.paused = True
    later.give(5)
    assert found == []
    alone.computer.resume()
    assert found == [5]


def test_a_command_says_whether_it_can_be_done() -> None:
    alone = Alone()
    counter = alone.plant()

    def foolish(_: Steward, __: Moment) -> None:
        raise UsageError("no")

    assert alone.process.command(lambda steward, now: steward.checkpoint(counter, now))
    assert not alone.process.command(foolish)
    alone.world.run(SECOND_NS)
    assert list(alone.computer.recorder.journals[counter].snapshots) == [
        alone.process.steward.hosted[counter].holding.committed
    ]


def test_what_was_told_of_a_command_is_kept() -> None:
    alone = Alone()
    alone.process._obey(Told(7, None, "done"))
    assert alone.process.outcomes[7].text == "done"


def test_what_may_be_lost_is_counted() -> None:
    alone = Alone()
    alone.process._obey(Say(ENVIRONMENT, "not known whether they came: 1 tuples to x"))
    alone.process._obey(Say(ENVIRONMENT, "anything else"))
    assert alone.world.counts == {GIVEN_UP: 1}


def test_every_order_to_a_recorder_and_whatever_leaves_is_looked_at() -> None:
    alone = Alone()
    counter = alone.plant()
    looks = alone.world.looks
    alone.client.ask(counter, apps.Add, SECOND_NS)
    alone.world.run(SECOND_NS)
    assert alone.world.looks > looks
    assert {name for name, _ in alone.world.asked_for} == {"node-0"}
    assert {type(message) for _, message in alone.world.left} >= {Carried, Receipt}


def test_a_journal_is_looked_at_before_it_is_put_aside() -> None:
    alone = Alone()
    counter = alone.plant()
    alone.process.command(lambda steward, now: steward.stop(counter, now))
    alone.world.run(20 * SECOND_NS)
    assert alone.world.put_aside == [("node-0", counter)]
    assert [one.environment for one in alone.computer.recorder.ended] == [counter]
    assert counter not in alone.process.seen


def test_a_forgotten_environment_is_let_go_of() -> None:
    alone = Alone()
    counter = alone.plant()
    alone.process._obey(ForgetOrder(counter))
    alone.world.run()
    assert counter not in alone.computer.recorder.journals


# Disks that refuse.


def test_a_disk_that_has_room_again_gets_the_journal() -> None:
    alone = Alone()
    alone.plant(name="first")  # So that its code is there.
    alone.world.full.append(alone.computer)
    second = alone.plant(name="second")
    assert second not in alone.computer.recorder.journals
    alone.world.full.clear()
    alone.world.run(2 * RETRY_NS)
    assert second in alone.computer.recorder.journals


def test_what_waits_for_code_that_cannot_be_kept_is_not_done() -> None:
    alone = Alone()
    done: list[int] = []
    alone.world.full.append(alone.computer)
    alone.process.keep_code(DIGEST, CODE, lambda: done.append(1))
    alone.world.run(SECOND_NS)
    assert done == []


def test_a_state_that_is_not_that_of_its_block_is_noticed() -> None:
    alone = Alone()
    journal_of(alone, ENVIRONMENT, writing(b"another"))
    alone.process._obey(StoreSnapshot(ENVIRONMENT, 1, STATE))
    with pytest.raises(BrokenError) as caught:
        alone.world.run()
    assert caught.value.invariant == "a state that is stored is that of its block"


def test_a_state_that_the_disk_refuses_or_that_fits_is_no_fault() -> None:
    alone = Alone()
    journal_of(alone, ENVIRONMENT, WRITING)
    alone.world.full.append(alone.computer)
    alone.process._obey(StoreSnapshot(ENVIRONMENT, 1, STATE))
    alone.world.run()
    alone.world.full.clear()
    alone.process._obey(StoreSnapshot(ENVIRONMENT, 1, STATE))
    alone.world.run()
    assert list(alone.computer.recorder.journals[ENVIRONMENT].snapshots) == [1]


# Code of others.


def test_code_is_asked_for_until_it_comes() -> None:
    alone = Alone()
    alone.process._obey(FetchCode(DIGEST, OTHER))
    alone.world.run(2 * FETCH_NS)
    assert alone.world.sent == [(alone.computer.id, OTHER, CodeWanted(DIGEST))] * 3
    alone.process.from_node(OTHER, encode_message(CodeGiven(DIGEST, CODE)))
    alone.world.run(5 * FETCH_NS)
    assert alone.computer.recorder.code[DIGEST] == CODE
    assert len(alone.world.sent) == 3


def test_code_that_never_comes_is_given_up() -> None:
    alone = Alone()
    alone.process._obey(FetchCode(DIGEST, OTHER))
    alone.world.run((FETCHES_MAX + 9) * FETCH_NS)
    assert len(alone.world.sent) == FETCHES_MAX


def test_code_is_given_if_it_is_here_and_nothing_is_said_if_it_is_not() -> None:
    alone = Alone()
    alone.process.from_node(OTHER, encode_message(CodeWanted(DIGEST)))
    alone.world.run()
    assert alone.world.sent == []
    alone.process.keep_code(DIGEST, CODE)
    alone.process.from_node(OTHER, encode_message(CodeWanted(DIGEST)))
    alone.world.run()
    assert alone.world.sent == [(alone.computer.id, OTHER, CodeGiven(DIGEST, CODE))]


def test_a_message_for_a_client_is_one_of_three_kinds() -> None:
    for message in (Receipt(bytes(16), bytes(16), 1), Carried(bytes(16), bytes(16), 1, b"\x90")):
        assert decode_routed(encode_message(message)) == message
    with pytest.raises(WireError):
        decode_routed(encode_message(CodeWanted(DIGEST)))


def test_what_is_not_for_the_process_goes_to_its_steward() -> None:
    alone = Alone()
    notice = Notice(ENVIRONMENT, 1, OTHER, "far", "Far", DIGEST, (OTHER,))
    alone.process.members({OTHER: Peer("other")})
    alone.process.from_node(OTHER, encode_message(Notices((notice,))))
    assert alone.process.steward.directory.find(ENVIRONMENT) == notice


# Several nodes.


@pytest.fixture
def three() -> tuple[StewardWorld, bytes]:
    """Return nodes of which the first runs a counter that the first three keep; nothing goes wrong by itself."""
    world, planted, found = StewardWorld(1), list[bytes](), loaded("Counter")
    world.faulty = False
    for computer in world.computers:
        computer.boot()
    world.tell_members()
    world.run(SECOND_NS)
    process = world.computers[0].process
    assert process is not None
    wanted = Wanted("counter", found.code, b"\x80", 3)
    process.keep_code(found.code, bundle("Counter"), lambda: planted.append(process.create(wanted, found.program)))
    world.run(4 * SECOND_NS)
    (counter,) = planted
    assert len(process.steward.hosted[counter].holding.holders) == 3
    return world, counter


def owner_of(world: StewardWorld, counter: bytes) -> Computer | None:
    for computer in world.computers:
        hosted = None if computer.process is None else computer.process.steward.hosted.get(counter)
        if hosted is not None and hosted.runner is not None:
            return computer
    return None


def test_another_holder_goes_on_when_a_node_is_gone_and_has_the_code_of_the_others(
    three: tuple[StewardWorld, bytes],
) -> None:
    world, counter = three
    code = loaded("Counter").code
    holders = [computer for computer in world.computers if counter in computer.recorder.journals]
    world.run(world.now_ns + 5 * SECOND_NS)
    assert all(code in computer.recorder.code for computer in holders)
    lacking = holders[1]
    lacking.kill(power=True)
    del lacking.recorder.code[code]
    lacking.boot()
    world.run(world.now_ns + 2 * SECOND_NS)
    holders[0].kill(power=True)
    world.run(world.now_ns + 60 * SECOND_NS)
    owner = owner_of(world, counter)
    assert owner in holders[1:]
    assert code in lacking.recorder.code
    world.checks.journals()


def test_an_environment_that_is_moved_is_prepared_where_it_goes_and_kept_ready_where_it_was(
    three: tuple[StewardWorld, bytes],
) -> None:
    world, counter = three
    first, second = [computer for computer in world.computers if counter in computer.recorder.journals][:2]
    for command, target in ((1, second), (2, first)):
        source = owner_of(world, counter)
        assert source is not None
        assert source.process is not None
        assert source.process.command(partial(move, counter, target.id, command))
        world.run(world.now_ns + 10 * SECOND_NS)
        assert owner_of(world, counter) is target
        assert source.process.outcomes[command].failure is None
    assert world.counts["restored beforehand"] >= 1


def move(counter: bytes, target: NodeId, command: int, steward: Steward, now: Moment) -> None:
    steward.move(counter, target, command, now)
