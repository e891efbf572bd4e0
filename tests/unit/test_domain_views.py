# SPDX-License-Identifier: Apache-2.0
"""What commands about environments answer: the schema is said, and what is not known is left out."""

import msgspec

from atoll.domain.views import (
    CALL_SCHEMA,
    ENVIRONMENTS_SCHEMA,
    CallView,
    EnvironmentsView,
    EnvironmentView,
    LogView,
    RunView,
)

SHOP = EnvironmentView("shop", "00" * 16, "Shop", "one", 3, "11" * 32, ("one", "two"))


def test_what_is_not_known_is_left_out() -> None:
    said = msgspec.json.decode(msgspec.json.encode(SHOP))
    assert set(said) == {"name", "id", "app", "node", "epoch", "code", "holders"}
    running = msgspec.structs.replace(SHOP, events=7, failures=0, state={"n": 1})
    assert msgspec.json.decode(msgspec.json.encode(running), type=EnvironmentView) == running


def test_answers_say_their_schema() -> None:
    for view in (RunView("shop", "00", "Shop", "one", "11"), EnvironmentsView((SHOP,)), LogView(("line",))):
        said = msgspec.json.encode(view)
        assert msgspec.json.decode(said)["schema"] == ENVIRONMENTS_SCHEMA
        assert msgspec.json.decode(said, type=type(view)) == view
    called = CallView({"is": "Sum", "value": 5})
    assert msgspec.to_builtins(called) == {"response": {"is": "Sum", "value": 5}, "schema": CALL_SCHEMA}


def test_fields_that_a_later_version_adds_are_passed_over() -> None:
    said = {**msgspec.to_builtins(LogView(("line",))), "more": 1}
    assert msgspec.convert(said, LogView) == LogView(("line",))
