# SPDX-License-Identifier: Apache-2.0
"""The example in the simulator's reference runs, and its tables name what exists."""

import re
from pathlib import Path

from atoll.sim import FaultKind, LinkSpec, World

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "simulator.md").read_text()


def test_the_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(example, "simulator.md", "exec"), {})


def test_every_fault_and_every_field_of_a_link_is_described() -> None:
    assert all(str(kind) in PAGE for kind in FaultKind)
    assert all(f"`{field}`" in PAGE for field in LinkSpec.__dataclass_fields__)


def test_every_call_in_the_table_of_the_world_exists() -> None:
    table = PAGE.partition("## World")[2].partition("Always checked")[0]
    calls = re.findall(r"`(\w+)[`(]", "\n".join(row.split("|")[1] for row in table.splitlines() if "|" in row))
    assert len(calls) > 15
    attributes = {"stats", "trace"}
    assert all(hasattr(World, call) for call in calls if call not in attributes)
