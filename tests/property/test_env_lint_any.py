# SPDX-License-Identifier: Apache-2.0
"""Lint of any text: it never raises, says the same twice, and names lines and rules that exist."""

from typing import Final

from hypothesis import example, given
from hypothesis import strategies as st

from atoll.env.lint import lint
from atoll.env.lint_rules import RULES

WORDS: Final = st.sampled_from(
    [
        *("import", "from", "time", "as", "t", "*", "def", "f", "(", ")", ":", "\n", "    ", "=", "self", ".", "x"),
        *("App", "atoll", "global", "set", "{", "}", "for", "in", "if", "__name__", "==", "'__main__'", "lambda"),
        *("hash", "id", "del", "match", "case", "_", "await", "async", "with", ",", "\r", "\f", "é", "class", "[", "]"),
        "# atoll: allow clock, x",
    ]
)
STATEMENTS: Final = st.sampled_from(
    [
        *("import time", "from time import *", "from . import a", "x = {1}", "x: set = y", "global x", "x.pop()"),
        *("for x in {y: z for y in z}: pass", "class App(App): x = []", "def f(self, *x, y=id(x)): self.z = x = hash"),
        "class A(atoll.App):\n  x: set\n  def f(self, *a, **k): self.y = [*self.x]; lambda: self.x.pop()",
        *("if __name__ == '__main__': f()", "x = y if z else set() or x", "(x := {1}) | x.keys()", "del x.y[0]"),
        *("try: pass\nexcept* x as y: y()", "async def f():\n  async for x in x: await x", "x += {1}"),
        *("x = lambda a, /, b, *, c: time.time", "match x:\n  case {**y}: y"),
    ]
)
TEXTS: Final = st.one_of(
    st.text(alphabet=st.characters()),
    st.lists(WORDS, max_size=40).map(" ".join),
    st.lists(STATEMENTS, max_size=8).map("\n".join),
    st.lists(STATEMENTS, max_size=8).map(lambda lines: "def g():\n" + "\n".join(lines).replace("\n", "\n  ")),
)


@given(TEXTS, st.text(max_size=5))
@example("class A(B): pass\nclass B(A): pass", "")
@example("\f\x0c\u2028x = '\u2028'\ndef f(): open('é')", "\0")
def test_any_text_is_judged(source: str, filename: str) -> None:
    found = lint(source, filename)
    assert found == lint(source, filename)
    for finding in found:
        assert finding.rule in RULES
        assert finding.column >= 1
        assert finding.filename == filename
        assert 1 <= finding.line <= source.count("\n") + source.count("\r") + 2
        assert "\n" not in finding.sentence
    if any(finding.rule == "syntax" for finding in found):
        assert len(found) == 1
