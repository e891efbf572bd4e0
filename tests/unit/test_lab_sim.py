# SPDX-License-Identifier: Apache-2.0
"""``make sim``: its command line, and that what it prints repeats a run."""

import pytest

from atoll.lab.sim import group_scenario, main


@pytest.mark.parametrize(
    "arguments", [("--seed", "x"), ("--seed", "5..1"), ("--nodes", "1"), ("--nodes", "21"), ("--seed", "")]
)
def test_wrong_arguments_are_told_with_a_fix(arguments: tuple[str, ...]) -> None:
    said: list[object] = []
    assert main(list(arguments), said.append) == 2
    assert str(said[0]).startswith("error A501: ")
    assert "\n  fix     " in str(said[0])


@pytest.mark.parametrize(
    ("nodes", "command"),
    [(5, "make sim SEED=9"), (2, "python -m atoll.lab.sim --seed 9 --nodes 2")],
)
def test_the_command_of_a_scenario_repeats_it(nodes: int, command: str) -> None:
    scenario = group_scenario(nodes)
    assert scenario.command.format(seed=9) == command
    assert len(scenario.topology(1).specs) == nodes
