# SPDX-License-Identifier: Apache-2.0
"""Real recorders: killed in the middle, on a full disk, with damaged files, beside another one."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from atoll.base.errors import LimitError, LinkError
from atoll.domain.limits import CODE_BYTES_MAX, REQUESTS_MAX
from atoll.domain.recorder import client as client_module
from atoll.domain.recorder.client import RecorderClient
from atoll.domain.recorder.heads import HeadFiles
from atoll.domain.recorder.launch import Owner, RecorderHandle, launch_recorder
from atoll.domain.recorder.messages import (
    Answer,
    Append,
    Appended,
    Code,
    Content,
    Done,
    Greeting,
    Inbox,
    KeptHead,
    List,
    Listed,
    ReadCode,
    RefusedError,
    Restart,
    Taken,
    decode_answer,
    encode_answer,
    encode_request,
)
from atoll.domain.recorder.process import EXIT_NOT_READY, EXIT_OK, Options
from atoll.env.chain import GENESIS, Block, Sealed, Verifier, link_of
from tests.unit.recorder_world import ENVIRONMENT, NODE, Hand, block_after, node_key, stored, writing

pytestmark = pytest.mark.process

WAIT_S = 20.0
NOISE = b"\0" + bytes(range(200))
OWNER = Owner(NODE, node_key().public_key().public_bytes_raw(), node_key().sign)
OTHER = Hand(8, b"other-node", signer=2)


def run(test: Coroutine[None, None, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S):
            await test

    asyncio.run(bounded())


@asynccontextmanager
async def recorder(state: Path) -> AsyncGenerator[RecorderHandle]:
    handle = await launch_recorder(state, OWNER)
    try:
        yield handle
    finally:
        await handle.stop()


def plain(number: int, body: bytes = b"\0") -> Block:
    return Block(number, 1, number, 1, body)


async def refused(future: "asyncio.Future[Done] | asyncio.Future[Appended]") -> Code:
    with pytest.raises(RefusedError) as caught:
        await future
    return caught.value.code


async def stands_at(client: RecorderClient) -> int:
    (recorded,) = await client.environments()
    assert not recorded.damage
    return recorded.at.number


def test_all_requests_go_through_the_process(tmp_path: Path) -> None:
    async def body() -> None:
        async with recorder(tmp_path) as handle:
            client = handle.client
            greeting = await client.greeting
            assert greeting.recorder == handle.sealer.recorder
            await client.create(ENVIRONMENT, "shop")
            theirs, at = OTHER.seal(GENESIS, block_after(GENESIS))
            assert (await client.keep(ENVIRONMENT, OTHER.sealer, theirs)).number == 1
            own, state = block_after(at, writing(b"state")), stored(b"state")
            appended = await client.append(ENVIRONMENT, own)
            blocks = await client.read(ENVIRONMENT, 1)
            assert blocks.items == (OTHER.sealer, theirs, handle.sealer, Sealed(own, appended.seal))
            verifier = Verifier(ENVIRONMENT, position=GENESIS)
            for item in blocks.items:
                verifier.feed(item)
            await client.keep_snapshot(ENVIRONMENT, 2, state)
            assert (await client.read_snapshot(ENVIRONMENT, 2)).content == state
            await client.promise(ENVIRONMENT, 5, NODE)
            assert await refused(client.promise(ENVIRONMENT, 5, b"other-node")) is Code.EPOCH
            code = b"code"
            await client.keep_code(sha256(code).digest(), code)
            assert await client.read_code(sha256(code).digest()) == code
            kept = KeptHead(ENVIRONMENT, link_of(appended.before, own), appended.seal.signature)
            await client.keep_head(NODE, kept)
            assert HeadFiles(tmp_path / "heads").read(NODE) == (kept,)
            assert (await client.retain(ENVIRONMENT, 3, 1 << 20)).first == 1
            newest = await client.read_snapshot(ENVIRONMENT, 9, upto=True)
            assert (newest.number, newest.content, newest.sealer) == (2, state, handle.sealer)
            await client.cut(ENVIRONMENT, 3)
            taken = Taken(newest.content, handle.sealer, newest.signature)
            await client.restart(Restart(0, ENVIRONMENT, newest.at, (1, 2), taken))
            (recorded,) = await client.environments()
            assert (recorded.at, recorded.first, recorded.floor) == (newest.at, 3, (1, 2))
            assert (recorded.promised_epoch, recorded.promised_to) == (5, NODE)
            await client.forget(ENVIRONMENT)
            assert await client.environments() == ()
            assert client.waiting == 0
        assert await handle.wait() == f"exit status {EXIT_OK}"
        await handle.stop()

    run(body())


class Run:
    """What a recorder acknowledged before it was killed.

    Attributes:
        enough: Set when there is something to lose.
        lost: Set when the connection is.
    """

    def __init__(self, first: int) -> None:
        self.first = self.acknowledged = first
        self.enough, self.lost = asyncio.Event(), asyncio.Event()

    def told(self, answer: Answer | LinkError) -> None:
        if isinstance(answer, Appended):
            self.acknowledged = answer.number
            if answer.number >= self.first + 300:
                self.enough.set()

    def on_lost(self, _: str) -> None:
        self.lost.set()


async def stood_at(state: Path) -> int:
    """Return where the journal stands, which is made when there is none."""
    async with recorder(state) as handle:
        if not await handle.client.environments():
            await handle.client.create(ENVIRONMENT, "shop")
        return await stands_at(handle.client)


def test_what_was_acknowledged_survives_a_kill_in_the_middle(tmp_path: Path) -> None:
    async def body() -> None:
        acknowledged = 0
        for _ in range(3):
            run = Run(await stood_at(tmp_path))
            assert run.first >= acknowledged
            handle = await launch_recorder(tmp_path, OWNER, on_lost=run.on_lost)
            for number in range(run.first + 1, run.first + 3000):
                handle.client.ask(partial(Append, environment=ENVIRONMENT, block=plain(number, NOISE)), run.told)
            await run.enough.wait()
            os.kill(handle.pid, signal.SIGKILL)
            await run.lost.wait()
            assert handle.client.waiting == 0
            assert await handle.wait() == "signal 9"
            with pytest.raises(LinkError):
                handle.client.append(ENVIRONMENT, plain(1))
            acknowledged = run.acknowledged
        async with recorder(tmp_path) as handle:
            last = await stands_at(handle.client)
            assert last >= acknowledged
            verifier = Verifier(ENVIRONMENT, position=GENESIS)
            number = 1
            while number <= last:
                for item in (await handle.client.read(ENVIRONMENT, number, 100_000)).items:
                    verifier.feed(item)
                assert verifier.position is not None
                number = verifier.position.number + 1

    run(body())


def test_files_that_were_tampered_with_are_refused(tmp_path: Path) -> None:
    async def body() -> None:
        async with recorder(tmp_path) as handle:
            await handle.client.create(ENVIRONMENT, "shop")
            for number in (1, 2):
                await handle.client.append(ENVIRONMENT, plain(number, b"\0records"))
        path = tmp_path / "envs" / ENVIRONMENT.hex() / f"{1:08d}.atb"
        content = path.read_bytes()
        path.write_bytes(content.replace(b"records", b"RECORDS", 1))
        async with recorder(tmp_path) as handle:
            (recorded,) = await handle.client.environments()
            assert f"{path}: offset" in recorded.damage
            assert await refused(handle.client.append(ENVIRONMENT, plain(3))) is Code.CORRUPT
        path.write_bytes(content)
        async with recorder(tmp_path) as handle:
            await handle.client.append(ENVIRONMENT, plain(3))

    run(body())


@contextmanager
def small_disk(path: Path) -> Generator[None]:
    """A file system of 1 MiB."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode:
        pytest.skip("it takes root to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_refuses_and_the_next_block_works_when_there_is_room(tmp_path: Path) -> None:
    async def body(state: Path) -> None:
        async with recorder(state) as handle:
            client = handle.client
            await client.create(ENVIRONMENT, "shop")
            await client.append(ENVIRONMENT, plain(1))
            ballast = state / "ballast"
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            large = plain(2, b"\0" + os.urandom(20_000))
            answers = [client.append(ENVIRONMENT, block) for block in (large, plain(3))]
            assert await refused(answers[0]) is Code.FULL
            assert await refused(answers[1]) in {Code.FULL, Code.NUMBER}
            assert await stands_at(client) == 1
            ballast.unlink()
            await client.append(ENVIRONMENT, large)
            assert await stands_at(client) == 2
        async with recorder(state) as handle:
            assert await stands_at(handle.client) == 2

    with small_disk(tmp_path / "disk"):
        run(body(tmp_path / "disk"))


def test_another_process_gets_a_connection_of_its_own(tmp_path: Path) -> None:
    async def body() -> None:
        async with recorder(tmp_path) as handle:
            await handle.client.create(ENVIRONMENT, "shop")
            other = RecorderClient(handle.attach())
            assert (await other.greeting).sealer == handle.sealer
            await other.append(ENVIRONMENT, plain(1))
            assert await stands_at(handle.client) == 1
            with pytest.raises(LinkError, match="is lost"):
                await other.certify(NODE, OWNER.signing_key, bytes(64))
            with pytest.raises(LinkError):
                await other.environments()
            assert await stands_at(handle.client) == 1
            appended = [handle.client.append(ENVIRONMENT, plain(number)) for number in (2, 3)]
            with pytest.raises(LinkError, match="not take"):
                handle.attach()
            await asyncio.gather(*appended)
        with pytest.raises(LinkError, match="not take"):
            handle.attach()

    run(body())


def test_answers_that_are_not_taken_wait_and_are_not_lost(tmp_path: Path) -> None:
    async def body() -> None:
        code = os.urandom(CODE_BYTES_MAX)
        digest = sha256(code).digest()
        async with recorder(tmp_path) as handle:
            await handle.client.keep_code(digest, code)
            end = handle.attach()
            end.setblocking(True)
            end.sendall(b"".join(encode_request(ReadCode(number, digest)) for number in range(6)))
            await handle.client.environments()  # Others are served meanwhile.
            answers = await asyncio.to_thread(received, end, 7)
        assert [answer.id for answer in answers if isinstance(answer, Content)] == list(range(6))

    run(body())


def test_a_server_that_is_started_again_waits_until_the_one_before_it_is_gone(tmp_path: Path) -> None:
    async def body() -> None:
        async with recorder(tmp_path) as handle:
            await handle.client.create(ENVIRONMENT, "shop")
            elder = handle.attach()
            elder.setblocking(True)
            younger = RecorderClient(handle.attach())
            listed = asyncio.ensure_future(younger.environments())
            for number in (1, 2):
                elder.sendall(encode_request(Append(number, ENVIRONMENT, plain(number))))
                await handle.client.environments()  # Control is served meanwhile.
            assert not listed.done()
            elder.sendall(encode_request(Append(3, ENVIRONMENT, plain(3))))
            elder.close()
            async with asyncio.timeout(WAIT_S):
                (recorded,) = await listed
            assert recorded.at.number == 3
            younger.close()

    run(body())


def received(end: socket.socket, count: int) -> list[Answer]:
    inbox, answers = Inbox(), list[Answer]()
    with end:
        while len(answers) < count:
            inbox.add(end.recv(1 << 20))
            while (content := inbox.take()) is not None:
                answers.append(decode_answer(content))
    return answers


def test_a_recorder_tells_how_far_its_start_is(tmp_path: Path) -> None:
    async def body() -> None:
        async with recorder(tmp_path) as handle:
            assert handle.client.checked == 0
            for number in range(3):
                await handle.client.create(bytes([number]) * 16, "shop")
            await handle.stop()
        async with recorder(tmp_path) as again:
            assert again.client.checked == 3

    run(body())


def test_a_second_recorder_does_not_start(tmp_path: Path) -> None:
    async def body() -> None:
        async with recorder(tmp_path) as handle:
            with pytest.raises(LinkError, match=r"did not start: .*A103"):
                await launch_recorder(tmp_path, OWNER)
            await handle.client.create(ENVIRONMENT, "shop")

    run(body())


def test_one_that_cannot_start_says_why(tmp_path: Path) -> None:
    async def body() -> None:
        (tmp_path / "recorder.key").write_bytes(b"short")
        (tmp_path / "recorder.key").chmod(0o600)
        with pytest.raises(LinkError, match="does not hold a key"):
            await launch_recorder(tmp_path, OWNER)
        (tmp_path / "recorder.key").unlink()
        false = Owner(NODE, OWNER.signing_key, lambda _: bytes(64))
        with pytest.raises(LinkError, match="signature: a certificate"):
            await launch_recorder(tmp_path, false)

    run(body())


def test_options_that_are_none_end_it(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "atoll.domain.recorder", str(theirs.fileno())],
            input=b"nonsense\n",
            pass_fds=(theirs.fileno(),),
            check=False,
            timeout=WAIT_S,
        )
    assert ended.returncode == EXIT_NOT_READY
    assert msgspec.json.decode(b'{"state":"x"}', type=Options) == Options("x")


