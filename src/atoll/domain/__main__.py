# SPDX-License-Identifier: Apache-2.0
"""The server of environments as a process: ``python -m atoll.domain``."""

import sys

from atoll.domain.process import main

if __name__ == "__main__":
    sys.exit(main())
