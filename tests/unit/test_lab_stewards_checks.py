# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""What must hold in simulations of environments: each check is seen to hold, and to notice a history that is broken."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from atoll.base.units import SECOND_NS
from atoll.domain.recorder.messages import Done, KeepSnapshot
from atoll.env.chain import Block, Seal, Sealed
from atoll.env.environment import Environment
from atoll.env.history import DIGEST_BYTES, NO_MARK, Entry, decode_body, decode_snapshot, encode_body
from atoll.env.messages import Carried, CodeWanted, Receipt
from atoll.env.parties import Ref
from atoll.env.records import Checkpointed, Confirmed, Failed, Forgotten, Held, Item, Opened, Record, Stopped, Upgraded
from atoll.lab.stewards import apps
from atoll.lab.stewards.blueprint import bundle, loaded
from atoll.lab.stewards.checks import Checks
from atoll.lab.stewards.clients import Client
from atoll.lab.stewards.recorder import RecorderEnd
from tests.unit.quiet_world import Alone, BrokenError, Histories, answer_of, arrived, encode

ANN = bytes([0xC0]) * 16
STRANGER = b"s" * 16
Write = Callable[[Histories, bytes], object]


def asked(client: Client, target: bytes, *events: object) -> None:
    """Note that a client has sent these, as its first items."""
    for number, event in enumerate(events, 1):
        client.log.setdefault(target, {})[number] = [encode(Item(msgspec.Raw(encode(event)), number))]


@pytest.fixture
def told() -> Histories:
    """Return histories with a client that has asked a counter for two things."""
    made = Histories()
    asked(made.client(0), b"counter".ljust(16, b"."), apps.Add(0, 1), apps.Add(0, 2))
    return made


def adds(number: int, amount: int = 1) -> Record:
    return arrived(ANN, number, apps.Add(0, number, amount), ask=number)


def broken(act: Callable[[], object]) -> str:
    """Return which invariant does not hold."""
    with pytest.raises(BrokenError) as caught:
        act()
    return caught.value.invariant


def body_of(*records: Record, digest: bytes = bytes(DIGEST_BYTES)) -> bytes:
    return encode_body(digest, [Entry(5, NO_MARK, record) for record in records])


# A history that holds.


def test_the_truth_is_what_was_committed(told: Histories) -> None:
    counter = told.begin()
    told.write(counter, adds(1))
    told.write(counter, adds(2))
    told.commit(counter)
    truth = told.checks.truths[counter]
    assert (truth.fields()["total"], truth.fields()["done"]) == (2, {0: [1, 2]})
    assert (truth.received(ANN), truth.received(STRANGER), told.checks.blocks) == (2, 0, 3)
    assert sorted(truth.posts[ANN]) == [1, 2]
    assert truth.digests[-1] == told.runners[counter].digest
    assert truth.heads == [told.journal(counter).head(number) for number in (1, 2, 3)]
    told.checks.journals()
    assert (told.checks.name_of(ANN), told.checks.name_of(counter)) == ("client 0", "counter")
    assert told.checks.name_of(STRANGER) == STRANGER.hex()


def test_before_anything_is_committed_nothing_is_true(told: Histories) -> None:
    told.commit(told.begin())
    other = told.begin(name="other")
    told.checks.forgets(told.computers[0], other)
    assert other not in told.checks.truths
    told.checks.journals()


def test_one_that_was_upgraded_is_applied_by_the_code_that_it_had_then(told: Histories) -> None:
    counter = told.begin()
    newer = loaded("Counter", 2)
    told.computers[1].recorder.code[newer.code] = bundle("Counter", 2)
    told.write(counter, adds(1))
    told.runners[counter].upgrade(newer.program, newer.code, 5)
    snapshot = told.seal(counter)
    told.write(counter, adds(2))
    told.commit(counter)
    assert told.checks.truths[counter].fields()["generation"] == 2
    keep_snapshot(told, counter, snapshot.number, snapshot.snapshot)
    told.checks.journals()
    assert any(isinstance(entry.record, Upgraded) for entry in decode_body(snapshot.body).entries)


