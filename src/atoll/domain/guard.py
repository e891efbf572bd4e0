# SPDX-License-Identifier: Apache-2.0
"""What a handler of the inline level touches beside its state: refused, by name, with what to use instead.

This catches honest mistakes: code that reads a clock, draws from a hidden generator, opens a file or asks the network
would do something else in a replay or on the next machine. It is **no security boundary**: whoever wants to get
around it can, and code that is not trusted runs at the process level or below.

Two mechanisms, both installed once for a process whose task is to run handlers:

* An audit hook (PEP 578) for files, directories, sockets, processes and whatever else CPython reports. It cannot be
  taken out again; it looks at one attribute and returns when no handler runs. It is called for every audited event of
  the process, of which ``id()`` is the only frequent one: 0.1 us more, and twice the time for ``copy.deepcopy``.
* Functions put in the place of those that report nothing: the clocks, ``time.sleep``, the functions of ``random``,
  ``os.urandom``, ``uuid``, ``secrets``, ``Thread.start``. Outside of a handler they call the original: 0.06 us more,
  for all who look the function up in its module. Modules of this package that bound the originals before (``from time
  import monotonic_ns``) pay nothing, and asyncio reads its clock twice in each turn of its loop.

Why the modules themselves and not copies for user code, which an ``__import__`` of its own would hand out: the copies
would have to reach all that user code imports, or a library that reads the clock for it goes unseen. So each of those
libraries would need other builtins, and import hooks of that kind are what authors complain about most in other
systems: a library that was imported before, that compares modules or that patches ``builtins`` breaks, and helpers of
the standard library still read the clock. In its place each function keeps its name and documentation; it is a
``staticmethod`` object, so that a class that keeps one as an attribute (``clock = time.time``) is not surprised by a
bound method.

Why ``datetime.now`` is replaced inside the C type, through its dictionary: a subclass for user code would be a second
``datetime``. msgspec decodes only the real one into a field that is annotated with it, and so do other codecs. After
the replacement there is still one type, and every library is seen.

What is let through although it looks at clock or disk, because nothing of it comes back into the state: ``logging``
(and loguru, structlog), warnings and tracebacks, which read source lines. And because it belongs to the code rather
than to the event: imports, whatever the imported module does, and time zone tables. A copy of a seeded generator is
seeded too.

What is not seen: files that are only asked about (``os.stat``), ``os.environ``, ``hash``, ``id``, the order of sets,
and what extension modules do in C. ``env.lint`` finds those in the source. Sets and hashes are made the same for all
processes by ``INTERPRETER_VARIABLES``, and ``check_interpreter`` says whether they are.
"""

import ctypes
import datetime as dt
import gc
import inspect
import os
import random
import secrets
import sys
import threading
import time
import uuid
import zoneinfo
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import get_ident
from types import ModuleType
from typing import Any, Final, final

from atoll.base.errors import UsageError
from atoll.env.lint_rules import NAMES, READS_WITHOUT, RULES

__all__ = [
    "INTERPRETER_VARIABLES",
    "AmbientError",
    "audit",
    "begin",
    "check_interpreter",
    "end",
    "faults_of",
    "install",
    "put",
    "remove",
    "watching",
]

INTERPRETER_VARIABLES: Final = {"PYTHONHASHSEED": "0", "TZ": "UTC"}
"""What the environment of a process that runs handlers must hold before Python starts.

With hashes of text that differ from process to process, a set that was restored elsewhere would be walked in another
order; with another time zone, ``datetime.fromtimestamp(x)`` would be another hour. Hashes that are the same for all can
be guessed, so that colliding keys make a dictionary slow: what limits that is the bound on the time of an event.
"""

FRAMES_MAX: Final = 500
"""Frames looked at for a reason to let a call through; beyond it is refused. Half of Python's own bound on calls."""

