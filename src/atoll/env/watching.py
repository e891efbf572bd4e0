# SPDX-License-Identifier: Apache-2.0
"""Questions to the past: when was an expression of the state first true, and which event changed it last.

An expression is Python over the declared fields of the outermost environment, such as ``best > 100``; applications
nested in it are ``nested["rooms/lobby"]``. It sees the living state and must not change it: what it changed would make
the replay differ from the recording, which is then said. There are no builtins but some harmless ones, which keeps
mistakes small; whoever asks owns the machine, so it is no wall.
"""

import ast
from dataclasses import dataclass
from typing import Any, Final, final

import msgspec

from atoll.base.errors import UserError
from atoll.env.environment import Environment
from atoll.env.past import Past
from atoll.env.stepping import Sight

__all__ = ["NOTHING", "Change", "Expression", "first_true", "last_change"]

_encode: Final = msgspec.msgpack.Encoder().encode
_NESTED: Final = "nested"
_BUILTINS: Final[dict[str, Any]] = {
    function.__name__: function
    for function in (
        *(abs, all, any, bool, bytes, dict, enumerate, float, int, isinstance, len, list, max, min, range, repr, round),
        *(set, sorted, str, sum, tuple, zip),
    )
}


class _Nothing:
    """What an expression gives that raises, say because a key is not there yet."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "no value"


NOTHING: Final = _Nothing()


@final
class Expression:
    """An expression over the state.

    Args:
        text: Python.

    Attributes:
        fields: The fields that it names.

    Raises:
        UserError: A501, it is no Python expression.
    """

    def __init__(self, text: str) -> None:
        self.text: Final = text
        try:
            tree = ast.parse(text.strip(), "<expression>", "eval")
            self._code: Final = compile(tree, "<expression>", "eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise UserError(
                "A501", f"{text!r} is no Python expression", where=str(error), fix="such as 'best > 100'"
            ) from error
        loaded = {node.id: None for node in ast.walk(tree) if isinstance(node, ast.Name)}
        bound = {
            name
            for node in ast.walk(tree)
            for name in (
                [node.arg]
                if isinstance(node, ast.arg)
                else [node.id]
                if isinstance(node, ast.Name) and _is_bound(node)
                else []
            )
        }
        self._names: Final = tuple(name for name in loaded if name not in bound and name not in _BUILTINS)
        self._fields: Final = tuple(name for name in self._names if name != _NESTED)
        self.fields: Final = frozenset(self._fields)
        self._has_nested: Final = len(self._fields) < len(self._names)

    def check(self, environment: Environment) -> None:
        """Look whether all names are fields.

        Raises:
            UserError: A501, with the fields that there are.
        """
        main = environment.apps().get("")
        fields = () if main is None else main.__struct_fields__
        unknown = [name for name in self._fields if name not in fields]
        if main is not None and unknown:
            where = f"fields: {', '.join(fields) or 'none'}"
            raise UserError("A501", f"there is no field {unknown[0]}", where=where, fix="name one of these")

    def value(self, environment: Environment) -> Any:
        """Return its value now; NOTHING where it raises."""
        branches = environment.apps()
        main = branches.get("")
        try:
            names: dict[str, Any] = {name: getattr(main, name) for name in self._fields}
            if self._has_nested:
                names[_NESTED] = branches
            return eval(self._code, {"__builtins__": _BUILTINS, **names})  # noqa: S307 -- a person's own question.
        except Exception:  # noqa: BLE001 -- whatever it raises, it has no value here.
            return NOTHING

    def frozen(self, environment: Environment) -> Any:
        """Return something that is equal exactly when the value is, and that no later event changes."""
        value = self.value(environment)
        if value is NOTHING or value is None or type(value) in {int, str, bytes, bool}:
            return (type(value), value)
        try:
            return _encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return repr(value)


def _is_bound(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


@dataclass(frozen=True, slots=True)
class Change:
    """An event that changed an expression.

    Attributes:
        event: Its number.
        was: The value before, as text.
        became: The value after it.
    """

    event: int
    was: str
    became: str


def first_true(past: Past, expression: Expression, first: int, last: int) -> int | None:
    """Return the first event from ``first`` to ``last`` after which an expression is true; None: there is none.

    Raises:
        UserError: A501, a name in it is no field.
        DivergedError: The replay differs.
    """
    found: list[int] = []

    def see(sight: Sight) -> bool:
        if sight.after < first or sight.after == sight.before:
            return False
        if not found and expression.value(sight.environment):
            found.append(sight.after)
        return bool(found)

    _check(past, expression, last)
    past.walk(first, last, see)
    return found[0] if found else None


def last_change(past: Past, expression: Expression, last: int) -> Change | None:
    """Return the last event up to ``last`` that changed the value of an expression; None: none did.

    Goes backwards from checkpoint to checkpoint, and between two of them forwards: the last hit counts.

    Raises:
        UserError: A501, a name in it is no field.
        DivergedError: The replay differs.
    """
    _check(past, expression, last)
    for first, end in past.chunks(last):
        if first > end:
            continue
        found = _last_in(past, expression, first, end)
        if found is not None:
            return found
    return None


def _last_in(past: Past, expression: Expression, first: int, last: int) -> Change | None:
    found: Change | None = None
    before: tuple[Any, str] | None = None

    def see(sight: Sight) -> bool:
        nonlocal found, before
        now = expression.frozen(sight.environment)
        if before is not None and now == before[0]:
            return False
        text = repr(expression.value(sight.environment))
        if before is not None and sight.after >= first and sight.after > sight.before:
            found = Change(sight.after, before[1], text)
        before = (now, text)
        return False

    past.walk(first, last, see)
    return found


def _check(past: Past, expression: Expression, event: int) -> None:
    """Look at the names where the walk ends: an upgrade may have brought fields. Then before: it may take some."""
    failed: list[UserError] = []

    def see(sight: Sight) -> bool:
        if sight.after >= event:
            try:
                expression.check(sight.environment)
            except UserError as error:
                failed.append(error)
        return False

    past.walk(event, event, see)
    if failed:
        codes = {past.start_before(first).code for first, _ in past.chunks(event)}
        if not expression.fields <= {
            one for code in codes for one in past.shelf.program(code).main.app.__struct_fields__
        }:
            raise failed[0]
