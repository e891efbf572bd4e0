# SPDX-License-Identifier: Apache-2.0
"""Decides what a person sees: arguments in, text and exit statuses out. Nothing below this room reads the environment.

``main`` answers ``--version`` by itself, before anything is imported: it is what install scripts call most.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and exit with its status."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        from atoll.base.version import __version__  # noqa: PLC0415 -- nothing else is needed, so nothing else is imported.

        sys.stdout.write(f"atoll {__version__}\n")
        sys.exit(0)
    from atoll.cli.app import run  # noqa: PLC0415 -- see above.

    sys.exit(run(arguments))