# What is committed.


def test_another_block_where_one_was_committed_is_noticed(told: Histories) -> None:
    counter = told.begin()
    told.write(counter, adds(1))
    told.commit(counter)
    for computer in told.computers:
        computer.recorder.journals[counter].cut(2)
    told.keep(counter, body_of(Stopped()))
    truth = told.checks.truths[counter]
    by = told.computers[0], told.holders
    assert broken(lambda: told.checks._commit(truth, told.journal(counter), 2, by)) == "a block is committed once"


def test_a_block_that_too_few_holders_have_is_noticed(told: Histories) -> None:
    counter = told.begin()
    told.write(counter, adds(1), on=2)
    told.commit(counter)
    told.write(counter, adds(2), on=1)
    assert broken(lambda: told.commit(counter)) == "a majority has what is committed"


def test_holders_who_hold_from_a_block_on_may_commit_it(told: Histories) -> None:
    counter = told.begin()
    told.write(counter, Held((told.computers[0].id,), 1), on=1)
    told.commit(counter)
    assert told.checks.blocks == 2


def test_a_committed_block_that_is_not_on_the_disk_is_noticed(told: Histories) -> None:
    counter = told.begin()
    told.commit(counter)
    truth, journal = told.checks.truths[counter], told.journal(counter)
    by = told.computers[0], told.holders
    assert broken(lambda: told.checks._commit(truth, journal, 2, by)) == "what is committed is on the disk"


def test_what_a_snapshot_stands_for_need_not_be_there(told: Histories) -> None:
    counter = told.begin()
    told.write(counter, adds(1))
    told.commit(counter)
    truth, journal = told.checks.truths[counter], told.journal(counter)
    at = journal.position
    journal.base, journal.blocks, journal.positions = at, [], []
    by = told.computers[0], told.holders
    told.checks._commit(truth, journal, 1, by)
    told.checks._commit(truth, journal, 2, by)
    journal.base = msgspec.structs.replace(at, head=b"x" * 32)
    assert broken(lambda: told.checks._commit(truth, journal, 2, by)) == "a block is committed once"


def test_something_that_happens_after_an_end_is_noticed(told: Histories) -> None:
    counter = told.begin()
    told.write(counter, Stopped())
    told.write(counter, Held(told.holders), Opened(told.holders[0], "node-0", 2))
    told.commit(counter)
    assert told.checks.truths[counter].runner is not None
    told.keep(counter, body_of(adds(1), digest=digest(told, counter)), 1)
    assert broken(lambda: told.commit(counter)) == "nothing happens after an end"


def digest(told: Histories, identity: bytes) -> bytes:
    return told.runners[identity].digest


NOT_REPLAYED: list[Write] = [
    lambda told, counter: told.keep(counter, body_of(adds(1)), 1),  # It has effects, and the block says none.
    lambda told, counter: told.keep(counter, body_of(Confirmed(ANN, 0), digest=b"d" * DIGEST_BYTES)),
    lambda told, counter: told.keep(counter, body_of(Checkpointed(b"d" * 32), digest=digest(told, counter))),
]


@pytest.mark.parametrize("write", NOT_REPLAYED)
def test_a_block_that_does_not_replay_is_noticed(told: Histories, write: Write) -> None:
    counter = told.begin()
    write(told, counter)
    assert broken(lambda: told.commit(counter)) == "journals replay"


# What came, and what is confirmed.


NOT_SENT: list[Write] = [
    lambda told, counter: told.write(counter, adds(1, amount=7)),  # Another item than was sent.
    lambda told, counter: told.write(counter, adds(3)),  # A number that was never given.
    lambda told, counter: told.write(counter, arrived(STRANGER, 1, apps.Add(0, 1))),
    lambda told, counter: told.keep(counter, body_of(failed(7), digest=digest(told, counter))),
]


@pytest.mark.parametrize("write", NOT_SENT)
def test_an_item_that_nobody_sent_is_noticed(told: Histories, write: Write) -> None:
    counter = told.begin()
    write(told, counter)
    assert broken(lambda: told.commit(counter)) == "what came was sent"


