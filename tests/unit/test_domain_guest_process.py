# SPDX-License-Identifier: Apache-2.0
"""What a guest answers, asked in this process; that it is confined is for tests with processes."""

import msgspec
import pytest

from atoll.domain.guest.clock import Clock
from atoll.domain.guest.messages import (
    Answer,
    Blank,
    Content,
    Done,
    Fault,
    Handle,
    Load,
    Request,
    Restore,
    Show,
    Write,
    decode_answer,
    encode_request,
)
from atoll.domain.guest.process import Guest, Nowhere, Refusing
from atoll.env.limits import PARTY_KEPT_NS
from atoll.env.records import Fired, Post
from tests.unit.guest_world import ANN, SOURCE, began, bundle, done


class _Asked:
    def __init__(self, *, is_loaded: bool = True, source: str = SOURCE) -> None:
        self.clock = Clock()
        self.guest = Guest(self.clock)
        if is_loaded:
            assert isinstance(self.ask(Load(bundle(source))), Done)
            self.ask(Blank())
            self.ask(Handle(5, began()))

    def ask(self, request: Request) -> Answer:
        return decode_answer(self.guest.obey(encode_request(request)))

    def fault(self, request: Request) -> Fault:
        answer = self.ask(request)
        assert isinstance(answer, Fault)
        return answer


def test_a_record_gives_effects_and_a_status() -> None:
    asked = _Asked()
    answer = asked.ask(Handle(7, done(1, "one", "two")))
    assert isinstance(answer, Done)
    assert (answer.status.events, answer.received, answer.forgotten) == (2, 2, ())
    assert [type(effect) for effect in answer.effects] == [Post]
    assert asked.clock.ns == 7
    asked.ask(Handle(3, Fired()))
    assert asked.clock.ns == 7  # Time never goes back.


def test_what_a_handler_raises_is_said_as_the_inline_level_says_it() -> None:
    asked = _Asked()
    assert asked.fault(Handle(7, done(1, "one", "raise"))) == Fault("raised", "ValueError: no", 1)
    assert asked.fault(Handle(7, done(2, "grow"))) == Fault("grown", "out of memory", 1)
    assert asked.fault(Handle(7, done(2, "strange"))) == Fault("raised", "Strange", 1)
    assert "at most 16777216" not in asked.fault(Handle(7, done(2, "import"))).text


def test_a_flood_of_effects_is_a_failure() -> None:
    fault = _Asked().fault(Handle(7, done(1, "flood")))
    assert fault.text == "LimitError: guest_answer_bytes_max is 16777216"


def test_a_module_that_was_not_loaded_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match="no shop was loaded: at the process level"):
        Refusing().find_spec("shop", None)
    assert "No module named" in _Asked().fault(Handle(7, done(1, "import"))).text


def test_what_is_printed_is_lost() -> None:
    nowhere = Nowhere()
    assert nowhere.write("hello") == 5
    assert nowhere.getvalue() == ""


def test_state_is_written_and_gone_back_to() -> None:
    asked = _Asked()
    asked.ask(Handle(7, done(1, "one")))
    written, again = asked.ask(Write(go_on=True)), asked.ask(Write(go_on=False))
    assert isinstance(written, Content)
    assert isinstance(again, Content)
    assert written.content == again.content
    shown = asked.ask(Show(""))
    assert isinstance(shown, Content)
    assert msgspec.msgpack.decode(shown.content) == {"n": 1, "who": ["one"]}
    asked.ask(Handle(8, done(2, "two")))
    back = asked.ask(Restore(written.content))
    assert isinstance(back, Done)
    assert back.status.events == 1


def test_what_cannot_be_done_is_a_fault() -> None:
    asked = _Asked(is_loaded=False)
    assert asked.fault(Blank()).text == "no code was loaded"
    assert asked.fault(Load(b"\xc1")).code == "corrupt"
    assert asked.fault(Load(bundle("raise ValueError"))).code == "A603"
    asked.ask(Load(bundle()))
    assert asked.fault(Write(go_on=False)).text == "no environment was begun"
    assert asked.fault(Restore(b"\xc1")).code == "corrupt"
    asked = _Asked()
    asked.ask(Handle(7, done(1, "junk")))
    assert asked.fault(Write(go_on=True)).code == "usage"


@pytest.mark.parametrize(
    ("raised", "text"),
    [("SystemExit(3)", "the migration of Busy from 1 fails: SystemExit(3)"), ("GeneratorExit(3)", "GeneratorExit: 3")],
)
def test_a_migration_may_raise_anything(raised: str, text: str) -> None:
    written = _Asked().ask(Write(go_on=False))
    assert isinstance(written, Content)
    newer = f"""
    version = 2

    @atoll.migration(1)
    @staticmethod
    def step(fields):
        raise {raised}
"""
    asked = _Asked(source=SOURCE.replace("    n: int = 0", newer + "    n: int = 0"))
    assert asked.fault(Restore(written.content)) == Fault("corrupt", text)


def test_a_state_that_is_too_large_to_be_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.domain.guest.process.GUEST_STATE_BYTES_MAX", 10)
    asked = _Asked(is_loaded=False)
    asked.ask(Load(bundle()))
    asked.ask(Blank())
    assert "at most 10 can be kept" in asked.fault(Write(go_on=False)).text


def test_parties_that_are_forgotten_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.env.asking.PARTIES_MAX", 8)
    monkeypatch.setattr("atoll.env.environment.LIVED_STEP_NS", PARTY_KEPT_NS)
    asked = _Asked(source=SOURCE.replace("return Got(self.n)", "return None"))
    forgotten: list[bytes] = []
    for number in range(10):
        now_ns = (1 + number) * PARTY_KEPT_NS
        answer = asked.ask(Handle(now_ns, done(1, "x", party=number.to_bytes(16, "big"), ask=0)))
        assert isinstance(answer, Done)
        forgotten += answer.forgotten
    assert forgotten == [bytes(16), bytes(15) + b"\x01"]
    again = asked.ask(Handle(11 * PARTY_KEPT_NS, done(1, "x", party=ANN, ask=0)))
    assert isinstance(again, Done)
    assert len(again.forgotten) == 1
