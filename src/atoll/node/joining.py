# SPDX-License-Identifier: Apache-2.0
"""Join a group with an invitation, over a packet device of its own for this. Waits and copies; ``Joining`` decides."""

import asyncio
from collections.abc import Sequence
from typing import Final

from atoll.base.errors import UserError
from atoll.base.ids import DIRECT, Endpoint, GroupId, PublicKey, node_id_of
from atoll.base.member import Member
from atoll.base.ports import Clock
from atoll.core.machine import Tick
from atoll.device.nic.client import NicClient
from atoll.device.nic.messages import AdmitPeer, Configure, Report
from atoll.group.events import GroupReceived, PeerLinked, PeerUnlinked, SendGroup
from atoll.group.identity import Identity, join_proof
from atoll.group.invite import Invitation, invite_exchange_secret, invite_public_key
from atoll.group.join import Joined, JoinFailed, Joining, JoiningInput, JoinOptions
from atoll.node.service import started
from atoll.overlay.orders import SendControl
from atoll.overlay.reports import ControlReceived, SessionDown, SessionUp

__all__ = ["join"]

NO_GROUP: Final = GroupId(bytes(32))  # The joiner carries control messages only; its address is never used.

_SENTENCES: Final = {
    "A202": "the invitation leads to another group than it says",
    "A203": "this invitation has expired",
    "A204": "this invitation was used already",
    "A205": "the inviting node cannot be reached",
    "A206": "this node was removed from the group",
    "A207": "another member has one of this node's keys",
    "A208": "the two nodes speak different versions of the protocol",
    "A209": "the group is full",
}
_FIXES: Final = {
    "A203": "on a member run:  atoll invite        then paste the new line here",
    "A204": "on a member run:  atoll invite        then paste the new line here",
    "A205": "check that the inviting node runs, and that its UDP port can be reached from here; then try again",
    "A206": "start with a new identity: atoll up --state NEW_DIR INVITE",
    "A207": "start with a new identity: atoll up --state NEW_DIR INVITE",
    "A208": "upgrade the older of the two: pip install --upgrade atoll",
    "A209": "remove a member that is gone: atoll remove NAME",
}


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
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Joined | JoinFailed] = loop.create_future()
    inviter = node_id_of(PublicKey(invitation.inviter))
    options = JoinOptions(
        member,
        join_proof(identity, invite_public_key(invitation.secret), member),
        invitation.inviter,
        invitation.group_prefix,
        ", ".join(f"{host}:{port}" for host, port in invitation.endpoints),
    )
    machine = Joining.create(options, clock.monotonic_ns())

    def feed(event: JoiningInput) -> None:
        for effect in machine.handle(event, clock.monotonic_ns()):
            match effect:
                case SendGroup(node, payload):
                    nic.order(SendControl(node, DIRECT, payload))
                case Joined() | JoinFailed():
                    if not outcome.done():
                        outcome.set_result(effect)

    def hear(reports: Sequence[Report]) -> None:
        for report in reports:
            match report:
                case SessionUp(node, _) if node == inviter:
                    feed(PeerLinked(node))
                case SessionDown(node) if node == inviter:
                    feed(PeerUnlinked(node))
                case ControlReceived(node, _, payload) if node == inviter:
                    feed(GroupReceived(node, payload))
                case _:
                    pass

    def lost(reason: str) -> None:
        if not outcome.done():
            outcome.set_result(JoinFailed("A205", f"the packet device is lost: {reason}"))

    nic = NicClient(hear, lost)
    try:
        await started(nic, Configure(NO_GROUP, invite_exchange_secret(invitation.secret), listen))
        nic.order(AdmitPeer(invitation.inviter, invitation.endpoints))
        while not outcome.done():
            deadline_ns = machine.deadline_ns
            wait_s = None if deadline_ns is None else max(0, deadline_ns - clock.monotonic_ns()) / 1e9
            await asyncio.wait((outcome,), timeout=wait_s)
            if not outcome.done():
                feed(Tick())
        result = outcome.result()
    finally:
        await nic.stop()
    if isinstance(result, Joined):
        return result
    sentence = _SENTENCES.get(result.code, "the join failed")
    raise UserError(result.code, sentence, where=result.where, fix=_FIXES.get(result.code, "try again"))
