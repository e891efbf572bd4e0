# SPDX-License-Identifier: Apache-2.0
"""What a name means where it is used: scopes, imports in all their forms, and the little that lint knows of types.

Resolved is what honest code does: imports with and without ``as``, at the top or inside a function, stars, and a name
of the module that stands for one of them (``now = time.time``). A name that a function binds itself hides all others.
"""

import ast
import builtins
from collections.abc import Iterator
from typing import Final, Literal

from atoll.env.lint_rules import FAMILIES, NAMES, READS_WITHOUT

__all__ = ["AppClass", "Kind", "Scope", "apps_of", "own_nodes", "root_of", "scope_of"]

Kind = Literal["set", "path"]

_SETS: Final = frozenset(
    {
        *("builtins.set", "builtins.frozenset", "typing.Set", "typing.FrozenSet", "typing.AbstractSet"),
        *("collections.abc.Set", "collections.abc.MutableSet"),
    }
)
_PATHS: Final = frozenset({"pathlib.Path", "pathlib.PosixPath"})
_WRAPPERS: Final = frozenset({"typing.Annotated", "typing.ClassVar", "typing.Final", "typing.Optional"})
_TYPES_WITH_CLOCKS: Final = frozenset({"datetime.datetime", "datetime.date", "os.path"})
_PLAIN_BASES: Final = frozenset({"builtins.object", "abc.ABC", "typing.Generic", "typing.Protocol"})
_SET_METHODS: Final = frozenset({"copy", "difference", "intersection", "symmetric_difference", "union"})
_PATH_METHODS: Final = frozenset({"joinpath", "relative_to", "with_name", "with_stem", "with_suffix"})
_BUILT_IN: Final = frozenset(vars(builtins))
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class AppClass:
    """What a class that is an App declares.

    Attributes:
        fields: Names that its body, or that of a base in the same file, binds or annotates.
        kinds: Which of them are annotated as sets or paths.
        complete: All bases are known, so a name that is not in ``fields`` is not declared.
    """

    __slots__ = ("complete", "fields", "kinds")

    def __init__(self) -> None:
        self.fields: set[str] = set()
        self.kinds: dict[str, Kind] = {}
        self.complete = True


class Scope:
    """The names of a module, a class body or a function.

    Attributes:
        parent: The scope around it; None: this is the module.
        is_class: Names of a class body are not seen from its methods.
        names: All that it binds, imports included.
        imports: Full name by bound name, such as ``dt`` to ``datetime``.
        stars: Modules of which it imports everything.
        outer: Names that it declares ``global``.
        rebound: Those of them that it also binds.
        kinds: What is known of the values of its names so far.
        receiver: Name of the first parameter of a method of an App (``self``), with ``app`` as its class.
    """

    __slots__ = ("app", "imports", "is_class", "kinds", "names", "outer", "parent", "rebound", "receiver", "stars")

    def __init__(self, parent: "Scope | None", *, is_class: bool = False) -> None:
        self.parent = parent
        self.is_class = is_class
        self.names: set[str] = set()
        self.imports: dict[str, str] = {}
        self.stars: list[str] = []
        self.outer: set[str] = set()
        self.rebound: set[str] = set()
        self.kinds: dict[str, Kind] = {}
        self.receiver = ""
        self.app: AppClass | None = None

    def owner(self, name: str) -> "Scope | None":
        """Return the scope that binds a name used here; None: nobody, so it is built in."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.outer:
                return scope.module
            if name in scope.names and (scope is self or not scope.is_class):
                return scope
            scope = scope.parent
        return None

    @property
    def module(self) -> "Scope":
        """The outermost scope."""
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope

    def full_name(self, node: ast.expr) -> str:
        """Return ``time.time`` for ``t`` after ``from time import time as t``; empty: what it means is not known.

        A name that nobody binds is taken as built in, unless a star import may have brought it.
        """
        if isinstance(node, ast.Attribute):
            base = self.full_name(node.value)
            return base and f"{base}.{node.attr}"
        if not isinstance(node, ast.Name):
            return ""
        owner = self.owner(node.id)
        if owner is not None:
            return owner.imports.get(node.id, "")
        for star in self.module.stars:
            full = f"{star}.{node.id}"
            if _is_known(full) or (star in FAMILIES and node.id not in _BUILT_IN):
                return full
        return f"builtins.{node.id}"

    def app_of(self, node: ast.expr) -> AppClass | None:
        """Return the App that a name such as ``self`` stands for, also in a function within the method."""
        if not isinstance(node, ast.Name):
            return None
        owner = self.owner(node.id)
        return owner.app if owner is not None and owner.receiver == node.id else None

    def learn(self, target: ast.expr, kind: Kind | None) -> None:
        """Keep what is now known of the value of a name. Other targets are not followed."""
        if isinstance(target, ast.Name):
            owner = self.owner(target.id) or self
            if kind is None:
                owner.kinds.pop(target.id, None)
            else:
                owner.kinds[target.id] = kind

    def kind_of(self, node: ast.expr) -> Kind | None:
        """Return what is known of a value; None: nothing."""
        match node:
            case ast.Set() | ast.SetComp():
                return "set"
            case ast.Call():
                return self._kind_of_call(node)
            case ast.Name():
                owner = self.owner(node.id)
                return owner.kinds.get(node.id) if owner is not None else None
            case ast.Attribute():
                app = self.app_of(node.value)
                if app is not None:
                    return app.kinds.get(node.attr)
                return "path" if node.attr == "parent" and self.kind_of(node.value) == "path" else None
            case ast.BinOp(op=ast.Div()):
                return "path" if self.kind_of(node.left) == "path" else None
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr() | ast.BitXor() | ast.Sub()):
                return "set" if self._is_like_a_set(node.left) or self._is_like_a_set(node.right) else None
            case ast.IfExp():
                return self.kind_of(node.body) or self.kind_of(node.orelse)
            case ast.BoolOp():
                return next((kind for kind in map(self.kind_of, node.values) if kind), None)
            case ast.NamedExpr():
                return self.kind_of(node.value)
            case _:
                return None

    def _kind_of_call(self, node: ast.Call) -> Kind | None:
        full = self.full_name(node.func)
        if full in _SETS:
            return "set"
        if full in _PATHS or full.rpartition(".")[0] in _PATHS:
            return "path"
        if isinstance(node.func, ast.Attribute):
            kind = self.kind_of(node.func.value)
            if node.func.attr in (_SET_METHODS if kind == "set" else _PATH_METHODS):
                return kind
        return None

    def _is_like_a_set(self, node: ast.expr) -> bool:
        """Return whether an operand makes the result of ``|``, ``&``, ``-`` or ``^`` a set; views of a dict do."""
        match node:
            case ast.Call(func=ast.Attribute(attr="keys" | "items"), args=[]):
                return True
            case _:
                return self.kind_of(node) == "set"

    def kind_of_annotation(self, node: ast.expr | None) -> Kind | None:
        """Return what an annotation says of a value; None: nothing that matters here."""
        match node:
            case ast.Subscript():
                full = self.full_name(node.value)
                if full in _WRAPPERS:
                    inner = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) and node.slice.elts else node.slice
                    return self.kind_of_annotation(inner)
                return self.kind_of_annotation(node.value)
            case ast.BinOp(op=ast.BitOr()):
                return self.kind_of_annotation(node.left) or self.kind_of_annotation(node.right)
            case ast.Name() | ast.Attribute():
                full = self.full_name(node)
                return "set" if full in _SETS else "path" if full in _PATHS else None
            case _:
                return None


def _is_known(full: str) -> bool:
    return full in NAMES or full in READS_WITHOUT or full in FAMILIES or full in _TYPES_WITH_CLOCKS


def root_of(node: ast.expr) -> ast.expr:
    """Return ``X`` of ``X.a[0].b``."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node


