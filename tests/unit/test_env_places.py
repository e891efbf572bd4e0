# SPDX-License-Identifier: Apache-2.0
"""The place in this process makes plain environments."""

import pytest

from atoll.base.errors import CorruptError
from atoll.env.app import program_of
from atoll.env.environment import Environment
from atoll.env.places import HandlerFailedError, Inline
from tests.unit.env_world import Actor, began


def test_inline_makes_environments_here() -> None:
    place = Inline(program_of(Actor))
    assert place.name == "Actor"
    environment = place.blank()
    environment.handle(began(), 5)
    assert isinstance(environment, Environment)
    assert place.restore(environment.snapshot()).snapshot() == environment.snapshot()
    with pytest.raises(CorruptError):
        place.restore(b"\xc1")
    with pytest.raises(AssertionError, match="when handle returns"):
        place.answered()
    place.close()


def test_a_failure_elsewhere_says_what_is_known() -> None:
    error = HandlerFailedError("killed", "long", is_known=False)
    assert (error.code, error.text, error.is_known) == ("killed", "long", False)
