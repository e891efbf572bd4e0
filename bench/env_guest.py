# SPDX-License-Identifier: Apache-2.0
"""The process level: what an event costs through the ring, what a guest costs to make, and that killing it returns all.

    python bench/env_guest.py [--quick]

Round trips are those of ``GuestEnvironment.handle``: a record is encoded, goes through shared memory, its handlers run
in the guest, and the effects come back, decoded and checked. The anchor beside them is two processes that wake each
other by the same memory and do nothing else: how far the machine is from being quiet shows there first. Cycles go on
from a warm zygote: fork, confine, load the code, begin, one event, kill, bury.
"""

import ctypes
import json
import mmap
import os
import platform
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final

import msgspec
from figures import Figure, machine, percentile, show

from atoll.domain.guest.launch import GuestProcess, Zygote
from atoll.domain.guest.machine import GuestPlace
from atoll.domain.loading import Bundle, load
from atoll.env.places import Inline, Place, Running, UnansweredError
from atoll.env.records import Arrived, Began, Item, Record
from atoll.env.runner import Runner

NODE: Final = bytes(10)
CODE: Final = bytes(32)
EVENT_BYTES: Final = 64
BATCH: Final = 64
FUTEX: Final = {"x86_64": 202, "aarch64": 98}.get(platform.machine(), 202)
WARM: Final = 200
SOURCE: Final = """
import atoll

class Ev(atoll.Tuple):
    text: str

class Count(atoll.App):
    n: int = 0
    keys: dict[str, int] = {}

    @atoll.on(Ev)
    def count(self, event: Ev, ctx: atoll.Context) -> None:
        self.n += 1
        key = event.text[0]
        self.keys[key] = self.keys.get(key, 0) + 1
"""
BUNDLE: Final = Bundle(1, "count", "Count", {"count": SOURCE})
_encode: Final = msgspec.msgpack.Encoder().encode


def began() -> Began:
    return Began(bytes(15) + b"e", bytes(32), "measured", CODE, _encode({}), NODE, "process")


def arrivals(size: int, count: int, *, ask: bool = False) -> list[Record]:
    """Return records of so many events each, EVENT_BYTES an event, of one party in order."""
    text = "".join(Random(1).choices("abcdefgh", k=EVENT_BYTES - len(_encode([_event("")])) - 1))
    items = [Item(msgspec.Raw(_encode(_event(text))), int(ask))] * size
    raw = msgspec.Raw(_encode(items))
    return [Arrived(b"p" * 16, 1 + number * size, raw) for number in range(count)]


def _event(text: str) -> dict[str, str]:
    return {"is": "Ev", "text": text}


def handle(environment: Running, place: Place, record: Record) -> None:
    """Apply a record, however long others keep the guest from running."""
    with suppress(UnansweredError):
        environment.handle(record, 5)
        return
    while True:
        with suppress(UnansweredError):
            place.answered()
            return


def spans(environment: Running, place: Place, records: list[Record]) -> list[float]:
    """Return how long each record took, in us."""
    took: list[float] = []
    for record in records:
        start = time.perf_counter_ns()
        handle(environment, place, record)
        took.append((time.perf_counter_ns() - start) / 1e3)
    return took[WARM:] or took


def wakes(count: int) -> list[float]:
    """Return how long two processes take to wake each other by a word in shared memory, there and back, in us."""
    call = ctypes.CDLL(None).syscall
    call.argtypes = (ctypes.c_long,) * 5
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    words = memoryview(shared).cast("I")
    address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    child = os.fork()
    if not child:
        for number in range(1, count + 1):
            while words[0] != number:
                call(FUTEX, address, 0, number - 1, 0)
            words[16] = number
            call(FUTEX, address + 64, 1, 1, 0)
        os._exit(0)
    took: list[float] = []
    for number in range(1, count + 1):
        start = time.perf_counter_ns()
        words[0] = number
        call(FUTEX, address, 1, 1, 0)
        while words[16] != number:
            call(FUTEX, address + 64, 0, number - 1, 0)
        took.append((time.perf_counter_ns() - start) / 1e3)
    os.waitpid(child, 0)
    return took


