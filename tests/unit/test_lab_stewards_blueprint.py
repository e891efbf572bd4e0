# SPDX-License-Identifier: Apache-2.0
"""The code of simulated applications: each generation of it is another bundle, and takes over what is kept."""

import pytest

from atoll.domain.loading import decode_bundle
from atoll.env.environment import Environment
from atoll.lab.stewards import apps
from atoll.lab.stewards.blueprint import GENERATIONS, PLANTED, bundle, loaded
from tests.unit.env_world import began
from tests.unit.quiet_world import arrived

ANN = b"a" * 16


@pytest.mark.parametrize("app", sorted({planted.app for planted in PLANTED}))
def test_each_generation_is_code_of_its_own_that_can_run(app: str) -> None:
    found = [loaded(app, generation) for generation in range(1, GENERATIONS + 1)]
    assert len({one.code for one in found}) == GENERATIONS
    for generation, one in enumerate(found, 1):
        assert decode_bundle(bundle(app, generation)).app == app
        environment = Environment.blank(one.program)
        environment.handle(began(), 5)
        assert environment.fields()["generation"] == generation


def test_what_is_kept_is_taken_over_by_every_later_generation() -> None:
    environment = Environment.blank(loaded("Counter").program)
    environment.handle(began(), 5)
    environment.handle(arrived(ANN, 1, apps.Add(7, 1, 5)), 6)
    for generation in range(2, GENERATIONS + 1):
        later = Environment.restore(loaded("Counter", generation).program, environment.snapshot())
        fields = later.fields()
        assert (fields["generation"], fields["total"], fields["done"]) == (generation, 5, {7: [1]})


def test_names_are_of_one_environment_each_and_some_are_always_begun() -> None:
    names = [planted.name for planted in PLANTED]
    assert len(set(names)) == len(names)
    assert [planted.name for planted in PLANTED if not planted.is_spare] == ["bank-a", "bank-b"]
