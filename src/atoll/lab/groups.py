# SPDX-License-Identifier: Apache-2.0
"""Whole groups for the simulator: identities from a seed, one roster that admits them all, and their blueprints."""

from collections.abc import Callable, Sequence
from hashlib import blake2b

from atoll.base.ids import GroupId
from atoll.base.member import Member
from atoll.base.ports import Disk
from atoll.group.identity import IDENTITY_BYTES, Identity, founding_roster
from atoll.group.roster import Roster
from atoll.group.statement import Admit, signed
from atoll.lab.program import Blueprint, SimulatedNode
from atoll.sim import endpoint_of

__all__ = ["blueprints", "factory_of", "identity_of", "roster_of"]


def identity_of(seed: int, index: int) -> Identity:
    """Return the identity of one node of a simulated group. Never for a real one: anybody can compute it."""
    secret = blake2b(b"%d/%d" % (seed, index), digest_size=IDENTITY_BYTES, person=b"atoll-simulated").digest()
    return Identity(secret)


def roster_of(identities: Sequence[Identity], members: Sequence[Member]) -> Roster:
    """Return a roster in which the first founded the group and admitted all others."""
    founder = identities[0]
    roster = founding_roster(founder, members[0])
    for member in members[1:]:
        roster.add(signed(roster.group, roster.draft(founder.signing_key, Admit(member)), founder.sign))
    return roster


def blueprints(
    count: int,
    seed: int,
    *,
    names: Sequence[str] = (),
    records: bool = False,
) -> tuple[Blueprint, ...]:
    """Return the blueprints of a group.

    Args:
        count: Members, 1 to 64.
        seed: Cause of their keys.
        names: Their names; ``n0``, ``n1`` … where there are none.
        records: Whether they record journals.
    """
    identities = [identity_of(seed, index) for index in range(count)]
    members = [
        Member(
            identity.public_key,
            identity.signing_key,
            names[index] if index < len(names) else f"n{index}",
            (endpoint_of(index),),
        )
        for index, identity in enumerate(identities)
    ]
    roster = roster_of(identities, members)
    encoded = roster.encode()
    return tuple(
        Blueprint(identity, member, GroupId(roster.group), encoded, records)
        for identity, member in zip(identities, members, strict=True)
    )


def factory_of(plans: Sequence[Blueprint]) -> Callable[[int, Disk, bytes], SimulatedNode]:
    """Return what makes the programs of a world from their blueprints."""

    def make(index: int, disk: Disk, seed: bytes) -> SimulatedNode:
        return SimulatedNode(plans[index], disk, seed)

    return make
