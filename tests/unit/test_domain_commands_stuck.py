# SPDX-License-Identifier: Apache-2.0
"""Commands about environments that are kept here and do not run: for what they wait, and what to do."""

from pathlib import Path

from atoll.domain.views import ENVIRONMENTS_SCHEMA
from atoll.env.facts import Facts
from atoll.env.graves import Barred
from atoll.env.holding import HoldingOptions
from atoll.env.keepers import Peer
from atoll.env.limits import AWAITED_NS
from atoll.env.orders import Forget
from tests.unit.commands_world import TWO, Around, code, run
from tests.unit.steward_world import Group, Place


def test_what_is_kept_here_and_not_known_to_run_is_no_unknown_name(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        options = HoldingOptions(around.place.own, b"s" * 32, holders=(around.place.own, TWO), blocks=((1, 1, ()),))
        around.steward.adopt(Facts(b"k" * 16, "kept", "Shop", b"c" * 32), options, around.place.now)
        error = await around.refused("show", name="kept")
        assert (error.code, error.where) == ("A611", "this node keeps it, and has not heard yet who runs it")
        assert around.steward.named("kept") == b"k" * 16
        assert around.steward.named("other") == b""

    run(tmp_path, body)


def test_what_should_run_here_and_does_not_says_why(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        identity = bytes.fromhex((await around.run())["id"])
        hosted = around.steward.hosted[identity]
        hosted.runner = None
        assert (await around.refused("stop", name="shop")).where == "it is being restored, or changes hands"
        hosted.failed = "A605: packages"
        error = await around.refused("checkpoint", name="shop")
        assert (error.code, error.where) == ("A611", "A605: packages")
        assert "state" not in await around.do("show", name="shop")

    run(tmp_path, body)


def test_what_cannot_run_here_is_listed_with_the_reason_and_is_stopped(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        before = Place()
        identity = before.run("shop")
        around.place.is_restoring = False
        around.place.again(before)
        (order,) = around.place.restoring
        around.place.restore(order, "A605: packages")
        assert around.steward.directory.named("shop") is None, "nobody tells of it"
        (listed,) = (await around.do("list"))["environments"]
        assert (listed["name"], listed["id"], listed["node"]) == ("shop", identity.hex(), "one")
        assert listed["failed"] == "A605: packages"
        assert (await around.do("show", name="shop"))["failed"] == "A605: packages"
        assert (await around.do("logs", name="shop"))["lines"] == []
        assert (await around.refused("checkpoint", name="shop")).where == "A605: packages"
        assert (await around.refused("run", name="shop", bundle=code())).code == "A606"
        assert (await around.do("stop", name=identity.hex()))["name"] == "shop"
        assert not around.steward.hosted
        assert not (await around.do("list"))["environments"]

    run(tmp_path, body)


def test_what_waits_for_a_node_that_is_lost_says_what_to_do(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        around.place.members(two=Peer("two"))
        around.elsewhere("store")
        around.place.members(two=Peer("two", lost=True))
        assert await around.do("stop", name="store") == {"there": 1}, "who is lost for a moment is asked"
        around.asked.clear()
        around.place.now_ns += AWAITED_NS
        taken = await around.refused("run", name="store", bundle=code())
        assert (taken.code, taken.where) == ("A606", "it cannot run without two, which cannot be reached")
        assert taken.fix.endswith("atoll remove two")
        (listed,) = (await around.do("list"))["environments"]
        assert (listed["waits_for"], listed["node"]) == (["two"], "two")
        assert (await around.do("show", name="store")) == {**listed, "schema": ENVIRONMENTS_SCHEMA}
        assert listed["fix"].endswith("atoll remove two")
        for verb, params in (
            ("stop", {"name": "store"}),
            ("stop", {"name": "store", "anyway": True}),
            ("logs", {"name": "store"}),
            ("move", {"name": "store", "node": "two"}),
        ):
            error = await around.refused(verb, **params)
            assert (error.code, error.where, error.fix) == ("A611", taken.where, listed["fix"])
        assert not around.asked, "it would take a minute to find out what is known"
        around.place.members()
        await around.run("store")

    run(tmp_path, body)


def test_what_too_few_are_left_of_is_stopped_only_if_it_is_said_twice(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        begun = Group("one", "two", "three")
        identity = begun["two"].run("shop", copies=3)
        begun.until(lambda: len(begun["two"].hosted(identity).holding.holders) == 3)
        begun.until(lambda: len(begun["one"].hosted(identity).holding.holders) == 3)
        around.place = begun["one"]
        around.place.members(two=Peer("two", lost=True), three=Peer("three", lost=True))
        around.place.now_ns += AWAITED_NS
        error = await around.refused("stop", name="shop")
        assert (error.code, error.fix.endswith("--anyway, on one")) == ("A611", True)
        assert (await around.do("stop", name="shop", anyway=True))["waits_for"] == ["two", "three"]
        assert not around.steward.hosted
        assert not (await around.do("list"))["environments"]

    run(tmp_path, body)


def test_a_journal_that_cannot_be_used_is_shown_with_what_to_do_and_is_put_aside(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        why = "block 3: its chain does not check"
        around.steward.graves.bar(Barred(b"e" * 16, "store", why))
        (listed,) = (await around.do("list"))["environments"]
        assert (listed["name"], listed["id"], listed["node"], listed["barred"]) == ("store", "65" * 16, "", why)
        assert listed["fix"].startswith("see what is wrong: atoll audit verify store; ")
        assert listed["fix"].endswith("atoll env stop store")
        assert await around.do("show", name="store") == {**listed, "schema": ENVIRONMENTS_SCHEMA}
        error = await around.refused("checkpoint", name="65" * 16)
        assert (error.code, error.fix) == ("A611", listed["fix"])
        assert error.where == f"its journal on this node cannot be used: {why}"
        assert (await around.refused("run", name="store", bundle=code())).code == "A606"
        around.place.members(two=Peer("two"))
        assert (await around.refused("stop", name="store")).fix == "try again in some seconds"
        around.place.members()
        assert (await around.do("stop", name="store"))["name"] == "store"
        assert around.place.got(Forget) == [Forget(b"e" * 16)]
        assert not (await around.do("list"))["environments"]
        await around.run("store")

    run(tmp_path, body)


def test_a_journal_that_cannot_be_used_is_shown_where_others_go_on_with_it(tmp_path: Path) -> None:
    async def body(around: Around) -> None:
        around.steward.graves.bar(Barred(b"e" * 16, "store", "it is damaged"))
        around.elsewhere("store")
        (listed,) = (await around.do("list"))["environments"]
        assert (listed["node"], listed["barred"]) == ("two", "it is damaged")
        assert "the others go on without it" in listed["fix"]
        assert await around.do("stop", name="store") == {"there": 1}

    run(tmp_path, body)
