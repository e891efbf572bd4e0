# SPDX-License-Identifier: Apache-2.0
"""The owner's part: number and seal what is proposed, tell it to the others, and find out what a majority keeps.

A block is told to others only when it is sealed, so the owner's own disk has everything that it counts. A block of an
earlier epoch is never counted by itself: an owner that was elected without it might still cut it off. It is committed
with the first block of the own epoch, because whoever is elected then must have that one.
"""

from typing import Final, final

from atoll.base.errors import UsageError
from atoll.env.holding.desk import Desk
from atoll.env.holding.events import (
    BlocksRead,
    Hold,
    Proposed,
    ReadBlocks,
    ReadSnapshot,
    Refused,
    Resume,
    Seal,
    SnapshotRead,
)
from atoll.env.holding.messages import Block, HandOver, PartStored, SnapshotPart, Store, Stored
from atoll.env.holding.state import Draft, Peer, Probe, Reign, Shipping
from atoll.env.limits import (
    DISK_FAILED_NS,
    DISK_RETRY_NS,
    HEARTBEAT_NS,
    LEARNERS_MAX,
    LEAVE_NS,
    OWNER_ALONE_NS,
    PART_BYTES,
    PIPELINED_BLOCKS_MAX,
    PIPELINED_BYTES_MAX,
    RECORDS_BYTES_MAX,
    STORE_BLOCKS_MAX,
    STORE_BYTES,
    UNFIT_NS,
    WINDOW_BLOCKS_MAX,
)

__all__ = ["Serving"]


