# SPDX-License-Identifier: Apache-2.0
"""One TCP connection through the overlay, a byte and its answer at a time, and how it fares."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from typing import final

from tests.netns.lan import Host

__all__ = ["Talk", "talking"]

_ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], 4000), family=socket.AF_INET6)
print("ready", flush=True)
link, _ = server.accept()
while (data := link.recv(1)):
    link.sendall(data)
"""
_ASK = """
import socket, sys, threading, time
link = socket.create_connection((sys.argv[1], 4000), 10)
link.settimeout(60)
link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
print("ready", flush=True)
pause = threading.Event()
while (asked := sys.stdin.readline()):
    worst = 0.0
    for _ in range(int(asked)):
        began = time.monotonic()
        link.sendall(b"x")
        assert link.recv(1) == b"x"
        worst = max(worst, time.monotonic() - began)
        pause.wait(0.01)
    print(worst, flush=True)
"""


@final
class Talk:
    """The connection."""

    def __init__(self, client: "subprocess.Popen[str]") -> None:
        assert client.stdin is not None
        assert client.stdout is not None
        self._questions, self._answers = client.stdin, client.stdout
        assert self._answers.readline() == "ready\n"

    def begin(self, answers: int = 20) -> None:
        """Have so many bytes more answered; it takes a hundredth of a second each, at least."""
        self._questions.write(f"{answers}\n")
        self._questions.flush()

    def end(self) -> float:
        """Wait for the last of them; return the longest wait for one, s."""
        return float(self._answers.readline())

    def goes_on(self) -> float:
        """Have some answered from now on; return the longest wait for one, s."""
        self.begin()
        return self.end()


@contextmanager
def talking(server: Host, client: Host) -> Generator[Talk]:
    """Connect two machines over the overlay."""
    with server.python(_ECHO, server.address) as far:
        assert far.stdout is not None
        try:
            assert far.stdout.readline() == "ready\n"
            with client.python(_ASK, server.address) as near:
                try:
                    yield Talk(near)
                finally:
                    near.kill()
        finally:
            far.kill()
