# SPDX-License-Identifier: Apache-2.0
"""Join a group with an invitation, over a packet device of its own for this. Waits and copies; ``Joining`` decides."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, final

from atoll.base.errors import UserError
from atoll.base.ids import DIRECT, Endpoint, GroupId, NodeId, PublicKey, node_id_of
from atoll.base.member import Member
from atoll.base.ports import Clock
from atoll.base.units import SECOND_NS
from atoll.core.machine import Tick
from atoll.device.nic.client import NicClient
from atoll.device.nic.messages import AdmitPeer, Configure, Order, Report
from atoll.group.events import GroupReceived, PeerLinked, PeerUnlinked, SendGroup
from atoll.group.identity import Identity, join_proof
from atoll.group.invite import Invitation, invite_exchange_secret, invite_public_key
from atoll.group.join import Joined, JoinFailed, Joining, JoiningInput, JoinOptions
from atoll.node.device import started
from atoll.overlay.orders import SendControl
from atoll.overlay.reports import ControlReceived, SessionDown, SessionUp

__all__ = ["Applicant", "join", "refusal"]

NO_GROUP: Final = GroupId(bytes(32))  # The joiner carries control messages only; its address is never used.

_SENTENCES: Final = {
    "A202": "the invitation leads to another group than it says",
    "A203": "this invitation has expired",
    "A204": "this invitation was used already",
    "A205": "no valid answer came from the inviting node",
    "A206": "this node was removed from the group",
    "A207": "another member has one of this node's keys",
    "A208": "the two nodes speak different versions of the protocol",
    "A209": "the group is full",
}
_FIXES: Final = {
    "A202": "on a member of the group that you mean run:  atoll invite        then paste the new line here",
    "A203": "on a member run:  atoll invite        then paste the new line here",
    "A204": "on a member run:  atoll invite        then paste the new line here",
    "A205": "check `atoll status` there, and that its UDP port is open to this machine; else `atoll invite` anew there",
    "A206": "start with a new identity: atoll up --state NEW_DIR INVITE",
    "A207": "start with a new identity: atoll up --state NEW_DIR INVITE",
    "A208": "upgrade the older of the two: pip install --upgrade atoll",
    "A209": "remove a member that is gone: atoll remove NAME",
}


@final
class Applicant:
    """Carries between the machine that joins and the packet device, until there is an outcome. Waits for nothing.

    Args:
        machine: Fresh.
        inviter: Only what comes from this node counts.
        order: Takes orders for the packet device.
        clock: Time.

    Attributes:
        outcome: How it ended; None: it goes on.
    """

    def __init__(self, machine: Joining, inviter: NodeId, order: Callable[[Order], None], clock: Clock) -> None:
        self._machine, self._inviter, self._order, self._clock = machine, inviter, order, clock
        self.outcome: Joined | JoinFailed | None = None

    @property
    def wait_s(self) -> float | None:
        """Time until ``tick`` is owed, seconds; None: never."""
        deadline_ns = self._machine.deadline_ns
        return None if deadline_ns is None else max(0, deadline_ns - self._clock.monotonic_ns()) / SECOND_NS

    def hear(self, reports: Sequence[Report]) -> None:
        """Take what the device reports."""
        for report in reports:
            match report:
                case SessionUp(node, _) if node == self._inviter:
                    self._feed(PeerLinked(node))
                case SessionDown(node) if node == self._inviter:
                    self._feed(PeerUnlinked(node))
                case ControlReceived(node, _, payload) if node == self._inviter:
                    self._feed(GroupReceived(node, payload))
                case _:
                    pass

    def tick(self) -> None:
        """Tell the machine that its time has come, if it has."""
        if self.outcome is None and self.wait_s == 0:
            self._feed(Tick())

    def lost(self, reason: str) -> None:
        """Give up: the device has ended."""
        if self.outcome is None:
            self.outcome = JoinFailed("A205", f"the packet device is lost: {reason}")

    def _feed(self, event: JoiningInput) -> None:
        for effect in self._machine.handle(event, self._clock.monotonic_ns()):
            match effect:
                case SendGroup(node, payload):
                    self._order(SendControl(node, DIRECT, payload))
                case Joined() | JoinFailed():
                    if self.outcome is None:
                        self.outcome = effect


def refusal(failed: JoinFailed) -> UserError:
    """Return what to tell the person whose machine did not get in."""
    sentence = _SENTENCES.get(failed.code, "the join failed")
    return UserError(failed.code, sentence, where=failed.where, fix=_FIXES.get(failed.code, "try again"))


async def join(
    invitation: Invitation, identity: Identity, member: Member, listen: tuple[Endpoint, ...], clock: Clock
) -> Joined:
    """Ask the inviter for membership and return the roster that names us.

    Args:
        invitation: Decoded and checked (``check_usable``).
        identity: Our keys.
        member: Our record.
        listen: Where to bind meanwhile.
        clock: Time.

    Raises:
        UserError: A202 to A209; A105, no address to bind.
        LinkError: The packet device did not start.
    """
    options = JoinOptions(
        member,
        join_proof(identity, invite_public_key(invitation.secret), member),
        invitation.inviter,
        invitation.group_prefix,
        ", ".join(f"{host}:{port}" for host, port in invitation.endpoints),
    )
    heard = asyncio.Event()

    def hear(reports: Sequence[Report]) -> None:
        applicant.hear(reports)
        heard.set()

    def lost(reason: str) -> None:
        applicant.lost(reason)
        heard.set()

    nic = NicClient(hear, lost)
    machine = Joining.create(options, clock.monotonic_ns())
    applicant = Applicant(machine, node_id_of(PublicKey(invitation.inviter)), nic.order, clock)
    try:
        await started(nic, Configure(NO_GROUP, invite_exchange_secret(invitation.secret), listen))
        nic.order(AdmitPeer(invitation.inviter, invitation.endpoints))
        while applicant.outcome is None:
            heard.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(applicant.wait_s):
                    await heard.wait()
            applicant.tick()
        outcome = applicant.outcome
    finally:
        await nic.stop()
    if isinstance(outcome, Joined):
        return outcome
    raise refusal(outcome)
