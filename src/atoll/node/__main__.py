# SPDX-License-Identifier: Apache-2.0
"""Entry of the daemon: ``python -m atoll.node``, options on standard input, the answer on standard output."""

import sys

from atoll.node.daemon import main

if __name__ == "__main__":
    sys.exit(main())
