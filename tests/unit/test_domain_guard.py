# SPDX-License-Identifier: Apache-2.0
"""While a handler runs, what is beside its state is refused by name; outside, everything is as it was."""

import asyncio
import copy
import datetime as dt
import importlib
import inspect
import io
import linecache
import logging
import os
import pickle
import random
import secrets
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
import uuid
import warnings
import zoneinfo
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from atoll.base.errors import ProjectError, UsageError
from atoll.domain import guard
from atoll.domain.guard import (
    AmbientError,
    audit,
    begin,
    check_interpreter,
    end,
    faults_of,
    install,
    remove,
    watching,
)
from atoll.env.lint_rules import RULES

MISSING: Final = "/nowhere/at/all"


@pytest.fixture(autouse=True)
def guarded() -> Iterator[None]:
    install()
    yield
    remove()


WORLD: Final = {"io": io, "socket": socket, "subprocess": subprocess}  # For what is evaluated.
Datetime: Final = dt.datetime  # Under another name, since ruff asks for a time zone with each use of the real one.
Date: Final = dt.date


def zero() -> None:
    getattr(time, "sle" + "ep")(0)


@pytest.mark.parametrize(
    ("touch", "what", "word"),
    [
        ("time.time()", "time.time()", "clock"),
        ("time.time_ns()", "time.time_ns()", "clock"),
        ("time.monotonic()", "time.monotonic()", "clock"),
        ("time.perf_counter_ns()", "time.perf_counter_ns()", "clock"),
        ("time.process_time()", "time.process_time()", "clock"),
        ("time.localtime()", "time.localtime() without a time", "clock"),
        ("time.gmtime(None)", "time.gmtime() without a time", "clock"),
        ('time.strftime("%H")', "time.strftime() without a time", "clock"),
        ("dt.datetime.now()", "datetime.now()", "clock"),
        ("dt.datetime.now(tz=dt.UTC)", "datetime.now()", "clock"),
        ("dt.datetime.today()", "date.today()", "clock"),
        ("dt.date.today()", "date.today()", "clock"),
        ("zero()", "time.sle" + "ep()", "sleep"),
        ("random.random()", "random.random()", "random"),
        ("random.shuffle([])", "random.shuffle()", "random"),
        ("random.seed(5)", "random.seed()", "random"),
        ("random.Random()", "random.Random() without a seed", "random"),
        ("random.SystemRandom().random()", "os.urandom()", "random"),
        ("os.urandom(1)", "os.urandom()", "random"),
        ("os.getrandom(1)", "os.getrandom()", "random"),
        ("secrets.token_hex()", "secrets.token_hex()", "random"),
        ("secrets.SystemRandom().randbytes(3)", "os.urandom()", "random"),
        ("uuid.uuid1()", "uuid.uuid1()", "random"),
        ("uuid.uuid4()", "uuid.uuid4()", "random"),
        ("open(MISSING)", f"open('{MISSING}')", "file"),
        ('io.open(MISSING, "wb")', f"open('{MISSING}')", "file"),
        ("os.open(MISSING, 0)", f"open('{MISSING}')", "file"),
        ("open(0)", "open(0)", "file"),
        ("Path(MISSING).read_text()", f"open('{MISSING}')", "file"),
        ("os.listdir(MISSING)", "os.listdir()", "file"),
        ("os.remove(MISSING)", "os.remove()", "file"),
        ("sqlite3.connect(MISSING)", "sqlite3.connect()", "file"),
        ('os.putenv("ATOLL_NEVER", "")', "os.putenv()", "host"),
        ("socket.socket()", "socket.__new__()", "network"),
        ("socket.gethostname()", "socket.gethostname()", "network"),
        ("subprocess.run([MISSING], check=False)", "subprocess.Popen()", "process"),
        ('os.system("true")', "os.system()", "process"),
        ("os.posix_spawn(MISSING, [MISSING], {})", "os.posix_spawn()", "process"),
        ("threading.Thread(target=print).start()", "Thread.start()", "thread"),
    ],
)
def test_a_handler_that_touches_the_world_is_told_what_to_use(touch: str, what: str, word: str) -> None:
    with pytest.raises(AmbientError) as caught, watching():
        eval(touch, {**globals(), **WORLD})
    assert (caught.value.what, caught.value.instead) == (what, RULES[word].instead)
    assert str(caught.value) == f"{what} inside a handler: use {RULES[word].instead}"
    assert time.time() > 0


def test_what_follows_from_its_arguments_is_let_through() -> None:
    seeded = random.Random(5)
    with watching():
        assert time.gmtime(0).tm_year == 1970
        assert time.strftime("%H", time.gmtime(3600)) == "01"
        assert time.localtime(0).tm_year in {1969, 1970}
        assert random.Random(5).random() == copy.deepcopy(seeded).random() == seeded.random()
        assert dt.datetime.fromisoformat("2026-01-01").year == 2026
        assert uuid.UUID(int=5).int == 5
        with closing(sqlite3.connect(":memory:")) as database:
            assert database.execute("select 1").fetchone() == (1,)
        assert zoneinfo.ZoneInfo.no_cache("Europe/Berlin").key == "Europe/Berlin"
        print(end="")


def test_outside_of_handlers_everything_is_as_it_was() -> None:
    assert abs(time.time() - time.time_ns() / 1e9) < 60
    assert time.monotonic() <= time.monotonic()
    assert time.localtime().tm_year == Datetime.now().year == Date.today().year
    assert Datetime.now(dt.UTC).tzinfo is dt.UTC
    assert Datetime.now(tz=None).tzinfo is None
    assert type(Datetime.now()) is dt.datetime
    assert 0 <= random.random() < 1
    assert random.Random().random() != random.Random().random()
    assert len(os.urandom(4)) == 4
    assert uuid.uuid4() != uuid.uuid4()
    assert secrets.token_hex(2) != secrets.token_hex(20)
    zero()
    thread = threading.Thread(target=print, kwargs={"end": ""})
    thread.start()
    thread.join()
    with Path(__file__).open() as file:
        assert file.readline().startswith("# SPDX")


