# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""Programs outside a simulated node: each call has one outcome, and what was sent is said until it is confirmed."""

import msgspec
import pytest

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.env.messages import Carried, Receipt, Refusal
from atoll.env.records import Item
from atoll.lab.stewards import apps
from atoll.lab.stewards.clients import RETRY_NS, Client
from tests.unit.quiet_world import Alone, BrokenError, Quiet, encode

WAIT_NS = 2 * SECOND_NS
ELSEWHERE = b"e" * 16
_item = msgspec.msgpack.Decoder(Item)


def response(client: Client, call: int, event: object, first: int = 1) -> Carried:
    """Return what an environment says to a call."""
    item = Item(msgspec.Raw(encode(event)), 0, call)
    return Carried(ELSEWHERE, client.party, first, encode([item]))


def sent(client: Client, target: bytes) -> list[dict[str, object]]:
    """Return what a client has ever sent to somebody, by number."""
    kept = client.log[target]
    assert all(len(items) == 1 for items in kept.values())
    return [msgspec.msgpack.decode(_item.decode(kept[number][0]).event) for number in sorted(kept)]


def test_operations_are_numbered_asked_for_in_order_and_answered() -> None:
    alone = Alone()
    counter = alone.plant()
    client = alone.client
    operations = [client.ask(counter, apps.Add, WAIT_NS) for _ in range(3)]
    before = client.is_idle
    assert [(one.who, one.number, one.what, one.outcome) for one in operations] == [
        (0, number, "Add", "") for number in (1, 2, 3)
    ]
    alone.world.run(SECOND_NS)
    assert [(one.outcome, one.answer) for one in operations] == [
        ("ok", {"is": "Sum", "value": value}) for value in (1, 2, 3)
    ]
    assert (before, client.is_idle) == (False, True)
    assert [event["number"] for event in sent(client, counter)] == [1, 2, 3]
    alone.world.run(2 * WAIT_NS)  # Its time-outs come to nothing.
    assert [one.outcome for one in operations] == ["ok"] * 3


def test_a_failure_is_an_outcome_with_its_code_and_words() -> None:
    alone = Alone()
    counter = alone.plant()
    spoilt = alone.client.ask(counter, apps.Spoil, WAIT_NS)
    alone.world.run(SECOND_NS)
    assert (spoilt.outcome, spoilt.text) == ("raised", "ValueError: this always fails")
    assert spoilt.answer is not None
    unknown = alone.client.ask(ELSEWHERE, apps.Add, WAIT_NS)
    alone.world.run(20 * SECOND_NS)
    assert unknown.outcome in {"unknown", "timeout"}
    assert unknown.answer is None


def test_what_is_not_answered_in_time_is_late_and_a_response_that_comes_then_is_nothing() -> None:
    world = Quiet()
    client = Client(world, 0, world.computer(), bytes(16))
    operation = client.ask(ELSEWHERE, apps.Add, WAIT_NS)
    world.run(WAIT_NS - 1)
    assert operation.outcome == ""
    world.run(1)
    assert (operation.outcome, operation.text, client.is_idle) == ("timeout", "no response in time", True)
    client._take(response(client, operation.call, apps.Sum(1)))
    assert operation.outcome == "timeout"


def test_a_second_outcome_of_a_call_is_noticed() -> None:
    world = Quiet()
    client = Client(world, 0, world.computer(), bytes(16))
    operation = client.ask(ELSEWHERE, apps.Add, WAIT_NS)
    client._end(operation.call, "ok", "")
    with pytest.raises(BrokenError) as caught:
        client._end(operation.call, "ok", "")
    assert caught.value.invariant == "each call has one outcome"


def test_a_response_that_comes_twice_is_one_outcome() -> None:
    world = Quiet()
    client = Client(world, 0, world.computer(), bytes(16))
    operation = client.ask(ELSEWHERE, apps.Add, WAIT_NS)
    for _ in range(2):
        client._take(response(client, operation.call, apps.Sum(1)))
    assert operation.outcome == "ok"


