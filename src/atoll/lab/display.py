# SPDX-License-Identifier: Apache-2.0
"""The demo while it runs: a live table on a terminal, plain lines anywhere else."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol, final

__all__ = ["Lines", "Row", "Screen", "Shown"]

FRAME_S: Final = 0.2


@dataclass(slots=True)
class Row:
    """One trouble as it stands.

    ``waits`` returns the longest wait so far of (control, atoll), seconds; None for control: there is none.
    """

    title: str
    pair: str
    state: str = "waiting"
    waits: Callable[[], tuple[float | None, float]] = field(default=lambda: (0.0, 0.0))
    route: str = ""


class Shown(Protocol):
    """Where the demo shows itself."""

    def say(self, text: str) -> None:
        """Show a line about the progress."""
        ...

    async def follow(self, rows: Sequence[Row]) -> None:
        """Show the rows until cancelled."""
        ...


@final
class Lines:
    """Plain lines on standard error; nothing moves. ``quiet`` shows nothing at all."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def say(self, text: str) -> None:
        """Write a line."""
        if not self._quiet:
            sys.stderr.write(text + "\n")

    async def follow(self, rows: Sequence[Row]) -> None:
        """Wait: the lines of ``say`` tell it all."""
        del rows
        await asyncio.Event().wait()


@final
class Screen:
    """A table that is drawn anew five times a second, on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - only where there is a terminal.

        self._console = Console(stderr=True)

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self._console.print(text, highlight=False)

    async def follow(self, rows: Sequence[Row]) -> None:
        """Draw until cancelled, and leave the last state on the screen."""
        from rich.live import Live  # noqa: PLC0415 - as above.
        from rich.table import Table  # noqa: PLC0415

        def table() -> Table:
            drawn = Table(title="longest wait for an answer")
            for column in ("trouble", "clients", "state", "direct", "atoll", "route"):
                drawn.add_column(column, justify="right" if column in {"direct", "atoll"} else "left")
            for row in rows:
                control_s, atoll_s = row.waits()
                busy = row.state != "waiting"
                drawn.add_row(
                    row.title,
                    row.pair,
                    row.state,
                    f"{control_s:.2f} s" if busy and control_s is not None else "-",
                    f"{atoll_s:.2f} s" if busy else "-",
                    row.route,
                )
            return drawn

        with Live(table(), console=self._console, auto_refresh=False) as live:
            with suppress(asyncio.CancelledError):
                while True:
                    live.update(table(), refresh=True)
                    await asyncio.sleep(FRAME_S)
            live.update(table(), refresh=True)
