# SPDX-License-Identifier: Apache-2.0
"""What the property tests share."""

import os

import pytest

from atoll.base.compiled import is_compiled


@pytest.fixture
def compiled() -> None:
    """The compiled loops are needed, which CI has."""
    if not is_compiled():
        message = "atoll-fast is not installed: make fast"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
