# SPDX-License-Identifier: Apache-2.0
"""The loop, with real sockets and files but in this process: what was asked before control left is answered."""

import socket
from collections.abc import Generator
from hashlib import sha256
from pathlib import Path

import pytest

from atoll.base.version import __version__
from atoll.domain.limits import CONNECTIONS_MAX, RECEIVE_BYTES
from atoll.domain.recorder import process as process_module
from atoll.domain.recorder.messages import (
    Answer,
    Append,
    Appended,
    Certify,
    Create,
    Done,
    Greeting,
    Inbox,
    List,
    Listed,
    ReadCode,
    Request,
    Starting,
    decode_answer,
    encode_request,
)
from atoll.domain.recorder.process import RecorderProcess
from atoll.domain.recorder.store import Store
from atoll.env.chain import Block, certificate_payload
from tests.unit.recorder_world import ENVIRONMENT, NODE, key_in, node_key


class World:
    """A recorder's loop that runs until control, which is us, has nothing more to say."""

    def __init__(self, state: Path) -> None:
        self.state, self.has_run = state, False
        self.key = key_in(state)
        self.control, theirs = socket.socketpair()
        self.process = RecorderProcess(theirs, Store(state, self.key), self.key)

    def attach(self, *ends: socket.socket) -> None:
        socket.send_fds(self.control, [encode_request(List(99))], [end.fileno() for end in ends])

    def run(self) -> list[Answer]:
        self.has_run = True
        self.control.shutdown(socket.SHUT_WR)
        self.process.run()
        return answers_of(self.control)


def answers_of(end: socket.socket) -> list[Answer]:
    """All that was said, up to the end."""
    inbox, answers = Inbox(), list[Answer]()
    with end:
        end.settimeout(5)
        try:
            while data := end.recv(1 << 16):
                inbox.add(data)
        except ConnectionResetError:  # It ended with something of ours unread.
            pass
    while (content := inbox.take()) is not None:
        answers.append(decode_answer(content))
    return answers


def answers_now(end: socket.socket) -> list[Answer]:
    """What was said up to now."""
    inbox, answers = Inbox(), list[Answer]()
    inbox.add(end.recv(1 << 20))
    while (content := inbox.take()) is not None:
        answers.append(decode_answer(content))
    return answers


def say(end: socket.socket, *requests: Request) -> None:
    end.sendall(b"".join(map(encode_request, requests)))


def plain(number: int) -> Append:
    return Append(number, ENVIRONMENT, Block(number, 1, number, 1, b"\0"))


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    world = World(tmp_path)
    yield world
    if not world.has_run:
        world.run()


def test_it_greets_and_answers_and_ends_with_control(world: World) -> None:
    say(world.control, Create(1, ENVIRONMENT, "shop"), plain(1), plain(2), List(3))
    greeting, *answers = world.run()
    assert greeting == Greeting(world.key.public, __version__, world.key.sealer)
    assert [type(answer) for answer in answers] == [Done, Appended, Appended, Listed]


def test_a_request_longer_than_is_read_at_once_is_served(world: World) -> None:
    say(world.control, Create(1, ENVIRONMENT, "shop"))
    block = Block(1, 1, 1, 1, b"\0" + bytes(3 * RECEIVE_BYTES))
    message = memoryview(encode_request(Append(2, ENVIRONMENT, block)))
    world.control.settimeout(0)
    while message:
        try:
            message = message[world.control.send(message) :]
        except BlockingIOError:
            assert world.process.turn(0)
    assert [type(answer) for answer in world.run()] == [Greeting, Done, Appended]


LIST_BYTES = len(encode_request(List(1)))
CODE = bytes(100_000)
DIGEST = sha256(CODE).digest()


