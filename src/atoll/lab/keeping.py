# SPDX-License-Identifier: Apache-2.0
"""The demo's last phase: a program is kept running, while clients on two other nodes use it all the time.

* *Moved*: another node runs it from now on. The clients notice a pause; nothing is lost and nothing is done twice.
* *Killed*: every process of the node that runs it is killed, as by a power cut. It goes on elsewhere, with everything
  that it had acknowledged; of two nodes that think they own it at most one is ever heard.
* *Replayed*: its whole past is applied again on another node, from that node's own journal, and ends in the same state.
* *Audited*: a byte of a copy of that journal is changed, and the audit names the block.

Without faults nobody is killed; a copy may be changed, for nobody uses it.
"""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, final

import msgspec

from atoll.base.errors import UserError
from atoll.client.environments import CallError
from atoll.domain.loading import bundle_of
from atoll.domain.views import EnvironmentsView, EnvironmentView, LogView
from atoll.lab import bids
from atoll.lab.bidders import Account, Bidder, account_of, bidding
from atoll.lab.display import Row, Shown
from atoll.lab.histories import (
    Replayed,
    Tampered,
    digest_of,
    has_event,
    owners_of,
    replayed,
    tampered,
)
from atoll.lab.kept import (
    AGAIN_S_MAX,
    AuditReport,
    KeepReport,
    MoveReport,
    ReplayReport,
    account_line,
    told_audit,
    told_kill,
    told_move,
    told_replay,
)
from atoll.lab.live import LiveGroup
from atoll.lab.script import Script

__all__ = [
    "KeepStage",
    "keep_rows",
]

NAME: Final = "lot"
COPIES: Final = 3  # Any one of the nodes that keep it may be lost.
# It begins on the first, and is moved to the second: the two that nothing in this demo has broken. From a node that is
# slow it would go away by itself, and those that were afflicted count as slow for a minute. They have the clients.
WAY: Final = ("home", "sin")
LEAD_S: Final = 1.5  # The clients work this long before, so that their usual time is known.
AFTER_S: Final = 0.5  # What was answered is to stay so.
KEPT_S_MAX: Final = 20.0  # Limit. Until enough nodes keep it: each starts two processes first.
ANSWER_S_MAX: Final = 20.0  # Limit. For an answer after a move or a death; a later one counts as none.
HOLDER_S_MAX: Final = 5.0  # Limit. Until a holder has the last block; a heartbeat tells it what is committed.
POLL_S: Final = 0.1
LINES: Final = 3  # Of its log, when it did not answer in time.


def keep_rows(*, faults: bool) -> list[Row]:
    """Return the rows of these phases."""
    titles = ("program moved", *(("its node killed",) if faults else ()), "its past replayed")
    return [Row(title, "two other nodes", waits=_nothing) for title in titles]


def _nothing() -> tuple[None, float]:
    return None, 0.0


@dataclass(frozen=True, slots=True)
class _Death:
    """A node was killed: which, where the program went on, when it answered again, and what it logged if too late."""

    killed: str
    node: str
    again_s: float | None
    words: str


