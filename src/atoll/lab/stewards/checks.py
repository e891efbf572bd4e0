# SPDX-License-Identifier: Apache-2.0
"""What must hold, looked at in each event: beside each environment stands a *truth*, made of committed blocks only.

The truth of an environment is a runner that applies each block as soon as some owner committed it. Whatever leaves a
steward in an environment's name must be in its truth, and whatever is in a committed block as having come from another
environment must be in the truth of that one. So nothing can be released early, twice, or by an owner that is none.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, final

from atoll.base.errors import CorruptError, DivergenceError
from atoll.base.ids import NodeId
from atoll.domain.loading import decode_bundle, load
from atoll.env.app import Program
from atoll.env.chain import Block, ChainError, Sealer, Verifier, unpack_body
from atoll.env.history import decode_body, decode_snapshot
from atoll.env.messages import Carried, Message, Receipt, split_items
from atoll.env.records import Arrived, Began, Confirmed, Failed, Held, Opened, Upgraded
from atoll.env.runner import Runner
from atoll.lab.stewards.clients import Client
from atoll.lab.stewards.node import Computer, Process
from atoll.lab.stewards.recorder import Journal, Signatures

__all__ = ["Checks", "Truth"]

Fail = Callable[[str, str], Exception]


@final
class Truth:
    """One environment, as what was committed says.

    Attributes:
        heads: Of its blocks.
        digests: Of all effects up to each block.
        posts: Items that it has sent, by party and number.
        runner: In the state after the last committed block; None: there is none yet.
    """

    def __init__(self, identity: bytes, name: str) -> None:
        self.id, self.name = identity, name
        self.heads: list[bytes] = []
        self.digests: list[bytes] = []
        self.posts: dict[bytes, dict[int, bytes]] = {}
        self.runner: Runner | None = None

    def received(self, party: bytes) -> int:
        """Return the number of the last item that it has taken."""
        return 0 if self.runner is None else self.runner.environment.received(party)

    @property
    def forgets(self) -> bool:
        """Whether it has forgotten a party: then what it knows of one is not all that there was."""
        return self.runner is not None and self.runner.environment.forgot_ns > 0

    def fields(self) -> dict[str, Any]:
        """Return its declared state."""
        return {} if self.runner is None else self.runner.environment.fields()

    def collect(self) -> None:
        """Note what the last block has sent."""
        assert self.runner is not None
        for party, parcel in self.runner.environment.owed():
            sent = self.posts.setdefault(party, {})
            if parcel.first not in sent:
                assert not sent or parcel.first > max(sent), "no number is given twice"
                sent.update(enumerate(split_items(parcel.payload), parcel.first))


@final
class Checks:
    """All truths.

    Args:
        computers: All of them.
        clients: By their ids.
        signatures: What was checked already.
        fail: Makes the failure to raise.
    """

    def __init__(
        self, computers: Sequence[Computer], clients: dict[bytes, Client], signatures: Signatures, fail: Fail
    ) -> None:
        self._signatures: Final = signatures
        self._computers, self._clients, self._fail = computers, clients, fail
        self.truths: dict[bytes, Truth] = {}
        self._programs: dict[bytes, Program] = {}
        self._held: dict[bytes, tuple[bytes, ...]] = {}  # Who holds from a block on, by its head; empty: no change.
        self.blocks = 0

    def program(self, code: bytes) -> Program:
        """Return code that some node has."""
        if code not in self._programs:
            content = next(one.recorder.code[code] for one in self._computers if code in one.recorder.code)
            self._programs[code] = load(decode_bundle(content)).program
        return self._programs[code]

    # What is committed.

    def looked(self, process: Process) -> None:
        """Look at what a steward says is committed."""
        for identity, hosted in process.steward.hosted.items():
            number, seen = hosted.holding.committed, process.seen.get(identity, 0)
            if number <= seen:
                continue
            process.seen[identity] = number
            truth = self.truths.get(identity)
            journal = process.computer.recorder.journals.get(identity)
            if truth is None:
                truth = self.truths[identity] = Truth(identity, hosted.facts.name)
            if journal is None:
                raise self._fail(
                    "what is committed is on the disk", f"{truth.name} on {process.computer.name}: nothing"
                )
            for at in range(seen + 1, number + 1):
                self._commit(truth, journal, at, (process.computer, hosted.holding.holders))

    def forgets(self, computer: Computer, identity: bytes) -> None:
        """Look at a journal that is about to be put aside: its end is committed, perhaps in this very moment."""
        truth = self.truths.get(identity)
        if truth is None:
            return  # Nothing of it was ever committed.
        journal = computer.recorder.journals.get(identity)  # None: it is only about to be begun there.
        for number in range(len(truth.heads) + 1, 1 + (0 if journal is None else journal.position.number)):
            assert journal is not None
            if truth.runner is not None and truth.runner.is_over:
                return
            self._commit(truth, journal, number, (computer, self.holders_of(journal, number)))
        if truth.runner is None or not truth.runner.is_over:
            raise self._fail("an end is committed first", f"{truth.name} on {computer.name}")

    def _commit(self, truth: Truth, journal: Journal, number: int, by: tuple[Computer, tuple[bytes, ...]]) -> None:
        head, (computer, holders) = journal.head(number), by
        where = f"{truth.name}, block {number}, on {computer.name}"
        if number < journal.base.number:
            return  # There is a snapshot in its place.
        if number == journal.base.number:
            head = journal.base.head
        if not head:
            raise self._fail("what is committed is on the disk", where)
        if number <= len(truth.heads):
            if head != truth.heads[number - 1]:
                raise self._fail("a block is committed once", f"{where}: another one was committed before")
            return
        having = [one.id for one in self._computers if self._has(one, truth.id, number, head)]
        # By those who held then, or by newer ones whose block came before this one was committed.
        if not any(_is_majority(having, among) for among in (holders, self.holders_of(journal, number))):
            raise self._fail("a majority has what is committed", f"{where}: {len(having)} of {len(holders)}")
        truth.heads.append(head)
        self.blocks += 1
        self._apply(truth, journal.block(number))

    @staticmethod
    def _has(computer: Computer, identity: bytes, number: int, head: bytes) -> bool:
        journal = computer.recorder.journals.get(identity)
        return journal is not None and journal.head(number) == head

    def _apply(self, truth: Truth, block: Block) -> None:
        body = decode_body(unpack_body(block.body))
        upgraded: Program | None = None
        is_over = truth.runner is not None and truth.runner.is_over
        for entry in body.entries:
            if is_over and not isinstance(entry.record, Opened | Held):
                raise self._fail("nothing happens after an end", f"{truth.name}, block {block.number}: {entry.record}")
            match entry.record:
                case Began(code=code):
                    truth.runner = Runner(self.program(code), code)
                case Upgraded(code):
                    upgraded = self.program(code)
                case Arrived(party, first, items):
                    for number, item in enumerate(split_items(bytes(items)), first):
                        self._came(truth, party, number, item)
                case Failed(party, number, item=item) if party:
                    self._came(truth, party, number, item)
                case Confirmed(party, upto):
                    self._confirmed(truth, party, upto)
                case _:
                    pass
        assert truth.runner is not None, "a journal begins with the record that says what it is"
        try:
            truth.runner.redo(block.number, body, upgraded)
        except (CorruptError, DivergenceError) as error:
            raise self._fail("journals replay", f"{truth.name}, block {block.number}: {error}") from error
        truth.digests.append(truth.runner.digest)
        truth.collect()

    def _came(self, truth: Truth, party: bytes, number: int, item: bytes) -> None:
        client, source = self._clients.get(party), self.truths.get(party)
        if client is not None:
            is_true = item in client.log.get(truth.id, {}).get(number, [])
        else:
            is_true = source is not None and source.posts.get(truth.id, {}).get(number) == item
        if not is_true:
            raise self._fail("what came was sent", f"{truth.name}: item {number} of {self.name_of(party)}: {item!r}")

    def _confirmed(self, truth: Truth, party: bytes, upto: int) -> None:
        other = self.truths.get(party)
        if other is not None and upto > other.received(truth.id) and not other.forgets:
            raise self._fail("what is confirmed was taken", f"{truth.name}: {upto} by {other.name}")

    def name_of(self, party: bytes) -> str:
        """Return what people call a party."""
        if party in self._clients:
            return f"client {self._clients[party].index}"
        return self.truths[party].name if party in self.truths else party.hex()

    # What leaves.

    def leaves(self, message: Message, computer: Computer) -> None:
        """Look at what leaves a steward."""
        if not isinstance(message, Carried | Receipt):
            return
        truth = self.truths.get(message.source)
        if truth is None:
            if message.source not in self._clients:
                raise self._fail("what leaves is committed", f"{message} on {computer.name}")
            return
        where = f"{truth.name} to {self.name_of(message.target)}, on {computer.name}"
        if isinstance(message, Receipt):
            if message.upto > truth.received(message.target) and not truth.forgets:
                raise self._fail("what is confirmed is committed", f"{where}: {message.upto}")
            return
        other = self.truths.get(message.target)
        is_known = other is not None and not other.forgets and not truth.forgets
        if other is not None and is_known and message.settled > other.received(truth.id):
            raise self._fail("what is settled was taken", f"{where}: {message.settled}")
        posts = truth.posts.get(message.target, {})
        for number, item in enumerate(split_items(message.items), message.first):
            if posts.get(number) != item:
                raise self._fail("what leaves is committed", f"{where}: item {number}: {item!r}")

    # At the end.

    def journals(self) -> None:
        """Look at every journal: chain, seals, what was committed, and the digest from each snapshot."""
        for computer in self._computers:
            for identity, journal in computer.recorder.journals.items():
                if identity in self.truths:  # Else it ended before anything of it was committed.
                    self._journal(computer, self.truths[identity], journal)

    def _journal(self, computer: Computer, truth: Truth, journal: Journal) -> None:
        where = f"{truth.name} on {computer.name}"
        verifier = Verifier(truth.id, position=journal.base, signatures=False)
        said: Sealer | None = None
        try:
            for sealer, sealed in journal.blocks:
                if sealer != said:
                    verifier.feed(sealer)
                    said = sealer
                verifier.feed(sealed)
                if not (_is_sealer(computer, sealer) and self._signatures.checks(truth.id, sealer, sealed.seal)):
                    raise self._fail("journals verify", f"{where}: the seal of block {sealed.block.number}")
        except ChainError as error:
            raise self._fail("journals verify", f"{where}: {error}") from error
        # One that was away when it was made none any more may keep what a false owner wrote; nobody asks it.
        is_holder = truth.runner is not None and computer.id in truth.runner.holders
        last = min(len(truth.heads), journal.position.number) if is_holder else 0
        for number in range(journal.base.number + 1, last + 1):
            if journal.head(number) != truth.heads[number - 1]:
                raise self._fail("journals are the same", f"{where}: block {number}")
        for number, signed in journal.snapshots.items() if is_holder else ():
            self._replay(where, truth, journal, (number, signed.content))

    def _replay(self, where: str, truth: Truth, journal: Journal, start: tuple[int, bytes]) -> None:
        """Apply everything after a snapshot that is committed."""
        number, snapshot = start[0], decode_snapshot(start[1])
        runner = Runner(self.program(snapshot.code), snapshot.code, (number, snapshot))
        last = min(len(truth.heads), journal.position.number)
        try:
            for at in range(number + 1, last + 1):
                body = decode_body(unpack_body(journal.block(at).body))
                codes = [entry.record.code for entry in body.entries if isinstance(entry.record, Upgraded)]
                runner.redo(at, body, self.program(codes[0]) if codes else None)
        except (CorruptError, DivergenceError) as error:
            raise self._fail("journals replay", f"{where}, from snapshot {number}: {error}") from error
        at = max(number, last)
        if at <= len(truth.digests) and runner.digest != truth.digests[at - 1]:
            raise self._fail("journals replay", f"{where}, from snapshot {number}: another digest at {at}")
        holders = self.holders_of(journal, number)
        if snapshot.holders != holders:
            raise self._fail("snapshots say who holds", f"{where}, snapshot {number}: {snapshot.holders!r}")

    def holders_of(self, journal: Journal, number: int) -> tuple[bytes, ...]:
        """Return who holds after a block, by the journal."""
        for at in range(number, journal.base.number, -1):
            head = journal.head(at)
            if head not in self._held:
                entries = decode_body(unpack_body(journal.block(at).body)).entries
                nodes = [entry.record.nodes for entry in entries if isinstance(entry.record, Held)]
                self._held[head] = nodes[-1] if nodes else ()
            if self._held[head]:
                return self._held[head]
        start = journal.snapshots.get(journal.base.number)
        return () if start is None else decode_snapshot(start.content).holders


def _is_majority(having: Sequence[bytes], holders: tuple[bytes, ...]) -> bool:
    return 2 * sum(node in having for node in holders) > len(holders)


def _is_sealer(computer: Computer, sealer: Sealer) -> bool:
    return computer.sealers[NodeId(sealer.node)] == sealer
