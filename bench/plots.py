# SPDX-License-Identifier: Apache-2.0
"""Plots of benchmarks as SVG, without a library: panels one above the other, of bars or lines over named places.

Small and the same for the same numbers, so that a copy can be kept with the documents and compared. A series whose name
begins with FORMULA is drawn dashed, in the colour of the series before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Final

FORMULA: Final = "formula"
COLOURS: Final = ("#1b6ca8", "#c8553d", "#3f8f5f", "#8a5aa8", "#7a6a4f", "#5b6770")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, LEGEND = 960, 300, 60, 36, 34, 200
PLOT: Final = WIDTH - LEFT - LEGEND
TICKS: Final = 4


@dataclass(frozen=True)
class Panel:
    """One diagram.

    Attributes:
        title: What is seen, with its unit.
        places: Names along the horizontal axis.
        series: By name, a value for each place; None: there is none.
        is_bars: Bars, else lines.
    """

    title: str
    places: Sequence[str]
    series: Mapping[str, Sequence[float | None]]
    is_bars: bool = False


def _text(x: float, y: float, text: str, anchor: str = "middle", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _panel(panel: Panel, above: int) -> list[str]:
    known = [value for values in panel.series.values() for value in values if value is not None]
    most = max([*known, 0.0]) * 1.05 or 1.0
    floor, step = above + HEIGHT - BOTTOM, PLOT / len(panel.places)

    def height(value: float) -> float:
        return floor - value / most * (floor - above - TOP)

    out = [_text(LEFT, above + 20, panel.title, "start", 14)]
    for tick in range(TICKS + 1):
        y = height(most * tick / TICKS)
        out.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + PLOT}" stroke="#ddd"/>')
        out.append(_text(LEFT - 6, y + 4, f"{most * tick / TICKS:.3g}", "end", 11))
    out += [_text(LEFT + (at + 0.5) * step, floor + 18, name, size=11) for at, name in enumerate(panel.places)]
    shown, wide = -1, 0.7 * step / len(panel.series)
    for number, (name, values) in enumerate(panel.series.items()):
        shown += not name.startswith(FORMULA)
        style = f'stroke="{COLOURS[shown % len(COLOURS)]}" stroke-width="2"'
        style += ' stroke-dasharray="6 4"' if name.startswith(FORMULA) else ""
        y = above + TOP + 18 * number
        out.append(
            f'<path d="M{WIDTH - LEGEND + 12} {y}h24" {style}/>' + _text(WIDTH - LEGEND + 42, y + 4, name, "start")
        )
        points = [(LEFT + (at + 0.5) * step, value) for at, value in enumerate(values) if value is not None]
        if panel.is_bars:
            for x, value in points:
                left, top = x - 0.35 * step + number * wide, height(value)
                colour = COLOURS[shown % len(COLOURS)]
                out.append(f'<path d="M{left:.1f} {floor}V{top:.1f}h{wide:.1f}V{floor}z" fill="{colour}"/>')
                out.append(_text(left + wide / 2, top - 4, f"{value:.3g}", size=11))
        else:
            for (x0, y0), (x1, y1) in pairwise(points):
                out.append(f'<path d="M{x0:.1f} {height(y0):.1f}L{x1:.1f} {height(y1):.1f}" {style}/>')
            if not name.startswith(FORMULA):
                out += [f'<circle cx="{x:.1f}" cy="{height(value):.1f}" r="3.5" {style}/>' for x, value in points]
    return out


def write(path: Path, panels: Sequence[Panel]) -> None:
    """Write panels as one picture."""
    whole = HEIGHT * len(panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {whole}" font-family="sans-serif" fill="#222">'
    ]
    lines += ['<rect width="100%" height="100%" fill="#fff"/>']
    lines += [line for number, panel in enumerate(panels) for line in _panel(panel, number * HEIGHT)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, "</svg>"]) + "\n", encoding="utf-8")
