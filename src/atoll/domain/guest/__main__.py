# SPDX-License-Identifier: Apache-2.0
"""The zygote as a process: ``python -m atoll.domain.guest``."""

import sys

from atoll.domain.guest.zygote import main

if __name__ == "__main__":
    sys.exit(main())
