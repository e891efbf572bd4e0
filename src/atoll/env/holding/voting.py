# SPDX-License-Identifier: Apache-2.0
"""Who may own the environment in an epoch: canvasses, promises, and when to stand.

Safety rests on three rules. A node promises itself to one node in an epoch, and keeps the promise on its disk before it
says so. It promises itself only to a node whose journal goes as far as its own. A node stands only with what its disk
has: blocks on their way to the disk could still be lost, and its rank with them.
"""

from typing import Final, final

from atoll.env.holding.desk import Desk
from atoll.env.holding.events import GetReady, Run
from atoll.env.holding.messages import REASON_CHARS_MAX, Canvass, HandOver, Prepare, Prepared, Promised
from atoll.env.holding.state import CANDIDATE, HOLDER, OWNER, TRIAL, Reign
from atoll.env.limits import ELECTION_NS_MIN, HEARTBEAT_NS, LEAVE_NS, SUSPECT_NS

__all__ = ["Voting"]


@final
class Voting:
    """Elections of one node."""

    def __init__(self, desk: Desk) -> None:
        self._desk: Final = desk

    # Standing.

    def due(self) -> None:
        """Stand, or ask again, if it is time. Not for an owner."""
        state = self._desk.state
        if state.election_ns is not None and state.now_ns >= state.election_ns:
            self._stand_on_trial()
        elif state.canvass_ns is not None and state.now_ns >= state.canvass_ns:
            self._canvass()

    def suspect(self, node: bytes) -> None:
        """Stand soon if this node is the owner: the overlay knows sooner than silence does."""
        state = self._desk.state
        state.suspected[node] = True
        awaited = state.awaited
        if awaited is not None and node == awaited.target:
            awaited.tell_ns = None  # It will not take over, and nobody need wait for it.
        elif node != state.owner:
            return
        if state.role == HOLDER and state.election_ns is not None:
            state.election_ns = min(state.election_ns, state.now_ns + state.draws.below(SUSPECT_NS))

    def stand_alone(self) -> None:
        """Stand at once: there is nobody else."""
        if self._desk.state.ledger.holders == (self._desk.state.own,):
            self._stand_on_trial()

    def hand_over(self, node: bytes, message: HandOver) -> None:
        """Stand, because the owner asks for it, as soon as all that it told is on the disk."""
        state = self._desk.state
        if node != state.owner or message.epoch != state.promise.epoch or state.role not in {HOLDER, TRIAL}:
            self._desk.count("hand-over out of place")
        else:
            state.summons = message
            self.obey()

    def obey(self) -> None:
        """Stand, if the owner asked for it and nothing is missing any more. What is restored follows meanwhile."""
        state, summons = self._desk.state, self._desk.state.summons
        if summons is None or summons.epoch != state.promise.epoch or state.role not in {HOLDER, TRIAL}:
            state.summons = None
        elif min(state.ledger.durable, state.matched) >= summons.upto and self._may_stand():
            # What is here and not the owner's would not count for a vote, and the owner gave its own in advance.
            state.summons, owner = None, state.owner
            self._stand(transfer=True, wish=summons.wanted)
            if summons.promised:  # It is ours in a moment: what is restored follows then, and not at its leisure.
                state.votes[owner] = True
            else:
                self._desk.effects.append(GetReady(state.promise.epoch))

    def prepare(self, node: bytes, message: Prepare) -> None:
        """Have the environment restored here, because the owner is about to hand it over."""
        state = self._desk.state
        if node != state.owner or message.epoch != state.promise.epoch or state.role not in {HOLDER, TRIAL}:
            self._desk.count("preparation out of place")
        else:
            self._desk.effects.append(GetReady(state.promise.epoch))

    def ready(self, failed: str) -> None:
        """Tell the owner that it is restored, or why it is not."""
        state = self._desk.state
        if state.owner not in {b"", state.own}:
            self._desk.tell(state.owner, Prepared(state.promise.epoch, failed[:REASON_CHARS_MAX]))

    def _may_stand(self) -> bool:
        """Return whether this node has a vote, and its disk has all that its ledger has and that it ever had."""
        state, ledger = self._desk.state, self._desk.state.ledger
        is_settled = not ledger.writes and not (state.incoming is not None and state.incoming.asked)
        is_whole = ledger.rank == (ledger.last_epoch, ledger.last)
        return state.own in ledger.holders and is_settled and is_whole and state.now_ns >= state.unfit_ns

    def _stand_on_trial(self) -> None:
        desk, state = self._desk, self._desk.state
        desk.yield_role()
        if state.own not in state.ledger.holders:
            self._take_leave()
        elif not self._may_stand():
            state.election_ns = max(state.now_ns + HEARTBEAT_NS, state.unfit_ns)
        else:
            state.role, state.votes = TRIAL, {state.own: True}
            self._elect()
            self._canvass()

    def _take_leave(self) -> None:
        """Ask those who keep the journal to say that it is not needed here: it was said while this node was away."""
        state, ledger = self._desk.state, self._desk.state.ledger
        keepers = [node for node in ledger.holders or (state.owner,) if node and ledger.last]
        state.election_ns = state.now_ns + LEAVE_NS if keepers else None
        for node in keepers:
            epoch = state.promise.epoch + 1
            self._desk.tell(node, Canvass(epoch, ledger.last, ledger.last_epoch, trial=True, transfer=False))

    def _stand(self, *, transfer: bool, wish: tuple[bytes, ...]) -> None:
        desk, state = self._desk, self._desk.state
        desk.adopt(state.promise.epoch + 1, state.own)
        state.role, state.transfer, state.wish = CANDIDATE, transfer, wish

    def _canvass(self) -> None:
        """Ask those that have not granted it. Before the own vote is on the disk nothing is said."""
        state = self._desk.state
        trial = state.role == TRIAL
        if not trial and state.own not in state.votes:
            return
        epoch = state.promise.epoch + 1 if trial else state.promise.epoch
        rank = state.ledger.last_epoch, state.ledger.last
        state.canvass_ns = state.now_ns + HEARTBEAT_NS
        for node in state.ledger.holders:
            if node not in state.votes:
                self._desk.tell(node, Canvass(epoch, rank[1], rank[0], trial, state.transfer))

    def _elect(self) -> None:
        """Go one step further if a majority of the holders is for us."""
        state = self._desk.state
        holders = state.ledger.holders
        if 2 * sum(node in state.votes for node in holders) <= len(holders):
            return
        if state.role == TRIAL:
            self._stand(transfer=False, wish=())
        else:
            assert state.role == CANDIDATE, "elected without standing"
            state.role, state.owner, state.canvass_ns, state.election_ns = OWNER, state.own, None, None
            state.votes.clear()
            state.reign = Reign(state.now_ns, state.ledger.last + 1)
            self._desk.effects.append(Run(state.promise.epoch, state.ledger.last))

    # Voting.

    def canvassed(self, node: bytes, message: Canvass) -> None:
        """Answer a node that would own the environment."""
        desk, state = self._desk, self._desk.state
        epoch = state.promise.epoch
        fresh = (message.last_epoch, message.last_number) >= state.ledger.rank
        if message.trial:
            self._answer(node, message, granted=message.epoch > epoch and fresh and not self._hears_owner())
        elif message.epoch > epoch and (message.transfer or not self._hears_owner()):
            desk.adopt(message.epoch, node if fresh else b"")
        elif message.epoch == epoch and state.promise.node == node:
            self._answer(node, message, granted=True)
        elif message.epoch == epoch and not state.promise.node and fresh and not state.owner:
            desk.promise(epoch, node)
            desk.arm()
        else:
            self._answer(node, message, granted=False)

    def _answer(self, node: bytes, message: Canvass, *, granted: bool) -> None:
        promise = self._desk.state.promise
        if promise.kept:
            self._desk.tell(node, Promised(promise.epoch, message.epoch, message.trial, granted))

    def _hears_owner(self) -> bool:
        """Return whether there is an owner that lives: whoever does not hear it has to wait."""
        state = self._desk.state
        if state.role == OWNER:
            return True
        return (
            bool(state.owner) and state.owner not in state.suspected and state.now_ns - state.heard_ns < ELECTION_NS_MIN
        )

    def promise_kept(self) -> None:
        """Say what depended on it: the vote for another, or our own canvass."""
        state = self._desk.state
        promise = state.promise
        promise.kept, promise.retry_ns = True, None
        if promise.node == state.own and state.role == CANDIDATE:
            state.votes[state.own] = True
            self._canvass()
            self._elect()
        elif state.awaited is not None and state.awaited.is_of(promise):
            self._desk.summon(state.awaited)
        elif promise.node and promise.node != state.own:
            self._desk.tell(promise.node, Promised(promise.epoch, promise.epoch, trial=False, granted=True))

    def promised(self, node: bytes, message: Promised) -> None:
        """Count a vote."""
        state = self._desk.state
        if message.epoch > state.promise.epoch:
            self._desk.adopt(message.epoch)
            return
        asked = {TRIAL: state.promise.epoch + 1, CANDIDATE: state.promise.epoch}.get(state.role)
        is_ours = message.asked == asked and message.trial == (state.role == TRIAL) and node in state.ledger.holders
        if not message.granted or not is_ours:
            self._desk.count("not granted")
        else:
            state.votes[node] = True
            self._elect()
