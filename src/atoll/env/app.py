# SPDX-License-Identifier: Apache-2.0
"""What an application's author writes: a class with declared state, and handlers for typed tuples.

    class Bid(atoll.Tuple):
        who: str
        amount: int

    class Auction(atoll.App):
        best: int = 0

        @atoll.on(Bid)
        def bid(self, bid: Bid, ctx: atoll.Context) -> None:
            self.best = max(self.best, bid.amount)
            ctx.reply(Best(self.best))

The class is a msgspec struct: its annotated fields are its state, and nothing else can be assigned, so nothing is
forgotten by a checkpoint. A ``Program`` is such a class looked at once: which handler takes which type, and which
types can arrive.
"""

import inspect
import types
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeVar, Union

import msgspec

from atoll.base.errors import UserError
from atoll.env.changes import BUILT_IN, CHANGES, Matched
from atoll.env.limits import NESTING_MAX, VERSION_MAX
from atoll.env.nesting import is_bounded, is_shallow
from atoll.env.tuples import Tuple

__all__ = ["App", "AppClass", "Handler", "Program", "intercept", "migration", "on", "program_of"]

_ON: Final = "__atoll_on__"
_FROM: Final = "__atoll_from__"
_INTERCEPT: Final = "__atoll_intercept__"

Answer = Tuple | None
Handler = Callable[[Any, Any, Any], Answer | Coroutine[Any, Any, Answer]]
HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])


class App(msgspec.Struct):
    """Base of applications. Subclass it, declare the state as annotated fields with defaults, and add handlers.

    Attributes:
        version: Version of the state's form. Raise it when a field changes its meaning, and add a ``migration``.
        level: Where its handlers run unless ``atoll run --level`` says otherwise: ``inline``, in a process that all
            environments of a node share, or ``process``, in one of its own that can do nothing but compute. It is
            looked up in the source, so it must be a literal.
        shared: Types of tuples that other parties may put into this environment's space, read, take and watch. Others
            are refused to them as ``forbidden``.
    """

    version: ClassVar[int] = 1
    level: ClassVar[str] = "inline"
    shared: ClassVar[tuple[type[Tuple], ...]] = ()


def on(*kinds: type[Tuple]) -> Callable[[HandlerT], HandlerT]:
    """Make a method the handler of tuples of these types.

    The method is called with the tuple and a ``Context``, and runs to completion; nothing else of its environment runs
    meanwhile. What it returns is its reply. If it raises, all that it did is undone. ``async def`` may await calls.
    """

    def mark(handler: HandlerT) -> HandlerT:
        setattr(handler, _ON, kinds)
        return handler

    return mark


def migration(version: int) -> Callable[[HandlerT], HandlerT]:
    """Make a static method the one that turns the state of ``version``, as a dict, into that of the next version."""

    def mark(function: HandlerT) -> HandlerT:
        setattr(function, _FROM, version)
        return function

    return mark


def intercept(handler: HandlerT) -> HandlerT:
    """Make a method the one through which goes what nested environments ask of the outside.

    It is called with a ``Request`` and a ``Context`` and returns the tuple that is to be sent, the same or another one,
    or a ``Failure``: then nothing is sent, and who asked gets that.
    """
    setattr(handler, _INTERCEPT, True)
    return handler


@dataclass(frozen=True, slots=True)
class AppClass:
    """One application class, looked at.

    Attributes:
        app: The class.
        handlers: Handler by type of tuple.
        tasks: Types whose handlers are coroutines.
        apart: Types that are not simply given to their handler as they came: those of coroutines, those that hold
            further tuples, and those that not everybody may send.
        shared: Type by name of the tuples that other parties may use in its space.
        migrations: Step by the version that it starts from.
        intercept: What its nested environments ask for goes through it; None: as it is.
        may_nest: Whether its state may nest deeper than NESTING_MAX, as far as the types of its fields say.
    """

    app: type[App]
    handlers: Mapping[type[Tuple], Handler]
    tasks: frozenset[type[Tuple]]
    apart: frozenset[type[Tuple]]
    shared: Mapping[str, type[Tuple]]
    migrations: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]
    intercept: Handler | None
    may_nest: bool

    @property
    def name(self) -> str:
        """Name of the class."""
        return self.app.__name__


@dataclass(frozen=True, slots=True)
class Program:
    """An application class and those that it can nest, ready to run.

    Attributes:
        main: The class of the outermost environment.
        classes: All of them by name.
        types: Tuple type by name: all that can be decoded as what they are.
        items: Decodes a list of items whose events are of these types.
        event: Decodes one event.
    """

    main: AppClass
    classes: Mapping[str, AppClass]
    types: Mapping[str, type[Tuple]]
    items: msgspec.msgpack.Decoder[Any]
    event: msgspec.msgpack.Decoder[Any]


