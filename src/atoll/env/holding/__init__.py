# SPDX-License-Identifier: Apache-2.0
"""Who owns an environment, and which blocks of its journal are safe whatever happens to the owner.

An environment has holders, nodes that keep its journal; one of them owns it, which means that it runs the environment
and appends to the journal. A block is committed when a majority of the holders keeps it; only then may what the
environment sent in that block leave. An owner that was cut off can go on for a while, but nothing of that is ever seen.
"""

from atoll.env.holding.machine import KIND, Holding
from atoll.env.holding.messages import HOLDING_TAGS, Block, HoldingMessage, decode, encode
from atoll.env.holding.state import HoldingOptions

__all__ = ["HOLDING_TAGS", "KIND", "Block", "Holding", "HoldingMessage", "HoldingOptions", "decode", "encode"]
