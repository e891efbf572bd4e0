# SPDX-License-Identifier: Apache-2.0
"""Decides who is slow, with evidence: performance specifications, stutter detectors, verdicts, explanations.

Without a node: ``from atoll import health``, then ``health.observe("disk:/data", latency_s, amount)``.
"""

from atoll.health.detectors.differential import Differential, Seen, Views
from atoll.health.detectors.frequency import Frequency
from atoll.health.detectors.history import History
from atoll.health.detectors.load import Load
from atoll.health.detectors.peers import PeerRatio
from atoll.health.detectors.phi import PhiAccrual
from atoll.health.detectors.regression import Regression
from atoll.health.detectors.verdict import Verdict
from atoll.health.live import changes, observe, shunned, specify, standings, timed
from atoll.health.model import State, Terms
from atoll.health.spec import Bound, Curve, Line, Quantiles, Specification
from atoll.health.watch import Cause, Change, Standing, Watch

__all__ = [
    "Bound",
    "Cause",
    "Change",
    "Curve",
    "Differential",
    "Frequency",
    "History",
    "Line",
    "Load",
    "PeerRatio",
    "PhiAccrual",
    "Quantiles",
    "Regression",
    "Seen",
    "Specification",
    "Standing",
    "State",
    "Terms",
    "Verdict",
    "Views",
    "Watch",
    "changes",
    "observe",
    "shunned",
    "specify",
    "standings",
    "timed",
]
