# SPDX-License-Identifier: Apache-2.0
"""What the benchmark draws: the same picture for the same numbers, and every number in it."""

from pathlib import Path
from xml.etree import ElementTree as ET

from plots import Panel, write

SVG = "{http://www.w3.org/2000/svg}"


def drawn(path: Path, *panels: Panel) -> ET.Element:
    write(path, panels)
    return ET.fromstring(path.read_text(encoding="utf-8"))


def test_bars_stand_for_all_that_is_known(tmp_path: Path) -> None:
    root = drawn(
        tmp_path / "new" / "a.svg",
        Panel("F1 < 1", ("a & b", "c"), {"F1": (0.5, None), "F2": (0.25, 1.0)}, is_bars=True),
    )
    bars = [path for path in root.iter(f"{SVG}path") if path.get("fill")]
    assert len(bars) == 3
    assert {"F1 < 1", "a & b", "c", "F1", "F2", "0.5", "0.25", "1"} <= {text.text for text in root.iter(f"{SVG}text")}


def test_lines_join_what_is_known_and_formulas_are_dashed(tmp_path: Path) -> None:
    panels = (
        Panel("rate", ("1", "2", "3"), {"a": (1.0, 2.0, None), "formula a": (1.0, 1.0, 1.0)}),
        Panel("none", ("1",), {"a": (None,)}),
    )
    root = drawn(tmp_path / "a.svg", *panels)
    paths = list(root.iter(f"{SVG}path"))
    assert sum(path.get("stroke-dasharray") is not None for path in paths) == 3  # Two lines, and one in the legend.
    assert len(list(root.iter(f"{SVG}circle"))) == 2
    first = (tmp_path / "a.svg").read_bytes()
    drawn(tmp_path / "a.svg", *panels)
    assert (tmp_path / "a.svg").read_bytes() == first
