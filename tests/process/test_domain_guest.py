# SPDX-License-Identifier: Apache-2.0
"""Real guests: whatever a handler does stays inside, fails as one event, and leaves nothing behind."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest

from atoll.base.errors import CorruptError, LinkError, UserError
from atoll.domain.guest.confine import is_possible
from atoll.domain.guest.guests import Guests
from atoll.domain.guest.launch import GuestProcess, Zygote
from atoll.domain.guest.machine import GuestPlace
from atoll.domain.limits import GUEST_PATIENCE_S
from atoll.domain.loading import Bundle, bundle_of, load
from atoll.env.history import decode_body
from atoll.env.pieces import Pieces
from atoll.env.records import Arrived, Began, Confirmed, Failed, Held, Item, Opened
from atoll.env.runner import Runner

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not is_possible(), reason="guests need Linux on x86_64 or aarch64"),
]

WAIT_S = 30.0
PATIENT_S, SHORT_S = 20.0, 0.5  # A handler may take so long, where it is to end and where it never does.
ANN, ME, NODE = b"a" * 16, b"m" * 16, b"n" * 10
BUNDLE = bundle_of(str(Path(__file__).parent / "naughty_app.py"))
CODE = b"c" * 32
EPERM = "-1 1"
encode = msgspec.msgpack.Encoder().encode


@pytest.fixture(scope="module")
def zygote() -> Generator[Zygote]:
    made = Zygote()
    yield made
    made.close()


class _Run:
    """One environment in a guest, with its journal."""

    def __init__(self, zygote: Zygote, handler_s: float = PATIENT_S) -> None:
        self.place = GuestPlace(zygote.fork, BUNDLE.encode(), BUNDLE.app, handler_s)
        self.runner = Runner(self.place, CODE)
        self.sent = 0
        self.take(Began(ME, bytes(32), "naughty", CODE, encode({}), NODE, "process"))
        self.take(Held((NODE,), 1))

    def take(self, record: Arrived | Began | Held | Confirmed | Opened, until_s: float = WAIT_S) -> None:
        self.runner.take(record, 5)
        until = time.monotonic() + until_s
        while self.runner.is_busy:
            assert time.monotonic() < until, "a handler never ends"
            self.runner.go_on()

    def arrived(self, *whats: str) -> Arrived:
        first, self.sent = self.sent + 1, self.sent + len(whats)
        items = [Item(msgspec.Raw(encode({"is": "Do", "what": what})), 1) for what in whats]
        return Arrived(ANN, first, msgspec.Raw(encode(items)))

    def do(self, *whats: str) -> None:
        arrived = self.arrived(*whats)
        pieces = Pieces(ANN, arrived.first, len(whats), bytes(arrived.items))
        is_done = False
        while not is_done:
            self.take(pieces.next()[0])
            is_done = pieces.took(self.runner.environment.received(ANN))

    def fails(self, what: str) -> tuple[str, str]:
        """Do what fails; return code and text, after a check that nothing else has changed."""
        before, failures = self.runner.environment.fields(), self.runner.failures
        self.do(what)
        made = self.runner.block()
        assert made is not None
        failed = [entry.record for entry in decode_body(made.body).entries if isinstance(entry.record, Failed)]
        assert len(failed) == 1, decode_body(made.body)
        assert (failed[0].party, failed[0].number) == (ANN, self.sent)
        assert self.runner.failures == failures + 1
        assert self.runner.environment.fields() == before
        self.do("fine")
        assert self.runner.environment.fields() == {"n": before["n"] + 1}
        return failed[0].code, failed[0].text

    def says(self, what: str) -> str:
        """Return what the handler responds."""
        self.do(what)
        _, last = self.runner.environment.owed()[-1]
        return str(msgspec.msgpack.decode(msgspec.msgpack.decode(last.payload, type=list[Item])[0].event)["text"])


@pytest.fixture
def run(zygote: Zygote) -> Generator[_Run]:
    made = _Run(zygote)
    yield made
    made.runner.close()


# What handlers do.


@pytest.mark.parametrize(
    ("what", "code", "text"),
    [
        ("raise:no", "raised", "ValueError: no"),
        ("grow", "grown", "out of memory"),
        ("flood", "raised", "LimitError: guest_answer_bytes_max"),
        ("python:raise SystemExit", "raised", "SystemExit"),
        ("python:os.fork()", "raised", "AmbientError: os.fork"),
        ("python:open('/etc/passwd')", "raised", "AmbientError: open"),
        ("python:socket.socket()", "raised", "AmbientError: socket"),
        ("python:time.time()", "raised", "AmbientError: time.time()"),
        ("python:random.random()", "raised", "AmbientError: random.random()"),
        ("python:os.urandom(8)", "raised", "AmbientError: os.urandom()"),
        ("python:threading.Thread(target=print).start()", "raised", "AmbientError: Thread.start()"),
        ("python:_thread.start_new_thread(print, ())", "raised", ""),
        ("python:os.kill(os.getpid(), 9)", "raised", "AmbientError: os.kill"),
        ("python:os.close(0)", "raised", "PermissionError"),
        ("python:os.stat('/')", "raised", "PermissionError"),
        ("python:mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)", "raised", "PermissionError"),
        ("python:import colorama.nowhere", "raised", "ModuleNotFoundError"),
        ("python:os._exit(7)", "killed", "its process ended with status 7"),
        ("python:os.abort()", "killed", "its process was ended by SIG"),
        ("python:ctypes.string_at(0)", "killed", "its process was ended by SIGSEGV"),
        ("ring:counters", "killed", ""),
        ("ring:everything", "killed", ""),
        ("ring:shrink", "raised", ""),
    ],
)
def test_what_a_handler_does_wrong_fails_as_one_event(run: _Run, what: str, code: str, text: str) -> None:
    run.do("fine")
    found = run.fails(what)
    assert found[0] == code
    assert text in found[1]


@pytest.mark.parametrize("what", ["loop", "chew", "swallow"])
def test_what_never_ends_is_ended(zygote: Zygote, what: str) -> None:
    run = _Run(zygote, SHORT_S)
    run.do("fine")
    assert run.fails(what) == ("killed", "it ran for more than 0.5 s")
    run.runner.close()


def test_a_frame_of_rubbish_ends_the_guest_before_its_time(run: _Run) -> None:
    started = time.monotonic()
    assert run.fails("ring:frame")[0] == "killed"
    assert time.monotonic() - started < PATIENT_S


@pytest.mark.parametrize(
    "call",
    [
        "fork",
        "vfork",
        "getppid",
        "socket 1 1 0",
        "socket 2 1 0",
        "eventfd 0 0",
        "memfd_create 0 0",
        "dup 0",
        "close 0",
        "kill 1 0",
        "ptrace 0 0 0 0",
        "syscall 425 1 0",  # io_uring_setup
        "syscall 434 1 0",  # pidfd_open
        "syscall 435 0 0",  # clone3
        "syscall 228 0 0",  # clock_gettime
        "syscall 318 0 8 0",  # getrandom
        "prctl 22 0 0 0 0",
        "setpriority 0 0 19",
        "alarm 1",
    ],
)
def test_no_system_call_gets_past_the_guard(run: _Run, call: str) -> None:
    assert run.says(f"c:{call}") in {EPERM, "-1 0"}


def test_a_program_cannot_become_another_one(run: _Run) -> None:
    code, _ = run.fails("python:assert libc.execv(b'/bin/true', None) == -1; os.execv('/bin/true', ['true'])")
    assert code == "raised"


def test_the_clock_behind_the_guard_stands(run: _Run) -> None:
    assert run.says("c:time 0") == "0 0"
    assert float(run.says("stamp")) == 5e-9  # What may look at the clock sees the time of the event.


def test_one_of_many_items_that_kills_is_found(run: _Run) -> None:
    run.do("one", "two", "python:os._exit(1)", "raise:x", "five")
    assert run.runner.failures == 2
    assert run.runner.environment.fields() == {"n": 3}
    assert run.runner.environment.received(ANN) == 5


def test_a_guest_that_was_killed_from_outside_is_replaced_and_nothing_is_lost(run: _Run) -> None:
    run.do("one", "two")
    for _ in range(3):
        guest = run.place.guest
        assert isinstance(guest, GuestProcess)
        os.kill(guest.pid, 9)
        run.do("three")
        run.take(Confirmed(ANN, 1))
    assert (run.runner.failures, run.runner.environment.fields()) == (0, {"n": 5})


# Journals.


def test_a_journal_of_one_level_replays_at_the_other(zygote: Zygote) -> None:
    run = _Run(zygote, SHORT_S)
    for what in ("fine", "raise:a", "loop", "python:time.time()", "python:os._exit(1)", "log"):
        run.do(what)
    run.do("fine", "python:ctypes.string_at(0)", "fine")
    run.runner.checkpoint(6)
    body = run.runner.block()
    assert body is not None
    inline = Runner(load(BUNDLE).program, CODE)
    inline.redo(1, decode_body(body.body))
    assert inline.digest == run.runner.digest
    assert inline.environment.snapshot() == run.runner.environment.snapshot()
    for runner in (inline, run.runner):
        for what in ("raise:b", "fine", "python:open('x')"):
            if runner is inline:
                record = run.arrived(what)
                runner.take(record, 9)
    made = inline.block()
    assert made is not None
    run.runner.redo(2, decode_body(made.body))
    assert inline.digest == run.runner.digest
    assert inline.environment.snapshot() == run.runner.environment.snapshot()
    again = GuestPlace(zygote.fork, BUNDLE.encode(), BUNDLE.app)
    third = Runner(again, CODE)
    third.redo(1, decode_body(body.body))
    third.redo(2, decode_body(made.body))
    assert third.digest == inline.digest
    third.close()
    run.runner.close()


def test_failures_are_said_in_the_same_words_at_both_levels(run: _Run) -> None:
    inline = Runner(load(BUNDLE).program, CODE)
    inline.take(Began(ME, bytes(32), "naughty", CODE, encode({}), NODE, "process"), 5)
    inline.take(Held((NODE,), 1), 5)
    for what in ("fine", "raise:x", "python:raise KeyError(3)", "python:raise SystemExit(1)", "python:f()", "log"):
        record = run.arrived(what)
        run.take(record)
        inline.take(record, 5)
    ours, theirs = run.runner.block(), inline.block()
    assert ours is not None
    assert theirs is not None
    assert ours.body == theirs.body


# The server around.


def test_a_guest_that_takes_long_holds_nobody_up(zygote: Zygote) -> None:
    async def test() -> None:
        guests = Guests()
        place = await guests.place(BUNDLE.encode())
        runner = Runner(place, CODE)
        runner.take(Began(ME, bytes(32), "naughty", CODE, encode({}), NODE, "process"), 5)
        started = time.monotonic()
        items = [Item(msgspec.Raw(encode({"is": "Do", "what": "spin:20000000"})), 1)]
        runner.take(Arrived(ANN, 1, msgspec.Raw(encode(items))), 5)
        assert runner.is_busy
        assert time.monotonic() - started < 10 * GUEST_PATIENCE_S
        done = asyncio.Event()
        guests.watch(place, done.set)
        async with asyncio.timeout(WAIT_S):
            await done.wait()
        runner.go_on()
        assert (runner.is_busy, runner.environment.fields()) == (False, {"n": 1})
        items = [Item(msgspec.Raw(encode({"is": "Do", "what": "loop"})), 1)]
        runner.take(Arrived(ANN, 2, msgspec.Raw(encode(items))), 5)
        heard: list[bool] = []
        guests.watch(place, lambda: heard.append(True))
        runner.close()
        assert (heard, place.let_go) == ([], None)
        guests.close()
        guests.close()

    del zygote
    asyncio.run(test())


def test_what_cannot_be_loaded_is_named_and_leaves_nothing() -> None:
    async def test() -> None:
        guests = Guests()
        for source, code in (
            ("raise ValueError", "A603"),
            ("import os\nos._exit(3)", "A603"),
            ("import ctypes\nctypes.string_at(0)", "A603"),
            ("open('/etc/passwd')", "A603"),
            ("import socket\nsocket.socket()", "A603"),
            ("import os\nos.fork()", "A603"),
        ):
            with pytest.raises(UserError) as raised:
                await guests.place(Bundle(1, "x", "X", {"x": source}).encode())
            assert raised.value.code == code
            assert "inline" not in raised.value.fix, "there it would end the server of all"
        with pytest.raises(CorruptError):
            await guests.place(b"\xc1")
        assert _children(guests.zygote.pid) == []
        guests.close()

    asyncio.run(test())


def test_killing_gives_everything_back(zygote: Zygote) -> None:
    def cycle() -> None:
        one = _Run(zygote)
        one.do("fine")
        one.runner.close()

    for _ in range(20):
        cycle()
    files, kib = _files(), _rss_kib()
    zygote_files, zygote_kib = _files(zygote.pid), _rss_kib(zygote.pid)
    for _ in range(200):
        cycle()
    assert (_files(), _files(zygote.pid)) == (files, zygote_files)
    assert _children(zygote.pid) == []
    assert _rss_kib() - kib < 2048
    assert _rss_kib(zygote.pid) - zygote_kib < 1024


def test_when_the_zygote_dies_its_guests_do_and_another_one_is_started() -> None:
    zygote = Zygote()
    run = _Run(zygote)
    run.do("one")
    guest = run.place.guest
    assert isinstance(guest, GuestProcess)
    os.kill(zygote.pid, 9)
    _until(partial(_is_over, guest.pid))
    run.do("two")
    assert (run.runner.environment.fields(), run.runner.failures) == ({"n": 2}, 0)
    run.runner.close()
    zygote.close()


def test_when_the_server_dies_nothing_of_it_goes_on() -> None:
    code = (
        "import os, sys\n"
        "from atoll.domain.guest.launch import Zygote\n"
        "zygote = Zygote()\n"
        "print(zygote.fork().pid, zygote.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=WAIT_S, check=False)
    pids = list(map(int, done.stdout.split()))
    assert (len(pids), done.returncode) == (2, -9), done.stderr
    for pid in pids:
        _until(partial(_is_over, pid))


def test_a_guest_has_one_descriptor_and_no_privileges(run: _Run) -> None:
    guest = run.place.guest
    assert isinstance(guest, GuestProcess)
    if os.geteuid() == 0:  # It cannot be looked at by others of its user.
        assert os.listdir(f"/proc/{guest.pid}/fd") == ["0"]  # noqa: PTH208
    status = Path(f"/proc/{guest.pid}/status").read_text("utf-8")
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert "Threads:\t1" in status


def test_a_system_without_walls_has_no_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.domain.guest.launch.is_possible", lambda: False)
    zygote = Zygote()
    with pytest.raises(LinkError, match="needs Linux"):
        zygote.fork()
    assert zygote.pid == 0


def _until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until, "it never holds"
        os.sched_yield()


def _is_over(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] in "ZX"
    return True


def _files(pid: int | None = None) -> int:
    return len(os.listdir(f"/proc/{pid or 'self'}/fd"))  # noqa: PTH208


def _rss_kib(pid: int | None = None) -> int:
    status = Path(f"/proc/{pid or 'self'}/status").read_text("utf-8")
    return int(status.partition("VmRSS:")[2].split()[0])


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()]
