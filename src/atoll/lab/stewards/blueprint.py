# SPDX-License-Identifier: Apache-2.0
"""Which applications run in the simulation, and their code as bundles, in several generations."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from atoll.domain.loading import Bundle, Loaded, decode_bundle, load
from atoll.lab.stewards.apps import GENERATIONS

__all__ = ["GENERATIONS", "PLANTED", "Planted", "bundle", "loaded"]


@dataclass(frozen=True, slots=True)
class Planted:
    """An environment that is begun in each run.

    Attributes:
        name: Its name.
        app: Class of its application.
        is_spare: It is left out in some runs.
    """

    name: str
    app: str
    is_spare: bool = True


PLANTED: Final = (
    Planted("counter", "Counter"),
    Planted("bank-a", "Bank", is_spare=False),
    Planted("bank-b", "Bank", is_spare=False),
    Planted("pulse", "Pulse"),
    Planted("relay", "Relay"),
    Planted("board", "Board"),
    Planted("brief", "Counter"),
)


@cache
def bundle(app: str, generation: int = 1) -> bytes:
    """Return the code of an application, encoded."""
    source = files("atoll.lab.stewards").joinpath("apps.py").read_text("utf-8")
    source = source.replace("GENERATION: Final = 1\n", f"GENERATION: Final = {generation}\n", 1)
    return Bundle(1, "apps", app, {"apps": source}).encode()


@cache
def loaded(app: str, generation: int = 1) -> Loaded:
    """Return an application that can run."""
    return load(decode_bundle(bundle(app, generation)))
