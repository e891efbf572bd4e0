# SPDX-License-Identifier: Apache-2.0
"""The emulator's pure half: links, faults, order, counters."""

import msgspec
import pytest

from atoll.base.errors import LimitError, UsageError
from atoll.lab import emulator
from atoll.lab.emulator import Fabric
from atoll.sim.link import LinkSpec

MS = 1_000_000


def fabric() -> Fabric:
    made = Fabric(seed=1)
    for name in ("a", "b", "c"):
        made.add(name)
    return made


def test_a_datagram_arrives_after_the_links_delay_and_not_before() -> None:
    net = fabric()
    net.set_link("a", "b", LinkSpec(delay_ns=30 * MS))
    net.offer("a", "b", b"hello", 0)
    assert net.deadline_ns == 30 * MS
    assert net.due(30 * MS - 1) == []
    (delivery,) = net.due(30 * MS)
    assert (delivery.source, delivery.target, delivery.datagram) == ("a", "b", b"hello")
    assert net.deadline_ns is None


def test_deliveries_come_in_order_of_time_over_all_links() -> None:
    net = fabric()
    net.set_link("a", "b", LinkSpec(delay_ns=30 * MS))
    net.set_link("a", "c", LinkSpec(delay_ns=10 * MS))
    net.offer("a", "b", b"first", 0)
    net.offer("a", "c", b"second", 0)
    net.offer("a", "c", b"third", 0)
    assert [one.datagram for one in net.due(100 * MS)] == [b"second", b"third", b"first"]


def test_a_blackhole_takes_one_direction_and_mending_gives_it_back() -> None:
    net = fabric()
    net.impair("a", "b", "cut", LinkSpec(blackhole=True))
    net.offer("a", "b", b"lost", 0)
    net.offer("b", "a", b"kept", 0)
    assert [one.datagram for one in net.due(0)] == [b"kept"]
    net.mend("other")
    net.offer("a", "b", b"lost", 1)
    net.mend("cut")
    net.offer("a", "b", b"back", 2)
    assert [one.datagram for one in net.due(2)] == [b"back"]


def test_mending_everything_clears_every_key_and_a_new_base_keeps_the_faults() -> None:
    net = fabric()
    net.impair("a", "b", "one", LinkSpec(blackhole=True))
    net.impair("a", "b", "two", LinkSpec(delay_ns=5 * MS))
    net.set_link("a", "b", LinkSpec(delay_ns=MS))
    net.offer("a", "b", b"lost", 0)
    assert net.deadline_ns is None
    net.mend("")
    net.offer("a", "b", b"x", 0)
    assert net.deadline_ns == MS


def test_loss_is_counted_on_its_directed_link() -> None:
    net = fabric()
    net.impair("a", "b", "loss", LinkSpec(loss=3000))
    for at_ns in range(1000):
        net.offer("a", "b", b"12345", at_ns)
    net.due(10_000)
    (count,) = net.counts()
    assert (count.source, count.target, count.offered) == ("a", "b", 1000)
    assert 640 <= count.delivered <= 760
    assert count.delivered_bytes == 5 * count.delivered


def test_one_seed_has_one_luck_and_another_seed_another() -> None:
    def arrived(seed: int) -> list[int]:
        net = Fabric(seed)
        net.add("a")
        net.add("b")
        net.impair("a", "b", "loss", LinkSpec(loss=5000))
        for at_ns in range(64):
            net.offer("a", "b", b"", at_ns)
        return [one.at_ns for one in net.due(64)]

    assert arrived(1) == arrived(1)
    assert arrived(1) != arrived(2)


def test_what_is_in_flight_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator, "IN_FLIGHT_MAX", 10)
    net = fabric()
    for at_ns in range(15):
        net.offer("a", "b", b"", at_ns)
    assert net.overrun == 5
    assert len(net.due(100)) == 10


def test_faults_on_one_link_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator, "IMPAIRMENTS_MAX", 2)
    net = fabric()
    for key in ("one", "two", "two"):
        net.impair("a", "b", key, LinkSpec(loss=1))
    with pytest.raises(LimitError, match="IMPAIRMENTS_MAX"):
        net.impair("a", "b", "three", LinkSpec(loss=1))
    net.impair("b", "a", "three", LinkSpec(loss=1))


def test_an_unknown_link_or_a_node_too_many_is_refused() -> None:
    net = fabric()
    net.offer("a", "a", b"to oneself", 0)
    assert net.deadline_ns is None
    with pytest.raises(UsageError):
        net.set_link("a", "z", LinkSpec())
    net.add("a")
    assert net.names == ("a", "b", "c")
    for number in range(emulator.NODES_MAX - 3):
        net.add(f"n{number}")
    with pytest.raises(LimitError):
        net.add("one too many")


@pytest.mark.parametrize(
    "command",
    [
        b'{"type":"AddNode","name":"a","port":0}',
        b'{"type":"AddNode","name":"a","port":65536}',
        b'{"type":"AddNode","name":"a","port":-1}',
        b'{"type":"AddNode","name":"a","port":"4000"}',
        b'{"type":"AddNode","name":"%s","port":4000}' % (b"a" * (emulator.NAME_BYTES_MAX + 1)),
        b'{"type":"Impair","source":"a","target":"b","key":"%s"}' % (b"k" * (emulator.NAME_BYTES_MAX + 1)),
    ],
)
def test_a_port_or_name_out_of_range_is_no_command(command: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(command, type=emulator.Command)


def test_the_longest_answer_fits_its_limit() -> None:
    counts = tuple(
        emulator.LinkCount("s" * emulator.NAME_BYTES_MAX, "t" * emulator.NAME_BYTES_MAX, 2**32, 2**32, 2**42)
        for _ in range(emulator.NODES_MAX * (emulator.NODES_MAX - 1))
    )
    assert len(msgspec.json.encode(emulator.Answer(counts=counts))) < emulator.ANSWER_BYTES_MAX
