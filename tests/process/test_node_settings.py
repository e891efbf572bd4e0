# SPDX-License-Identifier: Apache-2.0
"""What ``atoll up`` was told once: kept, changed, and taken back."""

import re

import pytest

from atoll.group.invite import decode_invitation
from tests.process.node_world import Box, nodes

pytestmark = pytest.mark.process


def called_at(box: Box) -> list[str]:
    """Return where an invitation of this node says that it can be called."""
    return [f"{host}:{port}" for host, port in decode_invitation(box.invite()).endpoints]


def test_what_was_advertised_is_kept_until_it_is_taken_back() -> None:
    with nodes() as world:
        box = world.box("one")
        box.up("--advertise", "192.0.2.1:7")
        assert called_at(box) == ["192.0.2.1:7"]
        box.down()
        box.again()
        assert called_at(box) == ["192.0.2.1:7"]
        box.down()
        box.ready(box.run("up", "--advertise", "none", "--json"))
        assert called_at(box) == [f"127.0.0.1:{box.port}"]
        box.down()
        box.again()
        assert called_at(box) == [f"127.0.0.1:{box.port}"]


def test_a_node_that_advertises_nothing_callable_cannot_invite_and_says_so() -> None:
    with nodes() as world:
        box = world.box("one")
        box.up("--advertise", "192.0.2.1:0")  # Port 0 is nowhere.
        said = box.run("invite")
        assert (said.code, said.status) == ("A213", 5)
        assert re.search(r"atoll up --advertise HOST:PORT", said.field("fix"))