_LET_THROUGH: Final = frozenset(
    {
        *("logging", "loguru", "structlog", "warnings", "linecache", "traceback"),
        *("importlib", "_frozen_importlib", "_frozen_importlib_external", "zoneinfo", "copy"),
    }
)
_EVENTS: Final = {
    "open": "file",
    "builtins.input": "file",
    "sqlite3.connect": "file",
    "os.fork": "process",
    "os.forkpty": "process",
    "os.exec": "process",
    "os.kill": "process",
    "os.killpg": "process",
    "os.posix_spawn": "process",
    "os.spawn": "process",
    "os.system": "process",
    "os.putenv": "host",
    "os.unsetenv": "host",
    "time.sleep": "sleep",
}
_EVENT_FAMILIES: Final = {
    **dict.fromkeys(("glob", "os", "pathlib", "shutil", "tempfile"), "file"),
    **dict.fromkeys(("ftplib", "http", "imaplib", "poplib", "smtplib", "socket", "urllib"), "network"),
    **dict.fromkeys(("pty", "subprocess"), "process"),
    "_thread": "thread",
}


@final
class AmbientError(UsageError):
    """A handler touched what is neither its input nor its state. The handler fails; the author mends it.

    Where a handler swallows it, it does so in every replay too, so the journal stays true.

    Args:
        what: The call, such as ``time.time()``.
        instead: What to use; completes "use ...".
    """

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(what, instead)
        self.what: Final = what
        self.instead: Final = instead

    def __str__(self) -> str:
        return f"{self.what} inside a handler: use {self.instead}"


class _State:
    """One attribute that everything looks at: the thread in which a handler runs, 0 when none does."""

    __slots__ = ("hooked", "thread")

    def __init__(self) -> None:
        self.thread = 0
        self.hooked = False


_Owner = ModuleType | type[Any]

_state: Final = _State()
_originals: Final[list[tuple[Any, str, Any]]] = []


def begin() -> int:
    """Watch this thread from here on; return what ``end`` wants. Pairs may be nested.

    Raises:
        UsageError: A handler runs in another thread of this process. One thread runs all handlers.
    """
    previous = _state.thread
    thread = get_ident()
    if previous and previous != thread:
        raise UsageError("handlers run in two threads")
    _state.thread = thread
    return previous


def end(previous: int) -> None:
    """Go back to what was before ``begin`` returned ``previous``. Never fails, so it can stand in a ``finally``."""
    _state.thread = previous


@contextmanager
def watching() -> Generator[None]:
    """Watch inside a ``with``. Slower than ``begin`` and ``end``, which the path of each event uses."""
    previous = begin()
    try:
        yield
    finally:
        end(previous)


def install() -> None:
    """Put the guard into this process; again has no effect. Call it after the process's own modules are imported."""
    if _originals:
        return
    for owner, name, replacement in list(_replacements()):
        _originals.append((owner, name, owner.__dict__[name]))
        put(owner, name, replacement)
    if not _state.hooked:
        _state.hooked = True
        sys.addaudithook(audit)


def remove() -> None:
    """Put the original functions back. The audit hook stays, as all do, and sees nothing without ``begin``."""
    while _originals:
        put(*_originals.pop())


def check_interpreter() -> tuple[str, ...]:
    """Return what is wrong with how this process was started, one sentence each; empty: handlers may run here."""
    return faults_of(sys.flags.hash_randomization, time.timezone, time.daylight)


def faults_of(randomized: int, offset_s: int, daylight: int) -> tuple[str, ...]:
    """Return the same of given facts.

    Args:
        randomized: ``sys.flags.hash_randomization``.
        offset_s: ``time.timezone``, seconds west of UTC.
        daylight: ``time.daylight``, not 0 where clocks are ever put forward.
    """
    found = (
        (randomized, "hashes differ from process to process: start it with PYTHONHASHSEED=0"),
        (offset_s or daylight, "local time is not UTC: start it with TZ=UTC"),
    )
    return tuple(sentence for wrong, sentence in found if wrong)


def audit(event: str, args: tuple[Any, ...]) -> None:
    """Judge one audit event (PEP 578): the hook itself.

    Raises:
        AmbientError: A handler runs in this thread and caused it.
    """
    if not _state.thread:
        return
    word = _EVENTS.get(event) or _EVENT_FAMILIES.get(event.partition(".")[0])
    if word is None or _is_data_of_the_interpreter(event, args):
        return
    shown = repr(args[0]) if event == "open" else ""
    _refuse(f"{event}({shown})", RULES[word].instead)


def _is_data_of_the_interpreter(event: str, args: tuple[Any, ...]) -> bool:
    """Return whether this opens a time zone's table, which ``zoneinfo`` does from C, or a database in memory."""
    if event == "open":
        return isinstance(args[0], str) and args[0].startswith(zoneinfo.TZPATH)
    return event == "sqlite3.connect" and args[0] == ":memory:"


