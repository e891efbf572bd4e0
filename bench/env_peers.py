# SPDX-License-Identifier: Apache-2.0
"""What bench/env.py compares with: messages a second of actor libraries, and steps a second of DBOS.

    python bench/env_peers.py PEER NUMBER DIRECTORY     answers with one line of JSON

Each runs in a process of its own. The handler does what that of ours does, counting by the first letter. The libraries
keep nothing, and the message is one object that is sent again and again, where ours are encoded, each another one, and
decoded. DBOS keeps its steps in SQLite, in the directory given.
"""

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Final

from env_child import answer

PEERS: Final = ("pykka", "thespian", "xoscar", "dbos")
MESSAGE: Final = "a" * 40
END: Final = ""


def missing() -> dict[str, str]:
    """Return the peers that are not installed, and what to do about it."""
    how = "it is not installed: make bench-env installs it, unless the package index does not have it"
    return {peer: how for peer in PEERS if find_spec(peer) is None}


def versions() -> dict[str, str]:
    """Return the versions of those that are."""
    found: dict[str, str] = {}
    for peer in PEERS:
        with contextlib.suppress(PackageNotFoundError):
            found[peer] = version(peer)
    return found


class Counting:
    """What the handler of each does."""

    def __init__(self) -> None:
        self.n = 0
        self.keys: dict[str, int] = {}

    def count(self, text: str) -> None:
        """Take one message."""
        self.n += 1
        key = text[0]
        self.keys[key] = self.keys.get(key, 0) + 1


def pykka_tell(count: int, _: str) -> float:
    """One way, from this thread to the actor's."""
    pykka: Any = import_module("pykka")
    done = threading.Event()

    class Actor(pykka.ThreadingActor):  # type: ignore[misc]  # It need not be installed.
        def __init__(self) -> None:
            super().__init__()
            self.counting = Counting()

        def on_receive(self, message: Any) -> None:
            if message is END:
                done.set()
            else:
                self.counting.count(message)

    reference = Actor.start()
    tell = reference.tell
    began = time.perf_counter()
    for _number in range(count):
        tell(MESSAGE)
    tell(END)
    done.wait()
    took_s = time.perf_counter() - began
    reference.stop()
    return took_s


def thespian_tell(count: int, _: str) -> float:
    """One way, in the system of one process; the last one is asked, to know that all were handled."""
    actors: Any = import_module("thespian.actors")

    class Counter(actors.Actor):  # type: ignore[misc]  # It need not be installed.
        def __init__(self) -> None:
            super().__init__()
            self.counting = Counting()

        def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 -- its name.
            if message is END:
                self.send(sender, self.counting.n)
            elif isinstance(message, str):
                self.counting.count(message)

    system = actors.ActorSystem("simpleSystemBase")
    try:
        actor = system.createActor(Counter)
        began = time.perf_counter()
        for _number in range(count):
            system.tell(actor, MESSAGE)
        assert system.ask(actor, END) == count
        took_s = time.perf_counter() - began
    finally:
        system.shutdown()
    return took_s


def xoscar_call(count: int, _: str) -> float:
    """Calls one after the other, caller and actor in one pool: it has nothing cheaper between actors."""
    xoscar: Any = import_module("xoscar")

    class Counter(xoscar.Actor):  # type: ignore[misc]  # It need not be installed.
        def __init__(self) -> None:
            super().__init__()
            self.counting = Counting()

        def count(self, text: str) -> None:
            self.counting.count(text)

    async def calls() -> float:
        pool = await xoscar.create_actor_pool(address="127.0.0.1:0", n_process=0)
        try:
            actor = await xoscar.create_actor(Counter, address=pool.external_address, uid="counter")
            began = time.perf_counter()
            for _number in range(count):
                await actor.count(MESSAGE)
            return time.perf_counter() - began
        finally:
            await pool.stop()

    return asyncio.run(calls())


def dbos_steps(count: int, directory: str) -> float:
    """Steps of one workflow, each kept in the database when it is done."""
    DBOS: Any = import_module("dbos").DBOS  # noqa: N806 -- its name.
    DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{directory}/dbos.sqlite",
            "log_level": "ERROR",
        }
    )

    @DBOS.step()  # type: ignore[untyped-decorator]  # It need not be installed.
    def step(number: int) -> int:
        return number + 1

    @DBOS.workflow()  # type: ignore[untyped-decorator]  # It need not be installed.
    def steps(times: int) -> int:
        number = 0
        for _number in range(times):
            number = step(number)
        return number

    DBOS.launch()
    try:
        steps(5)
        began = time.perf_counter()
        assert steps(count) == count
        return time.perf_counter() - began
    finally:
        DBOS.destroy()


MEASURES: Final[dict[str, Callable[[int, str], float]]] = {
    "pykka": pykka_tell,
    "thespian": thespian_tell,
    "xoscar": xoscar_call,
    "dbos": dbos_steps,
}

if __name__ == "__main__":
    number = int(sys.argv[2])
    answer({"rate": number / MEASURES[sys.argv[1]](number, sys.argv[3])})
