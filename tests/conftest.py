# SPDX-License-Identifier: Apache-2.0
"""The whole suite: how property tests run, which tests have the machine for themselves, and what is needed for some."""

import os

import pytest
from hypothesis import settings

from atoll.base.compiled import is_compiled

# Examples have no deadline: two workers share two cores, and a slow machine is not a wrong answer. On CI the examples
# are the same each time, so a red change is red because of the change; new examples are for the developers' runs.
settings.register_profile("atoll", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("atoll")

_ALONE = ("process", "netns")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests that own sockets, processes or namespaces last and on one worker, so that none collide or starve."""
    alone = [item for item in items if any(item.get_closest_marker(name) is not None for name in _ALONE)]
    for item in alone:
        item.add_marker(pytest.mark.xdist_group("alone"))
    chosen = set(map(id, alone))
    items[:] = [item for item in items if id(item) not in chosen] + alone


@pytest.fixture
def compiled() -> None:
    """The compiled loops are needed, which CI has."""
    if not is_compiled():
        message = "atoll-fast is not installed: make fast"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