@final
class Serving:
    """The reign of one node, while it has one."""

    def __init__(self, desk: Desk) -> None:
        self._desk: Final = desk

    @property
    def _reign(self) -> Reign:
        reign = self._desk.state.reign
        assert reign is not None, "a reign is asked for that is over"
        return reign

    def begin(self) -> None:
        """Tell everybody who the owner is."""
        self.meet()
        self.beat()

    def is_open(self) -> bool:
        """Return whether a block of the own epoch is committed: before that the holders must not be changed."""
        return self._desk.state.committed >= self._reign.first

    # Peers.

    def meet(self) -> None:
        """Know all holders; let those go that are none any more, but not before they could learn of it."""
        state, reign = self._desk.state, self._reign
        learning = None if reign.plan is None else reign.plan.learning
        learner = b"" if learning is None else learning.node
        for node in state.ledger.holders:
            if node != state.own:
                self.learn(node)
        for node, peer in reign.peers.items():
            if node not in state.ledger.holders and node != learner and peer.leave_ns is None:
                peer.leave_ns = state.now_ns + LEAVE_NS
        leaving = [node for node, peer in reign.peers.items() if peer.leave_ns is not None]
        for node in leaving[: -LEARNERS_MAX + 1]:
            del reign.peers[node]

    def dismiss(self, node: bytes) -> None:
        """Tell a node that is no holder so: it asks, so it was away when that was told.

        One that was a holder may not know what it needs to believe it, and is told everything for a while. Another one
        believes it as it is, and sees nothing of the journal.
        """
        state, peers = self._desk.state, self._reign.peers
        if node in state.ledger.holders or node in peers:
            return
        peer = Peer(state.ledger.durable + 1, state.now_ns, state.now_ns, leave_ns=state.now_ns + LEAVE_NS)
        if any(node in one.holders for one in state.ledger.configs):  # As far as the journal goes back.
            peers[node] = peer
            self.meet()
        self._desk.tell(node, self._store(peer, ()))

    def learn(self, node: bytes) -> Peer:
        """Return a peer, which is told everything and counted on from now on."""
        state, peers = self._desk.state, self._reign.peers
        if node not in peers or peers[node].leave_ns is not None:  # One that was leaving may have dropped what it had.
            # Not what was sent in this very moment either, while it was leaving: its answer could still count.
            since_ns = state.now_ns + (node in peers)
            peers[node] = Peer(state.ledger.durable + 1, state.now_ns, since_ns, assumed=state.ledger.durable)
        return peers[node]

    # Proposals.

    def propose(self, event: Proposed) -> None:
        """Number a proposal and have it sealed, or refuse it.

        Raises:
            UsageError: The body is larger than a block may be.
        """
        desk, state, reign = self._desk, self._desk.state, self._reign
        if len(event.body) > RECORDS_BYTES_MAX:
            raise UsageError(f"a block of {len(event.body)} bytes")
        plan = reign.plan
        wanted = () if plan is None else plan.change
        reason = self.hold_reason()
        if not reason and event.holders and (event.holders != wanted or event.holders == state.ledger.holders):
            reason = "holders"
        if reason:
            desk.effects.append(Refused(event.epoch, event.first_event, reason))
            return
        number = state.ledger.last + 1
        draft = Draft(number, event.first_event, event.events, event.body, event.holders)
        reign.drafts.append(draft)
        reign.drafts_bytes += len(event.body)
        self._seal(draft)
        state.ledger.append(number, event.epoch, event.holders)
        if event.holders:
            self.meet()

    def _seal(self, draft: Draft) -> None:
        epoch = self._desk.state.promise.epoch
        seal = Seal(epoch, draft.number, draft.first_event, draft.events, draft.body, draft.holders)
        self._desk.effects.append(seal)

    def hold_reason(self) -> str:
        """Return why the runner must not propose now; empty: it may."""
        state, reign = self._desk.state, self._reign
        if reign.failing_ns is not None:
            return "disk"
        if reign.plan is not None and reign.plan.handing is not None:
            return "move"
        # What is older was committed long ago, or is with the first block of this epoch.
        is_full = state.ledger.last - max(state.committed, reign.first - 1) >= PIPELINED_BLOCKS_MAX
        return "full" if is_full or reign.drafts_bytes >= PIPELINED_BYTES_MAX else ""

    def tell_hold(self) -> None:
        """Tell the runner when that has changed."""
        reign, epoch = self._reign, self._desk.state.promise.epoch
        reason = self.hold_reason()
        if reason != reign.told_hold:
            reign.told_hold = reason
            self._desk.effects.append(Hold(epoch, reason) if reason else Resume(epoch))

    # The own disk.

    def sealed(self, number: int, sealed: bytes) -> None:
        """Tell a block that is on the own disk to those that have all before it."""
        desk, state, reign = self._desk, self._desk.state, self._reign
        draft = reign.drafts.pop(0)
        assert draft.number == number, f"block {number} sealed, {draft.number} expected"
        reign.drafts_bytes -= len(draft.body)
        reign.failing_ns = None
        block = Block(number, state.promise.epoch, draft.holders, sealed)
        for node, peer in reign.peers.items():
            is_level = peer.next == number and not peer.reading and peer.shipping is None and peer.probe is None
            if is_level and _has_room(peer):
                desk.tell(node, self._store(peer, (block,)))
                peer.next += 1
        self.count_majority()

    def seal_failed(self) -> None:
        """Try again later what the disk refused; nothing that follows it is in the journal either."""
        state, reign = self._desk.state, self._reign
        self._desk.count("own block that the disk refused")
        reign.failing_ns = state.now_ns if reign.failing_ns is None else reign.failing_ns
        if reign.retry_ns is None:
            reign.retry_ns = state.now_ns + DISK_RETRY_NS

    def _try_again(self) -> None:
        state, reign = self._desk.state, self._reign
        first = reign.drafts[0].number
        holders = {draft.number: draft.holders for draft in reign.drafts}
        epoch, last = state.promise.epoch, state.ledger.last
        state.ledger.cut(first)
        for number in range(first, last + 1):
            state.ledger.append(number, epoch, holders[number])
        reign.retry_ns = None
        for draft in reign.drafts:
            self._seal(draft)

    def _give_up(self) -> None:
        """Let a holder with a better disk own the environment."""
        desk, state = self._desk, self._desk.state
        epoch, heir = state.promise.epoch, self.heir(state.ledger.holders)
        state.unfit_ns = state.now_ns + UNFIT_NS
        desk.yield_role()
        if heir:
            desk.tell(heir, HandOver(epoch, ()))

    def heir(self, among: tuple[bytes, ...]) -> bytes:
        """Return the holder that has most, of those that answer and that nobody suspects; empty: none."""
        state, peers = self._desk.state, self._reign.peers
        alive_ns = state.now_ns - OWNER_ALONE_NS
        fit = [
            node
            for node in state.ledger.holders
            if node in peers and node in among and node not in state.suspected and peers[node].heard_ns >= alive_ns
        ]
        return max(fit, key=lambda node: peers[node].match, default=b"")

    # Time.

    @property
    def deadline_ns(self) -> int | None:
        """When ``tick`` has something to do; None: nobody else is told anything, and nothing is planned."""
        reign = self._reign
        if not reign.peers and reign.plan is None:
            return reign.retry_ns
        return reign.heartbeat_ns if reign.retry_ns is None else min(reign.heartbeat_ns, reign.retry_ns)

    def tick(self) -> None:
        """Do what is due; the reign may be over afterwards."""
        state, reign = self._desk.state, self._reign
        is_settled = len(state.ledger.holders) > 1 and not state.ledger.writes
        if is_settled and reign.failing_ns is not None and state.now_ns >= reign.failing_ns + DISK_FAILED_NS:
            self._give_up()
            return
        if reign.retry_ns is not None and state.now_ns >= reign.retry_ns:
            if state.ledger.writes:  # Each of them fails; only then can they be asked for once more.
                reign.retry_ns = state.now_ns + DISK_RETRY_NS
            else:
                self._try_again()
        if state.now_ns >= reign.heartbeat_ns:
            if self._is_alone():
                self._desk.count("ownership without a majority")
                self._desk.yield_role()
                return
            self.beat()

    def _is_alone(self) -> bool:
        """Return whether no majority answered lately."""
        state, peers = self._desk.state, self._reign.peers
        alive_ns = state.now_ns - OWNER_ALONE_NS
        holders = state.ledger.holders
        alive = sum(node == state.own or peers[node].heard_ns >= alive_ns for node in holders)
        return 2 * alive <= len(holders)

    def beat(self) -> None:
        """Give everybody a sign of life, and what it lacks."""
        state, reign = self._desk.state, self._reign
        reign.heartbeat_ns, lost_ns = state.now_ns + HEARTBEAT_NS, state.now_ns - 2 * HEARTBEAT_NS
        for node, peer in list(reign.peers.items()):
            if peer.leave_ns is not None and peer.leave_ns <= state.now_ns:
                del reign.peers[node]
                continue
            self._desk.tell(node, self._store(peer, ()))
            shipping, probe = peer.shipping, peer.probe
            if probe is not None and probe.sent_ns is not None and lost_ns >= probe.sent_ns:
                probe.sent_ns = None
            if shipping is not None and shipping.sent_ns is not None and lost_ns >= shipping.sent_ns:
                shipping.sent_ns = None  # The part or its answer was lost.
            self._feed(node, peer)

    # What others have.

    def _store(self, peer: Peer, blocks: tuple[Block, ...]) -> Store:
        state = self._desk.state
        ledger = state.ledger
        before = max(peer.next - 1, ledger.base_number)
        epoch = ledger.epoch_of(before)
        assert epoch is not None, f"block {before} is told and not known"
        counted = peer.leave_ns is None
        return Store(state.promise.epoch, before, epoch, blocks, state.committed, state.now_ns, counted)

    def stored(self, node: bytes, message: Stored) -> None:
        """Note what a node has, and tell it what it lacks."""
        desk, state = self._desk, self._desk.state
        peer = self._answering(node, message.epoch, message.echo_ns)
        if peer is None:
            return
        if message.number > state.ledger.durable:
            desk.count("more stored than there is")
        elif message.accepted:
            self._accepted(peer, message)
            self.count_majority()
            self._feed(node, peer)
        elif message.number < peer.match and message.echo_ns < peer.heard_ns:
            desk.count("refusal that came late")
        elif peer.shipping is None and (peer.probe is None or message.echo_ns >= peer.probe.since_ns):
            # Go back, and tell no more until something is taken: then a refusal can only be of what was told since, and
            # each step goes further back. The node skips all of an epoch that differs; what it confirmed is sure.
            peer.next, peer.reading, peer.probe = max(message.number, peer.match) + 1, 0, Probe(state.now_ns)
            peer.assumed = 0
            self._feed(node, peer)

    def _accepted(self, peer: Peer, message: Stored) -> None:
        peer.match = told = max(peer.match, message.number)
        if peer.probe is not None and message.echo_ns >= peer.probe.since_ns:
            told, peer.probe = max(told, peer.probe.last), None
        if peer.next <= told:
            peer.next, peer.reading = told + 1, 0
        base_number = self._desk.state.ledger.base_number
        if peer.shipping is not None and peer.match >= (peer.shipping.number or base_number):
            peer.shipping = None

    def part_stored(self, node: bytes, message: PartStored) -> None:
        """Send the next part of a snapshot."""
        peer = self._answering(node, message.epoch, message.echo_ns)
        if peer is None or peer.shipping is None or peer.shipping.number != message.number:
            return
        shipping = peer.shipping
        if shipping.offset != message.offset:
            shipping.offset, shipping.reading, shipping.sent_ns = message.offset, False, None
        self._feed(node, peer)

    def _answering(self, node: bytes, epoch: int, echo_ns: int) -> Peer | None:
        """Return the peer that answers an owner of this epoch, which it may end."""
        desk, state = self._desk, self._desk.state
        if epoch > state.promise.epoch:
            desk.adopt(epoch)
            return None
        peer = self._reign.peers.get(node)
        if peer is None or epoch < state.promise.epoch or not peer.since_ns <= echo_ns <= state.now_ns:
            desk.count("answer out of place")
            return None
        peer.heard_ns = max(peer.heard_ns, echo_ns)
        return peer

    def count_majority(self) -> None:
        """Commit what a majority of the holders keeps."""
        desk, state, reign = self._desk, self._desk.state, self._reign
        ledger = state.ledger
        kept = [ledger.durable if node == state.own else reign.peers[node].match for node in ledger.holders]
        number = sorted(kept, reverse=True)[len(kept) // 2]
        if ledger.epoch_of(number) == state.promise.epoch:
            desk.commit(number)

    def _feed(self, node: bytes, peer: Peer) -> None:
        """Read for a node what it lacks, unless enough is on its way to it."""
        desk, ledger = self._desk, self._desk.state.ledger
        if peer.next <= ledger.base_number and peer.shipping is None:
            peer.reading, peer.shipping = 0, Shipping()
        shipping = peer.shipping
        if shipping is not None:
            if not shipping.reading and shipping.sent_ns is None:
                shipping.reading = True
                desk.effects.append(ReadSnapshot(node, shipping.number, shipping.offset, PART_BYTES))
        elif not peer.reading and peer.next <= ledger.durable and _has_room(peer):
            peer.reading = peer.next
            desk.effects.append(ReadBlocks(node, peer.next, STORE_BYTES))

    def blocks_read(self, event: BlocksRead) -> None:
        """Tell a node what was read for it."""
        state = self._desk.state
        peer = self._reign.peers.get(event.node)
        if peer is None or peer.reading != event.first:
            return  # It has been read meanwhile, or is not needed any more.
        peer.reading = 0
        blocks = event.blocks[:STORE_BLOCKS_MAX]
        expected = range(event.first, event.first + len(blocks))
        if not blocks or any(
            block.number != number or state.ledger.epoch_of(number) != block.epoch
            for block, number in zip(blocks, expected, strict=True)
        ):
            self._desk.count("blocks that cannot be read")  # Asked for again at the next heartbeat.
            return
        self._desk.tell(event.node, self._store(peer, blocks))
        if peer.probe is None:
            peer.next += len(blocks)
            self._feed(event.node, peer)
        else:
            peer.probe.sent_ns, peer.probe.last = state.now_ns, blocks[-1].number

    def snapshot_read(self, event: SnapshotRead) -> None:
        """Tell a node the part that was read for it."""
        state = self._desk.state
        peer = self._reign.peers.get(event.node)
        shipping = None if peer is None else peer.shipping
        if shipping is None or not shipping.reading:
            return
        shipping.reading = False
        if event.number == 0:
            self._desk.count("snapshot that cannot be read")  # Asked for again after a while.
            shipping.number, shipping.offset, shipping.sent_ns = 0, 0, state.now_ns
            return
        shipping.number, shipping.offset, shipping.sent_ns = event.number, event.offset, state.now_ns
        part = SnapshotPart(
            state.promise.epoch,
            event.number,
            event.epoch,
            event.holders,
            event.offset,
            event.total,
            event.payload,
            state.now_ns,
        )
        self._desk.tell(event.node, part)


def _has_room(peer: Peer) -> bool:
    """Return whether more may be on its way to a node."""
    if peer.probe is not None:
        return peer.probe.sent_ns is None
    return peer.next - 1 - max(peer.match, peer.assumed) < WINDOW_BLOCKS_MAX
