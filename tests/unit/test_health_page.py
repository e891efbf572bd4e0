# SPDX-License-Identifier: Apache-2.0
"""The page about the model shows the table that the code runs on."""

from pathlib import Path

from atoll.health.model import TOLD, TRANSITIONS

PAGE = Path(__file__).parents[2] / "docs/explanation/fail-stutter.md"


def table() -> str:
    rows = ["| state | sign | when | next state | told |", "|---|---|---|---|---|"]
    for row in TRANSITIONS:
        told = "yes" if row.before in TOLD or row.after in TOLD else "no"
        rows.append(f"| {row.before} | {' or '.join(row.signs)} | {row.once} | {row.after} | {told} |")
    return "\n".join(rows)


def test_the_page_has_the_table() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), f"put this into {PAGE.name}:\n{table()}"
