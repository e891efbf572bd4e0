# SPDX-License-Identifier: Apache-2.0
"""Moves and changes of the holders: what an owner was asked to bring about, one step at a time.

One node is added or removed by one block, and the next one only when that block is committed, and none before a block
of the own epoch is: so any majority of the holders before a change and any majority after it have a node in common. A
node first learns what is in the journal, so that the others need not wait for it. A move is the same with a hand-over
at the end: the target restores the environment while it runs on here, and then nothing is proposed any more until the
target has everything and was told to stand for election.
"""

from typing import Final, Literal, final

from atoll.base.ids import NODE_ID_BYTES
from atoll.env.holding.desk import Desk
from atoll.env.holding.events import HoldersChanged, HoldersFailed, Moved, MoveFailed
from atoll.env.holding.messages import HandOver, Prepare, Prepared, Store
from atoll.env.holding.serving import Serving
from atoll.env.holding.state import Awaited, Handing, Learning, Plan, Preparing, Reign
from atoll.env.limits import (
    HAND_OVER_NS,
    HEARTBEAT_NS,
    HOLDERS_MAX,
    NEAR_BLOCKS,
    OWNER_ALONE_NS,
    PREPARE_NS,
    PROGRESS_NS,
    ROUND_NS,
    ROUNDS_MAX,
)

__all__ = ["Planning"]