def failed(amount: int) -> Failed:
    item = Item(msgspec.Raw(encode(apps.Add(0, 1, amount))), 1)
    return Failed(ANN, 1, "raised", "no", encode(item))


def test_an_item_whose_handler_failed_was_sent_too(told: Histories) -> None:
    counter = told.begin()
    told.write(counter, failed(1))
    told.commit(counter)
    assert told.checks.truths[counter].received(ANN) == 1


def banks(told: Histories) -> tuple[bytes, bytes]:
    """Return two banks of which the first has given something to the second."""
    one, other = told.begin("Bank", "one"), told.begin("Bank", "other")
    order = apps.Transfer(0, 2, 5, Ref(other))
    asked(told.clients[ANN], one, order)
    told.write(one, arrived(ANN, 1, order, ask=1))
    return one, other


def test_what_another_environment_sent_may_come_and_be_confirmed(told: Histories) -> None:
    one, other = banks(told)
    told.commit(one)
    told.write(other, arrived(one, 1, apps.Deposit(1, 5)))
    told.commit(other)
    told.write(one, Confirmed(other, 1))
    told.commit(one)
    assert told.checks.truths[other].fields()["money"] == 1005


def test_what_another_environment_has_not_committed_may_not_come(told: Histories) -> None:
    one, other = banks(told)
    told.write(other, arrived(one, 1, apps.Deposit(1, 5)))
    assert broken(lambda: told.commit(other)) == "what came was sent"


def test_what_comes_as_another_deposit_than_was_sent_is_noticed(told: Histories) -> None:
    one, other = banks(told)
    told.commit(one)
    told.write(other, arrived(one, 1, apps.Deposit(1, 6)))
    assert broken(lambda: told.commit(other)) == "what came was sent"


def test_a_confirmation_of_what_was_not_taken_is_noticed(told: Histories) -> None:
    one, other = banks(told)
    told.commit(other)
    told.write(one, Confirmed(other, 1))
    assert broken(lambda: told.commit(one)) == "what is confirmed was taken"


def test_a_number_that_is_given_twice_is_noticed(told: Histories) -> None:
    one, other = banks(told)
    told.commit(one)
    truth = told.checks.truths[one]
    sent = truth.posts[other]
    del sent[1]
    sent[2] = b""
    with pytest.raises(AssertionError, match="no number is given twice"):
        truth.collect()


# What leaves.


def carried(source: bytes, target: bytes, event: object, first: int = 1, **more: int) -> Carried:
    return Carried(source, target, first, encode([Item(msgspec.Raw(encode(event)))]), **more)


def test_what_is_committed_may_leave(told: Histories) -> None:
    one, other = banks(told)
    told.commit(one)
    told.commit(other)
    told.checks.leaves(carried(one, other, apps.Deposit(1, 5)), told.computers[0])
    told.checks.leaves(Receipt(one, ANN, 1), told.computers[0])
    told.checks.leaves(carried(ANN, one, apps.Peek()), told.computers[0])  # A client's, which is passed on.
    told.checks.leaves(CodeWanted(bytes(32)), told.computers[0])


NOT_COMMITTED: list[tuple[Callable[[bytes, bytes], Carried | Receipt], str]] = [
    (lambda one, other: carried(one, other, apps.Deposit(1, 6)), "what leaves is committed"),
    (lambda one, other: carried(one, other, apps.Deposit(1, 5), 2), "what leaves is committed"),
    (lambda one, _: carried(one, ANN, apps.Deposit(1, 5)), "what leaves is committed"),
    (lambda one, _: carried(STRANGER, one, apps.Peek()), "what leaves is committed"),
    (lambda one, _: Receipt(one, ANN, 2), "what is confirmed is committed"),
    (lambda _, other: Receipt(other, ANN, 1), "what is confirmed is committed"),
    (lambda one, other: carried(one, other, apps.Deposit(1, 5), settled=1), "what is settled was taken"),
]