# The client, against an end that is ours.


@asynccontextmanager
async def link(on_lost: Callable[[str], None] | None = None) -> AsyncGenerator[tuple[RecorderClient, socket.socket]]:
    ours, theirs = socket.socketpair()
    client = RecorderClient(ours, on_lost)
    theirs.setblocking(False)
    with theirs:
        yield client, theirs
    client.close()
    client.close()


GREETING = encode_answer(Greeting(b"k" * 32, "0.1.0"))


async def lost(answers: bytes) -> str:
    """Return why a client gives a connection up that says this."""
    reasons: list[str] = []
    async with link(reasons.append) as (client, end):
        future = client.request(List, Listed)
        end.sendall(answers)
        with pytest.raises(LinkError):
            await future
        (reason,) = reasons
        with pytest.raises(LinkError):
            await client.environments()
    return reason


def test_a_recorder_that_talks_nonsense_is_given_up() -> None:
    async def body() -> None:
        assert "does not decode" in await lost(b"\1\0\0\0\xc1")
        assert "too long" in await lost(b"\xff\xff\xff\xff")
        assert "who it is" in await lost(encode_answer(Done(1)))
        assert "no request" in await lost(GREETING + encode_answer(Done(7)))

    run(body())


def test_an_answer_to_something_else_is_an_error_of_that_request() -> None:
    async def body() -> None:
        async with link() as (client, end):
            end.sendall(GREETING + GREETING + encode_answer(Done(1)))
            with pytest.raises(LinkError, match="something else"):
                await client.request(List, Listed)
            assert client.waiting == 0

    run(body())


