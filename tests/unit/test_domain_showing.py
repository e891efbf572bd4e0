# SPDX-License-Identifier: Apache-2.0
"""A state is shown as JSON whatever it holds, and cut when it is too long."""

import json
from typing import Any

import msgspec
import pytest

from atoll.domain import showing as showing_module
from atoll.domain.showing import shown
from atoll.env.plain_data import MapKey


def told(fields: dict[str, Any]) -> Any:
    return json.loads(msgspec.json.encode(shown(fields)[0]))


def test_what_json_knows_is_shown_as_it_is() -> None:
    fields: dict[str, Any] = {"n": 3, "names": ["a", None, True, 1.5], "of": {"x": {"y": []}}}
    assert told(fields) == fields
    assert not shown(fields)[1]


def test_keys_that_are_no_text_are_shown_as_text() -> None:
    cells: dict[Any, int] = {(1, "b"): 1, 2: 2, b"\xff": 3, None: 4, (b"\x01", (1,)): 5, MapKey(a=3, b=b"\x02"): 6}
    assert told({"cells": {"in": [cells]}}) == {
        "cells": {"in": [{"[1, b]": 1, "2": 2, "ff": 3, "None": 4, "[01, [1]]": 5, "{a: 3, b: 02}": 6}]}
    }


def test_what_cannot_be_written_says_so_and_leaves_the_rest() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    seen = told({"odd": msgspec.msgpack.Ext(5, b"x"), "deep": deep, "n": 1})
    assert seen["n"] == 1
    assert seen["odd"].startswith("(cannot be shown: ")
    assert seen["deep"].startswith("(cannot be shown: ")


def test_what_is_too_long_is_cut_and_what_still_fits_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing_module, "SHOWN_BYTES_MAX", 100)
    fields = {"a": "x" * 50, "b": "x" * 500, "c": "y" * 40, "d": 12345678}
    assert told(fields) == {**fields, "b": "(cut: 502 bytes)"} | {"d": "(cut: 8 bytes)"}
    assert shown(fields)[1]
