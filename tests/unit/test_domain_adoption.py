# SPDX-License-Identifier: Apache-2.0
"""A server that starts with many journals hears, answers and runs what it has taken up while it reads the others."""

import asyncio
from functools import partial
from pathlib import Path
from typing import cast

import msgspec
import pytest

from atoll.base.errors import LinkError, UserError
from atoll.base.ids import NodeId
from atoll.domain import adoption as adoption_module
from atoll.domain.frames import FrameConnection
from atoll.domain.messages import Alive, Command, FromNode, Members, MemberSeen, Outcome, control_codec, server_codec
from atoll.domain.server import Server, now
from atoll.domain.shelves import journals_of
from atoll.env.beginning import Wanted
from atoll.env.facts import Suspect
from atoll.env.hosted import Hosted
from atoll.env.messages import Asked, Notices, encode_message
from tests.unit.steward_world import CODE, PROGRAM, encode, notice
from tests.unit.test_domain_server import Around

TWO = NodeId(b"two".ljust(10, b"."))
NAMES = ("one", "two", "three")
TURNS_MAX = 100


class Line:
    """Control's end of a connection: what it was told."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def send(self, frame: bytes) -> None:
        self.frames.append(frame)

    def outcomes(self) -> list[Outcome]:
        said = [server_codec.decode(frame) for frame in self.frames]
        return [one for one in said if isinstance(one, Outcome)]

    def say(self, server: Server, message: Command | FromNode | Members) -> None:
        server.from_control(cast("FrameConnection", self), control_codec.encode(message))


def is_all_committed(hosted: Hosted) -> bool:
    return hosted.is_open and hosted.holding.committed == hosted.holding.last


def has_taken_up(server: Server, count: int) -> bool:
    return server.adoption.is_listed and len(server.steward.hosted) == count


async def begin(state: Path) -> None:
    """Have journals of some environments, the first one longest, and end."""
    around = Around(state, 0)
    steward = around.server.steward
    for at, name in enumerate(NAMES):
        hosted = steward.hosted[steward.create(Wanted(name, CODE, encode({}), 1), PROGRAM, now())]
        around.server.stir()
        await around.until(partial(is_all_committed, hosted))
        for _ in range(len(NAMES) - at):
            steward.checkpoint(hosted.facts.id, now())
            around.server.stir()
            await around.until(partial(is_all_committed, hosted))
    await around.until(lambda: not around.server.recorder.waiting)
    for snapshot in state.glob("envs/*/snapshots/*"):
        snapshot.unlink()
    await around.stop()


def test_commands_are_answered_while_it_starts_and_what_is_taken_up_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption_module, "STARTING_S_MAX", 0.0)

    async def body() -> None:
        await begin(tmp_path)
        around, line = Around(tmp_path, 0), Line()
        server, adoption = around.server, around.server.adoption
        command = Command(1, "list", b"{}")

        async def asked() -> Outcome:
            line.frames.clear()
            line.say(server, command)
            for _ in range(TURNS_MAX):  # In which the recorder does nothing, so that it gets no further meanwhile.
                await asyncio.sleep(0)
                if line.outcomes():
                    break
            return line.outcomes()[0]

        starting = asyncio.ensure_future(server.start(tmp_path / "door"))
        outcome = await asked()
        assert (outcome.code, outcome.where) == ("A611", "the recorder has not answered yet")
        assert "still being taken up" in outcome.sentence
        assert not (tmp_path / "door").exists(), "nobody could be told anything"
        for taken in range(len(NAMES)):
            await around.until(partial(has_taken_up, server, taken))
            outcome = await asked()
            assert (outcome.code, outcome.where) == ("A611", f"{taken} of 3 so far")
            assert "try again" in outcome.fix
            names = [hosted.facts.name for hosted in server.steward.hosted.values()]
            assert names == ["three", "two", "one"][:taken], "the shortest first"
            assert (tmp_path / "door").exists()
            for name in NAMES:
                assert server.steward.named(name), "clients find all of them"
        await around.until(starting.done)
        await starting
        assert adoption.is_done
        assert (await asked()).ok
        await around.stop()

    asyncio.run(body())


def test_what_is_not_taken_up_is_let_go_of_buried_or_barred(tmp_path: Path) -> None:
    async def body() -> None:
        await begin(tmp_path)
        found = {journal.name: journal for journal in journals_of(tmp_path)}
        (segment,) = found["one"].directory.glob("*.atb")
        segment.write_bytes(segment.read_bytes()[:-3] + b"odd")
        (found["two"].directory / "snapshots").mkdir(exist_ok=True)
        (found["two"].directory / "snapshots" / "1.ats").write_bytes(b"odd")
        around = Around(tmp_path, 0)
        server, ended, blank = around.server, b"e" * 16, b"b" * 16
        for identity in (ended, blank):
            created = server.recorder.create(identity, "brief")
            await around.until(created.done)
        forgotten = server.recorder.forget(ended)
        victim = found["three"].id, b"p" * 16, 7, 1
        starting = asyncio.ensure_future(server.start(tmp_path / "door", victim))
        await around.until(lambda: starting.done() and forgotten.done())
        await starting
        (hosted,) = server.steward.hosted.values()
        assert (hosted.facts.name, hosted.filling.suspect) == ("three", Suspect(b"p" * 16, 7, 1))
        barred = {one.name: one.why for one in server.steward.graves.all_barred()}
        assert sorted(barred) == ["one", "two"]
        assert "snapshot without a header" in barred["two"]
        assert server.steward.graves.is_buried(ended)
        await around.until(lambda: not server.recorder.waiting)
        assert not (tmp_path / "envs" / blank.hex()).exists()
        await around.stop()

    asyncio.run(body())


def test_a_command_waits_for_a_start_that_takes_only_a_moment(tmp_path: Path) -> None:
    async def body() -> None:
        await begin(tmp_path)
        around, line = Around(tmp_path, 0), Line()
        line.say(around.server, Command(1, "list", b"{}"))
        starting = asyncio.ensure_future(around.server.start(tmp_path / "door"))
        await around.until(lambda: bool(line.outcomes()))
        assert line.outcomes()[0].ok
        await starting
        await around.stop()

    asyncio.run(body())


def test_it_says_that_it_turns_before_it_has_begun_to_read(tmp_path: Path) -> None:
    async def body() -> None:
        around, line = Around(tmp_path, 0), Line()
        around.server.controlled(cast("FrameConnection", line))
        around.server.spawn(around.server.beat())
        await asyncio.sleep(0)
        assert [server_codec.decode(frame) for frame in line.frames] == [Alive()]
        await around.stop()

    asyncio.run(body())


def test_what_other_nodes_say_counts_when_it_is_known_what_is_here_and_commands_when_all_is_there(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        await begin(tmp_path)
        around, line = Around(tmp_path, 0), Line()
        server = around.server
        line.say(server, Members((MemberSeen(TWO, "two", b"k" * 32),)))
        told = notice(owner=TWO)

        def hear() -> bool:
            line.say(server, FromNode(TWO, encode_message(Notices((told,)))))
            line.say(server, FromNode(TWO, encode_message(Asked(7, "show", msgspec.json.encode({"name": "one"})))))
            return server.steward.directory.find(told.id) is not None

        doing = server._errands._doing  # pyright: ignore[reportPrivateUsage]
        assert (hear(), bool(doing)) == (False, False)
        starting = asyncio.ensure_future(server.start(tmp_path / "door"))
        await around.until(lambda: server.adoption.is_listed)
        assert (hear(), bool(doing)) == (True, False)
        await around.until(starting.done)
        await starting
        assert (hear(), list(doing)) == (True, [TWO])
        await around.stop()

    asyncio.run(body())


def test_a_recorder_that_is_lost_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption_module, "STARTING_S_MAX", 0.0)

    async def body() -> None:
        await begin(tmp_path)
        around = Around(tmp_path, 0)
        starting = asyncio.ensure_future(around.server.start(tmp_path / "door"))
        await around.until(lambda: around.server.adoption.is_listed)
        around.server.recorder.close()
        with pytest.raises(UserError, match="A611"):
            await around.server.adoption.wait()
        assert isinstance((await asyncio.gather(starting, return_exceptions=True))[0], LinkError)
        assert not around.server.steward.graves.all_barred(), "no journal is to blame"
        await around.stop()

    asyncio.run(body())
