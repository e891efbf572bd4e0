# SPDX-License-Identifier: Apache-2.0
"""Decides what a policy tag asks of a path: the metric it is judged by and the relays it may not use.

This is RON's routing policy: the classifier at the edge gives each flow a tag, and each tag has its own table from
which the forbidden ways are removed before anything is compared.
"""

from enum import StrEnum
from typing import Annotated, Final, final

import msgspec

__all__ = [
    "DEFAULT_POLICY",
    "DEFAULT_RULES",
    "FORBIDDEN_MAX",
    "TAGS_MAX",
    "TAG_DIRECT",
    "TAG_LATENCY",
    "TAG_LOSS",
    "TAG_NAMES",
    "TAG_THROUGHPUT",
    "Metric",
    "Policy",
    "Rule",
]

TAG_LATENCY: Final = 0
TAG_DIRECT: Final = 1
TAG_THROUGHPUT: Final = 2
TAG_LOSS: Final = 3
TAG_NAMES: Final = ("latency", "direct", "throughput", "loss")  # By number, for people.
TAGS_MAX: Final = 16  # Limit. Each tag costs one decision a member and round; four bits in any classifier.
FORBIDDEN_MAX: Final = 64  # Limit. As many as a group has members.

Tag = Annotated[int, msgspec.Meta(ge=0, lt=TAGS_MAX)]


class Metric(StrEnum):
    """What makes one path better than another."""

    LATENCY = "latency"  # The expected time of a request and its answer; a loss costs a retransmission.
    LOSS = "loss"  # The share that arrives comes first; latency only tells equals apart.
    THROUGHPUT = "throughput"  # The rate that a TCP connection would reach.


@final
class Rule(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one tag asks.

    Attributes:
        metric: How paths are compared.
        direct_only: Never through a relay, whatever happens to the direct path.
        forbidden: Relays that this tag may not use, node ids of 10 bytes, at most 64.
        copy_bytes: Packets of at most so many bytes also go by a second path; 0: none do.
    """

    metric: Metric = Metric.LATENCY
    direct_only: bool = False
    forbidden: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=FORBIDDEN_MAX)] = ()
    copy_bytes: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)] = 0

    def allows(self, via: bytes) -> bool:
        """Say whether packets of this tag may go by this way (empty: direct)."""
        return not via or not (self.direct_only or via in self.forbidden)


DEFAULT_RULES: Final = {
    TAG_LATENCY: Rule(Metric.LATENCY),
    TAG_DIRECT: Rule(Metric.LATENCY, direct_only=True),
    TAG_THROUGHPUT: Rule(Metric.THROUGHPUT),
    TAG_LOSS: Rule(Metric.LOSS),
}


@final
class Policy(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The rules of all tags. A tag without a rule is judged as tag 0.

    Attributes:
        rules: Rule by tag, at most 16.
    """

    rules: Annotated[dict[Tag, Rule], msgspec.Meta(max_length=TAGS_MAX)] = msgspec.field(
        default_factory=DEFAULT_RULES.copy
    )

    def rule(self, tag: int) -> Rule:
        """Return the rule of a tag."""
        found = self.rules.get(tag)
        return found if found is not None else self.rules.get(TAG_LATENCY, DEFAULT_RULES[TAG_LATENCY])


DEFAULT_POLICY: Final = Policy()
