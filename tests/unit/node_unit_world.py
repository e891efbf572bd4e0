# SPDX-License-Identifier: Apache-2.0
"""The control machine of one node of a simulated group, without packets, for the node's unit tests."""

from atoll.base.member import Member
from atoll.base.units import SECOND_NS
from atoll.group.group import Group, GroupOptions
from atoll.lab.groups import blueprints
from atoll.lab.program import Blueprint
from atoll.node.control import Control, ControlEffect
from atoll.overlay.config import Config
from atoll.overlay.mesh import Mesh

NOW_NS = 1000 * SECOND_NS
WALL_S = 1_800_000_000
NAMES = ("one", "two", "three")


def plans(count: int = 3) -> tuple[Blueprint, ...]:
    return blueprints(count, 1, names=NAMES)


def control_of(plan: Blueprint, *, own: Member | None = None) -> tuple[Control, list[ControlEffect]]:
    """Return a started control machine and its first effects."""
    member = own or plan.member
    group = Group.create(
        GroupOptions(roster=plan.roster, own=member, boot=7, started_s=WALL_S, product="0.1.0", seed=bytes(range(32))),
        NOW_NS,
    )
    control = Control(Mesh(Config(node=member.node, boot=7), bytes(32), NOW_NS), group)
    return control, control.start(NOW_NS)