def _refuse(what: str, instead: str) -> None:
    """Raise, unless this is another thread than the handler's, or somebody asks who is let through."""
    if _state.thread != get_ident():
        return
    frame = inspect.currentframe()
    for _ in range(FRAMES_MAX):
        if frame is None:
            break
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _LET_THROUGH:
            return
        frame = frame.f_back
    raise AmbientError(what, instead)


def put(owner: _Owner, name: str, value: Any) -> None:
    """Put something in the place of a function of a module or a class, those made in C included."""
    if owner in {dt.date, dt.datetime}:
        # A type made in C refuses setattr; its dictionary does not. The interpreter must forget what it cached of it.
        gc.get_referents(vars(owner))[0][name] = value
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(owner))
    else:
        setattr(owner, name, value)


def _replacements() -> Iterator[tuple[_Owner, str, Any]]:
    """Yield (module or class, name, what takes its place) of every function that has no audit event."""
    modules = {"os": os, "random": random, "time": time, "uuid": uuid}
    for full, word in NAMES.items():
        module, _, name = full.rpartition(".")
        original = vars(modules[module]).get(name) if module in modules else None
        # Not every version has all of them. SystemRandom is a class; what it draws from is replaced below.
        if word in {"clock", "sleep", "random"} and original and name != "SystemRandom":
            yield modules[module], name, _guarded(original, full, word)
    for full, (word, least) in READS_WITHOUT.items():
        module, _, name = full.rpartition(".")
        if module == "time":
            yield time, name, _guarded_without(getattr(time, name), full, word, least)
    for name in ("choice", "randbelow", "randbits", "token_bytes", "token_hex", "token_urlsafe"):
        yield secrets, name, _guarded(getattr(secrets, name), f"secrets.{name}", "random")
    yield random, "_urandom", _guarded(vars(random)["_urandom"], "os.urandom", "random")
    yield random.Random, "seed", _guarded_seed(random.Random.seed)
    yield threading.Thread, "start", _guarded_method(threading.Thread.start, "Thread.start", "thread")
    for kind, name in ((dt.datetime, "now"), (dt.datetime, "utcnow"), (dt.date, "today")):
        yield kind, name, _guarded_class_method(vars(kind)[name], f"{kind.__name__}.{name}", "clock")


def _guarded(original: Callable[..., Any], full: str, word: str) -> Any:
    what, instead = f"{full}()", RULES[word].instead

    @wraps(original)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if _state.thread:
            _refuse(what, instead)
        return original(*args, **kwargs)

    return staticmethod(guarded)


def _guarded_without(original: Callable[..., Any], full: str, word: str, least: int) -> Any:
    """Return a guard of a function that reads the clock when argument number ``least`` is missing or None."""
    what, instead = f"{full}() without a time", RULES[word].instead

    @wraps(original)
    def guarded(*args: Any) -> Any:
        if _state.thread and (len(args) < least or args[least - 1] is None):
            _refuse(what, instead)
        return original(*args)

    return staticmethod(guarded)


def _guarded_seed(original: Callable[..., None]) -> Any:
    """Return a guard of ``Random.seed``, which ``Random()`` calls: without a seed it takes one from the system."""

    @wraps(original)
    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        if _state.thread and a is None:
            _refuse("random.Random() without a seed", RULES["random"].instead)
        original(self, a, version)

    return seed


def _guarded_method(original: Callable[..., Any], full: str, word: str) -> Any:
    what, instead = f"{full}()", RULES[word].instead

    @wraps(original)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _state.thread:
            _refuse(what, instead)
        return original(self, *args, **kwargs)

    return guarded


def _guarded_class_method(original: Any, full: str, word: str) -> Any:
    what, instead = f"{full}()", RULES[word].instead

    def guarded(cls: type, *args: Any, **kwargs: Any) -> Any:
        if _state.thread:
            _refuse(what, instead)
        return original.__get__(None, cls)(*args, **kwargs)

    guarded.__name__, guarded.__doc__ = original.__name__, original.__doc__
    replacement: classmethod[Any, ..., Any] = classmethod(guarded)
    return replacement
