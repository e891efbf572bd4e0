# SPDX-License-Identifier: Apache-2.0
"""What a node tells of an environment that is here: that it runs, or has ended, or what its journal says."""

from atoll.base.ids import NodeId
from atoll.env.hosted import Hosted
from atoll.env.messages import Notice

__all__ = ["kept_notice", "told_notice"]


def told_notice(hosted: Hosted, own: NodeId) -> Notice:
    """Return what a node tells of an environment that runs there, or that it ends."""
    facts, holders = hosted.facts, tuple(hosted.holding.holders)
    return Notice(facts.id, hosted.epoch, own, facts.name, facts.app, facts.code, holders, hosted.is_ended)


def kept_notice(hosted: Hosted) -> Notice:
    """Return what the journal here says of who runs an environment."""
    facts, holding = hosted.facts, hosted.holding
    return Notice(facts.id, holding.epoch, holding.owner, facts.name, facts.app, facts.code, tuple(holding.holders))
