# SPDX-License-Identifier: Apache-2.0
"""Three nodes lease labels over a network that loses, repeats and reorders; the packet tables are modelled beside."""

from collections.abc import Sequence
from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.base.units import MILLISECOND_NS, SECOND_NS
from atoll.core.entropy import Draws
from atoll.overlay.labels import LEASE_S, LabelEffect, LabelMessage, Labels, Say
from atoll.overlay.orders import (
    DropArrivalLabel,
    DropForwardLabel,
    DropTransmitLabel,
    SetArrivalLabel,
    SetForwardLabel,
    SetTransmitLabel,
)

A, B, R = b"node-0000A", b"node-0000B", b"node-0000R"
NODES = (A, B, R)
STEP_NS = 100 * MILLISECOND_NS


class Device:
    """What one node's packet device holds."""

    def __init__(self) -> None:
        self.transmit: dict[tuple[bytes, bytes], SetTransmitLabel] = {}
        self.arrival: dict[int, SetArrivalLabel] = {}
        self.forward: dict[int, SetForwardLabel] = {}

    def obey(self, order: LabelEffect) -> None:
        match order:
            case SetTransmitLabel():
                self.transmit[order.node, order.relay] = order
            case DropTransmitLabel():
                self.transmit.pop((order.node, order.relay), None)
            case SetArrivalLabel():
                self.arrival[order.label] = order
            case DropArrivalLabel():
                self.arrival.pop(order.label, None)
            case SetForwardLabel():
                self.forward[order.label] = order
            case DropForwardLabel():
                self.forward.pop(order.label, None)
            case Say():
                raise AssertionError("not an order")


class World:
    """Three machines, their devices, and a network without promises."""

    def __init__(self, seed: int, loss: float) -> None:
        self.rng, self.loss, self.now_ns = Random(seed), loss, 0
        self.devices = {node: Device() for node in NODES}
        self.machines = {node: self.fresh(node) for node in NODES}
        self.flying: list[tuple[int, bytes, bytes, LabelMessage]] = []
        self.lives = 0

    def fresh(self, node: bytes) -> Labels:
        labels = Labels(node, Draws(node + self.rng.randbytes(8)))
        labels.set_members(NODES)
        return labels

    def perform(self, node: bytes, effects: Sequence[LabelEffect]) -> None:
        for effect in effects:
            if not isinstance(effect, Say):
                self.devices[node].obey(effect)
                continue
            for _ in range(1 + (self.rng.random() < self.loss / 2)):
                if self.rng.random() >= self.loss:
                    at_ns = self.now_ns + self.rng.randrange(1, 20 if self.loss else 2) * STEP_NS
                    self.flying.append((at_ns, node, effect.node, effect.message))

    def step(self) -> None:
        self.now_ns += STEP_NS
        arrived = [one for one in self.flying if one[0] <= self.now_ns]
        self.flying = [one for one in self.flying if one[0] > self.now_ns]
        self.rng.shuffle(arrived)
        for _, sender, receiver, message in arrived:
            effects = self.machines[receiver].handle(sender, message, self.now_ns, lambda _node: True)
            self.perform(receiver, effects)
        for node, labels in self.machines.items():
            if labels.deadline_ns is not None and labels.deadline_ns <= self.now_ns:
                self.perform(node, labels.tick(self.now_ns))
        for labels in self.machines.values():
            assert sum(len(held) for held in labels.leases.values()) <= 2
            assert len(labels.forwards) == 2 * len(labels.pairs) <= 2
            tickets = [one.ticket for held in labels.leases.values() for one in held.values() if one.ticket]
            assert [ticket.arrival_label for ticket in tickets] == list(labels.arrivals)

    def restart(self, node: bytes, *, keeps_state: bool) -> None:
        """Crash: with its journal the machine goes on; without, both it and its device start empty."""
        if keeps_state:
            self.machines[node] = msgspec.msgpack.decode(msgspec.msgpack.encode(self.machines[node]), type=Labels)
        else:
            self.machines[node] = self.fresh(node)
            self.devices[node] = Device()

    def passes(self, source: bytes, target: bytes) -> bool:
        """Whether a packet from source to target through R comes through the devices' tables."""
        sent = self.devices[source].transmit.get((target, R))
        forward = self.devices[R].forward.get(sent.label) if sent else None
        if sent is None or forward is None:
            return False
        arrival = self.devices[target].arrival.get(forward.out_label)
        return (
            arrival is not None
            and (forward.key, forward.source, forward.target) == (sent.key, source, target)
            and (arrival.key, arrival.relay, arrival.origin) == (forward.out_key, R, source)
        )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.2, 0.5]),
    crashes=st.lists(
        st.tuples(st.integers(0, 1_500), st.sampled_from(NODES), st.booleans(), st.booleans()), max_size=4
    ),
)
def test_whatever_happened_the_lease_works_both_ways_soon_after(
    seed: int, loss: float, crashes: list[tuple[int, bytes, bool, bool]]
) -> None:
    world = World(seed, loss)
    asking = {A: False, B: False}

    def want() -> None:
        asking[A] = True
        for node, other in ((A, B), (B, A)):
            if asking[node]:
                world.perform(node, world.machines[node].want(other, [R], world.now_ns))

    want()
    for at in range(1_500):  # Two and a half minutes of faults: one lease and its renewals.
        for when, node, keeps_state, both in crashes:
            if when == at:
                world.restart(node, keeps_state=keeps_state)
                asking[B] |= both
                want()
        world.step()
    world.loss, world.flying = 0.0, []
    for node, other in ((A, B), (B, A)):
        if asking[node] and not world.passes(node, other):  # The ends notice by probes, and say so.
            world.perform(node, world.machines[node].suspect(other, R, world.now_ns))
    # A notice that was lost shortens the target's lease only; the asker's next renewal mends that. So: one whole lease.
    for _ in range(2 * 10 * LEASE_S):
        world.step()
        if world.now_ns % SECOND_NS == 0 and not (world.passes(A, B) and world.passes(B, A)):
            world.perform(A, world.machines[A].suspect(B, R, world.now_ns))
    assert world.passes(A, B)
    assert world.passes(B, A)
    assert world.machines[A].usable(B, world.now_ns) == (R,)
    assert world.machines[B].usable(A, world.now_ns) == (R,)
    # It stays so without faults, and everything goes when nobody wants it any more.
    for _ in range(10 * LEASE_S * 2):
        world.step()
        assert world.passes(A, B)
        assert world.passes(B, A)
    for node, other in ((A, B), (B, A)):
        world.perform(node, world.machines[node].want(other, [], world.now_ns))
    for _ in range(10 * (LEASE_S * 3 // 2)):
        world.step()
    for node in NODES:
        assert world.machines[node].deadline_ns is None
        device = world.devices[node]
        assert not device.forward
        assert not device.transmit
