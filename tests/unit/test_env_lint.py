# SPDX-License-Identifier: Apache-2.0
"""Each rule finds its mistakes in all their forms, and nothing else; the reference is the code."""

from pathlib import Path
from textwrap import dedent, indent
from typing import Final

import pytest

from atoll.env.lint import SOURCE_CHARS_MAX, Finding, lint
from atoll.env.lint_rules import RULES, reference_page

ROOT: Final = Path(__file__).parents[2]
WAIT: Final = "sle" + "ep"  # Put together, since a test may not wait and tidy looks for the word.


def app(body: str, imports: str = "", fields: str = "") -> str:
    """Return a module with one App whose handler has this body."""
    head = f"import atoll\n{dedent(imports)}\nclass Bid(atoll.Tuple):\n    who: str\n\nclass Auction(atoll.App):\n"
    head += "    best: int = 0\n    who: set[str] = set()\n    names: 'list[str]' = []\n"
    head += indent(dedent(fields), "    ")
    return f"{head}\n    @atoll.on(Bid)\n    def bid(self, bid, ctx):\n{indent(dedent(body), '        ')}\n"


def rules(source: str) -> list[str]:
    return [finding.rule for finding in lint(source, "auction.py")]


@pytest.mark.parametrize(
    ("imports", "body", "rule"),
    [
        ("import time", "t = time.time()", "clock"),
        ("import time as clock", "self.best = clock.monotonic_ns()", "clock"),
        ("from time import time", "t = time()", "clock"),
        ("from time import perf_counter_ns as t", "x = t()", "clock"),
        ("from time import *", "x = monotonic()", "clock"),
        ("", "import time\nx = time.time_ns()", "clock"),
        ("", "from time import time as t\nx = t()", "clock"),
        ("try:\n    import time\nexcept ImportError:\n    time = None", "x = time.time()", "clock"),
        ("import time\nnow = time.time", "x = now()", "clock"),
        ("import datetime", "x = datetime.datetime.now()", "clock"),
        ("import datetime as dt", "x = dt.datetime.now(dt.UTC)", "clock"),
        ("import datetime as dt", "x = dt.date.today()", "clock"),
        ("from datetime import datetime", "x = datetime.utcnow()", "clock"),
        ("from datetime import datetime as D", "x = D.today()", "clock"),
        ("import datetime\nD = datetime.datetime", "x = D.now()", "clock"),
        ("from datetime import *", "x = datetime.now()", "clock"),
        ("import time", "x = time.localtime()", "clock"),
        ("import time", "x = time.gmtime(None)", "clock"),
        ("import time", "x = time.strftime('%H')", "clock"),
        ("import time", "x = sorted(self.names, key=lambda name: time.time())", "clock"),
        ("import time", "def later():\n    return time.time()\nx = later()", "clock"),
        ("import time", "def later(at=time.time()):\n    return at", "clock"),
        ("import time", "x = [time.time() for _ in range(3)]", "clock"),
        ("import time", "class Local:\n    def at(self):\n        return time.time()", "clock"),
        ("import time", f"time.{WAIT}(1)", "sleep"),
        (f"from time import {WAIT} as nap", "nap(1)", WAIT),
        ("import asyncio", f"asyncio.{WAIT}(1)", "sleep"),
        ("import random", "x = random.random()", "random"),
        ("import random as r", "x = r.choice(self.names)", "random"),
        ("from random import shuffle", "shuffle(self.names)", "random"),
        ("from random import *", "x = randint(1, 6)", "random"),
        ("import random", "x = sorted(self.names, key=random.random)", "random"),
        ("import random", "x = random.Random()", "random"),
        ("import random", "x = random.Random(None)", "random"),
        ("from random import Random", "x = Random(x=None)", "random"),
        ("import random", "x = random.SystemRandom()", "random"),
        ("import secrets", "x = secrets.token_hex(8)", "random"),
        ("from secrets import token_hex", "x = token_hex(8)", "random"),
        ("from secrets import *", "x = token_hex(8)", "random"),
        ("import uuid", "x = uuid.uuid4()", "random"),
        ("from uuid import uuid1", "x = uuid1()", "random"),
        ("import os", "x = os.urandom(8)", "random"),
        ("", "open('f')", "file"),
        ("", "x = input()", "file"),
        ("import io", "io.open('f')", "file"),
        ("import os", "x = os.listdir('.')", "file"),
        ("import os", "x = os.path.exists('f')", "file"),
        ("from os import path", "x = path.isfile('f')", "file"),
        ("import os.path as p", "x = p.getsize('f')", "file"),
        ("import shutil", "shutil.copy('a', 'b')", "file"),
        ("import tempfile", "x = tempfile.mkdtemp()", "file"),
        ("from pathlib import Path", "x = Path('f').read_text()", "file"),
        ("import pathlib", "x = (pathlib.Path('d') / 'f').read_bytes()", "file"),
        ("from pathlib import Path", "p = Path('d')\np.with_suffix('.x').write_text('')", "file"),
        ("from pathlib import Path", "x = Path.cwd()", "file"),
        ("from pathlib import Path\nHERE = Path('d')", "x = HERE.parent.open()", "file"),
        ("from pathlib import Path", "def read(p: Path):\n    return p.read_text()", "file"),
        ("from pathlib import Path", "def read(p: Path | None = None):\n    return p.read_text()", "file"),
        ("import socket", "socket.create_connection(('h', 1))", "network"),
        ("import urllib.request", "urllib.request.urlopen('http://h')", "network"),
        ("from urllib import request", "request.urlopen('http://h')", "network"),
        ("from urllib.request import urlopen", "urlopen('http://h')", "network"),
        ("import requests", "requests.get('http://h')", "network"),
        ("import httpx", "httpx.Client()", "network"),
        ("import asyncio", "asyncio.open_connection('h', 1)", "network"),
        ("import subprocess", "subprocess.run(['ls'])", "process"),
        ("from subprocess import Popen as P", "P(['ls'])", "process"),
        ("import os", "os.system('ls')", "process"),
        ("import os", "os.fork()", "process"),
        ("import multiprocessing as mp", "mp.Process()", "process"),
        ("import threading", "threading.Thread()", "thread"),
        ("from threading import Timer", "Timer(1, print)", "thread"),
        ("import asyncio", "asyncio.create_task(x)", "thread"),
        ("import asyncio", "asyncio.get_event_loop()", "thread"),
        ("import concurrent.futures", "concurrent.futures.ThreadPoolExecutor()", "thread"),
        ("from concurrent import futures", "futures.ThreadPoolExecutor()", "thread"),
        ("import os", "x = os.environ['HOME']", "host"),
        ("import os", "x = os.environ.get('HOME')", "host"),
        ("from os import getpid", "x = getpid()", "host"),
        ("import platform", "x = platform.node()", "host"),
        ("import uuid", "x = uuid.getnode()", "host"),
    ],
)
def test_what_is_beside_the_event_is_found(imports: str, body: str, rule: str) -> None:
    assert rules(app(body, imports)) == [rule]


