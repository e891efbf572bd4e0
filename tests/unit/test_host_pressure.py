# SPDX-License-Identifier: Apache-2.0
"""What kernels say of load, of several versions and in containers; what cannot be understood is not known."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import UsageError
from atoll.base.units import SECOND_NS
from atoll.health.members.reading import SHARE_ONE, Reading
from atoll.host.pressure import (
    GROUPS_MAX,
    NAMED_MAX,
    Pressure,
    Sample,
    interface_errors,
    process_ticks,
    processor_ticks,
    reading_between,
    stalled_us,
    throttle_files,
    throttled_ns,
)

STAT = b"""cpu  2949990 14209 958926 8554447 9244 0 186042 979 0 0
cpu0 1307212 5330 468252 4460487 1943 0 91735 505 0 0
intr 263210 0 9 0
"""
STAT_2_4 = b"cpu  1228726 3 47213 9821873\ncpu0 1228726 3 47213 9821873\npage 5741 1808\n"
STAT_2_6 = b"cpu  22312 104 7713 1108213 4417 91 22\n"
PROCESS = (
    b"1234 (a (b) c) S 1 1234 1234 0 -1 4194560 3018 29911 0 12 57 21 88 13 20 0 1 0 4415 23490560 1892 184467440737"
    b"09551615 1 1 0 0 0 0 0 16781312 134234627 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)
STALLED = b"some avg10=1.82 avg60=0.46 avg300=2.00 total=6341956740\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=77\n"
STALLED_5_4 = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=12\n"  # Of the processor: without ``full`` until 5.13.
VERSION_1 = b"nr_periods 10\nnr_throttled 3\nthrottled_time 2500\nnr_bursts 0\nburst_time 0\n"
VERSION_2 = b"usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods 10\nnr_throttled 3\nthrottled_usec 25\n"
VERSION_2_ROOT = b"usage_usec 41091985675\nuser_usec 29642066933\nsystem_usec 11449918741\n"
HEADINGS = (
    b"Inter-|   Receive                                                |  Transmit\n"
    b" face |bytes    packets errs drop fifo frame compressed multicast"
    b"|bytes    packets errs drop fifo colls carrier compressed\n"
)
LO = (
    b"    lo: 996469 44014    5    5    0     0          0         0 9964695 44014    5    5    0     0       0     0\n"
)
ETH0 = (
    b"  eth0: 5034892 1499    1    2    9     9          9         9 8066739 8329    4    8    9     9       9     9\n"
)
ETH1_2_6 = (
    b"  eth1:5034894652 1499    0    3    0     0          0         0  8066739  832    0    0    0     0    0   0\n"
)


def test_the_first_line_of_stat_is_all_processors() -> None:
    assert processor_ticks(STAT) == (2949990, 14209, 958926, 8554447, 9244, 0, 186042, 979)
    assert processor_ticks(STAT_2_4) == (1228726, 3, 47213, 9821873)
    assert processor_ticks(STAT_2_6) == (22312, 104, 7713, 1108213, 4417, 91, 22)


@pytest.mark.parametrize(
    "text", [b"", b"cpu", b"cpu 1 2 3", b"cpu 1 2 3 x 5", b"cpu0 1 2 3 4", b"cpu 1 2 3 -4", b"\xff"]
)
def test_another_stat_is_not_known(text: bytes) -> None:
    assert processor_ticks(text) is None


def test_a_process_may_be_called_anything() -> None:
    assert process_ticks(PROCESS) == 57 + 21


@pytest.mark.parametrize(
    "text", [b"", b"1 (a) S 1 2", PROCESS.replace(b" 57 ", b" x "), PROCESS.replace(b" 21 ", b" - ")]
)
def test_another_process_text_is_not_known(text: bytes) -> None:
    assert process_ticks(text) is None


def test_what_waits_is_told_in_total() -> None:
    assert stalled_us(STALLED) == 6341956740
    assert stalled_us(STALLED_5_4) == 12


@pytest.mark.parametrize("text", [b"", b"some", b"some total", b"some total=", b"some total=1.5", b"something total=1"])
def test_another_pressure_is_not_known(text: bytes) -> None:
    assert stalled_us(text) is None


def test_both_versions_tell_of_throttling_in_their_own_unit() -> None:
    assert throttled_ns(VERSION_1) == 2500
    assert throttled_ns(VERSION_2) == 25_000


@pytest.mark.parametrize(
    "text", [b"", VERSION_2_ROOT, b"throttled_usec", b"throttled_usec x\n", b"throttled_time -1\n"]
)
def test_a_group_without_a_quota_tells_of_none(text: bytes) -> None:
    assert throttled_ns(text) is None


def test_the_group_of_version_2_and_those_around_it() -> None:
    assert throttle_files(b"0::/system.slice/atoll.service\n") == (
        "sys/fs/cgroup/system.slice/atoll.service/cpu.stat",
        "sys/fs/cgroup/system.slice/cpu.stat",
        "sys/fs/cgroup/cpu.stat",
        "sys/fs/cgroup/unified/system.slice/atoll.service/cpu.stat",
        "sys/fs/cgroup/unified/system.slice/cpu.stat",
        "sys/fs/cgroup/unified/cpu.stat",
    )


@pytest.mark.parametrize("controllers", [b"cpu", b"cpu,cpuacct", b"cpuacct,cpu"])
def test_where_both_are_mounted_version_1_has_the_processor(controllers: bytes) -> None:
    text = b"12:cpuset:/\n4:" + controllers + b":/docker/12:ab\n1:name=systemd:/docker/12:ab\n0::/docker/12:ab\n"
    assert throttle_files(text) == (
        "sys/fs/cgroup/cpu/docker/12:ab/cpu.stat",
        "sys/fs/cgroup/cpu/docker/cpu.stat",
        "sys/fs/cgroup/cpu/cpu.stat",
    )


def test_a_group_outside_of_what_is_seen_is_not_climbed_to() -> None:
    assert throttle_files(b"4:cpu:/../../other\n") == ("sys/fs/cgroup/cpu/cpu.stat",)


def test_only_so_many_groups_are_asked_the_outermost_too() -> None:
    files = throttle_files(b"4:cpu:" + b"/x" * 100 + b"\n")
    assert len(files) == GROUPS_MAX
    assert files[-1] == "sys/fs/cgroup/cpu/cpu.stat"


@pytest.mark.parametrize("text", [b"", b"nothing", b"1:name=systemd:/\n3:cpuset:/x\n", b"0:cpuset:/\n"])
def test_without_a_group_of_the_processor_nothing_is_asked(text: bytes) -> None:
    assert throttle_files(text) == ()


def test_damaged_and_dropped_packets_are_counted() -> None:
    assert interface_errors(HEADINGS + LO + ETH0 + ETH1_2_6) == {b"lo": 20, b"eth0": 15, b"eth1": 3}
    assert interface_errors(HEADINGS) == {}


def test_a_line_that_is_cut_off_is_left_out() -> None:
    assert interface_errors(HEADINGS + ETH0 + ETH1_2_6[:-30]) == {b"eth0": 15}


@pytest.mark.parametrize(
    "text",
    [b"", b"eth0: 1", HEADINGS + b"eth0: 1 2 3\n", HEADINGS + ETH0.replace(b" 8 ", b" x "), HEADINGS + b"nothing\n"],
)
def test_another_list_of_interfaces_is_not_known(text: bytes) -> None:
    assert interface_errors(text) is None


BEFORE = Sample(
    at_ns=5 * SECOND_NS,
    own_ns=SECOND_NS,
    named_ns={7: SECOND_NS},
    processors=(100, 0, 100, 1000, 50, 0, 0, 10),
    waiting_us=1_000,
    memory_us=2_000,
    io_us=4_000,
    throttled=(50, 1_000),
    errors={b"eth0": 10, b"eth1": 20},
)


def test_a_reading_is_the_time_between_two_samples() -> None:
    after = Sample(
        at_ns=7 * SECOND_NS,
        own_ns=SECOND_NS + SECOND_NS // 5,
        named_ns={7: 2 * SECOND_NS},
        processors=(130, 5, 105, 1100, 60, 2, 3, 55),
        waiting_us=1_000 + 200_000,
        memory_us=2_000 + 20_000,
        io_us=4_000 + 2_000_000,
        throttled=(50 + 4_000_000, 1_000 + 400_000_000),
        errors={b"eth0": 11, b"eth1": 25},
    )
    assert reading_between(BEFORE, after) == Reading(
        busy_share=45 * SHARE_ONE // 200,
        stolen_share=45 * SHARE_ONE // 200,
        own_share=6_000,
        waiting_share=1_000,
        memory_share=100,
        io_share=SHARE_ONE,
        throttled_share=2_000,
        nic_errors=6,
    )


def test_no_time_between_says_nothing() -> None:
    assert reading_between(BEFORE, BEFORE) == Reading()
    assert reading_between(BEFORE, replace(BEFORE, at_ns=0)) == Reading()


def test_what_one_of_the_two_does_not_tell_is_not_known() -> None:
    bare = Sample(at_ns=BEFORE.at_ns + SECOND_NS, own_ns=SECOND_NS)
    assert reading_between(BEFORE, bare) == Reading(own_share=0)
    assert reading_between(replace(bare, at_ns=0), BEFORE) == Reading(own_share=0)


def test_old_kernels_know_of_no_hypervisor() -> None:
    before = replace(BEFORE, processors=(0, 0, 0, 0))
    reading = reading_between(before, replace(before, at_ns=6 * SECOND_NS, processors=(20, 0, 5, 75)))
    assert (reading.busy_share, reading.stolen_share) == (2_500, None)


def test_less_than_a_tick_says_nothing_of_the_processors() -> None:
    reading = reading_between(BEFORE, replace(BEFORE, at_ns=BEFORE.at_ns + 1))
    assert (reading.busy_share, reading.stolen_share, reading.own_share) == (None, None, 0)


def test_counters_that_go_back_say_nothing() -> None:
    after = Sample(
        at_ns=6 * SECOND_NS,
        own_ns=0,
        named_ns={7: 0, 8: 99 * SECOND_NS},
        processors=(130, 0, 100, 900, 120, 0, 0, 0),
        waiting_us=0,
        memory_us=0,
        io_us=0,
        throttled=(0, 100_001_000),
        errors={b"eth0": 0, b"eth1": 21, b"veth7": 4_000},
    )
    assert reading_between(BEFORE, after) == Reading(
        busy_share=3_000, stolen_share=0, own_share=0, throttled_share=1_000, nic_errors=1
    )


NUMBERS = st.integers(0, 10**18)
SAMPLES = st.builds(
    Sample,
    at_ns=st.integers(0, 1 << 62),
    own_ns=NUMBERS,
    named_ns=st.dictionaries(st.integers(1, 3), NUMBERS),
    processors=st.none() | st.lists(NUMBERS, min_size=4, max_size=8).map(tuple),
    waiting_us=st.none() | NUMBERS,
    memory_us=st.none() | NUMBERS,
    io_us=st.none() | NUMBERS,
    throttled=st.lists(st.none() | NUMBERS, max_size=3).map(tuple),
    errors=st.none() | st.dictionaries(st.sampled_from([b"a", b"b"]), NUMBERS.map(lambda number: 40 * number)),
)


@given(SAMPLES, SAMPLES)
def test_shares_stay_within_bounds_and_all_can_be_encoded(before: Sample, after: Sample) -> None:
    reading = reading_between(before, after)
    for name in reading.__struct_fields__:
        value = getattr(reading, name)
        assert value is None or value >= 0
        assert value is None or name in {"own_share", "nic_errors"} or value <= SHARE_ONE
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(reading), type=Reading) == reading


TEXTS = (STAT, PROCESS, STALLED, VERSION_1, VERSION_2, HEADINGS, ETH0)
BITS = (b"cpu ", b"some ", b"total=", b"4:cpu:", b"0::", b"throttled_usec ", b":", b")", b"\n", b"9" * 5_000)
PIECES = st.sampled_from((*TEXTS, *BITS))


@given(st.lists(PIECES | st.binary(max_size=20), max_size=6).map(b"".join))
def test_no_text_raises(text: bytes) -> None:
    processor_ticks(text)
    process_ticks(text)
    stalled_us(text)
    throttle_files(text)
    throttled_ns(text)
    interface_errors(text)


def put(root: Path, name: str, text: bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)  # In place: whoever has the file open reads the new text.


def test_where_nothing_is_told_only_this_process_is_known(tmp_path: Path) -> None:
    pressure = Pressure(tmp_path)
    assert pressure.read((1,)) == Reading()
    reading = pressure.read((1,))
    assert reading.own_share is not None
    assert msgspec.structs.replace(reading, own_share=None) == Reading()
    pressure.close()
    pressure.close()


def test_a_machine_is_read_from_its_files(tmp_path: Path) -> None:
    put(tmp_path, "proc/stat", b"cpu 0 0 0 0 0 0 0 0 0 0\n")
    put(tmp_path, "proc/pressure/cpu", STALLED_5_4)
    put(tmp_path, "proc/pressure/memory", STALLED)
    put(tmp_path, "proc/pressure/io", STALLED)
    many = b"".join(b"veth%d: 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n" % number for number in range(3_000))
    put(tmp_path, "proc/net/dev", HEADINGS + ETH0 + many)
    put(tmp_path, "sys/class/net/eth0/device/uevent", b"DRIVER=virtio_net\n")
    put(tmp_path, "proc/self/cgroup", b"0::/a/b\n")
    put(tmp_path, "sys/fs/cgroup/a/b/cpu.stat", VERSION_2_ROOT)
    put(tmp_path, "sys/fs/cgroup/a/cpu.stat", VERSION_2)
    pressure = Pressure(tmp_path)
    assert pressure.read() == Reading()
    put(tmp_path, "proc/stat", b"cpu 25 0 0 50 0 0 0 25 0 0\n")
    put(tmp_path, "proc/net/dev", HEADINGS + ETH0.replace(b" 8 ", b" 9 ") + many)
    put(tmp_path, "sys/fs/cgroup/a/cpu.stat", VERSION_2.replace(b"25", b"99999999999"))
    reading = pressure.read()
    pressure.close()
    assert msgspec.structs.replace(reading, own_share=None) == Reading(
        busy_share=2_500,
        stolen_share=2_500,
        waiting_share=0,
        memory_share=0,
        io_share=0,
        throttled_share=SHARE_ONE,
        nic_errors=1,
    )


def dev(**dropped: int) -> bytes:
    return HEADINGS + b"".join(
        f"{name}: 0 0 0 {count}".encode() + b" 0" * 12 + b"\n" for name, count in dropped.items()
    )


def test_only_what_has_a_device_behind_it_is_a_network_card(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/net/eth0/device/vendor", b"0x1af4\n")
    for name in ("lo", "atoll0", "br0", "veth7"):
        put(tmp_path, f"sys/class/net/{name}/mtu", b"1500\n")
    put(tmp_path, "proc/net/dev", dev(lo=0, eth0=0, atoll0=0, br0=0, veth7=0))
    pressure = Pressure(tmp_path)
    pressure.read()
    put(tmp_path, "proc/net/dev", dev(lo=500, eth0=3, atoll0=9_000, br0=70, veth7=900))
    assert pressure.read().nic_errors == 3
    pressure.close()


def test_a_card_is_looked_up_when_it_appears_and_when_it_comes_back(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/net/eth0/device/vendor", b"0x1af4\n")
    put(tmp_path, "proc/net/dev", dev(eth0=0))
    pressure = Pressure(tmp_path)
    put(tmp_path, "sys/class/net/usb0/device/vendor", b"0x1af4\n")
    for counts, found in (
        (dev(eth0=0, usb0=0, tun0=0), None),
        (dev(eth0=0, usb0=5, tun0=100), 5),
        (dev(eth0=0, usb0=6, tun0=200), 1),
        (dev(eth0=0), 0),
    ):
        put(tmp_path, "proc/net/dev", counts)
        assert pressure.read().nic_errors == found
    put(tmp_path, "sys/class/net/tun0/device/vendor", b"0x1af4\n")  # Another one, of the same name.
    for counts, found in ((dev(eth0=0, tun0=300), 0), (dev(eth0=0, tun0=304), 4)):
        put(tmp_path, "proc/net/dev", counts)
        assert pressure.read().nic_errors == found
    pressure.close()


@pytest.mark.parametrize("told", ["sys/nothing", "sys/class/net/eth0/mtu", "sys/class/net/eno1/device/vendor"])
def test_without_a_network_card_its_errors_are_not_known(tmp_path: Path, told: str) -> None:
    put(tmp_path, told, b"")
    put(tmp_path, "proc/net/dev", dev(lo=0, eth0=0))
    pressure = Pressure(tmp_path)
    pressure.read()
    put(tmp_path, "proc/net/dev", dev(lo=7, eth0=7))  # A container's veth.
    assert pressure.read().nic_errors is None
    pressure.close()


def test_a_device_that_may_not_be_looked_at_is_no_card(tmp_path: Path) -> None:
    put(tmp_path, "proc/net/dev", dev(eth0=0) + dev(**{"e" * 300: 0}).removeprefix(HEADINGS))  # Too long for a name.
    put(tmp_path, "sys/class/net/eth0/device/vendor", b"0x1af4\n")
    pressure = Pressure(tmp_path)
    pressure.read()
    assert pressure.read().nic_errors == 0
    pressure.close()


def test_a_named_process_counts_from_its_second_read_and_not_when_it_is_gone(tmp_path: Path) -> None:
    pressure = Pressure(tmp_path)
    pressure.read((7,))
    put(tmp_path, "proc/7/stat", PROCESS)
    assert (pressure.read((7,)).own_share or 0) < SHARE_ONE << 8
    put(tmp_path, "proc/7/stat", PROCESS.replace(b" 57 ", b" 5700000000 "))
    assert (pressure.read((7,)).own_share or 0) > SHARE_ONE << 8
    put(tmp_path, "proc/7/stat", b"")
    assert (pressure.read((7,)).own_share or 0) < SHARE_ONE << 8
    put(tmp_path, "proc/7/stat", PROCESS)
    assert (pressure.read((7,)).own_share or 0) < SHARE_ONE << 8
    assert (pressure.read().own_share or 0) < SHARE_ONE << 8
    pressure.close()


def test_only_so_many_are_named_and_nothing_is_read_after_the_end(tmp_path: Path) -> None:
    pressure = Pressure(tmp_path)
    with pytest.raises(UsageError, match="17 processes are named"):
        pressure.read(range(1, NAMED_MAX + 2))
    pressure.close()
    with pytest.raises(UsageError, match="closed"):
        pressure.read()
