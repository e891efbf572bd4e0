# SPDX-License-Identifier: Apache-2.0
"""Verbs check their parameters, who asks, and where an environment runs; what cannot be done says its code."""

import asyncio
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from atoll.base.errors import CorruptError, LinkError, UserError
from atoll.domain import commands as commands_module
from atoll.domain.commands import NAMED_VERBS, VERBS
from atoll.domain.limits import LOG_LINES_MAX
from atoll.domain.recorder.messages import Code, RefusedError
from atoll.domain.views import ENVIRONMENTS_SCHEMA
from atoll.env.beginning import Wanted
from atoll.env.limits import NAMED_AT_ONCE_NS, NESTING_MAX
from atoll.env.messages import Notice, Notices
from atoll.env.orders import Told
from tests.unit.commands_world import SOURCE, TWO, Around, code, run
from tests.unit.steward_world import ANN, Add, Elsewhere, Hang, Place, node_id


def test_what_is_run_is_listed_shown_and_stopped(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        begun = await around.run(arguments={"n": 3})
        assert begun["node"] == "one"
        assert begun["app"] == "Shop"
        assert begun["code"] == sha256(code()).hexdigest()
        (listed,) = (await around.do("list"))["environments"]
        assert (listed["name"], listed["id"], listed["holders"]) == ("shop", begun["id"], ["one"])
        shown = await around.do("show", name="shop")
        assert shown["state"]["n"] == 3
        assert (shown["failures"], shown["epoch"]) == (0, 1)
        assert (await around.do("checkpoint", name="shop"))["name"] == "shop"
        stopped = await around.do("stop", name="shop")
        assert stopped["name"] == "shop"
        assert {shown["schema"], stopped["schema"], begun["schema"]} == {ENVIRONMENTS_SCHEMA}
        assert "schema" not in listed
        assert not (await around.do("list"))["environments"]
        assert (await around.refused("show", name="shop")).code == "A609"

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("verb", "params"),
    [
        ("dance", {}),
        ("list", {"more": 1}),
        ("show", {}),
        ("show", {"name": 7}),
        ("stop", {"name": "shop", "more": 1}),
        ("run", {"name": "shop"}),
        ("run", {"name": "No Name", "bundle": b""}),
        ("run", {"name": "x" * 65, "bundle": b""}),
        ("run", {"name": "shop", "bundle": b"", "copies": 0}),
        ("run", {"name": "shop", "bundle": b"", "level": "moon"}),
        ("run", {"name": "other", "bundle": code(), "arguments": {"n": 1 << 70}}),
        ("move", {"name": "shop"}),
        ("upgrade", {"name": "shop"}),
    ],
)
def test_parameters_that_make_no_sense_are_refused(tmp_path: Path, verb: str, params: dict[str, Any]) -> None:
    async def body(around: Around) -> None:
        await around.run()
        assert (await around.refused(verb, **params)).code == "A501"

    run(tmp_path, body)


@pytest.mark.parametrize("name", ["Big Name", "", "-a", "a.", "a\n", "ä", "x" * 65])
def test_a_name_that_cannot_be_one_is_answered_with_the_characters_of_names(tmp_path: Path, name: str) -> None:
    async def body(around: Around) -> None:
        await around.run("x-1_a.b")
        for error in (
            await around.refused("run", name=name, bundle=code()),
            await around.refused("copy", name="x-1_a.b", copy=name),
        ):
            assert (error.code, error.sentence) == ("A501", f"{name!r} is no name of an environment")
            assert error.where == "a-z and 0-9, between them also . _ and -; at most 64 characters"

    run(tmp_path, body)


