# SPDX-License-Identifier: Apache-2.0
"""A forward to several members, by the commands that a person types; which of them serves: tests/netns."""

import http.client
from contextlib import closing

import msgspec
import pytest

from atoll.conduit.limits import TARGETS_MAX
from atoll.node.views import ForwardView
from tests.process.node_world import Box, greeter, nodes, until

pytestmark = pytest.mark.process


def listed(box: Box) -> list[ForwardView]:
    lines = box.run("forward", "list", "--json").out.splitlines()
    return [msgspec.json.decode(line, type=ForwardView) for line in lines]


def answers(local: str) -> bool:
    host, _, port = local.rpartition(":")
    with closing(http.client.HTTPConnection(host, int(port), timeout=10)) as connection:
        connection.request("GET", "/x")
        return connection.getresponse().read() == b"you asked for /x\n"


def test_it_leads_to_those_that_are_members_and_ends_with_the_last_one() -> None:
    with nodes() as world, greeter() as port:
        one, _, three = world.group("one", "two", "three")
        two = f"[{three.peers()['two'].address}]"
        for target, code in (
            ("two,nobody", "A210"),
            (f"two,{two}", "A501"),
            ("one,two.atoll,one", "A501"),
            (",".join(["two"] * (TARGETS_MAX + 1)), "A501"),
        ):
            said = one.run("forward", "tcp", "0", f"{target}:80")
            assert (said.code, said.out) == (code, ""), target
            assert said.field("fix")
        assert one.run("forward", "udp", "0", "two,three:80").code == "A501"

        said = one.run("forward", "tcp", "0", f"{two},three:{port}")
        assert said.status == 0, said.err
        assert f"-> {two[1:-1]},three:{port} (by latency)" in said.out
        (made,) = listed(one)
        assert made.node == f"{two[1:-1]},three"
        assert answers(made.local)
        assert listed(one)[0].carrier in {"tcp", "quic"}

        assert one.run("remove", "two").status == 0
        until(lambda: listed(one)[0].node == "three", "the former member is left out")
        assert "goes on without" in one.log()
        assert answers(made.local)
        assert one.run("remove", "three").status == 0
        until(lambda: not listed(one), "the end of a forward that leads nowhere")
