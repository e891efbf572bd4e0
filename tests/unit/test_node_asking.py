# SPDX-License-Identifier: Apache-2.0
"""Questions and answers between members as bytes: what comes back whole, and what is never shown to anybody."""

import json
from typing import Any

import msgspec
import pytest

from atoll.base.errors import WireError
from atoll.group.limits import MEMBERS_MAX
from atoll.node.asking import (
    AILMENTS_MAX,
    CHANGES_MAX,
    TEXT_CHARS_MAX,
    TEXTS_MAX,
    Answer,
    Failure,
    KeyTold,
    Question,
    decode_answer,
    decode_question,
)
from atoll.node.views import (
    AilmentView,
    CandidateView,
    DiagnosisView,
    FindingView,
    HealthView,
    ServiceView,
    SwitchView,
    WhyView,
)

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
    diagnosis=DiagnosisView(
        symptom="round trip 171 ms, usually 88 ms",
        findings=(
            FindingView(cause="cpu", where="sin", because="Taken.", confidence=90, costs_ms=80.0, next="ask why"),
        ),
        not_it=("MTU: packets of 1408 bytes pass",),
        unknown=(),
    ),
)
FAULT = AilmentView(component="disk", state="slow", since_s=9, slower_percent=10_000)
HEALTH = HealthView(
    disk_us=900,
    ailments=(FAULT,),
    wall_ms=1_800_000_000_000,
    service=ServiceView(port=80, allowed=True, listening=False),
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
        (Answer(health=HEALTH), HEALTH),
    ],
)
def test_an_answer_comes_back(answer: Answer, decoded: object) -> None:
    assert decode_answer(msgspec.json.encode(answer)) == decoded


def changed(**changes: Any) -> bytes:
    return json.dumps({"why": {**msgspec.to_builtins(WHY), **changes}}).encode()


def test_a_newer_members_answer_may_have_more_fields() -> None:
    assert decode_answer(changed(added_later="x")) == WHY


def told(**changes: Any) -> bytes:
    return json.dumps({"health": {**msgspec.to_builtins(HEALTH), **changes}}).encode()


FOUND_OUT: dict[str, Any] = msgspec.to_builtins(WHY.diagnosis)
FAULT_OUT: dict[str, Any] = msgspec.to_builtins(FAULT)
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
        changed(diagnosis={**FOUND_OUT, "symptom": "\x1b[2J"}),
        changed(diagnosis={**FOUND_OUT, "not_it": ["\x07"]}),
        changed(diagnosis={**FOUND_OUT, "unknown": ["x"] * TEXTS_MAX}),
        changed(diagnosis={**FOUND_OUT, "findings": [{**FOUND_OUT["findings"][0], "next": "a\nb"}]}),
        told(schema="atoll.health/2"),
        told(disk_us=10**30),
        told(wall_ms=1 << 60),
        told(ailments=[{**FAULT_OUT, "component": "\x1b[31m"}]),
        told(ailments=[FAULT_OUT] * (AILMENTS_MAX + 1)),
        told(service={"port": 1, "allowed": True, "rule": "\u202e"}),
        changed()[:-1],
        changed()[:-1] + b',"failure":"path"}',
    ],
)
def test_an_answer_that_is_not_fit_to_be_shown_is_a_wire_error(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_answer(data)
