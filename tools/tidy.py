# SPDX-License-Identifier: Apache-2.0
"""What no other tool judges of the house style: sizes, first lines, words, places and names. See CONTRIBUTING.md.

Prints one line for each fault (``path:line: sentence``) and ends with status 1 if there is any. A fault may be allowed
on its line with ``tidy: allow NAME, reason``; NAME is the word in brackets at the end of the fault, and the reason is
for the reviewer. Files that git would not commit are not judged.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

MODULE_LINES_MAX: Final = 700
FUNCTION_LINES_MAX: Final = 70  # Without its docstring.
PARAMETERS_MAX: Final = 5  # Without self or cls.
CONSTRUCTOR_PARAMETERS_MAX: Final = 8  # Keyword-only ones included, which name themselves at the call.

SPDX: Final = "# SPDX-License-Identifier: Apache-2.0"
SPDX_WITHIN: Final = 2  # A `#!` line may come first.
FRAGMENT: Final = re.compile(r"(\d+|[a-z0-9-]+)\.(breaking|security|feature|fix|deprecation)\.md")
ADR: Final = re.compile(r"(\d{4})-[a-z0-9]+(-[a-z0-9]+)*\.md")
COMMAND: Final = re.compile(r"\.(command|option|argument)\(")  # click's decorators.
ROOMS: Final = ("src/", "tests/", "tools/", "bench/", "fuzz/", "examples/")  # Where the rules for Python hold.
TEXT: Final = (".py", ".md", ".toml", ".txt", ".cfg", ".yml", ".yaml", ".json", ".sh", ".mk", "")
TEXT_BYTES_MAX: Final = 1 << 20  # A larger file is data, and not looked into.
RANDOM_FUNCTIONS: Final = frozenset(
    {"betavariate", "choice", "choices", "expovariate", "gauss", "getrandbits", "normalvariate", "randbytes", "randint"}
    | {"random", "randrange", "sample", "seed", "shuffle", "triangular", "uniform"}
)
# Words are put together here so that this file does not find itself.
_HOSTS: Final = "|".join(("pypi" + r"\.org", "python" + r"hosted\.org", "npm" + r"js\.(org|com)", "/simple" + "/?$"))


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken rule. ``line`` counts from 1; ``name`` is what an allowance names."""

    path: str
    line: int
    name: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.sentence} [{self.name}]"


@dataclass(frozen=True, slots=True)
class Word:
    """A pattern that must not occur in files whose path begins with one of ``places``."""

    name: str
    pattern: re.Pattern[str]
    sentence: str
    places: tuple[str, ...] = ("",)


WORDS: Final = (
    Word("fixme", re.compile(r"\b(FIX" + r"ME|XX" + r"X)\b"), "mend it, or open an issue and name that"),
    Word("todo", re.compile(r"\bTO" + r"DO\b(?!\s*\(#\d+\))"), "unfinished work names its issue: (#12)"),
    Word("path", re.compile(r"(?<![\w.$~/-])/(work|home|root|Users)/\w"), "a path of somebody's own machine"),
    Word("index", re.compile(_HOSTS, re.MULTILINE), "a package index is everybody's own choice"),
    Word(
        "sleep",
        re.compile(r"\btime" + r"\.sleep\b|\bfrom time import .*\bsleep\b"),
        "wait on a condition, with a bound, never for a time",
        ("tests/",),
    ),
    Word(
        "mock",
        re.compile(r"\bunittest" + r"\.mock\b|\bfrom unittest import .*\bmock\b|\bimport mock\b|\bmocker\b"),
        "use the real thing or a fake that passes the same contract tests",
        ("tests/",),
    ),
)


def judge(path: str, text: str) -> Iterator[Fault]:
    """Yield the faults of one file, allowed ones left out.

    Args:
        path: Relative to the root of the repository, with slashes.
        text: Its whole content.
    """
    lines = text.splitlines()
    for fault in _judge(path, text, lines):
        line = lines[fault.line - 1] if 0 < fault.line <= len(lines) else ""
        if not re.search(rf"tidy: allow {fault.name}, \w", line):
            yield fault


def _judge(path: str, text: str, lines: list[str]) -> Iterator[Fault]:
    for word in WORDS:
        if path.startswith(word.places):
            for match in word.pattern.finditer(text):
                yield Fault(path, text.count("\n", 0, match.start()) + 1, word.name, word.sentence)
    yield from _judge_name(path)
    if path.endswith(".py") and path.startswith(ROOMS):
        yield from _judge_python(path, text, lines)