def test_what_is_refused_before_it_was_taken_is_an_outcome() -> None:
    world = Quiet()
    client = Client(world, 0, world.computer(), bytes(16))
    operation = client.ask(ELSEWHERE, apps.Add, WAIT_NS)
    client._take(Refusal(ELSEWHERE, client.party, "queue-full", "later", 1))
    assert (operation.outcome, operation.text) == ("queue-full", "later")


def test_what_was_sent_under_a_number_is_logged_once_however_often_it_is_said_again() -> None:
    alone = Alone()
    client = alone.client
    client.ask(ELSEWHERE, apps.Add, WAIT_NS)
    for _ in range(3):
        client.desk.remind(alone.world.now_ns)
        client._say()
    assert [event["number"] for event in sent(client, ELSEWHERE)] == [1]


def test_another_item_under_a_number_that_was_given_is_logged_beside_it() -> None:
    alone = Alone()
    client = alone.client
    client.ask(ELSEWHERE, apps.Add, WAIT_NS)
    client.desk._line(ELSEWHERE).channel.sent -= 1  # What a client that forgets would do.
    client.ask(ELSEWHERE, apps.Add, WAIT_NS)
    assert [len(items) for items in client.log[ELSEWHERE].values()] == [2]


def test_a_node_that_was_away_is_told_again_what_is_waited_for() -> None:
    alone = Alone()
    counter = alone.plant()
    client = alone.client
    alone.computer.kill(power=False)
    operation = client.ask(counter, apps.Add, 10 * SECOND_NS)
    alone.world.run(SECOND_NS)
    assert operation.outcome == ""
    alone.computer.boot()
    alone.world.run(3 * RETRY_NS)
    assert operation.outcome == "ok"
    assert [event["number"] for event in sent(client, counter)] == [1]


def test_what_a_process_said_in_its_last_moment_does_not_arrive() -> None:
    alone = Alone()
    client = alone.client
    operation = client.ask(ELSEWHERE, apps.Add, WAIT_NS)
    client.heard(response(client, operation.call, apps.Sum(1)))
    alone.computer.kill(power=False)
    alone.world.run(10 * MILLISECOND_NS)
    assert operation.outcome == ""


def test_who_is_attached_is_not_attached_twice() -> None:
    alone = Alone()
    session = alone.client._session
    alone.client._attach(alone.process)
    assert alone.client._session == session


def test_a_process_that_is_not_ready_lets_nobody_in() -> None:
    world = Quiet()
    computer = world.computer()
    world.disk = SECOND_NS
    computer.boot()
    client = Client(world, 0, computer, bytes(16))
    client.keep()
    assert client._process is None
    world.run(2 * SECOND_NS)
    assert client._process is computer.process


def test_messages_of_one_connection_keep_their_order() -> None:
    alone = Alone()
    client = alone.client
    first, second = (client.ask(ELSEWHERE, apps.Add, WAIT_NS) for _ in range(2))
    alone.world.spans = [2 * MILLISECOND_NS, 0]
    client.heard(response(client, first.call, apps.Sum(1), 1))
    client.heard(response(client, second.call, apps.Sum(2), 2))
    alone.world.run(MILLISECOND_NS)
    assert (first.outcome, second.outcome) == ("", "")
    alone.world.run(MILLISECOND_NS)
    assert (first.outcome, second.outcome) == ("ok", "ok")


def test_what_it_has_taken_it_confirms() -> None:
    alone = Alone()
    counter = alone.plant()
    client = alone.client
    client.ask(counter, apps.Add, WAIT_NS)
    alone.world.run(SECOND_NS)
    assert any(isinstance(message, Receipt) for _, message in alone.world.left)
    assert client.desk.is_settled(counter)
    hosted = alone.process.steward.hosted[counter]
    assert hosted.runner is not None
    assert hosted.runner.environment.owed() == ()
