# SPDX-License-Identifier: Apache-2.0
"""Memory that two processes share, and frames that go through it both ways.

Each way is a ring of bytes with two counters, one for each side; a side waits in the kernel (futex) on the other's
counter, which is the cheapest wait there is: 7 us there and back, against 50 by a socket. Nobody spins: where both
processes share a core, which the scheduler prefers for two that wake each other, spinning only keeps the other from
running (measured: 15 to 80 us instead of 7).

The server trusts nothing in here. It keeps its own counters to itself, copies what the guest has written before it
looks at it, and bounds what it copies. A guest can at most stop making sense, which ends it.
"""

import ctypes
import mmap
import os
import platform
from struct import Struct
from typing import Final, final

from atoll.base.compiled import COMPILED
from atoll.base.errors import PeerError
from atoll.base.units import SECOND_NS
from atoll.domain.limits import GUEST_RING_BYTES

__all__ = ["GUEST_END", "MEMORY_BYTES", "SERVER_END", "Exchange", "Memory", "Receiver", "RingError", "Sender"]

_PAGE: Final = 4096
MEMORY_BYTES: Final = _PAGE + 2 * GUEST_RING_BYTES

_FUTEX: Final = {"x86_64": 202, "aarch64": 98}.get(platform.machine(), -1)
_LENGTH: Final = Struct("<I")
_HEAD: Final = 4
_pack, _unpack_from = _LENGTH.pack, _LENGTH.unpack_from
_MASK: Final = 0xFFFFFFFF
_LAST: Final = GUEST_RING_BYTES - 1
_AWAITED: Final = 64  # Word: not 0 while the server does other things, and is to be woken by the descriptor.
_ONE: Final = (1).to_bytes(8, "little")  # What an eventfd takes.

SERVER_END: Final = (0, 32)  # First words of the ring that it writes, and of the one that it reads.
GUEST_END: Final = (32, 0)
_WORDS: Final = (0, 16, 32, 48, 64)  # All that somebody may wait for.
_CONSUMED: Final = 16  # Words from a ring's first one, which counts what was produced: another cache line.


class RingError(PeerError):
    """The other side has written what cannot be."""


