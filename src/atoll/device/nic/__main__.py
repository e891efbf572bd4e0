# SPDX-License-Identifier: Apache-2.0
"""Entry of the packet device's process: ``python -m atoll.device.nic FD``, started by ``NicClient`` only."""

import sys

from atoll.device.nic.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
