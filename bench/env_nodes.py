# SPDX-License-Identifier: Apache-2.0
"""Real nodes for bench/env.py: started with ``atoll up`` on loopback, killed as by a power cut, ended at the end."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, final

from env_child import HERE
from figures import Row

from atoll.base.errors import UserError
from atoll.cli.api import Api
from atoll.lab.live import free_port
from atoll.lab.process import Process

__all__ = ["NAMES", "Nodes"]

NAMES: Final = ("one", "two", "three")
SEEN_S: Final = 30.0  # Limit. Until all nodes see all.
DOWN_S: Final = 5.0  # Limit. Then a node is ended the hard way.
POLL_S: Final = 0.02
COMMAND_S: Final = 60.0  # Limit. One command.
_ATOLL: Final = str(Path(sys.executable).with_name("atoll"))


@final
class Nodes:
    """Nodes of one group. Made by ``Nodes.running``.

    Attributes:
        names: Of the nodes.
    """

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        self._directory: Final = directory
        self.names: Final = tuple(names)
        self._ports: Final = {name: free_port() for name in names}
        self._held: dict[str, list[Process]] = {}  # Control first.

    @staticmethod
    @contextmanager
    def running(directory: Path, names: Sequence[str] = NAMES) -> Generator["Nodes"]:
        """Start so many nodes in an empty directory, wait until all see all; end everything with the block."""
        nodes = Nodes(directory, names)
        try:
            first, *others = names
            nodes.up(first)
            for name in others:
                invitation = json.loads(nodes._atoll("invite", "--state", str(nodes.state(first)), "--json"))["invite"]
                nodes.up(name, invitation)
            nodes.until_seen()
            yield nodes
        finally:
            nodes._end()

    def state(self, name: str) -> Path:
        """Return a node's state directory."""
        return self._directory / name

    def call(self, name: str, method: str, params: dict[str, object] | None = None) -> Row:
        """Call a method of a node's local API.

        Raises:
            UserError: As ``Api.call``.
        """
        row: Row = json.loads(Api(self.state(name), COMMAND_S).call(method, params))
        return row

    def up(self, name: str, invitation: str = "") -> None:
        """Start a node, for the first time or again."""
        words = ["up", "--state", str(self.state(name)), "--name", name, "--listen", f"127.0.0.1:{self._ports[name]}"]
        self._held[name] = []
        try:
            self._atoll(*words, *([invitation] if invitation else []))
        finally:
            self._hold(name)

    def run(self, name: str, app: str, called: str, copies: int, *fields: str) -> Row:
        """Run an application of env_apps.py on a node; return what is known of it once as many nodes keep it."""
        words = ["run", f"{HERE / 'env_apps.py'}:{app}", "--name", called, "--copies", str(copies)]
        given = [word for one in fields for word in ("--with", one)]
        self._atoll(*words, *given, "--state", str(self.state(name)))
        give_up_at = time.monotonic() + SEEN_S
        seen: Row = {}
        while len(seen.get("holders", ())) != copies:
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"{called} is not kept by {copies} nodes: {seen}; {self.log(name)}")
            time.sleep(POLL_S)
            with suppress(UserError):  # It is not known yet.
                seen = self.call(name, "env.show", {"name": called})
        return seen

    def until_seen(self) -> None:
        """Wait until every node has a session with every other one."""
        give_up_at = time.monotonic() + SEEN_S
        for name in self.names:
            while True:
                peers = [peer for peer in self.call(name, "status")["peers"] if peer["session"] and peer["rtt_ms"]]
                if len(peers) == len(self.names) - 1:
                    break
                if time.monotonic() > give_up_at:
                    raise RuntimeError(f"{name} sees {[peer['name'] for peer in peers]} only")
                time.sleep(POLL_S)

    def kill(self, name: str) -> float:
        """Kill all processes of a node at once; return when, by ``time.perf_counter``."""
        processes = self._family(name)
        for one in processes:
            one.suspend()
        at = time.perf_counter()
        for one in processes:
            one.kill()
            one.close()
        self._held[name] = []
        return at

    def log(self, name: str) -> str:
        """Return the last lines of a node's log."""
        with suppress(OSError):
            return "\n".join((self.state(name) / "node.log").read_text(errors="replace").splitlines()[-20:])
        return ""

    def _hold(self, name: str) -> None:
        """Take hold of the control of a node that was started; there is none if it did not start."""
        with suppress(OSError, ValueError):
            self._held[name] = [Process(int((self.state(name) / "lock").read_text(encoding="ascii")))]

    def _family(self, name: str) -> list[Process]:
        """Return all processes of a node, control first: its children, and the guests of those."""
        family = self._held.get(name, [])
        at = 0
        while at < len(family):
            family += family[at].children()
            at += 1
        return family

    def _end(self) -> None:
        for name in self.names:
            if name not in self._held:
                continue
            family = self._family(name)
            with suppress(UserError):
                Api(self.state(name), DOWN_S).call("down")
            give_up_at = time.monotonic() + DOWN_S
            while not all(one.has_ended() for one in family) and time.monotonic() < give_up_at:
                time.sleep(POLL_S)
            for one in family:
                one.kill()
                one.close()
            self._held[name] = []

    @staticmethod
    def _atoll(*words: str) -> str:
        with subprocess.Popen([_ATOLL, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
            try:
                said, complaint = command.communicate(timeout=COMMAND_S * 3)
            except BaseException:
                command.send_signal(signal.SIGINT)  # It takes a node that is half started down with it.
                raise
        if command.returncode != 0:
            raise RuntimeError(f"atoll {words[0]}: {complaint.strip()}")
        return said
