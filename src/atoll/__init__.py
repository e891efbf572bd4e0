# SPDX-License-Identifier: Apache-2.0
"""Atoll makes a few machines, far apart and not all to be trusted, behave like one dependable computer.

Start with ``atoll demo`` on the command line. The rooms of the code and who may know whom are in ARCHITECTURE.md.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
