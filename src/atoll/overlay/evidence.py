# SPDX-License-Identifier: Apache-2.0
"""Decides nothing: what the overlay remembers and tells of its decisions, for ``status`` and ``why``.

All of it is data for the composition root, which turns it into the views of the local API. Unknown numbers are None.
"""

from typing import final

import msgspec

__all__ = ["CandidateReport", "Explanation", "PeerReport", "Switch"]


@final
class Switch(msgspec.Struct, frozen=True, array_like=True):
    """One change of route, as in ``RouteNotice``."""

    at_ns: int
    tag: int
    before: bytes
    via: bytes
    cause: str
    evidence: str
    took_ns: int


@final
class CandidateReport(msgspec.Struct, frozen=True):
    """One way as it stands now.

    Attributes:
        via: Empty for direct, else the relay.
        chosen: Whether packets of the tag take it.
        ready: Whether a switch to it would need no preparation.
        state: ok, suspect, failed or unknown; ``reason`` says why it is not ok.
        rtt_us: None: never measured.
        loss_out: In 1/10000, like ``loss_in``; None: never measured.
        score_us: Cost under the tag's metric; None: never measured.
        tcp_bits_s: Rate of one TCP connection by the model; None: never measured.
        measured: end-to-end when our own probes took this way, else links: summed from what the members say.
        verdict: Why it was taken or not.
        loss_evidence: Such as ``lost 3 of 412 probes out, 0 of 408 in``; empty when not measured end to end.
    """

    via: bytes
    chosen: bool
    ready: bool
    state: str
    reason: str
    rtt_us: int | None
    deviation_us: int | None
    loss_out: int | None
    loss_in: int | None
    score_us: int | None
    tcp_bits_s: int | None
    load: int
    measured: str
    verdict: str
    loss_evidence: str


@final
class PeerReport(msgspec.Struct, frozen=True):
    """One member as it stands now, on the path of tag 0.

    Attributes:
        state: ok; degraded (suspect, lossy, or held up by a relay); away (nothing gets through); connecting.
        why: The cause of ``state`` in a few words.
        heard_ns: When any path last brought a probe; None: never in this session.
        active: Whether traffic flows.
        copying: Whether each packet is sent over two paths at the moment.
    """

    node: bytes
    session: bool
    state: str
    why: str
    via: bytes
    rtt_us: int | None
    deviation_us: int | None
    loss_out: int | None
    loss_in: int | None
    heard_ns: int | None
    active: bool
    copying: bool


@final
class Explanation(msgspec.Struct, frozen=True):
    """Why packets of one tag to one member take the path that they take.

    Attributes:
        chosen: The path in use.
        since_ns: Since when.
        cause: Why it was taken, as in ``RouteNotice``.
        evidence: The numbers of that moment.
        keeps: Why it is still used, by the numbers of now.
        candidates: All ways, best first.
        history: The last switches, oldest first, at most 16.
        next: What would have to happen for a change, in a sentence.
    """

    node: bytes
    tag: int
    chosen: bytes
    since_ns: int
    cause: str
    evidence: str
    keeps: str
    candidates: tuple[CandidateReport, ...]
    history: tuple[Switch, ...]
    next: str
