# SPDX-License-Identifier: Apache-2.0
"""Decides who is slow, with evidence: performance specifications, stutter detectors, verdicts, explanations.

Without a node: ``from atoll import health``, then ``health.observe("disk:/data", latency_s, amount)``.
"""

from atoll.health.live import changes, observe, shunned, specify, standings, timed
from atoll.health.model import State, Terms
from atoll.health.watch import Change, Standing, Watch

__all__ = [
    "Change",
    "Standing",
    "State",
    "Terms",
    "Watch",
    "changes",
    "observe",
    "shunned",
    "specify",
    "standings",
    "timed",
]
