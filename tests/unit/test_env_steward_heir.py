# SPDX-License-Identifier: Apache-2.0
"""What comes for an environment while it changes hands goes to the one that is about to run it."""

from atoll.env.holding.messages import HandOver, Prepared
from atoll.env.holding.messages import decode as decode_letter
from atoll.env.messages import Carried, Letter, Message
from tests.unit.steward_world import Add, Group, told_nodes


def is_hand_over(message: Message) -> bool:
    return isinstance(message, Letter) and isinstance(decode_letter(message.content)[1], HandOver)


def is_prepared(message: Message) -> bool:
    return isinstance(message, Letter) and isinstance(decode_letter(message.content)[1], Prepared)


def no_message(_: Message) -> bool:
    return False


def started() -> tuple[Group, bytes]:
    """Return three nodes that all keep an environment which runs at the first, where its client is."""
    group = Group("one", "two", "three")
    one = group["one"]
    identity = one.run(copies=3)
    one.attach()
    one.send(identity, 1, Add(1))
    group.until(lambda: len(one.hosted(identity).holding.holders) == 3)
    return group, identity


def test_what_comes_after_a_hand_over_goes_to_the_heir_and_not_back() -> None:
    group, identity = started()
    one, two = group["one"], group["two"]
    one.steward.move(identity, two.own, 9, one.now)
    group.loses = is_hand_over
    group.until(lambda: one.hosted(identity).holding.heir)
    assert one.hosted(identity).holding.heir == two.own
    one.send(identity, 2, Add(4))
    assert [(node, message.first) for node, message in told_nodes(one) if isinstance(message, Carried)] == [
        (two.own, 2)
    ]


def test_what_came_with_the_hand_over_is_handled_as_soon_as_the_heir_runs_it() -> None:
    group, identity = started()
    one, two = group["one"], group["two"]
    two.is_slow = True
    one.steward.move(identity, two.own, 9, one.now)
    group.until(lambda: two.hosted(identity).holding.is_heir)
    one.send(identity, 2, Add(4))
    group.flow()
    assert two.hosted(identity).runner is None
    two.answer()
    assert two.counter(identity)["n"] == 5, "nobody had to send it again"


def test_what_waited_for_the_promise_goes_to_the_heir_with_the_hand_over() -> None:
    group, identity = started()
    one, two = group["one"], group["two"]
    group.loses = is_prepared
    one.steward.move(identity, two.own, 9, one.now)
    group.flow()
    one.is_slow, group.loses = True, no_message
    group.until(lambda: one.hosted(identity).runner is None)
    one.send(identity, 2, Add(4))
    assert not one.hosted(identity).holding.heir
    assert not [message for _, message in told_nodes(one) if isinstance(message, Carried)]
    one.answer()
    assert [type(message) for _, message in told_nodes(one)[-2:]] == [Letter, Carried]
    group.flow()
    assert two.counter(identity)["n"] == 5
