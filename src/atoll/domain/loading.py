# SPDX-License-Identifier: Apache-2.0
"""Code as data: the files of an application in one bundle that is named by its hash, and how it becomes a program.

Code goes with its environment, so what is run is the bundle and never the file that it was made from: a node that has
the bundle needs nothing else, and a replay runs what ran then. Only Python source goes in: the file, and those beside
it that it imports. Packages are named with their versions, so that a node without them can say so before it takes an
environment over.
"""

import ast
import builtins
import importlib.metadata
import re
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Annotated, Final, final

import msgspec

from atoll.base.errors import CorruptError, UserError
from atoll.domain.limits import BUNDLE_BYTES_MAX, BUNDLE_FILES_MAX
from atoll.env.app import App, Program, program_of
from atoll.env.limits import CLASS_CHARS_MAX
from atoll.env.lint import lint
from atoll.env.tuples import Tuple

__all__ = ["Bundle", "Loaded", "bundle_of", "check_bundle", "decode_bundle", "imports_of", "level_of", "load"]

FORMAT: Final = 1
_OURS: Final = frozenset({"atoll", "atoll-fast"})  # Every node has them.
PREFIX: Final = "atoll_app_"  # Module names of bundles; the hash follows, so that two versions can be loaded at once.

FINDINGS_MAX: Final = 20  # Limit. Of the lint, shown at once.
_LATER: Final = re.compile(r"^[ \t]+(?:from[ \t]+(\w[\w.]*)[ \t]+import|import[ \t]+(\w[\w., \t]*))", re.MULTILINE)
_encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode


@final
class Bundle(msgspec.Struct, frozen=True, array_like=True):
    """The code of an application.

    Attributes:
        format: ``FORMAT``; always the first item.
        entry: Name of the module that has the application, such as ``auction``.
        app: Name of its class.
        files: Source by name of the module, such as ``shop.prices``.
        needs: Installed packages that it imports: name and version.
    """

    format: int
    entry: str
    app: Annotated[str, msgspec.Meta(max_length=CLASS_CHARS_MAX)]
    files: Annotated[dict[str, str], msgspec.Meta(max_length=BUNDLE_FILES_MAX)]
    needs: tuple[tuple[str, str], ...] = ()

    def encode(self) -> bytes:
        """Return its bytes; the same for the same content."""
        return _encode(self)


class Loaded(msgspec.Struct, frozen=True):
    """A bundle that can run.

    Attributes:
        code: SHA-256 of its bytes.
        bundle: The code.
        program: What it is.
    """

    code: bytes
    bundle: Bundle
    program: Program


_decoder: Final = msgspec.msgpack.Decoder(Bundle)


def decode_bundle(data: bytes) -> Bundle:
    """Return a bundle; total.

    Raises:
        CorruptError: The bytes are none of this version.
    """
    if len(data) > BUNDLE_BYTES_MAX:
        raise CorruptError("a bundle that is too large")
    try:
        bundle = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError(f"a bundle does not decode: {error}") from error
    if bundle.format != FORMAT or bundle.entry not in bundle.files:
        raise CorruptError("a bundle of another format")
    return bundle


def bundle_of(target: str) -> Bundle:
    """Read the code of ``FILE[:App]``: a Python file, and the modules beside it that it imports.

    Raises:
        UserError: A603, a file cannot be read, is no Python, or is too large; A604, it has no application, or several.
    """
    path, app = _split(target)
    files: dict[str, str] = {}
    waiting = [path.stem]
    outside: set[str] = set()
    while waiting:
        name = waiting.pop(0)
        if name in files:
            continue
        source = _read(path.parent / f"{name}.py")
        files[name] = source
        for imported in _imports(source, path.parent / f"{name}.py"):
            if imported.isidentifier() and (path.parent / f"{imported}.py").is_file():
                waiting.append(imported)
            else:
                outside.add(imported.partition(".")[0])
        if len(files) > BUNDLE_FILES_MAX:
            sentence, fix = f"{target} imports more than {BUNDLE_FILES_MAX} files", "make an installed package of some"
            raise UserError("A603", sentence, where=str(path.parent), fix=fix)
    bundle = Bundle(FORMAT, path.stem, app or _only_app(files[path.stem], path), files, _versions(outside))
    if len(bundle.app) > CLASS_CHARS_MAX:
        sentence = f"the name of {target}'s application is longer than {CLASS_CHARS_MAX} characters"
        raise UserError("A604", sentence, fix="give its class a shorter name")
    if len(bundle.encode()) > BUNDLE_BYTES_MAX:
        sentence, fix = (
            f"the code of {target} is larger than {BUNDLE_BYTES_MAX} bytes",
            "make an installed package of some",
        )
        raise UserError("A603", sentence, where=str(path.parent), fix=fix)
    return bundle


