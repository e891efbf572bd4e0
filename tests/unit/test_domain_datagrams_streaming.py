# SPDX-License-Identifier: Apache-2.0
"""Until when small messages stay behind large ones."""

from atoll.base.ids import NODE_ID_BYTES, NodeId
from atoll.base.units import KIB, MIB
from atoll.domain.datagrams import STREAM_BYTES_S, STREAM_S, STREAM_S_MAX, Streaming

A, B = NodeId(b"a" * NODE_ID_BYTES), NodeId(b"b" * NODE_ID_BYTES)


def test_a_large_message_holds_what_follows_for_a_moment() -> None:
    streaming = Streaming()
    assert not streaming.is_going_on(A, 100.0)
    streaming.note(A, 0, 100.0)
    assert streaming.is_going_on(A, 100.0 + STREAM_S / 2)
    assert not streaming.is_going_on(A, 100.0 + STREAM_S)
    assert not streaming.is_going_on(B, 100.0)


def test_parts_that_follow_each_other_hold_it_for_as_long_as_all_of_them_take() -> None:
    streaming = Streaming()
    for part in range(4):
        streaming.note(A, 256 * KIB, 100.0 + part / 100)
    assert streaming.is_going_on(A, 100.0 + MIB / STREAM_BYTES_S)
    assert not streaming.is_going_on(A, 100.0 + STREAM_S + MIB / STREAM_BYTES_S + 0.04)


def test_nothing_holds_it_for_good() -> None:
    streaming = Streaming()
    streaming.note(A, 1 << 40, 100.0)
    assert not streaming.is_going_on(A, 100.0 + STREAM_S_MAX)


def test_who_is_no_member_is_forgotten() -> None:
    streaming = Streaming()
    streaming.note(A, 0, 100.0)
    streaming.note(B, 0, 100.0)
    streaming.keep(frozenset({B}))
    assert not streaming.is_going_on(A, 100.0)
    assert streaming.is_going_on(B, 100.0)
