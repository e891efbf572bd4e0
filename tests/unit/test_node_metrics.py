# SPDX-License-Identifier: Apache-2.0
"""Metrics: the text says what the status says, dashboard and alert rules name what there is, and who is answered."""

import json
import re
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from atoll.node.metrics import COMPONENT_STATES, PEER_STATES, exposition
from atoll.node.metrics_http import judge
from atoll.node.views import ComponentView, PeerView, RelayView, StatusView

OPERATE = Path(__file__).parents[2] / "docs/operate"
DASHBOARD: dict[str, Any] = json.loads((OPERATE / "grafana-atoll.json").read_text())
PAGE = (OPERATE / "metrics.md").read_text()

OK, NOT_FOUND, REFUSED, MISDIRECTED, BAD = (
    HTTPStatus.OK,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.MISDIRECTED_REQUEST,
    HTTPStatus.BAD_REQUEST,
)

ASH = PeerView(
    name="ash",
    node="00" * 10,
    address="fd00::1",
    state="ok",
    via=None,
    rtt_ms=80.0,
    deviation_ms=1.0,
    loss=0.25,
    why="",
    last_heard_s=0.5,
    session=True,
    relay="yes",
    endpoint=None,
    dropped={"packet-foreign": 7},
)
SIN = replace(ASH, name="sin", state="slow", via="ash", rtt_ms=250.0, deviation_ms=2.0, loss=0.0, dropped={})
NEW = replace(
    ASH, name="new", state="connecting", rtt_ms=None, deviation_ms=None, loss=None, last_heard_s=None, dropped={}
)
DISK = ComponentView(
    name="disk", state="slow", since_s=3.0, usual_ms=12.0, newest_ms=1500.0, samples=40, confidence=9_000
)
SEEN = ComponentView(name="seen", state="unknown", since_s=None, usual_ms=None, newest_ms=None, samples=3, by="others")
FULL = StatusView(
    version="0.1.0",
    name="fra",
    node="11" * 10,
    address="fd00::2",
    group="blue-heron",
    roster_version="3",
    uptime_s=90.5,
    listen="udp/0.0.0.0:7747",
    peers=(ASH, NEW, SIN),
    relaying=RelayView(will="yes", bytes_s=1000, budget_bytes_s=2_500_000, pairs=2, forwarded_bytes=123_456_789),
    degraded=True,
    warnings=("A107: the clock was set back", "full"),
    dropped={"tun-queue": 3, "session-stale": 1},
    environments=2,
    datagrams={"sent": 10, "lost": 0},
    components=(DISK, SEEN),
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def families(view: StatusView) -> list[Metric]:
    return list(text_string_to_metric_families(exposition(view)))


def samples(view: StatusView) -> Samples:
    """Return each sample by name and labels; none may be there twice."""
    found: Samples = {}
    for family in families(view):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def at(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def states(name: str, label: str, told: dict[str, str], known: tuple[str, ...]) -> Samples:
    return {at(name, **{label: who, "state": s}): float(s == is_in) for who, is_in in told.items() for s in known}


EXPECTED: Samples = {
    at("atoll_build_info", version="0.1.0"): 1.0,
    at("atoll_uptime_seconds"): 90.5,
    at("atoll_degraded"): 1.0,
    at("atoll_warnings"): 2.0,
    at("atoll_dropped_packets_total", reason="tun-queue"): 3.0,
    at("atoll_dropped_packets_total", reason="session-stale"): 1.0,
    at("atoll_environments"): 2.0,
    at("atoll_environment_datagrams_total", fate="sent"): 10.0,
    at("atoll_environment_datagrams_total", fate="lost"): 0.0,
    at("atoll_relay_forwarded_bytes_total"): 123_456_789.0,
    at("atoll_relay_bytes_per_second"): 1000.0,
    at("atoll_relay_budget_bytes_per_second"): 2_500_000.0,
    at("atoll_relay_pairs"): 2.0,
    **states("atoll_peer_state", "peer", {"ash": "ok", "new": "connecting", "sin": "slow"}, PEER_STATES),
    at("atoll_peer_last_heard_seconds", peer="ash"): 0.5,
    at("atoll_peer_last_heard_seconds", peer="sin"): 0.5,
    at("atoll_peer_dropped_packets_total", peer="ash", reason="packet-foreign"): 7.0,
    at("atoll_path_round_trip_seconds", peer="ash", path="direct"): 0.08,
    at("atoll_path_round_trip_seconds", peer="sin", path="via ash"): 0.25,
    at("atoll_path_round_trip_deviation_seconds", peer="ash", path="direct"): 0.001,
    at("atoll_path_round_trip_deviation_seconds", peer="sin", path="via ash"): 0.002,
    at("atoll_path_loss_ratio", peer="ash", path="direct"): 0.25,
    at("atoll_path_loss_ratio", peer="sin", path="via ash"): 0.0,
    **states("atoll_component_state", "component", {"disk": "slow", "seen": "unknown"}, COMPONENT_STATES),
    at("atoll_component_latency_seconds", component="disk"): 1.5,
    at("atoll_component_usual_latency_seconds", component="disk"): 0.012,
    at("atoll_component_samples_total", component="disk"): 40.0,
}


def test_a_full_status_has_exactly_these_samples() -> None:
    assert samples(FULL) == EXPECTED


def test_each_metric_is_told_of_and_has_a_type() -> None:
    for family in families(replace(FULL, peers=(), components=(), dropped={})):  # Also those without a sample.
        assert family.documentation.endswith(".")
        assert family.type in {"gauge", "counter"}
    assert exposition(FULL).endswith("\n")


def test_what_is_unknown_has_no_sample_and_is_never_zero() -> None:
    told = samples(replace(FULL, peers=(NEW,), components=(SEEN,)))
    assert {name for name, labels in told if ("peer", "new") in labels} == {"atoll_peer_state"}
    assert {name for name, labels in told if ("component", "seen") in labels} == {"atoll_component_state"}


def test_a_state_of_a_later_version_is_told_beside_those_that_are_known() -> None:
    told = samples(replace(FULL, peers=(replace(ASH, state="asleep"),)))
    assert [labels for (name, labels), value in told.items() if name == "atoll_peer_state" and value] == [
        frozenset({("peer", "ash"), ("state", "asleep")})
    ]


def test_two_components_of_one_name_do_not_cost_the_whole_answer() -> None:
    told = samples(replace(FULL, components=(DISK, replace(DISK, newest_ms=9.0), SEEN)))
    assert told[at("atoll_component_latency_seconds", component="disk")] == 1.5


@given(
    name=st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(['di"sk', "a\\", "\\n", "a\nb", '\\"\n'])
)
def test_any_name_of_a_component_comes_back_as_it_was(name: str) -> None:
    told = samples(replace(FULL, components=(replace(DISK, name=name),)))
    assert told[at("atoll_component_samples_total", component=name)] == 40.0


# The dashboard and the alert rules.

NAMES = {name for name, _ in EXPECTED}
METRIC = re.compile(r"\batoll_\w+\b")


# Its queries, those of its variables too.
EXPRESSIONS: list[str] = [
    *(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]),
    *(one["definition"] for one in DASHBOARD["templating"]["list"] if "definition" in one),
]


def test_the_dashboard_asks_for_what_there_is_and_shows_all_of_it() -> None:
    asked = {name for expression in EXPRESSIONS for name in METRIC.findall(expression)}
    assert asked <= NAMES
    assert NAMES - asked == {
        "atoll_component_samples_total",  # For who wants to know whether anything is reported.
        "atoll_relay_bytes_per_second",  # The counter says the same over any time.
    }


def test_the_dashboard_takes_the_data_source_and_the_labels_from_its_variables() -> None:
    variables = {one["name"] for one in DASHBOARD["templating"]["list"]}
    assert DASHBOARD["schemaVersion"] >= 39
    assert {one["uid"] for panel in DASHBOARD["panels"] for one in (panel["datasource"],)} == {"${datasource}"}
    used = {name for text in EXPRESSIONS for name in re.findall(r"\$(\w+)", text)}
    assert used - {"__rate_interval"} <= variables
    labels = {label for text in EXPRESSIONS for label in re.findall(r"(\w+)=", text)}
    known = {label for _, pairs in EXPECTED for label, _ in pairs}
    assert labels <= known | {"instance"}  # Prometheus adds that one.


def test_the_dashboards_panels_have_their_own_places() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_the_alert_rules_and_the_table_of_the_page_name_what_there_is() -> None:
    rules = PAGE.partition("groups:")[2]
    assert len(re.findall(r"- alert: ", rules)) == len(re.findall(r"expr: ", rules))
    named = set(METRIC.findall(rules))
    assert {"atoll_degraded", "atoll_component_state"} <= named <= NAMES
    rows = re.findall(r"^\| `(atoll_\w+)` \| (.*?) \|", PAGE, re.MULTILINE)
    assert {name for name, _ in rows} == NAMES
    for name, listed in rows:
        told = {label for known, pairs in EXPECTED for label, _ in pairs if known == name}
        assert set(re.findall(r"`(\w+)`", listed)) == told, name


# Who is answered, and what.


def asked(line: str = "GET /metrics HTTP/1.1", *fields: str, host: str = "Host: 127.0.0.1:9747") -> HTTPStatus:
    """Return the answer to a request; this server is called fra."""
    head = "\r\n".join((line, *((host,) if host else ()), *fields))
    return judge(head.encode("latin-1"), lambda name: name in {"fra", "fra.atoll"})[0]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /metrics HTTP/1.1", OK),
        ("GET /metrics HTTP/1.0", OK),
        ("HEAD /metrics?name[]=x HTTP/1.1", OK),
        ("GET HTTP://fra:9747/metrics HTTP/1.1", OK),
        ("GET http://evil.example/metrics HTTP/1.1", MISDIRECTED),
        ("GET http://fra HTTP/1.1", NOT_FOUND),
        ("GET / HTTP/1.1", NOT_FOUND),
        ("GET /metrics/ HTTP/1.1", NOT_FOUND),
        ("GET /METRICS HTTP/1.1", NOT_FOUND),
        ("OPTIONS * HTTP/1.1", NOT_FOUND),
        ("CONNECT fra:9747 HTTP/1.1", NOT_FOUND),
        ("POST /metrics HTTP/1.1", REFUSED),
        ("get /metrics HTTP/1.1", REFUSED),
        ("PRI * HTTP/2.0", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED),
        ("", BAD),
        ("GET", BAD),
        ("GET /metrics", BAD),
        ("GET  /metrics HTTP/1.1", BAD),
        ("GET /met rics HTTP/1.1", BAD),
        ("GET /metrics HTTP/1.1 ", BAD),
        ("GET /metrics http/1.1", BAD),
        ("GET /m\xe9trics HTTP/1.1", BAD),
        ("GET /metrics\x00 HTTP/1.1", BAD),
        ("GET\n/metrics HTTP/1.1", BAD),
    ],
)
def test_one_path_and_two_methods_are_answered(line: str, status: HTTPStatus) -> None:
    assert asked(line) is status


