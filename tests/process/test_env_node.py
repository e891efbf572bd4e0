# SPDX-License-Identifier: Apache-2.0
"""Real nodes that run environments: by the command line, under kill -9, with handlers that misbehave, and strangers."""

import asyncio
import base64
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from struct import Struct
from typing import Any

import msgspec
import pytest

from atoll.base.errors import UserError
from atoll.cli.api import Api
from atoll.client.environments import CallError, Desk, RemoteEnvironment
from atoll.domain.limits import SERVER_FRAME_BYTES_MAX, SESSIONS_MAX
from atoll.domain.loading import Bundle, bundle_of
from atoll.domain.messages import ClientMessage, Hello, Welcome, client_codec, server_codec
from atoll.env.messages import Carried, Receipt
from tests.process.node_world import Box, Nodes, children_of, kill, nodes, until

pytestmark = pytest.mark.process

TEST_S = 45.0
LENGTH = Struct("<I")
SHOP = """
import atoll

class Do(atoll.Tuple):
    what: str = ""

class Got(atoll.Tuple):
    n: int

class Shop(atoll.App):
    n: int = 0
    heard: list[str] = []
    cells: dict[tuple[int, int], str] = {}

    @atoll.on(Do)
    def do(self, do: Do, ctx: atoll.Context) -> Got:
        self.n += 1
        match do.what:
            case "raise":
                raise ValueError("no")
            case "loop":
                while True:
                    self.n += 1
            case "grow":
                kept = []
                while True:
                    kept.append(bytes(1 << 26))
            case "chew":
                sum(range(10**12))
            case "exit":
                raise SystemExit(3)
            case "swallow":
                while True:
                    try:
                        while True:
                            self.n += 1
                    except BaseException:
                        self.n += 1
            case "log":
                ctx.log("it was said")
                self.cells[1, 2] = "here"
        return Got(self.n)

    @atoll.on(atoll.Moved, atoll.Restored)
    def runs_again(self, change: atoll.Moved | atoll.Restored, ctx: atoll.Context) -> None:
        self.heard.append(type(change).__name__)
"""
NEXT = SHOP.replace("self.n += 1\n        match", "self.n += 1_000\n        match")
HASTY = "import time\n" + SHOP.replace("self.n += 1\n        match", "self.n += time.time_ns()\n        match")
UNFIT = SHOP.replace("n: int = 0", "n: list[str] = []")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("apps")
    for name, source in (("shop", SHOP), ("following", NEXT), ("unfit", UNFIT), ("hasty", HASTY)):
        (directory / f"{name}.py").write_text(source)
    return directory / "shop.py"


@pytest.fixture(scope="module")
def box() -> Generator[Box]:
    with nodes() as world:
        one = world.box("one")
        one.up()
        yield one


@pytest.fixture(scope="module")
def three() -> Generator[Nodes]:
    with nodes() as world:
        world.group("one", "two", "three")
        yield world


def command(box: Box, verb: str, **params: Any) -> Any:
    """Have something done, as the command line does; return the answer."""
    return json.loads(Api(box.state, TEST_S).call(f"env.{verb}", params))


def begin(box: Box, path: Path, name: str, **params: Any) -> Any:
    return command(box, "run", name=name, bundle=encoded(bundle_of(str(path))), **params)


def encoded(bundle: Bundle) -> str:
    return base64.b64encode(bundle.encode()).decode()


def refused(call: Callable[[], object]) -> str:
    """Return the code of the error."""
    with pytest.raises(UserError) as caught:
        call()
    return caught.value.code


def processes(box: Box) -> dict[str, int]:
    """Return the processes that run and record environments."""
    found: dict[str, int] = {}
    for pid in children_of(box.pid):
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"atoll.domain" in line:
                found["recorder" if b"recorder" in line else "envs"] = pid
    return found


def kill_one(box: Box, which: str) -> None:
    """Kill one of the processes; the node starts another."""
    kill(until(lambda: processes(box).get(which, 0), f"{which} of {box.name}"))