@pytest.fixture
def narrow(world: World, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """Our end of a connection that takes little at a time, to a recorder that has some code."""
    monkeypatch.setattr(process_module, "ANSWERS_BYTES_MAX", 250_000)
    monkeypatch.setattr(process_module, "CONNECTION_BYTES", 10_000)
    (world.state / "code" / f"{DIGEST.hex()}.atc").write_bytes(CODE)
    ours, theirs = socket.socketpair()
    world.attach(theirs)
    theirs.close()
    assert world.process.turn(0)
    ours.settimeout(0)
    return ours


def test_a_connection_that_leaves_its_answers_is_not_read_until_it_takes_them(
    world: World, narrow: socket.socket
) -> None:
    say(narrow, *(ReadCode(number, DIGEST) for number in range(5)))
    assert world.process.turn(0)
    say(narrow, List(5))  # It is full by now, so this one waits.
    say(world.control, List(6))
    assert world.process.turn(0)
    inbox, ids = Inbox(), list[int]()
    while len(ids) < 6:
        try:
            inbox.add(narrow.recv(1 << 20))
        except BlockingIOError:
            assert world.process.turn(0)
        while (content := inbox.take()) is not None:
            answer = decode_answer(content)
            if not isinstance(answer, Starting | Greeting):
                ids.append(answer.id)
    assert ids == list(range(6))
    narrow.close()
    assert [type(answer) for answer in world.run()] == [Greeting, Listed, Listed]


def test_one_that_leaves_with_its_answers_untaken_is_dropped(world: World, narrow: socket.socket) -> None:
    say(narrow, *(ReadCode(number, DIGEST) for number in range(5)))
    assert world.process.turn(0)
    narrow.close()
    assert world.process.turn(0)
    assert [type(answer) for answer in world.run()] == [Greeting, Listed]


def test_one_that_leaves_without_reading_its_greeting_is_dropped(world: World) -> None:
    ours, theirs = socket.socketpair()
    world.attach(theirs)
    theirs.close()
    assert world.process.turn(0)
    ours.close()  # With something unread, which resets the connection.
    assert world.process.turn(0)
    assert [type(answer) for answer in world.run()] == [Greeting, Listed]


def test_what_is_read_at_once_is_bounded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "RECEIVE_BYTES", 10)
    monkeypatch.setattr(process_module, "TURN_BYTES_MAX", 25)
    world: World = request.getfixturevalue("world")
    say(world.control, *(List(number) for number in range(20)))
    assert world.process.turn(0)
    assert [type(answer) for answer in answers_now(world.control)] == [Greeting] + [Listed] * (30 // LIST_BYTES)


def test_what_fills_a_read_exactly_is_all_there_is(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "RECEIVE_BYTES", LIST_BYTES)
    world: World = request.getfixturevalue("world")
    say(world.control, List(1))
    assert world.process.turn(0)
    assert [type(answer) for answer in world.run()] == [Greeting, Listed]


def test_connections_that_control_brings_are_served(world: World) -> None:
    say(world.control, Create(1, ENVIRONMENT, "shop"))
    ours, theirs = socket.socketpair()
    say(ours, plain(1), List(2))
    world.attach(theirs)
    theirs.close()
    assert [type(answer) for answer in world.run()] == [Greeting, Done, Listed]
    assert [type(answer) for answer in answers_of(ours)] == [Greeting, Appended, Listed]


def test_what_is_no_request_ends_its_connection_and_no_other(world: World) -> None:
    pairs = [socket.socketpair() for _ in range(4)]
    (bad, _), (long, _), (false, _), (good, _) = pairs
    bad.sendall(b"\1\0\0\0\xc1" + encode_request(List(1)))
    long.sendall(b"\xff\xff\xff\xff")
    certificate = node_key().sign(certificate_payload(NODE, world.key.public))
    say(false, Certify(1, NODE, node_key().public_key().public_bytes_raw(), certificate), List(2))
    say(good, List(3))
    world.attach(*(theirs for _, theirs in pairs))
    for _, theirs in pairs:
        theirs.close()
    assert [type(answer) for answer in world.run()] == [Greeting, Listed]
    for ours in (bad, long, false):
        assert [type(answer) for answer in answers_of(ours)] == [Greeting]
    assert [type(answer) for answer in answers_of(good)] == [Greeting, Listed]


def test_what_is_no_connection_is_closed(world: World, tmp_path: Path) -> None:
    datagrams, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    (tmp_path / "file").touch()
    with (tmp_path / "file").open() as file, datagrams, other:
        socket.send_fds(world.control, [encode_request(List(1))], [datagrams.fileno(), file.fileno()])
        assert [type(answer) for answer in world.run()] == [Greeting, Listed]


def test_connections_are_bounded(world: World) -> None:
    pairs = [socket.socketpair() for _ in range(CONNECTIONS_MAX)]
    for ours, theirs in pairs:
        say(ours, List(1))
        world.attach(theirs)
        theirs.close()
    world.run()
    answered = [bool(answers_of(ours)) for ours, _ in pairs]
    assert answered == [True] * (CONNECTIONS_MAX - 1) + [False]


def test_one_that_left_before_its_answer_harms_nobody(world: World) -> None:
    ours, theirs = socket.socketpair()
    say(ours, List(1))
    ours.close()
    world.attach(theirs)
    theirs.close()
    assert [type(answer) for answer in world.run()] == [Greeting, Listed]
