# SPDX-License-Identifier: Apache-2.0
"""A journal that was recorded once is decided again the same way, for as long as the machine's version is the same.

When this fails with A303, what the control machine decides has changed: raise ``version`` in ``node/control.py``, or
the journals of running nodes look like faults. When it fails with A301 after that, record it anew:

    python -m tests.unit.test_node_kept_journal
"""

from pathlib import Path
from typing import Final

from atoll.base.units import SECOND_NS
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.program import SimulatedNode
from atoll.lab.scenario import SITES, demo_topology
from atoll.node.replaying import replay_file
from atoll.sim import LinkSpec, World

KEPT: Final = Path(__file__).parent.parent / "data" / "journal" / "control.journal"
SEED: Final = 5


def record() -> bytes:
    """Return what one node of five decides in 45 seconds: start, membership, a cut, a relay, the way back, a crash."""
    factory = factory_of(blueprints(len(SITES), SEED, names=SITES, records=True))
    world: World[SimulatedNode] = World(demo_topology(), factory, seed=SEED, command="none {seed}")
    world.start_all()
    world.run(5 * SECOND_NS)
    for one, other in ((0, 2), (2, 0)):
        world.impair(one, other, "cut", LinkSpec(blackhole=True))
    world.run(25 * SECOND_NS)
    for one, other in ((0, 2), (2, 0)):
        world.mend(one, other, "cut")
    world.crash(1)
    world.run(45 * SECOND_NS)
    node = world.program(0)
    assert node is not None
    return b"".join(node.segments())


def test_what_was_decided_once_is_decided_again_until_the_version_is_raised() -> None:
    summary = replay_file(KEPT)
    assert (summary.machine, summary.gaps, summary.torn, summary.raised) == ("control", 0, 0, 0)
    assert summary.inputs > 500


if __name__ == "__main__":
    KEPT.write_bytes(record())
