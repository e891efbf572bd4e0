# SPDX-License-Identifier: Apache-2.0
"""The compiled loops, where they are installed (``atoll-fast``); Python's own do the same.

They hold no rule: the same bytes come out of both, which property tests check for any packet. ADR 0023.
"""

from importlib import import_module
from types import ModuleType
from typing import Final

__all__ = ["COMPILED", "FORM", "is_compiled"]

FORM: Final = 6  # Of what the module offers (native/src/atoll_fast.h). One of another form is left alone.


def _loaded() -> ModuleType | None:
    try:
        module = import_module("atoll_fast")
    except ImportError:
        return None
    return module if getattr(module, "FORM", 1) == FORM else None


COMPILED: Final = _loaded()


def is_compiled() -> bool:
    """Return whether there are compiled loops."""
    return COMPILED is not None
