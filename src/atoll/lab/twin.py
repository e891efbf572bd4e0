# SPDX-License-Identifier: Apache-2.0
"""The demo's simulated twin: the same script, the same machines, on a virtual clock. One seed, one trace.

It plays what happens to the network. The machines that become slow in the end are in the live demo only: there they
suffer from something real (``stealing``, ``afflicted``); a simulated machine would feel what we told it to.

Its digest tells whether two computers, two Pythons or two hash seeds would decide alike; its times tell what the
healing costs without the noise of a busy machine.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.lab.groups import blueprints, factory_of
from atoll.lab.program import SimulatedNode
from atoll.lab.scenario import SITES, Phase, Trouble, demo_topology, phases
from atoll.lab.traffic import Exchange, Traffic
from atoll.overlay.policy import TAG_DIRECT, TAG_LATENCY
from atoll.sim import LinkSpec, World

__all__ = ["PhaseTwin", "Twin", "play"]

SETTLE_NS: Final = 5 * SECOND_NS  # Handshakes and first measurements, before the script begins.
LEAD_NS: Final = 2 * SECOND_NS  # A client works this long before its trouble.
AFTER_NS: Final = SECOND_NS


class PhaseTwin(msgspec.Struct, frozen=True, kw_only=True):
    """One phase in simulation; seconds. ``silence_s``: longest time without an answer; losses are shares.

    ``came`` is false where there was nothing to break: no relay to kill, because the path was direct.
    """

    trouble: str
    came: bool
    silence_s: float
    loss: float
    control_silence_s: float
    control_loss: float


class Twin(msgspec.Struct, frozen=True, kw_only=True):
    """A whole simulated run."""

    seed: int
    trace: str
    phases: tuple[PhaseTwin, ...]


@dataclass(slots=True)
class _Clients:
    phase: Phase
    healed: Exchange
    control: Exchange
    came: bool = False


def play(seed: int, *, faults: bool = True) -> Twin:
    """Play the script of a seed in simulation."""
    plans = blueprints(len(SITES), seed, names=SITES)
    world = World(demo_topology(), factory_of(plans), seed=seed, command="atoll demo --seed {seed}")
    traffic = Traffic(world, plans)
    clients = [_begin(traffic, phase) for phase in phases(seed)]
    if faults:
        for one in clients:
            _strike(world, one)
    end_ns = max(_at(one.phase.end_ms) for one in clients) + AFTER_NS
    world.start_all()
    world.run(end_ns)
    return Twin(seed=seed, trace=world.trace.digest(), phases=tuple(_told(one) for one in clients))


def _at(ms: int) -> int:
    return SETTLE_NS + ms * MILLISECOND_NS


def _begin(traffic: Traffic, phase: Phase) -> _Clients:
    source, target = SITES.index(phase.source), SITES.index(phase.target)
    span = (max(0, _at(phase.begin_ms) - LEAD_NS), _at(phase.end_ms))
    healed = traffic.begin(source, target, span, tag=TAG_LATENCY)
    control = traffic.begin(source, target, span, tag=TAG_DIRECT)
    return _Clients(phase, healed, control)


def _strike(world: World[SimulatedNode], clients: _Clients) -> None:
    phase = clients.phase
    source, target = SITES.index(phase.source), SITES.index(phase.target)
    key = phase.trouble.value
    if phase.trouble is Trouble.RELAY_KILLED:

        def kill() -> None:
            clients.came = _kill_relay(world, source, target)

        world.at(_at(phase.begin_ms), kill)
        return
    ways = ((source, target),) if phase.trouble is Trouble.ONE_WAY_LOSS else ((source, target), (target, source))
    spec = LinkSpec(blackhole=True) if phase.trouble is Trouble.BLACKHOLE else LinkSpec(loss=phase.loss)

    def begin() -> None:
        clients.came = True
        for one, other in ways:
            world.impair(one, other, key, spec)

    def end() -> None:
        for one, other in ways:
            world.mend(one, other, key)

    world.at(_at(phase.begin_ms), begin)
    world.at(_at(phase.end_ms), end)


def _kill_relay(world: World[SimulatedNode], source: int, target: int) -> bool:
    """Kill the relay between two nodes; return whether there was one."""
    node, far = world.program(source), world.program(target)
    assert node is not None, "nobody else is killed"
    assert far is not None, "nobody else is killed"
    via = node.control.mesh.via(far.node)
    for index in range(world.count):
        relay = world.program(index)
        if relay is not None and relay.node == via:
            world.kill(index)
            return True
    return False


def _told(one: _Clients) -> PhaseTwin:
    begin_ns, end_ns = _at(one.phase.begin_ms), _at(one.phase.end_ms)
    settled_ns = end_ns - SECOND_NS  # The last requests may still be on their way when the world ends.
    return PhaseTwin(
        trouble=one.phase.trouble.value,
        came=one.came,
        silence_s=one.healed.silence_ns(begin_ns, end_ns) / SECOND_NS,
        loss=one.healed.loss(begin_ns, settled_ns),
        control_silence_s=one.control.silence_ns(begin_ns, end_ns) / SECOND_NS,
        control_loss=one.control.loss(begin_ns, settled_ns),
    )
