# SPDX-License-Identifier: Apache-2.0
"""No bytes make a registered decoder raise anything but its declared refusal. The list is in fuzz/targets.py."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

TARGETS = Path(__file__).resolve().parents[2] / "fuzz" / "targets.py"


class Decoder(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def seeds(self) -> tuple[bytes, ...]: ...


class Targets(Protocol):
    """What fuzz/targets.py offers. It is no package, so that nothing shipped can import it."""

    DECODERS: Sequence[Decoder]
    corpus_of: Callable[[Decoder], list[bytes]]
    run_once: Callable[[Decoder, bytes], bool]


def _load() -> Targets:
    specification = importlib.util.spec_from_file_location("fuzz_targets", TARGETS)
    assert specification is not None
    assert specification.loader is not None
    sys.path.insert(0, str(TARGETS.parent))  # For the module beside it.
    module = importlib.util.module_from_spec(specification)
    sys.modules["fuzz_targets"] = module  # Its dataclasses look themselves up there.
    specification.loader.exec_module(module)
    loaded: Targets = module  # pyright: ignore[reportAssignmentType]  Known at run time only.
    return loaded


targets = _load()
each_decoder = pytest.mark.parametrize("decoder", targets.DECODERS, ids=lambda decoder: str(decoder.name))
STATEFUL = {"conduits", "device", "members", "sessions"}  # Fed rows of steps, see fuzz/targets.py.
each_stateful = pytest.mark.parametrize(
    "decoder", [one for one in targets.DECODERS if one.name in STATEFUL], ids=lambda decoder: str(decoder.name)
)

# Masks that change a few bits of something real, plaintexts of either kind, heads of every kind of datagram, noise.
bodies = st.one_of(
    st.just(b""),
    st.integers(0, 150).flatmap(lambda at: st.integers(1, 255).map(lambda bits: bytes(at) + bytes((bits,)))),
    st.tuples(st.sampled_from((b"\x60\0\0\0", b"\x99\1", b"\x99\2", b"\x92\3")), st.binary(max_size=80)).map(b"".join),
    st.tuples(st.integers(0, 6).map(lambda kind: kind.to_bytes(4, "little")), st.binary(max_size=200)).map(b"".join),
    st.binary(max_size=1_300),
)
steps = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255), bodies), max_size=12)


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A good encoding with up to four cuts, changed bytes, insertions or repeated pieces."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        other = draw(st.integers(0, len(data)))
        first, last = min(place, other), max(place, other)
        match draw(st.integers(0, 3)):
            case 0:
                del data[first:last]
            case 1 if place < len(data):
                data[place] = draw(st.integers(0, 255))
            case 2:
                data[place:place] = draw(st.binary(max_size=8))
            case _:
                data[place:place] = data[first:last][:512]
    return bytes(data)


@each_decoder
def test_good_encodings_decode(decoder: Decoder) -> None:
    assert decoder.seeds
    assert all(targets.run_once(decoder, seed) for seed in decoder.seeds)


@each_decoder
def test_the_kept_corpus_is_decoded_or_refused(decoder: Decoder) -> None:
    for data in targets.corpus_of(decoder):
        targets.run_once(decoder, data)


@each_decoder
@given(data=st.data())
def test_damaged_encodings_are_decoded_or_refused(decoder: Decoder, data: st.DataObject) -> None:
    targets.run_once(decoder, data.draw(damaged(targets.corpus_of(decoder))))


@each_decoder
@given(noise=st.binary(max_size=2048))
def test_noise_is_decoded_or_refused(decoder: Decoder, noise: bytes) -> None:
    targets.run_once(decoder, noise)


@each_stateful
@given(steps=steps)
def test_no_row_of_steps_raises(decoder: Decoder, steps: list[tuple[int, int, bytes]]) -> None:
    """The target itself looks at bounds, at what is answered to strangers, and at the form of what is handed on."""
    row = b"".join(bytes((mode, pick)) + len(body).to_bytes(2, "little") + body for mode, pick, body in steps)
    targets.run_once(decoder, row)


def test_every_stateful_target_is_there() -> None:
    assert {decoder.name for decoder in targets.DECODERS} >= STATEFUL
