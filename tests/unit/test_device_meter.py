# SPDX-License-Identifier: Apache-2.0
"""Rates, loads, addresses, backlogs and batches: the small parts of the packet device."""

import pytest

from atoll.base.errors import WireError
from atoll.base.units import SECOND_NS
from atoll.device.nic.backlog import ITEM_BYTES_MAX, Backlog
from atoll.device.nic.endpoints import numeric_endpoint, packed_endpoint
from atoll.device.nic.limits import IPC_BYTES_MAX, PACKETS_QUEUED_MAX, URGENT_QUEUED_MAX
from atoll.device.nic.messages import (
    AdmitPeer,
    Configure,
    EndpointSeen,
    ExpelPeer,
    Listening,
    NicCounters,
    PacketReceived,
    Report,
    SendPacket,
    Stop,
    Timestamp,
    decode_orders,
    decode_reports,
    encode_item,
    join_items,
)
from atoll.device.nic.meter import Meter
from atoll.overlay.orders import SetRoute
from atoll.overlay.reports import FlowSeen, SessionUp


def taken(meter: Meter, units: int, now_ns: int) -> bool:
    fits = meter.fits(units, now_ns)
    if fits:
        meter.take(units, now_ns)
    return fits


def test_a_burst_and_then_the_rate() -> None:
    meter = Meter(per_s=1_000, burst=500)
    assert taken(meter, 500, 0)
    assert not taken(meter, 1, 0)
    assert not taken(meter, 101, SECOND_NS // 10)
    assert taken(meter, 100, SECOND_NS // 10)
    passed = sum(taken(meter, 10, SECOND_NS // 10 + step * SECOND_NS // 1_000) for step in range(10_000))
    assert 990 <= passed <= 1_000  # 10 s at 100 a second.


def test_silence_saves_no_more_than_the_burst() -> None:
    meter = Meter(per_s=1_000, burst=500)
    assert not taken(meter, 501, 3_600 * SECOND_NS)
    assert taken(meter, 500, 3_600 * SECOND_NS)


def test_no_rate_is_nothing_at_all() -> None:
    assert not Meter(per_s=0, burst=500).fits(1, SECOND_NS)


def test_a_change_of_rate_gives_no_fresh_burst() -> None:
    meter = Meter(per_s=1_000, burst=500)
    assert taken(meter, 500, 0)
    meter.change(per_s=100, burst=500, now_ns=0)
    assert not taken(meter, 1, 0)
    assert taken(meter, 100, SECOND_NS)
    meter.change(per_s=0, burst=500, now_ns=SECOND_NS)
    assert not taken(meter, 1, 100 * SECOND_NS)


@pytest.mark.parametrize(
    ("claimed", "taken_as"),
    [
        (("192.0.2.1", 1), ("192.0.2.1", 1)),
        (("2001:DB8:0::1", 65_535), ("2001:db8::1", 65_535)),
        (("::ffff:192.0.2.1", 7), ("192.0.2.1", 7)),
        (("node.example", 7), None),
        (("224.0.0.1", 7), None),
        (("ff02::1", 7), None),
        (("0.0.0.0", 7), None),
        (("255.255.255.255", 7), None),
        (("192.0.2.1", 0), None),
        (("", 7), None),
    ],
)
def test_only_unicast_numbers_are_endpoints(claimed: tuple[str, int], taken_as: tuple[str, int] | None) -> None:
    assert numeric_endpoint(claimed) == taken_as


def test_packed_endpoints() -> None:
    assert packed_endpoint(("192.0.2.1", 258)) == bytes((192, 0, 2, 1, 1, 2))
    assert len(packed_endpoint(("2001:db8::1", 1))) == 18
    assert packed_endpoint(("no number", 1)) == b"no number\0\1"


ORDERS = (
    Configure(bytes(32), bytes(32), (("127.0.0.1", 0),)),
    AdmitPeer(bytes(32), (("192.0.2.1", 1),), None, invited=True),
    ExpelPeer(bytes(32)),
    SendPacket(bytes(10), 2, b"packet"),
    SetRoute(bytes(10), 0, b"", None),
    Stop(),
)
REPORTS: tuple[Report, ...] = (
    Listening((("127.0.0.1", 1),)),
    PacketReceived(bytes(10), b"packet"),
    EndpointSeen(bytes(10), "192.0.2.1", 1),
    NicCounters({"send-full": 3}, {bytes(10): {"packet-foreign": 1}}),
    Timestamp(1),
    SessionUp(bytes(10), 1),
    FlowSeen(bytes(10), 1, 2),
)


def test_batches_come_back() -> None:
    assert tuple(decode_orders(join_items([encode_item(order) for order in ORDERS]))) == ORDERS
    assert tuple(decode_reports(join_items([encode_item(report) for report in REPORTS]))) == REPORTS


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        b"\xdd\xff\xff\xff\xff",
        b"\xdd\0\0\0\1\x92\xa9Ascension\0",
        join_items([encode_item(ORDERS[0])[:-1]]),
        join_items([b"\x92\xa9ExpelPeer\xc4\x01\0"]),  # A key of one byte.
        b"\x91" * 5_000,
    ],
)
def test_other_batches_are_wire_errors(batch: bytes) -> None:
    with pytest.raises(WireError):
        decode_orders(batch)
    with pytest.raises(WireError):
        decode_reports(batch)


def test_urgent_items_go_first_and_a_batch_stays_until_it_is_sent() -> None:
    backlog = Backlog()
    assert backlog.batch() is None
    assert not backlog
    backlog.put_packet(b"\x03")
    backlog.put_urgent(b"\x01")
    backlog.put_urgent(b"\x02")
    assert backlog.batch() == b"\xdd\0\0\0\3\1\2\3"
    backlog.put_urgent(b"\x04")
    assert backlog.batch() == b"\xdd\0\0\0\3\1\2\3"
    backlog.sent()
    assert backlog.batch() == b"\xdd\0\0\0\1\4"
    backlog.clear()
    assert not backlog


def test_batches_are_bounded_and_lose_nothing() -> None:
    backlog = Backlog()
    items = [bytes([number]) * (7_000 + number) for number in range(20)] + [bytes(ITEM_BYTES_MAX)]
    for item in items:
        backlog.put_urgent(item)
    got = b""
    while (batch := backlog.batch()) is not None:
        assert len(batch) <= IPC_BYTES_MAX
        got += batch[5:]
        backlog.sent()
    assert got == b"".join(items)


def test_the_oldest_packets_go_and_urgent_items_never() -> None:
    backlog = Backlog()
    assert sum(backlog.put_packet(number.to_bytes(4, "big")) for number in range(PACKETS_QUEUED_MAX + 3)) == 3
    fills: list[bool] = []
    for _ in range(URGENT_QUEUED_MAX):
        fills.append(backlog.is_full)
        backlog.put_urgent(b"\x01")
    assert not any(fills)
    assert (backlog.is_full, backlog.is_relieved) == (True, False)
    got = b""
    while (batch := backlog.batch()) is not None:
        got += batch[5:]
        backlog.sent()
    assert backlog.is_relieved
    assert got[:URGENT_QUEUED_MAX] == b"\x01" * URGENT_QUEUED_MAX
    assert got[URGENT_QUEUED_MAX:][:4] == (3).to_bytes(4, "big")
