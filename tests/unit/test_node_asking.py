# SPDX-License-Identifier: Apache-2.0
"""Questions and answers between members as bytes: what comes back whole, and what is never shown to anybody."""

import json
from typing import Any

import msgspec
import pytest

from atoll.base.errors import WireError
from atoll.group.limits import MEMBERS_MAX
from atoll.node.asking import (
    CHANGES_MAX,
    TEXT_CHARS_MAX,
    Answer,
    Failure,
    KeyTold,
    Question,
    decode_answer,
    decode_question,
)
from atoll.node.views import CandidateView, SwitchView, WhyView

TARGET = bytes(range(10))
WAY = CandidateView(
    via=None,
    chosen=True,
    state="ok",
    rtt_ms=88.0,
    loss_out=0.0,
    loss_in=None,
    score_ms=88.0,
    tcp_mbit_s=40.0,
    verdict="chosen; lost 0 of 4 probes out",
)
CHANGE = SwitchView(ago_s=4.0, before=None, after="ash", cause="lossy", evidence="31 % of 32", took_s=0.4)
WHY = WhyView(
    source="fra",
    target="sin",
    tag="latency",
    path=("fra", "sin"),
    since_s=3.0,
    because="direct ok, ±1 ms",
    candidates=(WAY,),
    history=(CHANGE,),
    next="nothing needed",
)


def test_a_question_comes_back_with_its_id() -> None:
    question = Question("why", TARGET.hex(), "loss")
    assert decode_question(msgspec.json.encode(question)) == (question, TARGET)
    newer = {**msgspec.to_builtins(question), "added_later": 1}
    assert decode_question(json.dumps(newer).encode()) == (question, TARGET)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"ask":"why","target":7,"tag":"loss"}',
        b'{"ask":"status","target":"00010203040506070809","tag":"loss"}',
        b'{"ask":"why","target":"0001020304050607","tag":"loss"}',
        b'{"ask":"why","target":"not hexadecimal-----","tag":"loss"}',
    ],
)
def test_what_is_no_question_is_a_wire_error(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_question(data)


@pytest.mark.parametrize(
    ("answer", "decoded"),
    [
        (Answer(why=WHY), WHY),
        (Answer(failure="target"), Failure("target")),
        (Answer(tcp="0f" * 16), KeyTold(b"\x0f" * 16)),
    ],
)
def test_an_answer_comes_back(answer: Answer, decoded: object) -> None:
    assert decode_answer(msgspec.json.encode(answer)) == decoded


def changed(**changes: Any) -> bytes:
    return json.dumps({"why": {**msgspec.to_builtins(WHY), **changes}}).encode()


def test_a_newer_members_answer_may_have_more_fields() -> None:
    assert decode_answer(changed(added_later="x")) == WHY


WAY_OUT: dict[str, Any] = msgspec.to_builtins(WAY)
CHANGE_OUT: dict[str, Any] = msgspec.to_builtins(CHANGE)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"why":null}',
        b'{"failure":7}',
        changed(schema="atoll.why/2"),
        changed(because="\x1b]0;you are root now\x07"),
        changed(next="\x9b31m"),
        changed(because="reads \u202ebackwards"),
        changed(because="x" * (TEXT_CHARS_MAX + 1)),
        changed(path=["fra", "a\nb"]),
        changed(path=["x"] * (MEMBERS_MAX + 1)),
        changed(since_s=1e300),
        changed(since_s="soon"),
        changed(candidates=[{**WAY_OUT, "via": "\x1b[2J"}]),
        changed(candidates=[{**WAY_OUT, "rtt_ms": -1e300}]),
        changed(candidates=[WAY_OUT] * (MEMBERS_MAX + 2)),
        changed(history=[{**CHANGE_OUT, "evidence": "\r"}]),
        changed(history=[CHANGE_OUT] * (CHANGES_MAX + 1)),
        changed()[:-1],
        changed()[:-1] + b',"failure":"path"}',
    ],
)
def test_an_answer_that_is_not_fit_to_be_shown_is_a_wire_error(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_answer(data)
