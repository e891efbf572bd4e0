# SPDX-License-Identifier: Apache-2.0
"""One environment of a tree while it lives: its application, read from a snapshot and written into one.

Also the two things that a coroutine needs beside itself: whom it responds to, and an end at which its clean-up can do
no harm. A coroutine that is given up never ran to its end, so nothing that its ``finally`` does may count: its context
is cut first, and it is closed only when nothing that lives on can be reached from it.
"""

from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from inspect import formatannotation
from typing import Any, Final

import msgspec

from atoll.base.errors import CorruptError, UsageError
from atoll.env.app import App, AppClass, Program
from atoll.env.comparing import shown
from atoll.env.context import Context, Kernel, Operation
from atoll.env.limits import NESTING_MAX
from atoll.env.nesting import is_shallow
from atoll.env.plain_data import decode_fields
from atoll.env.records import TEXT_CHARS_MAX
from atoll.env.shelf import Shelf
from atoll.env.state import Branch
from atoll.env.texts import words_of
from atoll.env.tuples import Tuple

__all__ = ["Live", "Task", "begun", "revived", "written"]

_UNWRITABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)
_encode: Final = msgspec.msgpack.Encoder().encode


class Live:
    """One environment of the tree while it lives.

    Args:
        kind: Its class, looked at.
        app: Its state.
        context: What its plain handlers get; one for all of them, because one runs at a time.
        shelf: Its space; None: it has none yet.

    Attributes:
        handlers: Handler by type.
    """

    __slots__ = ("app", "context", "handlers", "kind", "shelf")

    def __init__(self, kind: AppClass, app: App, context: Context, shelf: Shelf | None = None) -> None:
        self.kind, self.app, self.context, self.shelf = kind, app, context, shelf
        self.handlers = kind.handlers


class Task:
    """A coroutine of a handler, and whom it responds to.

    Args:
        coroutine: It.
        context: What it got.

    Attributes:
        awaits: How often it has waited while no other could begin.
    """

    __slots__ = ("awaits", "context", "coroutine")

    def __init__(self, coroutine: Coroutine[Operation, None, Tuple | None], context: Context) -> None:
        self.coroutine, self.context = coroutine, context
        self.awaits = 0

    @staticmethod
    def close(tasks: Iterable["Task"]) -> None:
        """End coroutines that were given up. Their clean-up runs, and nothing comes of it, whatever it raises."""
        for task in tasks:
            task.context.cut()
            with suppress(BaseException):  # It is over, and its author heard of the failure that ended it.
                task.coroutine.close()


def begun(kernel: Kernel, kind: AppClass, path: str, fields: Mapping[str, Any]) -> Live:
    """Return a new environment.

    Raises:
        UsageError: Its class cannot begin with these fields, or one nests too deep.
    """
    try:
        live = Live(kind, msgspec.convert(dict(fields), kind.app), Context(kernel, path))
    except msgspec.ValidationError as error:
        raise UsageError(f"{kind.name} cannot begin so: {_misfit(kind, fields) or error}") from error
    except Exception as error:
        raise UsageError(f"{kind.name} cannot begin so: {words_of(error, TEXT_CHARS_MAX)}") from error
    if kind.may_nest:
        _fields(live)
    return live


def _misfit(kind: AppClass, fields: Mapping[str, Any]) -> str:
    """Return which field has a value that is not of its type; empty: each one for itself is."""
    for field in msgspec.structs.fields(kind.app):
        if field.name in fields:
            try:
                msgspec.convert(fields[field.name], field.type)
            except Exception:  # noqa: BLE001 - of a type of the program, it may be anything.
                wanted = formatannotation(field.type, kind.app.__module__)
                return f"its field {field.name} is {wanted}, and {shown(fields[field.name])} came"
    return ""


def revived(kernel: Kernel, program: Program, path: str, branch: Branch) -> Live:
    """Return an environment as the code of today has it.

    Raises:
        CorruptError: Its class is unknown, or its state is of a version that the code cannot migrate, or does not fit.
    """
    kind = program.classes.get(branch.app)
    if kind is None:
        raise CorruptError(f"the code has no application class {branch.app}")
    shelf = None if branch.space is None else Shelf(kind, program.types, branch.space, branch.watchers)
    return Live(kind, _state_of(kind, branch), Context(kernel, path), shelf)


def _state_of(kind: AppClass, branch: Branch) -> App:
    if branch.version > kind.app.version:
        raise CorruptError(f"the state of {kind.name} has version {branch.version}, the code has {kind.app.version}")
    try:
        if branch.version == kind.app.version:
            return msgspec.msgpack.decode(branch.fields, type=kind.app)
        fields = decode_fields(branch.fields)
        for version in range(branch.version, kind.app.version):
            if version not in kind.migrations:
                raise CorruptError(
                    f"the state of {kind.name} has version {branch.version}, the code has {kind.app.version}"
                    f" and no migration from {version}"
                )
            try:
                fields = kind.migrations[version](fields)
            except (Exception, SystemExit) as error:
                raise CorruptError(f"the migration of {kind.name} from {version} fails: {error!r}") from error
        return msgspec.convert(fields, kind.app)
    except CorruptError:
        raise
    except Exception as error:  # Of a type of the program, it may be anything.
        text = str(error) if isinstance(error, msgspec.DecodeError) else words_of(error, TEXT_CHARS_MAX)
        raise CorruptError(f"the state of {kind.name} does not fit its code: {text}") from error


def written(live: Live) -> Branch:
    """Return an environment as a snapshot has it.

    Raises:
        UsageError: A field holds what is no data, or nests too deep; it is named.
    """
    shelf = live.shelf
    space, watchers = (None, {}) if shelf is None else (shelf.space, shelf.watchers)
    return Branch(live.kind.name, live.kind.app.version, _fields(live), space, watchers)


def _fields(live: Live) -> msgspec.Raw:
    kind, app = live.kind, live.app
    try:
        raw = _encode(app)
    except _UNWRITABLE as error:
        bad = [name for name in app.__struct_fields__ if not _is_data(getattr(app, name))]
        raise UsageError(f"{kind.name}.{', '.join(bad)} holds what is no data: {error}") from error
    if kind.may_nest and not is_shallow(raw):
        bad = [name for name in app.__struct_fields__ if not is_shallow(_encode(getattr(app, name)), NESTING_MAX - 1)]
        raise UsageError(
            f"{kind.name}.{', '.join(bad)} nests deeper than {NESTING_MAX} (NESTING_MAX), itself and its application"
            " included; keep what is deep as text, or flat"
        )
    return msgspec.Raw(raw)


def _is_data(value: object) -> bool:
    try:
        _encode(value)
    except _UNWRITABLE:
        return False
    return True
