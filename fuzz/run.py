# SPDX-License-Identifier: Apache-2.0

"""Runs atheris over the decoders of fuzz/targets.py, each in a process of its own: `make fuzz`."""

import argparse
import gc
import importlib
import multiprocessing
import sys
from collections.abc import Sequence
from types import FunctionType
from typing import Any

from targets import CORPUS, DECODERS, INPUT_BYTES_MAX, run_once

__all__ = ["main"]


def _fuzz(name: str, seconds: int) -> None:
    """Run atheris over one decoder; it ends the process itself."""
    atheris: Any = importlib.import_module("atheris")  # Not in the default install, and without types.
    decoder = next(decoder for decoder in DECODERS if decoder.name == name)
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    found = CORPUS.parent / "found" / name  # Not committed: what covers new code, and what crashed.
    found.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(decoder.seeds):
        (found / f"seed-{number}").write_bytes(seed)

    def one_input(data: bytes) -> None:
        run_once(decoder, data)

    for function in gc.get_objects():  # Ours only: all that is loaded would take a minute.
        if isinstance(function, FunctionType) and str(function.__module__).startswith("atoll."):
            atheris.instrument_func(function)
    options = [f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", f"-artifact_prefix={found}/crash-"]
    atheris.Setup([sys.argv[0], *options, str(found), str(folder)], one_input)
    atheris.Fuzz()


def main(arguments: Sequence[str]) -> int:
    """Fuzz all decoders, or one, for so many seconds each; return the exit status."""
    parser = argparse.ArgumentParser(description="Fuzz the decoders with atheris.")
    parser.add_argument("--only", metavar="NAME", choices=[decoder.name for decoder in DECODERS])
    parser.add_argument("--seconds", type=int, default=60, help="for each decoder")
    options = parser.parse_args(arguments)
    failed: list[str] = []
    for name in [options.only] if options.only else [decoder.name for decoder in DECODERS]:
        process = multiprocessing.get_context("spawn").Process(target=_fuzz, args=(name, options.seconds))
        process.start()
        process.join()
        if process.exitcode:
            failed.append(name)
    sys.stdout.write(f"fuzz: faults in {', '.join(failed)}; see fuzz/found\n" if failed else "fuzz: no faults\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