@pytest.mark.parametrize(
    ("imports", "body"),
    [
        ("import datetime", "x = datetime.datetime.fromisoformat('2026-01-01')"),
        ("import datetime as dt", "x = dt.datetime(2026, 1, 1) + dt.timedelta(days=1)"),
        ("import time", "x = time.strftime('%H', time.gmtime(self.best))"),
        ("import time", "x = time.localtime(secs)"),
        ("import random", "x = random.Random(5).random()"),
        ("from random import Random", "x = Random(x=self.best)"),
        ("import random", "def f(r: random.Random): return isinstance(r, random.Random)"),
        ("", "x = ctx.random.random() + ctx.random.choice(self.names)"),
        ("", "ctx.after(5, bid)\nx = ctx.now()\ny = ctx.now_ns"),
        ("import uuid", "x = uuid.UUID(int=5)\ny = uuid.uuid5(uuid.NAMESPACE_DNS, 'h')"),
        ("import secrets", "x = secrets.compare_digest('a', 'b')"),
        ("import os", "x = os.path.join('a', 'b')"),
        ("import glob", "x = glob.escape('a')"),
        ("from pathlib import Path", "x = Path('a') / 'b'\ny = x.name"),
        ("from urllib.parse import quote", "x = quote('a')"),
        ("import socket", "x = socket.AF_INET\ny = socket.htons(1)"),
        ("import requests", "try:\n    pass\nexcept requests.RequestException:\n    pass"),
        ("", "open = self.best\nx = open + 1"),
        ("", "def open(x): return x\nx = open(1)"),
        ("import time", "def f(time): return time.time()"),
        ("import time", "for time in self.names: time.time()"),
        ("import time", "try:\n    pass\nexcept OSError as time:\n    time.time()"),
        ("import time", "match bid:\n    case {'a': [*time], **rest}: time.time()\n    case time: time.time()"),
        ("from .clock import time", "x = time()"),
        ("from . import random", "x = random.random()"),
        ("def random(): return 4", "x = random()"),
        ("class Path:\n    def read_text(self): return ''", "x = Path().read_text()"),
        ("from secrets import *", "print(1)"),
        ("import os\nSEP = os.sep", "x = SEP"),
        ("", "x = bid.open()\ny = bid.parent"),
        ("", "x: int"),
    ],
)
def test_what_follows_from_its_arguments_is_not(imports: str, body: str) -> None:
    assert rules(app(body, imports)) == []