def _judge_name(path: str) -> Iterator[Fault]:
    place = PurePosixPath(path)
    folder, name = str(place.parent), place.name
    if folder == "docs/adr" and name != "README.md" and not ADR.fullmatch(name):
        yield Fault(path, 1, "adr", "an ADR is called NNNN-title-in-small-letters.md")
    if folder == "changelog.d" and name != "README.md" and not FRAGMENT.fullmatch(name):
        yield Fault(path, 1, "fragment", "a fragment is called ISSUE.breaking|security|feature|fix|deprecation.md")


def _judge_python(path: str, text: str, lines: list[str]) -> Iterator[Fault]:
    if SPDX not in lines[:SPDX_WITHIN]:
        yield Fault(path, 1, "spdx", f"the first line is: {SPDX}")
    if len(lines) > MODULE_LINES_MAX:
        yield Fault(path, MODULE_LINES_MAX, "module", f"{len(lines)} lines, at most {MODULE_LINES_MAX}: split by task")
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield Fault(path, error.lineno or 1, "syntax", f"this is not Python: {error.msg}")
        return
    if not ast.get_docstring(tree):
        yield Fault(path, 1, "docstring", "a module opens with a docstring that says what it decides")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _judge_function(path, node)
        elif path.startswith("src/"):
            yield from _judge_random(path, node)


def _judge_function(path: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Fault]:
    size = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        size -= (first.end_lineno or first.lineno) - first.lineno + 1
    if size > FUNCTION_LINES_MAX:
        yield Fault(path, node.lineno, "function", f"{node.name} has {size} lines, at most {FUNCTION_LINES_MAX}")
    if path.startswith("tests/"):
        return  # Fixtures and drawn values arrive as parameters.
    if any(COMMAND.search(ast.unparse(decorator)) for decorator in node.decorator_list):
        return  # The parameters of a command are its command line.
    positional = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    if positional[:1] in (["self"], ["cls"]):
        del positional[0]
    total = len(positional) + len(node.args.kwonlyargs)
    bound = CONSTRUCTOR_PARAMETERS_MAX if node.name == "__init__" else PARAMETERS_MAX
    if len(positional) > PARAMETERS_MAX or total > bound:
        sentence = f"{node.name} has {total} parameters, at most {bound}: make a frozen options class"
        if total <= bound:
            sentence = f"{node.name} has {len(positional)} parameters without names, at most {PARAMETERS_MAX}"
        yield Fault(path, node.lineno, "parameters", sentence)


def _judge_random(path: str, node: ast.AST) -> Iterator[Fault]:
    """Randomness is handed in; the functions of the module share one hidden state."""
    sentence = "randomness is handed in as Draws or Random, never drawn from the module"
    if isinstance(node, ast.ImportFrom) and node.module == "random":
        for name in node.names:
            if name.name in RANDOM_FUNCTIONS:
                yield Fault(path, node.lineno, "random", sentence)
    elif (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "random"
        and node.attr in RANDOM_FUNCTIONS
        and isinstance(node.ctx, ast.Load)
    ):
        yield Fault(path, node.lineno, "random", sentence)


def judge_all(files: dict[str, Callable[[], str]]) -> list[Fault]:
    """Return the faults of a set of files, by path and line; ``files`` gives the content when asked."""
    faults = [fault for path, content in files.items() for fault in judge(path, content())]
    numbers: dict[str, str] = {}
    for path in sorted(files):
        match = ADR.fullmatch(PurePosixPath(path).name)
        if match and path.startswith("docs/adr/"):
            other = numbers.setdefault(match[1], path)
            if other != path:
                faults.append(Fault(path, 1, "adr", f"{other} has the same number"))
    return sorted(faults, key=lambda fault: (fault.path, fault.line))


def _listed(root: Path) -> list[str]:
    """Return what git would commit: known files that still exist, and new ones that are not ignored."""
    found = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
    )
    return sorted({name for name in found.stdout.decode().split("\0") if name})


def _content_of(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def main(root: Path) -> int:
    """Judge a repository; return the exit status."""
    files: dict[str, Callable[[], str]] = {}
    for name in _listed(root):
        path = root / name
        if path.suffix in TEXT and path.is_file() and path.stat().st_size <= TEXT_BYTES_MAX:
            files[name] = partial(_content_of, path)
    faults = judge_all(files)
    for fault in faults:
        print(fault)
    print(f"tidy: {len(files)} files, {len(faults)} faults" if faults else f"tidy: {len(files)} files, in order")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else __file__ + "/../..").resolve()))
