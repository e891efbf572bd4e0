# SPDX-License-Identifier: Apache-2.0
"""Whose a flow is: by the names of a program, by the mark that it was given, by its ancestors."""

from collections.abc import Coroutine

import pytest

from atoll.base.errors import UserError
from atoll.device.nic.messages import FlowOwned
from atoll.host.owners import Owner
from atoll.node.limits import TAGGED_KEPT_S, TAGGED_MAX
from atoll.node.programs import Programs, Tagged, judged

SHELL, PYTHON, INIT = (20, 900), (30, 950), (1, 5)
TAGGED = {"outer": Tagged(SHELL, 1), "inner": Tagged((25, 920), 3)}


def owner(*names: bytes, comm: bytes = b"", mark: str = "", line: tuple[tuple[int, int], ...] = (PYTHON,)) -> Owner:
    return Owner(names, comm, line, mark)


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("python3.11", True),
        ("python3", True),
        ("backup-all-of-it.py", True),  # The kernel cut it.
        ("backup-all-of-i", True),
        ("backup-all", False),
        ("python", False),
        ("", False),
    ],
)
def test_a_program_has_several_names(name: str, called: bool) -> None:
    script = owner(b"python3.11", b"python3", comm=b"backup-all-of-i")
    assert script.is_called(name) is called


def test_a_name_that_is_no_text_is_a_name() -> None:
    assert owner(b"caf\xe9").is_called("caf\udce9")


def test_the_numbers_of_all_its_names_are_told() -> None:
    assert judged(owner(b"python3", comm=b"b.py"), ("b.py", "ssh", "python3"), {}) == ((1, 3), -1)
    assert judged(owner(b"ssh"), (), {}) == ((), -1)


@pytest.mark.parametrize(
    ("mark", "line", "tag"),
    [
        ("", (PYTHON, SHELL, INIT), 1),  # It wiped its environment.
        ("outer", (PYTHON, INIT), 1),  # It left its parents.
        ("", (PYTHON, (25, 920), SHELL, INIT), 3),  # The nearest.
        ("inner", (PYTHON, SHELL, INIT), 3),  # It left one of them.
        ("unknown", (PYTHON, SHELL, INIT), 1),
        ("", (PYTHON, (20, 901), INIT), -1),  # The number of a process is used again.
        ("", (SHELL,), 1),
        ("", (PYTHON, INIT), -1),
    ],
)
def test_a_tag_goes_to_all_below(mark: str, line: tuple[tuple[int, int], ...], tag: int) -> None:
    assert judged(owner(b"x", mark=mark, line=line), ("x",), TAGGED) == ((1,), tag)


def idle(orders: list[FlowOwned], spawned: list[Coroutine[None, None, None]]) -> Programs:
    return Programs(lambda: None, orders.append, spawned.append)


def test_tags_are_bounded_and_each_has_its_mark() -> None:
    programs = idle([], [])
    before = programs.is_tagging
    assert len({programs.give_tag((number, 1), 1) for number in range(TAGGED_MAX)}) == TAGGED_MAX
    assert (before, programs.is_tagging) == (False, True)
    with pytest.raises(UserError, match="run already") as caught:
        programs.give_tag((1, 1), 1)
    assert caught.value.code == "A499"


def test_it_is_looked_now_and_then_for_tags_that_nobody_has() -> None:
    spawned: list[Coroutine[None, None, None]] = []
    programs = idle([], spawned)
    programs.keep(TAGGED_KEPT_S)
    assert not spawned
    programs.give_tag((1, 1), 1)
    programs.keep(TAGGED_KEPT_S - 1)
    assert not spawned
    programs.keep(TAGGED_KEPT_S)
    programs.keep(3 * TAGGED_KEPT_S)  # One at a time.
    (count,) = spawned
    count.close()
