# SPDX-License-Identifier: Apache-2.0
"""``python -m atoll.cli``: the same as ``atoll``."""

from atoll.cli import main

if __name__ == "__main__":
    main()
