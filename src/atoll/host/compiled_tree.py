# SPDX-License-Identifier: Apache-2.0
"""The packet device's own modules, compiled: a second tree of the package that its process may find before this one.

``atoll-fast`` brings it: the same sources, of which mypyc has translated those that see packets (native/setup.py,
ADR 0033). It is used only if it was made of exactly the sources that stand here, so it can be old but never wrong.
"""

from hashlib import sha256
from importlib import import_module
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from sys import modules
from typing import Final

__all__ = ["COMPILED_VARIABLE", "PACKAGE", "compiled_tree", "digest_of", "is_compiled_module", "sources_of"]

COMPILED_VARIABLE: Final = "ATOLL_COMPILED"  # "no": all goes through Python though ``atoll-fast`` is installed.
PACKAGE: Final = "atoll_device"  # What the tree is installed as; below it stands ``atoll``.
_ROOMS: Final = ("base", "core", "device", "host", "overlay")  # What the device's process loads.


def sources_of(package: Path) -> list[Path]:
    """Return the files that the device is made of, in one order everywhere.

    Args:
        package: The directory of ``atoll``.
    """
    return [package / "__init__.py", *(path for room in _ROOMS for path in sorted((package / room).rglob("*.py")))]


def digest_of(package: Path) -> str:
    """Return the SHA-256 of these files and their names, in hexadecimal.

    Args:
        package: As ``sources_of``.

    Raises:
        OSError: One cannot be read.
    """
    digest = sha256()
    for path in sources_of(package):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


def compiled_tree() -> Path | None:
    """Return the directory to look in first for a compiled device; None: there is none of these very sources."""
    try:
        made = import_module(PACKAGE)
        file, made_of = made.__file__, getattr(made, "SOURCES", None)
        if file is None or made_of != digest_of(Path(__file__).parents[1]):
            return None
    except (ImportError, OSError):
        return None
    return Path(file).parent


def is_compiled_module(name: str) -> bool:
    """Return whether a module that is loaded is a compiled one."""
    spec = modules[name].__spec__
    return spec is not None and isinstance(spec.loader, ExtensionFileLoader)
