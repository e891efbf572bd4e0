# SPDX-License-Identifier: Apache-2.0
"""What waits while the queue of the way out stands, and what goes ahead."""

from hypothesis import given
from hypothesis import strategies as st

from atoll.device.nic.held import Held, Lone
from atoll.device.nic.limits import HELD_BYTES_MAX
from atoll.device.nic.segments import Bulk

ADDRESSES = bytes(range(32))


def packet(port: int, size: int = 1_000, protocol: int = 6) -> bytes:
    head = b"\x60\0\0\0" + size.to_bytes(2, "big") + bytes((protocol, 64)) + ADDRESSES
    return head + port.to_bytes(2, "big") + b"\0\x16" + bytes(size - 4)


def bulk(port: int, size: int) -> Bulk:
    whole = packet(port, size)
    return Bulk(bytearray(b"before" + whole + b"behind"), 6, 6 + len(whole), 60, 100)


def test_a_small_packet_goes_ahead_unless_one_of_its_flow_waits() -> None:
    held = Held()
    assert held.add(bulk(1, 3_000), 5)
    assert held.is_passing(packet(2, 40))
    assert not held.is_passing(packet(1, 40))
    assert held.is_passing(packet(1, 40, protocol=17))
    assert held.add((packet(1, 40), True), 6)
    held.take()
    assert not held.is_passing(packet(1, 40))  # The small one still waits.
    held.take()
    assert held.is_passing(packet(1, 40))


def test_what_waits_is_a_copy_and_can_be_cut_as_before() -> None:
    held, large = Held(), bulk(1, 3_000)
    twin = bulk(1, 3_000)
    expected = [bytes(twin.buffer[start:end]) for start, end in twin.segments()]
    held.add(large, 7)
    large.buffer[:] = bytes(len(large.buffer))
    kept, since_ns = held.take()
    assert isinstance(kept, Bulk)
    assert since_ns == 7
    assert [bytes(kept.buffer[start:end]) for start, end in kept.segments()] == expected


def test_no_more_than_the_limit_waits() -> None:
    held, count = Held(), 0
    while held.add(bulk(count % 7, 60_000), count):
        count += 1
    assert 60 < count <= HELD_BYTES_MAX // 60_000
    held.take()
    assert held.add(bulk(1, 60_000), count)
    held.clear()
    assert not held
    assert held.is_passing(packet(1))


@given(st.lists(st.one_of(st.tuples(st.integers(0, 3), st.integers(44, 2_000)), st.none()), max_size=60))
def test_the_order_stays_and_the_flows_that_wait_are_known(steps: list[tuple[int, int] | None]) -> None:
    held, model = Held(), list[tuple[int, Lone]]()
    for now_ns, step in enumerate(steps):
        if step is not None:
            item: Lone = (packet(*step), False)
            assert held.add(item, now_ns)
            model.append((now_ns, item))
        elif model:
            since_ns, item = model.pop(0)
            assert held.take() == (item, since_ns)
        assert len(held) == len(model)
        waiting = {item[0][40:42] for _, item in model}
        for port in range(4):
            assert held.is_passing(packet(port)) == (port.to_bytes(2, "big") not in waiting)
