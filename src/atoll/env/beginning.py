# SPDX-License-Identifier: Apache-2.0
"""What somebody wants to begin, and what has begun before anybody knows of it; and why a name is not to be had."""

from dataclasses import dataclass

from atoll.base.errors import UserError
from atoll.env.graves import Barred
from atoll.env.limits import COPIES
from atoll.env.records import INLINE, Began, Level
from atoll.env.runner import Runner

__all__ = ["Begun", "Stuck", "Wanted", "taken", "unusable"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """An environment that somebody wants to begin.

    Attributes:
        name: How people will call it.
        code: SHA-256 of its code.
        arguments: Encoded map of the fields that are given.
        copies: How many nodes shall keep its journal.
        level: Where its handlers run, as of ``Began``.
        state: Of another environment that it is a copy of, as of ``Began``.
        source: Name of that one.
    """

    name: str
    code: bytes
    arguments: bytes
    copies: int = COPIES
    level: Level = INLINE
    state: bytes = b""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Stuck:
    """An environment that nobody can run until somebody decides: nothing that loses it happens by itself.

    Attributes:
        name: Of the environment.
        awaited: Names of the members that cannot be reached and without which nobody can run it.
        left: Names of the members that keep it and are there, too few of them.
    """

    name: str
    awaited: tuple[str, ...]
    left: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """Why nobody can run it."""
        if not self.awaited:
            return "too few of the nodes that keep it are members any more"
        return f"it cannot run without {', '.join(self.awaited)}, which cannot be reached"

    @property
    def way_out(self) -> str:
        """What to do."""
        if self.left:  # What they have of it is theirs to give up: a removal takes nobody's copy.
            end = f"atoll env stop {self.name} --anyway, on {self.left[0]}"
        else:
            end = ", ".join(f"atoll remove {name}" for name in self.awaited)
        if not self.awaited:
            return end
        return f"bring {' and '.join(self.awaited)} back; if that is lost for good, and with it what only it has: {end}"


@dataclass(frozen=True, slots=True)
class Begun:
    """An environment that has begun, and that nobody knows of yet.

    Attributes:
        wanted: What it was made of.
        runner: What runs it; while it is busy, its first handler runs.
        began: Its first record.
    """

    wanted: Wanted
    runner: Runner
    began: Began


def unusable(barred: Barred) -> UserError:
    """Return what to say to who wants the name of an environment whose journal here cannot be used."""
    name = barred.name
    fix = f"choose another: --name NAME; see what is wrong: atoll audit verify {name}; or end it: atoll env stop {name}"
    return UserError("A606", f"there is an environment called {name!r}", where=barred.reason, fix=fix)


def taken(name: str, stuck: Stuck | None) -> UserError:
    """Return what to say to who wants a name that an environment has, which may be stuck."""
    sentence, fix = f"there is an environment called {name!r}", "choose another: --name NAME"
    if stuck is None:
        return UserError("A606", sentence, fix=fix)
    return UserError("A606", sentence, where=stuck.reason, fix=f"{fix}; or {stuck.way_out}")
