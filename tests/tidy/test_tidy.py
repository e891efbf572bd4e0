# SPDX-License-Identifier: Apache-2.0
"""The tidy check finds each fault that it is there for, in a repository made of bad samples, and no other."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAD = '# SPDX-License-Identifier: Apache-2.0\n"""A sample."""\n'
BODY_69 = "    x = 1\n" * 69

# Path, content, expected (line, name) of each fault.
SAMPLES: list[tuple[str, str, list[tuple[int, str]]]] = [
    ("src/good.py", HEAD, []),
    ("src/no_spdx.py", '"""A sample."""\n', [(1, "spdx")]),
    ("src/spdx_third.py", "#!/usr/bin/python3\n\n" + HEAD, [(1, "spdx")]),
    ("src/spdx_second.py", "#!/usr/bin/python3\n" + HEAD, []),
    ("src/no_docstring.py", HEAD.splitlines()[0] + "\nx = 1\n", [(1, "docstring")]),
    ("src/broken.py", HEAD + "def (\n", [(3, "syntax")]),
    ("src/module_700.py", HEAD + "x = 1\n" * 698, []),
    ("src/module_701.py", HEAD + "x = 1\n" * 699, [(700, "module")]),
    ("src/function_70.py", f"{HEAD}def f():\n{BODY_69}", []),
    ("src/function_71.py", f"{HEAD}def f():\n{BODY_69}    y = 2\n", [(3, "function")]),
    ("src/function_documented.py", f'{HEAD}async def f():\n    """One.\n\n    Two.\n    """\n{BODY_69}', []),
    (
        "src/method_71.py",
        f"{HEAD}class C:\n    def f(self):\n{BODY_69.replace('    x', '        x')}        y = 2\n",
        [(4, "function")],
    ),
    ("src/five.py", HEAD + "def f(a, b, /, c, *, d, e): ...\n", []),
    ("src/six.py", HEAD + "def f(a, b, c, d, e, *, f): ...\n", [(3, "parameters")]),
    ("src/init_eight.py", HEAD + "class C:\n    def __init__(self, a, b, c, d, e, *, f, g, h): ...\n", []),
    (
        "src/init_nine.py",
        HEAD + "class C:\n    def __init__(self, *, a, b, c, d, e, f, g, h, i): ...\n",
        [(4, "parameters")],
    ),
    ("src/init_nameless.py", HEAD + "class C:\n    def __init__(self, a, b, c, d, e, f): ...\n", [(4, "parameters")]),
    ("src/command.py", HEAD + "@click.option('-a')\ndef f(a, b, c, d, e, f): ...\n", []),
    ("tests/six.py", HEAD + "def test_f(a, b, c, d, e, f): ...\n", []),
    ("src/random_function.py", HEAD + "import random\nx = random.random()\n", [(4, "random")]),
    ("src/random_name.py", HEAD + "from random import Random, choice\n", [(3, "random")]),
    ("src/random_class.py", HEAD + "import random\nfrom random import Random\nx = random.Random(1).random()\n", []),
    ("bench/random_function.py", HEAD + "import random\nx = random.random()\n", []),
    ("src/fixme.py", HEAD + "# FIXME this\n# XXX that\n", [(3, "fixme"), (4, "fixme")]),  # tidy: allow fixme, sample
    ("docs/todo.md", "TODO later\nTODO (#12) later\n", [(1, "todo")]),  # tidy: allow todo, sample
    ("tests/sleep.py", HEAD + "import time\ntime.sleep(1)\n", [(4, "sleep")]),  # tidy: allow sleep, sample
    ("tests/sleep_name.py", HEAD + "from time import sleep\n", [(3, "sleep")]),  # tidy: allow sleep, sample
    ("src/sleep.py", HEAD + "import time\ntime.sleep(1)\n", []),  # tidy: allow sleep, sample
    ("tests/mock.py", HEAD + "from unittest import mock\n", [(3, "mock")]),  # tidy: allow mock, sample
    ("tests/mock_module.py", HEAD + "import unittest.mock\n", [(3, "mock")]),  # tidy: allow mock, sample
    ("docs/place.md", "see /work/notes\n", [(1, "path")]),  # tidy: allow path, sample
    ("docs/home.md", "in /home/ada/atoll and ~/work/x and docs/work/x\n", [(1, "path")]),  # tidy: allow path, sample
    ("constraints.txt", "# https://pypi.org/project\nx==1\n", [(1, "index")]),  # tidy: allow index, sample
    ("Makefile", "INDEX = https://mirror.example/simple/\n", [(1, "index")]),  # tidy: allow index, sample
    ("docs/adr/0001-first.md", "one\n", []),
    ("docs/adr/0002-second.md", "two\n", []),
    ("docs/adr/0002-twin.md", "two again\n", [(1, "adr")]),
    ("docs/adr/3-third.md", "three\n", [(1, "adr")]),
    ("docs/adr/README.md", "list\n", []),
    ("changelog.d/12.feature.md", "new\n", []),
    ("changelog.d/first-light.fix.md", "mended\n", []),
    ("changelog.d/12.news.md", "new\n", [(1, "fragment")]),
    ("changelog.d/README.md", "how\n", []),
    ("src/allowed.py", HEAD + "# FIXME  tidy: allow fixme, a sample\n", []),  # tidy: allow fixme, sample
    ("src/no_reason.py", HEAD + "# FIXME  tidy: allow fixme\n", [(3, "fixme")]),  # tidy: allow fixme, sample
    ("src/other_allowed.py", HEAD + "# FIXME  tidy: allow todo, why\n", [(3, "fixme")]),  # tidy: allow fixme, sample
    ("ignored/bad.py", "# FIXME\n", []),  # tidy: allow fixme, sample
]


# A machine with python3 and make alone still runs the suite; where changes are judged, git is there.
pytestmark = pytest.mark.skipif(
    shutil.which("git") is None and "CI" not in os.environ, reason="what git would commit is judged: install git"
)


def tidy(root: Path) -> subprocess.CompletedProcess[str]:
    script = ROOT / "tools" / "tidy.py"
    return subprocess.run([sys.executable, script, root], capture_output=True, text=True, check=False)


def repository(root: Path, samples: list[tuple[str, str, list[tuple[int, str]]]]) -> None:
    subprocess.run(["git", "init", "--quiet", root], check=True)
    (root / ".gitignore").write_text("ignored/\n")
    for path, content, _ in samples:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[int, str]]]:
    """Faults by path, of all samples together in one repository."""
    root = tmp_path_factory.mktemp("samples")
    repository(root, SAMPLES)
    result = tidy(root)
    assert result.returncode == 1, result.stderr
    faults: dict[str, list[tuple[int, str]]] = {}
    for line in result.stdout.splitlines()[:-1]:
        path, number, rest = line.split(":", 2)
        faults.setdefault(path, []).append((int(number), rest.rpartition("[")[2].rstrip("]")))
    return faults


@pytest.mark.parametrize(("path", "expected"), [pytest.param(path, expected, id=path) for path, _, expected in SAMPLES])
def test_a_sample_has_the_faults_that_were_put_into_it(
    found: dict[str, list[tuple[int, str]]], path: str, expected: list[tuple[int, str]]
) -> None:
    assert found.get(path, []) == expected


def test_a_repository_in_order_passes(tmp_path: Path) -> None:
    repository(tmp_path, [sample for sample in SAMPLES if not sample[2] and sample[0] != "docs/adr/0002-second.md"])
    result = tidy(tmp_path)
    assert (result.returncode, result.stdout.rpartition(", ")[2]) == (0, "in order\n")


def test_a_deleted_file_is_not_judged(tmp_path: Path) -> None:
    repository(tmp_path, [("src/bad.py", "", [])])
    subprocess.run(["git", "-C", tmp_path, "add", "."], check=True)
    (tmp_path / "src/bad.py").unlink()
    assert tidy(tmp_path).returncode == 0
