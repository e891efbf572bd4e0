# SPDX-License-Identifier: Apache-2.0
"""The trace: order and content decide the digest, chunking does not."""

from atoll.sim.trace import WORLD, Kind, Trace

Record = tuple[int, int, int, Kind, bytes]
RECORDS: tuple[Record, ...] = (
    (0, 0, WORLD, Kind.START, b""),
    (5, 0, 1, Kind.SEND, b"hello"),
    (9, 1, 0, Kind.RECEIVE, b"hello"),
    (11, 1, WORLD, Kind.TICK, b""),
)


def digest_of(records: tuple[Record, ...]) -> str:
    trace = Trace()
    for record in records:
        trace.add(*record)
    return trace.digest()


def test_equal_records_equal_digest_and_any_change_shows() -> None:
    assert digest_of(RECORDS) == digest_of(RECORDS)
    variants: tuple[Record, ...] = (
        (6, 0, 1, Kind.SEND, b"hello"),
        (5, 2, 1, Kind.SEND, b"hello"),
        (5, 0, 2, Kind.SEND, b"hello"),
        (5, 0, 1, Kind.INJECT, b"hello"),
        (5, 0, 1, Kind.SEND, b"hellp"),
    )
    changed = {digest_of(RECORDS), digest_of(RECORDS[::-1]), digest_of(RECORDS[:3])}
    changed |= {digest_of((RECORDS[0], variant, *RECORDS[2:])) for variant in variants}
    assert len(changed) == 8


def test_reading_the_digest_does_not_change_it_and_buffers_do_not_show() -> None:
    whole, asked = Trace(), Trace()
    for number in range(200):
        whole.add(number, 0, 1, Kind.SEND, bytes(1000))
        asked.add(number, 0, 1, Kind.SEND, bytes(1000))
        asked.digest()
    assert whole.digest() == asked.digest() == whole.digest()
    assert whole.count == 200


def test_the_newest_records_are_kept_and_readable() -> None:
    trace = Trace(keep=3)
    for record in (*RECORDS, (1_500_000_000, WORLD, WORLD, Kind.FAULT, b"heal")):
        trace.add(*record)
    kept = trace.kept()
    assert [happened.kind for happened in kept] == [Kind.RECEIVE, Kind.TICK, Kind.FAULT]
    assert [str(happened).split() for happened in kept] == [
        ["0.000000", "s", "node", "1", "receive", "0", "5", "B", "68656c6c6f"],
        ["0.000000", "s", "node", "1", "tick"],
        ["1.500000", "s", "world", "fault", "heal"],
    ]
    assert Trace().kept() == ()