def test_bytes_that_are_no_json_are_refused_and_none_are_no_parameters(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        for wrong in (b"noise", b"\xff", b"[" * 100_000):
            with pytest.raises(UserError) as caught:
                await around.commands.obey("list", wrong)
            assert caught.value.code == "A501"
        assert json.loads(await around.commands.obey("list", b""))["environments"] == []

    run(tmp_path, body)


def test_what_cannot_begin_leaves_nothing_behind(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        failing = (
            SOURCE + "\n    @atoll.on(atoll.Started)\n    def begin(self, _, ctx):\n        raise ValueError('no')\n"
        )
        assert (await around.refused("run", name="shop", bundle=b"noise")).code == "A603"
        assert (await around.refused("run", name="shop", bundle=code("import nothing_such"))).code == "A603"
        assert (await around.refused("run", name="shop", bundle=code("x = 1"))).code == "A604"
        assert (await around.refused("run", name="shop", bundle=code(failing))).code == "A602"
        assert (await around.refused("run", name="shop", bundle=code(), arguments={"n": "text"})).code == "A602"
        assert not around.steward.hosted
        await around.run()
        assert (await around.refused("run", name="shop", bundle=code())).code == "A606"

    run(tmp_path, body)


@pytest.mark.parametrize("level", ["inline", "process"])
def test_a_field_that_is_not_there_or_of_another_type_is_named(tmp_path: Path, level: str) -> None:
    async def body(around: Around) -> None:
        unknown = await around.refused("run", name="shop", bundle=code(), arguments={"m": 1}, level=level)
        assert (unknown.code, unknown.where) == ("A602", "its fields: n, odd, cells")
        assert "it has no field m" in unknown.sentence
        wrong = await around.refused("run", name="shop", bundle=code(), arguments={"n": "abc"}, level=level)
        assert (wrong.code, wrong.fix) == ("A602", "mend its Started handler, or the fields")
        assert wrong.where.endswith("its field n is int, and 'abc' came")
        assert not around.steward.hosted
        assert (await around.run(arguments={"n": 3}, level=level))["name"] == "shop"

    run(tmp_path, body)


def test_a_field_that_nests_too_deep_is_refused(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        nested: Any = None
        for _ in range(NESTING_MAX):
            nested = [nested]
        refused = await around.refused("run", name="shop", bundle=code(), arguments={"n": nested})
        assert (refused.code, refused.fix) == ("A501", "give what is deep as text, or flat")
        assert f"deeper than {NESTING_MAX} (NESTING_MAX)" in refused.sentence
        assert not around.steward.hosted

    run(tmp_path, body)


def test_a_place_that_cannot_make_it_is_let_go_of(tmp_path: Path) -> None:
    class Nowhere(Elsewhere):
        def blank(self) -> Any:
            raise CorruptError("nothing can be made here")

    async def body(around: Around) -> None:
        place, content = Nowhere(), code()
        wanted = Wanted("shop", sha256(content).digest(), b"\x80")
        work = asyncio.ensure_future(
            around.commands._run_in(place, wanted, content)  # pyright: ignore[reportPrivateUsage]
        )
        while not work.done():
            around.process.turn(0)
            await asyncio.sleep(0)
        with pytest.raises(UserError, match="A602"):
            work.result()
        assert place.is_closed

    run(tmp_path, body)


def test_code_that_cannot_be_kept_is_an_error_of_the_recorder(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        await around.run()
        around.recorder.close()
        for verb in ("run", "upgrade"):
            with pytest.raises(LinkError):
                await around.do(verb, name="other" if verb == "run" else "shop", bundle=code())
        assert len(around.steward.hosted) == 1

    run(tmp_path, body)


def test_one_that_does_not_become_durable_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(around: Around) -> None:
        monkeypatch.setattr(commands_module, "DURABLE_S_MAX", 0.01)
        around.place.is_full = True
        assert (await around.refused("run", name="shop", bundle=code(), copies=1)).code == "A611"
        assert not around.steward.hosted
        around.is_slow = True  # Not even its first record is applied.
        assert (await around.refused("run", name="store", bundle=code(), copies=1)).code == "A611"

    run(tmp_path, body)


def test_one_whose_journal_the_disk_refuses_is_given_up_at_once_with_the_reason(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        around.place.is_full = True
        begun = asyncio.ensure_future(around.run())
        while not around.steward.hosted:  # noqa: ASYNC110 - nothing tells of it.
            await asyncio.sleep(0)
        (identity,) = around.steward.hosted
        while not begun.done():
            around.commands.refused(identity, RefusedError(Code.FULL, "no room"))
            await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="no room"):
            begun.result()
        assert not around.steward.hosted
        around.commands.refused(identity, RefusedError(Code.FULL, "no room"))  # Nobody waits for it.

    run(tmp_path, body)


def test_other_code_is_run_if_the_state_fits(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        await around.run(arguments={"n": 3})
        following = code(SOURCE + "    m: int = 5\n")
        assert (await around.do("upgrade", name="shop", bundle=following))["code"] == sha256(following).hexdigest()
        assert (await around.do("show", name="shop"))["state"]["m"] == 5
        for bundle, expected in (
            (code(SOURCE.replace("n: int = 0", "n: str = ''")), "A607"),
            (b"noise", "A603"),
            (code("x = 1"), "A604"),
        ):
            assert (await around.refused("upgrade", name="shop", bundle=bundle)).code == expected
        assert (await around.do("show", name="shop"))["code"] == sha256(following).hexdigest()

    run(tmp_path, body)


def test_an_upgrade_is_said_when_it_cannot_be_lost(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        identity = bytes.fromhex((await around.run())["id"])
        following = code(SOURCE + "    m: int = 5\n")
        await around.do("upgrade", name="shop", bundle=following)
        assert around.spread == [(sha256(following).digest(), [], 0)]
        around.is_spread = False
        assert (await around.refused("upgrade", name="shop", bundle=code())).code == "A611"
        around.place.is_slow = True  # The recorder does not answer.
        upgrade = asyncio.ensure_future(around.do("upgrade", name="shop", bundle=following))
        while not around.place.waiting:  # noqa: ASYNC110 - nothing tells of it.
            await asyncio.sleep(0)
        around.steward.hosted[identity].runner = None
        with pytest.raises(UserError, match="perhaps not recorded"):
            await upgrade

    run(tmp_path, body)


def test_an_upgrade_after_which_it_cannot_go_on_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(around: Around) -> None:
        hosted = around.steward.hosted[bytes.fromhex((await around.run())["id"])]
        monkeypatch.setattr(around, "stir", lambda: setattr(hosted, "runner", None))
        refused = await around.refused("upgrade", name="shop", bundle=code())
        assert (refused.code, refused.sentence) == ("A611", "shop was perhaps not recorded")

    run(tmp_path, body)


def test_an_upgrade_names_the_fields_that_it_drops(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        identity = bytes.fromhex((await around.run())["id"])
        other = code(SOURCE.replace("cells: dict[tuple[int, int], str] = {}", "m: int = 0"))
        assert (await around.do("upgrade", name="shop", bundle=other))["gone"] == ["cells"]
        assert "gone" not in await around.do("upgrade", name="shop", bundle=other)
        around.place.attach(ANN)
        around.place.send(identity, 1, Add(13))
        assert (await around.refused("upgrade", name="shop", bundle=code())).code == "A607"

    run(tmp_path, body)


def test_an_upgrade_that_is_not_recorded_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(around: Around) -> None:
        await around.run()
        monkeypatch.setattr(commands_module, "DURABLE_S_MAX", 0.01)
        around.place.is_slow = True
        refused = await around.refused("upgrade", name="shop", bundle=code(SOURCE + "    m: int = 5\n"))
        assert (refused.code, refused.sentence) == ("A611", "shop could not be recorded yet")
        assert not around.spread

    run(tmp_path, body)


def test_a_checkpoint_is_said_when_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(around: Around) -> None:
        await around.run()
        around.refused_snapshot = RefusedError(Code.FULL, "no room")
        with pytest.raises(RefusedError, match="no room"):
            await around.do("checkpoint", name="shop")
        monkeypatch.setattr(commands_module, "DURABLE_S_MAX", 0.01)
        around.is_storing = False
        refused = await around.refused("checkpoint", name="shop")
        assert (refused.code, refused.sentence) == ("A611", "the state of shop is not written yet")
        around.commands.stored(b"x" * 16, 99)  # Nobody waits for it.

    run(tmp_path, body)


def test_what_is_no_data_can_neither_be_shown_nor_checkpointed(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        identity = bytes.fromhex((await around.run())["id"])
        around.place.attach(ANN)
        around.place.send(identity, 1, Add(13))
        assert (await around.refused("show", name="shop")).code == "A607"
        assert (await around.refused("checkpoint", name="shop")).code == "A607"

    run(tmp_path, body)


def test_a_state_is_shown_whatever_its_keys_are_and_however_long_it_is(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        identity = bytes.fromhex((await around.run())["id"])
        around.place.attach(ANN)
        around.place.send(identity, 1, Add(17))
        seen = await around.do("show", name="shop")
        assert seen["state"]["cells"] == {"[1, 2]": "here"}
        assert "is_cut" not in seen
        around.place.send(identity, 2, Add(19))
        seen = await around.do("show", name="shop")
        assert seen["state"]["odd"] == f"(cut: {(2 << 20) + 2} bytes)"
        assert (seen["state"]["n"], seen["is_cut"]) == (36, True)

    run(tmp_path, body)


def test_a_move_is_answered_when_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(around: Around) -> None:
        await around.run()
        assert (await around.do("move", name="shop", node="one"))["node"] == "one"
        unknown = await around.refused("move", name="shop", node="three")
        assert (unknown.code, unknown.where) == ("A210", "other members: two")
        moving = asyncio.ensure_future(around.do("move", name="shop", node="two"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (await around.refused("move", name="shop", node="two")).where == "another move is under way"
        around.commands.told(Told(99, None))
        around.commands.told(Told(1, "it does not answer"))
        with pytest.raises(UserError) as caught:
            await moving
        assert caught.value.code == "A608"
        around.commands.told(Told(1, None))
        monkeypatch.setattr(commands_module, "COMMAND_S_MAX", 0.01)
        around.is_slow = True
        assert (await around.refused("move", name="shop", node="two")).code == "A406"
        around.commands.told(Told(3, None))

    run(tmp_path, body)


def test_a_move_that_went_well_shows_where_it_runs(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        await around.run()
        moving = asyncio.ensure_future(around.do("move", name="shop", node="two"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        around.commands.told(Told(1, None))
        assert (await moving)["name"] == "shop"
        around.members.clear()
        assert (await around.refused("move", name="shop", node="two")).where == "other members: none yet"

    run(tmp_path, body)


def test_what_runs_elsewhere_is_asked_there(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        around.elsewhere()
        assert await around.do("stop", name="store") == {"there": 1}
        assert around.asked == [(TWO, "stop", b'{"name":"store"}')]
        around.answer = UserError("A612", "it may not")
        assert (await around.do("show", name="store"))["node"] == "two", "what everybody may know"
        assert (await around.refused("stop", name="store")).code == "A612"
        around.answer = UserError("A406", "no answer")
        assert (await around.refused("show", name="store")).code == "A406"

    run(tmp_path, body)


def test_what_runs_on_a_node_that_is_no_member_cannot_be_reached(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        around.elsewhere(owner=node_id("three"))
        assert (await around.do("show", name="store"))["node"] == node_id("three").hex()
        assert (await around.refused("stop", name="store")).code == "A610"
        assert not around.asked

    run(tmp_path, body)


def test_of_two_of_one_name_the_other_one_is_reached_by_its_id(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        await around.run("shop")
        around.elsewhere("shop")
        assert await around.do("stop", name=(b"e" * 16).hex()) == {"there": 1}
        assert len((await around.do("list"))["environments"]) == 2

    run(tmp_path, body)


def test_what_shall_run_on_another_node_begins_only_if_there_is_such_a_node(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        unknown = await around.refused("run", name="shop", bundle=code(), node="mars")
        assert (unknown.code, unknown.where) == ("A210", "other members: two")
        assert not around.steward.hosted
        assert (await around.run(node="one"))["node"] == "one"
        moving = asyncio.ensure_future(around.run("store", node="two"))
        waiting = around.commands._waiting  # pyright: ignore[reportPrivateUsage]
        while not waiting:  # noqa: ASYNC110 - nothing tells of it.
            await asyncio.sleep(0)
        around.commands.told(Told(1, None))
        assert (await moving)["node"] == "two"

    run(tmp_path, body)


def test_other_nodes_may_command_only_what_they_keep_or_have_begun(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        identity = bytes.fromhex((await around.run())["id"])
        params = b'{"name": "shop"}'
        for verb in VERBS:
            with pytest.raises(UserError) as caught:
                around.commands.check_asker(TWO, verb, params)
            assert caught.value.code == ("A612" if verb in NAMED_VERBS else "A501")
        around.commands.check_asker(around.place.own, "stop", params)
        around.steward.hosted[identity].facts.origin = TWO
        around.commands.check_asker(TWO, "stop", params)
        with pytest.raises(UserError, match="A609"):
            around.commands.check_asker(TWO, "stop", b'{"name": "nothing"}')

    run(tmp_path, body)


def test_logs_are_kept_for_so_many_environments_and_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(around: Around) -> None:
        monkeypatch.setattr(commands_module, "LOGS_MAX", 2)
        identity = bytes.fromhex((await around.run())["id"])
        assert (await around.do("logs", name="shop"))["lines"] == []
        for number in range(LOG_LINES_MAX + 1):
            around.commands.note(identity, f"line {number}")
        lines = (await around.do("logs", name="shop"))["lines"]
        assert len(lines) == LOG_LINES_MAX
        assert lines[0].endswith("+00:00 line 1")
        monkeypatch.setattr(commands_module, "LOG_BYTES_MAX", 100)
        lines = (await around.do("logs", name="shop"))["lines"]
        assert [line.split(maxsplit=1)[1] for line in lines] == [f"line {LOG_LINES_MAX - 1}", f"line {LOG_LINES_MAX}"]
        for other in (b"a", b"b"):
            around.commands.note(other, "more")
        assert (await around.do("logs", name="shop"))["lines"] == [], "the one that began first goes"

    run(tmp_path, body)


def test_a_handler_that_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        slow = (
            SOURCE
            + "\n    @atoll.on(atoll.Started)"
            + "\n    def begin(self, _, ctx):\n        self.n = sum(range(5_000_000)) and 3\n"
        )
        begun = await around.run(level="process", bundle=code(slow))
        assert begun["app"] == "Shop"
        shown = await around.do("show", name="shop")
        assert (shown["level"], shown["state"]["n"]) == ("process", 3)

    run(tmp_path, body)


async def turns() -> None:
    """Let whoever waits look often, though nothing happened."""
    for _ in range(100):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("verb", "more"), [("show", {}), ("copy", {"copy": "twin"})])
def test_nobody_sees_a_state_before_all_that_made_it_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, more: dict[str, str]
) -> None:
    async def body(around: Around) -> None:
        place = around.place
        identity = bytes.fromhex((await around.run())["id"])
        place.attach(ANN)
        monkeypatch.setattr(commands_module, "GUEST_TURN_S", 0)
        place.is_slow = True
        place.send(identity, 1, Add(5))  # Its block is on its way to the disk; what follows is in none yet.
        place.send(identity, 2, Add(2))
        asked = asyncio.ensure_future(around.do(verb, name="shop", **more))
        await turns()
        place.record(place.waiting.pop(0))
        place.settle()
        await turns()
        assert not asked.done()
        assert [one.facts.name for one in around.steward.hosted.values()] == ["shop"]
        place.answer()
        await asked
        assert (await around.do("show", name=more.get("copy", "shop")))["state"]["n"] == 7

    run(tmp_path, body)


@pytest.mark.parametrize(("verb", "more"), [("show", {}), ("copy", {"copy": "twin"})])
def test_a_state_that_is_not_recorded_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, more: dict[str, str]
) -> None:
    async def body(around: Around) -> None:
        identity = bytes.fromhex((await around.run())["id"])
        around.place.attach(ANN)
        monkeypatch.setattr(commands_module, "DURABLE_S_MAX", 0.01)
        around.place.is_slow = True
        around.place.send(identity, 1, Add(5))
        refused = await around.refused(verb, name="shop", **more)
        assert (refused.code, refused.sentence) == ("A611", "shop could not be recorded yet")
        assert refused.fix == "try again; what is not recorded may be undone, so nobody sees it"
        assert [one.facts.name for one in around.steward.hosted.values()] == ["shop"]

    run(tmp_path, body)


def test_a_copy_has_the_state_and_goes_its_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(around: Around) -> None:
        identity = bytes.fromhex((await around.run(arguments={"n": 3}))["id"])
        around.place.attach(ANN)
        around.place.send(identity, 1, Add(4))
        assert (await around.do("copy", name="shop", copy="twin"))["name"] == "twin"
        around.place.send(identity, 2, Add(1))
        assert (await around.do("show", name="twin"))["state"]["n"] == 7
        assert (await around.do("show", name="shop"))["state"]["n"] == 8
        assert (await around.refused("copy", name="shop", copy="twin")).code == "A606"
        monkeypatch.setattr(commands_module, "COPIED_BYTES_MAX", 1)
        assert (await around.refused("copy", name="shop", copy="more")).code == "A607"
        around.place.send(identity, 3, Hang())
        assert (await around.refused("copy", name="shop", copy="more")).code == "A607"

    run(tmp_path, body)


def test_commands_clients_and_programs_mean_the_same_by_a_name(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        begun = await around.run()
        place, identity = around.place, bytes.fromhex(begun["id"])
        again = Place()
        again.promises = place.promises
        again.is_restoring = False
        again.again(place)
        again.hear(TWO, Notices((Notice(b"t" * 16, 1, TWO, "shop", "Shop", b"c" * 32, (TWO,)),)))
        again.tick(2 * NAMED_AT_ONCE_NS)
        again.restore(again.restoring[-1])
        around.place = again
        assert again.steward.named("shop") == identity
        assert again.steward.parties("shop") == (identity,)
        assert (await around.do("show", name="shop"))["id"] == begun["id"]
        assert again.steward.parties("none") == ()

    run(tmp_path, body)
