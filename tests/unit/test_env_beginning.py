# SPDX-License-Identifier: Apache-2.0
"""Who may not have a name learns why, and what frees it; what that loses it says."""

import pytest

from atoll.env.beginning import Begun, Stuck, Wanted, taken, unusable
from atoll.env.graves import Barred
from tests.unit.steward_world import PROGRAM, Place, encode


def test_a_name_of_what_runs_is_not_to_be_had() -> None:
    error = taken("shop", None)
    assert (error.code, error.where, error.fix) == ("A606", "", "choose another: --name NAME")


@pytest.mark.parametrize(
    ("stuck", "reason", "way_out"),
    [
        (
            Stuck("shop", ("two",)),
            "it cannot run without two, which cannot be reached",
            "bring two back; if that is lost for good, and with it what only it has: atoll remove two",
        ),
        (
            Stuck("shop", ("two", "three"), ("one",)),
            "it cannot run without two, three, which cannot be reached",
            (
                "bring two and three back; if that is lost for good, and with it what only it has: "
                "atoll env stop shop --anyway, on one"
            ),
        ),
        (
            Stuck("shop", (), ("one",)),
            "too few of the nodes that keep it are members any more",
            "atoll env stop shop --anyway, on one",
        ),
    ],
)
def test_what_nobody_can_run_says_whom_it_waits_for_and_what_ends_it(stuck: Stuck, reason: str, way_out: str) -> None:
    assert (stuck.reason, stuck.way_out) == (reason, way_out)
    error = taken("shop", stuck)
    assert (error.code, error.where) == ("A606", reason)
    assert error.fix == f"choose another: --name NAME; or {way_out}"


def test_what_has_begun_says_what_it_was_made_of() -> None:
    place = Place()
    wanted = Wanted("shop", b"c" * 32, encode({}), 1)
    begun = place.steward.begin(wanted, PROGRAM, place.now)
    assert begun == Begun(wanted, begun.runner, begun.began)
    assert begun.began.name == "shop"


def test_a_name_whose_journal_here_cannot_be_used_is_not_to_be_had() -> None:
    error = unusable(Barred(b"a" * 16, "shop", "block 3: its chain does not check"))
    assert error.code == "A606"
    assert error.where == "its journal on this node cannot be used: block 3: its chain does not check"
    assert error.fix.endswith("atoll audit verify shop; or end it: atoll env stop shop")
