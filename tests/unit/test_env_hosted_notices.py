# SPDX-License-Identifier: Apache-2.0
"""Who runs it says so of itself; who only keeps it says what its journal does."""

from atoll.env.messages import Notice
from tests.unit.steward_world import CODE, ONE, TWO, Group, Place


def test_what_runs_here_is_told_as_ours_and_what_has_ended_as_over() -> None:
    place = Place()
    identity = place.run("shop")
    hosted = place.hosted(identity)
    assert hosted.notice() == Notice(identity, 1, ONE, "shop", "Counter", CODE, (ONE,))
    place.steward.stop(identity, place.now)
    place.settle()
    assert hosted.notice().ended


def test_what_is_kept_here_is_its_owners() -> None:
    group = Group("one", "two")
    identity = group["one"].run("shop", copies=2)
    group.until(
        lambda: (
            len(group["two"].hosted(identity).holding.holders) == 2
            if identity in group["two"].steward.hosted
            else False
        )
    )
    kept = group["two"].hosted(identity).believed()
    assert (kept.owner, kept.epoch, set(kept.holders)) == (ONE, 1, {ONE, TWO})