def check_bundle(bundle: Bundle) -> None:
    """Return if a handler of this code does nothing that a replay would not do again, as far as reading it shows.

    Raises:
        UserError: A614, it does; each place, and what to use instead.
    """
    found = [finding for name, source in bundle.files.items() for finding in lint(source, f"{name}.py")]
    if found:
        shown = [str(finding) for finding in found[:FINDINGS_MAX]]
        more = [f"and {len(found) - FINDINGS_MAX} more"] if len(found) > FINDINGS_MAX else []
        raise UserError(
            "A614",
            f"handlers of {bundle.entry}.py do what a replay cannot repeat",
            where="\n".join(shown + more),
            fix=f"change it; or say on that line why it may stay: # atoll: allow {found[0].rule}, it is for ...",
        )


def imports_of(bundle: Bundle) -> list[str]:
    """Return the modules that a bundle imports where it does so later, inside functions, its own ones left out.

    Text is looked at, not syntax, in a tenth of the time; so what a comment or a string says may be among them.
    """
    found: set[str] = set()
    for source in bundle.files.values():
        for of, several in _LATER.findall(source):
            found |= {of} if of else {name.split()[0] for name in several.split(",") if name.strip()}
    return sorted(found - bundle.files.keys())


def level_of(bundle: Bundle) -> str:
    """Return the ``level`` that the application's class gives itself, without running any of its code; empty: none.

    Raises:
        UserError: A603, its file is no Python.
    """
    for node in _parsed(bundle.files[bundle.entry], Path(f"{bundle.entry}.py")).body:
        if not isinstance(node, ast.ClassDef) or node.name != bundle.app:
            continue
        for line in node.body:
            match line:
                case ast.Assign([ast.Name("level")], ast.Constant(str(level))) | ast.AnnAssign(
                    ast.Name("level"), _, ast.Constant(str(level))
                ):
                    return level
                case _:
                    pass
    return ""


def load(bundle: Bundle) -> Loaded:
    """Make a bundle's modules, and look at its application.

    Raises:
        UserError: A601, the application cannot be run; A603, its code raises when it is loaded; A605, a package that it
            needs is not installed here.
    """
    code = sha256(bundle.encode()).digest()
    prefix = PREFIX + code.hex()[:16]
    module = sys.modules.get(f"{prefix}.{bundle.entry}")
    if module is None:
        _check_needs(bundle)
        modules = _Modules(prefix, bundle.files)
        try:
            module = modules.load(bundle.entry)
        except BaseException as error:  # A file that ends with sys.exit(), say, must not end this process.
            modules.forget()
            raise UserError(
                "A603",
                f"{bundle.entry}.py cannot be loaded",
                where=f"{type(error).__name__}: {error}",
                fix="run it with python first",
            ) from error
    return Loaded(code, bundle, _program(bundle, module))


def _program(bundle: Bundle, module: ModuleType) -> Program:
    values: Sequence[object] = tuple(vars(module).values())
    apps = [one for one in values if isinstance(one, type) and issubclass(one, App) and one is not App]
    known = [one for one in values if isinstance(one, type) and issubclass(one, Tuple) and one is not Tuple]
    main = [one for one in apps if one.__name__ == bundle.app]
    if not main:
        raise UserError(
            "A604",
            f"{bundle.entry}.py has no application called {bundle.app}",
            where=f"it has: {', '.join(one.__name__ for one in apps) or 'none'}",
            fix=f"name one: {bundle.entry}.py:{apps[0].__name__}" if apps else "write: class Name(atoll.App)",
        )
    try:
        return program_of(main[0], [one for one in apps if one is not main[0]], known)
    except (
        TypeError,
        ValueError,
        NameError,
        AttributeError,
        RecursionError,
    ) as error:  # Of annotations, looked at now.
        raise UserError(
            "A601",
            f"the application {bundle.app} cannot be run: a tuple has a field that cannot be written",
            where=f"{type(error).__name__}: {error}",
            fix="see docs/reference/env.md",
        ) from error


