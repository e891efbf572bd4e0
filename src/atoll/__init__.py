# SPDX-License-Identifier: Apache-2.0
"""Atoll makes a few machines, far apart and not all to be trusted, behave like one dependable computer.

Start with ``atoll demo`` on the command line. The rooms of the code and who may know whom are in ARCHITECTURE.md.
"""

from typing import TYPE_CHECKING

from atoll.base.version import __version__

if TYPE_CHECKING:
    from atoll.client import join

__all__ = ["__version__", "join"]


def __getattr__(name: str) -> object:
    """Load the Python interface when it is asked for: commands need not pay for it (PEP 562)."""
    if name != "join":
        raise AttributeError(f"module 'atoll' has no attribute {name!r}")
    from atoll.client import join  # noqa: PLC0415 -- see above.

    return join
