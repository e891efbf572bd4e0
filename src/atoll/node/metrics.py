# SPDX-License-Identifier: Apache-2.0
"""What a node tells Prometheus: a ``StatusView`` as text of the exposition format 0.0.4. Pure; decides nothing.

Import it where the text is made, and nowhere else: the library costs 12 ms and 1 MiB, which a node without metrics and
the command line need not pay (ADR 0038). Base units (seconds, bytes, shares of 1); a number that is unknown has no
sample, because 0 always means zero. Names and labels: docs/operate/metrics.md.
"""

from collections.abc import Iterable, Iterator
from typing import Final, final

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from atoll.node.views import ComponentView, PeerView, RelayView, StatusView

__all__ = ["COMPONENT_STATES", "PEER_STATES", "exposition"]

PEER_STATES: Final = ("ok", "degraded", "slow", "away", "connecting")
COMPONENT_STATES: Final = ("unknown", "ok", "stutter", "slow", "failed")

MS_PER_S: Final = 1000

_Rows = Iterable[tuple[tuple[str, ...], float | None]]  # Values of the labels, and the number; None: unknown.


def exposition(view: StatusView) -> str:
    """Return what the node knows, in the text format 0.0.4 (docs of Prometheus, "Exposition formats")."""
    return generate_latest(_Told(view)).decode()


@final
class _Told(Collector):
    """A status as the library takes it."""

    def __init__(self, view: StatusView) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        view = self._view
        yield from _of_node(view)
        yield from _of_environments(view)
        yield from _of_relaying(view.relaying)
        yield from _of_peers(view.peers)
        yield from _of_components(view.components)


def _of_node(view: StatusView) -> Iterator[Metric]:
    version = (((view.version,), 1.0),)
    yield _gauge("atoll_build_info", "Always 1; the label is the version of atoll.", version, "version")
    yield _number("atoll_uptime_seconds", "Time since the node started.", view.uptime_s)
    degraded = "1 when `atoll status --check` would exit with status 4, else 0."
    yield _number("atoll_degraded", degraded, view.degraded)
    yield _number("atoll_warnings", "Warnings of `atoll status`.", len(view.warnings))
    dropped = "Packets that the packet device dropped since it started."
    yield _counter("atoll_dropped_packets", dropped, _counts((), view.dropped), "reason")


def _of_environments(view: StatusView) -> Iterator[Metric]:
    yield _number("atoll_environments", "Environments that run on this node.", view.environments)
    fates = "Small messages to servers of environments of other nodes, since this node's server started."
    yield _counter("atoll_environment_datagrams", fates, _counts((), view.datagrams), "fate")


def _of_relaying(relaying: RelayView) -> Iterator[Metric]:
    forwarded = "What this node has forwarded for other members."
    yield _counter("atoll_relay_forwarded_bytes", forwarded, (((), relaying.forwarded_bytes),))
    yield _number("atoll_relay_bytes_per_second", "What it forwards, mean of the last 5 s.", relaying.bytes_s)
    budget = "The most that it forwards."
    yield _number("atoll_relay_budget_bytes_per_second", budget, relaying.budget_bytes_s)
    yield _number("atoll_relay_pairs", "Pairs of members that it forwards for now.", relaying.pairs)


def _of_peers(peers: tuple[PeerView, ...]) -> Iterator[Metric]:
    states = (row for peer in peers for row in _state_set(peer.name, peer.state, PEER_STATES))
    yield _gauge("atoll_peer_state", "1 for the state that a member is in, 0 for the others.", states, "peer", "state")
    heard = "Time since a member was last heard."
    ages = (((peer.name,), peer.last_heard_s) for peer in peers)
    yield _gauge("atoll_peer_last_heard_seconds", heard, ages, "peer")
    dropped = "Packets that came out of a member's session and were dropped, since the packet device started."
    counts = (row for peer in peers for row in _counts((peer.name,), peer.dropped))
    yield _counter("atoll_peer_dropped_packets", dropped, counts, "peer", "reason")
    paths = [(peer, (peer.name, _path(peer))) for peer in peers]
    trips = ((labels, _seconds(peer.rtt_ms)) for peer, labels in paths)
    yield _gauge("atoll_path_round_trip_seconds", "Round trip by the path in use.", trips, "peer", "path")
    deviation = "How far the round trips lie from their mean."
    spread = ((labels, _seconds(peer.deviation_ms)) for peer, labels in paths)
    yield _gauge("atoll_path_round_trip_deviation_seconds", deviation, spread, "peer", "path")
    loss = "Share that the path in use loses, the worse of both directions."
    losses = ((labels, peer.loss) for peer, labels in paths)
    yield _gauge("atoll_path_loss_ratio", loss, losses, "peer", "path")


def _of_components(components: tuple[ComponentView, ...]) -> Iterator[Metric]:
    # Whoever reports a component names it. Two samples of one name would cost the whole answer, so the first counts.
    named = tuple({one.name: one for one in reversed(components)}.values())[::-1]
    states = (row for one in named for row in _state_set(one.name, one.state, COMPONENT_STATES))
    told = "1 for the state that a component is in, 0 for the others."
    yield _gauge("atoll_component_state", told, states, "component", "state")
    newest = (((one.name,), _seconds(one.newest_ms)) for one in named)
    yield _gauge("atoll_component_latency_seconds", "The newest latency of a component.", newest, "component")
    usual = (((one.name,), _seconds(one.usual_ms)) for one in named)
    yield _gauge("atoll_component_usual_latency_seconds", "What is usual for it.", usual, "component")
    samples = (((one.name,), None if one.by else one.samples) for one in named)  # What others have seen, they count.
    yield _counter("atoll_component_samples", "Latencies that were reported of it.", samples, "component")


def _gauge(name: str, told: str, rows: _Rows, *labels: str) -> Metric:
    family = GaugeMetricFamily(name, told, labels=labels)
    for values, number in rows:
        if number is not None:
            family.add_metric(values, number)
    return family


def _counter(name: str, told: str, rows: _Rows, *labels: str) -> Metric:
    """Return a counter; the format adds ``_total`` to its name."""
    family = CounterMetricFamily(name, told, labels=labels)
    for values, number in rows:
        if number is not None:
            family.add_metric(values, number)
    return family


def _number(name: str, told: str, number: float) -> Metric:
    return _gauge(name, told, (((), number),))


def _counts(labels: tuple[str, ...], counts: dict[str, int]) -> _Rows:
    return (((*labels, reason), count) for reason, count in counts.items())


def _state_set(name: str, present: str, known: tuple[str, ...]) -> _Rows:
    """Return 1 for the present state, and 0 for those that it is not; one that is new here is told all the same."""
    return (((name, state), float(state == present)) for state in dict.fromkeys((*known, present)))


def _path(peer: PeerView) -> str:
    return "direct" if peer.via is None else f"via {peer.via}"


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / MS_PER_S