@final
class _Modules:
    """The modules of one bundle. They find each other by their plain names, and nobody else finds them by those.

    Args:
        prefix: Under which they are in ``sys.modules``: annotations are looked up there.
        files: Source by name.
    """

    def __init__(self, prefix: str, files: Mapping[str, str]) -> None:
        self._prefix, self._files = prefix, files
        self._made: dict[str, ModuleType] = {}
        self._builtins = {**vars(builtins), "__import__": self._import}

    def load(self, name: str) -> ModuleType:
        """Return a module of the bundle, made if need be."""
        if name not in self._made:
            module = ModuleType(f"{self._prefix}.{name}")
            module.__file__ = f"{name}.py"
            vars(module)["__builtins__"] = self._builtins
            self._made[name] = sys.modules[module.__name__] = module
            exec(compile(self._files[name], f"{name}.py", "exec"), vars(module))  # noqa: S102 - that is its purpose.
        return self._made[name]

    def forget(self) -> None:
        """Take everything back that was made."""
        for module in self._made.values():
            sys.modules.pop(module.__name__, None)

    def _import(
        self,
        name: str,
        globals_: Mapping[str, object] | None = None,
        locals_: Mapping[str, object] | None = None,
        names: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        if not level and name in self._files:
            return self.load(name)
        return builtins.__import__(name, globals_, locals_, names, level)


def _split(target: str) -> tuple[Path, str]:
    name, _, app = target.partition(".py:")
    path = Path(f"{name}.py" if app else target)
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise UserError("A603", f"{target} is no Python file", fix="name it as FILE.py or FILE.py:App")
    return path, app


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("A603", f"cannot read {path}", where=str(error), fix="check the name and the mode") from error


def _parsed(source: str, path: Path) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError("A603", f"{path} is no Python", where=str(error), fix=f"python {path}") from error


def _imports(source: str, path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(_parsed(source, path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
    return found


def _only_app(source: str, path: Path) -> str:
    """Return the one class that looks like an application: its base is called ``App``."""
    names = [
        node.name
        for node in _parsed(source, path).body
        if isinstance(node, ast.ClassDef)
        and any((isinstance(base, ast.Attribute) and base.attr == "App") or _is_app(base) for base in node.bases)
    ]
    if len(names) != 1:
        raise UserError(
            "A604",
            f"{path} has {'no application' if not names else 'several applications'}",
            where=f"classes with the base atoll.App: {', '.join(names) or 'none'}",
            fix=f"name one, such as {path}:{names[-1]}" if names else "write: class Name(atoll.App)",
        )
    return names[0]


def _is_app(base: ast.expr) -> bool:
    return isinstance(base, ast.Name) and base.id == "App"


def _versions(modules: set[str]) -> tuple[tuple[str, str], ...]:
    """Return the installed packages that bring these modules, with their versions."""
    packages = importlib.metadata.packages_distributions()
    names = sorted({name for module in modules - set(sys.stdlib_module_names) for name in packages.get(module, ())})
    return tuple((name, importlib.metadata.version(name)) for name in names if name not in _OURS)


def _check_needs(bundle: Bundle) -> None:
    missing: list[str] = []
    for name, version in bundle.needs:
        try:
            importlib.metadata.version(name)
        except (importlib.metadata.PackageNotFoundError, ValueError):  # The bundle is a stranger's: any text is a name.
            missing.append(f"{name}=={version}")
    if missing:
        raise UserError(
            "A605",
            f"{bundle.entry}.py needs packages that are not installed here",
            where=", ".join(missing),
            fix=f"{sys.executable} -m pip install {' '.join(missing)}",
        )