@pytest.mark.parametrize(
    "body",
    [
        "for x in {1, 2}: pass",
        "for x in set(self.names): pass",
        "for x in frozenset(self.names): pass",
        "for x in {n for n in self.names}: pass",
        "s = set(self.names)\nfor x in s: pass",
        "s: set[str] = bid\nfor x in s: pass",
        "s: object = {1, 2}\nfor x in s: pass",
        "if (s := set(bid)):\n    for x in s: pass",
        "for x in (s := set(bid)): pass",
        "for x in self.who: pass",
        "def f(s: frozenset[str]):\n    for x in s: pass",
        "import typing\ndef f(s: typing.Optional[typing.AbstractSet]):\n    for x in s: pass",
        "import typing\ndef f(s: typing.Annotated[set[int], 'x']):\n    for x in s: pass",
        "for x in self.who | other: pass",
        "for x in other - self.who: pass",
        "for x in a.keys() & b.keys(): pass",
        "for x in self.who.union(other): pass",
        "for x in (self.who if bid else ()): pass",
        "for x in bid or set(): pass",
        "async def f():\n    async for x in {1}: pass",
        "x = [n for n in self.who]",
        "x = {n: 1 for n in self.who}",
        "x = ','.join(n for n in self.who)",
        "x = list(self.who)",
        "x = tuple({1, 2})",
        "x = next(iter(self.who))",
        "x = ','.join(self.who)",
        "x = list(map(str, self.who))",
        "for i, n in enumerate(self.who): pass",
        "x = sorted(enumerate(self.who))",
        "x = dict.fromkeys(self.who)",
        "x = self.who.pop()",
        "self.names.extend(self.who)",
        "self.names += self.who",
        "x = [*self.who]",
        "x = (1, *self.who)",
        "print(*self.who)",
        "a, b = self.who",
    ],
)
def test_the_order_of_a_set_is_found(body: str) -> None:
    assert rules(app(body)) == ["set-order"]


@pytest.mark.parametrize(
    "body",
    [
        "for x in sorted(self.who): pass",
        "x = len(self.who), min(self.who), max(self.who), sum({1, 2})",
        "x = 'a' in self.who",
        "x = self.who | {1} == self.who - bid",
        "self.who.add('a')\nself.who.discard('b')\nself.who |= {'c'}",
        "x = sorted(n for n in self.who)",
        "x = sorted([n for n in self.who])",
        "x = sorted(list(self.who))",
        "x = sorted([*self.who])",
        "x = sorted(map(str, self.who))",
        "x = any(n for n in self.who)",
        "x = {n for n in self.who}",
        "x = set(list(self.who))",
        "self.who.update(n for n in set(bid))",
        "s = set(bid)\ns = sorted(s)\nfor x in s: pass",
        "s = set(bid)\nfor s in bid:\n    for x in s: pass",
        "for x in self.names: pass",
        "for x in bid.members: pass",
        "(x,) = self.who",
        "x = max(*self.who)",
        "x = {'a': 1}.pop('a')",
        "for x in a.b.keys(): pass",
        "for x in a + b: pass",
        "def f(x: 'set', y: dict[str, int], z: int | str):\n    for n in x: pass",
        "i = 1\ni += 1\ni -= 1",
        "x = ','.join(self.names)",
    ],
)
def test_a_set_whose_order_does_not_matter_is_not(body: str) -> None:
    assert rules(app(body)) == []