@pytest.mark.parametrize(
    "field", ["Host: x", "no colon", " folded: x", "spaced : x", "a: b\x00", "a: b\nc: d", ":", "\xe9: x"]
)
def test_a_field_that_is_none_or_a_second_host_is_a_bad_request(field: str) -> None:
    assert asked("GET /metrics HTTP/1.1", "Accept: */*", "X: \t\xe9 ") is OK
    assert asked("GET /metrics HTTP/1.1", field) is BAD


def test_without_a_host_it_is_a_bad_request() -> None:
    assert asked(host="") is BAD


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "192.0.2.7:9747", "[::1]", "[fd00::1]:9747", "[fe80::1%eth0]:1"),
        *("localhost", "LocalHost:80", "localhost.", "fra", "FRA:", "fra.atoll.:1"),
    ],
)
def test_hosts_that_nobody_else_can_make_lead_here_are_answered(host: str) -> None:
    assert asked(host=f"Host:{host}") is OK
    assert asked(host=f"hOST: \t{host} ") is OK


@pytest.mark.parametrize(
    "host",
    [
        *("", " ", "evil.example", "evil.example:9747", "127.0.0.1.evil.example", "localhost.evil.example", "a@fra"),
        *(
            "fra/",
            "::1",
            "[fra]",
            "[::1",
            "[::1]x",
            "fra:x",
            "fra:1:1",
            "2130706433",
            "0x7f.1",
            "127.1",
            "fr\xe9",
            "fra..",
        ),
    ],
)
def test_a_name_that_somebody_made_lead_here_is_not_answered(host: str) -> None:
    assert asked(host=f"Host: {host}") is MISDIRECTED


def test_only_head_goes_without_a_body() -> None:
    for line, has_body in (("HEAD / HTTP/1.1", False), ("GET / HTTP/1.1", True), ("", True)):
        assert judge(line.encode() + b"\r\nHost: fra", lambda _: True)[1] is has_body


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([b"GET", b" ", b"/", b"\r\n", b"Host", b":", b"[", b"%", b"\t"])).map(b"".join)
)
def test_no_bytes_make_it_raise(head: bytes) -> None:
    for line in (b"", b"GET /metrics HTTP/1.1\r\n", b"GET /metrics HTTP/1.1\r\nHost: "):
        judge(line + head, lambda _: False)


def test_blanks_cost_no_more_than_their_number() -> None:
    """Longest head there is, of what makes a careless expression take hours."""
    head = b"GET /metrics HTTP/1.1\r\nHost: fra\r\nX:" + b" \t" * 4000 + b"\x00"
    assert judge(head, lambda _: True)[0] is BAD
