# SPDX-License-Identifier: Apache-2.0
"""The whole suite: how property tests run, which tests come last, and what is needed for some."""

import os

import pytest
from hypothesis import settings

from atoll.base.compiled import is_compiled

# Examples have no deadline: two workers share two cores, and a slow machine is not a wrong answer. On CI the examples
# are the same each time, so a red change is red because of the change; new examples are for the developers' runs.
settings.register_profile("atoll", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("atoll")

_LATE = ("process", "netns")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests that own sockets, processes or namespaces last: what a wrong line breaks is seen before they begin."""
    late = [item for item in items if any(item.get_closest_marker(name) is not None for name in _LATE)]
    chosen = set(map(id, late))
    items[:] = [item for item in items if id(item) not in chosen] + late


@pytest.fixture
def compiled() -> None:
    """The compiled loops are needed, which CI has."""
    if not is_compiled():
        message = "atoll-fast is not installed: make fast"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
