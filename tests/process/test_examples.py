# SPDX-License-Identifier: Apache-2.0
"""Each example as a person runs it: a real node, real clients, and kill -9 of what runs the environment in between."""

import asyncio
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from auction import Bid, Lot, Offer, Outbid, Sold
from chat import Join, Said, Say, Welcome, Where
from jobs import Job, Look, Put

import atoll
from atoll.client import Group, RemoteEnvironment
from atoll.lab.live import free_port
from tests.process.node_world import WAIT_S, Box, children_of, kill, nodes, until

pytestmark = pytest.mark.process

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def box() -> Generator[Box]:
    with nodes() as world:
        box = world.box("one")
        box.up()
        for name, *options in (
            ("auction",),
            ("jobs",),
            ("crawler", "--with", "delay_s=0.2"),
            ("chat", "--name", "lobby"),
        ):
            said = box.run("run", str(EXAMPLES / f"{name}.py"), *options)
            assert said.status == 0, said.err
        yield box


def kill_environments(box: Box) -> None:
    """Kill the process that runs environments, as kill -9 would; the node starts it anew."""
    running = [pid for pid in children_of(box.pid) if b"atoll.domain" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    envs = [pid for pid in running if b"recorder" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(envs) == 1, running
    kill(envs[0])


def clients(box: Box, test: Callable[[Group], Coroutine[Any, Any, None]]) -> None:
    async def attached() -> None:
        async with asyncio.timeout(WAIT_S), atoll.join(box.state) as group:
            await test(group)

    asyncio.run(attached())


@contextmanager
def program(box: Box, *command: str, typed: str = "") -> Generator[subprocess.Popen[str]]:
    """Run a program of the examples beside a node, and end it."""
    process = subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "ATOLL_STATE": str(box.state)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(typed)
    process.stdin.flush()
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def called(box: Box, *arguments: str) -> dict[str, Any]:
    """Call an environment by the command line."""
    said = box.run("env", "call", *arguments, "--json")
    found: dict[str, Any] = json.loads(said.out)["response"]
    return found


def test_the_auction_closes_a_lot_that_was_offered_before_it_was_killed(box: Box) -> None:
    async def test(group: Group) -> None:
        auction = await group.environment("auction")
        await auction.call(Offer("chair", 0.5), Lot)
        await auction.call(Bid("chair", "ann", 5), Lot)
        kill_environments(box)
        assert (await auction.call(Bid("chair", "bob", 9), Lot)).history == (("ann", 5), ("bob", 9))
        with pytest.raises(atoll.CallError, match="low: 10 is wanted"):
            await auction.call(Bid("chair", "eva", 9), Lot)
        kill_environments(box)
        async for news in auction.events(Outbid, Sold):
            assert news == Outbid("chair", "bob", 9)
            break

    clients(box, test)


def test_what_a_client_has_sent_is_there_when_it_has_left(box: Box) -> None:
    async def offer(group: Group) -> None:
        auction = await group.environment("auction")
        await auction.send(Offer("table", 60))
        await auction.flush()
        kill_environments(box)
        await auction.send(Bid("table", "ann", 5))

    clients(box, offer)
    assert called(box, "auction", "Look", "lot=table")["who"] == "ann"


def test_jobs_are_done_once_each_though_workers_and_environments_die(box: Box) -> None:
    async def looked(jobs: RemoteEnvironment) -> list[Job]:
        return [await jobs.call(Look(number + 1), Job) for number in range(20)]

    async def put(group: Group) -> None:
        jobs = await group.environment("jobs")
        for number in range(20):
            await jobs.call(Put(f"word{number}", key=f"k{number}", lease_s=1.0), Job)
        for round_ in range(3):
            with program(box, str(EXAMPLES / "jobs.py")) as worker:
                assert worker.stdout is not None
                await asyncio.to_thread(worker.stdout.readline)
                kill_environments(box)
                while round_ == 2 and any(job.state != "done" for job in await looked(jobs)):  # The last one stays.
                    await asyncio.to_thread(worker.stdout.readline)
        assert [job.said for job in await looked(jobs)] == [f"WORD{number}" for number in range(20)]

    clients(box, put)


def test_a_room_remembers_what_was_said(box: Box) -> None:
    with program(box, str(EXAMPLES / "chat.py"), "lobby", "ann", typed="hello\n") as ann:
        assert ann.stdout is not None
        assert ann.stdout.readline() == "here: ann\n"
        assert ann.stdout.readline() == "ann: hello\n"
        kill_environments(box)

        async def test(group: Group) -> None:
            lobby = await group.environment("lobby")
            await lobby.call(Join("bob", group.node), Welcome)
            await lobby.call(Say("bob", "hi"), Said)

        clients(box, test)
        assert ann.stdout.readline() == "bob: hi\n"
    with program(box, str(EXAMPLES / "chat.py"), "lobby", "eva") as eva:
        assert eva.stdout is not None
        assert eva.stdout.readline() == "here: ann, bob, eva\n"
        assert called(box, "lobby", "Say", "who=bob", "text=again")["number"] == 3
        assert eva.stdout.readline() == "bob: again\n"
    with program(box, str(EXAMPLES / "chat.py"), "lobby", "ann") as ann:
        assert ann.stdout is not None
        assert "ann" in ann.stdout.readline()
        # That she had seen the one before may not have been told when her program was ended: then it comes again.
        assert any(ann.stdout.readline().startswith("bob: again") for _ in range(2))


def test_a_room_moves_to_where_its_members_are() -> None:
    with nodes() as world:
        one, two = world.group("one", "two")
        assert one.run("run", str(EXAMPLES / "chat.py"), "--name", "lobby").status == 0

        async def test(group: Group) -> None:
            lobby = await group.environment("lobby")
            await lobby.call(Join("ann", group.node), Welcome)
            with program(one, str(EXAMPLES / "chat.py"), "lobby", "--follow"):
                while (await lobby.call(Where(), Where)).room != "two":
                    await asyncio.to_thread(two.run, "env", "list")  # Takes a moment, and is some load beside.
            await lobby.call(Say("ann", "closer"), Said)
            assert await anext(lobby.events(Said)) == Said(1, "ann", "closer")

        clients(two, test)


class Site(http.server.BaseHTTPRequestHandler):
    asked: list[tuple[float, str]] = []  # noqa: RUF012 -- all requests of one test.

    def do_GET(self) -> None:
        self.asked.append((time.monotonic(), self.path))
        pages = {
            "/robots.txt": "User-agent: *\nDisallow: /private\n",
            "/": "<title>Home</title><a href=/a>a</a><a href=/private>p</a><a href='/b'>b</a>",
            "/a": "<title>A</title>",
        }
        body = pages.get(self.path, "").encode()
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so.
        pass


def test_a_site_is_crawled_politely_though_workers_and_environments_die(box: Box) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with program(box, str(EXAMPLES / "crawler.py"), "work") as worker:
            assert called(box, "crawler", "Crawl", f"url={url}/", "depth=1")["url"] == f"{url}/"
            assert worker.stdout is not None
            assert worker.stdout.readline().startswith(f"{url}/robots.txt 200")
            assert worker.stdout.readline() == f"{url}/ 200 Home\n"
            kill_environments(box)
            lines = [worker.stdout.readline() for _ in range(2)]
            assert lines == [f"{url}/a 200 A\n", f"{url}/b 404 \n"]
        pages = json.loads(box.run("env", "show", "crawler", "--json").out)["state"]["pages"]
        assert pages[f"{url}/private"]["state"] == "forbidden"
    finally:
        server.shutdown()
        thread.join(WAIT_S)
        server.server_close()
    assert [path for _, path in Site.asked] == ["/robots.txt", "/", "/a", "/b"]
    times = [at for at, _ in Site.asked]
    assert all(after - before >= 0.2 for before, after in pairwise(times))


def asked(url: str, body: object = None) -> tuple[int, dict[str, Any]]:
    """Make one HTTP request; return the status and the answer."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(url, data, WAIT_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_queue_is_served_over_http(box: Box) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/jobs"

    def is_up() -> bool:
        with suppress(urllib.error.URLError):
            return asked(f"{url}/0")[0] == 404
        return False

    server = (
        "-m",
        "uvicorn",
        "--app-dir",
        str(EXAMPLES),
        "--port",
        str(port),
        "--log-level",
        "warning",
        "jobs_http:app",
    )
    with program(box, *server) as served:
        until(is_up, "the server answers")
        status, job = asked(url, {"payload": "over http", "key": "http", "lease_s": 1})
        assert (status, job["put"]["payload"]) == (201, "over http")
        kill_environments(box)
        with program(box, str(EXAMPLES / "jobs.py")):
            until(lambda: asked(f"{url}/{job['number']}")[1]["state"] == "done", "the job is done")
        assert asked(url, {"payload": "again", "key": "http"})[1]["said"] == "OVER HTTP"
        assert asked(f"{url}/99999") == (404, {"error": "unknown: there is no job 99999"})
        assert asked(url, {"payload": 5})[0] == 400
        assert asked(f"{url}/nonsense")[0] == 404
        served.send_signal(signal.SIGTERM)
        assert served.wait(WAIT_S) in {0, -signal.SIGTERM}


def test_without_a_node_the_server_says_so(box: Box) -> None:
    nowhere = Box(box.state.parent / "nowhere", "nowhere")
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "--port", "0", "jobs_http:app"]
    done = subprocess.run(
        command,
        env={**os.environ, "ATOLL_STATE": str(nowhere.state)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 3
    assert "A401" in done.stderr