def trips(zygote: Zygote, bundle: bytes, count: int) -> list[Figure]:
    """Measure events through the ring, and the same inline."""
    place = GuestPlace(zygote.fork, bundle, "Count")
    near = Inline(load(BUNDLE).program)
    found: dict[str, list[float]] = {}
    for name, size, number in (("one", 1, count), ("batched", BATCH, count // 16)):
        environment = place.blank()
        handle(environment, place, began())
        found[name] = spans(environment, place, arrivals(size, number))
        inline = near.blank()
        inline.handle(began(), 5)
        found[f"inline {name}"] = spans(inline, near, arrivals(size, number))
    place.close()
    runner = Runner(GuestPlace(zygote.fork, bundle, "Count"), CODE)
    runner.take(began(), 5)
    for record in arrivals(1, count):
        start = time.perf_counter_ns()
        runner.take(record, 5)
        while runner.is_busy:
            runner.go_on()
        found.setdefault("runner", []).append((time.perf_counter_ns() - start) / 1e3)
    runner.close()
    anchor = wakes(count)
    batched, here = median(found["batched"]), median(found["inline batched"])
    return [
        Figure("one event there and back, p50", "us", 15.0, median(found["one"]), peer=median(found["inline one"])),
        Figure("one event there and back, p99", "us", None, percentile(found["one"], 0.99)),
        Figure(f"one of {BATCH} events in a record, p50", "us", 3.0, batched / BATCH, peer=here / BATCH),
        Figure("one event with its record kept (Runner.take), p50", "us", None, median(found["runner"])),
        Figure("two processes waking each other, p50", "us", None, median(anchor)),
        Figure("two processes waking each other, p99", "us", None, percentile(anchor, 0.99)),
    ]


def cycles(zygote: Zygote, bundle: bytes, count: int) -> list[Figure]:
    """Make, use and kill guests one after the other; count what is left."""
    record = arrivals(1, 1)[0]
    made: list[float] = []
    worked: list[float] = []
    killed: list[float] = []

    def cycle() -> None:
        start, before = time.perf_counter(), _worked_ms("self") + _worked_ms(zygote.pid)
        place = GuestPlace(zygote.fork, bundle, "Count")
        environment = place.blank()
        handle(environment, place, began())
        handle(environment, place, record)
        between = time.perf_counter()
        guest = place.guest
        assert isinstance(guest, GuestProcess)
        worked.append(_worked_ms("self") + _worked_ms(zygote.pid) + _worked_ms(guest.pid) - before)
        between_too = time.perf_counter()
        place.close()
        made.append((between - start) * 1e3)
        killed.append((time.perf_counter() - between_too) * 1e3)

    for _ in range(50):
        cycle()
    before = _left(zygote)
    for number in range(count):
        cycle()
        if number % 1000 == 999:
            print(f"  {number + 1} cycles", file=sys.stderr)
    after = _left(zygote)
    grown = {name: after[name] - before[name] for name in before}
    return [
        Figure("fork to first event handled, p50", "ms", 10.0, median(made)),
        Figure("fork to first event handled, p99", "ms", None, percentile(made, 0.99)),
        Figure("of that, server, zygote and guest worked, p50", "ms", None, median(worked)),
        Figure("fork to first event handled, p10", "ms", None, percentile(made, 0.1)),
        Figure("kill to buried, p50", "ms", None, median(killed)),
        Figure("cycles", "", None, float(count)),
        Figure("descriptors that are left", "", 0.0, grown["files"]),
        Figure("processes that are left", "", 0.0, grown["processes"]),
        Figure("shared memory that is left", "KiB", 0.0, grown["shared"]),
        Figure("the server's memory, grown", "KiB", 512.0, grown["server"]),
        Figure("the zygote's memory, grown", "KiB", 512.0, grown["zygote"]),
    ]


def _worked_ms(process: int | str) -> float:
    """Return how long a process was on a processor so far."""
    return int(Path(f"/proc/{process}/schedstat").read_text("utf-8").split()[0]) / 1e6


def _left(zygote: Zygote) -> dict[str, float]:
    def status(pid: int, name: str) -> float:
        return float(Path(f"/proc/{pid}/status").read_text("utf-8").partition(f"{name}:")[2].split()[0])

    own = os.getpid()
    children = Path(f"/proc/{zygote.pid}/task/{zygote.pid}/children").read_text("utf-8").split()
    files: Callable[[int], int] = lambda pid: len(os.listdir(f"/proc/{pid}/fd"))  # noqa: E731, PTH208
    return {
        "files": files(own) + files(zygote.pid),
        "processes": len(children),
        "shared": status(own, "RssShmem"),
        "server": status(own, "RssAnon"),
        "zygote": status(zygote.pid, "RssAnon"),
    }


def main() -> int:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer events and cycles")
    options = parser.parse_args()
    bundle = BUNDLE.encode()
    zygote = Zygote()
    try:
        figures = trips(zygote, bundle, 4_000 if options.quick else 40_000)
        figures += cycles(zygote, bundle, 300 if options.quick else 10_000)
    finally:
        zygote.close()
    show(figures)
    result: dict[str, Any] = {"bench": "env_guest", "machine": machine(), "figures": [one.row() for one in figures]}
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