@final
class Planning:
    """The plan of one owner, if it has one."""

    def __init__(self, desk: Desk, serving: Serving) -> None:
        self._desk: Final = desk
        self._serving: Final = serving

    @property
    def _reign(self) -> Reign:
        reign = self._desk.state.reign
        assert reign is not None, "a plan without a reign"
        return reign

    # What is asked.

    def begin(self) -> None:
        """Go on with what the owner before wanted when it handed over."""
        state = self._desk.state
        wish, state.wish = state.wish, ()
        if state.awaited is not None:
            wish = state.awaited.back
            if state.awaited.asked:
                self._desk.effects.append(MoveFailed("this node took over again"))
            state.awaited = None
        if _is_list_of_holders(wish) and state.own in wish and wish != state.ledger.holders:
            self._reign.plan = Plan(wish, count=len(state.ledger.holders))

    def move(self, target: bytes) -> None:
        """Plan a move; the number of holders stays what it is."""
        state = self._desk.state
        reason = self._refusal("move")
        if reason or len(target) != NODE_ID_BYTES:
            self._desk.effects.append(MoveFailed(reason or "that is no node"))
            return
        if target == state.own:
            self._desk.effects.append(Moved(target, state.promise.epoch))
            return
        holders = state.ledger.holders
        wanted = holders if target in holders else (*self._without_one(holders), target)
        self._reign.plan = Plan(wanted, move_to=target, asked="move", count=len(holders))

    def change(self, holders: tuple[bytes, ...]) -> None:
        """Plan a change of the holders; the owner stays one."""
        state = self._desk.state
        reason = self._refusal("change")
        if not reason and not _is_list_of_holders(holders):
            reason = f"1 to {HOLDERS_MAX} different nodes can be holders"
        if not reason and state.own not in holders:
            reason = "the owner is not among them: move first"
        if reason:
            self._desk.effects.append(HoldersFailed(reason))
        else:
            self._reign.plan = Plan(holders, asked="holders", count=len(state.ledger.holders))

    def _refusal(self, what: Literal["move", "change"]) -> str:
        reign = self._desk.state.reign
        if reign is None:
            return f"only the owner can {what} it"
        return "" if reign.plan is None else "another change is under way"

    def _without_one(self, holders: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Return the holders without the one that is worth least; the owner only if it is alone."""
        state, peers = self._desk.state, self._reign.peers
        others = [node for node in holders if node != state.own]
        if not others:
            return ()
        least = min(others, key=lambda node: (node not in state.suspected, peers[node].match))
        return tuple(node for node in holders if node != least)

    # One step after the other.

    def advance(self) -> None:
        """Take the next step, if the one before is done."""
        desk, state = self._desk, self._desk.state
        plan = self._reign.plan
        if plan is None or not self._serving.is_open() or state.ledger.changed_number > state.committed:
            return
        holders = state.ledger.holders
        if plan.change:
            if holders != plan.change:
                return  # The runner has not proposed it yet.
            plan.change = ()
        missing = [node for node in plan.wanted if node not in holders]
        extra = [node for node in holders if node not in plan.wanted and node != state.own]
        if missing and len(holders) < HOLDERS_MAX:
            self._add(plan, missing[0])
        elif extra:
            desk.ask_change(plan, tuple(node for node in holders if node != extra[0]))
        elif plan.move_to not in {b"", state.own} or state.own not in plan.wanted:
            self._hand_over(plan)
        else:
            self._finish(plan)

    def _add(self, plan: Plan, node: bytes) -> None:
        """Make a node a holder when it keeps up.

        It catches up in rounds: in each it gets what was committed when the round began, and one that was short is the
        last (Ongaro, 4.2.1). How much it lacks says nothing: who is far away always lacks what was committed meanwhile.
        """
        state = self._desk.state
        peer = self._serving.learn(node)
        learned = peer.match if peer.shipping is None else peer.shipping.offset
        learning = plan.learning
        if learning is None or learning.node != node:
            learning = plan.learning = Learning(node, learned, state.now_ns)
            learning.begin_round(state.committed, state.now_ns)
        elif learning.learned != learned:
            learning.learned, learning.learned_ns = learned, state.now_ns
        if peer.match >= learning.goal and state.now_ns > learning.begun_ns + ROUND_NS:
            learning.begin_round(state.committed, state.now_ns)
        if peer.match >= learning.goal and peer.heard_ns >= state.now_ns - OWNER_ALONE_NS:
            plan.learning, plan.added = None, node
            self._desk.ask_change(plan, (*state.ledger.holders, node))
        elif learning.rounds > ROUNDS_MAX:
            self._fail(plan, "the new holder does not keep up")
        elif state.now_ns >= learning.learned_ns + PROGRESS_NS:
            self._fail(plan, "the new holder does not answer")

    def _hand_over(self, plan: Plan) -> None:
        """Let a holder that has everything stand for election; give up when nobody does in time."""
        desk, state = self._desk, self._desk.state
        if plan.handing is None:
            target = plan.move_to or self._serving.heir(plan.wanted)
            if not self._is_prepared(plan, target):
                return
            plan.handing = Handing(target, state.now_ns + HAND_OVER_NS)
        handing = plan.handing
        peer = self._reign.peers.get(handing.target)
        if peer is None or state.now_ns >= handing.until_ns:
            self._fail(plan, "the other holder did not take over")
            return
        last = state.ledger.last
        is_near = peer.next > last and peer.match >= last - NEAR_BLOCKS  # What was told is on our disk.
        # What is committed by the next owner is said by it, too, and it may not know yet by which way.
        if state.committed == last and is_near and peer.shipping is None and peer.probe is None:
            wish = plan.wanted if plan.wanted != state.ledger.holders else ()
            message = HandOver(state.promise.epoch, wish, last, promised=True)
            sign = Store(state.promise.epoch, last, state.ledger.last_epoch, (), state.committed, 0, counted=True)
            until_ns, asked = state.now_ns + HAND_OVER_NS, plan.asked == "move"
            back = self._back(plan)
            desk.entrust(Awaited(handing.target, message, sign, until_ns, asked=asked, back=back))

    def _is_prepared(self, plan: Plan, target: bytes) -> bool:
        """Return whether the target is ready to run it; ask it to be, and give up when it is not in time."""
        state, preparing = self._desk.state, plan.preparing
        if preparing is None or preparing.target != target:
            preparing = plan.preparing = Preparing(target, state.now_ns + PREPARE_NS, state.now_ns)
        if preparing.ready:
            return True
        if state.now_ns >= preparing.until_ns or target in state.suspected or not target:
            self._fail(plan, "the other holder does not get ready to run it")
        elif state.now_ns >= preparing.tell_ns:
            preparing.tell_ns = state.now_ns + HEARTBEAT_NS
            self._desk.tell(target, Prepare(state.promise.epoch))
        return False

    def prepared(self, node: bytes, message: Prepared) -> None:
        """Take the answer of the target."""
        plan, epoch = self._reign.plan, self._desk.state.promise.epoch
        preparing = None if plan is None else plan.preparing
        if plan is None or preparing is None or (preparing.target, epoch) != (node, message.epoch):
            self._desk.count("prepared for nothing")
        elif message.failed:
            self._fail(plan, f"it cannot run there: {message.failed}")
        else:
            preparing.ready = True

    def _finish(self, plan: Plan) -> None:
        self._reign.plan = None
        if plan.asked == "holders":
            self._desk.effects.append(HoldersChanged(self._desk.state.ledger.holders))

    def _fail(self, plan: Plan, reason: str) -> None:
        """Give up; who was added only for this is removed again, because an owner alone with it would depend on it."""
        desk, reign = self._desk, self._reign
        if plan.asked == "move":
            desk.effects.append(MoveFailed(reason))
        elif plan.asked == "holders":
            desk.effects.append(HoldersFailed(reason))
        back = self._back(plan)
        reign.plan = None
        self._serving.meet()  # A learner that is not wanted any more leaves.
        if back:
            reign.plan = Plan(back, count=plan.count)

    def _back(self, plan: Plan) -> tuple[bytes, ...]:
        """Return who shall be the holders if it fails; empty: as they are."""
        state = self._desk.state
        holders = state.ledger.holders
        if len(holders) > plan.count and plan.added in holders and plan.added != state.own:
            return tuple(node for node in holders if node != plan.added)
        return ()


def _is_list_of_holders(holders: tuple[bytes, ...]) -> bool:
    """Return whether these can be the holders of an environment."""
    is_each = all(len(node) == NODE_ID_BYTES for node in holders)
    return 1 <= len(holders) <= HOLDERS_MAX and is_each and len(dict.fromkeys(holders)) == len(holders)
