# SPDX-License-Identifier: Apache-2.0
"""What the operating system says of this machine's load, so that a node knows when it is the slow one itself.

Theory of operation. The kernel counts from boot on; a *sample* is all of its counters at one moment, and a *reading*
what two samples say of the time between. What is read is a handful of small files, opened once and read from their
beginning each time. Their text is judged by pure functions that are total: what they do not understand is None, and so
is what this kernel, container or operating system does not have. Nothing here raises because of what a file says.

A counter that goes back (a driver was loaded again, a machine moved to another host, the kernel's idle time, which it
corrects) says nothing of that time. It never makes a share below 0 or above 1.

The whole of ``/proc/stat`` is made each time although only its first line is wanted, and no other file tells of stolen
time: with hundreds of processors it is by far the dearest.

Source: proc(5), Documentation/accounting/psi.rst, Documentation/admin-guide/cgroup-v2.rst and
Documentation/scheduler/sched-bwc.rst of Linux.
"""

import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, final

from atoll.base.errors import UsageError
from atoll.base.units import KIB, SECOND_NS
from atoll.health.members.reading import SHARE_ONE, Reading

__all__ = [
    "NAMED_MAX",
    "Pressure",
    "Sample",
    "interface_errors",
    "process_ticks",
    "processor_ticks",
    "reading_between",
    "stalled_us",
    "throttle_files",
    "throttled_ns",
]

NAMED_MAX: Final = 16  # Limit. Processes that are counted beside this one, 4 us each.
GROUPS_MAX: Final = 16  # Limit. Control groups around this process that are asked, of more the outer ones; usual are 5.
TEXT_BYTES_MAX: Final = 4 * KIB  # Limit. Read at a time; all but one file are far shorter, or wanted for a first line.
LONG_BYTES_MAX: Final = 32 * KIB  # Limit. Some 250 network interfaces; those beyond are not looked at.

