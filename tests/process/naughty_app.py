# SPDX-License-Identifier: Apache-2.0
"""An application whose handlers do what no handler may; loaded by the tests of guests, in a process of its own."""

import _thread
import ctypes
import gc
import logging
import mmap
import os
import random
import socket
import threading
import time
from typing import ClassVar

import atoll

USED = (_thread, mmap, socket, threading, time)  # By lines of text that are run.

libc = ctypes.CDLL(None, use_errno=True)


class Do(atoll.Tuple):
    what: str


class Got(atoll.Tuple):
    n: int
    text: str = ""


class Naughty(atoll.App):
    level: ClassVar[str] = "process"
    n: int = 0

    @atoll.on(Do)
    def do(self, do: Do, ctx: atoll.Context) -> Got:
        self.n += 1
        kind, _, rest = do.what.partition(":")
        match kind:
            case "raise":
                raise ValueError(rest)
            case "loop":
                while True:
                    pass
            case "chew":
                sum(range(10**13))
            case "swallow":
                while True:
                    try:
                        while True:
                            pass
                    except BaseException:  # noqa: BLE001 - that is what it does wrong.
                        pass
            case "spin":
                for _ in range(int(rest)):
                    pass
            case "grow":
                chunks: list[bytes] = []
                while True:
                    chunks.append(bytes(1 << 24))
            case "python":
                exec(rest)
            case "c":
                name, *numbers = rest.split()
                ctypes.set_errno(0)
                answer = getattr(libc, name)(*(int(number) for number in numbers))
                return Got(self.n, f"{answer} {ctypes.get_errno()}")
            case "ring":
                _rubbish(rest)
            case "flood":
                assert ctx.sender is not None
                for _ in range(100):
                    ctx.send(ctx.sender, Do("x" * 250_000))
            case "log":
                logging.getLogger().warning("hello")
                print("hello")
                ctx.log("hello")
            case "stamp":
                return Got(self.n, repr(logging.LogRecord("x", 1, "x", 1, "x", (), None).created))
            case _:
                pass
        return Got(self.n)


def _rubbish(how: str) -> None:
    """Write into what is shared with the server."""
    memory = next(one for one in gc.get_objects() if type(one).__name__ == "Memory")
    noise = random.Random(how)
    if how == "everything":
        memory.content[:] = noise.randbytes(len(memory.content))
    elif how == "counters":
        for word in range(128):
            memory.words[word] = noise.getrandbits(32)
    elif how == "frame":
        at = 4096 + (len(memory.content) - 4096) // 2
        memory.content[at : at + 4096] = noise.randbytes(4096)
        memory.words[32] = (memory.words[32] + 4096) & 0xFFFFFFFF
        memory.wake(32)
        while True:
            pass
    elif how == "shrink":
        memory.content.resize(4096)
    os._exit(0) if how == "everything" else None
