# SPDX-License-Identifier: Apache-2.0
"""Honest mistakes in the source of an environment: what would make a replay differ, found before the code runs.

Judged is what can run inside a handler: the bodies of the functions and methods of a module. What runs when the module
is imported is not, nor is what only ``if __name__ == "__main__":`` leads to. Nothing is executed, and nothing is known
of other files; so this finds the usual ways of getting it wrong and is no boundary for code that hides what it does.

A finding that is right as it is, is allowed on its line: ``# atoll: allow RULE, reason``.
"""

import ast
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from atoll.base.units import MIB
from atoll.env.lint_rules import FILE_METHODS, RULES, Touch, rule_of_call, rule_of_name
from atoll.env.lint_scope import AppClass, Kind, Scope, apps_of, root_of, scope_of

__all__ = ["SOURCE_CHARS_MAX", "Finding", "lint"]

SOURCE_CHARS_MAX: Final = MIB
"""One file. Python's own parser needs about 100 bytes per character; no module that people write comes near."""

_ALLOWED: Final = re.compile(r"#\s*atoll: allow ([a-z-]+), *\w")
_LINE_ENDS: Final = re.compile(r"\r\n|\r|\n")  # Those of Python, which are fewer than those of str.splitlines.

_MUTATORS: Final = frozenset(
    {
        *("add", "append", "appendleft", "clear", "difference_update", "discard", "extend", "extendleft", "insert"),
        *("intersection_update", "pop", "popitem", "popleft", "remove", "reverse", "rotate", "setdefault", "sort"),
        *("subtract", "symmetric_difference_update", "update"),
    }
)
_MUTATING_FUNCTIONS: Final = frozenset(
    {
        *("bisect.insort", "bisect.insort_left", "bisect.insort_right", "builtins.delattr", "builtins.next"),
        *("builtins.setattr", "heapq.heapify", "heapq.heappop", "heapq.heappush", "heapq.heappushpop"),
        "heapq.heapreplace",
    }
)
_MUTABLE_CALLS: Final = frozenset(
    {
        *("builtins.bytearray", "builtins.dict", "builtins.list", "builtins.set", "collections.Counter"),
        *("collections.OrderedDict", "collections.defaultdict", "collections.deque", "itertools.count"),
    }
)
_FREE_OF_ORDER: Final = frozenset(
    f"builtins.{name}" for name in ("all", "any", "frozenset", "len", "max", "min", "set", "sorted", "sum")
)
_ORDERED: Final = frozenset(
    {
        *("builtins.dict.fromkeys", "builtins.enumerate", "builtins.filter", "builtins.iter", "builtins.list"),
        *("builtins.map", "builtins.tuple", "builtins.zip", "collections.OrderedDict", "collections.deque"),
        *("functools.reduce", "itertools.chain", "itertools.islice"),
    }
)
_KEEPING: Final = frozenset({"builtins.filter", "builtins.list", "builtins.map", "builtins.tuple", "itertools.chain"})
"""Of ``_ORDERED``, those whose elements do not depend on the order: ``sorted(list(s))`` is harmless."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Finding:
    """One place that would make a replay differ.

    Attributes:
        line: From 1.
        column: From 1, in characters.
        rule: Its word in ``lint_rules.RULES``.
        sentence: What is there and why it matters, without a full stop.
        instead: What to use; completes "use ...".
        filename: As it was given.
    """

    line: int
    column: int
    rule: str
    sentence: str
    instead: str
    filename: str

    def __str__(self) -> str:
        return f"{self.filename}:{self.line}:{self.column}: {self.sentence}; use {self.instead} [{self.rule}]"


def lint(source: str, filename: str) -> tuple[Finding, ...]:
    """Return what is found in one file, by line and column. Never raises: what is no Python is a finding.

    Args:
        source: The whole text.
        filename: For the findings.
    """
    try:
        places = _read(source)
    except SyntaxError as error:
        line, offset = error.lineno or 1, (error.offset or 1) - 1
        places = [_Place(line, offset, 0, "syntax", f"this is not Python: {error.msg}")]
    except (ValueError, MemoryError, RecursionError) as error:
        # Null bytes, surrogates, brackets within brackets within brackets.
        places = [_Place(1, 0, 0, "syntax", f"this cannot be read: {type(error).__name__}")]
    lines = _LINE_ENDS.split(source)
    found = {_finding(place, lines, filename) for place in places if not _is_allowed(place, lines)}
    return tuple(sorted(found, key=lambda finding: (finding.line, finding.column, finding.rule, finding.sentence)))


@dataclass(frozen=True, slots=True)
class _Place:
    """A finding before it is shown: ``offset`` in bytes from 0, ``last`` the last line of what was found."""

    line: int
    offset: int
    last: int
    rule: str
    sentence: str


def _read(source: str) -> list[_Place]:
    if len(source) > SOURCE_CHARS_MAX:
        return [_Place(1, 0, 0, "syntax", f"the file has more than {SOURCE_CHARS_MAX} characters")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of the parser, about things such as "\d": its author hears them elsewhere.
        tree = ast.parse(source)
    reader = _Reader(tree)
    reader.read(tree)
    return reader.places


def _is_allowed(place: _Place, lines: Sequence[str]) -> bool:
    text = "\n".join(lines[place.line - 1 : max(place.line, place.last)])
    return any(match[1] == place.rule for match in _ALLOWED.finditer(text))


def _finding(place: _Place, lines: Sequence[str], filename: str) -> Finding:
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    before = line.encode("utf-8", "replace")[: place.offset].decode("utf-8", "replace")
    return Finding(place.line, len(before) + 1, place.rule, place.sentence, RULES[place.rule].instead, filename)


class _Reader(ast.NodeVisitor):
    """Walks a module; function bodies wait until all of the module's own statements were seen."""

    def __init__(self, tree: ast.Module) -> None:
        self.places: list[_Place] = []
        self._scope: Scope = scope_of(tree.body, None)
        self._module: Final = self._scope
        self._apps: Final = apps_of(tree, self._module)
        self._only_main: Final = _only_main(tree)
        self._waiting: list[tuple[_Function | ast.Lambda, Scope, AppClass | None]] = []
        self._inside = False
        self._app: AppClass | None = None
        self._free: set[ast.AST] = set()  # Expressions whose order or identity does not matter where they stand.
        self._assigned: Final = frozenset(
            name for name in self._module.names - set(self._module.imports) if name not in _defined(tree)
        )

    def read(self, tree: ast.Module) -> None:
        for statement in tree.body:
            self.visit(statement)
        self._inside = True
        for function, scope, app in self._waiting:
            self._scope, self._app = scope, app
            self._visit_body(function)

    def _report(self, node: ast.expr | ast.stmt, rule: str, what: str) -> None:
        sentence = f"{what}: {RULES[rule].why}"
        self.places.append(_Place(node.lineno, node.col_offset, node.end_lineno or 0, rule, sentence))

    def _touch(self, node: ast.expr, touch: Touch | None) -> None:
        if touch is not None:
            self._report(node, touch.rule, touch.what)

    # Where code runs

    def visit_If(self, node: ast.If) -> None:
        branches = node.orelse if _is_main(node) else [node.test, *node.body, *node.orelse]
        for part in branches:
            self.visit(part)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_function(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_function(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)
        around, self._app = (self._scope, self._app), self._apps.get(node)
        self._scope = scope_of(node.body, self._scope, is_class=True)
        for statement in node.body:
            if self._app is not None:
                self._judge_class_state(statement)
            self.visit(statement)
        self._scope, self._app = around

    def _visit_function(self, node: _Function | ast.Lambda) -> None:
        """Visit what is evaluated where the function is defined; its body now, when that runs inside a handler."""
        decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
        for part in (*decorators, *node.args.defaults, *node.args.kw_defaults):
            if part is not None:
                self.visit(part)
        if node in self._only_main:
            return
        if self._inside:
            around = self._scope, self._app
            self._visit_body(node)
            self._scope, self._app = around
        else:
            self._waiting.append((node, self._scope, self._app))

    def _visit_body(self, node: _Function | ast.Lambda) -> None:
        body: list[ast.stmt] = [ast.Expr(node.body)] if isinstance(node, ast.Lambda) else node.body
        scope = scope_of(body, self._scope)
        parameters = _parameters(node.args)
        for parameter in parameters:
            scope.names.add(parameter.arg)
            kind = self._scope.kind_of_annotation(parameter.annotation)
            if kind is not None:
                scope.kinds[parameter.arg] = kind
        if self._scope.is_class and self._app is not None and parameters and not _is_static(node):
            scope.receiver, scope.app = parameters[0].arg, self._app
        if isinstance(node, _Function) and node.name == "__hash__":
            scope.imports["hash"] = ""  # What a hash is made of; nobody looks at its value there.
            scope.names.add("hash")
        self._scope, self._app = scope, None
        for statement in body:
            self.visit(statement)

    # What is touched

    def visit_Name(self, node: ast.Name) -> None:
        if not self._inside or not isinstance(node.ctx, ast.Load):
            return
        full = self._scope.full_name(node)
        self._touch(node, rule_of_name(full))
        if full in {"builtins.hash", "builtins.id"} and node not in self._free:
            self._report(node, node.id, f"{node.id}()")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if self._inside and isinstance(node.ctx, ast.Load):
            touch = rule_of_name(self._scope.full_name(node))
            if touch is not None:
                self._touch(node, touch)
                return
        elif self._inside:
            self._judge_target(node)
        self.visit(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if self._inside and not isinstance(node.ctx, ast.Load):
            self._judge_target(node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        full = self._scope.full_name(node.func)
        if self._inside:
            values = [*node.args, *(keyword.value for keyword in node.keywords)]
            last_is_none = bool(values) and isinstance(values[-1], ast.Constant) and values[-1].value is None
            self._touch(node, rule_of_call(full, len(values), last_is_none=last_is_none))
            self._judge_file_method(node, full)
            self._judge_mutation(node, full)
            self._judge_order(node, full)
        for keyword in node.keywords:
            if keyword.arg == "default_factory" and not self._inside:
                self._touch(keyword.value, rule_of_name(self._scope.full_name(keyword.value)))
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Two addresses that are only compared with each other do not leave the event."""
        called = [part.func for part in (node.left, *node.comparators) if isinstance(part, ast.Call)]
        addresses = [function for function in called if self._scope.full_name(function) == "builtins.id"]
        if len(addresses) == len(node.comparators) + 1:
            self._free.update(addresses)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        for name in node.names:
            if self._inside and name in self._scope.rebound:
                self._report(node, "global", f"global {name}")

    def _judge_file_method(self, node: ast.Call, full: str) -> None:
        if not (isinstance(node.func, ast.Attribute) and node.func.attr in FILE_METHODS):
            return
        if full.startswith("pathlib.") or self._scope.kind_of(node.func.value) == "path":
            self._report(node, "file", f"Path.{node.func.attr}()")

    # What is changed

    def _judge_target(self, node: ast.Attribute | ast.Subscript) -> None:
        """Judge an attribute or an element that is assigned or deleted."""
        root = root_of(node)
        if isinstance(root, ast.Name) and self._scope.owner(root.id) is self._module:
            self._report(node, "module-state", f"{root.id} is changed")
        if isinstance(node, ast.Attribute):
            app = self._scope.app_of(node.value)
            if app is not None and app.complete and node.attr not in app.fields:
                self._report(node, "undeclared", f"{ast.unparse(node)} is not declared")

    def _judge_mutation(self, node: ast.Call, full: str) -> None:
        changed: ast.expr | None = None
        if isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATORS:
            changed = node.func.value
        elif full in _MUTATING_FUNCTIONS and node.args:
            changed = node.args[0]
        if changed is None:
            return
        root = root_of(changed)
        if not (isinstance(root, ast.Name) and self._scope.owner(root.id) is self._module):
            return
        # A class or an imported module may well have a function `add`; what holds a value is changed by it.
        of_a_class = changed is not root and root.id not in self._module.imports
        if of_a_class or root.id in self._assigned:
            self._report(node, "module-state", f"{root.id} is changed")

    def _judge_class_state(self, statement: ast.stmt) -> None:
        if not isinstance(statement, ast.Assign):
            return
        names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        value = statement.value
        mutable = isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
        if not mutable and isinstance(value, ast.Call):
            mutable = self._scope.full_name(value.func) in _MUTABLE_CALLS
        for name in names:
            if mutable and not name.startswith("__"):
                self._report(statement, "class-state", f"{name} has no annotation")

    # What is known of values

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        kind = self._scope.kind_of(node.value)
        for target in node.targets:
            self.visit(target)
            self._scope.learn(target, kind)
            if isinstance(target, ast.Tuple | ast.List) and len(target.elts) > 1:
                self._judge_walk(node.value, kind, "unpacking a set")

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.target)
        if node.value is not None:
            self.visit(node.value)
            self._scope.learn(node.target, self._scope.kind_of(node.value))
        kind = self._scope.kind_of_annotation(node.annotation)
        if kind is not None:
            self._scope.learn(node.target, kind)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.op, ast.Add):
            self._judge_walk(node.value, self._scope.kind_of(node.value), "+= of a set")
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self._scope.learn(node.target, self._scope.kind_of(node.value))

    # Whose order is used

    def _judge_walk(self, node: ast.expr, kind: Kind | None, what: str) -> None:
        if self._inside and kind == "set":
            self._report(node, "set-order", what)

    def visit_For(self, node: ast.For) -> None:
        self._visit_for(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self._visit_for(node)

    def _visit_for(self, node: ast.For | ast.AsyncFor) -> None:
        self._judge_walk(node.iter, self._scope.kind_of(node.iter), "a loop over a set")
        self._scope.learn(node.target, None)
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._visit_comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._visit_comprehension(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._visit_comprehension(node)

    def _visit_comprehension(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp) -> None:
        for generator in node.generators:
            if node not in self._free:
                self._judge_walk(generator.iter, self._scope.kind_of(generator.iter), "a loop over a set")
        self.generic_visit(node)

    def visit_List(self, node: ast.List) -> None:
        self._visit_elements(node)

    def visit_Tuple(self, node: ast.Tuple) -> None:
        self._visit_elements(node)

    def _visit_elements(self, node: ast.List | ast.Tuple) -> None:
        if node not in self._free:
            self._judge_starred(node.elts)
        self.generic_visit(node)

    def _judge_starred(self, parts: Sequence[ast.expr]) -> None:
        for part in parts:
            if isinstance(part, ast.Starred):
                self._judge_walk(part.value, self._scope.kind_of(part.value), "unpacking a set")

    def _judge_order(self, node: ast.Call, full: str) -> None:
        """Judge a call that takes the elements of a set one after the other."""
        method, of_a_set = "", False
        if isinstance(node.func, ast.Attribute):
            method, of_a_set = node.func.attr, self._scope.kind_of(node.func.value) == "set"
        if of_a_set and method == "pop":
            self._judge_walk(node, "set", "set.pop()")
        if of_a_set or full in _FREE_OF_ORDER or (full in _KEEPING and node in self._free):
            self._free.update(node.args)
            return
        self._judge_starred(node.args)
        if full in _ORDERED or method in {"extend", "join"}:
            name = method or full.removeprefix("builtins.")
            for part in node.args:
                self._judge_walk(node, self._scope.kind_of(part), f"{name}() of a set")


def _parameters(arguments: ast.arguments) -> list[ast.arg]:
    """Return all parameters in the order of the text; the first is ``self`` in a method."""
    found = [*arguments.posonlyargs, *arguments.args]
    found += [arguments.vararg] if arguments.vararg is not None else []
    found += arguments.kwonlyargs
    return found + ([arguments.kwarg] if arguments.kwarg is not None else [])


def _is_static(node: _Function | ast.Lambda) -> bool:
    """Return whether the first parameter of a method is not its object: in class methods and static ones."""
    if isinstance(node, ast.Lambda):
        return True
    return any(
        isinstance(mark, ast.Name) and mark.id in {"classmethod", "staticmethod"} for mark in node.decorator_list
    )


def _defined(tree: ast.Module) -> frozenset[str]:
    return frozenset(node.name for node in tree.body if isinstance(node, _Function | ast.ClassDef))


def _is_main(node: ast.stmt) -> bool:
    """Return whether a statement is ``if __name__ == "__main__":``."""
    if not (isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and len(node.test.comparators) == 1):
        return False
    sides = (node.test.left, node.test.comparators[0])
    return any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides) and any(
        isinstance(side, ast.Constant) and side.value == "__main__" for side in sides
    )


def _names_in(nodes: Sequence[ast.AST]) -> frozenset[str]:
    return frozenset(inner.id for node in nodes for inner in ast.walk(node) if isinstance(inner, ast.Name))


def _only_main(tree: ast.Module) -> frozenset[ast.AST]:
    """Return the functions of a module that nothing but its ``__main__`` block leads to: the client beside the App."""
    functions = {node.name: node for node in tree.body if isinstance(node, _Function)}
    main = [part for node in tree.body if isinstance(node, ast.If) and _is_main(node) for part in node.body]
    rest = [node for node in tree.body if not isinstance(node, _Function) and not _is_main(node)]
    from_main = _reached(_names_in(main), functions)
    others = [functions[name] for name in functions if name not in from_main]
    elsewhere = _reached(_names_in([*rest, *others]), functions)
    return frozenset(functions[name] for name in from_main - elsewhere)


def _reached(names: frozenset[str], functions: dict[str, _Function]) -> frozenset[str]:
    """Return the functions that these names lead to, directly or through others."""
    found: set[str] = set()
    waiting = sorted(names)
    while waiting:
        name = waiting.pop()
        if name in functions and name not in found:
            found.add(name)
            waiting += sorted(_names_in([functions[name]]))
    return frozenset(found)