@pytest.mark.parametrize(("make", "invariant"), NOT_COMMITTED)
def test_what_is_not_committed_may_not_leave(
    told: Histories, make: Callable[[bytes, bytes], Carried | Receipt], invariant: str
) -> None:
    one, other = banks(told)
    told.commit(one)
    told.commit(other)
    assert broken(lambda: told.checks.leaves(make(one, other), told.computers[0])) == invariant


def test_of_one_that_has_forgotten_parties_less_is_known(told: Histories) -> None:
    one, other = banks(told)
    told.commit(one)
    told.commit(other)
    truth = told.checks.truths[one]
    before = truth.forgets
    told.write(one, Forgotten(other, 1))
    told.commit(one)
    environment = told.runners[one].environment
    assert isinstance(environment, Environment)
    environment.forgot_ns = 1
    truth.runner = told.runners[one]
    assert (before, truth.forgets) == (False, True)
    told.checks.leaves(Receipt(one, ANN, 2), told.computers[0])


# Ends.


def test_an_end_is_committed_before_its_journal_is_put_aside(told: Histories) -> None:
    counter = told.begin()
    told.commit(counter)
    assert broken(lambda: told.checks.forgets(told.computers[0], counter)) == "an end is committed first"
    told.write(counter, Stopped())
    told.checks.forgets(told.computers[0], counter)
    assert told.checks.blocks == 2
    told.keep(counter, b"nobody looks at what comes after it")
    told.checks.forgets(told.computers[0], counter)
    del told.computers[1].recorder.journals[counter]
    told.checks.forgets(told.computers[1], counter)


def test_one_whose_end_nobody_has_is_not_put_aside(told: Histories) -> None:
    counter = told.begin()
    told.commit(counter)
    del told.computers[2].recorder.journals[counter]
    assert broken(lambda: told.checks.forgets(told.computers[2], counter)) == "an end is committed first"


# Journals.


def keep_snapshot(told: Histories, identity: bytes, number: int, content: bytes | None, index: int = 0) -> None:
    assert content is not None
    end = RecorderEnd(told.computers[index].recorder)
    assert answer_of(told.world, end, KeepSnapshot(1, identity, number, content)) == Done(1)


@pytest.fixture
def kept(told: Histories) -> tuple[Histories, bytes]:
    """Return histories of a counter with a snapshot in the middle."""
    counter = told.begin()
    told.write(counter, adds(1))
    made = told.checkpoint(counter)
    told.write(counter, adds(2))
    told.commit(counter)
    keep_snapshot(told, counter, made.number, made.snapshot)
    told.checks.journals()
    return told, counter


def test_a_seal_that_does_not_check_is_noticed(kept: tuple[Histories, bytes]) -> None:
    told, counter = kept
    journal = told.journal(counter, 1)
    sealer, sealed = journal.blocks[1]
    journal.blocks[1] = sealer, Sealed(sealed.block, Seal(sealed.seal.head, bytes(64)))
    assert broken(told.checks.journals) == "journals verify"


def test_a_sealer_who_is_not_a_member_is_noticed(kept: tuple[Histories, bytes]) -> None:
    told, _ = kept
    own = told.computers[0].id
    told.world.sealers[own] = told.world.sealers[told.computers[1].id]
    assert broken(told.checks.journals) == "journals verify"


def test_a_block_that_was_changed_is_noticed(kept: tuple[Histories, bytes]) -> None:
    told, counter = kept
    journal = told.journal(counter, 2)
    sealer, sealed = journal.blocks[1]
    block = sealed.block
    other = Block(block.number, block.epoch, block.first_event, block.events, block.body + b"x")
    journal.blocks[1] = sealer, Sealed(other, sealed.seal)
    assert broken(told.checks.journals) == "journals verify"


def test_another_journal_than_was_committed_is_noticed_at_a_holder_and_nowhere_else(
    kept: tuple[Histories, bytes],
) -> None:
    told, counter = kept
    truth = told.checks.truths[counter]
    truth.heads[2] = b"x" * 32
    assert broken(told.checks.journals) == "journals are the same"
    assert truth.runner is not None
    truth.runner.holders = ()
    told.checks.journals()


