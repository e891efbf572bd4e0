# SPDX-License-Identifier: Apache-2.0
"""Which of several members a new connection tries first: by how each stands now, and else as they were named."""

from functools import cache
from itertools import permutations

from atoll.base.ids import NodeId
from atoll.base.units import SECOND_NS
from atoll.health.members.bulletin import ANSWERS, LINK, Found, HealthReceived
from atoll.health.members.messages import Ailment, Ailments, encode_ailments
from atoll.health.model import State
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.scenario import SITES, demo_topology
from atoll.node.control import Control
from atoll.node.targets import Tier, ranked, tier
from atoll.sim import LinkSpec, World

MS = 1_000_000
PORT = 8080
FRA, ASH, SIN, HOME, GPU = range(len(SITES))


@cache
def kept(*, is_broken: bool) -> tuple[bytes, int]:
    """Return what the first of a group of five decides by, and its time.

    Broken: its direct path to the second is cut, which is then relayed; the fourth is cut off from everybody.
    """
    world = World(demo_topology(), factory_of(blueprints(len(SITES), 5, names=SITES)), seed=5, command="none {seed}")
    world.start_all()
    world.run(5 * SECOND_NS)
    if is_broken:
        for one, other in ((FRA, ASH), *((HOME, other) for other in (FRA, ASH, SIN, GPU))):
            for way in ((one, other), (other, one)):
                world.impair(*way, "cut", LinkSpec(blackhole=True))
    world.run(30 * SECOND_NS if is_broken else 10 * SECOND_NS)
    node = world.program(FRA)
    assert node is not None
    return node.control.snapshot(), world.clock(FRA).monotonic_ns()


def group(*, is_broken: bool = False) -> tuple[Control, int]:
    snapshot, now_ns = kept(is_broken=is_broken)
    return Control.restore(snapshot), now_ns


def node_of(index: int) -> NodeId:
    return blueprints(len(SITES), 5, names=SITES)[index].member.node


def say(control: Control, now_ns: int, index: int, *whats: str, of: int | None = None) -> None:
    """Let a member say what is slow, of itself or of another."""
    about = node_of(index if of is None else of)
    told = tuple(Ailment(about, what, False, 6, 1_000, 90_000) for what in whats)
    control.bulletin.handle(HealthReceived(node_of(index), encode_ailments(Ailments(7, 1, told))), now_ns)


def find(control: Control, now_ns: int, index: int, what: str) -> None:
    """Let the first node measure something at a member, or at itself."""
    of = b"" if index == FRA else node_of(index)
    control.bulletin.handle(Found(of, what, State.SLOW, now_ns, MS, 90 * MS), now_ns)


def test_of_equals_the_one_named_first_is_the_first() -> None:
    control, now_ns = group()
    for given in permutations(map(node_of, (FRA, ASH, GPU))):
        assert ranked(control, given, PORT, now_ns) == given


def test_who_is_well_comes_before_the_degraded_then_the_slow_then_the_others() -> None:
    control, now_ns = group(is_broken=True)
    say(control, now_ns, SIN, "disk")
    say(control, now_ns, HOME, "disk")
    best = (FRA, ASH, SIN, HOME)
    tiers = [tier(control, node_of(one), PORT, now_ns) for one in best]
    assert tiers == [Tier.OK, Tier.DEGRADED, Tier.SLOW, Tier.UNREACHED]
    for given in permutations(map(node_of, best)):
        assert ranked(control, given, PORT, now_ns) == tuple(map(node_of, best))


def test_a_member_is_slow_by_its_own_word_and_by_what_we_measure_and_not_by_hearsay() -> None:
    control, now_ns = group()
    say(control, now_ns, ASH, "disk")
    find(control, now_ns, SIN, ANSWERS)
    say(control, now_ns, HOME, "link", of=GPU)
    seen = [tier(control, node_of(one), PORT, now_ns) for one in (ASH, SIN, HOME, GPU)]
    assert seen == [Tier.SLOW, Tier.SLOW, Tier.OK, Tier.OK]


def test_a_slow_program_counts_at_its_own_port_only() -> None:
    control, now_ns = group()
    say(control, now_ns, ASH, f"program:{PORT}")
    nodes = (node_of(ASH), node_of(SIN))
    assert ranked(control, nodes, PORT, now_ns) == nodes[::-1]
    assert ranked(control, nodes, PORT // 10, now_ns) == nodes


def test_a_slow_direct_path_counts_while_it_is_used() -> None:
    for is_broken, expected in ((False, Tier.SLOW), (True, Tier.DEGRADED)):
        control, now_ns = group(is_broken=is_broken)
        find(control, now_ns, ASH, LINK)
        assert tier(control, node_of(ASH), PORT, now_ns) is expected


def test_this_node_reaches_itself_and_is_slow_when_it_finds_so() -> None:
    control, now_ns = group()
    assert tier(control, node_of(FRA), PORT, now_ns) is Tier.OK
    find(control, now_ns, FRA, f"program:{PORT}")
    assert tier(control, node_of(FRA), PORT, now_ns) is Tier.SLOW


def test_who_is_no_member_comes_last() -> None:
    control, now_ns = group()
    stranger = NodeId(b"s" * 10)
    assert ranked(control, (stranger, node_of(ASH)), PORT, now_ns) == (node_of(ASH), stranger)
