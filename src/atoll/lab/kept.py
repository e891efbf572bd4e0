# SPDX-License-Identifier: Apache-2.0
"""What the demo tells of the program that it kept running, and when a promise about it counts as kept. Pure."""

from typing import Final

import msgspec

from atoll.lab.bidders import Account
from atoll.lab.histories import Replayed, Tampered

__all__ = [
    "AGAIN_S_MAX",
    "PAUSE_S_MAX",
    "AuditReport",
    "KeepReport",
    "KillReport",
    "MoveReport",
    "ReplayReport",
    "account_line",
    "keep_lines",
    "told_audit",
    "told_kill",
    "told_move",
    "told_replay",
]

# The promises. The program moves between two nodes with a round trip of 0.28 s, all but the longest of this network,
# and each step waits for half of one or a whole: the last block is kept, the ownership is offered, a majority agrees,
# the first block of the new owner is kept, and what waited goes there and back. That is about five round trips, 1.4 s.
# Measured: 1.5 s, and 0.6 to 1.2 s between nodes of 0.06 to 0.14 s. What was lost on the way is sent again by whoever
# misses an answer, after a second at most. The rest is a reserve: five nodes, an emulator and the demo share a machine.
PAUSE_S_MAX: Final = 3.0
# A holder stands for election when it has heard no owner for 0.9 to 1.5 s, and once more after as long if the vote was
# split. The round trips of votes and of the first block come on top, and what is sent again: 4.5 s at the worst, and a
# reserve. Measured: 1.3 to 3.3 s, on a machine with ten busy programs for two cores.
AGAIN_S_MAX: Final = 6.0


class MoveReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a move. Times in seconds.

    Attributes:
        source: Where it ran, and ``target``, where it was to run.
        node: Where it runs now.
        took_s: How long the command took.
        pause_s: Longest time without an answer for a client; ``pause_max_s``: the promise.
        usual_s: Median time of an answer before, of the client that is farther away.
        acknowledged: Calls that were answered so far; ``failed``: those that got a failure.
        lost: Of those acknowledged, how many have left no trace; ``doubled``: how many were done twice.
        words: What went wrong; empty: nothing that has words.
        kept: Whether the promise was.
    """

    source: str
    target: str
    node: str
    took_s: float
    pause_s: float
    pause_max_s: float
    usual_s: float
    acknowledged: int
    failed: int
    lost: int
    doubled: int
    words: str
    kept: bool


class KillReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the death of the node that ran it. Times in seconds since then.

    Attributes:
        killed: The node.
        node: Where it runs now.
        again_s: When all clients had an answer to something that they asked after it; None: one had none.
            ``again_max_s``: the promise.
        acknowledged: As in ``MoveReport``, and so ``failed``, ``lost``, ``doubled``.
        rivals: Places in its history that were given to two calls.
        owners: Names of the nodes that opened each epoch, in order, by the journals of all nodes, the dead one's too.
        words: What the program logged last, if it did not answer in time.
        kept: Whether the promise was.
    """

    killed: str
    node: str
    again_s: float | None
    again_max_s: float
    acknowledged: int
    failed: int
    lost: int
    doubled: int
    rivals: int
    owners: tuple[tuple[str, ...], ...]
    words: str
    kept: bool


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay on another node gave.

    Attributes:
        owner: Which node runs it.
        node: Which node replayed its own journal.
        events: How many events were applied again.
        digest: Of the state after them; ``owner_digest``: of the state of the owner.
        words: What went wrong.
        kept: Whether they are equal.
    """

    owner: str
    node: str
    events: int
    digest: str
    owner_digest: str
    words: str
    kept: bool


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit found.

    Attributes:
        node: Whose journal it was.
        blocks: Blocks of it that are as they were sealed.
        block: In which block of a copy a byte was changed.
        named: Which block the audit of the copy named; None: none.
        words: What it said.
        kept: Whether it was that one, and the journal itself is sound.
    """

    node: str
    blocks: int
    block: int
    named: int | None
    words: str
    kept: bool


class KeepReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a program that was kept running. ``killed`` None: no node was, for there are no faults.

    ``clients`` are the nodes on which it was used; ``holders`` those that kept its journal in the end.
    """

    name: str
    clients: tuple[str, ...]
    holders: tuple[str, ...]
    moved: MoveReport
    killed: KillReport | None
    replayed: ReplayReport
    audited: AuditReport
    kept: bool


def told_move(
    way: tuple[str, str, str], times_s: tuple[float, float, float], account: Account, words: str
) -> MoveReport:
    """Return what became of a move.

    Args:
        way: Where it ran, where it was to run, where it runs.
        times_s: What the command took, the longest time without an answer, and the usual time of one.
        account: Of all calls so far.
        words: What went wrong.
    """
    source, target, node = way
    took_s, pause_s, usual_s = times_s
    return MoveReport(
        source=source,
        target=target,
        node=node,
        took_s=took_s,
        pause_s=pause_s,
        pause_max_s=PAUSE_S_MAX,
        usual_s=usual_s,
        acknowledged=account.acknowledged,
        failed=account.failed,
        lost=account.lost,
        doubled=account.doubled,
        words=words,
        kept=not words and node == target != source and pause_s <= PAUSE_S_MAX and account.is_fair,
    )


def told_kill(
    nodes: tuple[str, str],
    again_s: float | None,
    account: Account,
    owners: tuple[tuple[str, ...], ...],
    words: str = "",
) -> KillReport:
    """Return what became of the death of a node.

    Args:
        nodes: The one that was killed, and the one that runs the program now.
        again_s: As in ``KillReport``, and so ``owners``, ``words``.
        account: Of all calls.
        owners: See above.
        words: See above.
    """
    killed, node = nodes
    is_again = again_s is not None and again_s <= AGAIN_S_MAX
    is_one = len(owners) > 1 and all(len(names) == 1 for names in owners)
    return KillReport(
        killed=killed,
        node=node,
        again_s=again_s,
        again_max_s=AGAIN_S_MAX,
        acknowledged=account.acknowledged,
        failed=account.failed,
        lost=account.lost,
        doubled=account.doubled,
        rivals=account.rivals,
        owners=owners,
        words=words,
        kept=is_again and is_one and account.is_fair and "" != killed != node != "",
    )


def told_replay(owner: str, node: str, digest: str, found: Replayed) -> ReplayReport:
    """Return what a replay gave, beside the digest of the owner's state."""
    return ReplayReport(
        owner=owner,
        node=node,
        events=found.events,
        digest=found.digest,
        owner_digest=digest,
        words=found.words,
        kept=found.events > 0 and found.digest == digest and node not in {"", owner},
    )


def told_audit(node: str, found: Tampered) -> AuditReport:
    """Return what the audits found."""
    return AuditReport(
        node=node,
        blocks=found.blocks,
        block=found.block,
        named=found.named,
        words=found.words,
        kept=found.blocks > 0 and found.block > 0 and found.named == found.block,
    )


def account_line(report: MoveReport | KillReport) -> str:
    """Return in words what became of all calls so far."""
    failed = f", {report.failed} failed" if report.failed else ""
    rivals = f", {report.rivals} from two owners" if isinstance(report, KillReport) and report.rivals else ""
    return f"{report.acknowledged} calls, {report.lost} lost, {report.doubled} doubled{failed}{rivals}"


def keep_lines(report: KeepReport) -> list[str]:
    """Return the lines of the closing table."""
    moved, killed, past, audit = report.moved, report.killed, report.replayed, report.audited
    missed = "" if moved.kept else f"   MISSED: {moved.words or f'promised {moved.pause_max_s:.2f} s, no call lost'}"
    title = f"program moved, {moved.source} to {moved.target}"
    lines = [_line(title, "pause", f"{moved.pause_s:.2f} s", f"{account_line(moved)}{missed}")]
    if killed is not None:
        again = "never" if killed.again_s is None else f"{killed.again_s:.2f} s"
        missed = (
            ""
            if killed.kept
            else f"   MISSED: promised {killed.again_max_s:.2f} s, one owner, no call lost. {killed.words}"
        )
        tail = f"on {killed.node or 'no node'}: {account_line(killed)}{missed}"
        owners = ", ".join(" and ".join(names) for names in killed.owners)
        most = max(map(len, killed.owners), default=0)
        lines.append(_line(f"its node killed, {killed.killed}", "answers again", again, tail))
        lines.append(_line("", "owners", f"{most} at a time", owners))
    tail = f"the same digest as on {past.owner}, {past.digest[:12]}"
    if not past.kept:
        tail = f"MISSED: {past.words or f'another digest than on {past.owner}'}"
    lines.append(_line(f"its past, on {past.node or 'no node'}", "replayed", f"{past.events} events", tail))
    tail = f"one byte changed in a copy: block {audit.named} named"
    if not audit.kept:
        named = "nothing" if audit.named is None else f"block {audit.named}"
        tail = f"MISSED: block {audit.block} changed in a copy, and {named} named. {audit.words}"
    lines.append(_line("", "audited", f"{audit.blocks} blocks", tail))
    return lines


def _line(name: str, what: str, figure: str, tail: str) -> str:
    return f"{name:<32}{what:<14}{'-':>14}{figure:>14}   {tail}"
