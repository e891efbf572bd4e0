# SPDX-License-Identifier: Apache-2.0
"""Where things of ours belong on this system when nobody says it."""

from pathlib import Path

__all__ = ["default_state"]


def default_state() -> Path:
    """Return the state directory of a node for which nobody chose one."""
    from platformdirs import user_state_path  # noqa: PLC0415 -- 20 ms that who names a directory need not pay.

    return user_state_path("atoll")
