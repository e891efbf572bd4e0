# SPDX-License-Identifier: Apache-2.0
"""Real nodes as a person has them: ``atoll`` commands in processes, state directories, logs, and their bounded ends."""

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from atoll.base.errors import UserError
from atoll.cli.api import Api
from atoll.lab.live import free_port
from atoll.node.start import LaunchOptions
from atoll.node.views import PeerView, PingView, Ready, StatusView

WAIT_S = 60.0
POLL_S = 0.02
COMMAND_S = 60.0

Found = TypeVar("Found")


def until(condition: Callable[[], Found], what: str, wait_s: float = WAIT_S) -> Found:
    """Return the first true answer of a condition; fail when none came in time."""
    give_up_s = time.monotonic() + wait_s
    pause = threading.Event()
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < give_up_s, f"not within {wait_s} s: {what}"
        pause.wait(POLL_S)


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def gone(pid: int) -> bool:
    return not alive(pid)


def children_of(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def kill(pid: int) -> None:
    """Kill a process and wait until it is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), f"the end of process {pid}")


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def code(self) -> str:
        """The catalogue code on standard error."""
        first = self.err.partition(":")[0]
        return first.removeprefix("error ") if first.startswith("error ") else ""

    def field(self, name: str) -> str:
        """Return a line of the error's anatomy."""
        lines = [line.split(maxsplit=1) for line in self.err.splitlines()]
        return next((line[1] for line in lines if len(line) == 2 and line[0] == name), "")


class Box:
    """One node's state directory and the commands about it."""

    def __init__(self, state: Path, name: str) -> None:
        self.state, self.name = state, name
        self.port = free_port()

    def run(self, *arguments: str) -> Said:
        """Run one command line about this node."""
        return self.run_bare(*arguments, "--state", str(self.state))

    def run_bare(self, *arguments: str) -> Said:
        """Run one command line. No command may ever show a traceback."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ATOLL_")}
        command = [sys.executable, "-m", "atoll.cli", *arguments]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
            env=environment,
            cwd=tempfile.gettempdir(),
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    def try_up(self, *arguments: str) -> Said:
        return self.run("up", *arguments, "--name", self.name, "--listen", f"127.0.0.1:{self.port}", "--json")

    def up(self, *arguments: str) -> Ready:
        """Start the node with its name and port."""
        return self.ready(self.try_up(*arguments))

    def again(self) -> Ready:
        """Start the node with what it has kept."""
        return self.ready(self.run("up", "--json"))

    def ready(self, said: Said) -> Ready:
        assert said.status == 0, said.err + self.log()
        return msgspec.json.decode(said.out, type=Ready)

    def invite(self) -> str:
        said = self.run("invite", "--json")
        assert said.status == 0, said.err
        return str(json.loads(said.out)["invite"])

    def down(self) -> Said:
        return self.run("down")

    def status(self) -> StatusView:
        return msgspec.json.decode(Api(self.state).call("status"), type=StatusView)

    def peers(self) -> dict[str, PeerView]:
        return {peer.name: peer for peer in self.status().peers}

    def sees(self, *names: str) -> bool:
        """Tell whether the members are these, each with a session and a measured path that is ok."""
        peers = self.peers()
        return set(peers) == set(names) and all(p.session and p.state == "ok" for p in peers.values())

    def answered(self, name: str) -> bool:
        """Tell whether one echo through the overlay comes back."""
        raw = Api(self.state).call("ping", {"node": name, "count": 1})
        return msgspec.json.decode(raw, type=PingView).rtt_ms is not None

    def log(self) -> str:
        path = self.state / "node.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def identity(self) -> bytes:
        return (self.state / "identity").read_bytes()

    @property
    def pid(self) -> int:
        """The control process, by the lock; 0: it does not run."""
        try:
            pid = int((self.state / "lock").read_text(encoding="ascii"))
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return 0
        return pid if b"atoll.node" in command and alive(pid) else 0

    def kill(self) -> None:
        """Kill both processes as a power cut would."""
        pid = self.pid
        devices = children_of(pid) if pid else []
        for process in (pid, *devices):
            if process:
                kill(process)

    def is_running(self) -> bool:
        with suppress(UserError):
            self.status()
            return True
        return False


class Nodes:
    """All nodes of one test, in a directory with a short path: unix sockets lie in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.boxes: list[Box] = []

    def box(self, name: str, state: Path | None = None) -> Box:
        box = Box(state or self.directory / name, name)
        self.boxes.append(box)
        return box

    def group(self, *names: str) -> list[Box]:
        """Start a group: the first founds it and invites the others; all see all."""
        boxes = [self.box(name) for name in names]
        boxes[0].up()
        for box in boxes[1:]:
            box.up(boxes[0].invite())
        for box in boxes:
            others = [name for name in names if name != box.name]
            until(partial(box.sees, *others), f"{box.name} sees {others}")
        return boxes

    def end(self) -> None:
        """End every process by its id; no log may hold a traceback."""
        for box in self.boxes:
            box.kill()
        for box in self.boxes:
            assert "Traceback" not in box.log(), box.log()


@contextmanager
def nodes() -> Generator[Nodes]:
    directory = Path(tempfile.mkdtemp(prefix="at"))
    world = Nodes(directory)
    try:
        yield world
    finally:
        try:
            world.end()
        finally:
            shutil.rmtree(directory, ignore_errors=True)


class Daemon:
    """``python -m atoll.node`` as ``atoll up`` starts it, but held, so that it can be killed at any moment."""

    def __init__(self, box: Box, invite: str | None = None) -> None:
        options = LaunchOptions(
            state=str(box.state), name=box.name, listen=f"127.0.0.1:{box.port}", invite=invite, group_name="held"
        )
        box.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._box = box
        with (box.state / "node.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "atoll.node"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        with self._process.stdin as stdin:
            stdin.write(msgspec.json.encode(options) + b"\n")

    def kill(self) -> None:
        """Kill both processes now, whatever they are doing."""
        devices = children_of(self._process.pid)
        self._process.kill()
        self._process.wait(WAIT_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        for device in devices:
            kill(device)

    def ran_for(self, wait_s: float) -> bool:
        """Wait for a time, or less if it ends; return whether it still runs."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(wait_s)
            return False
        return True


class _Greeter(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"you asked for {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so.
        pass


@contextmanager
def greeter() -> Generator[int]:
    """Serve HTTP on a loopback port; the answer names the path that was asked for."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Greeter)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join(WAIT_S)
        server.server_close()
