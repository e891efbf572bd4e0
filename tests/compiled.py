# SPDX-License-Identifier: Apache-2.0
"""Plug-in of pytest: the modules of the packet device are the compiled ones (``make test-compiled``).

The compiled tree holds only the rooms that the device's process loads; the others come from the sources.
"""

import sys

from atoll.host.compiled_tree import compiled_tree

tree = compiled_tree()
if tree is None:
    raise SystemExit("the compiled part was not made of these sources: make fast")
sources = list(sys.modules["atoll"].__path__)
for name in [name for name in sys.modules if name.partition(".")[0] == "atoll"]:
    del sys.modules[name]
sys.path.insert(0, str(tree))

import atoll  # noqa: E402 -- from there, now.

atoll.__path__.extend(sources)
