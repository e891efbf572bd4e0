# SPDX-License-Identifier: Apache-2.0
"""The frame codec and the plaintexts, against the vectors of docs/spec/relay.md."""

import json
import re
from pathlib import Path

import pytest

from atoll.base.errors import UsageError, WireError
from atoll.device.nic.frame import FRAME_BYTES_MIN, Heading, inner_of, label_of, pack_label
from atoll.device.nic.plaintext import is_control, is_packet, pad_control, pad_copied, take_packet, unpad_control
from tests.unit.nic_world import ipv6, node_of, reforged

SPEC = Path(__file__).parents[2] / "docs" / "spec" / "relay.md"
FOUND = re.search(r"```json\n(.*?)```", SPEC.read_text("utf-8"), re.DOTALL)
assert FOUND is not None
VECTORS = json.loads(FOUND.group(1))
FRAME = bytes.fromhex(VECTORS["frame"]["frame"])
KEY = bytes.fromhex(VECTORS["frame"]["key"])
INNER = bytes.fromhex(VECTORS["frame"]["inner"])
LABEL = VECTORS["frame"]["label"]
HEADING = Heading(LABEL, KEY)


def test_frames_are_those_of_the_specification() -> None:
    assert Heading(VECTORS["frame"]["label"], KEY).pack(INNER) == FRAME
    assert label_of(FRAME) == VECTORS["frame"]["label"]
    assert inner_of(FRAME) == INNER
    assert HEADING.is_on(FRAME)
    onward = VECTORS["forwarded"]
    packed = Heading(onward["label"], bytes.fromhex(onward["key"])).pack(inner_of(FRAME))
    assert packed.hex() == onward["frame"]
    assert len(packed) == len(FRAME)


@pytest.mark.parametrize("offset", [4, 11, 12, 19, 20, 24, 28, 35])
def test_any_covered_bit_counts(offset: int) -> None:
    changed = bytearray(FRAME)
    changed[offset] ^= 0x40
    assert not HEADING.is_on(bytes(changed))


def test_another_key_is_not_authentic() -> None:
    assert not Heading(LABEL, bytes(32)).is_on(FRAME)


@pytest.mark.parametrize("kind", [0, 5, 7, 0x0104, 0xFFFF_FFFF])
def test_only_wireguard_travels_in_a_frame(kind: int) -> None:
    assert label_of(reforged(FRAME, inner=kind.to_bytes(4, "little") + INNER[4:])) is None


def test_a_frame_too_short_for_any_datagram_is_none() -> None:
    assert label_of(FRAME[: FRAME_BYTES_MIN - 1]) is None
    assert label_of(FRAME[:FRAME_BYTES_MIN]) is not None


@pytest.mark.parametrize("label", [-1, 1 << 63])
def test_labels_out_of_range_are_a_bug_of_ours(label: int) -> None:
    with pytest.raises(UsageError):
        pack_label(label)


def test_control_padding_is_that_of_the_specification() -> None:
    for vector in VECTORS["control"]:
        payload, plaintext = bytes.fromhex(vector["payload"]), bytes.fromhex(vector["plaintext"])
        assert pad_control(payload, vector["sent"], direct=vector["direct"]) == plaintext
        assert unpad_control(plaintext) == (payload, vector["sent"], vector["direct"])


@pytest.mark.parametrize("direct", [True, False])
def test_every_length_of_control_message_comes_back(direct: bool) -> None:
    for length in range(1, 50):
        payload = b"\x91" * length
        padded = pad_control(payload, length << 20, direct=direct)
        assert len(padded) % 16 == 0
        assert 5 <= len(padded) - length <= 20
        assert unpad_control(padded) == (payload, length << 20, direct)


@pytest.mark.parametrize(
    "plaintext",
    [
        b"\x91" + bytes(15),  # Count 0.
        b"\x91" + bytes(14) + b"\x80",  # Count 0, sent directly.
        b"\x91" + bytes(14) + b"\x11",  # Count 17.
        b"\x91" + bytes(14) + b"\x91",  # Count 17, sent directly.
        b"\x91" + bytes(14) + b"\x4b",  # A bit that means nothing.
        b"\x91" + bytes(12) + b"\x01\x00\x03",  # Padding that is not zero.
        b"\x91" + bytes(15) + b"\x01",  # 17 bytes.
        bytes(15) + b"\x10",  # Nothing but padding.
        bytes(15) + b"\x0c",  # Nothing but a count and padding.
        b"\x91" * 1201 + bytes(10) + b"\x07",  # One byte too long.
    ],
)
def test_other_padding_is_refused(plaintext: bytes) -> None:
    with pytest.raises(WireError):
        unpad_control(plaintext)


def test_what_may_be_a_control_message() -> None:
    assert is_control(b"\x91\x05")
    assert is_control(b"\x9f" * 1200)
    assert not is_control(b"\x9f" * 1201)
    assert not is_control(b"")
    assert not is_control(b"\x60\x05")


PACKET = ipv6(node_of(1), node_of(2), b"payload")
ADDRESSES = PACKET[8:40]


def test_a_packet_is_cut_to_its_own_length() -> None:
    for padding in range(32):
        assert take_packet(PACKET + bytes(padding)) == (PACKET, padding >= 16)


@pytest.mark.parametrize("length", range(40, 73))
def test_a_packet_that_goes_by_two_ways_is_a_block_longer(length: int) -> None:
    packet = ipv6(node_of(1), node_of(2), bytes(length - 40))
    padded = pad_copied(packet)
    assert len(padded) == (length + 15) // 16 * 16 + 16
    assert take_packet(padded) == (packet, True)


@pytest.mark.parametrize(
    ("plaintext", "reason"),
    [
        (b"\x60", "packet length"),
        (PACKET[:39], "packet length"),
        (PACKET[:-1], "packet length"),
        (PACKET + bytes(32), "packet length"),
    ],
)
def test_other_packets_are_refused(plaintext: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        take_packet(plaintext)


def test_what_may_be_a_packet_of_ours() -> None:
    assert is_packet(PACKET, ADDRESSES)
    assert not is_packet(PACKET, ADDRESSES[16:] + ADDRESSES[:16])
    assert not is_packet(PACKET + b"\0", ADDRESSES)
    assert not is_packet(b"\x45" + PACKET[1:], ADDRESSES)
    assert not is_packet(b"", ADDRESSES)
    assert is_packet(ipv6(node_of(1), node_of(2), bytes(9_216 - 40)), ADDRESSES)
    assert not is_packet(ipv6(node_of(1), node_of(2), bytes(9_217 - 40)), ADDRESSES)