def program_of(main: type[App], nested: Iterable[type[App]] = (), known: Iterable[type[Tuple]] = ()) -> Program:
    """Look at application classes.

    Args:
        main: The class of the outermost environment.
        nested: Classes that it may spawn inside itself.
        known: Further types of tuples that may arrive, such as those that a call responds with.

    Raises:
        UserError: A601, a field, handler or type that cannot be.
    """
    classes = {app.__name__: _class_of(app) for app in (main, *nested)}
    taken = [kind for found in classes.values() for kind in (*found.handlers, *found.shared.values())]
    named = _by_name(main, (*BUILT_IN, *taken, *known))
    event: Any = Union[tuple(named.values())]  # noqa: UP007 -- a union of types that are known only now.
    item = msgspec.defstruct(
        "Item",
        [("event", event), ("ask", int, 0), ("re", int, 0), ("to", str, ""), ("by", str, "")],
        array_like=True,
        frozen=True,
    )
    return Program(
        main=classes[main.__name__],
        classes=classes,
        types=named,
        items=msgspec.msgpack.Decoder(types.GenericAlias(list, (item,))),
        event=msgspec.msgpack.Decoder(event),
    )


def _class_of(app: type[App]) -> AppClass:
    _check_state(app)
    handlers: dict[type[Tuple], Handler] = {}
    migrations: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
    intercepts: Handler | None = None
    for name, member in inspect.getmembers_static(app):
        outside: dict[str, Any] = getattr(member, "__dict__", {})
        function: Any = member.__func__ if isinstance(member, staticmethod) else member
        marks: dict[str, Any] = {**getattr(function, "__dict__", {}), **outside}
        for kind in marks.get(_ON, ()):  # Whichever of this and @staticmethod was nearer to the function.
            if kind in handlers:
                raise _wrong(app, f"two handlers take {kind.__name__}, one of them is {name}")
            handlers[kind] = function
        if (version := marks.get(_FROM)) is not None:
            migrations[version] = function
        if marks.get(_INTERCEPT):
            if inspect.iscoroutinefunction(function):
                raise _wrong(app, f"{name} intercepts and cannot wait: whoever sends cannot either")
            intercepts = function
    tasks = frozenset(kind for kind, handler in handlers.items() if inspect.iscoroutinefunction(handler))
    return AppClass(
        app=app,
        handlers=handlers,
        tasks=tasks,
        apart=tasks | frozenset(kind for kind in (Matched, *CHANGES) if kind in handlers),
        shared=_by_name(app, app.shared),
        migrations=migrations,
        intercept=intercepts,
        may_nest=not all(is_bounded(field.type) for field in msgspec.structs.fields(app)),
    )


def _check_state(app: type[App]) -> None:
    if not 1 <= app.version <= VERSION_MAX:
        raise _wrong(app, f"a version of {app.version}")
    try:
        fields = msgspec.structs.fields(app)
    except NameError as error:
        raise _wrong(app, f"a field has a type that is not there: {error}") from error
    for field in fields:
        if field.required:
            raise _wrong(app, f"the field {field.name} has no default")
        try:
            found = msgspec.inspect.type_info(field.type)
        except TypeError as error:
            raise _wrong(app, f"the field {field.name}: {error}") from error
        if (bad := _unwritable(found)) is not None:
            raise _wrong(app, f"the field {field.name} holds {bad}, which is not data")
    try:
        encoded = msgspec.msgpack.encode(app())
        if not is_shallow(encoded):
            raise _wrong(app, f"a default nests deeper than {NESTING_MAX} (NESTING_MAX)")
        msgspec.msgpack.decode(encoded, type=app)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _wrong(app, f"a default is not of its field's type: {error}") from error


def _unwritable(info: msgspec.inspect.Type) -> str | None:
    """Return what in a type cannot be written to a snapshot and read back; None: nothing."""
    seen: set[int] = set()
    waiting: list[Any] = [info]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        match one:
            case msgspec.inspect.CustomType():
                return str(getattr(one.cls, "__name__", one.cls))
            case msgspec.inspect.SetType() | msgspec.inspect.FrozenSetType():
                return "a set (its order is not kept; use dict[KEY, None])"
            case msgspec.inspect.StructType() | msgspec.inspect.DataclassType():
                waiting += [field.type for field in one.fields]
            case msgspec.inspect.UnionType():
                waiting += one.types
            case msgspec.inspect.ListType() | msgspec.inspect.VarTupleType():
                waiting.append(one.item_type)
            case msgspec.inspect.TupleType():
                waiting += one.item_types
            case msgspec.inspect.DictType():
                waiting += [one.key_type, one.value_type]
            case _:
                pass
    return None


def _by_name(app: type[App], kinds: Iterable[Any]) -> dict[str, type[Tuple]]:
    named: dict[str, type[Tuple]] = {}
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Tuple)):
            raise _wrong(app, f"{kind!r} is no atoll.Tuple")
        tag = str(kind.__struct_config__.tag)
        if named.setdefault(tag, kind) is not kind:
            raise _wrong(app, f"two types of tuples are called {tag}")
    return named


def _wrong(app: type[App], what: str) -> UserError:
    return UserError("A601", f"the application {app.__name__} cannot be run: {what}", fix="see docs/reference/env.md")
