# SPDX-License-Identifier: Apache-2.0
"""What all parts of the machine share: the state, the effects so far, and how an epoch ends."""

from typing import Final, final

import msgspec

from atoll.env.holding.events import (
    Change,
    Committed,
    HoldersFailed,
    HoldingEffect,
    KeepPromise,
    MoveFailed,
    Stop,
    Tell,
)
from atoll.env.holding.messages import HoldingMessage
from atoll.env.holding.state import HOLDER, OWNER, Awaited, HoldingState, Plan, Promise
from atoll.env.limits import DISK_RETRY_NS, ELECTION_NS_MAX, ELECTION_NS_MIN, HEARTBEAT_NS

__all__ = ["Desk"]


@final
class Desk:
    """State and effects of one machine."""

    def __init__(self, state: HoldingState) -> None:
        self.state: Final = state
        self.effects: list[HoldingEffect] = []

    def count(self, reason: str) -> None:
        """Count something that was dropped or refused."""
        self.state.counts[reason] = self.state.counts.get(reason, 0) + 1

    def tell(self, node: bytes, message: HoldingMessage) -> None:
        """Send a message."""
        self.effects.append(Tell(node, message))

    def arm(self) -> None:
        """Stand for election when nothing is heard for a time that is drawn anew."""
        state = self.state
        spread_ns = ELECTION_NS_MAX - ELECTION_NS_MIN
        state.election_ns = state.now_ns + ELECTION_NS_MIN + state.draws.below(spread_ns)

    def promise(self, epoch: int, node: bytes) -> None:
        """Have a promise kept. Epochs never go back, and a vote is never changed."""
        before = self.state.promise
        assert (epoch, b"") > (before.epoch, before.node) or (epoch == before.epoch and not before.node), (
            "a vote that is given twice"
        )
        self.state.promise = Promise(epoch, node, kept=False)
        self.effects.append(KeepPromise(epoch, node))

    def promise_failed(self) -> None:
        """Ask again later."""
        self.state.promise.retry_ns = self.state.now_ns + DISK_RETRY_NS

    def promise_again(self) -> None:
        """Ask again now."""
        promise = self.state.promise
        promise.retry_ns = None
        self.effects.append(KeepPromise(promise.epoch, promise.node))

    def adopt(self, epoch: int, node: bytes = b"") -> None:
        """Enter a higher epoch that was heard of, and vote for a node in it if one is given."""
        assert epoch > self.state.promise.epoch, "an epoch that is not higher"
        self.yield_role()
        state = self.state
        state.owner, state.matched, state.told, state.wish = b"", state.committed, 0, ()
        if state.incoming is not None and not state.incoming.asked:
            state.incoming = None  # Parts of two nodes need not fit.
        self.promise(epoch, node)

    def yield_role(self) -> None:
        """Be a holder, whatever this node was. An owner stops."""
        state = self.state
        if state.role == OWNER:
            self._stop()
        state.role, state.canvass_ns, state.transfer = HOLDER, None, False
        state.votes.clear()
        self.arm()

    def _stop(self) -> None:
        state, reign = self.state, self.state.reign
        assert reign is not None, "an owner without a reign"
        if reign.retry_ns is not None and reign.drafts[0].number <= state.ledger.last:
            # The disk refused the oldest one, so it refuses all after it: none of them is in the journal.
            state.ledger.cut(reign.drafts[0].number)
        self.effects.append(Stop(state.promise.epoch))
        state.reign, state.owner, state.matched = None, b"", state.committed
        if reign.plan is not None and reign.plan.asked == "move":
            self.effects.append(MoveFailed("the ownership was lost"))
        elif reign.plan is not None and reign.plan.asked == "holders":
            self.effects.append(HoldersFailed("the ownership was lost"))

    def entrust(self, awaited: Awaited) -> None:
        """Own it no more, and vote for the one that shall; it is told when that is on the disk."""
        reign = self.state.reign
        assert reign is not None, "what is handed over is owned"
        reign.plan = None  # What comes of it is awaited.
        self.adopt(self.state.promise.epoch + 1, awaited.target)
        self.state.awaited = awaited

    def summon(self, awaited: Awaited) -> None:
        """Tell the one to which it was handed over, while our vote is for it; again after a while: it may be lost.

        That may take it longer than it takes others to stand, where processors are busy: they hear a sign of life.
        """
        state = self.state
        if not awaited.is_of(state.promise):
            awaited.tell_ns = None
            return
        awaited.tell_ns = state.now_ns + HEARTBEAT_NS
        self.tell(awaited.target, awaited.message)
        self.arm()
        for node in state.ledger.holders:
            if node not in {state.own, awaited.target}:
                self.tell(node, msgspec.structs.replace(awaited.sign, sent_ns=state.now_ns))

    def commit(self, number: int) -> None:
        """Note that a majority keeps the blocks up to this number."""
        state = self.state
        if number <= state.committed:
            return
        state.committed = number
        self.effects.append(Committed(number))

    def ask_change(self, plan: Plan, holders: tuple[bytes, ...]) -> None:
        """Have the runner propose other holders: one more, or one less."""
        plan.change = holders
        self.effects.append(Change(self.state.promise.epoch, holders))
