# SPDX-License-Identifier: Apache-2.0
"""Datagrams over any network: whatever is lost, copied, delayed or begun anew, nothing comes twice."""

from contextlib import suppress
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import WireError
from atoll.base.ids import NODE_ID_BYTES, NodeId
from atoll.base.units import MILLISECOND_NS
from atoll.conduit.datagrams import WINDOW_MAX, ReliableDatagrams

NAMES = NodeId(b"a" * NODE_ID_BYTES), NodeId(b"b" * NODE_ID_BYTES)


@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from((0.0, 0.1, 0.5, 0.9, 1.0)),
    copies=st.sampled_from((0.0, 0.3)),
    spread_ms=st.integers(0, 80),
    restarts=st.sampled_from((0.0, 0.02)),
)
def test_each_message_comes_once_or_is_given_up_and_then_it_is_quiet(
    seed: int, loss: float, copies: float, spread_ms: int, restarts: float
) -> None:
    rng = Random(seed)
    sides = [ReliableDatagrams(1), ReliableDatagrams(2)]
    lost, lives = 0, 2
    taken: tuple[list[bytes], list[bytes]] = ([], [])
    came: tuple[list[bytes], list[bytes]] = ([], [])
    on_way: list[tuple[int, int, int, bytes]] = []
    now_ns, count = 0, 0

    def drain() -> None:
        nonlocal count
        for index, side in enumerate(sides):
            assert len({payload[5:9] for _, payload in side.outbox}) <= WINDOW_MAX + 1
            for _, payload in side.outbox:
                for _ in range(1 + (rng.random() < copies)):
                    if rng.random() >= loss:
                        count += 1
                        delay_ns = (1 + rng.randint(0, spread_ms)) * MILLISECOND_NS
                        on_way.append((now_ns + delay_ns, count, 1 - index, payload))
            side.outbox.clear()

    for step in range(4_000):
        if step < 200 and rng.random() < restarts:
            index = rng.randrange(2)
            lost += sides[index].lost + WINDOW_MAX  # Nobody knows of what was on its way.
            lives += 1
            sides[index] = ReliableDatagrams(lives)
        if step < 200:
            index = rng.randrange(2)
            body = b"%d" % step
            if sides[index].send(NAMES[1 - index], body, now_ns):
                taken[index].append(body)
            drain()
        on_way.sort()
        due = [at for side in sides if (at := side.deadline_ns) is not None] + [at for at, *_ in on_way[:1]]
        if step >= 200 and not due:
            break
        now_ns = max(now_ns, min(due, default=now_ns)) if step >= 200 else now_ns + rng.randint(0, 20) * MILLISECOND_NS
        while on_way and on_way[0][0] <= now_ns:
            _, _, target, payload = on_way.pop(0)
            got = sides[target].receive(NAMES[1 - target], payload, now_ns)
            if got is not None:
                came[target].append(got)
        for side in sides:
            side.tick(now_ns)
        drain()
    else:
        raise AssertionError("they never fall silent")
    for index in range(2):
        assert len(came[1 - index]) == len(set(came[1 - index])), "nothing is given twice"
        assert set(came[1 - index]) <= set(taken[index])
    missing = sum(map(len, taken)) - sum(map(len, came))
    assert missing <= lost + sum(side.lost for side in sides)
    if loss == 0.0 and restarts == 0.0:
        assert missing == 0
        assert all(taken)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_bytes_do_harm(first: bytes, second: bytes) -> None:
    side = ReliableDatagrams(1)
    side.send(NAMES[1], b"waits", 0)
    for payload in (first, second, b"\1" + first, b"\2" + second):
        with suppress(WireError):
            side.receive(NAMES[1], payload, 0)
    side.tick(10**10)
    assert side.lost <= 1
