# SPDX-License-Identifier: Apache-2.0
"""A node that hosts many: what is idle costs nothing, and a tick touches only what is due."""

from atoll.base.units import SECOND_NS
from atoll.env.limits import MAINTAIN_NS, NOTICE_NS, RESEND_NS
from tests.unit.steward_world import Later, Place


def looked_ns(place: Place, identity: bytes) -> int:
    """Return when the clock of an environment was looked at, which comes before each timer that could be due."""
    return place.hosted(identity)._clock._at_ns  # pyright: ignore[reportPrivateUsage]


def test_a_tick_touches_only_what_is_due() -> None:
    place = Place()
    place.attach()
    soon, late = place.run("soon"), place.run("late")
    place.send(soon, 1, Later(5))
    place.send(late, 1, Later(1_000))
    place.tick(RESEND_NS)
    before_ns = looked_ns(place, late)
    place.tick(5 * SECOND_NS - RESEND_NS)
    assert looked_ns(place, soon) == place.now_ns
    assert place.counter(soon)["n"] == 100
    assert looked_ns(place, late) == before_ns
    assert place.counter(late)["n"] == 0
    place.tick(1_000 * SECOND_NS)
    assert place.counter(late)["n"] == 100


def test_idle_environments_wake_nobody_but_to_tell_of_them() -> None:
    place = Place()
    for name in range(20):
        place.run(f"e{name}")
        place.tick(SECOND_NS // 100)
    place.tick(RESEND_NS)
    place.tick(RESEND_NS)
    begun_ns, ticks = place.now_ns, 0
    while place.now_ns < begun_ns + 4 * NOTICE_NS:
        due_ns = place.steward.deadline_ns
        assert due_ns is not None
        place.tick(due_ns - place.now_ns)
        ticks += 1
    assert ticks <= 4 * NOTICE_NS // MAINTAIN_NS + 1 + 4 + 1, "once for both at most, however many there are"
