# SPDX-License-Identifier: Apache-2.0
"""Code as data: the file and what is beside it, named by its hash, and loaded without a trace of where it came from."""

import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from atoll.base.errors import CorruptError, UserError
from atoll.domain import loading
from atoll.domain.limits import BUNDLE_BYTES_MAX, BUNDLE_FILES_MAX
from atoll.domain.loading import (
    FINDINGS_MAX,
    PREFIX,
    Bundle,
    bundle_of,
    check_bundle,
    decode_bundle,
    imports_of,
    level_of,
    load,
)
from atoll.env.limits import CLASS_CHARS_MAX

APP = """
import atoll

class Shop(atoll.App):
    n: int = 0
"""
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return what writes files and gives the path of the first one."""

    def written(**sources: str) -> str:
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
        return str(tmp_path / f"{next(iter(sources))}.py")

    return written


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return caught.value.code


def bundle(source: str, app: str = "Shop", **others: str) -> Bundle:
    return Bundle(1, "shop", app, {"shop": source, **others})


# Judging.

CLOCK = "import time\ndef now():\n    return time.time()"


def test_code_that_a_replay_repeats_is_let_through() -> None:
    check_bundle(bundle(APP, prices="import time\nAT = time.time()"))
    check_bundle(bundle(APP + f"{CLOCK}  # atoll: allow clock, for the log of its client"))


def test_what_a_replay_cannot_repeat_is_named_in_every_file_with_what_to_use_instead() -> None:
    with pytest.raises(UserError) as caught:
        check_bundle(bundle(APP + CLOCK, prices=CLOCK))
    lines = caught.value.where.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["shop.py:8:12", "prices.py:3:12"]
    assert "use ctx.now_ns or ctx.now() [clock]" in lines[0]
    assert caught.value.code == "A614"
    assert "# atoll: allow clock, " in caught.value.fix


def test_no_more_is_said_than_can_be_read() -> None:
    with pytest.raises(UserError) as caught:
        check_bundle(bundle(APP + CLOCK + "\n    return time.time()" * FINDINGS_MAX))
    lines = caught.value.where.splitlines()
    assert (len(lines), lines[-1]) == (FINDINGS_MAX + 1, "and 1 more")


# Reading.


def test_a_file_and_what_it_imports_from_beside_it_are_taken(write: Write) -> None:
    made = bundle_of(
        write(
            shop=APP
            + "import prices\nfrom tax import rate\nfrom . import nothing\ndef later():\n    import odd.name, json",
            prices="import tax\nimport shop",
            tax="rate = 7",
            other="",
        )
    )
    assert made.entry == "shop"
    assert made.app == "Shop"
    assert set(made.files) == {"shop", "prices", "tax"}
    assert not made.needs
    assert imports_of(made) == ["json", "odd.name"]


def test_the_same_content_has_the_same_hash_wherever_it_lies(tmp_path: Path) -> None:
    hashes = set[bytes]()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for file, source in (("shop", APP + "import prices"), ("prices", "")):
            (tmp_path / name / f"{file}.py").write_text(source)
        hashes.add(sha256(bundle_of(str(tmp_path / name / "shop.py")).encode()).digest())
    assert len(hashes) == 1


def test_packages_are_named_with_their_versions(write: Write) -> None:
    made = bundle_of(write(shop=APP + "import msgspec\nimport json\nimport nothing_such\nimport hypothesis.strategies"))
    assert [name for name, _ in made.needs] == ["hypothesis", "msgspec"]
    assert made.needs[1][1] == msgspec.__version__


def test_the_application_can_be_named_and_must_be_where_there_are_several(write: Write) -> None:
    target = write(shop=APP + "from atoll import App\nclass Store(App):\n    m: int = 0\nclass Plain:\n    pass\n")
    with pytest.raises(UserError, match="A604") as caught:
        bundle_of(target)
    assert caught.value.fix == f"name one, such as {target}:Store"
    assert bundle_of(f"{target}:Store").app == "Store"
    assert code_of(lambda: bundle_of(write(none="x = 1"))) == "A604"


@pytest.mark.parametrize("name", ["shop", "shop.txt", "my-shop.py", "1.py", ""])
def test_what_is_no_python_file_is_refused(name: str) -> None:
    assert code_of(lambda: bundle_of(name)) == "A603"


def test_what_cannot_be_read_is_refused(write: Write, tmp_path: Path) -> None:
    assert code_of(lambda: bundle_of(str(tmp_path / "missing.py"))) == "A603"
    assert code_of(lambda: bundle_of(write(shop="def (:"))) == "A603"
    assert code_of(lambda: bundle_of(write(zero="x = '\0'"))) == "A603"
    (tmp_path / "latin.py").write_bytes(b"# \xe9")
    assert code_of(lambda: bundle_of(str(tmp_path / "latin.py"))) == "A603"


def test_what_is_too_much_is_refused(write: Write) -> None:
    many = {f"m{number}": f"import m{number + 1}" for number in range(BUNDLE_FILES_MAX + 1)}
    assert code_of(lambda: bundle_of(write(shop=APP + "import m0", **many))) == "A603"
    assert code_of(lambda: bundle_of(write(shop=APP + f"# {'x' * BUNDLE_BYTES_MAX}"))) == "A603"
    name = "S" * (CLASS_CHARS_MAX + 1)
    assert code_of(lambda: bundle_of(write(shop=APP.replace("Shop", name)))) == "A604"


@pytest.mark.parametrize(
    ("source", "level"),
    [
        (APP, ""),
        (APP + "    level = 'process'\n", "process"),
        (APP + "    level: str = 'process'\n", "process"),
        (APP + "    level = 1\n", ""),
        ("class Other:\n    level = 'process'\n" + APP, ""),
        (APP + "    level += 'process'\n", ""),
    ],
)
def test_the_level_is_read_without_running_anything(source: str, level: str) -> None:
    assert level_of(bundle("raise ValueError\n" + source)) == level


# Bytes.


def test_a_bundle_is_read_back() -> None:
    made = Bundle(1, "shop", "Shop", {"shop": APP, "a": ""}, (("msgspec", "1"),))
    assert decode_bundle(made.encode()) == made
    turned = Bundle(1, "shop", "Shop", {"a": "", "shop": APP}, (("msgspec", "1"),))
    assert turned.encode() == made.encode()


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\xc1",
        bytes(BUNDLE_BYTES_MAX + 1),
        Bundle(2, "shop", "Shop", {"shop": ""}).encode(),
        Bundle(1, "shop", "Shop", {"store": ""}).encode(),
        Bundle(1, "shop", "S" * (CLASS_CHARS_MAX + 1), {"shop": ""}).encode(),
        Bundle(1, "m0", "Shop", {f"m{number}": "" for number in range(BUNDLE_FILES_MAX + 1)}).encode(),
        b"\x91" * 100_000,
    ],
    ids=["empty", "nonsense", "large", "format", "entry", "name", "files", "deep"],
)
def test_bytes_that_are_no_bundle_are_refused(wrong: bytes) -> None:
    with pytest.raises(CorruptError):
        decode_bundle(wrong)


def test_imports_of_what_is_no_python_are_none() -> None:
    assert imports_of(bundle("def (:")) == []


# Loading.


def test_a_bundle_is_loaded_once_under_a_name_of_its_own_and_its_modules_find_each_other() -> None:
    made = bundle(
        APP + "import prices\nimport json\nfrom prices import low as lowest\nassert prices.shop is not None\n",
        prices="import shop\nlow = 3\n",
    )
    one, two = load(made), load(made)
    assert one.program.main.app is two.program.main.app
    assert one.code == sha256(made.encode()).digest()
    name = f"{PREFIX}{one.code.hex()[:16]}"
    assert sys.modules[f"{name}.prices"].low == 3
    assert "prices" not in sys.modules
    assert "shop" not in sys.modules
    assert one.program.main.app.__module__ == f"{name}.shop"


def test_two_versions_are_loaded_beside_each_other() -> None:
    first, second = (load(bundle(APP + f"{number}")) for number in (1, 2))
    assert first.program.main.app is not second.program.main.app


def test_other_applications_can_be_nested_and_tuples_are_known() -> None:
    made = load(bundle(APP + "class Room(atoll.App):\n    pass\nclass Said(atoll.Tuple):\n    n: int = 0\n"))
    assert set(made.program.classes) == {"Shop", "Room"}
    assert "Said" in made.program.types


@pytest.mark.parametrize(
    "source",
    [
        "raise ValueError('no')",
        "import sys\nsys.exit(3)",
        "raise KeyboardInterrupt",
        "raise GeneratorExit",
        "import nothing_such",
        "def (:",
        "x = '\0'",
        "from . import x",
    ],
)
def test_code_that_cannot_be_loaded_leaves_nothing_behind(source: str) -> None:
    made = bundle("import prices\n" + APP + source, prices="low = 3")
    for _ in range(2):
        assert code_of(lambda: load(made)) == "A603"
    assert not [name for name in sys.modules if name.startswith(PREFIX + sha256(made.encode()).hexdigest()[:16])]


def test_an_application_that_is_not_there_is_named() -> None:
    for made, fix in ((bundle(APP, app="Store"), "shop.py:Shop"), (bundle("Shop = 1"), "write: class Name(atoll.App)")):
        with pytest.raises(UserError, match="A604") as caught:
            load(made)
        assert fix in caught.value.fix


@pytest.mark.parametrize(
    "source",
    [
        "import atoll\nclass Shop(atoll.App):\n    n: int\n",
        APP + "class Odd(atoll.Tuple):\n    x: 'Nowhere'\n",
        APP + "class Odd(atoll.Tuple):\n    x: object.__init__\n",
    ],
)
def test_an_application_that_cannot_be_run_is_said(source: str) -> None:
    assert code_of(lambda: load(bundle(source))) == "A601"


def test_packages_that_are_missing_here_are_named_before_anything_is_run() -> None:
    made = Bundle(1, "shop", "Shop", {"shop": "raise ValueError"}, (("msgspec", "0"), ("nothing-such", "7"), ("", "")))
    with pytest.raises(UserError) as caught:
        load(made)
    assert caught.value.code == "A605"
    assert caught.value.where.startswith("nothing-such==7")


def test_our_own_package_is_not_named(write: Write) -> None:
    assert "atoll" in loading._OURS  # pyright: ignore[reportPrivateUsage]
    assert not bundle_of(write(shop=APP)).needs