def test_a_snapshot_that_does_not_lead_to_the_same_is_noticed(kept: tuple[Histories, bytes]) -> None:
    told, counter = kept
    journal = told.journal(counter)
    (number,) = journal.snapshots
    snapshot = decode_snapshot(journal.snapshots[number].content)
    for wrong, invariant in (
        (msgspec.structs.replace(snapshot, digest=b"d" * DIGEST_BYTES), "journals replay"),
        (msgspec.structs.replace(snapshot, holders=told.holders[:1]), "snapshots say who holds"),
    ):
        journal.snapshots[number] = replace(journal.snapshots[number], content=wrong.encode())
        assert broken(told.checks.journals) == invariant


def test_what_follows_a_snapshot_and_does_not_follow_from_it_is_noticed_where_it_is(
    kept: tuple[Histories, bytes],
) -> None:
    told, counter = kept
    journal = told.journal(counter)
    (number,) = journal.snapshots
    snapshot = decode_snapshot(journal.snapshots[number].content)
    wrong = msgspec.structs.replace(snapshot, digest=b"d" * DIGEST_BYTES)
    journal.snapshots[number] = replace(journal.snapshots[number], content=wrong.encode())
    with pytest.raises(BrokenError, match="recorded effects"):
        told.checks.journals()


def test_a_snapshot_of_another_digest_at_the_very_end_is_noticed(told: Histories) -> None:
    counter = told.begin()
    told.write(counter, adds(1))
    made = told.checkpoint(counter)
    told.commit(counter)
    keep_snapshot(told, counter, made.number, made.snapshot)
    told.checks.truths[counter].digests[-1] = b"d" * DIGEST_BYTES
    assert broken(told.checks.journals) == "journals replay"


def test_who_holds_is_said_by_the_newest_block_that_says_it_or_by_the_first_snapshot(
    kept: tuple[Histories, bytes],
) -> None:
    told, counter = kept
    checks, journal = told.checks, told.journal(counter)
    assert checks.holders_of(journal, 4) == told.holders
    told.write(counter, Held(told.holders[:1], 1))
    assert (checks.holders_of(journal, 4), checks.holders_of(journal, 5)) == (told.holders, told.holders[:1])
    (number,) = journal.snapshots
    journal.base, journal.blocks, journal.positions = journal.after(number), [], []
    assert checks.holders_of(journal, number) == told.holders
    journal.snapshots.clear()
    assert checks.holders_of(journal, number) == ()


# Stewards.


def alone_with_a_counter() -> tuple[Alone, bytes, Checks]:
    """Return a node whose counter was asked for something, and checks that know nothing yet."""
    alone = Alone()
    counter = alone.plant()
    alone.client.ask(counter, apps.Add, SECOND_NS)
    alone.world.run(SECOND_NS)
    alone.process.seen.clear()
    clients = {alone.client.party: alone.client}
    return alone, counter, Checks([alone.computer], clients, alone.world.signatures, alone.world.failed)


def test_what_a_steward_says_is_committed_is_looked_at_once() -> None:
    alone, counter, checks = alone_with_a_counter()
    checks.looked(alone.process)
    committed = alone.process.steward.hosted[counter].holding.committed
    assert (len(checks.truths[counter].heads), checks.blocks) == (committed, committed)
    assert alone.process.seen == {counter: committed}
    checks.looked(alone.process)
    assert checks.blocks == committed
    checks.journals()


def test_a_steward_that_says_so_of_a_journal_that_is_not_there_is_noticed() -> None:
    alone, counter, checks = alone_with_a_counter()
    journal = alone.computer.recorder.journals.pop(counter)
    assert broken(lambda: checks.looked(alone.process)) == "what is committed is on the disk"
    alone.process.seen.clear()
    alone.computer.recorder.journals[counter] = journal
    journal.take_back(journal.position.number)
    assert broken(lambda: checks.looked(alone.process)) == "what is committed is on the disk"


def test_what_nobody_knows_the_code_of_cannot_be_checked() -> None:
    _, _, checks = alone_with_a_counter()
    with pytest.raises(StopIteration):
        checks.program(bytes(32))