def test_a_replaced_function_looks_and_behaves_like_its_original() -> None:
    class Kept:
        clock: Any = time.monotonic
        stamp = staticmethod(time.time)

    class Moment(dt.datetime):
        pass

    assert Kept().clock() > 0
    assert Kept.clock() > 0
    assert Kept().stamp() > 0
    assert time.time.__name__ == "time"
    assert "epoch" in (time.time.__doc__ or "").lower()
    assert Datetime.now.__name__ == "now"
    assert isinstance(Moment.now(), Moment)
    assert msgspec.json.decode(b'"2026-01-01T00:00:00Z"', type=dt.datetime).year == 2026
    with pytest.raises(AmbientError, match=r"^datetime.now\(\) "), watching():
        Moment.now()


def test_removing_gives_the_originals_back() -> None:
    remove()
    assert inspect.isbuiltin(time.time)
    assert inspect.isbuiltin(Datetime.now)
    assert random.Random.seed.__module__ == "random"
    with watching():
        assert time.time() > 0
        assert Datetime.now() >= Datetime.now() - dt.timedelta(days=1)
    remove()
    install()
    install()
    remove()
    assert inspect.isbuiltin(time.time)


def test_pairs_may_be_nested_and_errors_leave_the_guard_off() -> None:
    outer = begin()
    inner = begin()
    with pytest.raises(AmbientError):
        time.time()
    end(inner)
    with pytest.raises(AmbientError):
        time.time()
    end(outer)
    assert time.time() > 0
    with pytest.raises(ZeroDivisionError), watching(), watching():
        assert 1 // 0
    assert time.time() > 0


def test_other_threads_are_not_the_handler() -> None:
    results: list[object] = []
    started, go = threading.Event(), threading.Event()

    def other() -> None:
        started.set()
        assert go.wait(10)
        results.append(time.time())
        results.append(Path(__file__).read_text()[0])
        try:
            begin()
        except UsageError as error:
            results.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    assert started.wait(10)
    with watching():
        go.set()
        thread.join(10)
        with pytest.raises(AmbientError):
            time.time()
    assert results[1:] == ["#", "handlers run in two threads"]


def test_logging_warnings_and_tracebacks_go_on(tmp_path: Path) -> None:
    logger = logging.getLogger("atoll.test.guard")
    handler = logging.FileHandler(tmp_path / "log", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    linecache.clearcache()
    with watching():
        logger.warning("inside")
        assert "# SPDX" in warnings.formatwarning("inside too", UserWarning, __file__, 1)
        try:
            assert 1 // 0
        except ZeroDivisionError:
            assert "1 // 0" in traceback.format_exc()
    logger.removeHandler(handler)
    handler.close()
    assert (tmp_path / "log").read_text().endswith("inside\n")


def test_an_import_inside_a_handler_is_part_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_by_a_handler.py").write_text(
        "import time\nAT = time.time()\nwith open(__file__) as file:\n    TEXT = file.read()\n"
        "def late():\n    return time.time()\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    with watching():
        module: Any = importlib.import_module("imported_by_a_handler")
        assert module.AT > 0
        with pytest.raises(AmbientError):
            module.late()
    del sys.modules["imported_by_a_handler"]


def test_an_event_is_judged_by_its_name_and_thread() -> None:
    audit("open", (MISSING, "r", 0))
    with watching():
        audit("import", ("wave",))
        audit("sqlite3.connect", (":memory:",))
        audit("open", (f"{(*zoneinfo.TZPATH, MISSING)[0]}/UTC", "rb", 0))
        for event in ("os.fork", "os.exec", "_thread.start_new_thread", "urllib.Request", "tempfile.mkstemp"):
            with pytest.raises(AmbientError, match=rf"^{event}\(\) inside"):
                audit(event, ())


def test_beyond_so_many_frames_nobody_asks_for_a_reason() -> None:
    def deep(left: int, then: Callable[[], Any]) -> Any:
        return deep(left - 1, then) if left else then()

    namespace: dict[str, Any] = {"__name__": "logging.deep", "deep": deep, "time": time}
    exec("def log(depth): return deep(depth, time.time)", namespace)
    with watching():
        assert namespace["log"](5) > 0
        with pytest.raises(AmbientError):
            namespace["log"](guard.FRAMES_MAX)


def test_asyncio_runs_beside_handlers() -> None:
    async def serve() -> float:
        with pytest.raises(AmbientError), watching():
            asyncio.get_running_loop().time()
        await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, zero), 10)
        return asyncio.get_running_loop().time()

    assert asyncio.run(serve()) > 0


def test_the_interpreter_is_checked() -> None:
    assert faults_of(0, 0, 0) == ()
    (randomized,) = faults_of(1, 0, 0)
    (local,) = faults_of(0, 0, 1)
    assert faults_of(1, -3600, 0) == (randomized, local)
    for name, value in guard.INTERPRETER_VARIABLES.items():
        assert f"{name}={value}" in randomized + local
    assert check_interpreter() == faults_of(sys.flags.hash_randomization, time.timezone, time.daylight)


def test_the_error_survives_a_pickle() -> None:
    error = AmbientError("time.time()", "ctx.now_ns")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ProjectError)
    assert str(again) == str(error)