@final
class KeepStage:
    """Plays this phase on a live group.

    Args:
        group: The group; besides those of ``WAY`` two nodes at least are alive.
        shown: Where the progress is shown.
        script: The script's clock.
        copies: Directory for copies of journals; it is made.
    """

    def __init__(self, group: LiveGroup, shown: Shown, script: Script, copies: Path) -> None:
        self._group, self._shown, self._script, self._copies = group, shown, script, copies
        self._names: dict[bytes, str] = {}
        self._clients: tuple[str, ...] = ()

    async def play(self, rows: Sequence[Row], *, faults: bool) -> KeepReport:
        """Play it; ``rows`` are those of ``keep_rows``.

        Raises:
            UserError: The program did not begin, or is not kept by enough nodes in time.
        """
        living = self._group.living()
        self._clients = tuple(name for name in living if name not in WAY)[:2]
        if len(self._clients) < 2 or not set(WAY) <= set(living):
            where = ", ".join(living)
            raise UserError("A403", "too few nodes are left to move a program", where=where, fix="try again")
        self._shown.say(f"t={self._script.now_s():4.1f} s  a program that is kept: it begins on {WAY[0]} ...")
        await self._begin(WAY[0])
        death: _Death | None = None
        async with bidding({name: self._group.state(name) for name in self._clients}, NAME) as bidders:
            await asyncio.sleep(LEAD_S)
            moved = await self._move(*WAY, bidders, rows[0])
            if faults:
                death = await self._kill(moved.node, bidders, rows[1])
            await asyncio.gather(*(bidder.end() for bidder in bidders))
            account = await self._accounts(bidders)
        rows[-1].state = "replaying"
        holders, past, audit = await self._past()
        killed = None
        if death is not None:  # Now that nothing more is asked: it may have gone on from a slow node until here.
            killed = told_kill((death.killed, death.node), death.again_s, account, self._owners(), death.words)
            self._done(rows[1], kept=killed.kept, route=killed.node)
        self._done(rows[-1], kept=past.kept and audit.kept, route=past.node)
        return KeepReport(
            name=NAME,
            clients=self._clients,
            holders=holders,
            moved=moved,
            killed=killed,
            replayed=past,
            audited=audit,
            kept=all((moved.kept, past.kept, audit.kept, killed is None or killed.kept)),
        )

    async def _begin(self, node: str) -> None:
        """Run the lot, and wait until enough nodes keep its journal."""
        for name in self._group.living():
            self._names[bytes.fromhex((await self._group.status(name)).node)] = name
        source = bids.__file__
        assert source is not None, "a module of a file"
        bundle = base64.b64encode(bundle_of(source).encode()).decode()
        await self._group.call(node, "env.run", {"name": NAME, "bundle": bundle, "copies": COPIES})
        give_up_s = self._now() + KEPT_S_MAX
        while len(holders := [one for known in await self._known(node) for one in known.holders]) < COPIES:
            if self._now() > give_up_s:
                sentence, fix = f"{NAME} is not kept by {COPIES} nodes", "try again when this machine has less to do"
                raise UserError("A406", sentence, where=", ".join(holders), fix=fix)
            await asyncio.sleep(POLL_S)
        self._shown.say(f"           {NAME} is kept by {', '.join(holders)}, and used at {', '.join(self._clients)}")

    async def _move(self, source: str, target: str, bidders: tuple[Bidder, ...], row: Row) -> MoveReport:
        onset_s, words = self._now(), ""
        self._busy(row, f"{source} to {target}", bidders, onset_s)
        try:
            await self._group.call(source, "env.move", {"name": NAME, "node": target})
        except UserError as error:
            words = f"{error.sentence}: {error.where}"
        moved_s = self._now()
        await self._answers(bidders, moved_s)
        await asyncio.sleep(AFTER_S)
        waits = [bidder.waits(onset_s, self._now()) for bidder in bidders]
        times_s = moved_s - onset_s, max(one.silence_s for one in waits), max(one.usual_s for one in waits)
        node = await self._owner()
        report = told_move((source, target, node), times_s, await self._accounts(bidders), words)
        self._shown.say(f"           {report.words or _line(report)}")
        self._done(row, kept=report.kept, route=node)
        row.waits = partial(_waited, report.pause_s)
        return report

    async def _kill(self, node: str, bidders: tuple[Bidder, ...], row: Row) -> "_Death":
        """Kill the node that runs the program, and wait until it answers again; nobody is killed where it is used."""
        if node not in WAY:
            return _Death("", node, None, f"it runs on {node or 'no node'}")
        onset_s = self._now()
        self._busy(row, f"{node} killed", bidders, onset_s)
        self._group.kill(node)
        answers = await self._answers(bidders, onset_s)
        again_s = None if None in answers else max(at_s for at_s in answers if at_s is not None) - onset_s
        await asyncio.sleep(AFTER_S)
        owner, words = await self._owner(), ""
        if owner and (again_s is None or again_s > AGAIN_S_MAX):
            logged = msgspec.json.decode(await self._group.call(owner, "env.logs", {"name": NAME}), type=LogView)
            words = "; ".join(logged.lines[-LINES:])
        again = "does not answer again" if again_s is None else f"answers again after {again_s:.2f} s"
        self._shown.say(f"           {NAME} {again}, on {owner or 'no node'}")
        row.waits = partial(_waited, self._now() - onset_s if again_s is None else again_s)
        return _Death(node, owner, again_s, words)

    async def _past(self) -> tuple[tuple[str, ...], ReplayReport, AuditReport]:
        """Replay and audit on a holder that is not the owner."""
        owner = await self._owner()
        if not owner:
            return (), told_replay("", "", "", Replayed(words="nobody runs it")), told_audit("", Tampered())
        shown, living = await self._show(owner), self._group.living()
        owner = shown.node  # It may have gone away from a slow node meanwhile.
        node = next((name for name in shown.holders if name in living and name != owner), "")
        if not node or shown.events is None:
            nobody = Replayed(words="no other node that lives keeps it")
            return shown.holders, told_replay(owner, node, "", nobody), told_audit(node, Tampered())
        state, give_up_s = self._group.state(node), self._now() + HOLDER_S_MAX
        while not has_event(state, NAME, shown.events):
            if self._now() > give_up_s:
                break  # The replay says what is missing.
            await asyncio.sleep(POLL_S)
        past = told_replay(owner, node, digest_of(shown.state), await replayed(state, NAME, shown.events))
        audit = told_audit(node, await tampered(state, NAME, self._copies))
        same = "the same digest" if past.kept else past.words or "ANOTHER digest"
        self._shown.say(f"           {past.events} events replayed on {node} from its own journal: {same}")
        return shown.holders, past, audit

    async def _answers(self, bidders: tuple[Bidder, ...], since_s: float) -> list[float | None]:
        """Wait until each client has the answer to something that it asked after an instant."""
        give_up_s = self._now() + ANSWER_S_MAX
        return list(await asyncio.gather(*(bidder.answered(since_s, give_up_s) for bidder in bidders)))

    async def _accounts(self, bidders: tuple[Bidder, ...]) -> Account:
        """Compare what was acknowledged with what the lot has; no bid counts when it does not say."""
        known = [(bidder.who, dict(bidder.places), len(bidder.failures)) for bidder in bidders]
        try:
            return account_of(await bidders[0].books(), known)
        except CallError as error:
            self._shown.say(f"           {NAME} does not show its books: {error}")
            return Account(0, 0, 0, 0, 0)

    async def _owner(self) -> str:
        """Return which node that lives runs it, as the clients' nodes know; empty: none."""
        living, give_up_s = self._group.living(), self._now() + HOLDER_S_MAX
        while True:
            for known in await self._known(self._clients[0]):
                if known.node in living:
                    return known.node
            if self._now() > give_up_s:
                return ""
            await asyncio.sleep(POLL_S)

    async def _known(self, node: str) -> tuple[EnvironmentView, ...]:
        """Return what a node knows of all environments: of one at most, and of none just after it began."""
        return msgspec.json.decode(await self._group.call(node, "env.list"), type=EnvironmentsView).environments

    async def _show(self, node: str) -> EnvironmentView:
        raw = await self._group.call(node, "env.show", {"name": NAME})
        return msgspec.json.decode(raw, type=EnvironmentView)

    def _owners(self) -> tuple[tuple[str, ...], ...]:
        """Return which nodes opened each epoch, by what all nodes keep."""
        found = owners_of([self._group.state(name) for name in self._group.names], NAME)
        return tuple(tuple(sorted(self._names.get(node, node.hex()) for node in nodes)) for nodes in found.values())

    def _busy(self, row: Row, what: str, bidders: tuple[Bidder, ...], onset_s: float) -> None:
        row.state, row.title = "under way", f"{row.title}, {what}"
        row.waits = lambda: (None, max(bidder.waits(onset_s, self._now()).silence_s for bidder in bidders))
        self._shown.say(f"t={self._script.now_s():4.1f} s  {row.title}, while it is used")

    @staticmethod
    def _done(row: Row, *, kept: bool, route: str) -> None:
        row.state, row.route = "kept" if kept else "MISSED", route

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _waited(pause_s: float) -> tuple[None, float]:
    return None, pause_s


def _line(report: MoveReport) -> str:
    return f"{NAME} runs on {report.node} after a pause of {report.pause_s:.2f} s; {account_line(report)}"
