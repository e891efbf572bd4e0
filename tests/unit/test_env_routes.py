# SPDX-License-Identifier: Apache-2.0
"""Where clients are: by their last session, and behind the node that should know best."""

import pytest

from atoll.env import routes as routes_module
from atoll.env.routes import Routes
from tests.unit.steward_world import ANN, BOB, THREE, TWO


def test_a_client_is_in_its_last_session_until_that_ends() -> None:
    routes = Routes()
    assert routes.session(ANN) is None
    routes.attach(ANN, 1)
    routes.attach(ANN, 2)
    routes.detach(ANN, 1)
    assert routes.session(ANN) == 2
    routes.detach(ANN, 2)
    routes.detach(ANN, 2)
    assert routes.session(ANN) is None


def test_who_passes_something_on_is_better_than_nobody() -> None:
    routes = Routes()
    assert routes.node(ANN) is None
    routes.learn(ANN, THREE, is_passed_on=True)
    assert routes.node(ANN) == THREE
    routes.learn(ANN, TWO, is_passed_on=False)
    routes.learn(ANN, THREE, is_passed_on=True)
    assert routes.node(ANN) == TWO


def test_the_one_not_heard_for_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes_module, "ROUTES_MAX", 2)
    routes = Routes()
    for party in (ANN, BOB, ANN, b"c" * 16):
        routes.learn(party, TWO, is_passed_on=False)
    assert [routes.node(party) for party in (ANN, BOB, b"c" * 16)] == [TWO, None, TWO]
