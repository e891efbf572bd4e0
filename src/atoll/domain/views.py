# SPDX-License-Identifier: Apache-2.0
"""What commands about environments answer, as JSON: additive changes only, or the schema's number rises."""

from typing import Any, Final

import msgspec

__all__ = [
    "CALL_SCHEMA",
    "ENVIRONMENTS_SCHEMA",
    "CallView",
    "EnvironmentView",
    "EnvironmentsView",
    "LogView",
    "RunView",
]

ENVIRONMENTS_SCHEMA: Final = "atoll.env/1"
CALL_SCHEMA: Final = "atoll.call/1"


class RunView(msgspec.Struct, frozen=True):
    """An environment that has begun."""

    name: str
    id: str
    app: str
    node: str
    code: str
    schema: str = ENVIRONMENTS_SCHEMA


class EnvironmentView(msgspec.Struct, frozen=True, omit_defaults=True):
    """One environment; what follows ``holders`` is known only where it runs, or should.

    Attributes:
        is_cut: Fields of the state are left out, because they are too long; instead of each there is a text.
        failed: Why it cannot run on the node that should run it; it is tried again every few seconds.
        waits_for: Members that cannot be reached and without which nobody can run it.
        barred: Why this node cannot use the journal of it that is here. Others may run it.
        fix: What to do about ``waits_for`` or ``barred``.
        gone: Fields that an upgrade has just dropped, because the new code does not have them.
        schema: Said where it is the whole answer; empty inside an ``EnvironmentsView``, which says it itself.
    """

    name: str
    id: str
    app: str
    node: str
    epoch: int
    code: str
    holders: tuple[str, ...]
    events: int | None = None
    failures: int | None = None
    state: dict[str, Any] | None = None
    level: str | None = None
    is_cut: bool = False
    failed: str = ""
    waits_for: tuple[str, ...] = ()
    barred: str = ""
    fix: str = ""
    gone: tuple[str, ...] = ()
    schema: str = ""


class EnvironmentsView(msgspec.Struct, frozen=True):
    """All environments of the group, by name."""

    environments: tuple[EnvironmentView, ...]
    schema: str = ENVIRONMENTS_SCHEMA


class LogView(msgspec.Struct, frozen=True):
    """The last lines of an environment's log."""

    lines: tuple[str, ...]
    schema: str = ENVIRONMENTS_SCHEMA


class CallView(msgspec.Struct, frozen=True):
    """What an environment responded. Its fields are the application's own, so they stand apart from the schema.

    Attributes:
        response: The tuple: its type as ``is``, beside its fields.
    """

    response: dict[str, Any]
    schema: str = CALL_SCHEMA