@pytest.mark.parametrize(
    ("top", "body", "found"),
    [
        ("CACHE = {}", "CACHE['a'] = 1", ["module-state"]),
        ("CACHE = {}", "del CACHE['a']", ["module-state"]),
        ("CACHE = {}", "CACHE['a'] += 1", ["module-state"]),
        ("CACHE: dict = {}", "CACHE.update(a=1)", ["module-state"]),
        ("CACHE = {}", "CACHE['a'].append(1)", ["module-state"]),
        ("CACHE = {}", "CACHE['a']['b'] = 1", ["module-state"]),
        ("CACHE = {}", "def f(): CACHE.clear()", ["module-state"]),
        ("QUEUE = []", "import heapq\nheapq.heappush(QUEUE, 1)", ["module-state"]),
        ("import itertools\nCOUNTER = itertools.count()", "x = next(COUNTER)", ["module-state"]),
        ("class Shared:\n    items = []", "Shared.items.append(1)", ["module-state"]),
        ("class Shared:\n    count = 0", "Shared.count += 1", ["module-state"]),
        ("import config", "config.DEBUG = True", ["module-state"]),
        ("def helper():\n    CACHE.append(1)\nCACHE = []", "helper()", ["module-state"]),
        ("best = 0", "global best\nbest = 1", ["global"]),
        ("best = 0", "global best\nbest += 1", ["global"]),
        ("best = []", "global best\nbest = []\nbest.append(1)", ["global", "module-state"]),
        ("best = 0", "global best\nx = best", []),
        ("best = 0", "def f():\n    global best\n    best = 1", ["global"]),
        ("CACHE = {}", "x = CACHE.get('a')", []),
        ("CACHE = {}", "CACHE = {}\nCACHE['a'] = 1", []),
        ("CACHE = {}", "for CACHE in bid: CACHE.append(1)", []),
        ("CACHE = {}", "def f(CACHE): CACHE.append(1)", []),
        ("CACHE = {}\nCACHE['a'] = 1\nCACHE.update(b=2)", "pass", []),
        ("import operator", "x = operator.add(1, 2)", []),
        ("class Shared:\n    def add(x): pass", "Shared.add(1)", []),
        ("", "self.names.append(1)\nx = []\nx.append(1)\nx[0] = 2\nbid.x.clear()\nnext(x)\nf().a = 1\nnext()", []),
    ],
)
def test_state_of_the_module_is_not_changed(top: str, body: str, found: list[str]) -> None:
    assert rules(app(body, top)) == found


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("x = hash(bid)", ["hash"]),
        ("x = sorted(self.names, key=hash)", ["hash"]),
        ("class K:\n    def __hash__(self): return hash(1)", []),
        ("hash = 5\nx = hash", []),
        ("x = id(bid)", ["id"]),
        ("self.best = id(bid) % 7", ["id"]),
        ("x = id(bid) == id(self)", []),
        ("x = id(bid) == self.best", ["id"]),
        ("x = str(bid) == len(bid)", []),
        ("def f(id): return id", []),
    ],
)
def test_hashes_and_addresses_are_no_values(body: str, found: list[str]) -> None:
    assert rules(app(body)) == found


@pytest.mark.parametrize(
    ("fields", "body", "found"),
    [
        ("", "self.best = 1", []),
        ("", "self.other = 1", ["undeclared"]),
        ("", "self.other += 1", ["undeclared"]),
        ("", "self.other: int = 1", ["undeclared"]),
        ("", "a, self.other = 1, 2", ["undeclared"]),
        ("", "def f():\n    self.other = 1", ["undeclared"]),
        ("", "def f(self):\n    self.other = 1", []),
        ("", "bid.other = 1\nself.best.other = 1", []),
        ("other = 5", "self.other = 1", []),
        ("@property\ndef other(self): return 1", "self.other = 1", []),
        ("@classmethod\ndef f(cls): cls.other = 1", "pass", []),
        ("@staticmethod\ndef f(x): x.other = 1", "pass", []),
        ("def f(): pass", "pass", []),
        ("def f(self, *, k): self.other = 1", "pass", ["undeclared"]),
        ("f = lambda x: [x.other for x.other in 'ab']", "pass", []),
        ("def __init__(me, /, *a, k=1, **b): me.other = 1", "pass", ["undeclared"]),
        ("items = []", "pass", ["class-state"]),
        ("items = {}", "pass", ["class-state"]),
        ("items = dict()", "pass", ["class-state"]),
        ("items = [x for x in 'ab']", "pass", ["class-state"]),
        ("items: list[int] = []", "self.items = [1]", []),
        ("items = (1, 2)\n__slots__ = ['a']\nitems = tuple()\nitems.x[0] = []", "pass", []),
    ],
)
def test_fields_of_an_app_are_declared(fields: str, body: str, found: list[str]) -> None:
    assert rules(app(body, "", fields)) == found


