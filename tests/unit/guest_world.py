# SPDX-License-Identifier: Apache-2.0
"""What the tests of guests share: an application as a bundle, and a guest that answers in this process."""

from collections import deque

import msgspec

from atoll.domain.guest.clock import Clock
from atoll.domain.guest.launch import GuestGoneError
from atoll.domain.guest.messages import Answer, encode_answer
from atoll.domain.guest.process import Guest
from atoll.domain.loading import Bundle
from atoll.env.records import Arrived, Began, Item

SOURCE = """
import atoll

class Do(atoll.Tuple):
    what: str

class Wait(atoll.Tuple):
    pass

class Got(atoll.Tuple):
    n: int

class Busy(atoll.App):
    n: int = 0
    who: list[str] = []

    @atoll.on(Do)
    def do(self, do: Do, ctx: atoll.Context):
        self.n += 1
        self.who.append(do.what)
        match do.what:
            case "raise":
                raise ValueError("no")
            case "grow":
                raise MemoryError
            case "import":
                import atoll_app_without
            case "strange":
                raise Strange
            case "junk":
                self.who = [object()]
            case "flood":
                for _ in range(100):
                    ctx.send(ctx.sender, Do("x" * 250_000))
            case "timer":
                ctx.after(1.0, Do("fired"))
            case "spawn":
                ctx.log("hello")
                print("hello")
            case _:
                pass
        return Got(self.n)

    @atoll.on(Wait)
    async def wait(self, wait: Wait, ctx: atoll.Context):
        await ctx.sleep(1.0)

class Strange(Exception):
    def __str__(self):
        raise RuntimeError
"""

ANN, ME = b"a" * 16, b"m" * 16
encode = msgspec.msgpack.Encoder().encode


def bundle(source: str = SOURCE, app: str = "Busy") -> bytes:
    return Bundle(1, "busy", app, {"busy": source}).encode()


def began() -> Began:
    return Began(ME, bytes(32), "busy", bytes(32), encode({}), bytes(10), "process")


def done(first: int, *whats: str, party: bytes = ANN, ask: int = 1) -> Arrived:
    """Return the record of tuples ``Do`` that a party sends."""
    items = [Item(msgspec.Raw(encode({"is": "Do", "what": what})), ask) for what in whats]
    return Arrived(party, first, msgspec.Raw(encode(items)))


class NearGuest:
    """A guest that answers in this process: what ``launch.GuestProcess`` is to a real one.

    ``script`` says what the next requests come to instead: an answer, bytes, None (not yet), or an exception.
    """

    bell = pidfd = -1

    def __init__(self) -> None:
        self.is_untouched = False
        self.script: deque[Answer | bytes | Exception | None] = deque()
        self.asked: list[bytes] = []
        self.patience_s: list[float] = []  # With which it was waited for.
        self.closed = 0
        self._guest = Guest(Clock())
        self._answer = b""

    def begin(self, request: bytes, bytes_max: int) -> None:
        assert bytes_max > 0
        if self.closed:
            raise GuestGoneError("gone")
        self.asked.append(request)
        self._answer = b""

    def ask(self, request: bytes, bytes_max: int, patience_s: float) -> bytes | None:
        self.begin(request, bytes_max)
        return self.answer(patience_s)

    def answer(self, patience_s: float) -> bytes | None:
        assert patience_s >= 0
        self.patience_s.append(patience_s)
        if self.script:
            scripted = self.script.popleft()
            if isinstance(scripted, Exception):
                raise scripted
            return scripted if scripted is None or isinstance(scripted, bytes) else encode_answer(scripted)
        return self._guest.obey(self.asked[-1])

    def close(self) -> int:
        self.closed += 1
        return 0


class Nursery:
    """Makes such guests, and remembers them."""

    def __init__(self) -> None:
        self.made: list[NearGuest] = []
        self.fault: Exception | None = None

    def fork(self) -> NearGuest:
        if self.fault is not None:
            raise self.fault
        self.made.append(NearGuest())
        return self.made[-1]