def test_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "REQUESTS_BYTES_MAX", 3_000_000)
    monkeypatch.setattr(client_module, "CONNECTION_BYTES", 10_000)

    async def body() -> None:
        async with link() as (client, _):
            futures = [client.request(List, Listed) for _ in range(REQUESTS_MAX)]
            with pytest.raises(LimitError, match="REQUESTS_MAX"):
                client.request(List, Listed)
            client.close()
            for future in futures:
                with pytest.raises(LinkError):
                    await future
        async with link() as (client, end):
            large = plain(1, bytes(1_000_000))
            appended = [client.append(ENVIRONMENT, large) for _ in range(4)]
            with pytest.raises(LimitError, match="REQUESTS_BYTES_MAX"):
                client.append(ENVIRONMENT, large)
            with pytest.raises(LinkError):
                client.attach()
            await asyncio.sleep(0)  # They go out in part, and the rest when there is room.
            with pytest.raises(LinkError):
                client.attach()
            taken = 0
            while taken < 3_000_000:
                with suppress(BlockingIOError):
                    taken += len(end.recv(1 << 20))
                await asyncio.sleep(0)
            appended[0].cancel()
            end.sendall(GREETING + encode_answer(Done(1)) + encode_answer(Done(2)))
            with pytest.raises(LinkError, match="something else"):
                await appended[1]
            end.close()
            with pytest.raises(LinkError):
                await asyncio.gather(*appended[2:])

    run(body())
