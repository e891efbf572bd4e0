# SPDX-License-Identifier: Apache-2.0
"""Journals of a small but real machine (a lease desk with randomness): record, cut, damage, restart, replay."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import CorruptError, DivergenceError, LimitError
from atoll.core.entropy import Draws
from atoll.core.journal import Provenance, Record, Recorder, SegmentStart, TornTail, read
from atoll.core.lease import Lease, LeaseTable
from atoll.core.machine import MachineKind, Tick, Tuple
from atoll.core.replay import Replayed, ReplayResult, replay


class Asked(Tuple, frozen=True):
    duration_ns: int


class GaveBack(Tuple, frozen=True):
    lease: Lease


class Granted(Tuple, frozen=True):
    lease: Lease
    secret: bytes


class Refused(Tuple, frozen=True):
    pass


class Ended(Tuple, frozen=True):
    lease: Lease


class DeskState(msgspec.Struct):
    leases: LeaseTable
    draws: Draws


class Desk:
    """Grants at most three leases, each with a random word."""

    def __init__(self, state: DeskState) -> None:
        self._state = state

    @property
    def deadline_ns(self) -> int | None:
        return self._state.leases.deadline_ns

    def handle(self, event: Asked | GaveBack | Tick, now_ns: int) -> Sequence[Granted | Refused | Ended]:
        match event:
            case Asked(duration_ns):
                try:
                    lease = self._state.leases.grant(now_ns, duration_ns)
                except LimitError:
                    return (Refused(),)
                return (Granted(lease, self._state.draws.token(4)),)
            case GaveBack(lease):
                self._state.leases.release(lease)
                return ()
            case Tick():
                return [Ended(lease) for lease in self._state.leases.expire(now_ns)]

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self._state)


def restore(state: bytes) -> Desk:
    return Desk(msgspec.msgpack.decode(state, type=DeskState))


DeskInput = Asked | GaveBack | Tick
DeskEffect = Granted | Refused | Ended
KIND: MachineKind[DeskInput, DeskEffect] = MachineKind("desk", 1, DeskInput, DeskEffect, restore)
KINDS = {"desk": KIND}
PROVENANCE = Provenance("0.1.0", "node", 10**18, 0)

events = st.lists(
    st.tuples(
        st.one_of(
            st.builds(Asked, st.integers(1, 40)),
            st.builds(GaveBack, st.builds(Lease, st.integers(0, 3), st.integers(1, 9), st.just(0))),
            st.just(Tick()),
        ),
        st.integers(0, 30),
    ),
    max_size=30,
)
seeds = st.binary(min_size=1, max_size=64)
segment_sizes = st.integers(1, 400)


def fresh(seed: bytes) -> Desk:
    return Desk(DeskState(LeaseTable(3), Draws(seed)))


@dataclass
class Recording:
    files: list[bytes]
    digest: bytes
    state: bytes
    effects: list[DeskEffect]


def record(script: Iterable[tuple[DeskInput, int]], seed: bytes, segment_bytes_max: int) -> Recording:
    recorder = Recorder(KIND, fresh(seed), PROVENANCE, segment_bytes_max=segment_bytes_max)
    files: dict[int, bytes] = {}
    effects: list[DeskEffect] = []
    now_ns = 0
    for event, passed_ns in script:
        now_ns += passed_ns
        effects += recorder.handle(event, now_ns)
        if now_ns % 2:
            for append in recorder.drain():
                files[append.segment] = files.get(append.segment, b"") + append.payload
    for append in recorder.drain():
        files[append.segment] = files.get(append.segment, b"") + append.payload
    assert list(files) == list(range(len(files)))
    return Recording(list(files.values()), recorder.digest, recorder.snapshot(), effects)


@given(events, seeds, segment_sizes)
def test_a_recorded_machine_does_what_an_unrecorded_one_does(
    script: list[tuple[DeskInput, int]], seed: bytes, size: int
) -> None:
    plain, now_ns = fresh(seed), 0
    effects: list[DeskEffect] = []
    for event, passed_ns in script:
        now_ns += passed_ns
        effects += plain.handle(event, now_ns)
        _ = plain.deadline_ns  # A driver reads it after each input; that must not show in the state.
    recording = record(script, seed, size)
    assert recording.effects == effects
    assert recording.state == plain.snapshot()


@given(events, seeds, segment_sizes)
def test_a_replay_ends_in_the_same_digest_and_state_from_every_segment(
    script: list[tuple[DeskInput, int]], seed: bytes, size: int
) -> None:
    recording = record(script, seed, size)
    effects: list[object] = []
    whole = replay(KINDS, recording.files, show=lambda step: effects.extend(step.effects))
    assert (whole.inputs, whole.digest, whole.state) == (len(script), recording.digest, recording.state)
    assert effects == recording.effects
    for first in range(len(recording.files)):
        part = replay(KINDS, recording.files[first:])
        assert (part.sequence, part.digest, part.state) == (len(script), recording.digest, recording.state)


def items_of(data: bytes) -> list[SegmentStart | Record | TornTail]:
    return list(read(data))


@given(events, seeds, st.data())
def test_any_cut_leaves_the_whole_records_before_it(
    script: list[tuple[DeskInput, int]], seed: bytes, data: st.DataObject
) -> None:
    whole = b"".join(record(script, seed, 300).files)
    cut = data.draw(st.integers(0, len(whole)))
    items = items_of(whole)
    left = items_of(whole[:cut])
    torn = left.pop() if left and isinstance(left[-1], TornTail) else None
    assert left == items[: len(left)]
    # Maximal: the next item does not end before the cut. Its end is where the one after it begins.
    following = items[len(left) + 1 :]
    end = following[0].offset if following else len(whole)
    assert cut == len(whole) or end > cut
    assert (torn is None) == (cut == (items[len(left)].offset if len(left) < len(items) else len(whole)))
    if torn is not None:
        assert torn.offset == items[len(left)].offset


def outcome(data: bytes) -> ReplayResult | None:
    try:
        return replay(KINDS, [data])
    except CorruptError:
        return None


@given(events, seeds, st.data())
def test_a_changed_byte_is_corruption(script: list[tuple[DeskInput, int]], seed: bytes, data: st.DataObject) -> None:
    whole = b"".join(record(script, seed, 300).files)
    place = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.integers(1, 255))
    damaged = whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :]
    assert outcome(damaged) is None


@given(st.binary(max_size=300), events)
def test_any_bytes_are_read_or_refused(noise: bytes, script: list[tuple[DeskInput, int]]) -> None:
    whole = b"".join(record(script[:3], b"seed", 300).files)
    for data in (noise, whole + noise, noise + whole):
        outcome(data)  # Anything but a result or a CorruptError fails the test.


class SilentDesk(Desk):
    """The same desk with a bug: it refuses without saying so."""

    def handle(self, event: DeskInput, now_ns: int) -> Sequence[DeskEffect]:
        return [effect for effect in super().handle(event, now_ns) if not isinstance(effect, Refused)]


def restore_silent(state: bytes) -> Desk:
    return SilentDesk(msgspec.msgpack.decode(state, type=DeskState))


SILENT_KIND: MachineKind[DeskInput, DeskEffect] = MachineKind("desk", 1, DeskInput, DeskEffect, restore_silent)


@given(events, seeds, segment_sizes)
def test_a_changed_decision_is_found_at_its_first_input(
    script: list[tuple[DeskInput, int]], seed: bytes, size: int
) -> None:
    files = record(script, seed, size).files
    refusals: list[int] = []

    def note(step: Replayed) -> None:
        if Refused() in step.effects:
            refusals.append(step.sequence)

    replay(KINDS, files, show=note)
    found: list[int] = []
    try:
        replay({"desk": SILENT_KIND}, files)
    except DivergenceError as error:
        found.append(error.sequence)
    assert found == refusals[:1]