class _Span(ctypes.Structure):
    """struct timespec."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


# Arguments are objects made once: it takes a quarter less than to convert numbers at each call.
_wake: Final = ctypes.PyDLL(None).syscall  # Keeps the interpreter's lock: it does not wait.
_wait: Final = ctypes.CDLL(None).syscall
_wake.restype = _wait.restype = None
_futex, _to_wait, _to_wake, _one, _never = map(ctypes.c_long, (_FUTEX, 0, 1, 1, 0))


@final
class Memory:
    """The shared memory, mapped.

    Args:
        file: Descriptor of MEMORY_BYTES; not needed any more afterwards.
        bell: Descriptor by which the other side is woken when it waits for that; -1: none.

    Attributes:
        bell: As given.
        content: All of it.
        words: Its first page, as numbers.
    """

    __slots__ = ("_anchor", "_at", "_span", "_span_at", "_span_ns", "_value", "bell", "content", "words")

    def __init__(self, file: int, bell: int = -1) -> None:
        self.content: Final = mmap.mmap(file, MEMORY_BYTES)
        self.words: Final = memoryview(self.content)[:_PAGE].cast("I")
        self._anchor: ctypes.c_char | None = ctypes.c_char.from_buffer(self.content)
        start = ctypes.addressof(self._anchor)
        self._at: Final = {word: ctypes.c_long(start + 4 * word) for word in _WORDS}
        self._value: Final = ctypes.c_long(0)
        self.bell: Final = bell
        self._span: Final = _Span(0, 0)
        self._span_ns = 0
        self._span_at: Final = ctypes.c_long(ctypes.addressof(self._span))

    def wake(self, word: int) -> None:
        """Wake whoever waits for this word to change."""
        _wake(_futex, self._at[word], _to_wake, _one)
        if self.bell >= 0 and self.words[_AWAITED]:
            os.write(self.bell, _ONE)

    def wait(self, word: int, value: int, timeout_ns: int = 0) -> None:
        """Wait until a word has another value than this; it may return sooner, and does after a time that is not 0."""
        if timeout_ns and timeout_ns != self._span_ns:
            self._span_ns = timeout_ns
            self._span.seconds, self._span.nanoseconds = divmod(timeout_ns, SECOND_NS)
        self._value.value = value
        _wait(_futex, self._at[word], _to_wait, self._value, self._span_at if timeout_ns else _never)

    def await_bell(self, *, awaited: bool) -> None:
        """Say whether the server is to be woken by the bell."""
        self.words[_AWAITED] = awaited
        if awaited:
            self.wake(_AWAITED)  # The kernel's barrier: a look at the rings from here on misses nothing.

    def close(self) -> None:
        """Let go of it. Twice is harmless."""
        self._anchor = None
        self.words.release()
        self.content.close()


@final
class Sender:
    """The way out.

    Args:
        memory: Both ways.
        first: First word of the ring.

    Attributes:
        first: As given.
        produced: Bytes that were written so far, modulo 2^32.
        before: What the other side had read when the last frame was begun, the same.
    """

    __slots__ = ("_base", "_memory", "_rest", "_seen", "before", "first", "produced")

    def __init__(self, memory: Memory, first: int) -> None:
        self._memory = memory
        self.first: Final = first
        self._base: Final = _PAGE + (GUEST_RING_BYTES if first else 0)
        self.produced = self._seen = self.before = 0
        self._rest: memoryview | bytes = b""

    @property
    def is_sent(self) -> bool:
        """Whether all of the last frame was written."""
        return not self._rest

    def begin(self, frame: bytes) -> bool:
        """Write a frame, as much of it as there is room for; return whether that was all. One at a time.

        Raises:
            RingError: The other side says that it has read what was not written.
        """
        data = _pack(len(frame)) + frame
        memory, words, first, produced, size = self._memory, self._memory.words, self.first, self.produced, len(data)
        start = produced & _LAST
        self._seen = self.before = seen = words[first + _CONSUMED]
        if start + size > GUEST_RING_BYTES or produced != seen:
            self._rest = data
            return self.go_on()
        at = self._base + start  # What nearly all are: the ring is empty, and the frame does not go round its end.
        memory.content[at : at + size] = data
        self.produced = words[first] = (produced + size) & _MASK
        memory.wake(first)
        return True

    def go_on(self) -> bool:
        """Write more of the frame; return whether that was the rest.

        Raises:
            RingError: As ``begin``.
        """
        memory, produced = self._memory, self.produced
        self._seen = memory.words[self.first + _CONSUMED]
        room = GUEST_RING_BYTES - ((produced - self._seen) & _MASK)
        if room < 0:
            raise RingError("it has read more than there was")
        size = len(self._rest)
        if size > room:
            now, self._rest, size = self._rest[:room], memoryview(self._rest)[room:], room
        else:
            now, self._rest = self._rest, b""
        if size:
            start = produced & _LAST
            before_end = GUEST_RING_BYTES - start
            at = self._base + start
            if size <= before_end:
                memory.content[at : at + size] = now
            else:
                memory.content[at : at + before_end] = now[:before_end]
                memory.content[self._base : self._base + size - before_end] = now[before_end:]
            self.produced = memory.words[self.first] = (produced + size) & _MASK
            memory.wake(self.first)
        return not self._rest

    @property
    def is_untouched(self) -> bool:
        """Whether the other side has read nothing since the last frame was begun."""
        return self._memory.words[self.first + _CONSUMED] == self.before

    def wait(self, timeout_ns: int = 0) -> None:
        """Wait until there may be more room."""
        self._memory.wait(self.first + _CONSUMED, self._seen, timeout_ns)

    def finish(self) -> None:
        """Write the rest of the frame, however long that takes."""
        while self._rest:
            self.wait()
            self.go_on()


@final
class Receiver:
    """The way in.

    Args:
        memory: Both ways.
        first: First word of the ring.

    Attributes:
        first: As given.
        consumed: Bytes that were read so far, modulo 2^32.
    """

    __slots__ = ("_base", "_came", "_memory", "_size", "consumed", "first")

    def __init__(self, memory: Memory, first: int) -> None:
        self._memory = memory
        self.first: Final = first
        self._base: Final = _PAGE + (GUEST_RING_BYTES if first else 0)
        self.consumed = 0
        self._came = bytearray()
        self._size = -1

    def pull(self, bytes_max: int) -> bytes | None:
        """Return the next frame, or None while it is not all there.

        Args:
            bytes_max: A longer one is refused before it is read.

        Raises:
            RingError: What is there cannot be: too long, more than one frame, or counters that make no sense.
        """
        content, words, consumed = self._memory.content, self._memory.words, self.consumed
        produced = words[self.first]  # Read once: the other side may change it at any time.
        there = (produced - consumed) & _MASK
        if not there:
            return None
        if there > GUEST_RING_BYTES:
            raise RingError("it has written more than there was room for")
        start = consumed & _LAST
        at = self._base + start
        if start + there <= GUEST_RING_BYTES:
            data = content[at : at + there]
        else:
            data = content[at : self._base + GUEST_RING_BYTES]
            data += content[self._base : self._base + there - len(data)]
        self.consumed = words[self.first + _CONSUMED] = produced
        if not self._came and there >= _HEAD and there - _HEAD == _unpack_from(data)[0]:
            if there > bytes_max:
                raise RingError("a frame that is too long")
            return data[_HEAD:]  # What nearly all are: it came at once.
        return self._gather(data, bytes_max)

    def _gather(self, data: bytes, bytes_max: int) -> bytes | None:
        came = self._came
        came += data
        if self._size < 0 and len(came) >= _HEAD:
            self._size = _unpack_from(came)[0]
            if self._size > bytes_max:
                raise RingError("a frame that is too long")
        missing = _HEAD - len(came) if self._size < 0 else _HEAD + self._size - len(came)
        if missing < 0:
            raise RingError("more than was asked for")
        if missing:
            self._memory.wake(self.first + _CONSUMED)
            return None
        frame = bytes(came[_HEAD:])
        self._came, self._size = bytearray(), -1
        return frame

    def wait(self, timeout_ns: int = 0) -> None:
        """Wait until there may be more to read."""
        self._memory.wait(self.first, self.consumed, timeout_ns)

    def receive(self, bytes_max: int) -> bytes:
        """Return the next frame, however long that takes.

        Raises:
            RingError: As ``pull``.
        """
        while (frame := self.pull(bytes_max)) is None:
            self.wait()
        return frame


_exchange: Final = getattr(COMPILED, "exchange", None)


@final
class Exchange:
    """Both ways together, for whoever asks and waits, or answers and waits: the path of each event.

    Args:
        memory: The memory.
        end: Which end of it this is: ``SERVER_END`` or ``GUEST_END``.
        compiled: Whether to go the compiled way, if there is one (``native/src/ring.c``): 5 us less for both sides.

    Attributes:
        sender: The way out.
        receiver: The way in.
    """

    __slots__ = ("_compiled", "_memory", "receiver", "sender")

    def __init__(self, memory: Memory, end: tuple[int, int], *, compiled: bool = True) -> None:
        self._memory = memory
        self.sender: Final = Sender(memory, end[0])
        self.receiver: Final = Receiver(memory, end[1])
        self._compiled: Final = _exchange if compiled else None

    def turn(self, frame: bytes, bytes_max: int, timeout_ns: int = 0) -> bytes | None:
        """Write a frame, wait once, and return the one that came.

        Args:
            frame: To be written; all before it was.
            bytes_max: As of ``Receiver.pull``.
            timeout_ns: How long to wait; 0: however long it takes.

        Returns:
            None: not all of it is written (``Sender.is_sent``), or nothing whole has come.

        Raises:
            RingError: As ``Sender.begin`` and ``Receiver.pull``.
        """
        sender, receiver = self.sender, self.receiver
        if self._compiled is not None:
            memory, produced, consumed = self._memory, sender.produced, receiver.consumed
            came: bytes | bool | None = self._compiled(
                memory.content,
                frame,
                sender.first,
                receiver.first,
                produced,
                consumed,
                bytes_max,
                timeout_ns,
                memory.bell,
            )
            if came is not False:
                sender.before, sender.produced = produced, (produced + _HEAD + len(frame)) & _MASK
                if isinstance(came, bytes):
                    receiver.consumed = (consumed + _HEAD + len(came)) & _MASK
                    return came
                return receiver.pull(bytes_max)
        if not sender.begin(frame):
            return None
        receiver.wait(timeout_ns)
        return receiver.pull(bytes_max)

    def ask(self, frame: bytes, bytes_max: int) -> bytes:
        """Write a frame and return the one that comes, however long both take.

        Raises:
            RingError: As ``turn``.
        """
        came = self.turn(frame, bytes_max)
        if came is None:
            self.sender.finish()
            came = self.receiver.receive(bytes_max)
        return came
