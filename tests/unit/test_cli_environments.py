# SPDX-License-Identifier: Apache-2.0
"""What people see of one environment, and of what it responds."""

import json
from typing import Any

import msgspec
import pytest

from atoll.cli.environments import _print, _print_response  # pyright: ignore[reportPrivateUsage]
from atoll.domain.views import EnvironmentView
from atoll.env.plain_data import MapKey

VIEW = EnvironmentView("count", "00", "Counter", "one", 3, "c0de", ("one", "two"))


def shown(seen: EnvironmentView, capsys: pytest.CaptureFixture[str]) -> list[str]:
    _print(msgspec.json.encode(seen), as_json=False)
    return capsys.readouterr().out.splitlines()


def test_it_says_who_runs_it_and_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    seen = msgspec.structs.replace(VIEW, events=7, failures=1, state={"n": 5})
    assert shown(seen, capsys) == [
        "count  Counter  on one  epoch 3  kept by one, two",
        "  events  7, handlers that failed 1",
        "  n  5",
    ]


def test_it_says_what_it_cannot_show_and_why_it_cannot_run(capsys: pytest.CaptureFixture[str]) -> None:
    cut = msgspec.structs.replace(VIEW, state={"n": "too long"}, is_cut=True)
    assert shown(cut, capsys)[1:] == ['  n  "too long"', "  not all of it is shown: it is too long"]
    failed = msgspec.structs.replace(VIEW, failed="its state does not fit its code")
    assert shown(failed, capsys)[1:] == ["  cannot run: its state does not fit its code"]
    dropped = msgspec.structs.replace(VIEW, gone=("n", "m"))
    assert shown(dropped, capsys)[1:] == [
        "  dropped: n, m (the code has no such field now; atoll replay shows what was in it)"
    ]


def test_it_says_what_it_waits_for_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = msgspec.structs.replace(VIEW, waits_for=("two", "three"), fix="bring two back")
    assert shown(waiting, capsys)[1:] == ["  waits for two, three, which cannot be reached", "  fix: bring two back"]
    barred = msgspec.structs.replace(VIEW, barred="block 3: its chain does not check", fix="see what is wrong")
    assert shown(barred, capsys)[1:] == [
        "  its journal on this node cannot be used: block 3: its chain does not check",
        "  fix: see what is wrong",
    ]


@pytest.mark.parametrize(
    ("said", "is_done", "out", "err"),
    [
        ({"is": "Sum", "value": 5}, True, "Sum value=5\n", ""),
        ({"is": "Failure", "code": "raised", "text": "no"}, False, "", 'Failure code="raised" text="no"\n'),
    ],
)
def test_a_response_is_printed_as_it_would_be_said_or_as_an_object_with_a_schema(
    said: dict[str, Any], is_done: bool, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _print_response(said, as_json=False) == is_done
    assert capsys.readouterr() == (out, err)
    assert _print_response(said, as_json=True) == is_done
    printed = capsys.readouterr()
    assert (json.loads(printed.out), printed.err) == ({"schema": "atoll.call/1", "response": said}, "")


def test_keys_that_are_no_text_are_printed_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    said: dict[str, Any] = {"is": "Grid", "cells": {(1, "b"): 2, MapKey(x=1): 3}}
    assert _print_response(said, as_json=False)
    assert capsys.readouterr().out == 'Grid cells={"[1, b]":2,"{x: 1}":3}\n'
    assert _print_response(said, as_json=True)
    assert json.loads(capsys.readouterr().out)["response"]["cells"] == {"[1, b]": 2, "{x: 1}": 3}


def test_a_field_of_an_application_is_never_taken_for_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    said = {"is": "Table", "schema": "mine", "response": [1], "raw": b"\x00\xff"}
    assert _print_response(said, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"schema": "atoll.call/1", "response": {**said, "raw": "AP8="}}
