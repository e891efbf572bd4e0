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
    module = importlib.util.module_from_spec(specification)
    sys.modules["fuzz_targets"] = module  # Its dataclasses look themselves up there.
    specification.loader.exec_module(module)
    loaded: Targets = module  # pyright: ignore[reportAssignmentType]  Known at run time only.
    return loaded


targets = _load()
each_decoder = pytest.mark.parametrize("decoder", targets.DECODERS, ids=lambda decoder: str(decoder.name))


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
