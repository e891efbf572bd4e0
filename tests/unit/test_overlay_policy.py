# SPDX-License-Identifier: Apache-2.0
"""Policy tags: which metric, which relays."""

import msgspec
import pytest

from atoll.overlay.policy import (
    DEFAULT_POLICY,
    TAG_DIRECT,
    TAG_LATENCY,
    TAG_LOSS,
    TAG_THROUGHPUT,
    TAGS_MAX,
    Metric,
    Policy,
    Rule,
)

RELAY = b"relay-0001"


def test_default_rules() -> None:
    assert DEFAULT_POLICY.rule(TAG_LATENCY).metric is Metric.LATENCY
    assert DEFAULT_POLICY.rule(TAG_THROUGHPUT).metric is Metric.THROUGHPUT
    assert DEFAULT_POLICY.rule(TAG_LOSS).metric is Metric.LOSS
    assert DEFAULT_POLICY.rule(TAG_DIRECT).direct_only


def test_a_tag_without_a_rule_is_judged_as_tag_0() -> None:
    assert DEFAULT_POLICY.rule(9) == DEFAULT_POLICY.rule(TAG_LATENCY)
    assert Policy({9: Rule(Metric.LOSS)}).rule(5) == Rule(Metric.LATENCY)
    assert Policy({TAG_LATENCY: Rule(Metric.LOSS)}).rule(5).metric is Metric.LOSS


def test_what_a_rule_allows() -> None:
    assert Rule().allows(b"")
    assert Rule().allows(RELAY)
    assert not Rule(forbidden=(RELAY,)).allows(RELAY)
    assert Rule(forbidden=(RELAY,)).allows(b"")
    assert not Rule(direct_only=True).allows(RELAY)
    assert Rule(direct_only=True).allows(b"")


def test_it_survives_the_journal_and_keeps_its_bounds() -> None:
    policy = Policy({3: Rule(Metric.LOSS, forbidden=(RELAY,))})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(policy), type=Policy) == policy
    too_high = msgspec.msgpack.encode([{TAGS_MAX: ["loss", False, []]}])
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(too_high, type=Policy)
