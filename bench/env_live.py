# SPDX-License-Identifier: Apache-2.0
"""A server of environments in this process, with a recorder of its own: what bench/env.py measures of one node.

    python bench/env_live.py PART DIRECTORY NUMBER…     answers with one line of JSON

The server, its walls and the recorder's process are those of a node. Who sends is in this process as well, as an
environment beside it would be; its receipts come by the socket that clients use.
"""

import asyncio
import os
import secrets
import string
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final, final

import msgspec
from env_child import HERE, answer, synced

from atoll.domain.frames import FrameConnection
from atoll.domain.loading import bundle_of, load
from atoll.domain.messages import Hello, Welcome, client_codec, server_codec
from atoll.domain.recorder.launch import Owner, launch_recorder
from atoll.domain.server import Server, now
from atoll.domain.shelves import DiskShelf, find_journal
from atoll.domain.walls import InlineWalls
from atoll.env.app import Program
from atoll.env.beginning import Wanted
from atoll.env.chain import Frame, read
from atoll.env.environment import Environment
from atoll.env.hosted import Hosted
from atoll.env.messages import Carried, Receipt
from atoll.env.past import Past
from atoll.env.records import Arrived, Began
from atoll.group.identity import Identity
from atoll.host.heap import freeze_heap

EVENT_BYTES: Final = 64
WINDOW: Final = 16_384  # Events on their way: as many as fit into the blocks that may be.
FRAMES: Final = 16  # Different ones, so that nothing compresses by being repeated.
OURS: Final = 1  # The first session of a server.
NAME: Final = "measured"  # Of no file here, or that would be meant.

_encode: Final = msgspec.msgpack.Encoder().encode


def frames_of(size: int, seed: int) -> list[bytes]:
    """Return frames of so many events, EVENT_BYTES each, whose text is drawn."""
    rng = Random(seed)
    around = len(_item(""))
    length = EVENT_BYTES - around - 1  # A text of 32 and more characters has one more byte of length.
    texts = ["".join(rng.choices(string.ascii_letters, k=length)) for _ in range(size * FRAMES)]
    assert len(_item(texts[0])) == EVENT_BYTES
    return [_encode([msgspec.Raw(_item(text)) for text in texts[at::FRAMES]]) for at in range(FRAMES)]


def _item(text: str) -> bytes:
    return _encode(({"is": "Ev", "text": text}, 0, 0, "", ""))


