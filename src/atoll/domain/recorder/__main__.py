# SPDX-License-Identifier: Apache-2.0
"""Entry of the recorder's process: ``python -m atoll.domain.recorder FD``, started by ``launch`` only."""

import sys

from atoll.domain.recorder.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv, sys.stdin.buffer))