def own_nodes(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield the nodes of statements in the order of the text, without what is inside functions and classes.

    Those themselves are yielded, since they bind their names.
    """
    waiting: list[ast.AST] = list(reversed(body))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            waiting += reversed(list(ast.iter_child_nodes(node)))


def scope_of(body: list[ast.stmt], parent: Scope | None, *, is_class: bool = False) -> Scope:
    """Return the scope of a module, class or function with all names that its statements bind.

    Only a module remembers names that stand for an import (``now = time.time``): inside a function the use of the
    import is a finding already.
    """
    scope = Scope(parent, is_class=is_class)
    for node in own_nodes(body):
        match node:
            case ast.Import():
                for name in node.names:
                    bound, full = name.asname or name.name.partition(".")[0], name.name
                    scope.imports[bound] = full if name.asname else bound
                    scope.names.add(bound)
            case ast.ImportFrom():
                _bind_from(scope, node)
            case ast.Global():
                scope.outer.update(node.names)
            case ast.Name(ctx=ast.Store() | ast.Del()):
                scope.names.add(node.id)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                scope.names.add(node.name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                scope.names.add(name)
            case ast.MatchMapping(rest=str(name)):
                scope.names.add(name)
            case _:
                pass
    if parent is None:
        _bind_aliases(scope, body)
    else:
        scope.rebound = scope.names & scope.outer
        scope.names -= scope.outer
    return scope


def _bind_from(scope: Scope, node: ast.ImportFrom) -> None:
    module = "." * node.level + (node.module or "")
    for name in node.names:
        if name.name == "*":
            scope.stars.append(module)
        else:
            bound = name.asname or name.name
            scope.names.add(bound)
            scope.imports[bound] = f"{module}.{name.name}"


def _bind_aliases(scope: Scope, body: list[ast.stmt]) -> None:
    for node in body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name() | ast.Attribute() as value):
                full = scope.full_name(value)
                if _is_known(full):
                    scope.imports[name] = full
            case _:
                pass


def apps_of(tree: ast.Module, module: Scope) -> dict[ast.ClassDef, AppClass]:
    """Return what each App of a file declares. A class is an App when ``atoll.App`` is among its bases, however far."""
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    apps: dict[ast.ClassDef, AppClass] = {}
    for node in classes.values():
        app = AppClass()
        if _declare(node, app, classes, module):
            apps[node] = app
    return apps


def _declare(node: ast.ClassDef, app: AppClass, classes: dict[str, ast.ClassDef], module: Scope) -> bool:
    """Add what a class and its bases in the same file declare; return whether ``atoll.App`` is among them."""
    found = False
    waiting = [node]
    seen = {node.name}  # Each class once: bases may meet again, and a faulty file may have them in a circle.
    while waiting:
        current = waiting.pop()
        for written in current.bases:
            base = written.value if isinstance(written, ast.Subscript) else written
            full = module.full_name(base)
            if full.startswith("atoll.") and full.endswith(".App"):
                found = True
            elif isinstance(base, ast.Name) and base.id in classes:
                waiting += [] if base.id in seen else [classes[base.id]]
                seen.add(base.id)
            elif full not in _PLAIN_BASES:
                app.complete = False
        scope = scope_of(current.body, module, is_class=True)
        app.fields |= scope.names
        for statement in current.body:
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name)):
                    kind = scope.kind_of_annotation(statement.annotation)
                    if kind is not None:
                        app.kinds.setdefault(name, kind)
                case _:
                    pass
    return found
