# SPDX-License-Identifier: Apache-2.0
"""A replay repeats a recording or names the first input where it does not."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest

from atoll.base.errors import CorruptError, DivergenceError, UserError
from atoll.core.journal import DIGEST_BYTES, Provenance, Recorder, Suspension
from atoll.core.machine import MachineKind, Tick, Tuple
from atoll.core.replay import Replayed, replay


class Turned(Tuple, frozen=True):
    by: int


class Clicked(Tuple, frozen=True):
    at: int


class Dial:
    """A dial of ten positions that clicks at each full turn; breaks on 99."""

    clicks_at = 10

    def __init__(self, position: int, turns: int) -> None:
        self.position, self.turns = position, turns
        self.deadline_ns: int | None = None

    def handle(self, event: Turned | Tick, now_ns: int) -> Sequence[Clicked]:
        if isinstance(event, Tick):
            return [Clicked(now_ns)]
        self.position += event.by
        if event.by == 99:
            raise ValueError("turned too far")
        turns, self.position = divmod(self.position, self.clicks_at)
        self.turns += turns
        return [Clicked(now_ns)] * turns

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode([self.position, self.turns])


class EarlyDial(Dial):
    """The same with another decision in it."""

    clicks_at = 9


class ForgetfulDial(Dial):
    """The same effects from another state."""

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode([self.position, self.turns % 2])


def kind_of(dial: type[Dial], version: int = 1) -> MachineKind[Turned | Tick, Clicked]:
    def restore(state: bytes) -> Dial:
        return dial(*msgspec.msgpack.decode(state, type=tuple[int, int]))

    return MachineKind("dial", version, Turned | Tick, Clicked, restore)


KIND = kind_of(Dial)
KINDS = {"dial": KIND}
PROVENANCE = Provenance(product="0.1.0", node="fra-1", wall_ns=5_000, started_ns=100)


class Recording:
    """One run of a dial, and its segments as a shell would have stored them."""

    def __init__(self, *, sequence: int = 0, provenance: Provenance = PROVENANCE, bytes_max: int = 120) -> None:
        self.recorder = Recorder(KIND, Dial(0, 0), provenance, sequence=sequence, segment_bytes_max=bytes_max)
        self.now_ns = 100

    def turn(self, *steps: int) -> "Recording":
        for by in steps:
            self.now_ns += 10
            self.recorder.handle(Turned(by), self.now_ns)
        return self

    def segments(self) -> list[bytes]:
        files: dict[int, bytes] = {}
        for append in self.recorder.drain():
            files[append.segment] = files.get(append.segment, b"") + append.payload
        return list(files.values())


def test_a_recording_repeats_itself() -> None:
    recording = Recording().turn(*range(8))
    segments = recording.segments()
    result = replay(KINDS, segments)
    assert len(segments) > 1
    assert (result.inputs, result.sequence, result.kind, result.segments) == (8, 8, "dial", len(segments))
    assert (result.runs, result.gaps, result.torn, result.raised) == (1, 0, 0, 0)
    assert result.digest == recording.recorder.digest
    assert result.state == recording.recorder.snapshot()


def test_one_file_of_all_segments_is_the_same() -> None:
    segments = Recording().turn(*range(8)).segments()
    assert replay(KINDS, [b"".join(segments)]) == replay(KINDS, segments)


def test_a_replay_can_start_at_any_segment() -> None:
    segments = Recording().turn(*range(12)).segments()
    whole = replay(KINDS, segments)
    assert len(segments) >= 3
    for first in range(1, len(segments)):
        part = replay(KINDS, segments[first:])
        assert (part.digest, part.state, part.sequence) == (whole.digest, whole.state, whole.sequence)
        assert part.inputs < whole.inputs


def test_nothing_whole_is_an_empty_result() -> None:
    for segments in ([], [b""], [b"\x89ATJ"]):
        result = replay(KINDS, segments)
        assert (result.inputs, result.sequence, result.state, result.kind) == (0, 0, b"", "")
    assert replay(KINDS, [b"\x89ATJ"]).torn == 1


def test_until_stops_after_that_input() -> None:
    segments = Recording().turn(*range(12)).segments()
    for until in range(13):
        assert replay(KINDS, segments, until=until).state == Recording().turn(*range(until)).recorder.snapshot()
    assert replay(KINDS, segments, until=99).sequence == 12


def test_until_before_the_oldest_snapshot_is_refused() -> None:
    segments = Recording().turn(*range(12)).segments()
    oldest = replay(KINDS, segments[:1]).sequence
    with pytest.raises(UserError, match=f"A501: this journal begins after input {oldest - 1}"):
        replay(KINDS, segments[1:], until=oldest - 1)
    assert replay(KINDS, segments[1:], until=oldest).inputs == 0


def test_until_does_not_run_into_the_next_life() -> None:
    first, second = Recording().turn(5, 5, 5), Recording(sequence=3).turn(7)
    segments = first.segments() + second.segments()
    assert replay(KINDS, segments, until=3).state == first.recorder.snapshot()
    result = replay(KINDS, segments)
    assert (result.runs, result.sequence, result.state) == (2, 4, second.recorder.snapshot())


def test_show_gets_every_input_with_its_effects_and_wall_time() -> None:
    recording = Recording().turn(4, 7)
    recording.recorder.handle(Tick(), 300)
    shown: list[Replayed] = []
    replay(KINDS, recording.segments(), show=shown.append)
    assert shown == [
        Replayed(1, 110, 5_010, Turned(4), (), None, agrees=True),
        Replayed(2, 120, 5_020, Turned(7), (Clicked(120),), None, agrees=True),
        Replayed(3, 300, 5_200, Tick(), (Clicked(300),), None, agrees=True),
    ]


def test_the_first_differing_input_is_named_and_shown() -> None:
    segments = Recording().turn(4, 4, 1, 1).segments()
    shown: list[Replayed] = []
    with pytest.raises(DivergenceError, match=r"input 3: recorded effects [0-9a-f]{16}, replayed [0-9a-f]{16}"):
        replay({"dial": kind_of(EarlyDial)}, segments, show=shown.append)
    assert shown[-1] == Replayed(3, 130, 5_030, Turned(1), (Clicked(130),), None, agrees=False)
    assert [item.agrees for item in shown] == [True, True, False]


def test_a_state_that_differs_is_found_where_a_segment_continues() -> None:
    segments = Recording().turn(*[10] * 9).segments()
    continued_at = replay(KINDS, segments[:1]).sequence
    with pytest.raises(DivergenceError, match=rf"input {continued_at}: recorded effects state .*, replayed state "):
        replay({"dial": kind_of(ForgetfulDial)}, segments)


def test_a_digest_that_differs_is_found_where_a_segment_continues() -> None:
    first = Recording().turn(*range(12)).segments()[0]
    sequence = replay(KINDS, [first]).sequence
    # The same place, continued by a recorder that saw other effects.
    rollover = Recording(sequence=sequence - 1, bytes_max=1).turn(0).segments()[1]
    with pytest.raises(DivergenceError) as caught:
        replay(KINDS, [first, rollover])
    assert caught.value.sequence == sequence


def test_a_machine_that_raised_raises_again_and_agrees() -> None:
    recording = Recording().turn(4)
    with pytest.raises(ValueError, match="too far"):
        recording.turn(99)
    recording.turn(1)
    shown: list[Replayed] = []
    result = replay(KINDS, recording.segments(), show=shown.append)
    assert (result.inputs, result.raised) == (3, 1)
    assert (shown[1].raised, shown[1].effects) == ("ValueError", ())
    assert result.state == recording.recorder.snapshot()


def test_a_machine_that_raises_only_now_diverges() -> None:
    class Brittle(Dial):
        def handle(self, event: Turned | Tick, now_ns: int) -> Sequence[Clicked]:
            if now_ns == 120:
                raise KeyError(now_ns)
            return super().handle(event, now_ns)

    with pytest.raises(DivergenceError, match="input 2"):
        replay({"dial": kind_of(Brittle)}, Recording().turn(1, 1).segments())


def test_a_gap_is_counted_and_not_an_error() -> None:
    recording = Recording().turn(4)
    segments = recording.segments()
    recording.recorder.suspend(Suspension.STORAGE)
    recording.turn(5, 5)
    recording.recorder.resume()
    segments += recording.turn(8).segments()
    result = replay(KINDS, segments)
    assert (result.inputs, result.sequence, result.gaps) == (2, 4, 1)
    assert result.state == recording.recorder.snapshot()


def test_a_torn_segment_at_the_end_is_counted() -> None:
    segments = Recording().turn(*range(11)).segments()
    result = replay(KINDS, [*segments[:-1], segments[-1][:-1]])
    assert (result.torn, result.sequence) == (1, 10)


def test_a_missing_segment_is_corruption() -> None:
    first, _, third, *_ = Recording().turn(*range(16)).segments()
    with pytest.raises(CorruptError, match=r"segment file 2, offset 0: a segment after input \d+, not \d+"):
        replay(KINDS, [first, third])


def test_a_segment_of_another_run_does_not_continue() -> None:
    first = Recording().turn(*range(8)).segments()[0]
    other = Recording(provenance=replace(PROVENANCE, wall_ns=6_000)).turn(*range(8)).segments()[1]
    with pytest.raises(CorruptError, match="continues another run"):
        replay(KINDS, [first, other])


def test_another_version_of_the_machine_is_named_with_its_fix() -> None:
    with pytest.raises(UserError) as caught:
        replay({"dial": kind_of(Dial, version=2)}, Recording().segments())
    error = caught.value
    assert str(error) == "A301: this journal is of version 1 of the dial machine, and this atoll has version 2"
    assert error.fix == "replay it with atoll 0.1.0"
    assert error.where == "recorded by atoll 0.1.0 on node fra-1"


def test_an_unknown_machine_is_named() -> None:
    with pytest.raises(UserError, match="A301: this journal is of a machine called dial") as caught:
        replay({}, Recording().segments())
    assert caught.value.where.startswith("it has: none")


def test_an_input_of_another_form_is_corruption() -> None:
    strict: MachineKind[Tick, Clicked] = MachineKind("dial", 1, Tick, Clicked, KIND.restore)
    with pytest.raises(CorruptError, match=r"dial input does not decode \(input 1\)"):
        replay({"dial": strict}, Recording().turn(1).segments())


def test_the_digest_of_a_journal_without_inputs_is_zero() -> None:
    assert replay(KINDS, Recording().segments()).digest == bytes(DIGEST_BYTES)