def client(box: Box, test: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
    async def attached() -> None:
        async with asyncio.timeout(TEST_S), Desk(box.state) as desk:
            await test(desk)

    asyncio.run(attached())


async def do(environment: RemoteEnvironment, what: str = "", timeout_s: float = TEST_S) -> int:
    said = await environment.call({"is": "Do", "what": what}, timeout_s=timeout_s)
    return int(said["n"])


async def fails(environment: RemoteEnvironment, what: str) -> str:
    with pytest.raises(CallError) as caught:
        await do(environment, what)
    return caught.value.failure.code


# One node.


def test_it_is_run_looked_at_and_ended_by_the_command_line(box: Box, shop: Path) -> None:
    assert box.run("env", "call", "store", "Do", "what=log").code == "A609", "before anything runs here"
    said = box.run("run", str(shop), "--name", "store", "--with", "n=5", "--copies", "1")
    assert said.status == 0, said.err
    assert said.out.startswith("store runs Shop on one")
    assert "A210" in box.run("run", str(shop), "--name", "far", "--on", "mars").err
    assert "far" not in box.run("env", "list").out
    assert "store\tShop\tone" in box.run("env", "list").out
    assert box.run("env", "call", "store", "Do", "what=log").out == "Got n=6\n"
    failed = box.run("env", "call", "store", "Do", "what=raise")
    assert (failed.status, failed.err) == (1, 'Failure code="raised" text="ValueError: no"\n')
    assert box.run("env", "send", "store", "Do").status == 0
    seen = box.run("env", "show", "store").out
    assert "n  7" in seen
    assert 'cells  {"[1, 2]":"here"}' in seen
    assert "it was said" in box.run("env", "logs", "store").out
    assert refused(partial(begin, box, shop, "store")) == "A606"
    hasty = str(shop.with_name("hasty.py"))
    for said in (box.run("run", hasty), box.run("env", "upgrade", "store", hasty)):
        assert said.code == "A614"
        assert "ctx.now_ns" in said.field("where")
    command(box, "checkpoint", name="store")
    assert until(lambda: list(box.state.glob("envs/*/snapshots/*")), "a snapshot")
    assert box.run("env", "stop", "store").status == 0
    assert json.loads(box.run("env", "list", "--json").out)["environments"] == []
    assert box.run("env", "call", "store", "Do").code == "A609"
    assert refused(partial(command, box, "show", name="store")) == "A609"


def test_a_stopped_environment_does_not_come_back(box: Box, shop: Path) -> None:
    for name in ("gone", "kept"):
        begin(box, shop, name, copies=1)
    command(box, "stop", name="gone")
    kill_one(box, "envs")

    async def test(desk: Desk) -> None:
        assert await do(await desk.environment("kept")) == 1

    until(lambda: "kept" in {one["name"] for one in listed(box)}, "what was kept")
    client(box, test)
    assert {one["name"] for one in listed(box)} == {"kept"}
    command(box, "stop", name="kept")


def knows(box: Box, count: int) -> bool:
    """Tell whether so many environments are known at a node."""
    return len(listed(box)) == count


def listed(box: Box) -> list[Any]:
    try:
        return list(command(box, "list")["environments"])
    except UserError:
        return []


def test_what_cannot_be_run_says_why(box: Box, shop: Path) -> None:
    source = SHOP.replace("n: int = 0", "n: int")

    def runs(bundle: Bundle, **params: Any) -> Callable[[], object]:
        return lambda: command(box, "run", **{"name": "odd", "bundle": encoded(bundle), **params})

    assert refused(runs(Bundle(1, "shop", "Shop", {"shop": source}))) == "A601"
    assert refused(runs(bundle_of(str(shop)), arguments={"n": "text"})) == "A602"
    assert refused(runs(bundle_of(str(shop)), arguments={"m": 1})) == "A602"
    assert refused(runs(bundle_of(str(shop)), arguments={"n": 1 << 70})) == "A501"
    assert refused(runs(Bundle(1, "shop", "Shop", {"shop": "import sys\nsys.exit(3)"}))) == "A603"
    assert refused(lambda: command(box, "run", name="odd", bundle=base64.b64encode(b"noise").decode())) == "A603"
    assert refused(runs(Bundle(1, "shop", "Nothing", {"shop": SHOP}))) == "A604"
    assert refused(runs(Bundle(1, "shop", "Shop", {"shop": SHOP}, (("nothing-such", "1"),)))) == "A605"
    assert refused(runs(bundle_of(str(shop)), name="No Name")) == "A501"
    assert refused(lambda: command(box, "dance", name="odd")) in {"A501", "A208"}
    assert not listed(box)


def test_an_upgrade_keeps_the_state_and_one_that_does_not_fit_changes_nothing(box: Box, shop: Path) -> None:
    begin(box, shop, "upgraded", copies=1)
    following, unfit = (encoded(bundle_of(str(shop.with_name(name)))) for name in ("following.py", "unfit.py"))

    async def test(desk: Desk) -> None:
        environment = await desk.environment("upgraded")
        assert await do(environment) == 1
        upgrade = partial(command, box, "upgrade", name="upgraded")
        code = await asyncio.to_thread(refused, partial(upgrade, bundle=unfit))
        assert code == "A607"
        assert await do(environment) == 2
        await asyncio.to_thread(upgrade, bundle=following)
        assert await do(environment) == 1_002
        await asyncio.to_thread(kill_one, box, "envs")
        assert await do(environment) == 2_002

    client(box, test)
    assert command(box, "show", name="upgraded")["state"]["heard"] == ["Restored"]
    command(box, "stop", name="upgraded")


@pytest.mark.parametrize("which", ["envs", "recorder"])
def test_a_client_that_calls_notices_no_more_than_a_pause_when_a_process_is_killed(
    box: Box, shop: Path, which: str
) -> None:
    begin(box, shop, "killed", copies=1)

    async def test(desk: Desk) -> None:
        environment = await desk.environment("killed")
        calls = [asyncio.ensure_future(do(environment)) for _ in range(20)]
        await calls[0]
        await asyncio.to_thread(kill_one, box, which)
        calls += [asyncio.ensure_future(do(environment)) for _ in range(20)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        numbers = [one for one in outcomes if isinstance(one, int)]
        assert sorted(set(numbers)) == sorted(numbers), "each counts once"
        assert len(numbers) >= 39, "what was being handled then may count as failed"
        assert max(numbers) == len(numbers)

    client(box, test)
    command(box, "stop", name="killed")


def test_handlers_that_misbehave_fail_and_nothing_else_suffers(box: Box, shop: Path) -> None:
    for name in ("bad", "good"):
        begin(box, shop, name, copies=1)

    async def test(desk: Desk) -> None:
        bad, good = await desk.environment("bad"), await desk.environment("good")
        for what, code in (("raise", "raised"), ("exit", "raised"), ("grow", "grown"), ("loop", "killed")):
            assert await fails(bad, what) == code
        assert await do(bad) == 1
        assert await do(good) == 1

    client(box, test)
    assert command(box, "show", name="bad")["failures"] == 4
    for name in ("bad", "good"):
        command(box, "stop", name=name)


# Strangers at the doors.


@contextmanager
def door(box: Box) -> Generator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(TEST_S)
        end.connect(str(box.state / "env.sock"))
        yield end


def frames(*contents: bytes) -> bytes:
    return b"".join(LENGTH.pack(len(content)) + content for content in contents)


def heard(end: socket.socket) -> Any:
    """Return what the server says next; None: it has ended the connection."""
    head = end.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        return None
    return server_codec.decode(end.recv(LENGTH.unpack(head)[0], socket.MSG_WAITALL))


def heard_until_its_end(end: socket.socket) -> bytes:
    """Return what the server says before it ends the connection. Raises ``TimeoutError`` if it does not."""
    parts: list[bytes] = []
    with suppress(ConnectionResetError):
        while part := end.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def test_rubbish_ends_its_connection_and_nothing_else(box: Box, shop: Path) -> None:
    begin(box, shop, "stranger", copies=1)
    assert (box.state / "env.sock").stat().st_mode & 0o777 == 0o600
    hello = client_codec.encode(Hello(b"p" * 16))
    welcome = frames(server_codec.encode(Welcome("one")))
    for rubbish, answer in (
        (LENGTH.pack(SERVER_FRAME_BYTES_MAX + 1), b""),
        (frames(b"noise"), b""),
        (frames(hello, hello), welcome),
        (frames(hello, b"\xc1"), welcome),
        (b"GET / HTTP/1.1\r\n\r\n", b""),
    ):
        with door(box) as end:
            end.sendall(rubbish)
            assert heard_until_its_end(end) in {b"", answer}, "nothing comes of it"
    with door(box) as end:  # What is well formed and makes no sense is passed over.
        said: tuple[ClientMessage, ...] = (
            Carried(b"q" * 16, b"x" * 16, 1, b"noise"),
            Receipt(b"p" * 16, b"x" * 16, 1 << 60),
            Carried(b"p" * 16, b"x" * 16, 1, b"\xc1"),
        )
        end.sendall(frames(hello, *map(client_codec.encode, said)))
        assert heard(end) == Welcome("one")
    for line in (
        b"noise\n",
        b'{"method": "env.show"}\n',
        b'{"method": "env.run", "params": {"name": 7}}\n',
        b"[" * 9_000,
    ):
        with socket.socket(socket.AF_UNIX) as end:
            end.settimeout(TEST_S)
            end.connect(str(box.state / "control.sock"))
            end.sendall(line + b"\n")
            end.shutdown(socket.SHUT_WR)
            assert b'"error"' in end.recv(65_536)

    async def test(desk: Desk) -> None:
        assert await do(await desk.environment("stranger")) == 1

    client(box, test)
    command(box, "stop", name="stranger")


def test_more_clients_than_fit_are_closed_at_once_and_the_others_are_served(box: Box, shop: Path) -> None:
    begin(box, shop, "crowded", copies=1)
    ends: list[socket.socket] = []
    try:
        for number in range(SESSIONS_MAX):
            end = socket.socket(socket.AF_UNIX)
            ends.append(end)
            end.settimeout(TEST_S)
            end.connect(str(box.state / "env.sock"))
            end.sendall(frames(client_codec.encode(Hello(number.to_bytes(16, "big")))))
            assert heard(end) == Welcome("one")
        with door(box) as end:
            assert heard_until_its_end(end) == b"", "it is not let in"
        ends.pop().close()

        def served() -> bool:
            with door(box) as end:
                end.sendall(frames(client_codec.encode(Hello(b"z" * 16))))
                with suppress(ConnectionResetError):
                    return bool(heard(end) == Welcome("one"))
                return False

        until(served, "room for one more")
    finally:
        for end in ends:
            end.close()
    command(box, "stop", name="crowded")


def test_a_client_that_never_reads_does_not_stop_the_others(box: Box, shop: Path) -> None:
    identity = bytes.fromhex(begin(box, shop, "unread", copies=1)["id"])
    asks = msgspec.msgpack.encode([[{"is": "Do", "what": "x" * 100}, number, 0, "", ""] for number in range(1, 101)])
    with door(box) as end:
        end.sendall(frames(client_codec.encode(Hello(b"n" * 16))))
        for first in range(1, 20_001, 100):
            end.sendall(frames(client_codec.encode(Carried(b"n" * 16, identity, first, asks))))

        async def test(desk: Desk) -> None:
            assert await do(await desk.environment("unread")) > 0

        client(box, test)
    command(box, "stop", name="unread")


# The disk.


def test_a_disk_that_is_full_is_said_and_everything_goes_on_when_there_is_room(shop: Path) -> None:
    with nodes() as world:
        state = world.directory / "small"
        state.mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", str(state)], check=True)
        try:
            small = world.box("small", state)
            small.up()
            begin(small, shop, "tight", copies=1)
            filler = state / "filler"

            async def test(desk: Desk) -> None:
                environment = await desk.environment("tight")
                assert await do(environment) == 1
                with filler.open("wb", buffering=0) as file, suppress(OSError):
                    while True:
                        file.write(bytes(4_096))
                codes: list[str] = []
                for _ in range(5_000):
                    try:
                        await environment.call({"is": "Do", "what": "x" * 1_000}, timeout_s=2)
                    except CallError as error:
                        codes.append(error.failure.code)
                        if "disk-full" in codes:
                            break
                assert "disk-full" in codes
                filler.unlink()
                before = 0
                for _ in range(20):
                    with suppress(CallError):
                        before = await do(environment, timeout_s=5)
                        break
                assert await do(environment) == before + 1

            client(small, test)
        finally:
            for one in world.boxes:
                one.kill()
            subprocess.run(["umount", "-l", str(state)], check=False)


# Several nodes.


def test_it_moves_between_nodes_while_a_client_calls(three: Nodes, shop: Path) -> None:
    one, two, third = three.boxes
    begin(one, shop, "moving")
    until(lambda: len(shown(one, "moving")["holders"]) == 3, "three holders")

    async def test(desk: Desk) -> None:
        environment = await desk.environment("moving")
        numbers: list[int] = []
        is_over = asyncio.Event()

        async def calls() -> None:
            while not is_over.is_set():
                numbers.append(await do(environment))

        caller = asyncio.ensure_future(calls())
        for asker, target in ((one, two), (two, third), (one, one)):
            moved = await asyncio.to_thread(partial(command, asker, "move", name="moving", node=target.name))
            assert moved["name"] == "moving"
            await asyncio.to_thread(until, partial(runs_here, target, "moving"), f"it runs on {target.name}")
            await asyncio.to_thread(until, partial(has_more, numbers, len(numbers) + 5), "more calls")
        is_over.set()
        await caller
        assert numbers == list(range(1, len(numbers) + 1))

    client(two, test)
    assert shown(one, "moving")["state"]["heard"] == ["Moved"] * 3
    assert refused(lambda: command(one, "move", name="moving", node="nowhere")) == "A210"
    command(third, "stop", name="moving")
    for each in three.boxes:
        until(partial(knows, each, 0), f"its end at {each.name}")


def runs_here(box: Box, name: str) -> bool:
    return "state" in shown(box, name)


def has_more(numbers: list[int], than: int) -> bool:
    return len(numbers) > than


def shown(box: Box, name: str) -> Any:
    try:
        return command(box, "show", name=name)
    except UserError:
        return {"holders": ()}


def runs_on(box: Box, name: str) -> str:
    """Return where an environment runs, as a node has heard; empty: it has not."""
    return str(shown(box, name).get("node", ""))


def test_a_member_may_not_command_what_it_neither_keeps_nor_has_begun(three: Nodes, shop: Path) -> None:
    one, two, _ = three.boxes
    begin(one, shop, "mine", copies=1)
    until(lambda: listed(two), "that others know of it")
    for verb in ("stop", "checkpoint", "logs"):
        assert refused(partial(command, two, verb, name="mine")) == "A612"
    assert shown(two, "mine")["node"] == "one"
    assert "state" not in shown(two, "mine")
    assert refused(lambda: command(two, "run", name="mine", bundle=encoded(bundle_of(str(shop))))) == "A606"

    async def test(desk: Desk) -> None:
        assert await do(await desk.environment("mine")) == 1

    client(two, test)
    command(one, "stop", name="mine")


def test_who_began_it_stops_it_wherever_it_was_moved_to(three: Nodes, shop: Path) -> None:
    one, two, _ = three.boxes
    begin(one, shop, "lent", copies=1)
    command(one, "move", name="lent", node="two")
    until(lambda: shown(one, "lent")["holders"] == ["two"], "that the first one does not keep it any more")
    until(partial(runs_here, two, "lent"), "it runs on two")
    assert "state" in shown(one, "lent")
    command(one, "stop", name="lent")
    until(partial(knows, two, 0), "its end")


def test_of_two_of_one_name_that_began_at_once_all_nodes_mean_the_same(three: Nodes, shop: Path) -> None:
    said: list[str] = []

    def one_more(box: Box) -> None:
        with suppress(UserError):
            said.append(begin(box, shop, "twin", copies=1)["id"])

    threads = [threading.Thread(target=one_more, args=(box,)) for box in three.boxes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said
    for box in three.boxes:
        until(partial(knows, box, len(said)), f"what {box.name} knows")

    meant: list[str] = []

    async def find(desk: Desk) -> None:
        meant.append((await desk.environment("twin")).party.hex())

    for box in three.boxes:
        client(box, find)
    assert len(set(meant)) == 1
    assert meant[0] in said
    for left in range(len(said) - 1, -1, -1):
        owner = shown(three.boxes[0], "twin")["node"]
        command(next(box for box in three.boxes if box.name == owner), "stop", name="twin")
        for box in three.boxes:
            until(partial(knows, box, left), "one less")


def test_handlers_that_nothing_inside_can_end_are_ended_from_outside(three: Nodes, shop: Path) -> None:
    """One looks away from every exception, the other never comes back from C; each on a node of its own."""
    one, two, _ = three.boxes
    pairs = ((one, "swallow"), (two, "chew"))
    for box, what in pairs:
        begin(box, shop, f"bad-{what}", copies=1)

    async def both() -> None:
        async def suffers(box: Box, what: str) -> None:
            async with Desk(box.state) as desk:
                bad = await desk.environment(f"bad-{what}")
                assert await do(bad) == 1
                assert await fails(bad, what) == "killed"
                assert await do(bad) == 2

        async with asyncio.timeout(TEST_S):
            await asyncio.gather(*(suffers(box, what) for box, what in pairs))

    asyncio.run(both())
    for box, what in pairs:
        command(box, "stop", name=f"bad-{what}")


def is_kept(box: Box, name: str) -> bool:
    """Tell whether a node knows that three keep an environment."""
    return len(shown(box, name)["holders"]) == 3


@pytest.fixture(scope="module")
def kept(three: Nodes, shop: Path) -> Nodes:
    """Return three nodes that keep the environment ``survivor``, which the first one runs at first."""
    begin(three.boxes[0], shop, "survivor")
    for box in three.boxes:
        until(partial(is_kept, box, "survivor"), f"that {box.name} knows of three holders")
    return three


def test_another_node_takes_over_when_all_of_the_owners_processes_are_killed(kept: Nodes) -> None:
    one, two, third = kept.boxes
    numbers: list[int] = []

    async def test(desk: Desk) -> None:
        environment = await desk.environment("survivor")
        numbers.append(await do(environment))
        await asyncio.to_thread(one.kill)
        numbers.append(await do(environment))
        kill_one(third, "recorder")
        numbers.append(await do(environment))

    client(two, test)
    assert shown(two, "survivor")["node"] in {"two", "three"}
    one.again()
    until(lambda: one.sees("two", "three"), "that the first one is back")

    async def later(desk: Desk) -> None:
        numbers.append(await do(await desk.environment("survivor")))

    until(lambda: listed(one), "what is there")
    client(one, later)
    assert numbers == list(range(numbers[0], numbers[0] + 4))


def test_what_was_stopped_does_not_come_back_with_a_holder_that_was_away(three: Nodes, shop: Path) -> None:
    one, two, third = three.boxes
    identity = begin(one, shop, "brief")["id"]
    until(partial(is_kept, one, "brief"), "three holders")
    until((third.state / "envs" / identity).is_dir, "that the third one keeps it")
    third.kill()
    command(one, "stop", name="brief")
    for box in (one, two):
        until((box.state / "ended" / f"{identity}-1").is_dir, f"that {box.name} has put it aside")
        assert box.down().status == 0
    for box in (one, two, third):
        box.again()
    until((third.state / "ended" / f"{identity}-1").is_dir, "that it was told")
    for box in three.boxes:
        assert not (box.state / "envs" / identity).exists()
        assert "brief" not in {view["name"] for view in listed(box)}


def test_all_of_it_is_there_again_after_every_node_was_restarted(kept: Nodes) -> None:
    numbers: list[int] = []

    async def test(desk: Desk) -> None:
        numbers.append(await do(await desk.environment("survivor")))

    client(kept.boxes[1], test)
    for box in kept.boxes:
        assert box.down().status == 0
    for box in kept.boxes:
        box.again()
    for box in kept.boxes:
        others = [other.name for other in kept.boxes if other is not box]
        until(partial(box.sees, *others), f"{box.name} sees all")
    until(lambda: listed(kept.boxes[1]), "what was there")
    client(kept.boxes[1], test)
    assert numbers[1] == numbers[0] + 1


def test_what_a_removed_member_says_is_not_heard(kept: Nodes) -> None:
    one, two, third = kept.boxes
    for box in kept.boxes:
        until(partial(runs_on, box, "survivor"), f"{box.name} knows where it runs")
    if shown(one, "survivor")["node"] == "three":
        command(one, "move", name="survivor", node="one")
    before: list[int] = []

    async def test(desk: Desk) -> None:
        environment = await desk.environment("survivor")
        before.append(await do(environment))
        said = await asyncio.to_thread(one.run, "remove", "three")
        assert said.status == 0, said.err
        with pytest.raises(CallError):
            await do(environment, timeout_s=2)

    client(third, test)

    async def unheard(desk: Desk) -> None:
        assert await do(await desk.environment("survivor")) == before[0] + 1

    client(two, unheard)
    until(lambda: "three" not in shown(one, "survivor")["holders"], "that others keep it")
