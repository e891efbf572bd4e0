# SPDX-License-Identifier: Apache-2.0
"""What tests of processes share that has to be ended after each of them."""

from collections.abc import Generator
from contextlib import closing

import pytest

from atoll.domain.guest.launch import Zygote


@pytest.fixture
def zygote() -> Generator[Zygote]:
    """Return a process that guests are forked from, for one test."""
    with closing(Zygote()) as made:
        yield made
