# SPDX-License-Identifier: Apache-2.0
"""Builds what makes atoll fast, of the atoll beside it; both parts are optional.

* ``atoll_fast``: the loops over a burst, and a turn of a guest, in C against Python's stable ABI and OpenSSL.
* ``atoll_device``: a copy of the rooms that the device's process loads, with the modules that see packets translated by
  mypyc. See ``atoll/host/compiled_tree.py``.
"""

import shutil
from pathlib import Path
from runpy import run_path

from mypyc.build import mypycify
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent.resolve()
PACKAGE = next(path for path in (HERE / "atoll", HERE.parent / "src" / "atoll") if path.is_dir())
TREE = run_path(str(PACKAGE / "host" / "compiled_tree.py"))
# Control's side, data, and what runs once.
AS_IT_IS = {"__init__", "__main__", "client", "config", "confine", "limits", "messages", "orphan", "tun_trial"}
NIC = (path for path in sorted((PACKAGE / "device" / "nic").glob("*.py")) if path.stem not in AS_IT_IS)
SESSION = (PACKAGE / "overlay" / "session" / f"{name}.py" for name in ("keypair", "session", "sessions", "window"))
HOST = (PACKAGE / "host" / f"{name}.py" for name in ("clock", "poller", "send_queue", "udp"))
COMPILED = tuple(map(str, (*NIC, *SESSION, *HOST)))


class BuildBoth(build_ext):
    """Puts the translated modules into a tree of their own, beside copies of all the sources."""

    def get_ext_fullpath(self, ext_name: str) -> str:
        """Return where a compiled module belongs."""
        path = Path(super().get_ext_fullpath(ext_name))
        if ext_name == "atoll_fast":
            return str(path)
        return str(Path(self.build_lib, TREE["PACKAGE"], path.relative_to(self.build_lib)))

    def run(self) -> None:
        """Build, and copy."""
        super().run()
        tree = Path(self.build_lib) / TREE["PACKAGE"]
        for source in TREE["sources_of"](PACKAGE):
            target = tree / "atoll" / source.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        says = f'"""atoll\'s packet device, compiled."""\n\nSOURCES = "{TREE["digest_of"](PACKAGE)}"\n'
        (tree / "__init__.py").write_text(says, encoding="ascii")


setup(
    packages=[],  # None are looked for: what stands beside this file is not to be installed as it is.
    py_modules=[],
    ext_modules=[
        Extension(
            "atoll_fast",
            ["src/batch.c", "src/label.c", "src/port.c", "src/ring.c", "src/turn.c"],
            depends=["src/atoll_fast.h"],
            libraries=["crypto"],
            extra_compile_args=["-O3", "-Wall", "-Wextra", "-Werror"],
            py_limited_api=True,
        ),
        *mypycify(["--ignore-missing-imports", *COMPILED], opt_level="3", debug_level="0"),
    ],
    cmdclass={"build_ext": BuildBoth},
)