def test_fields_of_bases_in_the_same_file_count_and_of_unknown_ones_are_not_guessed() -> None:
    source = """
        import abc
        from atoll import App as Application
        from typing import Generic, TypeVar
        from elsewhere import Mixin
        T = TypeVar("T")
        class Named(abc.ABC):
            name: str
            tags: set[str]
        class Base(Named, Application, Generic[T]):
            best: int = 0
        class Auction(Base[int]):
            def bid(self, bid, ctx):
                self.name = self.best = self.wrong = 1
                for tag in self.tags: pass
        class Other(Mixin, Application):
            def bid(self, bid, ctx):
                self.anything = 1
        class Plain:
            items = []
            def f(self): self.anything = 1
        class Loop(Loop2): pass
        class Loop2(Loop):
            def f(self): self.x = 1
    """
    found = [(finding.line, finding.rule) for finding in lint(dedent(source), "f.py")]
    assert found == [(14, "undeclared"), (15, "set-order")]


def test_an_app_is_known_by_each_import_of_it() -> None:
    for imports, base in (
        ("import atoll as a", "a.App"),
        ("from atoll import App", "App"),
        ("from atoll.env import App", "App"),
    ):
        assert rules(f"{imports}\nclass A({base}):\n    def f(self): self.x = 1\n") == ["undeclared"]


def test_what_runs_at_import_or_only_in_main_is_not_judged() -> None:
    source = """
        import asyncio, random, time
        import atoll
        STARTED = time.time()
        for x in {1, 2}: open(str(x))
        class Config:
            at = time.time()
        def decorate(f): return f
        @decorate
        def used(x=time.time()):
            return time.time()
        async def main():
            await asyncio.open_connection("h", 1)
            helper()
            used()
            main()
        def helper():
            return random.random()
        if STARTED:
            x = used
        else:
            y = 5
        if "__main__" == __name__:
            asyncio.run(main())
            def inner(): return time.time()
        else:
            def other(): return time.time()
    """
    found = [(finding.line, finding.rule) for finding in lint(dedent(source), "f.py")]
    assert found == [(11, "clock"), (27, "clock")]


def test_an_if_that_only_looks_like_main_is_judged() -> None:
    for test in ("__name__", "__name__ == 'other'", "name == '__main__'", "0 < __name__ < '__main__'"):
        assert rules(f"import time\nif {test}:\n    def f(): return time.time()\n") == ["clock"]


def test_a_factory_of_a_default_runs_in_handlers() -> None:
    source = """
        import time, msgspec
        class Bid(msgspec.Struct):
            at: float = msgspec.field(default_factory=time.time)
            items: list = msgspec.field(default_factory=list)
            then: float = msgspec.field(default_factory=lambda: time.time())
        def f():
            return msgspec.field(default_factory=time.time)
    """
    assert [finding.line for finding in lint(dedent(source), "f.py")] == [4, 6, 8]


def test_a_finding_is_allowed_on_its_line_with_a_reason() -> None:
    line = "x = time.time()"
    for comment, found in (
        ("# atoll: allow clock, for the log only", []),
        ("#atoll: allow clock,because", []),
        ("# atoll: allow random, other rule", ["clock"]),
        ("# atoll: allow clock", ["clock"]),
        ("# atoll: allow random, two  # atoll: allow clock, rules", []),
    ):
        assert rules(app(f"{line}  {comment}", "import time")) == found
    assert rules(app("x = list(\n  self.who\n)  # atoll: allow set-order, one at most")) == []


def test_a_finding_says_where_what_and_what_instead() -> None:
    (finding,) = lint("import time\ndef f():\n    é = 'é', time.time()\n", "auction.py")
    assert finding == Finding(
        3, 14, "clock", "time.time(): a replay would read another time", "ctx.now_ns or ctx.now()", "auction.py"
    )
    assert str(finding) == (
        "auction.py:3:14: time.time(): a replay would read another time; use ctx.now_ns or ctx.now() [clock]"
    )


@pytest.mark.parametrize(
    "source", ["def f(:\n", "x = (\n", "\0", "\ud800", "(" * 300, "a" + ".b" * 3000, "-" * 3000 + "1", "x" * 2_000_000]
)
def test_what_is_no_python_is_one_finding(source: str) -> None:
    (finding,) = lint(source, "f.py")
    assert finding.rule == "syntax"
    assert finding.line >= 1


def test_a_file_up_to_the_limit_is_read_and_warnings_of_the_parser_are_left_to_others() -> None:
    assert rules("#" * SOURCE_CHARS_MAX) == []
    assert rules("x = '\\d'\n") == []


def test_each_rule_reads_well_and_the_reference_is_made_of_them() -> None:
    assert (ROOT / "docs/reference/lint.md").read_text() == reference_page()
    for word, rule in RULES.items():
        assert word == rule.word
        assert not rule.finds.endswith(".")
        assert not rule.why.endswith(".")
        assert rule.why[0].islower()
        assert f"| `{word}` | " in reference_page()
