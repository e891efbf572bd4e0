# SPDX-License-Identifier: Apache-2.0
"""Whatever members say about who owns an environment: no machine raises, commits go forward, replays are the same."""

from hypothesis import given
from hypothesis import strategies as st

from atoll.core.machine import Tick
from atoll.env.holding import Holding
from atoll.env.holding.events import Heard, HoldersAsked, HoldingInput, MoveAsked, Suspected
from atoll.env.holding.messages import (
    Block,
    Canvass,
    HandOver,
    PartStored,
    Promised,
    SnapshotPart,
    Store,
    Stored,
    decode,
    encode,
)
from tests.unit.holding_bench import A, B, Bench, C, D, block, rows

few = st.integers(0, 4)
epochs = st.integers(1, 4)
nodes = st.sampled_from((A, B, C, D))
holders = st.lists(nodes, max_size=3).map(tuple)
blocks = st.builds(Block, epochs, epochs, holders, st.just(b"s"))
row = st.tuples(few, st.lists(epochs, max_size=3)).map(
    lambda drawn: tuple(block(number, epoch) for number, epoch in enumerate(sorted(drawn[1]), drawn[0] + 1))
)
messages = st.one_of(
    st.builds(Store, epochs, few, few, st.lists(blocks, max_size=3).map(tuple) | row, few, few, counted=st.booleans()),
    st.builds(Stored, few, st.booleans(), few, few),
    st.builds(Canvass, epochs, few, few, st.booleans(), st.booleans()),
    st.builds(Promised, few, epochs, st.booleans(), st.booleans()),
    st.builds(HandOver, epochs, holders),
    st.builds(SnapshotPart, epochs, epochs, epochs, holders, few, epochs, st.binary(max_size=4), few),
    st.builds(PartStored, few, epochs, few, few),
)
inputs = st.one_of(
    st.builds(Heard, nodes, messages),
    st.just(Tick()),
    st.builds(Suspected, nodes),
    st.builds(MoveAsked, nodes),
    st.builds(HoldersAsked, holders),
)


@given(st.sampled_from(("new", "base", "owner", "alone")), st.lists(inputs, max_size=30), st.booleans())
def test_nothing_that_is_said_raises(kind: str, events: list[HoldingInput], answers: bool) -> None:
    bench = {
        "new": lambda: Bench((A, B, C), blocks=rows(1, 1), promise=(1, b"")),
        "base": lambda: Bench((A, B, C), base=(2, 2), promise=(2, B)),
        "owner": lambda: Bench((A, B), blocks=rows(1), promise=(1, b"")),
        "alone": lambda: Bench((A,)),
    }[kind]()
    if kind == "owner":
        bench.elect(B)
    bench.answers = answers
    committed, left = bench.machine.committed, False
    for event in events:
        copy = Holding.restore(bench.machine.snapshot())
        if event == Tick():
            bench.now_ns = max(bench.now_ns, bench.machine.deadline_ns or 0)
        effects = list(copy.handle(event, bench.now_ns))
        bench.do(event)
        assert bench.effects[: len(effects)] == effects or answers
        left = left or any(type(effect).__name__ == "Left" for effect in bench.effects)
        assert bench.machine.committed >= committed or left
        committed = bench.machine.committed
        if bench.role() == "owner":
            bench.propose()


@given(messages)
def test_letters_come_back(message: object) -> None:
    assert isinstance(message, Store | Stored | Canvass | Promised | HandOver | SnapshotPart | PartStored)
    assert decode(encode(bytes(16), message)) == (bytes(16), message)