_DIGITS_MAX: Final = 18  # Larger ones are no counters: 30 years have so many nanoseconds.
_FIGURE_MAX: Final = (1 << 63) - 1  # What can be encoded.
_COLUMNS: Final = 8  # user nice system idle iowait irq softirq steal. Behind them: guests, who are in ``user`` already.
_COLUMNS_MIN: Final = 4  # What Linux 2.4 had.
_IDLE, _IOWAIT, _STEAL = 3, 4, 7
_UTIME, _STIME = 11, 12  # Fields of /proc/PID/stat behind the name.
_ERRORS: Final = (2, 3, 10, 11)  # Columns of /proc/net/dev: errs and drop, received and sent.
_THROTTLED_NS: Final = {b"throttled_usec": 1_000, b"throttled_time": 1}  # Version 2 of control groups, and 1.
_GROUPS: Final = PurePosixPath("sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Sample:
    """The kernel's counters at one moment. None, or left out: not told.

    Attributes:
        at_ns: When, on a clock that stands still while the machine sleeps, as these counters do.
        own_ns: Processor time of this process.
        named_ns: Processor time of others, by process.
        processors: As ``processor_ticks``.
        waiting_us: Time in which a task waited for a processor, since boot; likewise the next two.
        throttled: Of each control group, ns.
        errors: As ``interface_errors``, of those with a device behind them; None as well where there is none.
    """

    at_ns: int
    own_ns: int
    named_ns: Mapping[int, int] = field(default_factory=dict[int, int])
    processors: tuple[int, ...] | None = None
    waiting_us: int | None = None
    memory_us: int | None = None
    io_us: int | None = None
    throttled: tuple[int | None, ...] = ()
    errors: Mapping[bytes, int] | None = None


@final
class Pressure:
    """Reads what this machine says of its load. Of one thread; each read takes some 60 us and waits for nothing.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._proc: Final = root / "proc"
        self._net: Final = root / "sys" / "class" / "net"
        self._before: Sample | None = None
        self._named: Final[dict[int, int]] = {}  # Process to its open file, which never becomes another process's.
        self._stat: Final = _opened(self._proc / "stat")
        self._stalls: Final = tuple(_opened(self._proc / "pressure" / name) for name in ("cpu", "memory", "io"))
        self._interfaces: Final = _opened(self._proc / "net" / "dev")
        self._cards: dict[bytes, bool] = {}  # Of each interface that was there at the last look, whether it is one.
        self._card_errors()  # The first look is the dear one, with thousands of interfaces some milliseconds.
        itself = _opened(self._proc / "self" / "cgroup")
        groups = [_opened(root / name) for name in throttle_files(_text(itself))]
        _close(itself)
        # The file is in every group, but only tells of throttling where the group may have a quota.
        self._groups: Final = tuple(group for group in groups if throttled_ns(_text(group)) is not None)
        for group in set(groups) - set(self._groups):
            _close(group)
        self._tick_ns: Final = SECOND_NS // os.sysconf("SC_CLK_TCK")
        self._is_closed = False

    def read(self, named: Collection[int] = ()) -> Reading:
        """Return the load since the read before; of the first one everything is None.

        Args:
            named: Processes whose processor time is this one's as well, at most NAMED_MAX; each counts from its second
                read on, and for nothing when it is gone.

        Raises:
            UsageError: Too many of them, or the files are closed.
        """
        if len(named) > NAMED_MAX or self._is_closed:
            raise UsageError("the files are closed" if self._is_closed else f"{len(named)} processes are named")
        before, self._before = self._before, self._sample(named)
        return Reading() if before is None else reading_between(before, self._before)

    def close(self) -> None:
        """Close the files. Twice is harmless."""
        if not self._is_closed:
            self._is_closed = True
            for file in (self._stat, *self._stalls, self._interfaces, *self._groups, *self._named.values()):
                _close(file)

    def _sample(self, named: Collection[int]) -> Sample:
        cpu, memory, io = map(_text, self._stalls)
        return Sample(
            at_ns=time.monotonic_ns(),
            own_ns=time.process_time_ns(),
            named_ns=self._named_ns(named),
            processors=processor_ticks(_text(self._stat)),
            waiting_us=stalled_us(cpu),
            memory_us=stalled_us(memory),
            io_us=stalled_us(io),
            throttled=tuple(throttled_ns(_text(group)) for group in self._groups),
            errors=self._card_errors(),
        )

    def _card_errors(self) -> dict[bytes, int] | None:
        """Return the errors of the interfaces that have a device behind them; None: there are none, or it is not told.

        What a TUN device, a bridge or a veth drops, some program of this machine did not take, and the network is well.
        Each is looked up when it appears, and so again when it comes back.
        """
        errors = interface_errors(_long_text(self._interfaces)) or {}
        before = self._cards
        self._cards = {name: before[name] if name in before else self._is_card(name) for name in errors}
        return {name: count for name, count in errors.items() if self._cards[name]} or None

    def _is_card(self, name: bytes) -> bool:
        with suppress(OSError):  # Not for us: not known.
            return (self._net / os.fsdecode(name) / "device").exists()
        return False

    def _named_ns(self, named: Collection[int]) -> dict[int, int]:
        for pid in self._named.keys() - set(named):
            _close(self._named.pop(pid))
        found: dict[int, int] = {}
        for pid in named:
            if pid not in self._named:
                self._named[pid] = _opened(self._proc / str(pid) / "stat")
            ticks = process_ticks(_text(self._named[pid]))
            if ticks is None:  # It is gone. Should another one get its number, it is opened anew next time.
                _close(self._named.pop(pid))
            else:
                found[pid] = ticks * self._tick_ns
        return found


def reading_between(before: Sample, after: Sample) -> Reading:
    """Return what two samples say of the time between them; everything None where there is none."""
    span_ns = after.at_ns - before.at_ns
    if span_ns <= 0:
        return Reading()
    busy, stolen = _processor_shares(before.processors, after.processors)
    own_ns = after.own_ns - before.own_ns
    for pid, now_ns in after.named_ns.items():
        own_ns += max(0, now_ns - before.named_ns.get(pid, now_ns))
    pairs = zip(before.throttled, after.throttled, strict=False)
    held_up = [share for pair in pairs if (share := _share(*pair, span_ns)) is not None]
    span_us = max(1, span_ns // 1_000)
    return Reading(
        busy_share=busy,
        stolen_share=stolen,
        own_share=min(_FIGURE_MAX, max(0, own_ns) * SHARE_ONE // span_ns),
        waiting_share=_share(before.waiting_us, after.waiting_us, span_us),
        memory_share=_share(before.memory_us, after.memory_us, span_us),
        io_share=_share(before.io_us, after.io_us, span_us),
        throttled_share=max(held_up, default=None),
        nic_errors=_new_errors(before.errors, after.errors),
    )


def processor_ticks(text: bytes) -> tuple[int, ...] | None:
    """Return what all processors did since boot, 4 to 8 columns in clock ticks; of the text of ``/proc/stat``."""
    words = text.partition(b"\n")[0].split()
    columns = [_number(word) for word in words[1 : 1 + _COLUMNS]]
    known = tuple(column for column in columns if column is not None)
    return known if words[:1] == [b"cpu"] and len(known) == len(columns) >= _COLUMNS_MIN else None


def process_ticks(text: bytes) -> int | None:
    """Return the processor time of a process, clock ticks; of the text of ``/proc/PID/stat``."""
    words = text.rpartition(b")")[2].split()  # The name, in brackets, may hold brackets and spaces itself.
    if len(words) <= _STIME:
        return None
    user, system = _number(words[_UTIME]), _number(words[_STIME])
    return None if user is None or system is None else user + system


def stalled_us(text: bytes) -> int | None:
    """Return how long at least one task waited since boot, us; of the text of a file below ``/proc/pressure``."""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == [b"some"]:
            return next((_number(word[6:]) for word in words if word.startswith(b"total=")), None)
    return None


def throttle_files(text: bytes) -> tuple[str, ...]:
    """Return where the throttling of this process may be told: of its control group and of those around it.

    In a container the path may be that of the machine outside, while what is mounted begins at the container's own
    group: then only the last file exists, and it is the right one. A desktop's quota is seldom the innermost group's.

    Args:
        text: Of ``/proc/self/cgroup``.

    Returns:
        Paths below the root, the innermost group first; of each hierarchy that may be meant the outer GROUPS_MAX. They
        may not exist.
    """
    roots: tuple[PurePosixPath, ...] = ()
    inner = ""
    for line in text.splitlines():
        number, _, rest = line.partition(b":")
        controllers, _, path = rest.partition(b":")
        if b"cpu" in controllers.split(b","):  # Version 1, and it counts wherever both are mounted.
            roots, inner = (_GROUPS / "cpu",), os.fsdecode(path)
            break
        if number == b"0" and not controllers:
            roots, inner = (_GROUPS, _GROUPS / "unified"), os.fsdecode(path)
    parts = [] if ".." in inner.split("/") else [part for part in inner.split("/") if part]  # Not below what we see.
    depths = range(len(parts), -1, -1)[-GROUPS_MAX:]
    return tuple(str(PurePosixPath(root, *parts[:depth], "cpu.stat")) for root in roots for depth in depths)


def throttled_ns(text: bytes) -> int | None:
    """Return how long a control group was held back on all processors together, ns; of the text of ``cpu.stat``."""
    for line in text.splitlines():
        name, _, value = line.partition(b" ")
        if name in _THROTTLED_NS:
            number = _number(value)
            return None if number is None else number * _THROTTLED_NS[name]
    return None


def interface_errors(text: bytes) -> dict[bytes, int] | None:
    """Return how many packets each interface dropped or found damaged; of the text of ``/proc/net/dev``."""
    if not text.startswith(b"Inter-"):
        return None
    found: dict[bytes, int] = {}
    for line in text[: text.rfind(b"\n") + 1].splitlines()[2:]:  # Two lines of headings; the last one may be cut off.
        name, _, rest = line.rpartition(b":")  # Nothing stands between the colon and a large first number.
        words = rest.split()
        counts = [_number(words[column]) for column in _ERRORS if column < len(words)]
        known = [count for count in counts if count is not None]
        if not name or len(known) < len(_ERRORS):
            return None
        found[name.strip()] = sum(known)
    return found


def _processor_shares(before: tuple[int, ...] | None, after: tuple[int, ...] | None) -> tuple[int | None, int | None]:
    if before is None or after is None:
        return None, None
    spent = [max(0, new - old) for old, new in zip(before, after, strict=False)]
    whole = sum(spent)
    if not whole:  # Less than a tick.
        return None, None
    stolen = spent[_STEAL] if len(spent) > _STEAL else None
    busy = whole - spent[_IDLE] - sum(spent[_IOWAIT : _IOWAIT + 1]) - (stolen or 0)
    return busy * SHARE_ONE // whole, None if stolen is None else stolen * SHARE_ONE // whole


def _share(before: int | None, after: int | None, whole: int) -> int | None:
    if before is None or after is None or after < before:
        return None
    return min(SHARE_ONE, (after - before) * SHARE_ONE // whole)


def _new_errors(before: Mapping[bytes, int] | None, after: Mapping[bytes, int] | None) -> int | None:
    """Return how many are new; an interface that is new brings what it counted elsewhere, which is not."""
    if before is None or after is None:
        return None
    return min(_FIGURE_MAX, sum(max(0, count - before.get(name, count)) for name, count in after.items()))


def _number(word: bytes) -> int | None:
    return int(word) if word.isdigit() and len(word) <= _DIGITS_MAX else None


def _opened(path: Path) -> int:
    """Open a file; -1: there is none, or it is not for us."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _text(file: int, at_byte: int = 0) -> bytes:
    """Return the beginning of an open file, or what follows; nothing where it cannot be read."""
    if file >= 0:
        with suppress(OSError):
            return os.pread(file, TEXT_BYTES_MAX, at_byte)
    return b""


def _long_text(file: int) -> bytes:
    """Return what may be longer than the page that the kernel gives at a time."""
    text = b""
    while len(text) < LONG_BYTES_MAX and (more := _text(file, len(text))):
        text += more
    return text


def _close(file: int) -> None:
    if file >= 0:
        os.close(file)