@final
class Live:
    """One environment that runs, and one party that sends to it. Made by ``Live.started``."""

    def __init__(self, server: Server, program: Program, identity: bytes) -> None:
        self._server, self.program = server, program
        self._identity: Final = identity
        self._party: Final = secrets.token_bytes(16)
        self._connection: FrameConnection | None = None
        self._came: Final = asyncio.Event()
        self._welcomed: Final = asyncio.Event()
        self._sent = self._taken = 0

    @staticmethod
    @asynccontextmanager
    async def started(directory: Path, app: str, fields: dict[str, Any] | None = None) -> AsyncGenerator["Live"]:
        """Begin an application of env_apps.py in an empty directory; end everything with the block."""
        identity = Identity(secrets.token_bytes(64))
        recorder = await launch_recorder(directory, Owner(identity.node, identity.signing_key, identity.sign))
        walls = InlineWalls(directory / "envs.running")
        server = Server(recorder.client, recorder.sealer, NAME, secrets.token_bytes(32), walls)
        try:
            walls.raise_up()
            await server.start(directory / "env.sock")
            loaded = load(bundle_of(f"{HERE / 'env_apps.py'}:{app}"))
            await recorder.client.keep_code(loaded.code, loaded.bundle.encode())
            wanted = Wanted(NAME, loaded.code, _encode(fields or {}), 1)
            live = Live(server, loaded.program, server.steward.create(wanted, loaded.program, now()))
            await live._attach(directory / "env.sock")
            freeze_heap()
            yield live
        finally:
            walls.take_down()
            await server.stop()
            await recorder.stop()

    @property
    def hosted(self) -> Hosted:
        """What the server has of it."""
        return self._server.steward.hosted[self._identity]

    async def _attach(self, path: Path) -> None:
        _, self._connection = await asyncio.get_running_loop().create_unix_connection(
            lambda: FrameConnection(self._take, self._made), str(path)
        )
        await self._welcomed.wait()
        self._server.stir()
        while self.hosted.runner is None:  # noqa: ASYNC110 -- nothing tells.
            await asyncio.sleep(0.001)

    def _made(self, connection: FrameConnection) -> None:
        connection.send(client_codec.encode(Hello(self._party)))

    def _take(self, connection: FrameConnection, frame: bytes) -> None:
        del connection
        match server_codec.decode(frame):
            case Welcome():
                self._welcomed.set()
            case Receipt(_, _, upto):
                self._taken = max(self._taken, upto)
                self._came.set()
            case _:
                pass

    async def _receipt(self) -> None:
        self._came.clear()
        await self._came.wait()

    async def pour(self, count: int, frames: list[bytes], size: int) -> float:
        """Send events in frames of ``size`` and wait until all are durable; return the seconds that it took."""
        heard, stir, first = self._server.steward.heard, self._server.stir, self._sent
        began = time.perf_counter()
        while self._sent - first < count:
            while self._sent - self._taken < WINDOW and self._sent - first < count:
                frame = frames[self._sent // size % FRAMES]
                heard(OURS, Carried(self._party, self._identity, self._sent + 1, frame), now())
                self._sent += size
            stir()
            await (self._receipt() if self._sent - self._taken >= WINDOW else asyncio.sleep(0))
        while self._taken < self._sent:
            await self._receipt()
        return time.perf_counter() - began

    async def one(self, frame: bytes, *, by_socket: bool) -> float:
        """Send one event and wait until it is durable; return the seconds that it took."""
        began = time.perf_counter()
        self._sent += 1
        message = Carried(self._party, self._identity, self._sent, frame)
        if by_socket:
            assert self._connection is not None
            self._connection.send(client_codec.encode(message))
        else:
            self._server.steward.heard(OURS, message, now())
            self._server.stir()
        while self._taken < self._sent:
            await self._receipt()
        return time.perf_counter() - began


# Parts.


async def rates(directory: Path, *counts: int) -> dict[str, Any]:
    """Events a second, by the size of the frames; the arguments are size, count, size, count and so on."""
    told: dict[str, Any] = {}
    async with Live.started(directory, "Count") as live:
        for size, count in zip(counts[::2], counts[1::2], strict=True):
            frames = frames_of(size, size)
            await live.pour(min(count, WINDOW), frames, size)
            cpu_s = time.process_time()
            took_s = await live.pour(count, frames, size)
            told[str(size)] = count / took_s
            told[f"{size} cpu us"] = (time.process_time() - cpu_s) / count * 1e6
    return told


async def alone(directory: Path, count: int) -> dict[str, Any]:
    """One event at a time, and what the disk needs for the same bytes, in turns."""
    (frame, *_), clock = frames_of(1, 1), time.perf_counter
    here: list[float] = []
    by_socket: list[float] = []
    disk: list[float] = []
    async with Live.started(directory, "Count") as live:
        (journal,) = find_journal(directory, NAME).segments
        for _ in range(50):
            await live.one(frame, by_socket=False)
        *_, last = (found for found in read(journal.read_bytes()) if isinstance(found, Frame))
        content = secrets.token_bytes(last.end - last.offset)
        descriptor = os.open(journal.with_name("bare"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for _ in range(count):
                here.append(await live.one(frame, by_socket=False))
                disk.append(synced(descriptor, content, clock))
                by_socket.append(await live.one(frame, by_socket=True))
                disk.append(synced(descriptor, content, clock))
        finally:
            os.close(descriptor)
            journal.with_name("bare").unlink()
    return {"here": here, "by socket": by_socket, "disk": disk, "bytes": len(content)}


async def cost(directory: Path, target_us: int, count: int, rounds: int) -> dict[str, Any]:
    """The same handler driven bare, and with everything around it, in turns; seconds an event."""
    size, bare, recorded = 64, list[float](), list[float]()
    frames = frames_of(size, 64)
    async with Live.started(directory, "Work", {"loops": _loops(target_us)}) as live:
        party, number = secrets.token_bytes(16), 0
        environment = Environment.blank(live.program)
        fields = _encode({"loops": _loops(target_us)})
        environment.handle(Began(bytes(16), bytes(32), NAME, bytes(32), fields, bytes(10)), time.time_ns())
        for _ in range(rounds):
            began = time.perf_counter()
            for _ in range(0, count, size):
                items = msgspec.Raw(frames[number // size % FRAMES])
                environment.handle(Arrived(party, number + 1, items), time.time_ns())
                number += size
            bare.append((time.perf_counter() - began) / count)
            recorded.append(await live.pour(count, frames, size) / count)
    return {"bare": bare, "recorded": recorded}


_known: Final[dict[int, int]] = {}


def _loops(target_us: int) -> int:
    """Return how many hashes take so long here; the same number each time it is asked."""
    if target_us not in _known:
        spans: list[float] = []
        for _ in range(50):
            digest, began = bytes(32), time.perf_counter()
            for _ in range(1000):
                digest = sha256(digest).digest()
            spans.append((time.perf_counter() - began) / 1000)
        _known[target_us] = max(1, round(target_us / 1e6 / median(spans)))
    return _known[target_us]


async def history(directory: Path, count: int) -> dict[str, Any]:
    """Live through so many events, then replay them; seconds, and whether state and effects are equal."""
    async with Live.started(directory, "Count") as live:
        lived_s = await live.pour(count, frames_of(256, 256), 256)
        runner = live.hosted.runner
        assert runner is not None
        fields, digest, events = runner.environment.fields(), runner.digest, runner.environment.events
    began = time.perf_counter()
    past = _past(directory)
    opened_s = time.perf_counter() - began
    summary = past.redo()
    replayed_s = time.perf_counter() - began
    return {
        "events": events,
        "lived s": lived_s,
        "replayed s": replayed_s,
        "opened s": opened_s,
        "equal": summary.digest == digest and past.last == events and past.state_at(events).state == {"": fields},
        "checkpoints": summary.checkpoints,
    }


async def back(directory: Path, count: int, times: int) -> dict[str, Any]:
    """Live through so many events, then go to some of them; seconds each, all that is read opened anew."""
    async with Live.started(directory, "Count") as live:
        await live.pour(count, frames_of(256, 256), 256)
    rng, cold, warm = Random(5), list[float](), list[float]()
    targets = [rng.randrange(2, count) for _ in range(times)]
    for target in targets:
        began = time.perf_counter()
        seen = _past(directory).state_at(target).state[""]["n"]
        cold.append(time.perf_counter() - began)
        assert seen == target, f"event {target} shows {seen}"
    past = _past(directory)
    for target in targets:
        began = time.perf_counter()
        past.state_at(target)
        warm.append(time.perf_counter() - began)
    return {"cold": cold, "warm": warm}


def _past(directory: Path) -> Past:
    return Past(DiskShelf(find_journal(directory, NAME)))


PARTS: Final[dict[str, Callable[..., Any]]] = {
    "rates": rates,
    "alone": alone,
    "cost": cost,
    "history": history,
    "back": back,
}

if __name__ == "__main__":
    answer(asyncio.run(PARTS[sys.argv[1]](Path(sys.argv[2]), *map(int, sys.argv[3:]))))
