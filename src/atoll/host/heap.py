# SPDX-License-Identifier: Apache-2.0
"""The heap of a process that runs for long."""

import gc

__all__ = ["freeze_heap"]


def freeze_heap() -> None:
    """Let collections pass over all that exists now: modules and what was set up live as long as the process.

    Else a full collection looks at some 100,000 objects, and everybody behind it waits for 10 ms and more.
    """
    gc.collect()
    gc.freeze()
